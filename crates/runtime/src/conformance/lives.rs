//! Orders, starts, ends: what an instance goes through.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Bench, Fixture, facts, file, is_conflict, is_over, is_unknown, new_id};
use crate::{LogRange, Runtime as _, RuntimeError, State, Version};

const GRACE: Duration = Duration::from_secs(5);

pub(super) async fn run<F: Fixture>(f: &F) {
    Box::pin(an_order_is_idempotent(f)).await;
    Box::pin(twenty_orders_at_once_are_one(f)).await;
    Box::pin(a_start_shows_its_steps(f)).await;
    Box::pin(a_gated_one_waits_for_its_release(f)).await;
    Box::pin(ready_is_what_the_game_says(f)).await;
    Box::pin(exits_are_true_and_kept(f)).await;
    Box::pin(a_crash_is_seen(f)).await;
    Box::pin(stopping_is_harmless_twice(f)).await;
    Box::pin(stopping_needs_the_version(f)).await;
    Box::pin(what_never_ran_can_be_stopped(f)).await;
    Box::pin(only_what_is_over_is_forgotten(f)).await;
    Box::pin(restarting_in_place(f)).await;
    Box::pin(unknown_ids_are_unknown(f)).await;
}

async fn an_order_is_idempotent<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut order = b.plan(f.ready());
    order.facts = Some(facts("first"));
    let first = b.runtime.order(order.clone()).await.unwrap();
    assert_eq!(first.id, order.id);
    assert_eq!(first.fleet, order.fleet);
    assert_eq!(first.template, order.template.fingerprint());
    assert_eq!(first.facts, order.facts);
    let ready = b.until_ready(order.id).await;
    // Another content under the same id changes nothing.
    let mut second = order.clone();
    second.facts = Some(facts("second"));
    second.template = f.exits(1);
    let again = b.runtime.order(second).await.unwrap();
    assert_eq!(again, ready);
    assert_eq!(b.runtime.list().await.unwrap(), [ready]);
    // Nor does an order repeated by the next owner, who cannot know that the first came through.
    let b = b.reopen().await;
    let before = b.until_ready(order.id).await;
    let again = b.runtime.order(order).await.unwrap();
    assert_eq!(again.version, before.version);
    assert_eq!(again.address, before.address);
    assert_eq!(b.runtime.list().await.unwrap().len(), 1);
    b.clear().await;
}

async fn twenty_orders_at_once_are_one<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let order = b.plan(f.ready());
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (runtime, order) = (b.runtime.clone(), order.clone());
        calls.spawn(async move { runtime.order(order).await });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap().id, order.id);
    }
    let ready = b.until_ready(order.id).await;
    assert_eq!(b.runtime.list().await.unwrap(), [ready]);
    b.clear().await;
}

async fn a_start_shows_its_steps<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let i = b.order_ready().await;
    let t = i.timings;
    let steps = [
        t.ordered_at,
        t.released_at,
        t.pulled_at,
        t.spawned_at,
        t.ready_at,
    ]
    .map(|step| step.expect("a ready instance has been through all steps"));
    assert!(steps.is_sorted(), "{t:?}");
    assert_eq!(t.released_at, t.ordered_at, "it was not gated");
    assert!(i.address.is_some(), "what accepts has an address");
    assert_eq!(i.restarts, 0);
    assert_eq!(i.facts, None);
    assert!(!i.label.is_empty());
    // Two at once do not share an address's port.
    let other = b.order_ready().await;
    assert_ne!(i.id, other.id);
    b.clear().await;
}

async fn a_gated_one_waits_for_its_release<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut order = b.plan(f.ready());
    order.gated = true;
    order.facts = Some(facts("waits"));
    order.session_file = file("{\"version\":1}");
    let gated = b.runtime.order(order).await.unwrap();
    assert_eq!(gated.state, State::Gated);
    // One that came later has started by now; the gated one has not.
    b.order_ready().await;
    let still = b.get(gated.id).await;
    assert_eq!(still.state, State::Gated);
    assert_eq!(still.timings.spawned_at, None);
    assert_eq!(still.timings.released_at, None);
    let stale = b
        .runtime
        .release(gated.id, Version(gated.version.0 + 7))
        .await;
    assert!(is_conflict(&stale), "{stale:?}");
    // The place is held over a restart of the owner.
    let b = b.reopen().await;
    let held = b.get(gated.id).await;
    assert_eq!((held.state, held.version), (State::Gated, gated.version));
    // Its facts may change while it waits.
    let changed = facts("changed");
    let bound = b
        .runtime
        .bind(gated.id, held.version, changed.clone(), None)
        .await
        .unwrap();
    let released = b.runtime.release(gated.id, bound).await.unwrap();
    assert!(released > bound);
    let ready = b.until_ready(gated.id).await;
    assert_eq!(ready.version, released);
    assert_eq!(ready.facts, Some(changed));
    let t = ready.timings;
    assert!(t.ordered_at <= t.released_at && t.released_at <= t.spawned_at);
    let again = b.runtime.release(gated.id, bound).await;
    assert!(is_conflict(&again), "{again:?}");
    b.clear().await;
}

async fn ready_is_what_the_game_says<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let waits = b.order(f.says_ready()).await;
    // One that came later is ready by now; this one has not said so.
    b.order_ready().await;
    let still = b.until(waits.id, "starting", |i| i.timings.spawned_at.is_some());
    assert_eq!(still.await.state, State::Starting);
    b.runtime.mark_ready(waits.id).await.unwrap();
    let ready = b.until_ready(waits.id).await;
    assert!(ready.timings.ready_at.is_some());
    b.runtime.mark_ready(waits.id).await.unwrap();
    assert_eq!(b.get(waits.id).await, ready, "twice is harmless");
    // It is still known to the next owner.
    let b = b.reopen().await;
    let adopted = b.until_ready(waits.id).await;
    b.runtime
        .stop(waits.id, adopted.version, GRACE)
        .await
        .unwrap();
    let (over, _) = b.until_exited(waits.id).await;
    b.runtime.mark_ready(waits.id).await.unwrap();
    assert_eq!(b.get(waits.id).await, over, "late is harmless");
    b.clear().await;
}

async fn exits_are_true_and_kept<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut over = Vec::new();
    for code in [0, 3, 42] {
        let made = b.order(f.exits(code)).await;
        let (i, exit) = b.until_exited(made.id).await;
        assert_eq!(exit.code, Some(code), "{exit:?}");
        assert_eq!((exit.signal, exit.oom), (None, false), "{exit:?}");
        assert!(!exit.never_ran && !exit.lost, "{exit:?}");
        assert_eq!(exit.is_clean(), code == 0);
        assert_eq!(i.version, made.version, "an exit is nobody's write");
        over.push((made.id, code));
    }
    // One ends while nobody owns it.
    let unseen = b.order(f.exits(7)).await;
    over.push((unseen.id, 7));
    let b = b.reopen().await;
    for (id, code) in &over {
        let (_, exit) = b.until_exited(*id).await;
        assert_eq!(exit.code, Some(*code), "after a restart of the owner");
        assert!(!exit.lost && !exit.never_ran, "{exit:?}");
    }
    assert_eq!(b.runtime.list().await.unwrap().len(), over.len());
    b.clear().await;
}

async fn a_crash_is_seen<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let i = b.order_ready().await;
    let bystander = b.order_ready().await;
    f.crash(&b.runtime, i.id).await;
    let (_, exit) = b.until_exited(i.id).await;
    assert!(!exit.is_clean() && !exit.never_ran, "{exit:?}");
    let bound = b
        .runtime
        .bind(i.id, i.version, facts("dead"), file("{}"))
        .await;
    assert!(is_over(&bound), "{bound:?}");
    assert_eq!(b.get(i.id).await.facts, None);
    assert_eq!(b.get(bystander.id).await, bystander);
    b.clear().await;
}

async fn stopping_is_harmless_twice<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let i = b.order_ready().await;
    let r = b.runtime.clone();
    let version = r.stop(i.id, i.version, GRACE).await.unwrap();
    assert!(version > i.version);
    let bound = r.bind(i.id, version, facts("late"), None).await;
    assert!(is_over(&bound), "{bound:?}");
    // By somebody who saw what was before, and by somebody who saw what is.
    assert_eq!(r.stop(i.id, i.version, GRACE).await.unwrap(), version);
    assert_eq!(r.stop(i.id, version, GRACE).await.unwrap(), version);
    let (over, exit) = b.until_exited(i.id).await;
    assert!(!exit.never_ran && !exit.lost, "{exit:?}");
    assert_eq!(over.version, version);
    assert_eq!(r.stop(i.id, i.version, GRACE).await.unwrap(), version);
    assert_eq!(b.get(i.id).await, over);
    drop(r);
    // Told to stop is told, also when the owner dies over it.
    let other = b.order_ready().await;
    b.runtime
        .stop(other.id, other.version, GRACE)
        .await
        .unwrap();
    let b = b.reopen().await;
    b.until_exited(other.id).await;
    b.clear().await;
}

async fn stopping_needs_the_version<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let warm = b.order_ready().await;
    let r = b.runtime.clone();
    // A claim comes between look and stop: the claimed one must live.
    let claimed = r
        .bind(warm.id, warm.version, facts("claimed"), file("{}"))
        .await
        .unwrap();
    let stop = r.stop(warm.id, warm.version, GRACE).await;
    assert!(is_conflict(&stop), "{stop:?}");
    assert_eq!(b.get(warm.id).await.state, State::Ready);
    r.stop(warm.id, claimed, GRACE).await.unwrap();
    b.until_exited(warm.id).await;
    drop(r);
    b.clear().await;
}

async fn what_never_ran_can_be_stopped<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut order = b.plan(f.ready());
    order.gated = true;
    let gated = b.runtime.order(order).await.unwrap();
    let stopped = b.runtime.stop(gated.id, gated.version, GRACE).await;
    let stopped = stopped.unwrap();
    let (_, exit) = b.until_exited(gated.id).await;
    assert!(exit.never_ran && !exit.is_clean(), "{exit:?}");
    let released = b.runtime.release(gated.id, stopped).await;
    assert!(is_over(&released), "{released:?}");
    // One that still starts is no different from one that runs.
    let starting = b.order(f.says_ready()).await;
    let stop = b.runtime.stop(starting.id, starting.version, GRACE).await;
    stop.unwrap();
    b.until_exited(starting.id).await;
    b.clear().await;
}

async fn only_what_is_over_is_forgotten<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let mut order = b.plan(f.ready());
    order.gated = true;
    let gated = b.runtime.order(order).await.unwrap();
    let ready = b.order_ready().await;
    for alive in [&gated, &ready] {
        let forgot = b.runtime.forget(alive.id, alive.version).await;
        assert!(is_conflict(&forgot), "{forgot:?}");
        assert_eq!(&b.get(alive.id).await, alive);
    }
    let made = b.order(f.exits(0)).await;
    let (over, _) = b.until_exited(made.id).await;
    let stale = Version(over.version.0 + 7);
    let forgot = b.runtime.forget(over.id, stale).await;
    assert!(is_conflict(&forgot), "{forgot:?}");
    b.runtime.forget(over.id, over.version).await.unwrap();
    let forgot = b.runtime.forget(over.id, over.version).await;
    assert!(is_unknown(&forgot), "{forgot:?}");
    let left = f.leftovers(&b.runtime, over.id).await;
    assert!(left.is_empty(), "{left:?}");
    // It does not come back.
    let b = b.reopen().await;
    assert!(is_unknown(&b.runtime.get(over.id).await));
    assert_eq!(b.runtime.list().await.unwrap().len(), 2);
    b.clear().await;
}

async fn restarting_in_place<F: Fixture>(f: &F) {
    let mut b = Bench::new(f).await;
    let warm = b.order_ready().await;
    let claim = facts("claimed");
    let version = b
        .runtime
        .bind(warm.id, warm.version, claim.clone(), file("{\"n\":1}"))
        .await
        .unwrap();
    f.crash(&b.runtime, warm.id).await;
    b.until_exited(warm.id).await;
    if !f.restarts() {
        let restart = b.runtime.restart(warm.id, version, None).await;
        let unsupported = matches!(restart, Err(RuntimeError::Unsupported(_)));
        assert!(unsupported, "{restart:?}");
        return b.clear().await;
    }
    let stale = b.runtime.restart(warm.id, warm.version, None).await;
    assert!(is_conflict(&stale), "{stale:?}");
    let restarted = b
        .runtime
        .restart(warm.id, version, file("{\"n\":2}"))
        .await
        .unwrap();
    assert!(restarted > version);
    let again = b.until_ready(warm.id).await;
    assert_eq!(again.restarts, 1);
    assert_eq!(again.address, warm.address, "the same place");
    assert_eq!(again.facts, Some(claim));
    assert_eq!(again.version, restarted);
    let running = b.runtime.restart(warm.id, restarted, None).await;
    assert!(
        is_conflict(&running),
        "what runs is not restarted: {running:?}"
    );
    let b = b.reopen().await;
    let adopted = b.until_ready(warm.id).await;
    assert_eq!(adopted.restarts, 1);
    b.clear().await;
}

async fn unknown_ids_are_unknown<F: Fixture>(f: &F) {
    let b = Bench::new(f).await;
    let (r, id, v) = (&b.runtime, new_id(), Version(1));
    assert!(is_unknown(&r.get(id).await));
    assert!(is_unknown(&r.release(id, v).await));
    assert!(is_unknown(&r.bind(id, v, facts("x"), None).await));
    assert!(is_unknown(&r.stop(id, v, GRACE).await));
    assert!(is_unknown(&r.forget(id, v).await));
    assert!(is_unknown(&r.mark_ready(id).await));
    assert!(is_unknown(&r.results(id).await));
    assert!(is_unknown(&r.logs(id, LogRange::default()).await));
    if f.restarts() {
        assert!(is_unknown(&r.restart(id, v, None).await));
    }
    b.clear().await;
}
