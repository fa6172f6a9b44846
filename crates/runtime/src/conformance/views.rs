//! What is told of instances: watches, logs, results.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use spawnpoint_core::InstanceId;
use tokio::time::timeout;

use super::{Bench, Fixture, facts, file};
use crate::{Change, Instance, LogRange, LogStream, Runtime as _, RuntimeError, State};

const GRACE: Duration = Duration::from_secs(5);

pub(super) async fn run<F: Fixture>(f: &F) {
    Box::pin(a_watch_follows(f)).await;
    Box::pin(a_slow_watch_misses_nothing(f)).await;
    Box::pin(logs_are_kept_and_followed(f)).await;
    Box::pin(results_are_read(f)).await;
    Box::pin(what_is_held_is_held_for_what_is_there(f)).await;
}

/// What a watcher believes.
struct View {
    changes: BoxStream<'static, Change>,
    there: HashMap<InstanceId, Instance>,
    patience: Duration,
}

impl View {
    async fn open<F: Fixture>(b: &Bench<'_, F>) -> Self {
        let mut view = Self {
            changes: b.runtime.watch().await.unwrap(),
            there: HashMap::new(),
            patience: b.fixture.patience(),
        };
        let first = view.next().await;
        assert!(matches!(first, Change::All(_)), "{first:?}");
        view.take(first);
        view
    }

    async fn next(&mut self) -> Change {
        timeout(self.patience, self.changes.next())
            .await
            .expect("a watch says what happened in time")
            .expect("a watch does not end")
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::All(all) => self.there = all.into_iter().map(|i| (i.id, i)).collect(),
            Change::One(i) => drop(self.there.insert(i.id, *i)),
            Change::Gone(id) => drop(self.there.remove(&id)),
        }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&HashMap<InstanceId, Instance>) -> bool) {
        while !is(&self.there) {
            let late = format!("the watch does not show {what}: {:?}", self.there);
            let next = timeout(self.patience, self.changes.next()).await;
            let change = next.expect(&late).expect("a watch does not end");
            self.take(change);
        }
    }
}

async fn a_watch_follows<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut early = View::open(&b).await;
    assert!(early.there.is_empty());
    let i = b.order_ready().await;
    let mut late = View::open(&b).await;
    assert_eq!(late.there.get(&i.id), Some(&i), "all there is comes first");
    for view in [&mut early, &mut late] {
        let ready = |t: &HashMap<_, Instance>| t.get(&i.id) == Some(&i);
        view.until("ready", ready).await;
    }
    let claim = facts("zo\u{eb} \u{1f9c2}");
    let version = b
        .runtime
        .bind(i.id, i.version, claim.clone(), file("{}"))
        .await
        .unwrap();
    for view in [&mut early, &mut late] {
        let bound = |t: &HashMap<_, Instance>| {
            t.get(&i.id)
                .is_some_and(|n| n.facts.as_ref() == Some(&claim) && n.version == version)
        };
        view.until("the claim", bound).await;
    }
    b.runtime.stop(i.id, version, GRACE).await.unwrap();
    let (over, _) = b.until_exited(i.id).await;
    for view in [&mut early, &mut late] {
        let exited = |t: &HashMap<_, Instance>| t.get(&i.id) == Some(&over);
        view.until("the exit", exited).await;
    }
    b.runtime.forget(over.id, over.version).await.unwrap();
    for view in [&mut early, &mut late] {
        let gone = |t: &HashMap<_, Instance>| !t.contains_key(&i.id);
        view.until("that it is gone", gone).await;
    }
    drop((early, late));
    // What happens while nobody owns it is in the next owner's first list, or follows it.
    let dies = b.order(f.exits(9)).await;
    let b = b.reopen().await;
    let mut view = View::open(&b).await;
    assert!(view.there.contains_key(&dies.id));
    let exited = |t: &HashMap<_, Instance>| {
        let state = t.get(&dies.id).map(|i| i.state);
        matches!(state, Some(State::Exited(e)) if e.code == Some(9))
    };
    view.until("the exit", exited).await;
    b.clear().await;
}

async fn a_slow_watch_misses_nothing<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let i = b.order_ready().await;
    let mut slow = View::open(&b).await;
    // Many, without a look in between.
    let mut version = i.version;
    for n in 0..300 {
        let claim = facts(&n.to_string());
        version = b.runtime.bind(i.id, version, claim, None).await.unwrap();
    }
    let now = b.get(i.id).await;
    let caught_up = |t: &HashMap<_, Instance>| t.get(&i.id) == Some(&now);
    slow.until("the last of many changes", caught_up).await;
    b.clear().await;
}

async fn read_until(log: &mut LogStream, wanted: &str, patience: Duration) -> String {
    let mut text = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&text).into_owned();
        if so_far.contains(wanted) {
            return so_far;
        }
        let next = timeout(patience, log.next()).await;
        let chunk =
            next.unwrap_or_else(|_| panic!("the log has no {wanted:?} in time: {so_far:?}"));
        let chunk = chunk.unwrap_or_else(|| panic!("the log ends without {wanted:?}: {so_far:?}"));
        text.extend_from_slice(&chunk.unwrap());
    }
}

async fn read_all(mut log: LogStream, patience: Duration) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(chunk) = timeout(patience, log.next())
        .await
        .expect("the log ends in time")
    {
        text.extend_from_slice(&chunk.unwrap());
    }
    text
}

async fn logs_are_kept_and_followed<F: Fixture>(f: &F) {
    const LINE: &str = "the salt must flow";
    let patience = f.patience();
    let follow = LogRange {
        tail_bytes: None,
        follow: true,
    };
    let mut b = Bench::new(f).await;
    let made = b.order(f.logs(LINE)).await;
    // From before the first line on.
    let mut early = b.runtime.logs(made.id, follow).await.unwrap();
    read_until(&mut early, LINE, patience).await;
    let i = b.until_ready(made.id).await;
    let mut late = b.runtime.logs(made.id, follow).await.unwrap();
    read_until(&mut late, LINE, patience).await;
    let now = b.runtime.logs(made.id, LogRange::default()).await.unwrap();
    let now = read_all(now, patience).await;
    assert!(
        String::from_utf8_lossy(&now).contains(LINE),
        "without follow it ends by itself"
    );
    b.runtime.stop(i.id, i.version, GRACE).await.unwrap();
    // Whoever follows is let go when it is over.
    read_all(early, patience).await;
    read_all(late, patience).await;
    let (over, _) = b.until_exited(made.id).await;
    let b = b.reopen().await;
    let all = b.runtime.logs(made.id, follow).await.unwrap();
    let all = read_all(all, patience).await;
    assert!(
        String::from_utf8_lossy(&all).contains(LINE),
        "kept after its end"
    );
    for tail in [0, 5, 1 << 40] {
        let range = LogRange {
            tail_bytes: Some(tail),
            follow: false,
        };
        let end = b.runtime.logs(made.id, range).await.unwrap();
        let end = read_all(end, patience).await;
        let from = all.len().saturating_sub(usize::try_from(tail).unwrap());
        assert_eq!(end, all[from..], "the last {tail} bytes");
    }
    b.runtime.forget(over.id, over.version).await.unwrap();
    let gone = b.runtime.logs(made.id, LogRange::default()).await;
    assert!(matches!(gone, Err(RuntimeError::NotFound)));
    b.clear().await;
}

async fn results_are_read<F: Fixture>(f: &F) {
    const RESULTS: &str = "{\"winner\":\"zo\u{eb} \u{1f9c2}\"}";
    let mut b = Bench::new(f).await;
    let silent = b.order_ready().await;
    assert_eq!(b.runtime.results(silent.id).await.unwrap(), None);
    let made = b.order(f.leaves_results(RESULTS)).await;
    let (_, exit) = b.until_exited(made.id).await;
    assert!(exit.is_clean(), "{exit:?}");
    let want = file(RESULTS);
    assert_eq!(b.runtime.results(made.id).await.unwrap(), want);
    let b = b.reopen().await;
    assert_eq!(b.runtime.results(made.id).await.unwrap(), want);
    assert_eq!(b.runtime.results(silent.id).await.unwrap(), None);
    b.clear().await;
}

/// With instances in every state everything is held for one that is listed, and with none nothing is held.
async fn what_is_held_is_held_for_what_is_there<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    assert_eq!(b.runtime.holdings().await.unwrap(), []);
    let ready = b.order_ready().await;
    let over = b.order(f.exits(3)).await;
    b.until_exited(over.id).await;
    let gated = crate::Order {
        gated: true,
        ..b.plan(f.ready())
    };
    b.runtime.order(gated).await.unwrap();
    let check = async |b: &Bench<'_, F>| {
        let there: Vec<InstanceId> = b
            .runtime
            .list()
            .await
            .unwrap()
            .iter()
            .map(|i| i.id)
            .collect();
        for h in b.runtime.holdings().await.unwrap() {
            assert!(
                h.of.is_some_and(|of| there.contains(&of)),
                "{h:?}: {there:?}"
            );
        }
    };
    check(&b).await;
    let stopping = b.get(ready.id).await;
    b.runtime
        .stop(ready.id, stopping.version, GRACE)
        .await
        .unwrap();
    check(&b).await;
    b = b.reopen().await;
    check(&b).await;
    let runtime = b.runtime.clone();
    let patience = f.patience();
    b.clear().await;
    // Whoever kept an instance may outlive it by a moment.
    let none = async {
        while !runtime.holdings().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(patience, none)
        .await
        .expect("nothing is held for what is not there");
}
