//! Every event in every phase: what [`step`] makes of it, as rows and as the document `docs/state-machines.md`.
//!
//! The scenarios are canonical: each variant of [`Event`] with those of its cases that the rules tell apart. Each is played in
//! each phase, on a session that came there by the same function. A test walks all rows and checks what must always hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Effect, Event, Exit, Heartbeat, Notice, Phase, Rejected, Session, Status, Step, step};
use crate::id::{FleetName, Generation, InstanceId, PlayerId, SessionId};
use crate::lifecycle::{ActivityRule, EndedBy, OnCrash, Policy, Reason, Sight, cull, deadlines};
use crate::{Code, Moment};

/// One scenario played in one phase.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the scenario is, in words.
    pub label: &'static str,
    /// The state before.
    pub before: Session,
    /// The event.
    pub event: Event,
    /// When.
    pub now: Moment,
    /// What [`step`] said.
    pub outcome: Result<Step, Rejected>,
}

/// Changes the session for the scenario and says what happens then, and when.
type Play = fn(&mut Session) -> (Event, Moment);

/// The moment of all scenarios that do not say otherwise: no deadline is near.
const NOW: Moment = Moment(40_000);

/// Plays every scenario in every phase, in the order of the document.
#[must_use]
pub fn walk() -> Vec<Row> {
    let mut rows = Vec::new();
    for phase in Phase::ALL {
        for (label, play) in SCENARIOS {
            let mut before = in_phase(phase);
            let (event, now) = play(&mut before);
            let outcome = step(&before, &event, now);
            rows.push(Row {
                label,
                before,
                event,
                now,
                outcome,
            });
        }
    }
    rows
}

/// A session of two players, alice (who owns it, and came) and bob (who did not), in this phase, with the default policy.
#[must_use]
pub fn in_phase(phase: Phase) -> Session {
    let new = Session::new(
        SessionId::new(Uuid::from_u128(1)),
        FleetName::literal("arena"),
        Arc::new(Policy::default()),
        vec![alice(), bob()],
        Moment(0),
    );
    let start = [
        (grant(FIRST), 1_000),
        (Event::Accepting(Generation::FIRST), 5_000),
        (Event::Connections(alice(), 1), 10_000),
    ];
    let end = Event::End {
        reason: Reason::EndedByClient,
        by: EndedBy::Player,
    };
    let over = Event::Exited(Generation::FIRST, Exit::with_code(0, Moment(21_000)));
    match phase {
        Phase::Queued => new,
        Phase::Starting => drive(new, &start[..1]),
        Phase::Ready => drive(new, &start[..2]),
        Phase::Running => drive(new, &start),
        Phase::Replacing => drive(in_phase(Phase::Running), &[(crash(1), 20_000)]),
        Phase::Ending => drive(in_phase(Phase::Running), &[(end, 20_000)]),
        Phase::Ended => drive(
            in_phase(Phase::Ending),
            &[(over, 21_000), (Event::Recorded, 22_000)],
        ),
    }
}

fn drive(mut session: Session, events: &[(Event, i64)]) -> Session {
    for (event, at) in events {
        if let Ok(next) = step(&session, event, Moment(*at)) {
            session = next.next;
        }
    }
    session
}

const FIRST: u128 = 11;
const SECOND: u128 = 12;

fn instance(n: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(n))
}

fn alice() -> PlayerId {
    PlayerId::literal("alice")
}

fn bob() -> PlayerId {
    PlayerId::literal("bob")
}

fn carol() -> PlayerId {
    PlayerId::literal("carol")
}

fn grant(n: u128) -> Event {
    Event::Granted {
        instance: instance(n),
        generation: Generation::FIRST,
    }
}

fn crash(generation: u32) -> Event {
    let exit = Exit::with_code(3, Moment(20_000));
    Event::Exited(Generation(generation), exit)
}

/// Where a session has none (queued, replacing), it gets one: held in the queue, or granted.
fn with_instance(s: &mut Session) {
    let give = match s.phase {
        Phase::Queued => Event::Gated(instance(FIRST)),
        Phase::Replacing => Event::Granted {
            instance: instance(SECOND),
            generation: s.generation,
        },
        _ => return,
    };
    *s = drive(s.clone(), &[(give, 30_000)]);
}

fn policy(s: &mut Session, change: fn(&mut Policy)) {
    change(Arc::make_mut(&mut s.policy));
}

fn exit(s: &mut Session, change: fn(&mut Exit)) -> (Event, Moment) {
    with_instance(s);
    let mut exit = Exit::with_code(3, NOW);
    change(&mut exit);
    (Event::Exited(s.generation, exit), NOW)
}

fn beat(player: Option<PlayerId>, status: Status) -> (Event, Moment) {
    let beat = Heartbeat {
        player,
        status,
        idle: Duration::ZERO,
        ttl: None,
    };
    (Event::Heartbeat(beat), NOW)
}

fn extend(s: &Session, seconds: u64, raise: bool) -> (Event, Moment) {
    let to = s.max_at.unwrap_or(NOW).after(Duration::from_secs(seconds));
    (Event::Extend { to, raise }, NOW)
}

/// When the first deadline with this reason is due (or any, or [`NOW`] where there is none).
fn due(s: &Session, reason: Option<Reason>) -> Moment {
    let found = match reason {
        Some(reason) => deadlines(s).find(|c| c.reason == reason),
        None => cull(s),
    };
    found.map_or(NOW, |c| c.at)
}

const SCENARIOS: &[(&str, Play)] = &[
    ("its place is held", |_| {
        (Event::Gated(instance(FIRST)), NOW)
    }),
    ("its place is held twice", |s| {
        with_instance(s);
        (Event::Gated(instance(SECOND)), NOW)
    }),
    ("for this incarnation", |s| {
        let generation = s.generation;
        let instance = instance(SECOND);
        (
            Event::Granted {
                instance,
                generation,
            },
            NOW,
        )
    }),
    ("the one that is held or granted already", |s| {
        with_instance(s);
        let generation = s.generation;
        let instance = s.instance.unwrap_or(instance(SECOND));
        (
            Event::Granted {
                instance,
                generation,
            },
            NOW,
        )
    }),
    ("another beside it", |s| {
        with_instance(s);
        let generation = s.generation;
        let instance = instance(99);
        (
            Event::Granted {
                instance,
                generation,
            },
            NOW,
        )
    }),
    ("for another incarnation", |_| {
        let generation = Generation(9);
        let instance = instance(SECOND);
        (
            Event::Granted {
                instance,
                generation,
            },
            NOW,
        )
    }),
    ("before any is granted", |s| {
        (Event::Accepting(s.generation), NOW)
    }),
    ("once granted", |s| {
        with_instance(s);
        (Event::Accepting(s.generation), NOW)
    }),
    ("once granted, nobody came yet", |s| {
        with_instance(s);
        s.first_joined_at = None;
        (Event::Accepting(s.generation), NOW)
    }),
    ("of another incarnation", |s| {
        with_instance(s);
        (Event::Accepting(Generation(9)), NOW)
    }),
    ("code 0", |s| exit(s, |e| e.code = Some(0))),
    ("crash, onCrash replace", |s| exit(s, |_| {})),
    ("crash, onCrash restart", |s| {
        policy(s, |p| p.on_crash = OnCrash::Restart);
        exit(s, |_| {})
    }),
    ("crash, onCrash end", |s| {
        policy(s, |p| p.on_crash = OnCrash::End);
        exit(s, |_| {})
    }),
    ("second crash within 60 s", |s| {
        s.crashes = vec![Moment(20_000)];
        exit(s, |_| {})
    }),
    ("third crash within 60 s", |s| {
        s.crashes = vec![Moment(20_000), Moment(30_000)];
        exit(s, |_| {})
    }),
    ("killed for its memory", |s| exit(s, |e| e.oom = true)),
    ("its supervisor is gone, the code is lost", |s| {
        exit(s, |e| (e.code, e.lost) = (None, true))
    }),
    ("it never ran", |s| {
        exit(s, |e| (e.code, e.never_ran) = (None, true))
    }),
    ("of another incarnation", |s| {
        with_instance(s);
        (crash(9), NOW)
    }),
    ("it has no instance, or its exit is known", |s| {
        s.exit = s.instance.map(|_| Exit::with_code(3, NOW));
        (Event::Exited(s.generation, Exit::with_code(3, NOW)), NOW)
    }),
    ("no instance can be had", |_| {
        (Event::CannotStart(Code::FleetDegraded), NOW)
    }),
    ("somebody new", |_| (Event::Join(carol()), NOW)),
    ("somebody on the roster", |_| (Event::Join(bob()), NOW)),
    ("somebody new, all places taken", |s| {
        policy(s, |p| p.max_players = 2);
        (Event::Join(carol()), NOW)
    }),
    ("one of several", |_| (Event::Leave(bob()), NOW)),
    ("the owner", |_| (Event::Leave(alice()), NOW)),
    ("the last one", |s| {
        *s = drive(s.clone(), &[(Event::Leave(bob()), 15_000)]);
        s.roster.truncate(1);
        (Event::Leave(alice()), NOW)
    }),
    ("a stranger", |_| (Event::Leave(carol()), NOW)),
    ("the first of a player", |_| {
        (Event::Connections(bob(), 1), NOW)
    }),
    ("another of the same player", |_| {
        (Event::Connections(alice(), 2), NOW)
    }),
    ("the last one closed", |_| {
        (Event::Connections(alice(), 0), NOW)
    }),
    ("as many as before", |s| {
        *s = drive(s.clone(), &[(Event::Connections(alice(), 2), 15_000)]);
        (Event::Connections(alice(), 2), NOW)
    }),
    ("came and left since the last report", |_| {
        (Event::Connections(bob(), 0), NOW)
    }),
    ("came back and left since the last report", |s| {
        let came = [
            (Event::Connections(bob(), 1), 15_000),
            (Event::Connections(bob(), 0), 15_500),
        ];
        *s = drive(s.clone(), &came);
        (Event::Connections(bob(), 0), NOW)
    }),
    ("came and left, an HTTP game", |s| {
        policy(s, |p| p.sight = Sight::Requests);
        (Event::Connections(bob(), 0), NOW)
    }),
    ("of a stranger", |_| (Event::Connections(carol(), 1), NOW)),
    ("gateways cannot be heard", |_| (Event::SightLost, NOW)),
    ("still not heard", |s| {
        *s = drive(s.clone(), &[(Event::SightLost, 30_000)]);
        (Event::SightLost, NOW)
    }),
    ("after a loss", |s| {
        *s = drive(s.clone(), &[(Event::SightLost, 30_000)]);
        (Event::SightRegained, NOW)
    }),
    ("without a loss", |_| (Event::SightRegained, NOW)),
    ("from a player", |_| (Event::Data(Some(alice()), NOW), NOW)),
    ("from a player, older than known", |_| {
        (
            Event::Data(Some(alice()), NOW.before(Duration::from_secs(35))),
            NOW,
        )
    }),
    ("from a stranger", |_| {
        (Event::Data(Some(carol()), NOW), NOW)
    }),
    ("from a player, activity = heartbeat", |s| {
        policy(s, |p| p.activity = ActivityRule::Heartbeat);
        (Event::Data(Some(alice()), NOW), NOW)
    }),
    ("from the server", |_| (Event::Data(None, NOW), NOW)),
    ("from the server, activity = any", |s| {
        policy(s, |p| p.activity = ActivityRule::Any);
        (Event::Data(None, NOW), NOW)
    }),
    ("from the server, activity = any, all inactive", |s| {
        policy(s, |p| p.activity = ActivityRule::Any);
        let (inactive, _) = beat(Some(alice()), Status::Inactive);
        *s = drive(s.clone(), &[(inactive, 30_000)]);
        (Event::Data(None, NOW), NOW)
    }),
    ("active, of a player", |_| {
        beat(Some(alice()), Status::Active)
    }),
    ("inactive, of a player", |_| {
        beat(Some(alice()), Status::Inactive)
    }),
    ("busy, of a player", |_| beat(Some(alice()), Status::Busy)),
    ("active, of a stranger", |_| {
        beat(Some(carol()), Status::Active)
    }),
    ("active, of the game or a backend", |_| {
        beat(None, Status::Active)
    }),
    ("inactive, of the game or a backend", |_| {
        beat(None, Status::Inactive)
    }),
    ("busy, of the game or a backend", |_| {
        beat(None, Status::Busy)
    }),
    ("active, players connect directly", |s| {
        policy(s, |p| p.sight = Sight::Direct);
        beat(Some(bob()), Status::Active)
    }),
    ("a player's first request of an HTTP game", |s| {
        policy(s, |p| p.sight = Sight::Requests);
        (Event::Connections(bob(), 1), NOW)
    }),
    ("a request of an HTTP game is over", |s| {
        policy(s, |p| p.sight = Sight::Requests);
        *s = drive(s.clone(), &[(Event::Connections(bob(), 1), 15_000)]);
        (Event::Connections(bob(), 0), NOW)
    }),
    ("seen between two reports of an HTTP game", |s| {
        policy(s, |p| p.sight = Sight::Requests);
        (Event::Data(Some(bob()), NOW), NOW)
    }),
    ("past the limit", |s| extend(s, 60, false)),
    ("below the limit", |s| {
        s.max_limit_at = s.max_limit_at.map(|l| l.after(Duration::from_secs(600)));
        extend(s, 60, false)
    }),
    ("past the limit, by a backend that raises it", |s| {
        extend(s, 60, true)
    }),
    ("to before the deadline", |s| extend(s, 0, false)),
    ("of an unlimited session", |s| {
        (s.max_at, s.max_limit_at) = (None, None);
        extend(s, 60, true)
    }),
    ("by a player", |_| {
        let (reason, by) = (Reason::EndedByClient, EndedBy::Player);
        (Event::End { reason, by }, NOW)
    }),
    ("by the game server", |_| {
        let (reason, by) = (Reason::EndedByServer, EndedBy::Server);
        (Event::End { reason, by }, NOW)
    }),
    ("Spawnpoint shuts down", |_| {
        let (reason, by) = (Reason::Shutdown, EndedBy::System);
        (Event::End { reason, by }, NOW)
    }),
    ("nothing is near", |_| (Event::Tick { hold: false }, NOW)),
    ("1 ms before the first deadline", |s| {
        s.policy = Arc::new(Policy {
            warnings: Vec::new(),
            ..(*s.policy).clone()
        });
        let at = due(s, None).before(Duration::from_millis(1));
        (Event::Tick { hold: false }, at)
    }),
    ("at the first deadline", |s| {
        (Event::Tick { hold: false }, due(s, None))
    }),
    ("at the first deadline, held", |s| {
        (Event::Tick { hold: true }, due(s, None))
    }),
    ("at its maximum, held", |s| {
        (
            Event::Tick { hold: true },
            due(s, Some(Reason::MaxDuration)),
        )
    }),
    ("everybody has left, at the deadline", |s| {
        *s = drive(s.clone(), &[(Event::Connections(alice(), 0), 15_000)]);
        (Event::Tick { hold: false }, due(s, None))
    }),
    ("60 s before the idle deadline", |s| {
        let at = due(s, Some(Reason::Idle)).before(Duration::from_secs(60));
        (Event::Tick { hold: false }, at)
    }),
    ("a direct player's lease ran out", |s| {
        policy(s, |p| p.sight = Sight::Direct);
        let (beat, _) = beat(Some(bob()), Status::Active);
        *s = drive(s.clone(), &[(beat, 15_000)]);
        (Event::Tick { hold: false }, Moment(30_000))
    }),
    (
        "a reader has done nothing for the idle timeout, another has",
        |s| {
            policy(s, |p| p.sight = Sight::Requests);
            let idle = s.policy.idle.unwrap_or_default();
            *s = drive(
                s.clone(),
                &[
                    (Event::Data(Some(bob()), Moment(15_000)), 15_000),
                    (Event::Data(Some(alice()), Moment(29_000)), 29_000),
                ],
            );
            (Event::Tick { hold: false }, Moment(15_000).after(idle))
        },
    ),
    ("the record is written", |s| {
        let over = Event::Exited(s.generation, Exit::with_code(0, NOW));
        if s.phase == Phase::Ending {
            *s = drive(s.clone(), &[(over, 30_000)]);
        }
        (Event::Recorded, NOW)
    }),
    ("while the instance is being stopped", |_| {
        (Event::Recorded, NOW)
    }),
];

/// The document: a diagram of the changes of phase and a table for each phase, both from the same walk.
#[must_use]
pub fn render() -> String {
    let rows = walk();
    let mut out = String::from(HEAD);
    out.push_str("```mermaid\nstateDiagram-v2\n    [*] --> queued\n");
    let mut edges: BTreeMap<(Phase, Phase), Vec<&str>> = BTreeMap::new();
    for row in &rows {
        let Ok(step) = &row.outcome else { continue };
        if step.next.phase != row.before.phase {
            let names = edges
                .entry((row.before.phase, step.next.phase))
                .or_default();
            if !names.contains(&row.event.name()) {
                names.push(row.event.name());
            }
        }
    }
    for ((from, to), names) in &edges {
        let _ = writeln!(
            out,
            "    {} --> {}: {}",
            from.as_str(),
            to.as_str(),
            names.join(", ")
        );
    }
    out.push_str("    ended --> [*]\n```\n");
    for phase in Phase::ALL {
        let _ = write!(
            out,
            "\n## {}\n\n{}\n\n| event | case | outcome | effects, in order | because |\n|---|---|---|---|---|\n",
            phase.as_str(),
            phase.about(),
        );
        // Neighbouring cases of one event with one outcome share a line.
        let mut lines: Vec<(&str, Vec<&str>, String)> = Vec::new();
        for row in rows.iter().filter(|r| r.before.phase == phase) {
            let outcome = outcome_cells(row);
            match lines.last_mut() {
                Some((name, labels, last)) if *name == row.event.name() && *last == outcome => {
                    labels.push(row.label);
                }
                _ => lines.push((row.event.name(), vec![row.label], outcome)),
            }
        }
        let cases = |name| lines.iter().filter(|(n, ..)| *n == name).count();
        for (name, labels, outcome) in &lines {
            let all = labels.len() > 1 && cases(*name) == 1;
            let labels = if all {
                "every case".to_owned()
            } else {
                labels.join("; ")
            };
            let _ = writeln!(out, "| `{name}` | {labels} | {outcome} |");
        }
    }
    out
}

const HEAD: &str = "\
# State machines

Generated by `cargo run -p xtask -- gen` from `crates/core/src/session/table.rs`, which plays every event in every phase through
`core::session::step`. Do not edit.

A session has seven phases. An event either moves it (perhaps only inside its phase), with effects that the server carries out in
order, or is rejected and changes nothing. Numbers are the default policy's; the lifecycle in words is in
[lifecycle.md](lifecycle.md).

";

fn outcome_cells(row: &Row) -> String {
    match &row.outcome {
        Err(rejected) => {
            let code = rejected.code.map_or(String::new(), |c| format!(" `{c}`"));
            format!("rejected{code} | - | {}", rejected.because)
        }
        Ok(step) => {
            let to = if step.next.phase == row.before.phase {
                "stays".to_owned()
            } else {
                format!("**{}**", step.next.phase.as_str())
            };
            let effects: Vec<_> = step
                .effects
                .iter()
                .map(|e| effect_text(e, row.now))
                .collect();
            let effects = if effects.is_empty() {
                "-".to_owned()
            } else {
                effects.join(", ")
            };
            format!("{to} | {effects} | {}", step.because)
        }
    }
}

fn effect_text(effect: &Effect, now: Moment) -> String {
    match effect {
        Effect::Save => "save".to_owned(),
        Effect::Acquire {
            generation,
            in_place,
            not_before,
        } => format!(
            "acquire generation {generation}{} after {} s",
            if *in_place { " in place" } else { "" },
            not_before.since(now).as_secs()
        ),
        Effect::Stop(_) => "stop the instance".to_owned(),
        Effect::Record => "record".to_owned(),
        Effect::Announce(notice) => format!("announce {}", notice_text(notice, now)),
    }
}

fn notice_text(notice: &Notice, now: Moment) -> String {
    match notice {
        Notice::Phase(phase) => format!("phase {}", phase.as_str()),
        Notice::PlayerJoined(player) => format!("player_joined {}", player.as_str()),
        Notice::PlayerLeft(player) => format!("player_left {}", player.as_str()),
        Notice::Warning { reason, cull_at } => {
            let left = cull_at.since(now).as_secs();
            format!("warning {} in {left} s", reason.as_str())
        }
        Notice::Replaced(generation) => format!("replaced {generation}"),
        Notice::Ended(reason) => format!("ended {}", reason.as_str()),
    }
}
