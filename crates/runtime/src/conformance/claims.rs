//! Claims: compare and set, and facts that survive.

use tokio::task::JoinSet;

use super::{Bench, Fixture, facts, file, is_conflict, is_over};
use crate::{Facts, Runtime as _, RuntimeError};

pub(super) async fn run<F: Fixture>(f: &F) {
    Box::pin(one_claim_wins(f)).await;
    Box::pin(a_claim_and_a_stop_do_not_both_win(f)).await;
    Box::pin(what_is_over_is_not_claimed(f)).await;
    Box::pin(whose_it_is_goes_on_writing(f)).await;
    Box::pin(facts_come_back_as_they_were(f)).await;
}

async fn one_claim_wins<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let warm = b.order_ready().await;
    let claims: Vec<Facts> = (0..10).map(|n| facts(&format!("claim {n}"))).collect();
    let mut calls = JoinSet::new();
    for claim in claims.clone() {
        let (runtime, id, version) = (b.runtime.clone(), warm.id, warm.version);
        calls.spawn(async move {
            let done = runtime.bind(id, version, claim.clone(), file("{}")).await;
            (claim, done)
        });
    }
    let outcomes = calls.join_all().await;
    let won: Vec<_> = outcomes.iter().filter(|(_, done)| done.is_ok()).collect();
    assert_eq!(won.len(), 1, "exactly one claim wins: {outcomes:?}");
    for (_, done) in &outcomes {
        assert!(done.is_ok() || is_conflict(done), "{done:?}");
    }
    let now = b.get(warm.id).await;
    assert_eq!(now.facts.as_ref(), Some(&won[0].0));
    assert_eq!(Some(now.version), won[0].1.as_ref().ok().copied());
    assert!(now.version > warm.version);
    // The winner goes on from what it saw.
    let longer = facts("extended");
    let next = b
        .runtime
        .bind(warm.id, now.version, longer.clone(), None)
        .await
        .unwrap();
    assert!(next > now.version);
    assert_eq!(b.get(warm.id).await.facts, Some(longer));
    b.clear().await;
}

async fn a_claim_and_a_stop_do_not_both_win<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    for _ in 0..5 {
        let warm = b.order_ready().await;
        let (id, version) = (warm.id, warm.version);
        let (a, z) = (b.runtime.clone(), b.runtime.clone());
        let mut calls = JoinSet::new();
        calls.spawn(async move { a.bind(id, version, facts("claim"), file("{}")).await });
        calls.spawn(async move { z.stop(id, version, std::time::Duration::ZERO).await });
        let outcomes = calls.join_all().await;
        let won = outcomes.iter().filter(|o| o.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
        let lost = outcomes.iter().find(|o| o.is_err());
        let fair =
            lost.is_some_and(|o| matches!(o, Err(RuntimeError::Conflict | RuntimeError::Over)));
        assert!(fair, "{outcomes:?}");
    }
    b.clear().await;
}

async fn what_is_over_is_not_claimed<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let made = b.order(f.exits(0)).await;
    let (over, _) = b.until_exited(made.id).await;
    for version in [over.version, crate::Version(over.version.0 + 7)] {
        let bound = b
            .runtime
            .bind(over.id, version, facts("dead"), file("{}"))
            .await;
        assert!(is_over(&bound), "{bound:?}");
        let released = b.runtime.release(over.id, version).await;
        assert!(is_over(&released), "{released:?}");
    }
    assert_eq!(b.get(over.id).await, over, "nothing of it was kept");
    b.clear().await;
}

async fn whose_it_is_goes_on_writing<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let warm = b.order_ready().await;
    let claim = facts("plays");
    let version = b
        .runtime
        .bind(warm.id, warm.version, claim.clone(), file("{}"))
        .await
        .unwrap();
    f.crash(&b.runtime, warm.id).await;
    // Whether or not anybody has seen that it is dead.
    let ends = Facts {
        document: "asked to end".to_owned(),
        ..claim.clone()
    };
    let version = b
        .runtime
        .bind(warm.id, version, ends.clone(), None)
        .await
        .unwrap();
    let (over, _) = b.until_exited(warm.id).await;
    assert_eq!(over.facts, Some(ends.clone()));
    let late = Facts {
        document: "and results".to_owned(),
        ..claim
    };
    let stale = b
        .runtime
        .bind(warm.id, crate::Version(version.0 - 1), late.clone(), None)
        .await;
    assert!(is_conflict(&stale), "{stale:?}");
    let version = b
        .runtime
        .bind(warm.id, version, late.clone(), None)
        .await
        .unwrap();
    let other = b.runtime.bind(warm.id, version, facts("x"), None).await;
    assert!(is_over(&other), "{other:?}");
    let b = b.reopen().await;
    let kept = b.get(warm.id).await;
    assert_eq!((kept.facts, kept.version), (Some(late), version));
    b.clear().await;
}

async fn facts_come_back_as_they_were<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let documents = [
        String::new(),
        "{\"v\":1}".to_owned(),
        "zo\u{eb} \u{1f9c2} \"'\\ \r\n\t\u{0}\u{7f} $(PORT)".to_owned(),
        "x".repeat(64 * 1024),
    ];
    let mut want = Vec::new();
    for document in &documents {
        let mut order = b.plan(f.ready());
        order.facts = Some(facts(document));
        order.session_file = file("{}");
        let made = b.runtime.order(order.clone()).await.unwrap();
        assert_eq!(made.facts, order.facts);
        let warm = b.order_ready().await;
        let claim = facts(document);
        b.runtime
            .bind(warm.id, warm.version, claim.clone(), file("{}"))
            .await
            .unwrap();
        want.push((made.id, order.facts));
        want.push((warm.id, Some(claim)));
    }
    for (id, _) in &want {
        b.until_ready(*id).await;
    }
    let mut before = Vec::new();
    for (id, facts) in &want {
        let now = b.get(*id).await;
        assert_eq!(&now.facts, facts);
        before.push(now);
    }
    let b = b.reopen().await;
    for old in &before {
        let now = b.until_ready(old.id).await;
        assert_eq!(now.facts, old.facts, "after a restart of the owner");
        assert_eq!(now.version, old.version);
        assert_eq!(now.address, old.address);
        assert_eq!(now.fleet, old.fleet);
        assert_eq!(now.template, old.template);
    }
    let listed = b.runtime.list().await.unwrap();
    assert_eq!(listed.len(), before.len());
    for i in listed {
        let was = before.iter().find(|o| o.id == i.id);
        assert_eq!(was.map(|w| &w.facts), Some(&i.facts));
    }
    // The next owner's writes go on from the version it finds.
    let first = &before[0];
    b.runtime
        .bind(first.id, first.version, facts("goes on"), None)
        .await
        .unwrap();
    b.clear().await;
}
