//! A gateway's tables as an audit sees them. In one process the gateway implements [`Tables`] directly.

use futures::future::BoxFuture;
use spawnpoint_core::Generation;
use spawnpoint_core::audit::{GatewayTables, RouteSeen};

use crate::link::{LinkError, Route};

/// A gateway that says what it has.
pub trait Tables: Send + Sync + 'static {
    /// How it names this run of itself, as in its [reports](crate::link::Report).
    fn name(&self) -> String;

    /// Its routes, its connections that have not been told to close, and the ports it listens on for one session each.
    fn tables(&self) -> BoxFuture<'_, Result<GatewayTables, LinkError>>;
}

/// What an audit compares of a route, whoever holds it.
impl From<&Route> for RouteSeen {
    fn from(route: &Route) -> Self {
        Self {
            session: route.session,
            generation: Generation(route.generation),
            phase: route.phase,
        }
    }
}
