//! Every decision of a world is made a second time, from what the run of the server says went into it, and must come out the same; and
//! each step must begin with the state that the one before it led to, or something else than a step changes sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use spawnpoint_core::SessionId;
use spawnpoint_core::fleet::plan;
use spawnpoint_core::lifecycle::hold_after;
use spawnpoint_core::matching::propose;
use spawnpoint_core::session::{Phase, Session, step};
use spawnpoint_server::journal::{Journal, Made, StepMade};

use crate::life::Life;
use crate::world::World;

/// The journal of one run of the server.
pub(crate) struct Decisions {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
    pub(crate) sessions: Mutex<HashMap<SessionId, Session>>,
}

impl Journal for Decisions {
    fn note(&self, made: Made) {
        // What a dead process still thinks is nobody's business.
        if self.life.is_dead() {
            return;
        }
        self.world.checked();
        let differs = match made {
            Made::Step(made) => self.step(*made),
            Made::Plan(p) => {
                let again = plan(&p.spec, &p.seen, p.in_flight, p.failures, p.now);
                (again != p.plan).then(|| format!("fleet::plan: {:?}, then {again:?}", p.plan))
            }
            Made::Brake(b) => {
                let (after, verdict) = b.before.decide(b.live, b.due, b.facts, b.now);
                let same = after == b.after && b.verdict == verdict.into();
                (!same).then(|| format!("lifecycle::brake: {:?}, then {verdict:?}", b.verdict))
            }
            Made::Hold(h) => {
                let again = hold_after(h.expected, h.now, h.heartbeat);
                (again != h.until).then(|| "lifecycle::hold_after".to_owned())
            }
            Made::Propose(p) => {
                let again = propose(p.candidates.iter().map(|c| &**c), &p.rules, p.now);
                let said = || format!("matching::propose: {:?}, then {again:?}", p.proposal);
                (again != p.proposal).then(said)
            }
            Made::TooLarge(_) => None,
        };
        if let Some(what) = differs {
            self.world.fail("decisions replay the same", &what);
        }
    }
}

impl Decisions {
    fn step(&self, made: StepMade) -> Option<String> {
        let StepMade {
            before,
            event,
            now,
            result,
        } = made;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let id = before.id;
        if sessions.get(&id).is_some_and(|known| *known != before) {
            let id = self.world.s(id);
            return Some(format!("{id} was changed by something else than a step"));
        }
        let again = step(&before, &event, now);
        if again != result {
            return Some(format!(
                "session::step of {} on {}: {result:?}, then {again:?}",
                self.world.s(id),
                event.name()
            ));
        }
        if let Ok(step) = result {
            if step.next.phase == Phase::Ended {
                sessions.remove(&id);
            } else {
                sessions.insert(id, step.next);
            }
        }
        None
    }
}
