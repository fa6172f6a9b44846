//! The reaper: looks at each session when its next deadline or warning is due, holds culls back after a late tick or while the
//! mass-end brake holds, and nothing else.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use spawnpoint_core::decision::{Decision, Subject};
use spawnpoint_core::lifecycle::{
    Brake, Cull, Verdict, brake_applies, brake_counts, cull, hold_after, late_tick_applies,
};
use spawnpoint_core::limits::BRAKE_WINDOW;
use spawnpoint_core::time::Known;
use spawnpoint_core::{Moment, SessionId};
use spawnpoint_runtime::State;
use spawnpoint_wire::journal::{Braked, Held};

use crate::app::{App, LATE_TICK, MASS_END_BRAKE};
use crate::journal::Made;
use crate::mutant::{self, Mutant};

/// It looks at least this often: a tick is then never late by itself, and lateness is noticed within this.
const LOOK: Duration = Duration::from_millis(200);
/// While culls are held, the held sessions are looked at again after this.
const HELD_LOOK: Duration = Duration::from_millis(500);
/// How often warm instances are looked through.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) async fn run(app: Arc<App>) {
    let mut state = Reaper {
        brake: Brake::default(),
        late_until: None,
        expected: app.clock.now(),
        swept: app.clock.now(),
    };
    loop {
        let wait = state.look(&app);
        state.expected = app.clock.now().after(wait);
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = app.look_now.notified() => state.expected = state.expected.min(app.clock.now()),
        }
    }
}

/// Whether it would end because it did not start though nobody can say that it did not: its instance cannot be seen, or this process
/// stood still (`late`), and what happened meanwhile may not have been heard yet.
fn starts_unheard(app: &Arc<App>, id: SessionId, late: bool) -> bool {
    app.with_world(|w| {
        let Some(session) = w.sessions.get(&id).map(|e| &e.session) else {
            return false;
        };
        let unseen = || {
            let seen = session.instance.and_then(|i| w.instances.get(&i));
            seen.is_some_and(|i| matches!(i.state, State::Unknown { .. }))
        };
        let rests_on_news = |c: Cull| late_tick_applies(c.reason) && !brake_applies(c.reason);
        cull(session).is_some_and(rests_on_news) && (late || unseen())
    })
}

struct Reaper {
    brake: Brake,
    late_until: Option<Moment>,
    expected: Moment,
    /// When warm instances were last looked through for those that never accepted.
    swept: Moment,
}

impl Reaper {
    /// One look. Returns how long until the next.
    fn look(&mut self, app: &Arc<App>) -> Duration {
        let now = app.clock.now();
        app.note_silent_gateways();
        let heartbeat = app
            .config
            .load()
            .fleets
            .first()
            .map_or(Duration::from_secs(5), |f| f.policy.heartbeat);
        let expected = self.expected;
        if let Some(until) = hold_after(expected, now, heartbeat) {
            if let Some(journal) = &app.journal {
                journal.note(Made::Hold(Held {
                    now,
                    expected,
                    heartbeat,
                    until: Some(until),
                }));
            }
            tracing::warn!(
                late_ms = now.since(expected).as_millis(),
                "this process was not running for a while: culls hold for a heartbeat period"
            );
            self.late_until = Some(until);
        }
        let late = self.late_until.is_some_and(|u| now < u);
        let braked = self.brake(app, now);
        let held_by = if late {
            Some(LATE_TICK)
        } else if braked {
            Some(MASS_END_BRAKE)
        } else {
            None
        };
        self.note(app, held_by, now);
        let looked = if mutant::on(Mutant::LateCull) {
            now.before(Duration::from_secs(6))
        } else if mutant::on(Mutant::EarlyCull) {
            now.after(Duration::from_secs(3))
        } else {
            now
        };
        let due: Vec<SessionId> = app.with_world(|w| {
            w.timers
                .iter()
                .take_while(|(at, _)| *at <= looked)
                .map(|(_, id)| *id)
                .collect()
        });
        for id in &due {
            if !starts_unheard(app, *id, late) {
                super::tick(app, *id, held_by.is_some(), looked);
            }
            app.look_later(*id, now.after(HELD_LOOK));
        }
        if !late && now.since(self.swept) >= SWEEP {
            self.swept = now;
            app.drop_stuck_warm();
        }
        let next = app.with_world(|w| w.timers.first().map(|(at, _)| *at));
        next.map_or(LOOK, |at| at.since(now).min(LOOK))
            .max(Duration::from_millis(1))
    }

    fn brake(&mut self, app: &Arc<App>, now: Moment) -> bool {
        let horizon = now.after(BRAKE_WINDOW);
        let (live, due) = app.with_world(|w| {
            // A session that would end within the window is armed within it: the others need not be asked.
            let due = w
                .timers
                .iter()
                .take_while(|(at, _)| *at <= horizon)
                .filter(|(_, id)| {
                    w.sessions
                        .get(id)
                        .is_some_and(|e| brake_counts(&e.session, now))
                })
                .count();
            if due == 0 {
                // Nothing to hold: not worth a walk over everything live.
                return (0, 0);
            }
            let sessions = w.sessions.values();
            let live = sessions.filter(|e| e.session.phase.is_live()).count();
            (live, due)
        });
        let facts = app.facts();
        let (next, verdict) = self.brake.decide(live, due, facts, now);
        let noteworthy = self.brake.held_since.is_some() || next.held_since.is_some();
        if let Some(journal) = app.journal.as_ref().filter(|_| noteworthy) {
            journal.note(Made::Brake(Box::new(Braked {
                now,
                before: self.brake,
                live,
                due,
                facts,
                after: next,
                verdict: verdict.into(),
            })));
        }
        if next.held_since.is_some() != self.brake.held_since.is_some() {
            let because = match verdict {
                Verdict::Go { because } | Verdict::Hold { because, .. } => because,
            };
            tracing::warn!(live, due, because, "mass-end brake");
        }
        self.brake = next;
        verdict.holds()
    }

    /// Says when holding begins and ends, once.
    fn note(&self, app: &Arc<App>, held_by: Option<&'static str>, now: Moment) {
        let mut shown = app.held_by.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown == held_by {
            return;
        }
        match held_by {
            Some(LATE_TICK) => App::bump(&app.counters.culls_held_late),
            Some(_) => App::bump(&app.counters.culls_held_braked),
            None => {}
        }
        let decision = Decision {
            at: now,
            subject: Subject::Worker("reaper"),
            function: "lifecycle::brake",
            input: shown.unwrap_or("free").to_owned(),
            output: held_by.unwrap_or("free").to_owned(),
            because: "late ticks and mass ends hold culls".to_owned(),
        };
        tracing::info!(from = %decision.input, to = %decision.output, "culls");
        *shown = held_by;
    }
}

impl App {
    /// What is known of the gateways' view: the oldest of their newest reports, or that none has reported.
    fn facts(&self) -> Known<Moment> {
        self.reports.facts(self.started_at)
    }
}
