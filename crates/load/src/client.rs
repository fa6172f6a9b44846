//! One simulated player: joins, waits, connects, plays, ends. The only place that knows the order of things.

mod tcp;
mod websocket;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Credentials, Ticket};
use crate::dial::Dialer;
use crate::fault::{Fault, Phase};
use crate::http::Http;
use crate::plan::{Mode, Plan};
use crate::progress::{Ended, Place, Progress};
use crate::report::{ClientRow, FaultLog, Outcome, ms};
use crate::schedule::{Dice, start_of};
use crate::stats::Times;
use crate::target::Target;

/// How long the server may take to notice that a game has ended.
const NOTICE: Duration = Duration::from_secs(2);
/// Pauses before the next try, growing from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// For leaving a queue or ending a session behind a client that gives up.
const CLEANUP: Duration = Duration::from_secs(5);
/// Between heartbeats, until the server says how often it wants to hear: the documented default, as in the browser client.
const HEARTBEAT: Duration = Duration::from_secs(5);

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
    client.api.sent().plays(false, Instant::now());
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
    client.row.sent = client.api.sent().clone();
    client.row.requests = client.row.sent.total();
    client.row.requests_playing = client.row.sent.while_playing();
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

    /// Whether a session whose connection ended at `lost_at` lives on, as the server sees it: then there may be a way back. Where clients
    /// may not come back, losing a live session is a failure. `first`: this loss was not asked about yet.
    async fn lives_on(
        &mut self,
        session: &str,
        lost_at: Instant,
        first: bool,
    ) -> Result<bool, Fault> {
        // Whoever lost the game does not play it, until there is a way back.
        self.api.sent().plays(false, Instant::now());
        let strict = self.shared.plan.reconnect.is_zero();
        // The server needs a moment to notice that a game has ended. Who may try again need not wait for it.
        let wait = if strict { NOTICE.as_secs_f64() } else { 0.0 };
        loop {
            match self.api.session(session, wait).await {
                Ok(found) if found.is_over() && lost_at.elapsed() <= NOTICE * 2 => {
                    return Ok(false);
                }
                Ok(found) if found.is_over() => {
                    return Err(Fault::new(
                        "connection_lost",
                        "the match ended before there was a way back to it",
                    ));
                }
                Ok(_) => {
                    let fault = Fault::transport(
                        "connection_lost",
                        "the connection ended and the match did not",
                    );
                    if strict {
                        return Err(fault);
                    }
                    if first {
                        self.overcame(&fault);
                    }
                    return Ok(true);
                }
                Err(fault) => self.bear(fault).await?,
            }
        }
    }

    /// The way back was found.
    fn is_back(&mut self) {
        self.row.reconnects += 1;
        self.failing_since = None;
        self.enter(Phase::Play);
    }

    /// Notes how long it took to the game's first word, counted from `matched` if it was for the first time.
    fn note_reached(&mut self, matched: Option<Instant>, dial: Duration) {
        if let Some(matched) = matched {
            self.row.connect_ms = Some(ms(dial));
            self.row.start_ms = Some(ms(matched.elapsed().saturating_sub(dial)));
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
        self.overcame(&fault);
        // Together they would come back as one wave.
        sleep(self.pause.mul_f64(0.5 + self.dice.share() / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSES[1]);
        Ok(())
    }

    fn overcame(&self, fault: &Fault) {
        self.shared
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(self.phase, &fault.class, &fault.detail);
    }

    /// Leaves nothing behind: no ticket that another player would be matched with, no place in a session that nobody plays. Who fails
    /// only leaves: the partner's match is not to be cut short and then look as if it had ended. When the whole run is given up, so are
    /// its sessions.
    async fn clean_up(&mut self, giving_up: bool) {
        if self.row.started_ms.is_none() {
            return;
        }
        let Some(player) = self.row.player_id.clone() else {
            return;
        };
        if self.row.session_id.is_none()
            && let Ok(ticket) = self.api.leave(&player, CLEANUP).await
            && ticket.status == "matched"
        {
            // The match was made, and the word of it not heard any more: then there is a session to leave.
            self.api.credentials.token = ticket.way.token.or(self.api.credentials.token.take());
            self.row.session_id = ticket.way.session_id;
            self.row.fleet = ticket.way.fleet;
        }
        // How it goes does not change what happened before.
        let _ = match &self.row.session_id {
            Some(session) if giving_up => self.api.end(session, CLEANUP).await,
            Some(session) => self.api.quit(session, &player, CLEANUP).await,
            None => Ok(()),
        };
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.place.enter(phase);
        self.api.sent().plays(phase == Phase::Play, Instant::now());
    }
}

/// Says that the player is there, on the beat that the server asks for. Never returns; a heartbeat that fails is the next one's business,
/// and the records show what came of it.
async fn beat_heart(api: &mut Api, session: &str) {
    let mut every = HEARTBEAT;
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        if let Ok(Some(asked)) = api.heartbeat(session).await {
            every = asked;
        }
        // From the intended time, not from the answer; what was missed meanwhile is not made up for.
        next = (next + every).max(Instant::now());
    }
}
