//! The suite every record store passes: the trait's semantics as checks.
//!
//! Call [`run`] from a test of the store. It panics with the name of the check and what it saw; it is meant for tests and linked
//! into nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a check fails by panicking; only tests call this"
)]

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use spawnpoint_core::lifecycle::{EndedBy, Reason};
use spawnpoint_core::limits::{MAX_PAGE, RECORD_LOG_TAIL};
use spawnpoint_core::record::{IdempotencyMark, MatchPlayer, MatchRecord, Receipt};
use spawnpoint_core::{Generation, InstanceId, PlayerId, SessionId};
use uuid::Uuid;

use crate::{Filter, Inserted, Inspection, Records, StoreError};

/// Copies of one session's end that race each other.
const RACERS: usize = 50;

/// Runs every check, each on an empty store of its own.
pub async fn run<R: Records>(make: impl AsyncFn() -> R) {
    an_empty_store_is_empty(make().await).await;
    every_field_comes_back(make().await).await;
    the_first_reason_wins(make().await).await;
    exactly_one_racer_writes(make().await).await;
    players_never_mix(make().await).await;
    a_repeated_player_is_one(make().await).await;
    filters_hold_together(make().await).await;
    pages_are_complete_while_records_are_added(make().await).await;
    limits_are_bounded(make().await).await;
    cursors_are_checked(make().await).await;
    an_idempotency_key_is_found_while_young(make().await).await;
    pruning_takes_the_oldest_and_all_of_them(make().await).await;
    who_is_recorded_is_found_among_any_number(make().await).await;
    what_is_written_has_no_flaw(make().await).await;
}

/// A session's id by number, for tests.
#[must_use]
pub fn session(n: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(n))
}

/// A plain record of session `n` that ended then.
#[must_use]
pub fn record(n: u128, ended_at: i64) -> MatchRecord {
    MatchRecord {
        session: session(n),
        fleet: "spice".parse().unwrap(),
        players: vec![player("user123", 5)],
        server: "local".into(),
        instance: None,
        generation: Generation::FIRST,
        created_at: ended_at.saturating_sub(10),
        started_at: None,
        ended_at,
        reason: Reason::EndedByServer,
        ended_by: EndedBy::Server,
        code: None,
        exit_code: Some(0),
        exit_signal: None,
        oom: false,
        results: None,
        results_error: None,
        log_tail: Vec::new(),
        receipt: None,
        idempotency: None,
    }
}

/// A player of a record.
#[must_use]
pub fn player(id: &str, joined_at: i64) -> MatchPlayer {
    MatchPlayer {
        player: id.parse().unwrap(),
        joined_at,
    }
}

fn full_record() -> MatchRecord {
    // Every byte there is, control bytes and broken UTF-8 among them.
    let log_tail: Vec<u8> = (0..RECORD_LOG_TAIL).map(|i| (i % 256) as u8).collect();
    MatchRecord {
        players: vec![
            player("zo\u{eb} \u{1f9c2}", 1),
            player("'; DROP TABLE matches; --", -2),
            player("\u{202e}right to left", i64::MAX),
            player(&"\u{1f9c2}".repeat(256), i64::MIN),
        ],
        server: "replica \u{1f30d} 1".into(),
        instance: Some(InstanceId::new(Uuid::from_u128(u128::MAX))),
        generation: Generation(u32::MAX),
        created_at: i64::MIN,
        started_at: Some(-1),
        ended_at: 1_790_000_000_123,
        reason: Reason::Crashed,
        ended_by: EndedBy::System,
        code: Some("start_failed".into()),
        exit_code: Some(i32::MIN),
        exit_signal: Some(i32::MAX),
        oom: true,
        results: Some("{\"winner\":\"zo\u{eb}\",\"nul\":\"\\u0000\"}".into()),
        results_error: Some("not JSON: \u{1f9c2}\0\n".into()),
        log_tail,
        receipt: Some(Receipt {
            queue_ms: 1,
            schedule_ms: 2,
            pull_ms: 3,
            boot_ms: 4,
            claim_ms: 5,
            dial_ms: 6,
            total_ms: 21,
        }),
        idempotency: Some(IdempotencyMark {
            key_hash: "0".repeat(64),
            body_hash: "f".repeat(64),
        }),
        ..record(0, 0)
    }
}

async fn an_empty_store_is_empty(store: impl Records) {
    store.healthy().await.unwrap();
    assert_eq!(store.get(session(1)).await.unwrap(), None);
    let page = store.list(&Filter::default(), None, 10).await.unwrap();
    assert!(page.records.is_empty());
    assert_eq!(page.next, None);
    assert_eq!(store.by_idempotency("k", i64::MIN).await.unwrap(), None);
    assert_eq!(store.prune(i64::MAX, 10).await.unwrap(), 0);
}

async fn every_field_comes_back(store: impl Records) {
    let full = full_record();
    for reason in Reason::ALL {
        let n = 100 + reason as u128;
        let r = MatchRecord {
            reason,
            ended_by: EndedBy::ALL[n as usize % EndedBy::ALL.len()],
            ..record(n, 5)
        };
        assert_eq!(store.insert(&r).await.unwrap(), Inserted::Now);
        assert_eq!(store.get(r.session).await.unwrap(), Some(r));
    }
    let bare = MatchRecord {
        players: Vec::new(),
        exit_code: None,
        server: String::new(),
        // An empty receipt is not the same as none.
        receipt: Some(Receipt::default()),
        ..record(2, i64::MIN)
    };
    for r in [&full, &bare] {
        assert_eq!(store.insert(r).await.unwrap(), Inserted::Now);
        assert_eq!(store.get(r.session).await.unwrap().as_ref(), Some(r));
        let only = Filter {
            ended_from: Some(r.ended_at),
            ended_until: Some(r.ended_at + 1),
            ..Filter::default()
        };
        let listed = store.list(&only, None, 10).await.unwrap().records;
        let without_log = MatchRecord {
            log_tail: Vec::new(),
            ..r.clone()
        };
        assert_eq!(listed, [without_log], "a listing leaves out only the log");
    }
}

async fn the_first_reason_wins(store: impl Records) {
    let first = MatchRecord {
        reason: Reason::Idle,
        log_tail: b"first".to_vec(),
        ..record(1, 10)
    };
    let second = MatchRecord {
        reason: Reason::Crashed,
        fleet: "other".parse().unwrap(),
        players: vec![player("intruder", 1)],
        log_tail: b"second".to_vec(),
        idempotency: full_record().idempotency,
        ..record(1, 20)
    };
    assert_eq!(store.insert(&first).await.unwrap(), Inserted::Now);
    assert_eq!(store.insert(&second).await.unwrap(), Inserted::Before);
    assert_eq!(store.insert(&first).await.unwrap(), Inserted::Before);
    assert_eq!(store.get(session(1)).await.unwrap(), Some(first));
    // Nothing of the second may be found by any other way either.
    let by = Filter {
        player: Some("intruder".parse().unwrap()),
        ..Filter::default()
    };
    assert!(store.list(&by, None, 10).await.unwrap().records.is_empty());
    let key = "0".repeat(64);
    assert_eq!(store.by_idempotency(&key, i64::MIN).await.unwrap(), None);
    let all = store.list(&Filter::default(), None, 10).await.unwrap();
    assert_eq!(all.records.len(), 1);
}

async fn exactly_one_racer_writes(store: impl Records) {
    let store = Arc::new(store);
    for round in 0..5u128 {
        let racers: Vec<MatchRecord> = (0..RACERS)
            .map(|i| MatchRecord {
                reason: Reason::ALL[i % Reason::ALL.len()],
                exit_code: i32::try_from(i).ok(),
                players: vec![player(&format!("p{i}"), 1)],
                log_tail: format!("racer {i}").into_bytes(),
                ..record(round, 10 + i64::try_from(i).unwrap())
            })
            .collect();
        let outcomes = join_all(racers.iter().map(|r| store.insert(r))).await;
        let winners: Vec<usize> = (0..RACERS)
            .filter(|i| *outcomes[*i].as_ref().unwrap() == Inserted::Now)
            .collect();
        assert_eq!(winners.len(), 1, "exactly one writes, not {winners:?}");
        let stored = store.get(session(round)).await.unwrap();
        assert_eq!(stored.as_ref(), Some(&racers[winners[0]]));
        let all = store.list(&Filter::default(), None, 100).await.unwrap();
        let rows = all.records.iter().filter(|r| r.session == session(round));
        assert_eq!(rows.count(), 1);
    }
}

/// Names that a pattern, a separator, a folding of case or a trimming would take for each other.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "1",
        "11",
        "111",
        "1,11",
        "1%",
        "11%",
        "%",
        "%1%",
        "%25",
        "_",
        "__",
        "1_",
        "a",
        "A",
        "b",
        "a,b",
        "b,a",
        "a ",
        " a",
        "a/b",
        "a?b",
        "[\"a\"]",
        "\u{1f9c2}",
        "\u{1f9c2}\u{fe0f}",
        "\u{1f9c2}\u{1f9c2}",
        "\u{e9}",
        "e\u{301}",
        "\u{ff11}",
        "'",
        "''",
        "\"",
        "\"\"",
        "`",
        "\\",
        "*",
        "?",
        "?1",
        "null",
        "NULL",
        "0",
        "00",
        "1.0",
        "x' OR '1'='1",
        "--",
    ]
    .map(str::to_owned)
    .to_vec();
    // As long as a name can be, and those that only the last character tells from them.
    names.push("x".repeat(255));
    names.push("x".repeat(256));
    names.push(format!("{}y", "x".repeat(255)));
    names.push("\u{1f9c2}".repeat(256));
    names
}

async fn players_never_mix(store: impl Records) {
    let names = odd_names();
    let by = |id: &str| Filter {
        player: Some(id.parse().unwrap()),
        ..Filter::default()
    };
    // Each is in a match of their own and in one with the next, so that neighbours stand in one row's list too.
    let alone = |i: usize| i as u128;
    let paired = |i: usize| 1_000 + i as u128;
    for (i, id) in names.iter().enumerate() {
        let r = MatchRecord {
            players: vec![player(id, 1)],
            ..record(alone(i), 10)
        };
        assert_eq!(store.insert(&r).await.unwrap(), Inserted::Now);
        let next = &names[(i + 1) % names.len()];
        let r = MatchRecord {
            players: vec![player(id, 1), player(next, 2)],
            ..record(paired(i), 20)
        };
        assert_eq!(store.insert(&r).await.unwrap(), Inserted::Now);
    }
    for (i, id) in names.iter().enumerate() {
        let before = (i + names.len() - 1) % names.len();
        let mut want = [alone(i), paired(i), paired(before)].map(session);
        let found = store.list(&by(id), None, 100).await.unwrap();
        assert_eq!(found.next, None, "player {id:?}");
        let mut got: Vec<SessionId> = found.records.iter().map(|r| r.session).collect();
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want, "player {id:?}");
        for r in &found.records {
            assert!(r.players.iter().any(|p| p.player.as_str() == id));
            assert_eq!(
                r.players.len(),
                1 + usize::from(r.ended_at == 20),
                "a search by player still lists all of them"
            );
        }
        let mut paged = walk(&store, &by(id), 1).await;
        paged.sort_unstable();
        assert_eq!(paged, want, "player {id:?}, page by page");
    }
    for nobody in ["1111", "1%1", "a,", ",b", "\u{fe0f}", "_1", "X", "y", "%%"] {
        let found = store.list(&by(nobody), None, 100).await.unwrap();
        assert!(found.records.is_empty(), "player {nobody:?}");
    }
}

async fn a_repeated_player_is_one(store: impl Records) {
    let r = MatchRecord {
        players: vec![player("x", 1), player("y", 2), player("x", 3)],
        ..record(1, 10)
    };
    store.insert(&r).await.unwrap();
    let by = Filter {
        player: Some("x".parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(store.list(&by, None, 10).await.unwrap().records, [r]);
}

async fn filters_hold_together(store: impl Records) {
    let fleets = ["spice", "arena", "spice-2"];
    let reasons = [Reason::Idle, Reason::Crashed];
    let mut all = Vec::new();
    for n in 0..36u128 {
        let i = n as usize;
        let r = MatchRecord {
            fleet: fleets[i % 3].parse().unwrap(),
            reason: reasons[i / 3 % 2],
            players: vec![player(["ann", "bob"][i / 6 % 2], 1), player("all", 2)],
            ..record(n, 100 + i64::try_from(n / 2).unwrap())
        };
        store.insert(&r).await.unwrap();
        all.push(r);
    }
    all.sort_by_key(|r| std::cmp::Reverse((r.ended_at, r.session)));
    for bits in 0..32u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        let filter = Filter {
            fleet: on(0).then(|| "spice".parse().unwrap()),
            player: on(1).then(|| "ann".parse().unwrap()),
            reason: on(2).then_some(Reason::Crashed),
            ended_from: on(3).then_some(103),
            ended_until: on(4).then_some(112),
        };
        let want: Vec<SessionId> = all
            .iter()
            .filter(|r| !on(0) || r.fleet.as_str() == "spice")
            .filter(|r| !on(1) || r.players[0].player.as_str() == "ann")
            .filter(|r| !on(2) || r.reason == Reason::Crashed)
            .filter(|r| !on(3) || r.ended_at >= 103)
            .filter(|r| !on(4) || r.ended_at < 112)
            .map(|r| r.session)
            .collect();
        assert!(!want.is_empty());
        for limit in [1, 2, 5, 100] {
            let got = walk(&store, &filter, limit).await;
            assert_eq!(got, want, "{filter:?} in pages of {limit}");
        }
    }
    let nobody = Filter {
        player: Some("nobody".parse::<PlayerId>().unwrap()),
        ..Filter::default()
    };
    assert!(walk(&store, &nobody, 10).await.is_empty());
}

async fn walk(store: &impl Records, filter: &Filter, limit: usize) -> Vec<SessionId> {
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = store.list(filter, cursor.as_deref(), limit).await.unwrap();
        assert!(page.records.len() <= limit);
        for r in &page.records {
            // At once, or a cursor that does not move would walk for ever.
            assert!(!seen.contains(&r.session), "{} comes twice", r.session);
            seen.push(r.session);
        }
        cursor = page.next;
        if cursor.is_none() {
            return seen;
        }
        assert_eq!(page.records.len(), limit, "only the last page is short");
    }
}

async fn pages_are_complete_while_records_are_added(store: impl Records) {
    // Ties on the end, so that the session id has to decide.
    for n in 1..=60u128 {
        let r = record(n * 10, i64::try_from(n / 7).unwrap() * 100);
        store.insert(&r).await.unwrap();
    }
    let before: BTreeSet<SessionId> = (1..=60u128).map(|n| session(n * 10)).collect();
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    let mut added = 0u128;
    loop {
        let filter = Filter::default();
        let page = store.list(&filter, cursor.as_deref(), 7).await.unwrap();
        seen.extend(page.records.iter().map(|r| (r.ended_at, r.session)));
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // Newer ones, one in the very middle of what was read, and one among what is still to come.
        for ended_at in [10_000, 400, 50] {
            added += 1;
            store
                .insert(&record(100_000 + added, ended_at))
                .await
                .unwrap();
        }
    }
    assert!(added > 10);
    let sessions: HashSet<SessionId> = seen.iter().map(|s| s.1).collect();
    assert!(
        before.iter().all(|s| sessions.contains(s)),
        "nothing that was there is left out"
    );
}

async fn limits_are_bounded(store: impl Records) {
    for n in 0..(MAX_PAGE as u128 + 5) {
        store.insert(&record(n, 10)).await.unwrap();
    }
    let all = Filter::default();
    let page = store.list(&all, None, usize::MAX).await.unwrap();
    assert_eq!(page.records.len(), MAX_PAGE);
    assert!(page.next.is_some());
    let page = store.list(&all, None, 0).await.unwrap();
    assert_eq!(page.records.len(), 1);
    assert!(page.next.is_some());
    assert_eq!(walk(&store, &all, MAX_PAGE).await.len(), MAX_PAGE + 5);
}

async fn cursors_are_checked(store: impl Records) {
    for n in 0..3 {
        store.insert(&record(n, 10)).await.unwrap();
    }
    let all = Filter::default();
    let good = store.list(&all, None, 1).await.unwrap().next.unwrap();
    let longer = format!("{good}AAAA");
    let other_version = format!("_{}", &good[1..]);
    for bad in [
        "",
        "x",
        "0",
        "null",
        "1 OR 1=1",
        "\u{1f9c2}",
        &good[1..],
        &good[..good.len() - 1],
        &longer,
        &other_version,
        &"A".repeat(100_000),
    ] {
        let e = store.list(&all, Some(bad), 1).await.unwrap_err();
        assert!(matches!(e, StoreError::Cursor), "{bad:?}: {e:?}");
    }
    // It is a place, not a memory of the page: it works again, and with another filter.
    for _ in 0..2 {
        let page = store.list(&all, Some(&good), 10).await.unwrap();
        assert_eq!(page.records.len(), 2);
    }
    let nobody = Filter {
        player: Some("nobody".parse().unwrap()),
        ..Filter::default()
    };
    let page = store.list(&nobody, Some(&good), 10).await.unwrap();
    assert!(page.records.is_empty() && page.next.is_none());
}

async fn an_idempotency_key_is_found_while_young(store: impl Records) {
    let mark = |body: &str| {
        Some(IdempotencyMark {
            key_hash: "k1".into(),
            body_hash: body.into(),
        })
    };
    for (n, ended_at, body) in [(1, 100, "old"), (3, 300, "new"), (2, 200, "middle")] {
        let r = MatchRecord {
            idempotency: mark(body),
            ..record(n, ended_at)
        };
        store.insert(&r).await.unwrap();
    }
    store.insert(&record(4, 400)).await.unwrap();
    let newest = mark("new").map(|m| (session(3), m));
    for not_before in [i64::MIN, 100, 299, 300] {
        let found = store.by_idempotency("k1", not_before).await.unwrap();
        assert_eq!(found, newest, "not before {not_before}");
    }
    assert_eq!(store.by_idempotency("k1", 301).await.unwrap(), None);
    for other in ["k", "k11", "k1 ", "K1", "k%", ""] {
        let found = store.by_idempotency(other, i64::MIN).await.unwrap();
        assert_eq!(found, None, "{other:?}");
    }
    assert_eq!(store.prune(301, 100).await.unwrap(), 3);
    assert_eq!(store.by_idempotency("k1", i64::MIN).await.unwrap(), None);
}

async fn pruning_takes_the_oldest_and_all_of_them(store: impl Records) {
    for n in 0..500u128 {
        let r = MatchRecord {
            log_tail: b"log".to_vec(),
            ..record(n, i64::try_from(n).unwrap())
        };
        store.insert(&r).await.unwrap();
    }
    assert_eq!(store.prune(450, 0).await.unwrap(), 0);
    assert_eq!(store.prune(0, 100).await.unwrap(), 0, "before is exclusive");
    assert_eq!(store.prune(450, 30).await.unwrap(), 30);
    let all = Filter::default();
    let left = walk(&store, &all, 100).await;
    let want: Vec<SessionId> = (30..500).rev().map(session).collect();
    assert_eq!(left, want);
    assert_eq!(store.prune(450, 10_000).await.unwrap(), 420);
    assert_eq!(store.prune(450, 10_000).await.unwrap(), 0);
    assert_eq!(walk(&store, &all, 100).await.len(), 50);
    assert_eq!(store.get(session(449)).await.unwrap(), None);
    assert!(store.get(session(450)).await.unwrap().is_some());
    let by = Filter {
        player: Some("user123".parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(walk(&store, &by, 100).await.len(), 50);
    // What was pruned may come again, log and players too.
    let again = record(7, 1_000);
    assert_eq!(store.insert(&again).await.unwrap(), Inserted::Now);
    assert_eq!(store.get(session(7)).await.unwrap(), Some(again));
}

async fn who_is_recorded_is_found_among_any_number(store: impl Records) {
    assert_eq!(store.recorded(&[]).await.unwrap(), HashSet::new());
    for n in (0..1_300u128).step_by(2) {
        store.insert(&record(n, 10)).await.unwrap();
    }
    // More than any one statement takes, some named twice.
    let asked: Vec<SessionId> = (0..1_300).chain(0..40).map(session).collect();
    let want: HashSet<SessionId> = (0..1_300).step_by(2).map(session).collect();
    assert_eq!(store.recorded(&asked).await.unwrap(), want);
    let none: Vec<SessionId> = (5_000..5_010).map(session).collect();
    assert_eq!(store.recorded(&none).await.unwrap(), HashSet::new());
    assert_eq!(store.prune(11, 10_000).await.unwrap(), 650);
    assert_eq!(store.recorded(&asked).await.unwrap(), HashSet::new());
}

async fn what_is_written_has_no_flaw(store: impl Records) {
    assert_eq!(store.inspect().await.unwrap(), Inspection::default());
    for (n, reason) in (0u128..).zip(Reason::ALL) {
        let r = MatchRecord {
            reason,
            ..record(n, 10)
        };
        store.insert(&r).await.unwrap();
        store.insert(&r).await.unwrap();
    }
    let full = MatchRecord {
        session: session(900),
        ..full_record()
    };
    store.insert(&full).await.unwrap();
    let seen = store.inspect().await.unwrap();
    assert_eq!(seen.flaws, []);
    assert_eq!(seen.total, Reason::ALL.len() as u64 + 1);
}
