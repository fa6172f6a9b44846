//! The polling of one start: when does the instance accept, by its rule?
//!
//! The first polls come a millisecond apart, because a player waits; each is two or three system calls and none is a connection,
//! except under the rule `http`, which asks for one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use spawnpoint_core::{InstanceId, Moment};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gone::ShimGone;
use super::listeners::{Prober, Seen, Transport};
use super::operations::transport;
use super::pages::{ProcessId, RunFile, Stamp, Status};
use super::record::ReadyRecord;
use super::shared::{Shared, Slot};
use super::supervise::blocking;
use super::tree;

/// A start is looked at this often at first ...
const EAGER_POLL: Duration = Duration::from_millis(1);
/// ... for this long ...
const EAGER_FOR: Duration = Duration::from_millis(200);
/// ... and then this often: a game that takes longer does not notice.
const PATIENT_POLL: Duration = Duration::from_millis(25);
/// Every so many patient polls whole socket tables are read, for games that listen on one address of the machine only.
const THOROUGH_EVERY: u32 = 10;
/// Looks in a row that must find a stranger: between accept and fork a listener may be in nobody's table for an instant.
const FOREIGN_LOOKS: u32 = 3;
/// One ready request over HTTP.
const HTTP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a start is no longer polled.
pub(super) enum Started {
    Ready,
    ShimGone,
}

/// The polling of one start.
pub(super) struct Start {
    id: InstanceId,
    attempt: u32,
    rule: ReadyRecord,
    transport: Transport,
    port: u16,
    shim: ProcessId,
    run: RunFile,
    prober: Prober,
    status: Option<Status>,
    since: Moment,
    polls: u32,
    foreign: u32,
}

impl Start {
    /// `None` if the instance's files are gone.
    pub(super) fn new(shared: &Shared, id: InstanceId, shim: ProcessId) -> Option<Self> {
        let run = RunFile::open(&shared.dir(id)).ok()?;
        let (attempt, rule, transport, port) = shared
            .with_entry(id, |_, entry| {
                let record = &entry.record;
                Ok((
                    record.attempt,
                    record.template.ready.clone(),
                    transport(record),
                    record.port.unwrap_or(0),
                ))
            })
            .ok()?;
        Some(Self {
            id,
            attempt,
            rule,
            transport,
            port,
            shim,
            run,
            prober: Prober::new(),
            status: None,
            since: shared.now(),
            polls: 0,
            foreign: 0,
        })
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) async fn poll_until_ready(
        &mut self,
        shared: &Arc<Shared>,
        slot: &Slot,
        gone: &ShimGone,
    ) -> Started {
        loop {
            if !still_starting(slot) {
                return Started::Ready;
            }
            let eager = shared.now().since(self.since) < EAGER_FOR;
            let accepts = tokio::select! {
                biased;
                () = gone.wait() => return Started::ShimGone,
                accepts = self.poll(shared, eager) => accepts,
            };
            if let Some((at, address)) = accepts {
                let (id, attempt) = (self.id, self.attempt);
                blocking(shared, move |s| s.accept(id, attempt, at, address)).await;
                return Started::Ready;
            }
            let pause = if eager { EAGER_POLL } else { PATIENT_POLL };
            tokio::select! {
                () = gone.wait() => return Started::ShimGone,
                () = slot.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look. `Some` when the instance accepts, since when and where.
    async fn poll(
        &mut self,
        shared: &Arc<Shared>,
        eager: bool,
    ) -> Option<(Stamp, Option<SocketAddr>)> {
        self.polls = self.polls.wrapping_add(1);
        if let Ok(Some(status)) = self.run.read::<Status>()
            && status.attempt == self.attempt
            && self.status.as_ref() != Some(&status)
        {
            self.status = Some(status.clone());
            let id = self.id;
            blocking(shared, move |s| s.note_status(id, status)).await;
        }
        let status = self.status.as_ref()?;
        let game = status.game?;
        match &self.rule {
            ReadyRecord::None => Some((status.spawned_at.clone()?, None)),
            ReadyRecord::Log(_) => Some((status.line_seen_at.clone()?, None)),
            ReadyRecord::Sdk => None,
            ReadyRecord::Dial => {
                let address = self.look(eager, game)?;
                Some((shared.stamp(), Some(address)))
            }
            ReadyRecord::Http(path) => {
                let path = path.clone();
                let address = self.look(eager, game)?;
                let answer = tokio::time::timeout(HTTP_TIMEOUT, get(address, &path)).await;
                matches!(answer, Ok(Ok(200..=399))).then(|| (shared.stamp(), Some(address)))
            }
        }
    }

    /// Where the instance listens, if it does. A stranger on the port costs the game its start: it ends, and is moved.
    fn look(&mut self, eager: bool, game: ProcessId) -> Option<SocketAddr> {
        let thorough = !eager && self.polls.is_multiple_of(THOROUGH_EVERY);
        match self
            .prober
            .look(self.transport, self.port, self.shim.pid, thorough)
        {
            Seen::Ours(address) => return Some(address),
            Seen::Nobody => self.foreign = 0,
            Seen::Foreign => {
                self.foreign += 1;
                if self.foreign == FOREIGN_LOOKS {
                    // Found again as "port taken" when its shim has said how it ended.
                    let _ = tree::signal(game, Signal::KILL);
                }
            }
        }
        None
    }
}

fn still_starting(slot: &Slot) -> bool {
    slot.view()
        .is_some_and(|i| i.state == crate::State::Starting)
}

/// `GET path`; the status.
async fn get(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: spawnpoint-ready\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.1 200": no more of the answer is of interest.
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).await?;
    let text = std::str::from_utf8(&head).map_err(io::Error::other)?;
    text.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}
