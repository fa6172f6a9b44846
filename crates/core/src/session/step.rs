//! The transition function. Nothing else changes a phase.

use std::time::Duration;

use super::{Ending, Exit, Phase, Player, Session, Warned};
use crate::id::{Generation, InstanceId, PlayerId};
use crate::lifecycle::{ActivityRule, EndedBy, OnCrash, Reason, Sight, cull};
use crate::limits::{CRASH_LOOP, CRASH_LOOP_WINDOW, MAX_CRASH_BACKOFF};
use crate::time::Known;
use crate::{Code, Moment};

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An instance holds this session's place in the queue; it is not running yet.
    Gated(InstanceId),
    /// An instance was bound to it (a cold start begun, or a warm one claimed).
    Granted {
        /// Which.
        instance: InstanceId,
        /// For which incarnation.
        generation: Generation,
    },
    /// The instance accepts players.
    Accepting(Generation),
    /// The instance is over.
    Exited(Generation, Exit),
    /// No instance could be had, and trying again would not help.
    CannotStart(Code),
    /// A player was put on the roster.
    Join(PlayerId),
    /// A player was taken off the roster (left or kicked).
    Leave(PlayerId),
    /// Open connections of a player through gateways, as counted now.
    Connections(PlayerId, u32),
    /// Nobody can say who is connected (a restart, a lost gateway).
    SightLost,
    /// The gateways have reported in full.
    SightRegained,
    /// Data passed, last at this moment. `None`: from the server's side (counts under the rule `any`).
    Data(Option<PlayerId>, Moment),
    /// A heartbeat.
    Heartbeat(Heartbeat),
    /// Push the absolute deadline to this moment; `raise` lifts the limit first.
    Extend {
        /// The wanted deadline.
        to: Moment,
        /// Only backends may.
        raise: bool,
    },
    /// Somebody or something ends it.
    End {
        /// Why.
        reason: Reason,
        /// Who.
        by: EndedBy,
    },
    /// Look at the deadlines. `hold` keeps culls back (late tick, mass-end brake) but nothing else.
    Tick {
        /// See above.
        hold: bool,
    },
    /// The match record is written and the instance forgotten.
    Recorded,
}

/// A heartbeat as the decisions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The player it speaks for; `None` when the game or a backend speaks for the session.
    pub player: Option<PlayerId>,
    /// What it says.
    pub status: Status,
    /// Time since the last activity.
    pub idle: Duration,
    /// How long `busy` (or, in direct modes, presence) is believed.
    pub ttl: Option<Duration>,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Doing something; the last of it `idle` ago.
    Active,
    /// There, perhaps, but not playing.
    Inactive,
    /// Nobody types, yet work is being done.
    Busy,
}

/// What the one writer must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the durable facts (deadlines, generation, roster, end reason) to the instance before anything after this.
    Save,
    /// Find an instance for this incarnation, not before the given moment.
    Acquire {
        /// For which incarnation.
        generation: Generation,
        /// Start the same instance again instead of another.
        in_place: bool,
        /// Back-off.
        not_before: Moment,
    },
    /// Stop an instance (SIGTERM, grace, SIGKILL).
    Stop(InstanceId),
    /// Write the match record, then forget the instance, then say [`Event::Recorded`].
    Record,
    /// Tell whoever listens.
    Announce(Notice),
}

/// What listeners are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The phase changed to this.
    Phase(Phase),
    /// A player connected who was not connected before.
    PlayerJoined(PlayerId),
    /// A player left the roster or their last connection closed.
    PlayerLeft(PlayerId),
    /// A cull is near.
    Warning {
        /// For what.
        reason: Reason,
        /// When.
        cull_at: Moment,
    },
    /// Another instance takes over: reconnect.
    Replaced(Generation),
    /// It is over.
    Ended(Reason),
}

/// The outcome of an accepted event.
#[derive(Clone, Debug)]
pub struct Step {
    /// The state after it.
    pub next: Session,
    /// What must be done, in order.
    pub effects: Vec<Effect>,
    /// Why, in words.
    pub because: &'static str,
}

/// An event that changes nothing, and why. Most are harmless echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{because}")]
pub struct Rejected {
    /// Why, in words.
    pub because: &'static str,
    /// The code for a caller, if a caller asked.
    pub code: Option<Code>,
}

const fn reject<T>(because: &'static str) -> Result<T, Rejected> {
    Err(Rejected {
        because,
        code: None,
    })
}

const fn refuse<T>(code: Code, because: &'static str) -> Result<T, Rejected> {
    Err(Rejected {
        because,
        code: Some(code),
    })
}

/// The one transition function.
///
/// # Errors
/// [`Rejected`] when the event changes nothing in this phase; the state is then as it was.
pub fn step(session: &Session, event: &Event, now: Moment) -> Result<Step, Rejected> {
    match session.phase {
        Phase::Ended => {
            return refuse(
                Code::SessionEnded,
                "it has ended: nothing changes an ended session",
            );
        }
        Phase::Ending => return while_ending(session, event),
        _ => {}
    }
    let mut t = Transition {
        next: session.clone(),
        effects: Vec::new(),
        now,
    };
    let because = match event {
        Event::Gated(instance) => t.gated(*instance)?,
        Event::Granted {
            instance,
            generation,
        } => t.granted(*instance, *generation)?,
        Event::Accepting(generation) => t.accepting(*generation)?,
        Event::Exited(generation, exit) => t.exited(*generation, *exit)?,
        Event::CannotStart(code) => t.cannot_start(*code)?,
        Event::Join(player) => t.join(player)?,
        Event::Leave(player) => t.leave(player)?,
        Event::Connections(player, n) => t.connections(player, *n)?,
        Event::SightLost => t.sight_lost()?,
        Event::SightRegained => t.sight_regained()?,
        Event::Data(player, at) => t.data(player.as_ref(), *at)?,
        Event::Heartbeat(beat) => t.heartbeat(beat)?,
        Event::Extend { to, raise } => t.extend(*to, *raise)?,
        Event::End { reason, by } => t.end(*reason, *by, None, "asked to end"),
        Event::Tick { hold } => t.tick(*hold)?,
        Event::Recorded => return reject("it is live: there is nothing to record"),
    };
    Ok(Step {
        next: t.next,
        effects: t.effects,
        because,
    })
}

/// In `ending` the reason stands; only the exit of the instance and the record move it on.
fn while_ending(session: &Session, event: &Event) -> Result<Step, Rejected> {
    let mut next = session.clone();
    let (effects, because) = match event {
        Event::Exited(generation, exit)
            if *generation == session.generation && session.exit.is_none() =>
        {
            next.exit = Some(*exit);
            (
                vec![Effect::Record],
                "the instance is gone: the record can be written",
            )
        }
        Event::Exited(..) => {
            return reject("that exit is known already or belongs to another incarnation");
        }
        Event::Recorded => {
            next.phase = Phase::Ended;
            next.instance = None;
            (
                vec![Effect::Announce(Notice::Phase(Phase::Ended))],
                "the record is written",
            )
        }
        Event::Connections(player, n) => {
            // Tunnels close while it ends; counting them keeps the last view true.
            let Some(p) = next.roster.iter_mut().find(|p| p.id == *player) else {
                return reject("not on the roster");
            };
            p.connections = *n;
            (Vec::new(), "a connection was counted")
        }
        Event::End { .. } => {
            return refuse(
                Code::SessionEnded,
                "it is ending already: the first reason stands",
            );
        }
        Event::Join(_) | Event::Extend { .. } => return refuse(Code::SessionEnded, "it is ending"),
        _ => return reject("it is ending"),
    };
    Ok(Step {
        next,
        effects,
        because,
    })
}

struct Transition {
    next: Session,
    effects: Vec<Effect>,
    now: Moment,
}

type Moved = Result<&'static str, Rejected>;

impl Transition {
    fn enter(&mut self, phase: Phase) {
        self.next.phase = phase;
        self.effects.push(Effect::Announce(Notice::Phase(phase)));
    }

    fn end(
        &mut self,
        reason: Reason,
        by: EndedBy,
        code: Option<Code>,
        because: &'static str,
    ) -> &'static str {
        self.next.ending = Some(Ending {
            reason,
            by,
            code,
            at: self.now,
        });
        self.effects.push(Effect::Save);
        self.effects.push(Effect::Announce(Notice::Ended(reason)));
        self.enter(Phase::Ending);
        match self.next.instance {
            Some(instance) if self.next.exit.is_none() => self.effects.push(Effect::Stop(instance)),
            _ => self.effects.push(Effect::Record),
        }
        because
    }

    fn gated(&mut self, instance: InstanceId) -> Moved {
        if self.next.phase != Phase::Queued || self.next.instance.is_some() {
            return reject("only a queued session without a place takes one");
        }
        self.next.instance = Some(instance);
        Ok("its place in the queue is held")
    }

    fn granted(&mut self, instance: InstanceId, generation: Generation) -> Moved {
        if !matches!(self.next.phase, Phase::Queued | Phase::Replacing) {
            return reject("only a queued or replacing session takes an instance");
        }
        if generation != self.next.generation {
            return reject("that instance is for another incarnation");
        }
        let s = &mut self.next;
        s.instance = Some(instance);
        s.exit = None;
        s.start_deadline = Some(self.now.after(s.policy.boot));
        if s.granted_at.is_none() {
            s.granted_at = Some(self.now);
            s.max_at = s.policy.max.map(|d| self.now.after(d));
            s.max_limit_at = s.policy.max_limit.map(|d| self.now.after(d));
        }
        self.effects.push(Effect::Save);
        if self.next.phase == Phase::Queued {
            self.enter(Phase::Starting);
        }
        Ok("an instance was granted")
    }

    fn accepting(&mut self, generation: Generation) -> Moved {
        if !matches!(self.next.phase, Phase::Starting | Phase::Replacing) {
            return reject("it accepts already, or has no instance yet");
        }
        if generation != self.next.generation
            || self.next.exit.is_some()
            || self.next.start_deadline.is_none()
        {
            return reject("that instance belongs to another incarnation");
        }
        let s = &mut self.next;
        s.ready_at = Some(self.now);
        s.start_deadline = None;
        for p in &mut s.roster {
            // Whoever was connected to the instance before has been gone since this one accepts, not since the crash.
            if p.gone_since.is_some() {
                p.gone_since = Some(self.now);
            }
        }
        if s.emptied_at.is_some() {
            s.emptied_at = Some(self.now);
        }
        if s.first_joined_at.is_some() {
            s.server_active = s.server_active.max(Some(self.now));
        }
        let phase = if s.first_joined_at.is_some() {
            Phase::Running
        } else {
            Phase::Ready
        };
        self.enter(phase);
        Ok("the instance accepts players")
    }

    fn exited(&mut self, generation: Generation, exit: Exit) -> Moved {
        if generation != self.next.generation {
            return reject("that exit belongs to another incarnation");
        }
        if self.next.exit.is_some() {
            return reject("that exit is known already");
        }
        let was_ready = self.next.ready_at.is_some();
        self.next.exit = Some(exit);
        if exit.never_ran && !was_ready {
            return Ok(self.end(
                Reason::StartFailed,
                EndedBy::System,
                Some(Code::StartFailed),
                "the instance could not be started",
            ));
        }
        if exit.is_clean() {
            return Ok(self.end(
                Reason::EndedByServer,
                EndedBy::Server,
                None,
                "the game server exited 0",
            ));
        }
        let gave_up = |t: &mut Self, because| {
            let (reason, code) = if was_ready {
                (Reason::Crashed, None)
            } else {
                (Reason::StartFailed, Some(Code::StartFailed))
            };
            Ok(t.end(reason, EndedBy::System, code, because))
        };
        if self.next.policy.on_crash == OnCrash::End {
            return gave_up(self, "the game server crashed and its policy is to end");
        }
        let now = self.now;
        self.next
            .crashes
            .retain(|c| now.since(*c) < CRASH_LOOP_WINDOW);
        self.next.crashes.push(now);
        if self.next.crashes.len() >= CRASH_LOOP {
            return gave_up(self, "the game server keeps crashing");
        }
        Ok(self.replace())
    }

    /// The next incarnation. The generation rises before anything is started, so that nothing of the old one counts any more.
    fn replace(&mut self) -> &'static str {
        let now = self.now;
        let s = &mut self.next;
        s.generation = s.generation.next();
        s.ready_at = None;
        s.start_deadline = Some(now.after(s.policy.boot));
        s.warned = None;
        for p in &mut s.roster {
            if p.connections > 0 {
                p.connections = 0;
                p.gone_since = Some(now);
            }
        }
        let not_before = now.after(crash_backoff(s.crashes.len()));
        let generation = s.generation;
        let in_place = s.policy.on_crash == OnCrash::Restart;
        self.effects.push(Effect::Save);
        self.enter(Phase::Replacing);
        self.effects
            .push(Effect::Announce(Notice::Replaced(generation)));
        self.effects.push(Effect::Acquire {
            generation,
            in_place,
            not_before,
        });
        "the game server crashed: another incarnation takes over"
    }

    fn cannot_start(&mut self, code: Code) -> Moved {
        if !matches!(
            self.next.phase,
            Phase::Queued | Phase::Starting | Phase::Replacing
        ) {
            return reject("it has an instance that accepts");
        }
        Ok(self.end(
            Reason::StartFailed,
            EndedBy::System,
            Some(code),
            "no instance could be started",
        ))
    }

    fn join(&mut self, player: &PlayerId) -> Moved {
        if self.next.player(player).is_some() {
            return reject("already on the roster");
        }
        if self.next.roster.len() >= self.next.policy.max_players {
            return refuse(Code::SessionFull, "every place is taken");
        }
        self.next.roster.push(Player::new(player.clone(), self.now));
        self.next.emptied_at = None;
        if self.next.owner.is_none() {
            self.next.owner = Some(player.clone());
        }
        self.effects.push(Effect::Save);
        Ok("a player joined the roster")
    }

    fn leave(&mut self, player: &PlayerId) -> Moved {
        let Some(at) = self.next.roster.iter().position(|p| p.id == *player) else {
            return refuse(Code::PlayerNotInSession, "not on the roster");
        };
        self.next.roster.remove(at);
        if self.next.owner.as_ref() == Some(player) {
            self.next.owner = self.next.roster.first().map(|p| p.id.clone());
        }
        self.effects
            .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
        if self.next.roster.is_empty() {
            self.next.emptied_at = Some(self.now);
        }
        self.effects.push(Effect::Save);
        Ok("a player left the roster")
    }

    fn connections(&mut self, player: &PlayerId, n: u32) -> Moved {
        let now = self.now;
        let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) else {
            return reject("not on the roster");
        };
        if p.connections == n {
            return reject("nothing changed");
        }
        let had = std::mem::replace(&mut p.connections, n);
        if n == 0 {
            p.gone_since = Some(now);
            self.effects
                .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
            return Ok("a player's last connection closed");
        }
        if had == 0 {
            p.gone_since = None;
            self.arrived(player);
        }
        Ok("a player connected")
    }

    /// A player is here who was not: arriving counts as activity.
    fn arrived(&mut self, player: &PlayerId) {
        let now = self.now;
        if let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) {
            p.last_active = p.last_active.max(Some(now));
            p.inactive = false;
        }
        self.effects
            .push(Effect::Announce(Notice::PlayerJoined(player.clone())));
        if self.next.first_joined_at.is_none() {
            self.next.first_joined_at = Some(now);
            self.effects.push(Effect::Save);
        }
        if self.next.phase == Phase::Ready {
            self.enter(Phase::Running);
        }
    }

    fn sight_lost(&mut self) -> Moved {
        if matches!(self.next.sight, Known::Unknown { .. }) {
            return reject("already unknown");
        }
        self.next.sight = Known::Unknown { since: self.now };
        Ok("nobody can say who is connected")
    }

    fn sight_regained(&mut self) -> Moved {
        let Known::Unknown { since } = self.next.sight else {
            return reject("already known");
        };
        self.next.sight = Known::Is(());
        let now = self.now;
        let s = &mut self.next;
        // What was done unseen cannot be ruled out: it counts up to the last unseen moment, and graces start now.
        s.server_active = s.server_active.max(Some(since));
        let played = s.first_joined_at.is_some();
        for p in &mut s.roster {
            if p.connections == 0 && (p.gone_since.is_some() || played) {
                p.gone_since = Some(now);
            }
        }
        Ok("the gateways have reported in full")
    }

    fn data(&mut self, player: Option<&PlayerId>, at: Moment) -> Moved {
        let at = at.min(self.now);
        let s = &mut self.next;
        match (s.policy.activity, player) {
            (ActivityRule::Heartbeat, _) => {
                reject("only heartbeats count as activity in this fleet")
            }
            (ActivityRule::ClientData, None) => {
                reject("what the server sends does not count as activity")
            }
            (ActivityRule::Any, None) => {
                s.server_active = s.server_active.max(Some(at));
                Ok("the server sent data")
            }
            (_, Some(id)) => {
                let Some(p) = s.roster.iter_mut().find(|p| p.id == *id) else {
                    return reject("not on the roster");
                };
                if p.last_active >= Some(at) {
                    return reject("older than what is known");
                }
                p.last_active = Some(at);
                p.inactive = false;
                Ok("a player sent data")
            }
        }
    }

    fn heartbeat(&mut self, beat: &Heartbeat) -> Moved {
        let now = self.now;
        let at = now.before(beat.idle);
        if beat.status == Status::Busy {
            let ttl = beat.ttl.unwrap_or(self.next.policy.heartbeat * 3);
            self.next.busy_until = self.next.busy_until.max(Some(now.after(ttl)));
        }
        let Some(id) = &beat.player else {
            if beat.status == Status::Active {
                self.next.server_active = self.next.server_active.max(Some(at));
            }
            return Ok(match beat.status {
                Status::Active => "the server's side reported activity",
                Status::Inactive => "the server's side reported no activity",
                Status::Busy => "a quiet worker is alive",
            });
        };
        let direct = self.next.policy.sight == Sight::Direct;
        let lease = now.after(beat.ttl.unwrap_or(self.next.policy.heartbeat * 3));
        let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *id) else {
            return refuse(Code::PlayerNotInSession, "not on the roster");
        };
        match beat.status {
            Status::Active => {
                p.inactive = false;
                p.last_active = p.last_active.max(Some(at));
            }
            Status::Inactive => p.inactive = true,
            Status::Busy => {}
        }
        if direct {
            let here = p.lease_until.is_some_and(|l| l > now);
            // Leaving says `inactive`: the lease ends and the grace begins.
            p.lease_until = Some(if beat.status == Status::Inactive {
                now
            } else {
                lease
            });
            if !here && beat.status != Status::Inactive && self.next.phase.accepts() {
                self.arrived(id);
            }
        }
        Ok(match beat.status {
            Status::Active => "a player reported activity",
            Status::Inactive => "a player reported no activity",
            Status::Busy => "a player's quiet work goes on",
        })
    }

    fn extend(&mut self, to: Moment, raise: bool) -> Moved {
        let s = &mut self.next;
        let Some(old) = s.max_at else {
            return reject("it has no maximum");
        };
        if raise && s.max_limit_at.is_some_and(|l| to > l) {
            s.max_limit_at = Some(to);
        }
        let to = s.max_limit_at.map_or(to, |l| to.min(l));
        if to <= old {
            return reject("the limit is reached: nothing extends past it");
        }
        s.max_at = Some(to);
        s.extends += 1;
        self.effects.push(Effect::Save);
        Ok("the deadline was pushed")
    }

    fn tick(&mut self, hold: bool) -> Moved {
        let Some(due) = cull(&self.next) else {
            return reject("it has no deadline");
        };
        if self.now >= due.at {
            // Its own maximum, queue and start limits are counted from facts nobody else reports: they never wait.
            if hold && crate::lifecycle::brake_applies(due.reason) {
                return reject("a cull is due and held");
            }
            return Ok(self.end(due.reason, EndedBy::System, due.code, "its deadline passed"));
        }
        let left = due.at.since(self.now);
        let warns = matches!(due.reason, Reason::Idle | Reason::MaxDuration);
        let already = self
            .next
            .warned
            .filter(|w| w.cull_at == due.at)
            .map(|w| w.threshold);
        let threshold = self
            .next
            .policy
            .warnings
            .iter()
            .copied()
            .filter(|t| left <= *t && *t < due.rule)
            .min();
        match threshold {
            Some(t) if warns && already.is_none_or(|a| t < a) => {
                self.next.warned = Some(Warned {
                    cull_at: due.at,
                    threshold: t,
                });
                self.effects.push(Effect::Announce(Notice::Warning {
                    reason: due.reason,
                    cull_at: due.at,
                }));
                Ok("a cull is near")
            }
            _ => reject("nothing is due"),
        }
    }
}

/// The pause before the next incarnation: none after the first crash, then 1, 2, 4 ... seconds, capped.
fn crash_backoff(crashes: usize) -> Duration {
    match crashes {
        0 | 1 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 2).min(10)).min(MAX_CRASH_BACKOFF),
    }
}

/// When [`Event::Tick`] next has something to say: the next warning or the cull itself.
#[must_use]
pub(crate) fn next_look(s: &Session, now: Moment) -> Option<Moment> {
    let due = cull(s)?;
    let warns = matches!(due.reason, Reason::Idle | Reason::MaxDuration);
    let already = s
        .warned
        .filter(|w| w.cull_at == due.at)
        .map(|w| w.threshold);
    let warning = s
        .policy
        .warnings
        .iter()
        .copied()
        .filter(|t| warns && *t < due.rule && already.is_none_or(|a| *t < a))
        .map(|t| due.at.before(t))
        .min();
    Some(warning.map_or(due.at, |w| w.min(due.at)).max(now))
}

impl Session {
    /// When a [`Event::Tick`] next has something to say, not before `now`; `None` without any deadline.
    #[must_use]
    pub fn next_look(&self, now: Moment) -> Option<Moment> {
        next_look(self, now)
    }
}
