//! Matches: looked for, started, settled; and those that an earlier run left half-way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use spawnpoint_core::decision::{Decision, Subject};
use spawnpoint_core::lifecycle::EndedBy;
use spawnpoint_core::limits::MAX_PAYLOAD;
use spawnpoint_core::matching::{Attribute, Candidate, Match, Proposal, Rules, Ticket, propose};
use spawnpoint_core::{Code, FleetName, Moment, PlayerId, SessionId, TicketId};
use spawnpoint_store::lobby::{self, Held, State, Taken};
use spawnpoint_wire::problem::Problem;

use super::fates::End;
use super::queue::LastMatch;
use super::table::{Back, Setback};
use super::{LOBBY_PAUSE, LOBBY_TRIES};
use crate::app::App;
use crate::app::start::{Matched, NewSession, Started, chain, in_other_session};
use crate::config::QueueConfig;
use crate::fault;
use crate::journal::Made;
use crate::mutant::{self, Mutant};

/// With more candidates than this a look is worth a thread of its own: it takes milliseconds, and calls must not wait for it.
const INLINE_MOST: usize = 2_000;
/// Nothing is due: the queue is looked at again when somebody comes.
const NEVER: Duration = Duration::from_secs(3_600);

/// A match that is being started.
struct Forming {
    session: SessionId,
    queue: Arc<QueueConfig>,
    tickets: Vec<Arc<Ticket>>,
    found: Match,
    because: String,
}

impl Forming {
    fn ids(&self) -> Vec<TicketId> {
        self.tickets.iter().map(|t| t.id).collect()
    }

    fn players(&self) -> Vec<PlayerId> {
        let all = self.tickets.iter().flat_map(|t| t.players.iter().cloned());
        all.collect()
    }

    /// What the game reads of its match.
    fn payload(&self) -> Option<serde_json::Value> {
        let value = |a: &Attribute| match a {
            Attribute::Number(n) => json!(n),
            Attribute::Text(t) => json!(t),
        };
        let ticket = |t: &Arc<Ticket>| {
            let players: Vec<&str> = t.players.iter().map(PlayerId::as_str).collect();
            let attributes: HashMap<&str, serde_json::Value> = t
                .attributes
                .iter()
                .map(|(k, v)| (k.as_str(), value(v)))
                .collect();
            json!({"players": players, "attributes": attributes})
        };
        let region = self
            .found
            .region
            .and_then(|r| self.queue.regions.get(usize::from(r.number())));
        let mut about = json!({"queue": self.queue.name.as_str(), "region": region});
        let short = json!({"match": about.clone()});
        if let Some(object) = about.as_object_mut() {
            let tickets: Vec<_> = self.tickets.iter().map(ticket).collect();
            object.insert("tickets".to_owned(), tickets.into());
        }
        let whole = json!({"match": about});
        // A hundred long names do not fit: then the game goes by its roster.
        Some(if whole.to_string().len() <= MAX_PAYLOAD {
            whole
        } else {
            short
        })
    }
}

impl App {
    /// Looks at every queue once and starts what can be started. Returns when to look again at the latest.
    pub(crate) async fn look_at_queues(self: &Arc<Self>) -> Duration {
        self.looks_begun.fetch_add(1, Ordering::AcqRel);
        let begun = self.looks_begun.load(Ordering::Acquire);
        let mut next = NEVER;
        self.drop_unattended();
        // Nobody gets a new game from a server that stops; who waits is told by the stream's end.
        if !self.with_world(|w| w.draining) {
            let names = self.tickets().names();
            for name in names {
                let due = self.tickets().due(&name, self.now());
                match due {
                    Ok(()) => next = next.min(self.look_at(&name).await),
                    Err(after) => next = next.min(after.unwrap_or(NEVER)),
                }
            }
        }
        self.looks_done.send_replace(begun);
        next
    }

    async fn look_at(self: &Arc<Self>, name: &FleetName) -> Duration {
        let now = self.now();
        let Some(candidates) = self.tickets().candidates(name, now) else {
            return NEVER;
        };
        let (config, held) = (candidates.queue, candidates.held);
        let waiting = candidates.all.len();
        // A panic in it would be a bug; the queue is then looked at again when it changes.
        let looked = self.propose(candidates.all, config.rules, now).await;
        let (all, proposal) = looked.unzip();
        let proposal = proposal.unwrap_or_default();
        if let (Some(journal), Some(all)) = (&self.journal, all)
            && self
                .tickets()
                .is_noteworthy(name, !proposal.matches.is_empty())
        {
            let (name, again) = (name.clone(), proposal.clone());
            journal.note(Made::propose(name, config.rules, all, now, again));
        }
        let again = proposal.recheck_after.map(|d| now.after(d));
        let mut soon = false;
        for found in proposal.matches {
            soon |= !self.begin(&config, found, waiting, now);
        }
        let mut tickets = self.tickets();
        for at in [again, held].into_iter().flatten() {
            tickets.look_again(name, Some(at));
        }
        if soon {
            tickets.look_soon(name);
        }
        match tickets.due(name, self.now()) {
            Ok(()) => Duration::ZERO,
            Err(after) => after.unwrap_or(NEVER),
        }
    }

    /// Looks for matches; gives back whom it looked at.
    async fn propose(
        &self,
        candidates: Vec<Arc<Candidate>>,
        rules: Rules,
        now: Moment,
    ) -> Option<(Vec<Arc<Candidate>>, Proposal)> {
        let few = candidates.len() <= INLINE_MOST;
        let look = move || {
            let proposal = propose(candidates.iter().map(|c| &**c), &rules, now);
            (candidates, proposal)
        };
        if few {
            return Some(look());
        }
        tokio::task::spawn_blocking(look).await.ok()
    }

    /// Takes a match and starts it beside. False when somebody of it is not to be had any more: the queue is looked at again.
    fn begin(
        self: &Arc<Self>,
        queue: &Arc<QueueConfig>,
        found: Match,
        waiting: usize,
        now: Moment,
    ) -> bool {
        let elsewhere = self.elsewhere(&queue.fleet, &found.tickets);
        if !elsewhere.is_empty() {
            for (id, player) in elsewhere {
                let why = in_other_session(&player, &queue.fleet);
                self.retire(id, End::Lost(Code::PlayersInOtherSession, why.detail));
            }
            return false;
        }
        let session = self.ids.session();
        let Some(tickets) = self.tickets().take(session, &found.tickets) else {
            return false;
        };
        let mut because = found.because(&queue.rules);
        if let Some(name) = found
            .region
            .and_then(|r| queue.regions.get(usize::from(r.number())))
        {
            because.push_str(&format!(" ({name})"));
        }
        tracing::info!(queue = %queue.name, %session, waiting, tickets = tickets.len(), players = found.players, because, "match");
        let forming = Forming {
            session,
            queue: Arc::clone(queue),
            tickets,
            found,
            because,
        };
        let decision = Decision {
            at: now,
            subject: Subject::Session(session),
            function: "matching::propose",
            input: format!("queue {}: {waiting} tickets", queue.name),
            output: format!(
                "{} tickets of {} players",
                forming.tickets.len(),
                forming.found.players
            ),
            because: forming.because.clone(),
        };
        let app = Arc::clone(self);
        self.tasks
            .spawn(async move { app.form(forming, decision).await });
        true
    }

    /// The tickets among these with a player in a live session of the fleet: got since they joined.
    fn elsewhere(&self, fleet: &FleetName, ids: &[TicketId]) -> Vec<(TicketId, PlayerId)> {
        let players: Vec<(TicketId, PlayerId)> = {
            let tickets = self.tickets();
            let of = |id: &TicketId| {
                let t = tickets.get(*id)?;
                Some(
                    t.ticket
                        .players
                        .iter()
                        .map(|p| (*id, p.clone()))
                        .collect::<Vec<_>>(),
                )
            };
            ids.iter().filter_map(of).flatten().collect()
        };
        self.with_world(|w| {
            players
                .into_iter()
                .filter(|(_, p)| w.by_player.contains_key(&(fleet.clone(), p.clone())))
                .collect()
        })
    }

    /// Starts a match: its tickets are the session's in the lobby, then the session is made, then they have their fate.
    async fn form(self: Arc<Self>, forming: Forming, decision: Decision) {
        let taken = self.take_in_lobby(&forming).await;
        let started = match taken {
            Ok(()) => {
                fault::point(&self, "match.taken").await;
                self.start_match(&forming, decision).await
            }
            Err(problem) => Err(problem),
        };
        match started {
            Ok(()) => {
                fault::point(&self, "match.started").await;
                self.settled(&forming).await;
                fault::point(&self, "match.settled").await;
            }
            Err(problem) => self.set_back(&forming, &problem).await,
        }
    }

    async fn take_in_lobby(&self, forming: &Forming) -> Result<(), Problem> {
        let ids = forming.ids();
        let mut pause = LOBBY_PAUSE;
        let mut last = Problem::new(Code::LobbyUnavailable, "the tickets could not be taken");
        for _ in 0..LOBBY_TRIES {
            match self.lobby.take(forming.session, &ids).await {
                Ok(Taken::Now | Taken::Before) => return Ok(()),
                // An older match of it came to nothing, and that was not written yet.
                Ok(Taken::Not {
                    forming: Some(old), ..
                }) => {
                    let _ = self.lobby.give_back(old).await;
                }
                // The lobby lost it; memory has not.
                Ok(Taken::Not {
                    ticket,
                    forming: None,
                }) => {
                    if let Some(lost) = forming.tickets.iter().find(|t| t.id == ticket) {
                        let _ = self.lobby.join(lost).await;
                    }
                }
                Err(e) => last = e.into(),
            }
            if self.pause(&mut pause).await {
                break;
            }
        }
        Err(last)
    }

    async fn start_match(
        self: &Arc<Self>,
        forming: &Forming,
        decision: Decision,
    ) -> Result<(), Problem> {
        let name = &forming.queue.fleet;
        let Some(fleet) = self.config.load().fleet(name).cloned() else {
            return Err(Problem::new(
                Code::FleetNotFound,
                format!("there is no fleet {name} (any more)"),
            ));
        };
        let players = forming.players();
        let Some(owner) = players.first().cloned() else {
            return Err(Problem::new(Code::Internal, "a match without players"));
        };
        let caller = forming.tickets.first().and_then(|t| t.caller.as_deref());
        let ticket_of = |t: &Arc<Ticket>| {
            let id = t.id;
            t.players
                .iter()
                .map(move |p| (p.clone(), id))
                .collect::<Vec<_>>()
        };
        let call = NewSession {
            fleet,
            player: owner,
            players,
            payload: forming.payload(),
            max: None,
            joinable: None,
            key: caller
                .and_then(|c| c.strip_prefix("key:"))
                .map(str::to_owned),
            mark: None,
            fresh: false,
            by: EndedBy::System,
            matched: Some(Matched {
                session: forming.session,
                queue: forming.queue.name.clone(),
                tickets: forming.tickets.iter().flat_map(ticket_of).collect(),
                decision,
            }),
        };
        match self.new_session(call).await? {
            Started::New(_) => Ok(()),
            Started::Existing(_) | Started::Ended(_) => Err(Problem::new(
                Code::Internal,
                "a match led to a session that was there before",
            )),
        }
    }

    /// The session is durable: its players are told, then the lobby.
    async fn settled(self: &Arc<Self>, forming: &Forming) {
        let now = self.now();
        let fates = {
            let mut tickets = self.tickets();
            let ids = forming.ids();
            let fates: Vec<_> = ids
                .into_iter()
                .filter_map(|id| tickets.end(id, End::Matched(forming.session), now))
                .collect();
            let waited: Vec<Duration> = fates.iter().map(|f| f.waited).collect();
            let last = LastMatch {
                at: now,
                session: forming.session,
                players: forming.found.players,
                because: forming.because.clone(),
            };
            tickets.note_match(&forming.queue.name, last, forming.found.partial, &waited);
            fates
        };
        for fate in &fates {
            self.tell_fate(fate);
        }
        self.settle_in_lobby(forming.session).await;
    }

    async fn settle_in_lobby(&self, session: SessionId) {
        let mut pause = LOBBY_PAUSE;
        while let Err(e) = self.lobby.settle(session).await {
            tracing::warn!(%session, error = %chain(&e), "a match could not be settled in the lobby; trying again");
            if self.pause(&mut pause).await {
                return;
            }
        }
    }

    /// The match was not to be: its tickets wait again, as old as they are, or have failed too often.
    async fn set_back(self: &Arc<Self>, forming: &Forming, problem: &Problem) {
        let code = code_of(problem);
        tracing::warn!(queue = %forming.queue.name, session = %forming.session, code = problem.code, error = problem.detail, "a match could not be started");
        self.tickets().note_failure(&forming.queue.name);
        let mut pause = LOBBY_PAUSE;
        while let Err(e) = self.lobby.give_back(forming.session).await {
            tracing::warn!(session = %forming.session, error = %chain(&e), "tickets could not be given back to the lobby; trying again");
            if self.pause(&mut pause).await {
                return;
            }
        }
        let ids = forming.ids();
        let elsewhere: HashMap<TicketId, PlayerId> = self
            .elsewhere(&forming.queue.fleet, &ids)
            .into_iter()
            .collect();
        let setback = Setback {
            counts: counts(code),
            hold: hold_of(problem),
        };
        for id in ids {
            if let Some(player) = elsewhere.get(&id) {
                let why = in_other_session(player, &forming.queue.fleet);
                self.retire(id, End::Lost(Code::PlayersInOtherSession, why.detail));
                continue;
            }
            let judged = self.tickets().judge(id, &setback);
            match judged {
                Some(Back::Waits) => {
                    let now = self.now();
                    let look = self.look();
                    self.tickets().give_back(id, &setback, look, now);
                    self.tell_queued(id);
                }
                Some(Back::GivenUp) => {
                    let detail = format!(
                        "{} matches in a row could not be started, the last because: {}",
                        forming.queue.max_failures, problem.detail
                    );
                    self.retire(id, End::Lost(code, detail));
                }
                Some(Back::Leaves) => self.retire(id, End::Left),
                None => {}
            }
        }
        self.match_now.notify_one();
    }

    fn drop_unattended(self: &Arc<Self>) {
        let now = self.now();
        let gone = self.tickets().unattended(now);
        for id in gone {
            let detail = "nobody asked after the ticket for too long; join again".to_owned();
            self.retire(id, End::Lost(Code::TicketExpired, detail));
        }
    }

    /// Reads back what an earlier run left in the lobby. Until this has been done nobody joins.
    ///
    /// # Errors
    /// When the lobby does not answer: then nothing is known.
    pub(crate) async fn load_lobby(self: &Arc<Self>) -> Result<(), lobby::LobbyError> {
        let mut held = lobby::load(self.lobby.as_ref()).await?;
        held.sort_by_key(|h| (h.ticket.joined_at, h.ticket.id));
        let forming = lobby::forming(&held);
        let count = held.len();
        for h in held {
            self.take_over(h);
        }
        for (session, ids) in forming {
            let app = Arc::clone(self);
            self.tasks
                .spawn(async move { app.decide_match(session, ids).await });
        }
        if count > 0 {
            tracing::info!(tickets = count, "tickets taken over");
        }
        self.lobby_loaded.store(true, Ordering::Release);
        self.match_now.notify_one();
        Ok(())
    }

    fn take_over(self: &Arc<Self>, h: Held) {
        let now = self.now();
        let age = self.clock.wall(now).saturating_sub(h.ticket.joined_at);
        let since = now.before(Duration::from_millis(u64::try_from(age).unwrap_or(0)));
        let ticket = Arc::new(h.ticket);
        let id = ticket.id;
        let mut tickets = self.tickets();
        if tickets.queue(&ticket.queue).is_none() {
            drop(tickets);
            tracing::warn!(ticket = %id, queue = %ticket.queue, "a ticket's queue is not configured any more; it is dropped");
            self.forget_in_time(id);
            return;
        }
        match h.state {
            State::Waiting if mutant::on(Mutant::LostTicket) => {}
            State::Waiting => {
                tickets.admit(ticket, since, now);
                tickets.stand(id, self.look());
            }
            State::Forming(session) => tickets.admit_forming(ticket, since, now, session),
        }
    }

    /// A match that an earlier run began: its session is live or recorded, or it never was.
    async fn decide_match(self: Arc<Self>, session: SessionId, ids: Vec<TicketId>) {
        let mut pause = LOBBY_PAUSE;
        let there = loop {
            if self.with_world(|w| w.sessions.contains_key(&session)) {
                break true;
            }
            // A database that cannot be read does not say that there is no record.
            match self.records.get(session).await {
                Ok(record) => break record.is_some(),
                Err(e) => {
                    tracing::warn!(%session, error = %chain(&e), "whether a match was played cannot be known yet")
                }
            }
            if self.pause(&mut pause).await {
                return;
            }
        };
        if there {
            for id in ids {
                self.end_ticket(id, End::Matched(session));
            }
            self.settle_in_lobby(session).await;
            return;
        }
        pause = LOBBY_PAUSE;
        while self.lobby.give_back(session).await.is_err() {
            if self.pause(&mut pause).await {
                return;
            }
        }
        for id in ids {
            let look = self.look();
            self.tickets().stand(id, look);
            self.tell_queued(id);
        }
        self.match_now.notify_one();
    }

    /// Says to a lobby that forgets in time which tickets are still wanted, and writes back what it has lost.
    pub(crate) async fn touch_lobby(&self) {
        let waiting: Vec<Arc<Ticket>> = self.tickets().in_line();
        for page in waiting.chunks(lobby::MAX_LISTED) {
            let ids: Vec<TicketId> = page.iter().map(|t| t.id).collect();
            let gone = match self.lobby.touch(&ids).await {
                Ok(gone) => gone,
                Err(e) => {
                    tracing::warn!(error = %chain(&e), "the lobby cannot be told which tickets still wait");
                    return;
                }
            };
            for ticket in page.iter().filter(|t| gone.contains(&t.id)) {
                // It may have left since.
                if self.tickets().get(ticket.id).is_some() {
                    let _ = self.lobby.join(ticket).await;
                }
            }
        }
    }
}

/// Whether a match that failed for this counts against its tickets: a full fleet, a player who went elsewhere or a server that stops
/// say nothing of them.
fn counts(code: Code) -> bool {
    !matches!(
        code,
        Code::QueueFull
            | Code::Capacity
            | Code::PortsExhausted
            | Code::PlayersInOtherSession
            | Code::LobbyUnavailable
            | Code::ShuttingDown
    )
}

/// How long a ticket is held at least after a match that failed for this.
fn hold_of(problem: &Problem) -> Duration {
    Duration::from_secs(u64::from(problem.retry_after.unwrap_or(0)))
}

fn code_of(problem: &Problem) -> Code {
    let known = Code::ALL.iter().copied();
    known
        .into_iter()
        .find(|c| c.as_str() == problem.code)
        .unwrap_or(Code::Internal)
}
