//! What the control plane hears about presence and activity.

use futures::SinkExt as _;
use spawnpoint_wire::link::{PlayerReport, Report, Route};
use tokio_tungstenite::tungstenite::Message;

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

fn of<'a>(reports: &'a [Report], player: &str) -> Vec<&'a PlayerReport> {
    let players = reports
        .iter()
        .flat_map(|r| &r.sessions)
        .flat_map(|s| &s.players);
    players.filter(|p| p.player.as_str() == player).collect()
}

#[tokio::test]
async fn coming_and_leaving_is_told_at_once_and_once() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world
        .link
        .reported("the first one is full", |r| {
            r.first().is_some_and(|r| r.full && r.sessions.is_empty())
        })
        .await;
    world
        .route(Route {
            generation: 4,
            ..ready(id, game.at)
        })
        .await;
    let a = world.join(id, "a").await;
    world
        .link
        .reported("a is here", |r| {
            of(r, "a").last().is_some_and(|p| p.connections == 1)
        })
        .await;
    let _b = world.join(id, "b").await;
    world
        .link
        .reported("b is here", |r| {
            of(r, "b").last().is_some_and(|p| p.connections == 1)
        })
        .await;
    let reports = world.link.reports();
    let last = reports.last().unwrap();
    assert!(!last.full);
    assert_eq!(
        (last.sessions[0].session, last.sessions[0].generation),
        (id, 4)
    );
    assert_eq!(
        last.sessions[0].players.len(),
        2,
        "everybody of the session"
    );
    assert!(
        last.sessions[0]
            .players
            .iter()
            .all(|p| p.client_data_age_ms.is_none())
    );
    drop(a);
    world
        .link
        .reported("a has left", |r| {
            of(r, "a").last().is_some_and(|p| p.connections == 0)
        })
        .await;
    world.join(id, "b").await.echo("again").await;
    world
        .link
        .reported("b went on", |r| {
            of(r, "b")
                .last()
                .is_some_and(|p| p.client_data_age_ms.is_some())
        })
        .await;
    let reports = world.link.reports();
    assert_eq!(
        of(&reports, "a")
            .iter()
            .filter(|p| p.connections == 0)
            .count(),
        1,
        "a departure is told once"
    );
    let sequences: Vec<u64> = reports.iter().map(|r| r.sequence).collect();
    assert!(sequences.windows(2).all(|w| w[0] < w[1]), "{sequences:?}");
    assert!(reports.iter().all(|r| r.gateway == world.gateway.name()));
    world.stop().await;
}

#[tokio::test]
async fn only_data_frames_of_the_client_are_activity() {
    let world = World::start().await;
    let game = RawGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut client, mut leg) = tokio::join!(world.join(id, "a"), game.welcome());
    client.ws.send(Message::Ping("p".into())).await.unwrap();
    client.ws.send(Message::Pong("p".into())).await.unwrap();
    leg.read(14).await;
    world
        .link
        .reported("bytes, no activity", |r| {
            of(r, "a").iter().map(|p| p.bytes_in).sum::<u64>() == 14
        })
        .await;
    assert!(
        of(&world.link.reports(), "a")
            .iter()
            .all(|p| p.client_data_age_ms.is_none())
    );
    use tokio::io::AsyncWriteExt as _;
    leg.stream.write_all(b"\x81\x01x").await.unwrap();
    client.hear().await;
    world
        .link
        .reported("the game spoke", |r| {
            of(r, "a")
                .last()
                .is_some_and(|p| p.server_data_age_ms.is_some())
        })
        .await;
    assert!(
        of(&world.link.reports(), "a")
            .iter()
            .all(|p| p.client_data_age_ms.is_none())
    );
    client.say("now").await;
    world
        .link
        .reported("activity", |r| {
            of(r, "a")
                .last()
                .is_some_and(|p| p.client_data_age_ms.is_some_and(|age| age < 2_000))
        })
        .await;
    let reports = world.link.reports();
    assert_eq!(
        of(&reports, "a").iter().map(|p| p.bytes_in).sum::<u64>(),
        14 + 9
    );
    assert_eq!(
        of(&reports, "a").iter().map(|p| p.bytes_out).sum::<u64>(),
        3
    );
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_that_was_cut_off_tells_everything_on_return() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let (mut a, b) = (world.join(id, "a").await, world.join(id, "b").await);
    world
        .link
        .reported("both are here", |r| {
            of(r, "b").last().is_some_and(|p| p.connections == 1)
        })
        .await;
    world.link.set_down(true);
    a.echo("nobody hears of this yet").await;
    drop(b);
    eventually("a report was lost", || {
        world.gateway.metrics().reports_failed > 0
    })
    .await;
    let before = world.link.reports().len();
    world.link.set_down(false);
    world
        .link
        .reported("everything is told", |r| {
            r[before..].iter().any(|r| {
                r.full
                    && of(std::slice::from_ref(r), "b")
                        .iter()
                        .any(|p| p.connections == 0)
            })
        })
        .await;
    let reports = world.link.reports();
    let full = reports[before..].iter().find(|r| r.full).unwrap();
    let a = of(std::slice::from_ref(full), "a")[0].clone();
    assert_eq!(a.connections, 1);
    assert!(
        a.client_data_age_ms.is_some(),
        "counted by the gateway's own clock"
    );
    assert!(a.bytes_in > 0);
    world.stop().await;
}

#[tokio::test]
async fn a_new_run_of_the_server_hears_everything() {
    let world = World::start().await;
    let game = EchoGame::start().await;
    let id = session(1);
    world.route(ready(id, game.at)).await;
    let mut a = world.join(id, "a").await;
    world
        .link
        .reported("a is here", |r| {
            of(r, "a").last().is_some_and(|p| p.connections == 1)
        })
        .await;
    let before = world.link.reports().len();
    world.link.restart();
    world
        .link
        .reported("all of it", |r| {
            r[before..].iter().any(|r| {
                r.full
                    && of(std::slice::from_ref(r), "a")
                        .iter()
                        .any(|p| p.connections == 1)
            })
        })
        .await;
    a.echo("undisturbed").await;
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_with_nothing_to_say_says_that_it_is_there() {
    let world = World::start().await;
    world
        .link
        .reported("a report about nothing", |r| r.len() >= 2)
        .await;
    let reports = world.link.reports();
    assert!(reports[0].full, "the first says everything");
    assert!(
        reports[1..]
            .iter()
            .all(|r| !r.full && r.sessions.is_empty())
    );
    world.stop().await;
}
