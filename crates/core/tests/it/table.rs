//! The exhaustive (phase, event) table.

use std::collections::HashSet;

use spawnpoint_core::session::table::{in_phase, render, walk};
use spawnpoint_core::session::{Event, Phase};
use spawnpoint_core::{FleetName, PlayerId};

use crate::invariants;

#[test]
fn every_event_is_played_in_every_phase_and_keeps_the_rules() {
    let rows = walk();
    for phase in Phase::ALL {
        assert_eq!(in_phase(phase).phase, phase, "the way there is broken");
        for name in Event::NAMES {
            assert!(
                rows.iter()
                    .any(|r| r.before.phase == phase && r.event.name() == *name),
                "no scenario for ({}, {name})",
                phase.as_str()
            );
        }
    }
    for row in &rows {
        let (phase, event) = (row.before.phase.as_str(), row.event.name());
        let context = format!("({phase}, {event}: {})", row.label);
        invariants::check(&row.before, &row.event, &row.outcome, &context);
        if row.before.phase == Phase::Ended {
            assert!(row.outcome.is_err(), "{context}: ended is ended");
        }
    }
}

/// A phase that is added must be in `Phase::ALL`, or the walk would not see it: this match does not compile without it.
#[test]
fn all_phases_are_walked() {
    let index = |p: Phase| match p {
        Phase::Queued => 0,
        Phase::Starting => 1,
        Phase::Ready => 2,
        Phase::Running => 3,
        Phase::Replacing => 4,
        Phase::Ending => 5,
        Phase::Ended => 6,
    };
    let indices: Vec<_> = Phase::ALL.into_iter().map(index).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn each_event_is_accepted_somewhere_and_each_live_phase_can_end() {
    let rows = walk();
    for name in Event::NAMES {
        let accepted = |r: &&spawnpoint_core::session::table::Row| {
            r.event.name() == *name && r.outcome.is_ok()
        };
        assert!(
            rows.iter().any(|r| accepted(&r)),
            "{name} is never accepted"
        );
    }
    let moves: HashSet<_> = rows
        .iter()
        .filter_map(|r| Some((r.before.phase, r.outcome.as_ref().ok()?.next.phase)))
        .collect();
    for phase in Phase::ALL.into_iter().filter(|p| p.is_live()) {
        assert!(
            moves.contains(&(phase, Phase::Ending)),
            "{} cannot end",
            phase.as_str()
        );
    }
    assert!(moves.contains(&(Phase::Ending, Phase::Ended)));
}

#[test]
fn the_literals_of_the_table_are_what_they_claim() {
    let session = in_phase(Phase::Queued);
    assert_eq!(
        session.fleet.as_str().parse::<FleetName>().unwrap(),
        session.fleet
    );
    for row in walk() {
        for p in &row.before.roster {
            assert_eq!(p.id.as_str().parse::<PlayerId>().unwrap(), p.id);
        }
    }
}

#[test]
fn the_document_is_the_same_each_time_and_names_every_event_and_phase() {
    let text = render();
    assert_eq!(text, render());
    for phase in Phase::ALL {
        assert!(text.contains(&format!("\n## {}\n", phase.as_str())));
    }
    for name in Event::NAMES {
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
    }
    let columns = |line: &str| line.matches('|').count();
    assert!(
        text.lines()
            .filter(|l| l.starts_with('|'))
            .all(|l| columns(l) == 6)
    );
}
