//! Queues as people write them.

use std::time::Duration;

use super::error::Origin;
use super::tests::{MINIMAL, errors, fine, one_error, with};

fn queue(lines: &str) -> String {
    format!("{MINIMAL}[[queue]]\n{lines}\n")
}

#[test]
fn every_fleet_has_a_queue_of_its_own_name() {
    let c = fine(MINIMAL);
    let [q] = c.queues.as_slice() else {
        panic!("{:?}", c.queues)
    };
    assert_eq!((q.name.as_str(), q.fleet.as_str()), ("arena", "arena"));
    assert_eq!((q.rules.size(), q.rules.min_partial()), (2, 1));
    assert_eq!(q.rules.flush_wait(), Duration::from_secs(10));
    assert_eq!((q.rules.skill(), q.rules.latency()), (None, None));
    assert_eq!((q.max_tickets, q.max_failures), (100_000, 3));
    assert_eq!(q.unattended, Duration::from_secs(70));
    assert_eq!(c.default_queue(), Some(q));
}

#[test]
fn a_queue_of_the_fleets_name_changes_it_and_another_is_one_more() {
    let c = fine(&queue("fleet = \"arena\"\nsession_size = 4"));
    assert_eq!(c.queues.len(), 1);
    assert_eq!(c.queues[0].rules.size(), 4);
    let c = fine(&queue(
        "name = \"ranked\"\nfleet = \"arena\"\nflushWait = \"3s\"\nskill = { start = 50, perSecond = 5 }\nlatency = 80\nregions = [\"eu\", \"us\"]",
    ));
    let names: Vec<&str> = c.queues.iter().map(|q| q.name.as_str()).collect();
    assert_eq!(names, ["ranked", "arena"]);
    let ranked = &c.queues[0];
    assert_eq!(c.default_queue(), Some(ranked), "the one somebody wrote");
    let skill = ranked.rules.skill().unwrap();
    assert_eq!((skill.start, skill.per_second), (50.0, 5.0));
    assert!(skill.most > 1e9, "as far as it takes: {skill:?}");
    let latency = ranked.rules.latency().unwrap();
    assert_eq!(
        (latency.start, latency.per_second, latency.most),
        (80.0, 0.0, 80.0)
    );
    assert_eq!(ranked.unattended, Duration::from_secs(63));
}

#[test]
fn the_source_documents_names_are_for_every_queue() {
    let env = [
        ("SESSION_SIZE", "12"),
        ("MIN_PARTIAL_SESSION_SIZE", "4"),
        ("FLUSH_WAIT_SECONDS", "2.5"),
        ("SPAWNPOINT_QUEUE_RANKED_SESSION_SIZE", "6"),
    ];
    let text = queue("name = \"ranked\"\nfleet = \"arena\"\nsession_size = 3");
    let c = with(&text, &env, &[])
        .unwrap_or_else(|e| panic!("{e:#?}"))
        .config;
    let sizes: Vec<u32> = c.queues.iter().map(|q| q.rules.size()).collect();
    assert_eq!(sizes, [6, 12]);
    assert!(c.queues.iter().all(|q| q.rules.min_partial() == 4));
    assert!(
        c.queues
            .iter()
            .all(|q| q.rules.flush_wait() == Duration::from_millis(2_500))
    );
    let flags = [("queue.*.session_size", "--session-size", "5")];
    let parsed = with(&text, &env, &flags).unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(parsed.config.queues.iter().all(|q| q.rules.size() == 5));
    let said = parsed
        .settings
        .iter()
        .find(|s| s.path == "queue.arena.session_size");
    assert_eq!(said.unwrap().origin, Origin::Flag("--session-size".into()));
    for size in ["1", "2", "12", "100"] {
        let c = with(MINIMAL, &[("SESSION_SIZE", size)], &[])
            .unwrap()
            .config;
        assert_eq!(c.queues[0].rules.size().to_string(), size);
    }
}

#[test]
fn bad_settings_are_refused_once_with_the_field_named() {
    let of = |env: &[(&str, &str)]| -> Vec<String> {
        let two = format!("{MINIMAL}[[fleet]]\nname = \"b\"\nrun = {{ command = [\"x\"] }}\n");
        with(&two, env, &[])
            .expect_err("refused")
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    for bad in ["0", "two", "-1", "101", "1.5"] {
        let all = of(&[("SESSION_SIZE", bad)]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            all[0].contains("session_size") && all[0].contains("(SESSION_SIZE)"),
            "{all:?}"
        );
    }
    for bad in ["0", "soon", "-1"] {
        let all = of(&[("FLUSH_WAIT_SECONDS", bad)]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("flush_wait"), "{all:?}");
    }
    let all = of(&[("MIN_PARTIAL_SESSION_SIZE", "3")]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].contains("min_partial_session_size = 3") && all[0].contains("session_size, 2"),
        "{all:?}"
    );
    let all = of(&[
        ("SESSION_SIZE", "0"),
        ("MIN_PARTIAL_SESSION_SIZE", "x"),
        ("FLUSH_WAIT_SECONDS", "y"),
    ]);
    assert_eq!(all.len(), 3, "all at once: {all:?}");
}

#[test]
fn what_cannot_be_a_queue_is_refused() {
    one_error(
        &queue("fleet = \"nope\""),
        &["queue.nope.fleet", "there are: arena"],
    );
    one_error(
        &queue("name = \"ranked\""),
        &["queue.ranked.name", "say fleet"],
    );
    one_error(
        &queue("session_size = 2"),
        &["queue[0].fleet", "is required"],
    );
    one_error(
        &queue("fleet = \"arena\"\nunattended = \"10s\""),
        &["longer than flush_wait, 10s"],
    );
    one_error(
        &queue("fleet = \"arena\"\nskill = { start = 5, most = 1 }"),
        &["queue.arena.skill", "most must be at least"],
    );
    one_error(
        &queue("fleet = \"arena\"\nlatency = 50"),
        &["queue.arena.latency", "needs regions"],
    );
    one_error(
        &queue("fleet = \"arena\"\nskill = { begin = 5 }"),
        &["queue.arena.skill", "per_second"],
    );
    one_error(
        &queue("fleet = \"arena\"\nsesion_size = 2"),
        &["did you mean \"session_size\"?"],
    );
    one_error(&format!("{MINIMAL}[queue]\nname = \"x\"\n"), &["[[queue]]"]);
    one_error(
        &format!(
            "{}[[queue]]\nfleet = \"arena\"\n",
            queue("fleet = \"arena\"")
        ),
        &["is the name of another queue"],
    );
    one_error(
        &format!("{MINIMAL}max_players = 3\n[[queue]]\nfleet = \"arena\"\nsession_size = 4\n"),
        &[
            "queue.arena.session_size",
            "max_players of the fleet arena, 3",
        ],
    );
    let two = format!(
        "{MINIMAL}[[fleet]]\nname = \"b\"\nrun = {{ command = [\"x\"] }}\n[[queue]]\nname = \"b\"\nfleet = \"arena\"\n"
    );
    assert_eq!(errors(&two).len(), 1, "{:?}", errors(&two));
    let alone = fine(&format!("{MINIMAL}max_players = 1\n"));
    assert_eq!(
        alone.queues[0].rules.size(),
        1,
        "a game for one has matches of one"
    );
}
