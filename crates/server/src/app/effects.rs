//! Carrying out what a step asked for: one driver per session, strictly in order.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::limits::{MAX_RESULTS, RECORD_LOG_TAIL};
use spawnpoint_core::record::{MatchPlayer, MatchRecord};
use spawnpoint_core::session::{Effect, Event, Exit, Phase};
use spawnpoint_core::{FleetName, Generation, InstanceId, Moment, SessionId};
use spawnpoint_runtime::{Facts, LogRange, RuntimeError, State, Version};
use spawnpoint_store::StoreError;

use super::world::{Choice, Entry, Holder, Todo};
use super::{App, revive};
use crate::fault;
use crate::mutant::{self, Mutant};

/// First pause of a retry; doubles up to [`RETRY_MOST`].
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest pause of a retry: a database or a lobby that returns is used again within this.
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How long a log is read for the record before what has come is kept.
const LOG_READ_LIMIT: Duration = Duration::from_secs(2);

impl App {
    /// The driver of one session: carries out what is to do until nothing is.
    pub(super) async fn carry_out(self: Arc<Self>, id: SessionId) {
        loop {
            let todo = {
                let mut world = self.world();
                let Some(entry) = world.sessions.get_mut(&id) else {
                    return;
                };
                match entry.todo.pop_front() {
                    Some(todo) => todo,
                    None => {
                        entry.driving = false;
                        return;
                    }
                }
            };
            match todo {
                Todo::Route => self.show_route(id),
                Todo::Address => {
                    self.tell_address(id);
                    self.plan_now.notify_one();
                }
                Todo::Effect(Effect::Announce(notice)) => self.announce(id, &notice),
                Todo::Effect(Effect::Save) => {
                    self.save(id).await;
                    if let Some(entry) = self.world().sessions.get_mut(&id) {
                        entry.unsaved = entry.unsaved.saturating_sub(1);
                        entry.changed.send_modify(|n| *n += 1);
                    }
                }
                Todo::Effect(Effect::Stop(instance)) => {
                    // Gateways first: players hear why from them, not from a game that says goodbye on SIGTERM.
                    self.show_route(id);
                    self.stop_instance(id, instance).await;
                }
                Todo::Effect(Effect::Record) => {
                    if self.record(id).await {
                        return;
                    }
                }
                Todo::Effect(Effect::Acquire {
                    generation,
                    in_place,
                    not_before,
                }) => {
                    // Beside the driver: a back-off must not keep an end waiting.
                    let app = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        app.acquire(id, generation, in_place, not_before).await
                    });
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    pub(super) fn show_route(&self, id: SessionId) {
        let world = self.world();
        let Some(entry) = world.sessions.get(&id) else {
            return;
        };
        let position = world.position(&entry.session.fleet, id);
        let route = entry.route(position);
        // Under the world's lock, so that two views of one session are never shown in the wrong order.
        self.routes.set(route);
    }

    /// Writes the durable facts to the instance, if they differ from what is there.
    async fn save(self: &Arc<Self>, id: SessionId) {
        let mut pause = RETRY_FIRST;
        loop {
            let (instance, version, document) = {
                let world = self.world();
                let Some(entry) = world.sessions.get(&id) else {
                    return;
                };
                let Some(instance) = entry.session.instance else {
                    return;
                };
                let document = revive::document(entry, self.clock.as_ref());
                if entry.saved.as_deref() == Some(document.as_str()) {
                    return;
                }
                (instance, entry.version, document)
            };
            let facts = Facts {
                session: id,
                document: document.clone(),
            };
            match self.runtime.bind(instance, version, facts, None).await {
                Ok(version) => {
                    fault::point(self, "save.written").await;
                    if let Some(entry) = self.world().sessions.get_mut(&id)
                        && entry.session.instance == Some(instance)
                    {
                        entry.version = version;
                        entry.saved = Some(document);
                    }
                    return;
                }
                // Not this session's any more: what it knew stays, and is recorded with what is in memory.
                Err(RuntimeError::NotFound | RuntimeError::Over) => return,
                Err(RuntimeError::Conflict | RuntimeError::OutcomeUnknown(_)) => {
                    if !self.look_again(id, instance).await {
                        return;
                    }
                }
                Err(e) => {
                    tracing::warn!(session = %id, code = %e.code(), error = %e, "the session's facts could not be written; trying again")
                }
            }
            if self.pause(&mut pause).await {
                return;
            }
        }
    }

    /// Takes the instance's present version. False when it is not this session's any more.
    pub(super) async fn look_again(&self, id: SessionId, instance: InstanceId) -> bool {
        let Ok(seen) = self.runtime.get(instance).await else {
            return true;
        };
        if seen.facts.as_ref().is_some_and(|f| f.session != id) {
            return false;
        }
        if let Some(entry) = self.world().sessions.get_mut(&id)
            && entry.session.instance == Some(instance)
        {
            entry.version = seen.version;
        }
        true
    }

    /// Sleeps and doubles the pause. True when the server stops.
    pub(super) async fn pause(&self, pause: &mut Duration) -> bool {
        tokio::select! {
            biased;
            () = tokio::time::sleep(*pause) => {}
            () = self.stop.cancelled() => return true,
        }
        *pause = (*pause * 2).min(RETRY_MOST);
        false
    }

    async fn stop_instance(self: &Arc<Self>, id: SessionId, instance: InstanceId) {
        let mut pause = RETRY_FIRST;
        loop {
            let (version, grace) = {
                let world = self.world();
                let Some(entry) = world.sessions.get(&id) else {
                    return;
                };
                (entry.version, entry.session.policy.grace)
            };
            match self.runtime.stop(instance, version, grace).await {
                Ok(version) => {
                    fault::point(self, "stop.told").await;
                    self.change_world(|world| {
                        if let Some(entry) = world.sessions.get_mut(&id)
                            && entry.session.instance == Some(instance)
                        {
                            entry.version = version;
                        }
                    });
                    // It may have been over before: then no change will say so again.
                    if let Ok(seen) = self.runtime.get(instance).await {
                        self.observe(seen);
                    }
                    return;
                }
                Err(RuntimeError::NotFound) => {
                    let generation = self.world().sessions.get(&id).map(|e| e.session.generation);
                    if let Some(generation) = generation {
                        let _ = self.apply(id, &Event::Exited(generation, lost(self.now())));
                    }
                    return;
                }
                Err(RuntimeError::Conflict | RuntimeError::OutcomeUnknown(_)) => {
                    if !self.look_again(id, instance).await {
                        return;
                    }
                }
                Err(e) => {
                    tracing::warn!(session = %id, code = %e.code(), error = %e, "the instance could not be told to stop; trying again")
                }
            }
            if self.pause(&mut pause).await {
                return;
            }
        }
    }

    /// Writes the match record, forgets the instance, ends the session. True when the session is gone from the world.
    async fn record(self: &Arc<Self>, id: SessionId) -> bool {
        let Some((mut record, instance)) = self.draft(id) else {
            return true;
        };
        if let Some(instance) = instance {
            record.log_tail = self.log_tail(instance).await;
            let (results, error) = self.results(instance, record.results.take()).await;
            record.results = results;
            record.results_error = error;
        }
        fault::point(self, "record.drafted").await;
        let mut pause = RETRY_FIRST;
        let skip = mutant::on(Mutant::RecordNever) && record.reason == Reason::Empty;
        while let Err(e) = self.insert(&record, skip).await {
            if mutant::on(Mutant::RecordTwice) {
                record.session = self.ids.session();
            }
            Self::bump(&self.counters.record_retries);
            tracing::warn!(session = %id, code = %e.code(), error = %e, "the match record could not be written; its instance keeps it until it can");
            if self.pause(&mut pause).await {
                // The instance's directory still holds everything: the next start records it.
                return true;
            }
        }
        fault::point(self, "record.inserted").await;
        if let Some(instance) = instance {
            self.forget(instance).await;
        }
        fault::point(self, "forget.done").await;
        let _ = {
            let now = self.now();
            let mut world = self.world();
            self.apply_in(&mut world, id, &Event::Recorded, now)
        };
        *self
            .counters
            .ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((record.fleet.as_str().to_owned(), record.reason.as_str()))
            .or_default() += 1;
        tracing::info!(session = %id, fleet = %record.fleet, reason = record.reason.as_str(), by = record.ended_by.as_str(), exit_code = record.exit_code, "session ended");
        self.announce(id, &spawnpoint_core::session::Notice::Phase(Phase::Ended));
        // A game that ends by itself goes from running to recorded in one step: gateways have not heard why, and would not tell.
        self.show_route(id);
        self.routes.gone(id);
        self.close_port(id);
        let gone = self.world().remove(id);
        if let Some(entry) = gone {
            // Whoever waits on it sees the channel close.
            drop(entry);
        }
        self.ended.notify_waiters();
        self.plan_now.notify_one();
        true
    }

    async fn insert(&self, record: &MatchRecord, skip: bool) -> Result<(), StoreError> {
        if skip {
            return Ok(());
        }
        self.records.insert(record).await.map(|_| ())
    }

    fn draft(&self, id: SessionId) -> Option<(MatchRecord, Option<InstanceId>)> {
        let world = self.world();
        let entry = world.sessions.get(&id)?;
        let s = &entry.session;
        let ending = s.ending?;
        let wall = |m: Moment| self.clock.wall(m);
        let record = MatchRecord {
            session: id,
            fleet: s.fleet.clone(),
            players: entry
                .ever
                .iter()
                .map(|(p, at)| MatchPlayer {
                    player: p.clone(),
                    joined_at: wall(*at),
                })
                .collect(),
            server: self.config.load().server.name.clone(),
            instance: s.instance,
            generation: s.generation,
            created_at: wall(s.created_at),
            started_at: entry.started_at.map(wall),
            ended_at: wall(ending.at),
            reason: ending.reason,
            ended_by: ending.by,
            code: ending.code.map(|c| c.as_str().to_owned()),
            exit_code: s.exit.and_then(|e| e.code),
            exit_signal: s.exit.and_then(|e| e.signal),
            oom: s.exit.is_some_and(|e| e.oom),
            results: entry.results.clone(),
            results_error: None,
            log_tail: Vec::new(),
            receipt: entry.receipt,
            idempotency: entry.idempotency.clone(),
        };
        Some((record, s.instance))
    }

    async fn log_tail(&self, instance: InstanceId) -> Vec<u8> {
        let range = LogRange {
            tail_bytes: Some(RECORD_LOG_TAIL as u64),
            follow: false,
        };
        let Ok(mut stream) = self.runtime.logs(instance, range).await else {
            return Vec::new();
        };
        let mut tail = Vec::new();
        let read = async {
            while let Some(Ok(chunk)) = stream.next().await {
                tail.extend_from_slice(&chunk);
            }
        };
        let _ = tokio::time::timeout(LOG_READ_LIMIT, read).await;
        if tail.len() > RECORD_LOG_TAIL {
            tail.drain(..tail.len() - RECORD_LOG_TAIL);
        }
        tail
    }

    /// The game's own results win over those of an end call; what is not JSON or too large is refused, and the record says so.
    async fn results(
        &self,
        instance: InstanceId,
        given: Option<String>,
    ) -> (Option<String>, Option<String>) {
        let Ok(Some(bytes)) = self.runtime.results(instance).await else {
            return (given, None);
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return (given, None);
        }
        if bytes.len() > MAX_RESULTS {
            return (
                given,
                Some(format!(
                    "the results file is larger than {MAX_RESULTS} bytes"
                )),
            );
        }
        match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(value) => (Some(value.to_string()), None),
            Err(e) => (given, Some(format!("the results file is not JSON: {e}"))),
        }
    }

    /// Removes what is left of an instance that is over, however often it takes.
    pub(super) async fn forget(self: &Arc<Self>, instance: InstanceId) {
        let mut pause = RETRY_FIRST;
        loop {
            let seen = match self.runtime.get(instance).await {
                Ok(seen) => seen,
                Err(RuntimeError::NotFound) => break,
                Err(_) => {
                    if self.pause(&mut pause).await {
                        return;
                    }
                    continue;
                }
            };
            let result = if matches!(seen.state, State::Exited(_)) {
                self.runtime.forget(instance, seen.version).await
            } else {
                self.runtime
                    .stop(instance, seen.version, Duration::from_secs(1))
                    .await
                    .map(|_| ())
            };
            match result {
                Ok(()) if matches!(seen.state, State::Exited(_)) => break,
                Err(RuntimeError::NotFound) => break,
                Ok(()) | Err(_) => {
                    if self.pause(&mut pause).await {
                        return;
                    }
                }
            }
        }
        self.gone(instance);
    }

    /// Finds the next incarnation of a session whose instance died.
    async fn acquire(
        self: Arc<Self>,
        id: SessionId,
        generation: Generation,
        in_place: bool,
        not_before: Moment,
    ) {
        let mut wait = not_before.since(self.now());
        loop {
            if !wait.is_zero() {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.cancelled() => return,
                }
            }
            wait = Duration::from_millis(500);
            let old = {
                let world = self.world();
                let Some(entry) = world.sessions.get(&id) else {
                    return;
                };
                if entry.session.phase != Phase::Replacing || entry.session.generation != generation
                {
                    return;
                }
                entry.session.instance
            };
            let done = match (in_place, old) {
                (true, Some(instance)) => self.restart_in_place(id, instance, generation).await,
                _ => self.replace(id, old, generation).await,
            };
            match done {
                Ok(()) => return,
                Err(e @ RuntimeError::Start { .. }) => {
                    tracing::warn!(session = %id, error = %e, "the next incarnation cannot be started");
                    let _ = self.apply(id, &Event::CannotStart(e.code()));
                    return;
                }
                // Its start deadline ends it if this goes on.
                Err(e) => {
                    tracing::warn!(session = %id, code = %e.code(), error = %e, "the next incarnation could not be had yet")
                }
            }
        }
    }

    async fn restart_in_place(
        self: &Arc<Self>,
        id: SessionId,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<(), RuntimeError> {
        let (version, file, expected) = {
            let mut world = self.world();
            let Some(entry) = world.sessions.get_mut(&id) else {
                return Ok(());
            };
            entry.restarts += 1;
            // The grant is of now: that of the first start would put the start limit into the past.
            entry.start.drafted = Some(self.now());
            let file = entry.session_file(self.clock.as_ref());
            (entry.version, file, entry.restarts)
        };
        let mut result = self.runtime.restart(instance, version, Some(file)).await;
        if let Err(RuntimeError::Conflict | RuntimeError::OutcomeUnknown(_)) = &result
            && let Ok(seen) = self.runtime.get(instance).await
            && seen.restarts >= expected
        {
            // It was done, and only the answer was lost: to ask for ever would end a game that runs.
            result = Ok(seen.version);
        }
        if result.is_err()
            && let Some(entry) = self.world().sessions.get_mut(&id)
        {
            entry.restarts -= 1;
        }
        let version = match result {
            Err(RuntimeError::Conflict) => {
                self.look_again(id, instance).await;
                return Err(RuntimeError::Conflict);
            }
            other => other?,
        };
        fault::point(self, "restart.done").await;
        self.granted(id, instance, version, generation);
        Ok(())
    }

    async fn replace(
        self: &Arc<Self>,
        id: SessionId,
        old: Option<InstanceId>,
        generation: Generation,
    ) -> Result<(), RuntimeError> {
        let (fleet, place) = {
            let mut world = self.world();
            let Some(entry) = world.sessions.get(&id) else {
                return Ok(());
            };
            let fleet = entry.session.fleet.clone();
            let place = world.choose(&fleet, id, Choice::Heal, || self.ids.instance());
            (fleet, place)
        };
        self.put(id, place, generation).await?;
        fault::point(self, "replace.put").await;
        let ended_on = |old| {
            let world = self.world();
            let entry = world.sessions.get(&id);
            entry.is_some_and(|e| e.session.instance == Some(old))
        };
        // A session that ended meanwhile is still the old one's, which alone knows of the end until it is recorded.
        if let Some(old) = old.filter(|old| !ended_on(*old)) {
            self.world().hold(old, &fleet, Holder::Orphan);
            self.forget(old).await;
        }
        Ok(())
    }

    /// Marks an instance as nobody's and sees to it that it goes.
    pub(super) fn discard(self: &Arc<Self>, instance: InstanceId, fleet: &FleetName) {
        self.world().hold(instance, fleet, Holder::Orphan);
        let app = Arc::clone(self);
        self.tasks.spawn(async move { app.forget(instance).await });
    }
}

pub(super) const fn lost(at: Moment) -> Exit {
    Exit {
        code: None,
        signal: None,
        oom: false,
        never_ran: false,
        lost: true,
        at,
    }
}

impl Entry {
    /// Version and document of what was just written.
    pub(super) fn written(&mut self, version: Version, document: String) {
        self.version = version;
        self.saved = Some(document);
    }

    /// What the game reads about its session.
    pub(super) fn session_file(&self, clock: &dyn spawnpoint_core::Clock) -> Bytes {
        let s = &self.session;
        let text = |m: Moment| super::wall_text(clock.wall(m));
        let file = spawnpoint_wire::claim::SessionFile {
            version: 1,
            session_id: s.id,
            fleet: s.fleet.clone(),
            generation: s.generation.0,
            players: s.roster.iter().map(|p| p.id.clone()).collect(),
            payload: self.payload.clone(),
            claimed_at: text(s.granted_at.unwrap_or(s.created_at)),
            deadline: s.max_at.map(text),
        };
        serde_json::to_vec(&file).unwrap_or_default().into()
    }
}
