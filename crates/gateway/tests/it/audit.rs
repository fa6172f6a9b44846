//! What a gateway says that it has, when an audit asks.

use spawnpoint_core::Generation;
use spawnpoint_core::audit::{GatewayTables, RouteSeen, TunnelSeen};
use spawnpoint_core::session::Phase;
use spawnpoint_wire::link::Route;
use spawnpoint_wire::tables::Tables as _;
use spawnpoint_wire::tcp::{TcpPorts as _, TcpTerms};

use crate::games::EchoGame;
use crate::harness::*;

async fn tables(world: &World) -> GatewayTables {
    world.gateway.tables().await.unwrap()
}

#[tokio::test]
async fn routes_connections_and_ports_are_told_as_they_come_and_go() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let empty = tables(&world).await;
    assert!(empty.routes.is_empty() && empty.tunnels.is_empty() && empty.listeners.is_empty());
    let (one, two) = (session(1), session(2));
    world.route(ready(one, game.at)).await;
    world.route(starting(two)).await;
    let port = world.tcp.open(two, None, TcpTerms::default()).unwrap();
    let (mut a, mut b) = (world.join(one, "a").await, world.join(one, "b").await);
    a.echo("x").await;
    b.echo("x").await;
    let mut seen = tables(&world).await;
    seen.routes.sort_by_key(|r| r.session);
    let route = |session, phase| RouteSeen {
        session,
        generation: Generation(1),
        phase,
    };
    assert_eq!(
        seen.routes,
        [route(one, Phase::Ready), route(two, Phase::Starting)]
    );
    let open = |open| TunnelSeen {
        session: one,
        generation: Generation(1),
        open,
    };
    assert_eq!(seen.tunnels, [open(2)]);
    assert_eq!(seen.listeners, [(two, port)]);
    assert_eq!(
        world.gateway.name(),
        spawnpoint_wire::tables::Tables::name(&world.gateway)
    );

    // Whoever was told to go does not count any more, even before they have gone.
    world.link.set(Route {
        players: players(&["a"]),
        ..ready(one, game.at)
    });
    assert_eq!(b.closed().await.0, 4403);
    assert_eq!(tables(&world).await.tunnels, [open(1)]);
    world.link.gone(one);
    world.tcp.close(two);
    a.closed().await;
    let left = tables(&world).await;
    assert_eq!(left.routes, [route(two, Phase::Starting)]);
    assert!(
        left.tunnels.is_empty() && left.listeners.is_empty(),
        "{left:?}"
    );
    world.stop().await;
}
