//! What this gateway has, for an audit by the control plane.

use std::collections::HashMap;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use spawnpoint_core::audit::{GatewayTables, TunnelSeen};
use spawnpoint_core::{Generation, SessionId};
use spawnpoint_wire::link::LinkError;
use spawnpoint_wire::tables::Tables;

use crate::Gateway;

impl Tables for Gateway {
    fn name(&self) -> String {
        self.inner.name.clone()
    }

    fn tables(&self) -> BoxFuture<'_, Result<GatewayTables, LinkError>> {
        let (routes, tunnels) = self.inner.table.audit();
        let listeners = self.inner.tcp.as_ref().map_or_else(Vec::new, |t| t.all());
        let tables = GatewayTables {
            routes,
            tunnels,
            listeners,
        };
        ready(Ok(tables)).boxed()
    }
}

/// Connected tunnels by session and incarnation. Those that wait lead nowhere yet, and those told to close are on their way.
pub(crate) fn count(tunnels: impl Iterator<Item = (SessionId, u32)>) -> Vec<TunnelSeen> {
    let mut open: HashMap<(SessionId, u32), u32> = HashMap::new();
    for key in tunnels.filter(|(_, generation)| *generation > 0) {
        *open.entry(key).or_default() += 1;
    }
    open.into_iter()
        .map(|((session, generation), open)| TunnelSeen {
            session,
            generation: Generation(generation),
            open,
        })
        .collect()
}
