//! Addresses of simulated instances. Taking and giving back is O(1).

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

use crate::RuntimeError;

/// What hands out addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    shared: Option<SocketAddr>,
    range: Option<RangeInclusive<u16>>,
    quarantine: Duration,
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
    serial: u32,
}

impl Addresses {
    pub(super) fn new(
        shared: Option<SocketAddr>,
        range: Option<RangeInclusive<u16>>,
        quarantine: Duration,
    ) -> Self {
        Self {
            shared,
            free: range.clone().into_iter().flatten().collect(),
            range,
            quarantine,
            resting: VecDeque::new(),
            serial: 0,
        }
    }

    /// An address, and the port of the range that it holds, if there is a range.
    pub(super) fn take(&mut self, now: Instant) -> Result<(SocketAddr, Option<u16>), RuntimeError> {
        let port = match &self.range {
            None => None,
            Some(range) => {
                while self.resting.front().is_some_and(|(until, _)| *until <= now) {
                    self.free
                        .extend(self.resting.pop_front().map(|(_, port)| port));
                }
                let exhausted = RuntimeError::PortsExhausted {
                    from: *range.start(),
                    to: *range.end(),
                };
                Some(self.free.pop_front().ok_or(exhausted)?)
            }
        };
        let address = match (self.shared, port) {
            (Some(shared), _) => shared,
            (None, Some(port)) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            // Nothing listens there; they only have to differ, as pods' do.
            (None, None) => {
                self.serial = self.serial.wrapping_add(1);
                let [_, b, c, d] = self.serial.to_be_bytes();
                SocketAddr::from((Ipv4Addr::new(10, b, c, d), 7_777))
            }
        };
        Ok((address, port))
    }

    pub(super) fn give_back(&mut self, port: u16, now: Instant) {
        self.resting.push_back((now + self.quarantine, port));
    }
}
