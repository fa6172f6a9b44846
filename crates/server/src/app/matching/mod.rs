//! Waiting for a match: join, leave, ask; and what becomes of tickets.
//!
//! *Flow*: a join is taken into memory, written to the lobby, and stands in line; the matchmaker (`workers/matchmaker.rs`) looks at each
//! queue, takes what `core::matching::propose` says and starts the sessions ([`form`]). *Guarantees*: a player has one ticket a queue
//! and one live session a fleet; every ticket has one fate, whatever fails and wherever the process dies; parties are never split.
//! *Assumptions*: one server writes. *Caveats*: memory decides, the lobby only outlives it; a ticket whose fate is not written yet when
//! the process dies is judged anew at the next start by what sessions there are.
//!
//! Two locks, the tickets' and the world's, and never both at once.

mod audit;
mod fates;
mod form;
mod line;
mod pace;
mod queue;
mod table;
mod views;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use spawnpoint_core::matching::{Attribute, Ticket};
use spawnpoint_core::{Code, FleetName, PlayerId, SessionId, TicketId};
use spawnpoint_store::lobby::{Joined, LobbyError};
use spawnpoint_wire::event::{Event as WireEvent, EventBody};
use spawnpoint_wire::problem::Problem;

use super::App;
use crate::config::QueueConfig;
use crate::fault;
use fates::{End, Fate};
pub(crate) use pace::BUCKETS;
pub(crate) use queue::SKILL;
pub(crate) use table::Table;
use table::{Room, Standing};
pub(crate) use views::Ask;

/// A join waits this long for the matchmaker to have looked, so that the one that completes a match is answered with it.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// And this long for a match of it to be started.
const FORM_PATIENCE: Duration = Duration::from_secs(5);
/// A call to the lobby is made so often before whoever waits for it is told that it does not answer.
const LOBBY_TRIES: u32 = 5;
/// First pause between such calls; doubles ([`App::pause`]).
const LOBBY_PAUSE: Duration = Duration::from_millis(20);

/// A join, checked.
pub(crate) struct JoinQueue {
    pub(crate) queue: Arc<QueueConfig>,
    /// Who waits together, the one who called first.
    pub(crate) players: Vec<PlayerId>,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) latencies: BTreeMap<String, u32>,
    /// Who calls, in a word that is kept with the ticket.
    pub(crate) caller: String,
    /// The backend key that a session of it counts against.
    pub(crate) key: Option<String>,
}

impl App {
    pub(crate) fn tickets(&self) -> MutexGuard<'_, Table> {
        // A panic while the lock is held is a bug in one ticket's path; the others must go on.
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues of a configuration, put in place.
    pub(super) fn configure_queues(self: &Arc<Self>, queues: &[Arc<QueueConfig>]) {
        let now = self.now();
        let too_large = {
            let mut tickets = self.tickets();
            tickets.configure(queues, now);
            tickets.too_large()
        };
        for (id, size) in too_large {
            let detail =
                format!("the queue's matches have {size} players now, fewer than the party");
            self.retire(id, End::Lost(Code::TicketLost, detail));
        }
        self.match_now.notify_one();
    }

    /// Lets players wait for a match together. Returns when they stand in line durably and the matchmaker has looked, or when they
    /// are in a game already; what there is to say then is [`App::ticket_status`]'s.
    pub(crate) async fn join_queue(self: &Arc<Self>, call: JoinQueue) -> Result<(), Problem> {
        let Some(id) = self.take_in(call)? else {
            return Ok(());
        };
        self.joined(id).await?;
        let stood_at = self.tickets().get(id).map(|t| t.stood_at);
        if let Some(look) = stood_at {
            let mut looked = self.looks_done.subscribe();
            let _ = tokio::time::timeout(LOOK_PATIENCE, looked.wait_for(|n| *n > look)).await;
        }
        let forming = |s: Option<Standing>| matches!(s, Some(Standing::Forming(_)));
        self.wait_ticket(id, FORM_PATIENCE, |s| !forming(s)).await;
        Ok(())
    }

    /// The ticket of these players, new or the one they have; `None` when they are in a game together.
    fn take_in(self: &Arc<Self>, call: JoinQueue) -> Result<Option<TicketId>, Problem> {
        if !self.lobby_loaded.load(Ordering::Acquire) {
            return Err(Problem::new(
                Code::LobbyUnavailable,
                "the tickets of an earlier run have not been read yet; try again",
            ));
        }
        let fleet = &call.queue.fleet;
        let (draining, sessions) = self.with_world(|w| {
            let of = |p: &PlayerId| w.by_player.get(&(fleet.clone(), p.clone())).copied();
            let sessions: Vec<Option<SessionId>> = call.players.iter().map(of).collect();
            (w.draining, sessions)
        });
        if draining {
            return Err(Problem::new(
                Code::ShuttingDown,
                "the server is shutting down; try another or again later",
            ));
        }
        let now = self.now();
        let mut tickets = self.tickets();
        match tickets.room(&call.queue.name, &call.players) {
            Room::Same(id) => {
                tickets.attend(id, now);
                return Ok(Some(id));
            }
            Room::Other(player) => return Err(in_other_ticket(&player, &call.queue.name)),
            Room::Full => {
                return Err(Problem::new(
                    Code::MatchmakingFull,
                    format!(
                        "{} tickets wait in the queue {}, which is its limit; try again later",
                        call.queue.max_tickets, call.queue.name
                    ),
                ));
            }
            Room::Unknown => {
                return Err(Problem::new(
                    Code::QueueNotFound,
                    format!("there is no queue {}", call.queue.name),
                ));
            }
            Room::Free => {}
        }
        if let Some(player) = call
            .players
            .iter()
            .zip(&sessions)
            .find_map(|(p, s)| s.map(|_| p))
        {
            let first = sessions.first().copied().flatten();
            if first.is_some() && sessions.iter().all(|s| *s == first) {
                return Ok(None);
            }
            return Err(super::start::in_other_session(player, fleet));
        }
        self.check_quota(call.key.as_deref())?;
        let ticket = Arc::new(Ticket {
            id: self.ids.ticket(),
            queue: call.queue.name.clone(),
            players: call.players,
            attributes: call.attributes,
            latencies: call.latencies,
            joined_at: self.clock.wall(now),
            failures: 0,
            caller: Some(call.caller),
        });
        tickets.admit(Arc::clone(&ticket), now, now);
        drop(tickets);
        let id = ticket.id;
        let app = Arc::clone(self);
        // On its own task: a caller who hangs up must not leave a ticket half joined.
        self.tasks.spawn(async move { app.enter(ticket).await });
        Ok(Some(id))
    }

    /// Writes a ticket to the lobby and lets it stand in line.
    async fn enter(self: Arc<Self>, ticket: Arc<Ticket>) {
        let mut pause = LOBBY_PAUSE;
        let mut last = String::new();
        for _ in 0..LOBBY_TRIES {
            match self.lobby.join(&ticket).await {
                Ok(Joined::Now | Joined::Before) => {
                    fault::point(&self, "ticket.joined").await;
                    let leaving = {
                        let mut tickets = self.tickets();
                        tickets.stand(ticket.id, self.look());
                        tickets.is_leaving(ticket.id)
                    };
                    if leaving {
                        self.retire(ticket.id, End::Left);
                        return;
                    }
                    self.tell_queued(ticket.id);
                    self.match_now.notify_one();
                    return;
                }
                // The fate of an older one has not been written yet: memory knows it is gone.
                Ok(Joined::Elsewhere { ticket: old, .. }) => {
                    last = format!("it still has an older ticket, {old}");
                    if self.tickets().get(old).is_none() {
                        let _ = self.forget_ticket(old).await;
                    }
                }
                Err(e) => last = super::start::chain(&e),
            }
            if self.pause(&mut pause).await {
                return;
            }
        }
        tracing::warn!(ticket = %ticket.id, queue = %ticket.queue, error = last, "a ticket could not be written to the lobby");
        let now = self.now();
        self.tickets()
            .end(ticket.id, End::Lost(Code::LobbyUnavailable, last), now);
        // It may have been written all the same.
        self.forget_in_time(ticket.id);
    }

    /// Waits until a ticket is in the lobby, or was not to be.
    async fn joined(&self, id: TicketId) -> Result<(), Problem> {
        self.wait_ticket(id, FORM_PATIENCE, |s| s != Some(Standing::Joining))
            .await;
        let tickets = self.tickets();
        if tickets
            .get(id)
            .is_some_and(|t| t.standing == Standing::Joining)
        {
            return Err(Problem::new(
                Code::LobbyUnavailable,
                "the ticket is still being taken in; ask for its status",
            ));
        }
        match tickets.fate(id).map(|f| &f.end) {
            Some(End::Lost(code, detail)) => Err(Problem::new(
                *code,
                format!("the ticket could not be taken in: {detail}"),
            )),
            _ => Ok(()),
        }
    }

    /// Waits until `done` holds for where a ticket stands (nowhere once it has its fate), or the time is up.
    async fn wait_ticket(
        &self,
        id: TicketId,
        limit: Duration,
        done: impl Fn(Option<Standing>) -> bool,
    ) {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let (standing, changed) = {
                let tickets = self.tickets();
                (tickets.get(id).map(|t| t.standing), tickets.subscribe(id))
            };
            let Some(mut changed) = changed.filter(|_| !done(standing)) else {
                return;
            };
            tokio::select! {
                biased;
                // The channel goes with the ticket.
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(deadline) => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// A player leaves a queue, or all of them; a party leaves together. Returns once that is durable, or a match came first.
    pub(crate) async fn leave_queue(
        self: &Arc<Self>,
        player: &PlayerId,
        queue: Option<&FleetName>,
    ) -> Result<Option<TicketId>, Problem> {
        let ids: Vec<TicketId> = {
            let tickets = self.tickets();
            let wanted = |id: &TicketId| {
                let t = tickets.get(*id);
                t.is_some_and(|t| queue.is_none_or(|q| t.ticket.queue == *q))
            };
            tickets
                .tickets_of(player)
                .into_iter()
                .filter(wanted)
                .collect()
        };
        for id in &ids {
            self.wait_ticket(*id, FORM_PATIENCE, |s| s != Some(Standing::Joining))
                .await;
            let standing = {
                let mut tickets = self.tickets();
                let standing = tickets.get(*id).map(|t| t.standing);
                if standing == Some(Standing::Waiting) {
                    drop(tickets);
                    self.end_ticket(*id, End::Left);
                } else {
                    tickets.leave_later(*id);
                }
                standing
            };
            match standing {
                Some(Standing::Waiting) => self.forget_soon(*id).await?,
                Some(_) => self.wait_ticket(*id, FORM_PATIENCE, |s| s.is_none()).await,
                None => {}
            }
        }
        Ok(ids.last().copied())
    }

    /// Gives a ticket its fate, in memory, and tells its players. False when it had one already.
    fn end_ticket(&self, id: TicketId, end: End) -> bool {
        let now = self.now();
        let Some(fate) = self.tickets().end(id, end, now) else {
            return false;
        };
        self.tell_fate(&fate);
        true
    }

    /// The same, and the lobby learns of it in time.
    fn retire(self: &Arc<Self>, id: TicketId, end: End) {
        if self.end_ticket(id, end) {
            self.forget_in_time(id);
        }
    }

    /// Takes a ticket that has its fate out of the lobby, however often it takes.
    fn forget_in_time(self: &Arc<Self>, id: TicketId) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = LOBBY_PAUSE;
            while app.forget_ticket(id).await.is_err() {
                if app.pause(&mut pause).await {
                    return;
                }
            }
        });
    }

    /// The same for a caller who waits; in the background when the lobby does not answer.
    async fn forget_soon(self: &Arc<Self>, id: TicketId) -> Result<(), Problem> {
        let mut pause = LOBBY_PAUSE;
        let mut last = None;
        for _ in 0..LOBBY_TRIES {
            match self.forget_ticket(id).await {
                Ok(()) => return Ok(()),
                Err(e) => last = Some(e),
            }
            if self.pause(&mut pause).await {
                break;
            }
        }
        self.forget_in_time(id);
        last.map_or(Ok(()), |e| Err(e.into()))
    }

    async fn forget_ticket(&self, id: TicketId) -> Result<(), LobbyError> {
        use spawnpoint_store::lobby::Left;
        match self.lobby.leave(id).await? {
            Left::Now | Left::Before => Ok(()),
            // Memory knows it is gone, and tickets of one match go together: what is left of it in the lobby is settled.
            Left::Forming(session) if self.tickets().get(id).is_none() => {
                self.lobby.settle(session).await.map(|_| ())
            }
            Left::Forming(_) => Ok(()),
        }
    }

    /// The look at the queues that was begun last.
    fn look(&self) -> u64 {
        self.looks_begun.load(Ordering::Acquire)
    }

    fn tell_ticket(&self, ticket: &Ticket, session: Option<SessionId>, body: EventBody) {
        let event = WireEvent {
            v: 1,
            id: String::new(),
            at: self.text(self.now()),
            session_id: session,
            ticket_id: Some(ticket.id.to_string()),
            body,
        };
        self.events.tell(event, ticket.players.clone().into());
    }

    fn tell_queued(&self, id: TicketId) {
        let seen = self.tickets().seen(id, self.now());
        if let Some(seen) = seen {
            self.tell_ticket(&seen.ticket, None, views::queued(&seen));
        }
    }

    fn tell_fate(&self, fate: &Fate) {
        let (session, body) = match &fate.end {
            End::Matched(session) => (Some(*session), EventBody::Matched {}),
            End::Left => (None, lost(Code::TicketLeft)),
            End::Lost(code, _) => (None, lost(*code)),
        };
        self.tell_ticket(&fate.ticket, session, body);
    }
}

fn lost(code: Code) -> EventBody {
    EventBody::Lost {
        code: code.as_str().to_owned(),
    }
}

fn in_other_ticket(player: &PlayerId, queue: &FleetName) -> Problem {
    Problem::new(
        Code::PlayersInOtherTicket,
        format!(
            "the player {:?} waits in the queue {queue} already, with others or without; leave it first (DELETE /api/match/join)",
            player.as_str()
        ),
    )
    .on("players")
}
