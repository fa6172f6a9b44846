//! A player with a good token who is not on the roster that this gateway knows: the answer to their join may have overtaken the
//! stream of routes.

use std::sync::Arc;

use spawnpoint_core::PlayerId;
use spawnpoint_wire::link::Route;
use tokio::time::timeout;

use crate::Inner;
use crate::config::ROSTER_WAIT;
use crate::decide::Refusal;
use crate::routes::RouteState;

/// Makes sure that the player is on the roster, as far as this gateway will know it when they are let in: asks the control plane once,
/// and when it has them waits for the stream to say so too. Their tunnel would be closed by the next older update otherwise.
pub(crate) async fn check(
    inner: &Inner,
    route: &Arc<Route>,
    player: &PlayerId,
) -> Result<(), Refusal> {
    if route.players.contains(player) || !route.phase.is_live() {
        return Ok(());
    }
    let session = route.session;
    let there = match inner.table.ask_again(&*inner.link, session).await {
        Some(Ok(fresh)) => fresh.is_some_and(|r| r.players.contains(player)),
        // Not known is not the same as not there.
        Some(Err(())) => return Err(Refusal::CannotKnow),
        None => false,
    };
    if !there {
        return Err(Refusal::NotOnRoster);
    }
    let mut watch = inner.table.watch(session).ok_or(Refusal::Unknown)?;
    let arrived = watch.wait_for(|state| match state {
        RouteState::Live(route) => route.players.contains(player) || !route.phase.is_live(),
        RouteState::Gone(_) => true,
    });
    match timeout(ROSTER_WAIT, arrived).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Refusal::CannotKnow),
    }
}
