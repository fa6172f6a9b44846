//! What a tunnel costs, measured in a process that runs nothing but the gateway.

use std::io::{BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use futures::StreamExt as _;
use spawnpoint_core::SessionId;
use spawnpoint_wire::link::Protocol;
use spawnpoint_wire::tcp::TcpTerms;
use spawnpoint_wire::token::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::games::{EchoGame, RawGame};
use crate::harness::*;

const GAME: &str = "SPAWNPOINT_TEST_GAME";
const SESSIONS: u64 = 64;
/// Sessions from here on are TCP.
const RAW: u64 = 1_000;

/// Not a test of its own: the child process of those below runs it, told so by its environment.
#[test]
fn only_a_gateway() {
    let Ok(game) = std::env::var(GAME) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::start().await;
        world.link.forget_reports();
        for n in 0..SESSIONS {
            let names: Vec<String> = (0..100).map(|p| format!("p{p}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let route = spawnpoint_wire::link::Route {
                players: players(&names),
                ..ready(session(n), game.parse().unwrap())
            };
            world.route(route.clone()).await;
            let raw = spawnpoint_wire::link::Route {
                session: session(RAW + n),
                protocol: Protocol::Tcp,
                ..route
            };
            world.route(raw).await;
        }
        let ports: Vec<String> = (RAW..RAW + SESSIONS)
            .map(|n| world.open(session(n), TcpTerms::default()).port())
            .map(|port| port.to_string())
            .collect();
        let key = world.key.to_paserk().unwrap();
        println!("\ngateway {} {key} {}", world.at, ports.join(","));
        let mut lines = std::io::stdin().lines();
        while let Some(Ok(_)) = lines.next() {
            let m = world.gateway.metrics();
            println!(
                "\nmetrics {} {} {}",
                m.tunnels, m.buffered_bytes, m.buffered_bytes_peak
            );
        }
        std::mem::forget(world);
    });
}

struct Apart {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    at: SocketAddr,
    key: SigningKey,
    /// Ports of the TCP sessions.
    raw: Vec<u16>,
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Apart {
    fn start(game: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "backpressure::only_a_gateway",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(GAME, game.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let line = line(&mut output, "gateway ");
        let [at, key, raw] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        Self {
            raw: raw.split(',').map(|p| p.parse().unwrap()).collect(),
            at: at.parse().unwrap(),
            key: SigningKey::from_paserk(key).unwrap(),
            child,
            input,
            output,
        }
    }

    fn url(&self, id: SessionId, player: &str) -> String {
        format!(
            "ws://{}/session/{id}?token={}",
            self.at,
            token(&self.key, player, id, NOW + 3600)
        )
    }

    /// Tunnels, bytes kept now, and at most.
    fn metrics(&mut self) -> (u64, u64, u64) {
        self.input.write_all(b"\n").unwrap();
        let line = line(&mut self.output, "metrics ");
        let mut numbers = line.split(' ').map(|n| n.parse().unwrap());
        (
            numbers.next().unwrap(),
            numbers.next().unwrap(),
            numbers.next().unwrap(),
        )
    }

    /// Resident anonymous memory, bytes: what the process itself holds, without its code.
    #[cfg(target_os = "linux")]
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

fn line(output: &mut impl std::io::BufRead, prefix: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "the gateway process has ended"
        );
        if let Some(rest) = line.strip_prefix(prefix) {
            return rest.trim().to_owned();
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_game_that_floods_a_client_that_does_not_read_costs_next_to_nothing() {
    const TOTAL: usize = 200 << 20;
    const FRAME: usize = 64 << 10;
    let game = RawGame::start().await;
    let mut gateway = Apart::start(game.at);
    let id = session(1);
    let url = gateway.url(id, "p1");
    let (mut client, mut leg) = tokio::join!(
        async { connect(gateway.at, &url, &[], &[]).await.unwrap() },
        game.welcome()
    );
    let before = gateway.memory();
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = written.clone();
    let flood = async move {
        let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; FRAME]].concat();
        for _ in 0..TOTAL / FRAME {
            leg.stream.write_all(&frame).await.unwrap();
            counter.fetch_add(frame.len(), std::sync::atomic::Ordering::Relaxed);
        }
        leg.stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
        leg
    };
    let watch = async {
        // The flood comes to a halt once every buffer is full ...
        let mut last = usize::MAX;
        soon("the flood halts", async {
            loop {
                let now = written.load(std::sync::atomic::Ordering::Relaxed);
                if now > 0 && now == last {
                    break;
                }
                last = now;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
        })
        .await;
        assert!(
            written.load(std::sync::atomic::Ordering::Relaxed) < TOTAL,
            "it never felt that nobody reads"
        );
        let (_, kept, _) = gateway.metrics();
        assert!(kept > 0 && kept <= 2 << 20, "{kept} bytes kept");
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown <= 2 << 20, "{grown} bytes more");
        // ... and nothing was lost when the client begins to read.
        let mut total = 0usize;
        let mut chunk = vec![0; 1 << 20];
        let socket = client.ws.get_mut();
        while total < TOTAL / FRAME * (FRAME + 10) + 4 {
            let n = soon("more", socket.read(&mut chunk)).await.unwrap();
            assert_ne!(n, 0, "ended after {total}");
            total += n;
        }
        let (_, _, peak) = gateway.metrics();
        let grown = gateway.memory().saturating_sub(before);
        assert!(
            peak <= 2 << 20 && grown <= 2 << 20,
            "{peak} bytes kept, {grown} bytes more"
        );
    };
    let (_leg, ()) = tokio::join!(flood, watch);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_quiet_players_are_cheap() {
    const PLAYERS: u64 = 2_000;
    let game = EchoGame::start().await;
    let mut gateway = Apart::start(game.at);
    let (at, key) = (gateway.at, &gateway.key);
    let arrive = |n: u64| async move {
        let (id, player) = (session(n % SESSIONS), format!("p{}", n / SESSIONS));
        let token = token(key, &player, id, NOW + 3600);
        let url = format!("ws://{at}/session/{id}?token={token}");
        let mut client = connect(at, &url, &[], &[]).await.unwrap();
        client.echo("hello").await;
        client
    };
    let crowd = async |numbers: std::ops::Range<u64>| -> Vec<Client> {
        let arrivals = futures::stream::iter(numbers).map(|n| Box::pin(arrive(n)));
        arrivals.buffer_unordered(8).collect().await
    };
    // The first hundred pay for what is paid once.
    let mut clients = crowd(0..100).await;
    let before = gateway.memory();
    clients.extend(crowd(100..PLAYERS + 100).await);
    eventually("all are in", || gateway.metrics().0 == PLAYERS + 100).await;
    let each = gateway.memory().saturating_sub(before) / PLAYERS;
    println!("{each} bytes of memory per idle tunnel");
    assert!(
        each <= 3 << 10,
        "{each} bytes each, with the allocator's slack"
    );
    assert_eq!(gateway.metrics().1, 0, "nothing is kept for the quiet");
    for client in &mut clients {
        client.echo("still there").await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_quiet_tcp_players_are_cheap() {
    const PLAYERS: usize = 2_000;
    let game = crate::tcp::Game::start().await;
    let mut gateway = Apart::start(game.at);
    let echoing = tokio_util::task::TaskTracker::new();
    let at = |n: usize| {
        let port = gateway.raw[n % gateway.raw.len()];
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port))
    };
    let key = &gateway.key;
    // Half of them say who they are.
    let come = |n: usize| {
        let session = session(RAW + n as u64 % SESSIONS);
        let player = format!("p{}", n as u64 / SESSIONS);
        let line = n
            .is_multiple_of(2)
            .then(|| format!("SPAWNPOINT {}\n", token(key, &player, session, NOW + 3600)));
        let address = at(n);
        async move {
            let mut client = crate::tcp::dial(address).await;
            crate::tcp::say(&mut client, line.unwrap_or_default().as_bytes()).await;
            crate::tcp::say(&mut client, b"hello").await;
            client
        }
    };
    let crowd = async |numbers: std::ops::Range<usize>| {
        let mut all = Vec::new();
        for n in numbers {
            let mut client = come(n).await;
            let mut at_game = game.accept().await;
            echoing.spawn(async move {
                let (mut reads, mut writes) = at_game.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
            crate::tcp::hears(&mut client, b"hello").await;
            all.push(client);
        }
        all
    };
    let mut clients = crowd(0..100).await;
    let before = gateway.memory();
    clients.extend(crowd(100..PLAYERS + 100).await);
    let tunnels = PLAYERS as u64 + 100;
    eventually("all are in", || gateway.metrics().0 == tunnels).await;
    let each = gateway.memory().saturating_sub(before) / PLAYERS as u64;
    println!("{each} bytes of memory per idle TCP tunnel");
    assert!(
        each <= 3 << 10,
        "{each} bytes each, with the allocator's slack"
    );
    assert_eq!(gateway.metrics().1, 0, "nothing is kept for the quiet");
    for client in &mut clients {
        crate::tcp::say(client, b"still there").await;
        crate::tcp::hears(client, b"still there").await;
    }
}
