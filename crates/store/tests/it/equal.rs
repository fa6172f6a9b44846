//! Whatever is done, in whatever order: memory and SQLite answer alike.

use proptest::prelude::*;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};
use spawnpoint_store::conformance::{player, record, session};
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_store::sqlite::SqliteRecords;
use spawnpoint_store::{Filter, Records};

const PLAYERS: [&str; 6] = ["1", "11", "1%", "_", "a,b", "\u{1f9c2}"];
const FLEETS: [&str; 3] = ["a", "a-b", "b"];

#[derive(Clone, Debug)]
enum Op {
    Insert(Box<MatchRecord>),
    Get(u128),
    List(Filter, usize),
    /// Reads on from the last page of a listing that had more.
    Next(Filter, usize),
    Key(String, i64),
    Prune(i64, usize),
}

fn records() -> impl Strategy<Value = Box<MatchRecord>> {
    let players = prop::collection::vec((0..PLAYERS.len(), -3..3i64), 0..4);
    let log = prop::collection::vec(any::<u8>(), 0..20);
    let key = prop::option::of((0..3u8, 0..3u8));
    let who = (0..12u128, 0..20i64, 0..FLEETS.len(), 0..3usize);
    (who, players, log, key, any::<Option<i32>>()).prop_map(
        |((n, ended_at, fleet, reason), players, log_tail, key, exit_code)| {
            Box::new(MatchRecord {
                fleet: FLEETS[fleet].parse().unwrap(),
                reason: Reason::ALL[reason],
                players: players
                    .into_iter()
                    .map(|(p, at)| player(PLAYERS[p], at))
                    .collect(),
                log_tail,
                exit_code,
                idempotency: key.map(|(k, b)| IdempotencyMark {
                    key_hash: format!("k{k}"),
                    body_hash: format!("b{b}"),
                }),
                ..record(n, ended_at)
            })
        },
    )
}

fn filters() -> impl Strategy<Value = Filter> {
    (
        prop::option::of(0..FLEETS.len()),
        prop::option::of(0..PLAYERS.len()),
        prop::option::of(0..3usize),
        prop::option::of(0..20i64),
        prop::option::of(0..20i64),
    )
        .prop_map(|(fleet, player, reason, from, until)| Filter {
            fleet: fleet.map(|f| FLEETS[f].parse().unwrap()),
            player: player.map(|p| PLAYERS[p].parse().unwrap()),
            reason: reason.map(|r| Reason::ALL[r]),
            ended_from: from,
            ended_until: until,
        })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => records().prop_map(Op::Insert),
        2 => (0..12u128).prop_map(Op::Get),
        3 => (filters(), 0..5usize).prop_map(|(f, n)| Op::List(f, n)),
        3 => (filters(), 0..5usize).prop_map(|(f, n)| Op::Next(f, n)),
        1 => (0..4u8, 0..20i64).prop_map(|(k, t)| Op::Key(format!("k{k}"), t)),
        1 => (0..20i64, 0..4usize).prop_map(|(t, n)| Op::Prune(t, n)),
    ];
    prop::collection::vec(op, 1..40)
}

async fn answer(store: &impl Records, op: &Op, cursor: &mut Option<String>) -> String {
    let (filter, limit, from) = match op {
        Op::Insert(r) => return format!("{:?}", store.insert(r).await.unwrap()),
        Op::Get(n) => return format!("{:?}", store.get(session(*n)).await.unwrap()),
        Op::Key(k, t) => return format!("{:?}", store.by_idempotency(k, *t).await.unwrap()),
        Op::Prune(t, n) => return format!("{:?}", store.prune(*t, *n).await.unwrap()),
        Op::List(f, n) => (f, *n, None),
        Op::Next(f, n) => (f, *n, cursor.take()),
    };
    let page = store.list(filter, from.as_deref(), limit).await.unwrap();
    cursor.clone_from(&page.next);
    format!("{page:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_and_sqlite_answer_alike(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let sqlite = SqliteRecords::open(dir.path().join("records.db")).await.unwrap();
            let memory = MemoryRecords::new();
            let (mut at_sqlite, mut at_memory) = (None, None);
            for (i, op) in ops.iter().enumerate() {
                let a = answer(&memory, op, &mut at_memory).await;
                let b = answer(&sqlite, op, &mut at_sqlite).await;
                assert_eq!(a, b, "operation {i}: {op:?}");
                assert_eq!(at_memory, at_sqlite);
            }
            sqlite.close().await;
        });
    }
}
