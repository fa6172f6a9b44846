//! One simulated player: joins, waits, connects, plays, ends. The only place that knows the order of things.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Credentials, Ticket, Way};
use crate::dial::Dialer;
use crate::fault::{Fault, Phase};
use crate::http::Http;
use crate::lines::Lines;
use crate::plan::{Mode, Plan, TokenLine};
use crate::progress::{Ended, Place, Progress};
use crate::report::{ClientRow, FaultLog, Outcome, ms};
use crate::schedule::{Beat, Dice, start_of};
use crate::stats::Times;
use crate::target::Target;
use crate::{play, spice};

/// A connection that ended this much before the match's time may have been lost: then the server is asked.
const EARLY: Duration = Duration::from_secs(1);
/// A match that lasted less than this share of its time was cut short. Timers are not the same on two machines; a cut is no matter of
/// percents.
const SHORT: f64 = 0.95;
/// How long the server is given to notice that a game has ended before its session counts as live.
const NOTICE_S: f64 = 2.0;
/// Between heartbeats of clients whom no gateway sees; the documented default.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pauses before the next try, growing from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// For leaving a queue or ending a session behind a client that gives up.
const CLEANUP: Duration = Duration::from_secs(5);

/// What the clients of a run share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) target: Arc<Target>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) progress: Progress,
    pub(crate) cancel: CancellationToken,
    /// The queue to join, where it is known or named.
    pub(crate) queue: Option<String>,
    /// Whether players come through the gateway; unknown to guests.
    pub(crate) through_gateway: Option<bool>,
    /// What players' names begin with.
    pub(crate) prefix: String,
    pub(crate) began: Instant,
    pub(crate) round_trips: Times,
    pub(crate) inputs: Times,
    pub(crate) start_lag: Times,
    pub(crate) recovered: Mutex<FaultLog>,
}

impl Shared {
    pub(crate) fn api(&self) -> Api {
        let http = Http::new(Arc::clone(&self.dialer), Arc::clone(&self.target));
        let credentials = Credentials {
            key: self.plan.key.clone(),
            token: None,
        };
        Api::new(http, credentials)
    }
}

struct Client {
    shared: Arc<Shared>,
    api: Api,
    row: ClientRow,
    place: Place,
    dice: Dice,
    phase: Phase,
    /// Since when nothing worked.
    failing_since: Option<Instant>,
    pause: Duration,
}

/// Lives one client's life; the row says how it went.
pub(crate) async fn live(number: usize, shared: Arc<Shared>) -> ClientRow {
    let intended = start_of(number, shared.plan.spawn_rate);
    let mut client = Client {
        api: shared.api(),
        row: ClientRow::new(number, intended),
        place: Place::nowhere(shared.progress.clone()),
        dice: Dice::new(shared.plan.seed, number),
        phase: Phase::Queue,
        failing_since: None,
        pause: PAUSES[0],
        shared: Arc::clone(&shared),
    };
    let cancel = shared.cancel.clone();
    let lived = tokio::select! {
        lived = client.life(shared.began + intended) => Some(lived),
        () = cancel.cancelled() => None,
    };
    client.place.leave();
    match lived {
        Some(Ok(forced)) => {
            client.row.outcome = if forced {
                Outcome::Forced
            } else {
                Outcome::Done
            };
        }
        Some(Err(fault)) => {
            client.row.failed(client.phase, fault);
            client.clean_up(false).await;
        }
        None => {
            client.row.stopped_in = client.row.started_ms.map(|_| client.phase);
            client.clean_up(true).await;
        }
    }
    shared.progress.finish(match client.row.outcome {
        Outcome::Done | Outcome::Forced => Ended::Good,
        Outcome::Failed => Ended::Failed,
        Outcome::Interrupted => Ended::Interrupted,
    });
    client.row.finished_ms = ms(shared.began.elapsed());
    client.row.token = client.api.credentials.token.take();
    client.row
}

impl Client {
    /// All of it; `true` if the end had to be forced.
    async fn life(&mut self, intended: Instant) -> Result<bool, Fault> {
        sleep_until(intended).await;
        self.enter(Phase::Queue);
        self.row.started_ms = Some(ms(self.shared.began.elapsed()));
        self.shared.start_lag.record(intended.elapsed());
        let ticket = self.wait_for_match(intended).await?;
        let matched = Instant::now();
        // From the intended start: what this machine was late counts as waiting, not as nothing.
        self.row.queue_ms = Some(ms(matched - intended));
        let session = ticket
            .way
            .session_id
            .clone()
            .ok_or_else(|| Fault::new("odd_answer", "matched, and no session_id"))?;
        self.row.session_id = Some(session.clone());
        self.row.fleet.clone_from(&ticket.way.fleet);
        let forced = match self.shared.plan.mode {
            Mode::Tcp => self.match_of_lines(&session, ticket.way, matched).await?,
            Mode::WebSocket => self.round_of_spice(&session, ticket.way, matched).await?,
        };
        if !self.shared.plan.wait_only {
            self.enter(Phase::End);
            let called = Instant::now();
            while let Err(fault) = self.api.end(&session, self.shared.plan.timeout).await {
                self.bear(fault).await?;
            }
            self.row.end_ms = Some(ms(called.elapsed()));
        }
        Ok(forced)
    }

    /// Joins the queue and stays until there is a match.
    async fn wait_for_match(&mut self, intended: Instant) -> Result<Ticket, Fault> {
        let shared = Arc::clone(&self.shared);
        let deadline = intended + shared.plan.timeout;
        if !shared.plan.guests {
            self.row.player_id = Some(format!("{}-{}", shared.prefix, self.row.client));
        }
        // The ticket we were told of; without one the next call is to join.
        let mut held: Option<String> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Fault::new(
                    "no_match",
                    format!("not matched within {} s", shared.plan.timeout.as_secs_f64()),
                ));
            }
            let player = self.row.player_id.clone();
            let answered = match (&player, &held) {
                (Some(player), Some(ticket)) => self.api.status(player, ticket, left).await,
                _ => {
                    let queue = shared.queue.as_deref();
                    self.api.join(player.as_deref(), queue, left).await
                }
            };
            let ticket = match answered {
                Ok(ticket) => ticket,
                Err(fault) => {
                    // The server that comes back may have forgotten the ticket; joining again is harmless.
                    held = None;
                    self.bear(fault).await?;
                    continue;
                }
            };
            self.failing_since = None;
            if let Some(token) = &ticket.way.token {
                self.api.credentials.token = Some(token.clone());
            }
            if self.row.player_id.is_none() {
                self.row.player_id.clone_from(&ticket.player_id);
            }
            match (ticket.status.as_str(), ticket.ticket_id.clone()) {
                ("matched", _) => return Ok(ticket),
                ("queued", Some(id)) => held = Some(id),
                ("lost" | "none", _) if held.is_some() => {
                    held = None;
                    let class = ticket.code.unwrap_or_else(|| "ticket_lost".to_owned());
                    let detail = ticket.detail.unwrap_or_default();
                    self.bear(Fault::transport(class, detail)).await?;
                }
                (other, _) => {
                    return Err(Fault::new("odd_answer", format!("ticket status {other:?}")));
                }
            }
        }
    }

    /// A match over TCP; `true` if it outlived its time.
    async fn match_of_lines(
        &mut self,
        session: &str,
        mut way: Way,
        matched: Instant,
    ) -> Result<bool, Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let mut from = matched;
        let mut deadline: Option<Instant> = None;
        let mut began = None;
        let mut beat = None;
        let mut asked_for_it = false;
        loop {
            let (mut lines, state) = loop {
                match self.reach(session, &mut way, from, deadline).await {
                    Ok(reached) => break reached,
                    Err(fault) => self.bear(fault).await?,
                }
            };
            self.failing_since = None;
            self.enter(Phase::Play);
            let now = Instant::now();
            let start = *began.get_or_insert(now);
            asked_for_it |= state == "open";
            let until = *deadline.get_or_insert(start + plan.match_duration + plan.margin);
            let first = plan.poll.mul_f64(self.dice.share());
            let terms = play::Terms {
                duration: plan.match_duration,
                ends: start + plan.match_duration,
                deadline: until,
                beat: beat
                    .get_or_insert_with(|| Beat::new(start, first, plan.poll))
                    .clone(),
                round_trips: &shared.round_trips,
            };
            let over = if shared.through_gateway == Some(false) {
                tokio::select! {
                    over = play::watch(&mut lines, &state, terms) => over?,
                    () = beat_heart(&mut self.api, session) => play::Over::Closed,
                }
            } else {
                // A player's device would let it go, too.
                self.api.rest();
                play::watch(&mut lines, &state, terms).await?
            };
            drop(lines);
            let ended = Instant::now();
            let forced = match over {
                play::Over::Overdue if plan.wait_only => {
                    return Err(Fault::new(
                        "not_ended",
                        format!(
                            "the match still ran {} s after its time",
                            plan.margin.as_secs_f64()
                        ),
                    ));
                }
                play::Over::Overdue => true,
                play::Over::Closed
                    if ended + EARLY < start + plan.match_duration
                        && !self.is_over(session).await? =>
                {
                    let fault = Fault::transport(
                        "connection_lost",
                        "the connection ended and the match did not",
                    );
                    self.bear(fault).await?;
                    self.row.reconnects += 1;
                    from = Instant::now();
                    beat = None;
                    if shared.through_gateway == Some(false) {
                        // Another instance has another port.
                        way.connect_port = None;
                    }
                    continue;
                }
                play::Over::Closed | play::Over::Stopped => false,
            };
            // Whoever asked for the match knows when it began; who came later does not.
            let short = plan.match_duration.mul_f64(SHORT);
            if asked_for_it && ended < start + short {
                return Err(Fault::new(
                    "ended_early",
                    format!(
                        "a match of {} s ended after {:.1} s",
                        plan.match_duration.as_secs_f64(),
                        (ended - start).as_secs_f64()
                    ),
                ));
            }
            self.row.play_ms = Some(ms(ended - start));
            return Ok(forced);
        }
    }

    /// Finds the game, dials it and hears its first word.
    async fn reach(
        &mut self,
        session: &str,
        way: &mut Way,
        from: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Lines, String), Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let first_time = self.row.start_ms.is_none();
        let limit = deadline.unwrap_or(from + plan.timeout);
        let left = || limit.saturating_duration_since(Instant::now());
        self.enter(Phase::Start);
        let (host, port) = loop {
            if let (Some(host), Some(port)) = (&way.connect_host, way.connect_port) {
                break (host.clone(), port);
            }
            if left().is_zero() {
                return Err(Fault::new("not_ready", "the game was not ready in time"));
            }
            let player = self.row.player_id.clone().unwrap_or_default();
            let found = self.api.way(session, &player, left()).await?;
            if let Some(token) = &found.token {
                self.api.credentials.token = Some(token.clone());
            }
            *way = found;
        };
        self.enter(Phase::Connect);
        let host = plan.host_override.clone().unwrap_or(host);
        let dialled = Instant::now();
        let stream = shared.dialer.dial(&host, port, false, left()).await?;
        let dial = dialled.elapsed();
        self.enter(Phase::Start);
        let mut lines = Lines::new(stream);
        let token = self.api.credentials.token.clone();
        let line = match plan.token_line {
            TokenLine::Always => token,
            TokenLine::Never => None,
            TokenLine::Auto if shared.through_gateway == Some(false) => None,
            TokenLine::Auto => token,
        };
        if let Some(token) = &line {
            lines.send(&format!("SPAWNPOINT {token}")).await?;
        }
        let forgiving = line.is_some() && shared.through_gateway.is_none();
        let first = play::first_word(&mut lines, forgiving);
        let state = tokio::time::timeout(left(), first)
            .await
            .unwrap_or_else(|_| Err(Fault::new("not_ready", "the game said nothing in time")))?;
        if first_time {
            self.row.connect_ms = Some(ms(dial));
            self.row.start_ms = Some(ms(from.elapsed().saturating_sub(dial)));
        }
        Ok((lines, state))
    }

    /// A round over WebSocket. It ends when it was played long enough: nobody has to be forced.
    async fn round_of_spice(
        &mut self,
        session: &str,
        way: Way,
        matched: Instant,
    ) -> Result<bool, Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let mut from = matched;
        let mut began = None;
        loop {
            let (mut socket, own_id) = loop {
                match self.reach_spice(&way, from).await {
                    Ok(reached) => break reached,
                    Err(fault) => self.bear(fault).await?,
                }
            };
            self.failing_since = None;
            self.enter(Phase::Play);
            self.api.rest();
            let now = Instant::now();
            let start = *began.get_or_insert(now);
            let terms = spice::Terms {
                until: start + plan.match_duration,
                beat: Beat::new(now, plan.poll.mul_f64(self.dice.share()), plan.poll),
                dice: self.dice.clone(),
                round_trips: &shared.round_trips,
                inputs: &shared.inputs,
            };
            let over = spice::watch(&mut socket, own_id, terms).await?;
            if over == spice::Over::Closed && !self.is_over(session).await? {
                let fault = Fault::transport(
                    "connection_lost",
                    "the connection ended and the session did not",
                );
                self.bear(fault).await?;
                self.row.reconnects += 1;
                from = Instant::now();
                continue;
            }
            self.row.play_ms = Some(ms(start.elapsed()));
            return Ok(false);
        }
    }

    async fn reach_spice(
        &mut self,
        way: &Way,
        from: Instant,
    ) -> Result<(spice::Socket, i64), Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let url = way
            .ws_url
            .as_deref()
            .ok_or_else(|| Fault::new("odd_answer", "matched, and no wsUrl"))?;
        let address = socket_address(url)
            .ok_or_else(|| Fault::new("odd_answer", "wsUrl cannot be dialled"))?;
        let left = (from + plan.timeout).saturating_duration_since(Instant::now());
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
        if self.row.start_ms.is_none() {
            self.row.connect_ms = Some(ms(dial));
            self.row.start_ms = Some(ms(from.elapsed().saturating_sub(dial)));
        }
        Ok(reached)
    }

    /// Whether the session has ended, as the server sees it; it is given a moment to notice.
    async fn is_over(&mut self, session: &str) -> Result<bool, Fault> {
        loop {
            match self.api.session(session, NOTICE_S).await {
                Ok(found) => return Ok(found.is_over()),
                Err(fault) => self.bear(fault).await?,
            }
        }
    }

    /// Puts up with a fault if the plan says so and it may pass; then waits a little. Otherwise gives it back.
    async fn bear(&mut self, fault: Fault) -> Result<(), Fault> {
        let limit = self.shared.plan.reconnect;
        if !fault.transient || limit.is_zero() {
            return Err(fault);
        }
        let now = Instant::now();
        let since = match self.failing_since {
            Some(since) => since,
            None => {
                self.failing_since = Some(now);
                self.pause = PAUSES[0];
                now
            }
        };
        if now >= since + limit {
            return Err(fault);
        }
        self.shared
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(self.phase, &fault.class, &fault.detail);
        // Together they would come back as one wave.
        sleep(self.pause.mul_f64(0.5 + self.dice.share() / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSES[1]);
        Ok(())
    }

    /// Leaves nothing behind: no ticket that another player would be matched with, no place in a session that nobody plays. Who fails
    /// only leaves: the partner's match is not to be cut short and then look as if it had ended. When the whole run is given up, so are
    /// its sessions.
    async fn clean_up(&mut self, giving_up: bool) {
        if self.row.started_ms.is_none() {
            return;
        }
        // How it goes does not change what happened before.
        let _ = match (&self.row.session_id, &self.row.player_id) {
            (Some(session), _) if giving_up => self.api.end(session, CLEANUP).await,
            (Some(session), Some(player)) => self.api.quit(session, player, CLEANUP).await,
            (None, Some(player)) => self.api.leave(player, CLEANUP).await,
            (_, None) => Ok(()),
        };
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.place.enter(phase);
    }
}

/// Says that the player is there, for games that no gateway carries. Never returns while the server takes it; a heartbeat that fails is
/// the next one's business, and the records show what came of it.
async fn beat_heart(api: &mut Api, session: &str) {
    loop {
        let _ = api.heartbeat(session).await;
        sleep(HEARTBEAT).await;
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
