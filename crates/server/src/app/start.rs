//! Starting sessions: one place found under the lock, one durable write, then the answer.

use std::sync::Arc;

use serde_json::Value;
use spawnpoint_core::decision::Decision;
use spawnpoint_core::lifecycle::{EndedBy, Joinable, Policy, Reason};
use spawnpoint_core::limits::IDEMPOTENCY_LIFE;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use spawnpoint_core::session::{Event, Session};
use spawnpoint_core::{Code, FleetName, Moment, PlayerId, SessionId, TicketId};
use spawnpoint_wire::claim::MaxAsked;
use spawnpoint_wire::problem::Problem;

use super::world::{Choice, Commit, Entry, Place};
use super::{App, revive};
use crate::config::FleetConfig;

/// A call for a session, checked.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub(crate) fleet: Arc<FleetConfig>,
    /// Who called for it; the owner.
    pub(crate) player: PlayerId,
    /// Everybody, the owner first.
    pub(crate) players: Vec<PlayerId>,
    pub(crate) payload: Option<Value>,
    pub(crate) max: Option<MaxAsked>,
    pub(crate) joinable: Option<Joinable>,
    /// The backend key it counts against.
    pub(crate) key: Option<String>,
    pub(crate) mark: Option<IdempotencyMark>,
    pub(crate) fresh: bool,
    pub(crate) by: EndedBy,
    /// For a match: it is new or it is not at all.
    pub(crate) matched: Option<Matched>,
}

/// The match that a session is made for.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    /// Its id, known to the lobby before the session is there.
    pub(crate) session: SessionId,
    pub(crate) queue: FleetName,
    /// Who came by which ticket.
    pub(crate) tickets: Vec<(PlayerId, TicketId)>,
    /// Why these play together.
    pub(crate) decision: Decision,
}

/// What came of the call.
pub(crate) enum Started {
    /// A session that was not there before.
    New(SessionId),
    /// The caller's live session.
    Existing(SessionId),
    /// The session this idempotency key led to has ended.
    Ended(Box<MatchRecord>),
}

impl App {
    /// Starts a session, or returns the one there is.
    pub(crate) async fn new_session(
        self: &Arc<Self>,
        call: NewSession,
    ) -> Result<Started, Problem> {
        if let Some(mark) = &call.mark {
            let live = self.world().by_idempotency.contains_key(&mark.key_hash);
            if !live && let Some(record) = self.ended_under(mark).await? {
                return Ok(Started::Ended(Box::new(record)));
            }
        }
        let (id, place) = match self.reserve(&call)? {
            Reserved::New(id, place) => (id, place),
            Reserved::Existing(id) => {
                self.durable(id).await?;
                return Ok(Started::Existing(id));
            }
        };
        let app = Arc::clone(self);
        // On its own task: a caller who hangs up must not leave a start half done.
        self.tasks
            .spawn(async move { app.place_first(id, place).await });
        self.durable(id).await?;
        Ok(Started::New(id))
    }

    async fn ended_under(&self, mark: &IdempotencyMark) -> Result<Option<MatchRecord>, Problem> {
        let life = i64::try_from(IDEMPOTENCY_LIFE.as_millis()).unwrap_or(i64::MAX);
        let oldest = self.clock.wall(self.now()).saturating_sub(life);
        let Some((session, kept)) = self.records.by_idempotency(&mark.key_hash, oldest).await?
        else {
            return Ok(None);
        };
        if kept.body_hash != mark.body_hash {
            return Err(mismatch());
        }
        Ok(self.records.get(session).await?)
    }

    /// Everything that needs the whole view at once: idempotency, one session per player, limits, and a place.
    fn reserve(self: &Arc<Self>, call: &NewSession) -> Result<Reserved, Problem> {
        let now = self.now();
        let mut world = self.world();
        if world.draining {
            return Err(Problem::new(
                Code::ShuttingDown,
                "the server is shutting down; try another or again later",
            ));
        }
        if let Some(mark) = &call.mark
            && let Some(id) = world.by_idempotency.get(&mark.key_hash).copied()
        {
            let same = world
                .sessions
                .get(&id)
                .and_then(|e| e.idempotency.as_ref())
                .is_some_and(|m| m.body_hash == mark.body_hash);
            return if same {
                Ok(Reserved::Existing(id))
            } else {
                Err(mismatch())
            };
        }
        let fleet = &call.fleet.name;
        let mut left = None;
        if let Some(id) = world
            .by_player
            .get(&(fleet.clone(), call.player.clone()))
            .copied()
            .filter(|_| call.matched.is_none())
        {
            if !call.fresh {
                return Ok(Reserved::Existing(id));
            }
            left = Some(id);
        }
        for p in &call.players {
            if let Some(id) = world.by_player.get(&(fleet.clone(), p.clone()))
                && Some(*id) != left
            {
                return Err(in_other_session(p, fleet));
            }
        }
        self.check_limits(&world, call)?;
        if let Some(old) = left {
            let asked = (Reason::EndedByClient, call.by);
            self.leave_behind(&mut world, old, &call.player, asked, now);
        }
        let id = call
            .matched
            .as_ref()
            .map_or_else(|| self.ids.session(), |m| m.session);
        let place = world.choose(fleet, id, Choice::New, || self.ids.instance());
        if matches!(place, Place::Full) {
            return Err(Problem::new(
                Code::QueueFull,
                format!("the fleet {fleet} is full and so is its queue; try again later"),
            ));
        }
        let policy = Arc::new(policy_of(call));
        let session = Session::new(id, fleet.clone(), policy, call.players.clone(), now);
        let mut entry = Entry::new(session, Arc::clone(&call.fleet), self.invite_code());
        entry.payload.clone_from(&call.payload);
        entry.max_asked = call.max;
        entry.idempotency.clone_from(&call.mark);
        entry.key.clone_from(&call.key);
        if let Some(j) = call.joinable {
            entry.joinable = j;
        }
        if let Some(matched) = &call.matched {
            entry.queue = Some(matched.queue.clone());
            entry.tickets.clone_from(&matched.tickets);
            entry.decide(matched.decision.clone());
        }
        world.insert(entry);
        let earliest = world.timers.first().map(|t| t.0);
        world.arm(id, now);
        // A look at every start would cost each of them what lies within the brake's window, the more the more is live.
        let sooner = earliest.is_none_or(|e| world.timers.first().is_some_and(|t| t.0 < e));
        drop(world);
        if let Some(old) = left {
            self.drive(old);
        }
        if sooner {
            self.look_now.notify_one();
        }
        Self::bump(&self.counters.starts);
        Ok(Reserved::New(id, place))
    }

    /// Takes a player out of a session that they have exchanged for another; it ends so if nobody else is in it.
    pub(super) fn leave_behind(
        &self,
        world: &mut super::World,
        old: SessionId,
        player: &PlayerId,
        (reason, by): (Reason, EndedBy),
        now: Moment,
    ) {
        let Some(entry) = world.sessions.get(&old) else {
            return;
        };
        let fleet = entry.session.fleet.clone();
        let event = if entry.session.roster.len() <= 1 {
            Event::End { reason, by }
        } else {
            Event::Leave(player.clone())
        };
        let _ = self.apply_in(world, old, &event, now);
        world.release_player(&fleet, player, old);
    }

    fn check_limits(&self, world: &super::World, call: &NewSession) -> Result<(), Problem> {
        // Whoever joins a queue is asked then: a match is not refused for the quota of one of its tickets' keys.
        if call.matched.is_none() {
            self.check_key(world, call.key.as_deref())?;
        }
        if super::tcp::wants_port(&call.fleet) && !self.can_listen() {
            return Err(Problem::new(
                Code::Internal,
                format!(
                    "the fleet {} speaks TCP through a gateway, and this server has none that listens for it",
                    call.fleet.name
                ),
            ));
        }
        let Some(f) = world.fleets.get(&call.fleet.name) else {
            return Err(Problem::new(
                Code::FleetNotFound,
                format!("there is no fleet {}", call.fleet.name),
            ));
        };
        if f.warm_ready.is_empty() && f.failures.degraded(self.now()) {
            let wait = f
                .failures
                .held_until()
                .map_or(1, |u| u.since(self.now()).as_secs() + 1);
            let mut p = Problem::new(
                Code::FleetDegraded,
                format!(
                    "the fleet {} failed to start {} times in a row and is held for {wait} s; see its log with `spawnpoint fleets get {}`",
                    call.fleet.name, f.failures.in_a_row, call.fleet.name
                ),
            );
            p.retry_after = u32::try_from(wait).ok();
            return Err(p);
        }
        Ok(())
    }

    /// Whether a backend key may have another session.
    pub(super) fn check_quota(&self, key: Option<&str>) -> Result<(), Problem> {
        self.check_key(&self.world(), key)
    }

    fn check_key(&self, world: &super::World, key: Option<&str>) -> Result<(), Problem> {
        let config = self.config.load();
        if let (Some(most), Some(key)) = (config.server.sessions_per_key, key)
            && world.by_key.get(key).is_some_and(|n| *n >= most)
        {
            return Err(Problem::new(
                Code::QuotaExceeded,
                format!(
                    "the key {key:?} has {most} live sessions, which is its quota; end some or raise sessions_per_key"
                ),
            ));
        }
        Ok(())
    }

    /// Waits until the session is durable (or was not to be).
    pub(super) async fn durable(&self, id: SessionId) -> Result<(), Problem> {
        let Some(mut commit) = self.world().sessions.get(&id).map(|e| e.commit.subscribe()) else {
            return Ok(());
        };
        let settled = commit
            .wait_for(|c| *c != Commit::Pending)
            .await
            .map(|c| c.clone());
        match settled {
            Ok(Commit::Failed(code, detail)) => Err(Problem::new(code, detail)),
            // An error: it came and went, and its record tells.
            Ok(Commit::Pending | Commit::Durable) | Err(_) => Ok(()),
        }
    }
}

enum Reserved {
    New(SessionId, Place),
    Existing(SessionId),
}

/// The problem for a player who plays elsewhere in the fleet.
pub(super) fn in_other_session(player: &PlayerId, fleet: &FleetName) -> Problem {
    Problem::new(
        Code::PlayersInOtherSession,
        format!(
            "the player {:?} is in another live session of the fleet {fleet}; end or leave it first",
            player.as_str()
        ),
    )
    .on("players")
}

fn mismatch() -> Problem {
    Problem::new(
        Code::IdempotencyMismatch,
        "this Idempotency-Key was used with another request body; use a new key for a new request",
    )
}

/// The fleet's policy with what the call asked for.
fn policy_of(call: &NewSession) -> Policy {
    let mut policy = (*call.fleet.policy).clone();
    revive::apply_max(&mut policy, call.max);
    if let Some(j) = call.joinable {
        policy.joinable = j;
    }
    policy
}

impl App {
    /// 96 random bits: enough that guessing an invite is hopeless, short enough for a link.
    fn invite_code(&self) -> String {
        use base64::Engine;
        let mut bytes = [0_u8; 12];
        self.ids.fill(&mut bytes);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// An error with its causes, once each.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}
