//! A round of spice over WebSocket.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Client, beat_heart};
use crate::api::Way;
use crate::fault::{Fault, Phase};
use crate::report::ms;
use crate::schedule::Beat;
use crate::spice;

impl Client {
    /// A round over WebSocket. It ends when it was played long enough: nobody has to be forced.
    pub(super) async fn round_of_spice(
        &mut self,
        session: &str,
        way: Way,
        matched: Instant,
    ) -> Result<bool, Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let (mut socket, mut own_id) = loop {
            match self
                .reach_spice(&way, matched + plan.timeout, Some(matched))
                .await
            {
                Ok(reached) => break reached,
                Err(fault) => self.bear(fault).await?,
            }
        };
        self.failing_since = None;
        self.enter(Phase::Play);
        let start = Instant::now();
        let mut terms = spice::Terms {
            until: start + plan.match_duration,
            beat: Beat::new(start, plan.poll.mul_f64(self.dice.share()), plan.poll),
            dice: self.dice.clone(),
            round_trips: &shared.round_trips,
            inputs: &shared.inputs,
        };
        loop {
            // As the page does that this game is played on.
            let over = tokio::select! {
                over = spice::watch(&mut socket, own_id, &mut terms) => over?,
                () = beat_heart(&mut self.api, session) => spice::Over::Closed,
            };
            if over == spice::Over::Closed {
                let (lost_at, limit) = (Instant::now(), terms.until + plan.margin);
                if let Some(reached) = self.back_to_spice(session, &way, lost_at, limit).await? {
                    (socket, own_id) = reached;
                    continue;
                }
            }
            terms.beat.settle(terms.until, &shared.round_trips);
            self.row.play_ms = Some(ms(start.elapsed()));
            return Ok(false);
        }
    }

    async fn back_to_spice(
        &mut self,
        session: &str,
        way: &Way,
        lost_at: Instant,
        limit: Instant,
    ) -> Result<Option<(spice::Socket, i64)>, Fault> {
        let mut first = true;
        while self.lives_on(session, lost_at, first).await? {
            first = false;
            match self.reach_spice(way, limit, None).await {
                Ok(reached) => {
                    self.is_back();
                    return Ok(Some(reached));
                }
                Err(fault) => {
                    self.enter(Phase::Play);
                    self.bear(fault).await?;
                }
            }
        }
        Ok(None)
    }

    async fn reach_spice(
        &mut self,
        way: &Way,
        limit: Instant,
        matched: Option<Instant>,
    ) -> Result<(spice::Socket, i64), Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let url = way
            .ws_url
            .as_deref()
            .ok_or_else(|| Fault::new("odd_answer", "matched, and no wsUrl"))?;
        let address = socket_address(url)
            .ok_or_else(|| Fault::new("odd_answer", "wsUrl cannot be dialled"))?;
        let left = limit.saturating_duration_since(Instant::now());
        self.enter(Phase::Connect);
        let dialled = Instant::now();
        let host = plan.host_override.as_ref().unwrap_or(&address.host);
        let stream = shared
            .dialer
            .dial(host, address.port, address.tls, left)
            .await?;
        let dial = dialled.elapsed();
        self.enter(Phase::Start);
        let opened = async {
            let mut socket = spice::open(url, stream).await?;
            let own_id = spice::first_word(&mut socket).await?;
            Ok((socket, own_id))
        };
        let reached = tokio::time::timeout(left.saturating_sub(dial), opened)
            .await
            .unwrap_or_else(|_| Err(Fault::new("not_ready", "the game said nothing in time")))?;
        self.note_reached(matched, dial);
        Ok(reached)
    }
}

struct SocketAddress {
    tls: bool,
    host: String,
    port: u16,
}

fn socket_address(url: &str) -> Option<SocketAddress> {
    let uri: http::Uri = url.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "ws" => false,
        "wss" => true,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddress {
        tls,
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_websockets() {
        let a = socket_address("wss://games.example.com/session/x?token=t").unwrap();
        assert_eq!((a.tls, &*a.host, a.port), (true, "games.example.com", 443));
        let a = socket_address("ws://[::1]:8080/session/x").unwrap();
        assert_eq!((a.tls, &*a.host, a.port), (false, "::1", 8080));
        assert!(socket_address("http://x").is_none() && socket_address("").is_none());
    }
}
