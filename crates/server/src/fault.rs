//! Named places at which a process may die, for the simulation and the kill matrix: each lies between two effects that must not
//! depend on each other's luck. With the feature `simulation` the task that passes a point dies, if the world says so; with `faults`
//! the process does, if its environment says so ([`spawnpoint_runtime::fault`], which also has the points of the runtime). Without
//! both, as in everything that ships, a point is nothing at all.

/// Every point, in the order of a session's life. What has just been done is in the name.
pub const POINTS: [&str; 18] = [
    "start.reserved",
    "claim.bound",
    "order.taken",
    "gate.ordered",
    "release.bound",
    "release.released",
    "save.written",
    "stop.told",
    "record.drafted",
    "record.inserted",
    "forget.done",
    "replace.put",
    "restart.done",
    "ticket.joined",
    "match.taken",
    "match.started",
    "match.settled",
    "revive.listed",
];

#[cfg(feature = "simulation")]
pub use armed::{Hook, arm};

#[cfg(feature = "simulation")]
mod armed {
    use std::cell::RefCell;
    use std::sync::Arc;

    /// Told of each point as it is passed; `true` is death.
    pub type Hook = Arc<dyn Fn(&'static str) -> bool>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Puts the hook of this thread in place, or takes it away. A simulated world lives on one thread.
    pub fn arm(hook: Option<Hook>) {
        HOOK.with(|h| *h.borrow_mut() = hook);
    }

    pub(super) fn dies(name: &'static str) -> bool {
        let hook = HOOK.with(|h| h.borrow().clone());
        hook.is_some_and(|hook| hook(name))
    }
}

/// Passes a point. In a simulation whoever dies here, or was stopped before, never goes on.
#[inline(always)]
#[allow(clippy::unused_async, reason = "awaited by its callers in every build")]
pub(crate) async fn point(_app: &crate::App, name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
    #[cfg(feature = "simulation")]
    if _app.stop.is_cancelled() || armed::dies(name) {
        std::future::pending::<()>().await;
    }
    #[cfg(feature = "faults")]
    spawnpoint_runtime::fault::pass(name);
}
