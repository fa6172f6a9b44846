//! From an admitted connection to a connected game: wait until the route accepts, dial, and make sure that what was dialled is
//! still the session's instance.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spawnpoint_wire::link::Route;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{DIAL_PAUSE, DIAL_PAUSE_MAX, GatewayConfig, TAKEOVER_WAIT};
use crate::decide::{self, Next, Refusal, Use};
use crate::game::DialError;
use crate::routes::RouteState;
use crate::table::Admission;

/// A way to reach a game that accepts.
pub(crate) trait Dial: Sync {
    /// What it is reached for.
    const USE: Use;
    /// What comes of it.
    type Leg: Send;

    /// Reaches the incarnation that this route names, at its address.
    fn dial(
        &self,
        route: &Route,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Leg, DialError>> + Send;
}

/// Waits for and connects the game; the admission counts as connected afterwards. On refusal its place is given back.
pub(crate) async fn connect<D: Dial>(
    mut admission: Admission,
    game: &D,
    config: &GatewayConfig,
) -> Result<(Admission, D::Leg, Arc<Route>), Refusal> {
    let mut watch = admission.watch().ok_or(Refusal::CannotKnow)?;
    let mut patience = Patience::new();
    loop {
        let route = match &*watch.borrow_and_update() {
            RouteState::Live(route) => route.clone(),
            RouteState::Gone(reason) => return Err(Refusal::Ended(*reason)),
        };
        let player = admission.tunnel().named();
        let address = match decide::connect(&route, player, &config.targets, D::USE) {
            Next::Dial(address) => address,
            Next::Refuse(refusal) => {
                if refusal == Refusal::TargetNotAllowed {
                    tracing::error!(session = %route.session, address = ?route.address, "a route points outside the networks that games are in");
                }
                return Err(refusal);
            }
            Next::Wait => {
                patience = Patience::new();
                changed(&mut watch).await?;
                continue;
            }
        };
        // What is short is boxed: connections wait for their game here by the thousand.
        if admission.has_older() {
            Box::pin(admission.older_gone(TAKEOVER_WAIT)).await;
        }
        match Box::pin(game.dial(&route, address)).await {
            Ok(leg) => {
                if admission.attach(&route) {
                    return Ok((admission, leg, route));
                }
                // The instance changed (or we were told to go) while we dialled: nothing is ever wired to the old one.
                if let Some(close) = admission.tunnel().ordered() {
                    return Err(refusal_for(close));
                }
            }
            Err(DialError::Refused(why)) => return Err(Refusal::GameRefused(why)),
            Err(DialError::Unreachable) => {}
        }
        admission
            .table()
            .counters
            .dial_retries
            .fetch_add(1, Ordering::Relaxed);
        let pause = patience
            .pause(&route, config.dial_limit)
            .ok_or(Refusal::GameUnreachable)?;
        // A changed route is a reason to try at once; no change is the usual case.
        let change = tokio::time::timeout(pause, changed(&mut watch));
        if let Ok(change) = Box::pin(change).await {
            change?;
        }
    }
}

async fn changed(watch: &mut watch::Receiver<RouteState>) -> Result<(), Refusal> {
    match watch.changed().await {
        Ok(()) => Ok(()),
        // The table only drops a channel after saying Gone on it.
        Err(_) => Err(match &*watch.borrow() {
            RouteState::Gone(reason) => Refusal::Ended(*reason),
            RouteState::Live(_) => Refusal::CannotKnow,
        }),
    }
}

/// An order given to a connection that was still waiting, as a refusal.
pub(crate) const fn refusal_for(close: spawnpoint_wire::close::Close) -> Refusal {
    match close.code {
        4409 => Refusal::Superseded,
        1001 => Refusal::Draining,
        1012 => Refusal::Replaced,
        4403 => Refusal::NotOnRoster,
        4408..=4411 | 1000 | 4500 => Refusal::Ended(None),
        _ => Refusal::CannotKnow,
    }
}

/// How long an instance that does not accept is tried.
struct Patience {
    failing: Option<(u32, Instant)>,
    pause: Duration,
}

impl Patience {
    const fn new() -> Self {
        Self {
            failing: None,
            pause: DIAL_PAUSE,
        }
    }

    /// The next pause, or `None` when it has been long enough. Another incarnation begins anew.
    fn pause(&mut self, route: &Route, limit: Duration) -> Option<Duration> {
        let since = match self.failing {
            Some((generation, since)) if generation == route.generation => since,
            _ => {
                self.pause = DIAL_PAUSE;
                self.failing.insert((route.generation, Instant::now())).1
            }
        };
        if since.elapsed() >= limit {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(DIAL_PAUSE_MAX);
        Some(pause)
    }
}
