//! The transition function. Nothing else changes a phase.
//!
//! Here: how a session gets an instance, loses it and ends. Who is there is in [`presence`](super::presence), what time does to
//! it in [`deadline`](super::deadline).

use std::time::Duration;

use super::event::{Effect, Event, Notice, Rejected, Step};
use super::{Ending, Exit, Phase, Session};
use crate::id::{Generation, InstanceId};
use crate::lifecycle::{EndedBy, OnCrash, Reason};
use crate::limits::{CRASH_LOOP, CRASH_LOOP_WINDOW, MAX_CRASH_BACKOFF};
use crate::{Code, Moment};

pub(super) const fn reject<T>(because: &'static str) -> Result<T, Rejected> {
    Err(Rejected {
        because,
        code: None,
    })
}

pub(super) const fn refuse<T>(code: Code, because: &'static str) -> Result<T, Rejected> {
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
            if *generation == session.generation && session.live_instance().is_some() =>
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
        Event::Recorded if session.live_instance().is_some() => {
            return reject("its instance is still being stopped: nothing was to be recorded yet");
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
            if p.connections == *n {
                return reject("nothing changed");
            }
            p.connections = *n;
            (Vec::new(), "a connection was counted")
        }
        Event::End { .. } => {
            return refuse(
                Code::SessionEnded,
                "it is ending already: the first reason stands",
            );
        }
        Event::Join(_) | Event::Leave(_) | Event::Extend { .. } | Event::Heartbeat(_) => {
            return refuse(Code::SessionEnded, "it is ending");
        }
        Event::Gated(_)
        | Event::Granted { .. }
        | Event::Accepting(_)
        | Event::CannotStart(_)
        | Event::SightLost
        | Event::SightRegained
        | Event::Data(..)
        | Event::Tick { .. } => return reject("it is ending"),
    };
    Ok(Step {
        next,
        effects,
        because,
    })
}

/// A step under way: what the state will be, and what must be done for it.
pub(super) struct Transition {
    pub(super) next: Session,
    pub(super) effects: Vec<Effect>,
    pub(super) now: Moment,
}

/// What an accepted event did, in words.
pub(super) type Moved = Result<&'static str, Rejected>;

impl Transition {
    /// Changes the phase and says so; entering the phase it is in already is no change.
    pub(super) fn enter(&mut self, phase: Phase) {
        if self.next.phase != phase {
            self.next.phase = phase;
            self.effects.push(Effect::Announce(Notice::Phase(phase)));
        }
    }

    pub(super) fn end(
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
        self.effects.push(match self.next.live_instance() {
            Some(instance) => Effect::Stop(instance),
            None => Effect::Record,
        });
        because
    }

    /// The end of a session that has no instance any more and gets no other.
    fn give_up(&mut self, code: Option<Code>, because: &'static str) -> &'static str {
        let reason = crate::lifecycle::failure(&self.next);
        self.end(reason, EndedBy::System, code, because)
    }

    fn gated(&mut self, instance: InstanceId) -> Moved {
        if self.next.phase != Phase::Queued || self.next.instance.is_some() {
            return reject("only a queued session without a place takes one");
        }
        self.next.instance = Some(instance);
        Ok("its place in the queue is held")
    }

    fn granted(&mut self, instance: InstanceId, generation: Generation) -> Moved {
        let s = &mut self.next;
        if !matches!(s.phase, Phase::Queued | Phase::Replacing) {
            return reject("only a queued or replacing session takes an instance");
        }
        if generation != s.generation {
            return reject("that instance is for another incarnation");
        }
        // The one that holds its place is ungated, not another bound beside it: their exits could not be told apart.
        if s.live_instance().is_some_and(|held| held != instance) {
            return reject("it has an instance already");
        }
        if s.phase == Phase::Replacing && s.live_instance().is_some() {
            return reject("that instance is granted already");
        }
        s.instance = Some(instance);
        s.exit = None;
        s.start_deadline = Some(self.now.after(s.policy.boot));
        if s.granted_at.is_none() {
            s.granted_at = Some(self.now);
            // A ceiling below the first deadline, or one without it, is the deadline.
            let first = match (s.policy.max, s.policy.max_limit) {
                (Some(max), Some(limit)) => Some(max.min(limit)),
                (max, limit) => max.or(limit),
            };
            s.max_at = first.map(|d| self.now.after(d));
            s.max_limit_at = s.policy.max_limit.map(|d| self.now.after(d));
        }
        // No `Save`: a grant is told once it is durable, as the instance's own claim.
        if self.next.phase == Phase::Queued {
            self.enter(Phase::Starting);
        }
        Ok("an instance was granted")
    }

    fn accepting(&mut self, generation: Generation) -> Moved {
        if !matches!(self.next.phase, Phase::Starting | Phase::Replacing) {
            return reject("it accepts already, or has no instance yet");
        }
        if generation != self.next.generation {
            return reject("that instance belongs to another incarnation");
        }
        if self.next.live_instance().is_none() {
            return reject("this incarnation has no instance yet");
        }
        let now = self.now;
        let s = &mut self.next;
        s.ready_at = Some(now);
        s.first_ready_at = s.first_ready_at.or(s.ready_at);
        s.start_deadline = None;
        self.restart_graces();
        self.enter(if self.next.first_joined_at.is_some() {
            Phase::Running
        } else {
            Phase::Ready
        });
        Ok("the instance accepts players")
    }

    fn exited(&mut self, generation: Generation, exit: Exit) -> Moved {
        if generation != self.next.generation {
            return reject("that exit belongs to another incarnation");
        }
        if self.next.live_instance().is_none() {
            return reject("that exit is known already, or it has no instance");
        }
        if self.next.phase == Phase::Queued {
            // Nothing ran and nobody waits less: it keeps its turn, and the next incarnation keeps late echoes apart.
            self.next.instance = None;
            self.next.generation = generation.next();
            return Ok("what held its place in the queue is gone: it waits on without");
        }
        self.next.exit = Some(exit);
        if exit.is_clean() {
            return Ok(self.end(
                Reason::EndedByServer,
                EndedBy::Server,
                None,
                "the game server exited 0",
            ));
        }
        let code = self.next.ready_at.is_none().then_some(Code::StartFailed);
        if exit.never_ran {
            return Ok(self.give_up(code, "the instance could not be started"));
        }
        if self.next.policy.on_crash == OnCrash::End {
            return Ok(self.give_up(code, "the game server crashed and its policy is to end"));
        }
        // By when they happened, not by when they were heard of: after a restart that can be much later.
        let at = exit.at.min(self.now);
        let crashes = &mut self.next.crashes;
        crashes.retain(|c| at.since(*c) < CRASH_LOOP_WINDOW);
        crashes.push(at);
        if crashes.len() >= CRASH_LOOP {
            return Ok(self.give_up(code, "the game server keeps crashing"));
        }
        Ok(self.replace())
    }

    /// The next incarnation. The generation rises before anything is started, so that nothing of the old one counts any more.
    fn replace(&mut self) -> &'static str {
        let now = self.now;
        let s = &mut self.next;
        let not_before = now.after(crash_backoff(s.crashes.len()));
        s.generation = s.generation.next();
        s.ready_at = None;
        s.start_deadline = Some(not_before.after(s.policy.boot));
        for p in &mut s.roster {
            if p.connections > 0 {
                p.connections = 0;
                // On lease they are still there: between two requests nothing was lost.
                p.gone_since = (!p.is_present(now)).then_some(now);
            }
        }
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
        Ok(self.give_up(Some(code), "no instance could be started"))
    }
}

/// The pause before the next incarnation: none after the first crash, then 1, 2, 4 ... seconds, capped.
fn crash_backoff(crashes: usize) -> Duration {
    match crashes {
        0 | 1 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 2).min(10)).min(MAX_CRASH_BACKOFF),
    }
}
