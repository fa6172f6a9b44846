//! When an instance counts as ready, on which port, and whose listener that is.

use super::*;
use std::collections::HashSet;
use std::net::{TcpListener, UdpSocket};

fn rule(args: &[&str], rule: ReadyRule) -> Order {
    let mut order = order(args);
    order.template.ready = rule;
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn late_is_not_never() {
    let world = World::new();
    let gate = world.path("gate");
    let id = world
        .runtime
        .order(order(&["listen-after", &gate]))
        .await
        .unwrap()
        .id;
    let started = world
        .until(id, "a process", |i| i.timings.spawned_at.is_some())
        .await;
    assert_eq!(started.state, State::Starting);
    std::fs::write(&gate, "").unwrap();
    let ready = world.until_ready(id).await;
    assert_eq!(ask(address(&ready), "x"), "x");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_listens_stays_starting_and_can_be_stopped() {
    let world = World::new();
    let id = world.runtime.order(order(&["never"])).await.unwrap().id;
    world
        .until(id, "a process", |i| i.timings.spawned_at.is_some())
        .await;
    let exit = world.stop(id, PATIENCE).await;
    assert_eq!((exit.signal, exit.code), (Some(15), None));
    assert_eq!(world.runtime.get(id).await.unwrap().timings.ready_at, None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_waits_for_a_good_answer() {
    let world = World::new();
    let gate = world.path("gate");
    let mut order = rule(&["http", &gate], ReadyRule::Http("/health".into()));
    order.template.protocol = Protocol::Http;
    let id = world.runtime.order(order).await.unwrap().id;
    let started = world
        .until(id, "a process", |i| i.timings.spawned_at.is_some())
        .await;
    let port = {
        let text = std::fs::read(world.instance_dir(id).join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        u16::try_from(record["port"].as_u64().unwrap()).unwrap()
    };
    eventually("it listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert_eq!(started.state, State::Starting);
    assert_eq!(
        world.runtime.get(id).await.unwrap().state,
        State::Starting,
        "503 is not ready"
    );
    std::fs::write(&gate, "").unwrap();
    world.until_ready(id).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_is_found_though_it_comes_in_pieces() {
    let world = World::new();
    let ready = world
        .start(rule(
            &["say-then-listen", "all systems go"],
            ReadyRule::Log("systems go".into()),
        ))
        .await;
    eventually("it listens", || TcpStream::connect(address(&ready)).is_ok());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_rule_believes_the_game_only() {
    let world = World::new();
    let order = rule(&["listen"], ReadyRule::Sdk);
    let id = world.runtime.order(order).await.unwrap().id;
    let log = world
        .runtime
        .logs(
            id,
            LogRange {
                tail_bytes: None,
                follow: true,
            },
        )
        .await
        .unwrap();
    // It listens, and that alone means nothing.
    tokio::time::timeout(PATIENCE, log.take(1).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(world.runtime.get(id).await.unwrap().state, State::Starting);
    world.runtime.mark_ready(id).await.unwrap();
    let ready = world.runtime.get(id).await.unwrap();
    assert_eq!(ready.state, State::Ready);
    world.runtime.mark_ready(id).await.unwrap();
    assert_eq!(world.runtime.get(id).await.unwrap(), ready);
    ask(address(&ready), "exit 0");
    world.until_exit(id).await;
    world.runtime.mark_ready(id).await.unwrap();
    let unknown = world.runtime.mark_ready(new_id()).await;
    assert!(matches!(unknown, Err(RuntimeError::NotFound)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_none_is_ready_as_soon_as_it_runs() {
    let world = World::new();
    let ready = world.start(rule(&["never"], ReadyRule::None)).await;
    assert_eq!(ready.timings.spawned_at, ready.timings.ready_at);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_is_ready_when_its_port_is_bound() {
    let world = World::new();
    let mut order = order(&["udp"]);
    order.template.protocol = Protocol::Udp;
    order.template.host_port = true;
    let ready = world.start(order).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"ping", address(&ready)).unwrap();
    let mut buf = [0; 16];
    let (n, _) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"ping");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_where_it_really_listens() {
    let world = World::new();
    for ip in ["0.0.0.0", "127.0.0.1", "::1", "::", "127.0.0.9"] {
        if ip.contains(':') && TcpListener::bind(("::1", 0)).is_err() {
            println!("skipped {ip}: no IPv6 here");
            continue;
        }
        let ready = world.start(order(&["listen-on", ip])).await;
        assert_eq!(ask(address(&ready), "hello"), "hello", "{ip}");
        if ip == "127.0.0.9" || ip == "::1" {
            assert_eq!(address(&ready).ip().to_string(), ip);
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_have_fifty_ports() {
    let world = World::new();
    let orders = (0..50).map(|_| world.runtime.order(order(&["listen"])));
    let ids: Vec<_> = futures::future::join_all(orders)
        .await
        .into_iter()
        .map(|i| i.unwrap().id)
        .collect();
    let mut ports = HashSet::new();
    for id in ids {
        let ready = world.until_ready(id).await;
        assert_eq!(
            ask(address(&ready), "env SPAWNPOINT_INSTANCE"),
            id.to_string()
        );
        assert!(ports.insert(address(&ready).port()));
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_range_says_so_and_a_port_rests_before_it_comes_back() {
    for (quarantine, comes_back) in [(Duration::ZERO, true), (Duration::from_secs(3600), false)] {
        let world = World::with(|config| {
            let from = *config.ports.start();
            config.ports = from..=from + 1;
            config.port_quarantine = quarantine;
        });
        let first = world.start(order(&["listen"])).await;
        world.start(order(&["listen"])).await;
        let full = world.runtime.order(order(&["listen"])).await;
        match full {
            Err(e @ RuntimeError::PortsExhausted { .. }) => {
                assert_eq!(e.code().as_str(), "ports_exhausted");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.runtime.list().await.unwrap().len(), 2);
        world.stop(first.id, PATIENCE).await;
        let over = world.runtime.get(first.id).await.unwrap();
        world.runtime.forget(over.id, over.version).await.unwrap();
        let next = world.runtime.order(order(&["listen"])).await;
        assert_eq!(next.is_ok(), comes_back, "{next:?}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_port_has_one_owner_until_it_is_over() {
    let world = World::new();
    let port = *world.config.ports.end();
    let fixed = || {
        let mut o = order(&["listen"]);
        o.template.fixed_port = Some(port);
        o
    };
    let first = world.start(fixed()).await;
    assert_eq!(address(&first).port(), port);
    let second = world.runtime.order(fixed()).await;
    assert!(
        matches!(second, Err(RuntimeError::PortsExhausted { from, to }) if from == port && to == port),
        "{second:?}"
    );
    ask(address(&first), "exit 1");
    world.until_exit(first.id).await;
    let heir = world.start(fixed()).await;
    assert_eq!(address(&heir).port(), port);
    world.end().await;
}

/// A stranger takes the port after it was chosen and before the game binds it. `patient` games do not even try while the
/// stranger is there; the others fail to bind and end.
async fn stolen(patient: bool) {
    let world = World::new();
    let taken = world.path("taken");
    let mut o = order(&["steal", &taken]);
    if patient {
        o.template.env.insert("PATIENT".into(), "1".into());
    }
    let id = world.runtime.order(o).await.unwrap().id;
    eventually("the game runs", || Path::new(&taken).exists());
    let port: u16 = std::fs::read_to_string(&taken).unwrap().parse().unwrap();
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::fs::write(format!("{taken}.thief"), "").unwrap();
    let ready = world.until_ready(id).await;
    assert_ne!(address(&ready).port(), port);
    assert_eq!(ready.restarts, 0, "moving is no crash");
    assert_eq!(
        ask(address(&ready), "env PORT"),
        address(&ready).port().to_string()
    );
    drop(stranger);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_lost_between_choice_and_bind_is_replaced() {
    stolen(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_listener_is_never_taken_for_the_game() {
    stolen(true).await;
}
