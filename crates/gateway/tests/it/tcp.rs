//! TCP sessions: real sockets through the gateway, byte for byte, and what becomes of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use spawnpoint_core::SessionId;
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_gateway::TcpConfig;
use spawnpoint_wire::link::{Protocol, Route};
use spawnpoint_wire::tcp::{TcpPortError, TcpPorts as _, TcpTerms, TokenRule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::*;

/// A TCP route to a game that accepts.
pub(crate) fn tcp(session: SessionId, address: SocketAddr) -> Route {
    Route {
        protocol: Protocol::Tcp,
        ..ready(session, address)
    }
}

/// A game that is driven by hand.
pub(crate) struct Game {
    pub(crate) at: SocketAddr,
    listener: TcpListener,
}

impl Game {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        Self { at, listener }
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        let (stream, _) = soon("a connection to the game", self.listener.accept())
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Whether nobody has connected.
    pub(crate) async fn is_lonely(&self) -> bool {
        let accepted = tokio::time::timeout(Duration::from_millis(150), self.listener.accept());
        accepted.await.is_err()
    }
}

impl World {
    /// Opens a session's port.
    pub(crate) fn open(&self, session: SessionId, terms: TcpTerms) -> SocketAddr {
        let port = self.tcp.open(session, None, terms).unwrap();
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// An open session with a game that accepts.
    pub(crate) async fn playing(&self, n: u64, terms: TcpTerms) -> (Game, SocketAddr) {
        let game = Game::start().await;
        let at = self.open(session(n), terms);
        self.route(tcp(session(n), game.at)).await;
        (game, at)
    }
}

pub(crate) async fn dial(at: SocketAddr) -> TcpStream {
    let stream = soon("a connection", TcpStream::connect(at)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    soon("a write", stream.write_all(bytes)).await.unwrap();
}

/// Reads exactly this.
#[track_caller]
pub(crate) fn hears<'s>(
    stream: &'s mut TcpStream,
    expected: &'s [u8],
) -> impl Future<Output = ()> + 's {
    let caller = std::panic::Location::caller();
    async move {
        let mut got = vec![0; expected.len()];
        soon("bytes", stream.read_exact(&mut got))
            .await
            .unwrap_or_else(|e| panic!("{caller}: {e}"));
        assert!(
            got == expected,
            "{caller}: {:?}",
            String::from_utf8_lossy(&got)
        );
    }
}

/// Everything to the end of the stream; an error where it was reset.
pub(crate) async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("the end", stream.read_to_end(&mut all))
        .await
        .map(|_| all)
}

pub(crate) async fn is_reset(stream: &mut TcpStream) -> bool {
    rest(stream)
        .await
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
}

/// The same numbers for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 1 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        usize::try_from(self.roll() % most as u64).unwrap() + 1
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes: Vec<u8> = (0..length / 8 + 1)
        .flat_map(|_| dice.roll().to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

/// Writes in pieces of any size.
async fn pour(mut stream: impl tokio::io::AsyncWrite + Unpin, bytes: Vec<u8>, seed: u64) {
    let mut dice = Dice(seed);
    let mut left = &bytes[..];
    while !left.is_empty() {
        let n = dice.up_to(100_000).min(left.len());
        stream.write_all(&left[..n]).await.unwrap();
        left = &left[n..];
    }
    stream.shutdown().await.unwrap();
}

/// Reads in small bites with pauses, as a busy peer does.
async fn sip(mut stream: impl tokio::io::AsyncRead + Unpin, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut all = Vec::new();
    let mut bite = vec![0; 50_000];
    loop {
        let n = dice.up_to(bite.len());
        let got = stream.read(&mut bite[..n]).await.unwrap();
        if got == 0 {
            return all;
        }
        all.extend(&bite[..got]);
        if dice.up_to(8) == 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_every_kind_pass_both_ways_as_they_are() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    for seed in 0..6 {
        let (up, down) = (noise(seed, 3_000_000), noise(seed + 100, 2_000_000));
        let client = dial(at).await;
        let (client_in, client_out) = client.into_split();
        let pouring = pour(client_out, up.clone(), seed);
        let playing = async {
            let (game_in, game_out) = game.accept().await.into_split();
            tokio::join!(sip(game_in, seed), pour(game_out, down.clone(), seed + 7)).0
        };
        let (_, heard_by_game, heard) = soon(
            "both ways",
            futures::future::join3(pouring, playing, sip(client_in, seed + 9)),
        )
        .await;
        assert!(heard_by_game == up, "to the game, seed {seed}");
        assert!(heard == down, "to the client, seed {seed}");
    }
    eventually("nothing is kept", || {
        let m = world.gateway.metrics();
        m.tunnels == 0 && m.buffered_bytes == 0
    })
    .await;
    let m = world.gateway.metrics();
    assert_eq!((m.bytes_in, m.bytes_out), (18_000_000, 12_000_000));
    assert_eq!(m.handshakes["ok"], 6);
    assert_eq!(m.closes[&1000], 6);
}

#[tokio::test]
async fn each_side_may_finish_first_and_the_other_goes_on() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"all I say\n").await;
    client.shutdown().await.unwrap();
    let mut at_game = game.accept().await;
    assert_eq!(rest(&mut at_game).await.unwrap(), b"all I say\n");
    for n in 0..5 {
        say(&mut at_game, format!("answer {n}\n").as_bytes()).await;
        hears(&mut client, format!("answer {n}\n").as_bytes()).await;
    }
    drop(at_game);
    assert_eq!(rest(&mut client).await.unwrap(), b"");

    let mut client = dial(at).await;
    say(&mut client, b"x").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"x").await;
    say(&mut at_game, b"the last word").await;
    at_game.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap(), b"the last word");
    for n in 0..5 {
        say(&mut client, format!("still here {n}\n").as_bytes()).await;
        hears(&mut at_game, format!("still here {n}\n").as_bytes()).await;
    }
    drop(client);
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
    eventually("both are over", || world.gateway.metrics().tunnels == 0).await;
}

#[tokio::test]
async fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    for by_client in [true, false] {
        let mut client = dial(at).await;
        say(&mut client, b"hello").await;
        let mut at_game = game.accept().await;
        hears(&mut at_game, b"hello").await;
        let (resets, mut hears_it) = if by_client {
            (client, at_game)
        } else {
            (at_game, client)
        };
        resets.set_zero_linger().unwrap();
        drop(resets);
        assert!(is_reset(&mut hears_it).await, "by the client: {by_client}");
    }
}

#[tokio::test]
async fn a_megabyte_at_once_waits_for_a_slow_reader_on_either_side() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let burst = noise(5, 1_000_000);
    let mut client = dial(at).await;
    say(&mut client, b"!").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"!").await;
    for to_game in [true, false] {
        let (from, to) = if to_game {
            (&mut client, &mut at_game)
        } else {
            (&mut at_game, &mut client)
        };
        let reading = async {
            // Nobody reads until the sender is stuck or done.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let kept = world.gateway.metrics().buffered_bytes;
            assert!(kept <= 64 * 1024, "{kept} bytes kept");
            hears(to, &burst).await;
        };
        tokio::join!(say(from, &burst), reading);
    }
    drop((client, at_game));
}

#[tokio::test]
async fn whoever_comes_early_waits_until_the_game_is_there() {
    let world = World::start().await;
    let at = world.open(session(1), TcpTerms::default());
    let mut route = tcp(session(1), at);
    (route.phase, route.address) = (Phase::Starting, None);
    world.route(route).await;
    let mut talker = dial(at).await;
    say(&mut talker, b"first words").await;
    let mut listener = dial(at).await;
    eventually("both wait", || world.gateway.metrics().parked == 2).await;
    say(&mut talker, b", and more").await;
    let game = Game::start().await;
    world.route(tcp(session(1), game.at)).await;
    let (one, other) = (game.accept().await, game.accept().await);
    // Which is whose is for the bytes to say.
    let mut lines = Vec::new();
    for mut c in [one, other] {
        let mut byte = [0; 1];
        let talks = tokio::time::timeout(Duration::from_millis(300), c.peek(&mut byte));
        if talks.await.is_ok() {
            hears(&mut c, b"first words, and more").await;
            lines.push("talker");
        } else {
            say(&mut c, b"banner").await;
            hears(&mut listener, b"banner").await;
            lines.push("listener");
        }
    }
    lines.sort_unstable();
    assert_eq!(lines, ["listener", "talker"]);
    assert_eq!(world.gateway.metrics().parked, 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_never_reaches_the_game() {
    let world = World::start().await;
    let at = world.open(session(1), TcpTerms::default());
    let mut route = tcp(session(1), at);
    (route.phase, route.address) = (Phase::Starting, None);
    world.route(route).await;
    // A probe says nothing and goes; another client is reset after its words.
    let probe = dial(at).await;
    drop(probe);
    let mut lost = dial(at).await;
    say(&mut lost, b"words").await;
    eventually("it waits", || world.gateway.metrics().parked == 1).await;
    lost.set_zero_linger().unwrap();
    drop(lost);
    eventually("nobody waits", || world.gateway.metrics().parked == 0).await;
    let game = Game::start().await;
    world.route(tcp(session(1), game.at)).await;
    assert!(game.is_lonely().await);
    assert_eq!(world.gateway.metrics().handshakes["client_gone"], 2);
}

#[tokio::test]
async fn a_session_that_cannot_start_is_said_in_one_line() {
    let world = World::start().await;
    let at = world.open(session(1), TcpTerms::default());
    let mut route = tcp(session(1), at);
    (route.phase, route.address) = (Phase::Starting, None);
    world.route(route.clone()).await;
    let mut client = dial(at).await;
    say(&mut client, b"hello").await;
    eventually("it waits", || world.gateway.metrics().parked == 1).await;
    (route.phase, route.ended) = (Phase::Ending, Some(Reason::StartFailed));
    world.route(route).await;
    assert_eq!(rest(&mut client).await.unwrap(), b"ERROR start_failed\n");
}

#[tokio::test]
async fn the_end_of_a_session_lets_the_game_finish_its_sentence() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"hello").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"hello").await;
    let mut route = tcp(session(1), game.at);
    (route.phase, route.ended) = (Phase::Ending, Some(Reason::EndedByClient));
    world.route(route).await;
    say(&mut at_game, b"bye").await;
    drop(at_game);
    assert_eq!(rest(&mut client).await.unwrap(), b"bye");
    // A game that does not go is not waited for.
    let (game, at) = world.playing(2, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"hello").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"hello").await;
    world.link.gone(session(2));
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
    eventually("counted", || {
        let m = world.gateway.metrics();
        m.closes.get(&4411) == Some(&2)
    })
    .await;
}

#[tokio::test]
async fn what_a_game_said_before_it_exited_reaches_a_slow_client_whole() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"?").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"?").await;
    let words = noise(9, 4_000_000);
    let talking = async {
        say(&mut at_game, &words).await;
        drop(at_game);
        let mut route = tcp(session(1), game.at);
        (route.phase, route.ended) = (Phase::Ending, Some(Reason::EndedByServer));
        world.route(route).await;
        world.link.gone(session(1));
    };
    let listening = async {
        let mut all: Vec<u8> = Vec::new();
        let mut bite = vec![0; 40_000];
        loop {
            // Slower than any limit on a stall, never stalled: about five seconds.
            tokio::time::sleep(Duration::from_millis(50)).await;
            match client.read(&mut bite).await.unwrap() {
                0 => return all,
                n => all.extend(&bite[..n]),
            }
        }
    };
    let (heard, ()) = soon("all of it", futures::future::join(listening, talking)).await;
    assert!(heard == words);
}

#[tokio::test]
async fn another_incarnation_resets_the_old_ones_connections() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"hello").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"hello").await;
    let mut route = tcp(session(1), game.at);
    (route.phase, route.address, route.generation) = (Phase::Replacing, None, 2);
    world.route(route).await;
    assert!(is_reset(&mut client).await);
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
    // The same address leads to the next one, once it is there.
    let mut client = dial(at).await;
    say(&mut client, b"again").await;
    eventually("it waits", || world.gateway.metrics().parked == 1).await;
    let next = Game::start().await;
    let mut route = tcp(session(1), next.at);
    route.generation = 2;
    world.route(route).await;
    hears(&mut next.accept().await, b"again").await;
    assert!(game.is_lonely().await);
}

#[tokio::test]
async fn a_drain_ends_connections_and_refuses_new_ones() {
    let world = World::start().await;
    let (game, at) = world.playing(1, TcpTerms::default()).await;
    let mut client = dial(at).await;
    say(&mut client, b"hello").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"hello").await;
    let mut route = tcp(session(2), at);
    (route.phase, route.address) = (Phase::Starting, None);
    let waits_at = world.open(session(2), TcpTerms::default());
    world.route(route).await;
    let mut waits = dial(waits_at).await;
    say(&mut waits, b"hello").await;
    eventually("it waits", || world.gateway.metrics().parked == 1).await;
    world.stop().await;
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
    assert_eq!(rest(&mut waits).await.unwrap(), b"ERROR shutting_down\n");
}

/// A port of the range that nobody listens on at the moment.
async fn free_port() -> u16 {
    for port in 25_000..=27_999 {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            drop(listener);
            return port;
        }
    }
    panic!("no free port");
}

#[tokio::test]
async fn ports_run_out_and_rest_and_come_back() {
    let first = free_port().await;
    let tcp = TcpConfig {
        quarantine: Duration::from_millis(300),
        ..TcpConfig::new(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], first..=first)
    };
    let world = World::listening(config(), tcp).await;
    let terms = TcpTerms::default();
    let port = world.tcp.open(session(1), None, terms).unwrap();
    assert_eq!(port, first);
    assert_eq!(
        world.tcp.open(session(1), None, terms).unwrap(),
        port,
        "asked twice"
    );
    let exhausted = world.tcp.open(session(2), None, terms);
    assert!(
        matches!(exhausted, Err(TcpPortError::Exhausted { from, to }) if from == first && to == first)
    );
    world.tcp.close(session(1));
    world.tcp.close(session(1));
    assert!(world.tcp.open(session(2), None, terms).is_err(), "it rests");
    eventually("it has rested", || {
        world.tcp.open(session(2), None, terms).is_ok()
    })
    .await;
    // The port a session had may be had again at once, and another program's not at all.
    world.tcp.close(session(2));
    eventually("its own port again", || {
        world.tcp.open(session(2), Some(first), terms).is_ok()
    })
    .await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap().port();
    world.tcp.close(session(2));
    assert!(world.tcp.open(session(3), Some(taken), terms).is_err());
    assert!(world.tcp.is_empty());
}

#[tokio::test]
async fn a_closed_session_is_not_listened_for_any_more() {
    let world = World::start().await;
    let (_game, at) = world.playing(1, TcpTerms::default()).await;
    drop(dial(at).await);
    world.tcp.close(session(1));
    soon("refused", async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(world.tcp.is_empty());
}

#[tokio::test]
async fn too_many_for_one_session_are_told_so() {
    let config = spawnpoint_gateway::GatewayConfig {
        max_per_session: 2,
        ..config()
    };
    let world = World::with(config).await;
    let terms = TcpTerms {
        token: TokenRule::Never,
        ..TcpTerms::default()
    };
    let (game, at) = world.playing(1, terms).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = dial(at).await;
        say(&mut client, b"x").await;
        let mut at_game = game.accept().await;
        hears(&mut at_game, b"x").await;
        held.push((client, at_game));
    }
    let mut client = dial(at).await;
    say(&mut client, b"x").await;
    assert_eq!(
        rest(&mut client).await.unwrap(),
        b"ERROR too_many_connections\n"
    );
}

/// Who comes before the stream has brought their session is let in by an answer; what the stream brings then is older than that, and once
/// closed them as if their game had been replaced.
#[tokio::test]
async fn a_stream_that_lags_behind_an_answer_closes_nobody() {
    let world = World::start().await;
    let game = Game::start().await;
    let at = world.open(session(1), TcpTerms::default());
    world.link.hold_back(true);
    let starting = Route {
        phase: Phase::Starting,
        address: None,
        ..tcp(session(1), game.at)
    };
    world.link.set(starting);
    world.link.set(tcp(session(1), game.at));
    let mut client = dial(at).await;
    say(&mut client, b"early").await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"early").await;
    assert_eq!(world.link.asked(), 1);
    world.link.hold_back(false);
    world.link.settled().await;
    say(&mut at_game, b"still here").await;
    hears(&mut client, b"still here").await;
    assert_eq!(world.gateway.metrics().closes, Default::default());
    // What the stream brings after it counts.
    world
        .route(Route {
            phase: Phase::Replacing,
            address: None,
            ..tcp(session(1), game.at)
        })
        .await;
    assert!(is_reset(&mut client).await);
}
