//! What holds of every step, whatever the state and the event.

use spawnpoint_core::lifecycle::{Reason, Sight, deadlines};
use spawnpoint_core::session::{Effect, Event, Notice, Phase, Rejected, Session, Step};
use spawnpoint_core::time::Known;

fn place(effects: &[Effect], what: impl Fn(&Effect) -> bool) -> Vec<usize> {
    let found = effects.iter().enumerate().filter(|(_, e)| what(e));
    found.map(|(at, _)| at).collect()
}

/// Panics with `context` when a step broke a rule.
pub(crate) fn check(
    before: &Session,
    event: &Event,
    outcome: &Result<Step, Rejected>,
    context: &str,
) {
    let Ok(step) = outcome else { return };
    let (next, effects) = (&step.next, &step.effects);
    assert_ne!(
        before.phase,
        Phase::Ended,
        "{context}: ended absorbs everything"
    );
    assert_eq!(
        (before.id, &before.fleet, before.created_at),
        (next.id, &next.fleet, next.created_at),
        "{context}: identity"
    );
    assert!(
        next.generation >= before.generation,
        "{context}: generation fell"
    );
    if before.ending.is_some() {
        assert_eq!(
            before.ending, next.ending,
            "{context}: the first reason stands"
        );
    }
    assert_eq!(
        next.ending.is_some(),
        !next.phase.is_live(),
        "{context}: an end has a reason and nothing else has"
    );

    let announced = place(effects, |e| matches!(e, Effect::Announce(Notice::Phase(_))));
    if before.phase == next.phase {
        assert!(
            announced.is_empty(),
            "{context}: announced a phase that did not change"
        );
    } else {
        assert_eq!(
            announced.len(),
            1,
            "{context}: a change of phase is announced once"
        );
        let said = Effect::Announce(Notice::Phase(next.phase));
        assert_eq!(effects[announced[0]], said, "{context}");
    }

    if let Some(had) = before.live_instance()
        && next.phase.is_live()
    {
        let kept = next.instance == Some(had);
        assert!(
            kept || matches!(event, Event::Exited(..)),
            "{context}: a live session lost its instance silently"
        );
    }
    if next.phase == Phase::Replacing && before.phase != Phase::Replacing {
        let acquires = place(effects, |e| matches!(e, Effect::Acquire { .. }));
        assert_eq!(
            acquires.len(),
            1,
            "{context}: a replacement is acquired once"
        );
        assert!(next.generation > before.generation, "{context}");
    }

    let ends = place(effects, |e| matches!(e, Effect::Stop(_) | Effect::Record));
    if next.phase == Phase::Ending && before.phase != Phase::Ending {
        assert_eq!(ends.len(), 1, "{context}: exactly one of stop and record");
        let saves = place(effects, |e| matches!(e, Effect::Save));
        assert!(
            saves.first().is_some_and(|s| *s < ends[0]),
            "{context}: the reason is durable before anything is stopped or recorded"
        );
        match effects[ends[0]] {
            Effect::Stop(which) => assert_eq!(Some(which), before.live_instance(), "{context}"),
            _ => assert_eq!(
                next.live_instance(),
                None,
                "{context}: recorded while running"
            ),
        }
        let ended = place(effects, |e| matches!(e, Effect::Announce(Notice::Ended(_))));
        assert_eq!(ended.len(), 1, "{context}: an end is announced once");
    } else if before.phase == Phase::Ending && next.phase == Phase::Ending {
        assert_eq!(
            !ends.is_empty(),
            before.live_instance().is_some() && next.live_instance().is_none(),
            "{context}: the exit leads to the record, nothing else does"
        );
    } else {
        assert!(
            ends.is_empty(),
            "{context}: stopped or recorded without an end"
        );
    }
    if next.phase == Phase::Ended {
        assert_eq!(next.instance, None, "{context}: nothing is left");
        assert_eq!(
            before.live_instance(),
            None,
            "{context}: ended while running"
        );
    }

    if before.phase.is_live() && next.phase.is_live() {
        assert!(
            next.last_activity() >= before.last_activity(),
            "{context}: activity moved backwards"
        );
        assert!(
            next.max_at >= before.max_at,
            "{context}: the maximum came nearer"
        );
        if let (Some(max), Some(limit)) = (next.max_at, next.max_limit_at) {
            assert!(max <= limit, "{context}: past the limit");
        }
    }
    if before.phase == Phase::Running && next.phase == Phase::Running {
        let idle = |s: &Session| {
            deadlines(s)
                .find(|c| c.reason == Reason::Idle)
                .map(|c| c.at)
        };
        // While nobody can say what the players do there is none.
        if let (Some(then), Some(now)) = (idle(before), idle(next)) {
            assert!(now >= then, "{context}: the idle deadline came nearer");
        }
        let can_be_seen = next.policy.sight == Sight::Direct || matches!(next.sight, Known::Is(()));
        assert_eq!(
            idle(next).is_some(),
            next.policy.idle.is_some() && can_be_seen,
            "{context}: idle is told of what can be seen"
        );
    }
    let ids: std::collections::HashSet<_> = next.roster.iter().map(|p| &p.id).collect();
    assert_eq!(
        ids.len(),
        next.roster.len(),
        "{context}: one entry per player"
    );
    assert!(
        next.roster.len() <= next.policy.max_players.max(before.roster.len()),
        "{context}"
    );
    assert!(
        next.owner.is_some() != next.roster.is_empty(),
        "{context}: whoever is there has an owner"
    );
}
