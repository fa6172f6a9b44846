//! Who connects to a TCP session: the token line cut anywhere and sent by anybody, takeover, those who say nothing, and what the
//! game is told.

use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use spawnpoint_core::SessionId;
use spawnpoint_core::session::Phase;
use spawnpoint_wire::tcp::{TcpTerms, TokenRule};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::*;
use crate::tcp::{dial, hears, is_reset, rest, say, tcp};

/// Everybody must say who they are, as off loopback.
const ASKED: TcpTerms = TcpTerms {
    token: TokenRule::Always,
    proxy_protocol: false,
};
const UNASKED: TcpTerms = TcpTerms {
    token: TokenRule::OffLoopback,
    proxy_protocol: false,
};

impl World {
    fn line(&self, player: &str, session: SessionId) -> Vec<u8> {
        format!("SPAWNPOINT {}\n", self.token(player, session)).into_bytes()
    }

    /// Connections of each player of a session as the control plane has heard of them.
    fn present(&self, session: SessionId) -> Vec<(String, u32)> {
        let mut all: Vec<_> = self
            .link
            .connections(session)
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect();
        all.sort();
        all
    }
}

fn at(names: &[(&str, u32)]) -> Vec<(String, u32)> {
    names.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_cut_at_any_byte_lets_in_and_leaves_the_rest_to_the_game() {
    let world = World::start().await;
    for (n, terms) in [(1, ASKED), (2, UNASKED)] {
        let (game, address) = world.playing(n, terms).await;
        let mut stream = world.line("a", session(n));
        let line = stream.len();
        stream.splice(line - 1..line, *b"\r\n");
        stream.extend(b"SPAWNPOINT is also a word of the game's\n\0\xff");
        let all: Vec<usize> = (1..stream.len()).collect();
        for cuts in all.chunks(9) {
            let mut client = dial(address).await;
            let mut from = 0;
            for to in cuts.iter().chain([&stream.len()]) {
                say(&mut client, &stream[from..*to]).await;
                from = *to;
                tokio::task::yield_now().await;
            }
            let mut at_game = game.accept().await;
            hears(&mut at_game, &stream[line + 1..]).await;
            say(&mut at_game, b"ok").await;
            hears(&mut client, b"ok").await;
        }
    }
}

#[tokio::test]
async fn a_first_line_that_is_no_good_token_is_told_its_code_and_nothing_else() {
    let world = World::start().await;
    let (game, address) = world.playing(1, ASKED).await;
    world.route(tcp(session(2), game.at)).await;
    let other_key = spawnpoint_wire::token::SigningKey::generate().unwrap();
    let line = |token: &str| format!("SPAWNPOINT {token}\n").into_bytes();
    let expired = line(&world.token_until("a", session(1), NOW - 1));
    let foreign = line(&token(&other_key, "a", session(1), NOW + 99));
    let cases: [(Vec<u8>, &str); 12] = [
        (b"GET_STATE\n".to_vec(), "unauthenticated"),
        (b"\n".to_vec(), "unauthenticated"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "unauthenticated"),
        (vec![0x16, 3, 1, 0, 200, 1], "unauthenticated"),
        (b"SPAWNPOINT\tx\n".to_vec(), "unauthenticated"),
        (b"SPAWNPOINT \n".to_vec(), "invalid_credentials"),
        (b"SPAWNPOINT \xff\xfe\n".to_vec(), "invalid_credentials"),
        (line("v4.public.nonsense"), "invalid_credentials"),
        (line(&"x".repeat(1_000_000)), "invalid_credentials"),
        (expired, "invalid_credentials"),
        (foreign, "invalid_credentials"),
        (world.line("a", session(2)), "forbidden"),
    ];
    let expected = |code: &str| format!("ERROR {code}\n").into_bytes();
    for (bytes, code) in &cases {
        let mut client = dial(address).await;
        let (mut reads, mut writes) = client.split();
        let mut said = Vec::new();
        let both = futures::future::join(
            async {
                // The gateway stops listening in the middle of what is too long.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut writes, bytes).await;
            },
            reads.read_to_end(&mut said),
        );
        soon("an answer", both).await.1.unwrap();
        assert_eq!(said, expected(code), "{:?}", String::from_utf8_lossy(bytes));
    }
    // Somebody who is not in the session, with a good token for it.
    let mut stranger = dial(address).await;
    say(&mut stranger, &world.line("z", session(1))).await;
    assert_eq!(rest(&mut stranger).await.unwrap(), expected("forbidden"));
    // Nothing, and then the end.
    let mut silent = dial(address).await;
    tokio::io::AsyncWriteExt::shutdown(&mut silent)
        .await
        .unwrap();
    assert_eq!(
        rest(&mut silent).await.unwrap(),
        expected("unauthenticated")
    );
    assert!(game.is_lonely().await);
    let m = world.gateway.metrics();
    assert_eq!(m.handshakes["invalid_credentials"], 6);
    assert_eq!(m.handshakes["unauthenticated"], 6);
    assert_eq!(m.handshakes["forbidden"], 2);
    assert_eq!(m.tunnels, 0);
    eventually("all are gone", || world.gateway.metrics().connections == 0).await;
}

#[tokio::test]
async fn what_a_stranger_hears_does_not_tell_what_the_session_is_doing() {
    let world = World::start().await;
    let (game, ready_at) = world.playing(1, ASKED).await;
    let unknown_at = world.open(session(2), ASKED);
    let ending_at = world.open(session(3), ASKED);
    let mut ending = tcp(session(3), game.at);
    ending.phase = Phase::Ending;
    world.route(ending).await;
    for line in [
        &b"SPAWNPOINT guess\n"[..],
        b"hello\n",
        &world.line("a", session(9)),
    ] {
        let mut heard = Vec::new();
        for address in [ready_at, unknown_at, ending_at] {
            let mut client = dial(address).await;
            say(&mut client, line).await;
            heard.push(rest(&mut client).await.unwrap());
        }
        assert!(heard.iter().all(|h| *h == heard[0]), "{heard:?}");
    }
    assert_eq!(world.link.asked(), 0, "nobody was asked about them");
    // Who has a token for it hears how it stands.
    for (n, address, code) in [
        (2, unknown_at, "session_not_found"),
        (3, ending_at, "session_not_found"),
    ] {
        let mut client = dial(address).await;
        say(&mut client, &world.line("a", session(n))).await;
        let said = rest(&mut client).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("ERROR {code}\n"));
    }
}

#[tokio::test]
async fn a_line_that_does_not_come_or_does_not_end_is_not_waited_for() {
    let limit = Duration::from_millis(200);
    let world = World::with(spawnpoint_gateway::GatewayConfig {
        token_limit: limit,
        ..config()
    })
    .await;
    let (game, address) = world.playing(1, ASKED).await;
    for begun in [&b""[..], b"SPAWN", b"SPAWNPOINT v4.public."] {
        let since = tokio::time::Instant::now();
        let mut client = dial(address).await;
        say(&mut client, begun).await;
        assert_eq!(
            rest(&mut client).await.unwrap(),
            b"ERROR unauthenticated\n",
            "{begun:?}"
        );
        assert!(since.elapsed() >= limit);
    }
    assert!(game.is_lonely().await);
    // Where nobody is asked a line that was begun is still a line: before the game is there, and after.
    let (game, address) = world.playing(2, UNASKED).await;
    let mut client = dial(address).await;
    say(&mut client, b"SPAWNPOINT v4").await;
    assert_eq!(rest(&mut client).await.unwrap(), b"ERROR unauthenticated\n");
    let mut client = dial(address).await;
    let mut at_game = game.accept().await;
    say(&mut client, b"SPAWNPOINT v4").await;
    assert_eq!(rest(&mut client).await.unwrap(), b"ERROR unauthenticated\n");
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
}

#[tokio::test]
async fn on_loopback_anybody_may_come_without_a_word() {
    let world = World::start().await;
    let (game, address) = world.playing(1, UNASKED).await;
    // The game speaks first; whoever says something is heard as they are.
    let mut client = dial(address).await;
    let mut at_game = game.accept().await;
    say(&mut at_game, b"welcome").await;
    hears(&mut client, b"welcome").await;
    for words in [
        &b"S"[..],
        b"SPAWN",
        b"SPAWNPOINT",
        b"spawnpoint x\n",
        b"\xff",
    ] {
        let mut client = dial(address).await;
        say(&mut client, words).await;
        let mut at_game = game.accept().await;
        hears(&mut at_game, words).await;
    }
    // The same to a game that is already connected.
    say(&mut client, b"SPA").await;
    hears(&mut at_game, b"SPA").await;
    say(&mut client, b"SPAWNPOINT not a line of ours any more\n").await;
    hears(&mut at_game, b"SPAWNPOINT not a line of ours any more\n").await;
    // And a word that ends with the stream.
    let mut brief = dial(address).await;
    say(&mut brief, b"SPAWN").await;
    tokio::io::AsyncWriteExt::shutdown(&mut brief)
        .await
        .unwrap();
    assert_eq!(rest(&mut game.accept().await).await.unwrap(), b"SPAWN");
}

#[tokio::test]
async fn a_line_that_comes_late_is_still_heard() {
    let world = World::start().await;
    let (game, address) = world.playing(1, UNASKED).await;
    let mut client = dial(address).await;
    let mut at_game = game.accept().await;
    eventually("somebody is seen", || {
        world.present(session(1)) == at(&[("a", 1)])
    })
    .await;
    let line = world.line("c", session(1));
    for piece in line.chunks(60) {
        say(&mut client, piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say(&mut client, b"mine").await;
    hears(&mut at_game, b"mine").await;
    eventually("it is c", || world.present(session(1)) == at(&[("c", 1)])).await;
    assert!(game.is_lonely().await, "it is the same connection");
    // A bad one ends it, after what the game said.
    let mut client = dial(address).await;
    let mut at_game = game.accept().await;
    say(&mut at_game, b"welcome\n").await;
    hears(&mut client, b"welcome\n").await;
    say(&mut client, &world.line("a", session(2))).await;
    assert_eq!(rest(&mut client).await.unwrap(), b"ERROR forbidden\n");
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
    let mut client = dial(address).await;
    let mut at_game = game.accept().await;
    say(&mut client, b"SPAWNPOINT rubbish\n").await;
    assert_eq!(
        rest(&mut client).await.unwrap(),
        b"ERROR invalid_credentials\n"
    );
    assert_eq!(rest(&mut at_game).await.unwrap(), b"");
}

#[tokio::test]
async fn a_line_that_comes_while_the_game_starts_counts_from_the_beginning() {
    let world = World::start().await;
    let terms = TcpTerms {
        proxy_protocol: true,
        ..UNASKED
    };
    let address = world.open(session(1), terms);
    let mut route = tcp(session(1), address);
    (route.phase, route.address) = (Phase::Starting, None);
    world.route(route).await;
    let mut client = dial(address).await;
    eventually("it waits", || world.gateway.metrics().parked == 1).await;
    say(&mut client, &world.line("b", session(1))).await;
    say(&mut client, b"hello").await;
    let mut wrong = dial(address).await;
    eventually("it waits too", || world.gateway.metrics().parked == 2).await;
    say(&mut wrong, b"SPAWNPOINT rubbish\n").await;
    assert_eq!(
        rest(&mut wrong).await.unwrap(),
        b"ERROR invalid_credentials\n"
    );
    let game = crate::tcp::Game::start().await;
    world.route(tcp(session(1), game.at)).await;
    let (told, mut at_game) = header(game.accept().await).await;
    assert_eq!(told.player.as_deref(), Some("b"));
    hears(&mut at_game, b"hello").await;
}

#[tokio::test]
async fn a_player_has_one_connection_and_the_nameless_have_their_own() {
    let world = World::start().await;
    let (game, address) = world.playing(1, UNASKED).await;
    let mut nameless = dial(address).await;
    say(&mut nameless, b"n").await;
    let mut nameless_at_game = game.accept().await;
    hears(&mut nameless_at_game, b"n").await;
    let mut first = dial(address).await;
    say(&mut first, &world.line("a", session(1))).await;
    let mut first_at_game = game.accept().await;
    eventually("both are seen", || {
        world.present(session(1)) == at(&[("a", 2)])
    })
    .await;
    let mut second = dial(address).await;
    say(&mut second, &world.line("a", session(1))).await;
    assert!(is_reset(&mut first).await, "its stream is cut");
    assert_eq!(
        rest(&mut first_at_game).await.unwrap(),
        b"",
        "gone for the game"
    );
    let mut second_at_game = game.accept().await;
    say(&mut second, b"s").await;
    hears(&mut second_at_game, b"s").await;
    say(&mut nameless, b"m").await;
    hears(&mut nameless_at_game, b"m").await;
    assert_eq!(world.gateway.metrics().closes.get(&4409), Some(&1));
    // Another nameless one stands for somebody who is not there.
    let mut other = dial(address).await;
    say(&mut other, b"o").await;
    let _other_at_game = game.accept().await;
    eventually("all are seen", || {
        world.present(session(1)) == at(&[("a", 2), ("b", 1)])
    })
    .await;
}

#[tokio::test]
async fn who_leaves_the_roster_is_cut_off_and_takes_no_nameless_one_along() {
    let world = World::start().await;
    let (game, address) = world.playing(1, UNASKED).await;
    let mut nameless = dial(address).await;
    say(&mut nameless, b"n").await;
    let mut nameless_at_game = game.accept().await;
    hears(&mut nameless_at_game, b"n").await;
    let mut named = dial(address).await;
    say(&mut named, &world.line("b", session(1))).await;
    let mut named_at_game = game.accept().await;
    eventually("both are seen", || {
        world.present(session(1)) == at(&[("a", 1), ("b", 1)])
    })
    .await;
    let mut route = tcp(session(1), game.at);
    route.players = players(&["c"]);
    world.route(route.clone()).await;
    assert!(is_reset(&mut named).await);
    assert_eq!(rest(&mut named_at_game).await.unwrap(), b"");
    eventually("it stands for c", || {
        world.present(session(1)) == at(&[("c", 1)])
    })
    .await;
    say(&mut nameless, b"still").await;
    hears(&mut nameless_at_game, b"still").await;
    // With nobody left on the roster it goes on until the session ends, and nobody new comes in.
    route.players = players(&[]);
    world.route(route).await;
    say(&mut nameless, b"alone").await;
    hears(&mut nameless_at_game, b"alone").await;
    let mut late = dial(address).await;
    say(&mut late, b"x").await;
    assert_eq!(rest(&mut late).await.unwrap(), b"ERROR forbidden\n");
}

struct Told {
    source: std::net::SocketAddr,
    session: String,
    player: Option<String>,
    generation: String,
}

/// Reads a PROXY header at the game, as a game would.
async fn header(mut stream: TcpStream) -> (Told, TcpStream) {
    let mut bytes = vec![0; 16];
    soon("a header", stream.read_exact(&mut bytes))
        .await
        .unwrap();
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    bytes.resize(16 + length, 0);
    soon("a header", stream.read_exact(&mut bytes[16..]))
        .await
        .unwrap();
    let (header, used) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    assert_eq!(used, bytes.len());
    let mut told = Told {
        source: header.proxied_address().unwrap().source,
        session: String::new(),
        player: None,
        generation: String::new(),
    };
    for tlv in header.tlvs() {
        let Tlv::Custom(kind, value) = tlv.unwrap() else {
            panic!("a TLV of another kind")
        };
        let text = String::from_utf8(value.into_owned()).unwrap();
        match kind {
            0xE0 => told.session = text,
            0xE1 => told.player = Some(text),
            0xE2 => told.generation = text,
            other => panic!("{other:#x}"),
        }
    }
    (told, stream)
}

#[tokio::test]
async fn a_game_that_asks_is_told_who_connects_before_their_first_byte() {
    let world = World::start().await;
    let terms = TcpTerms {
        proxy_protocol: true,
        ..UNASKED
    };
    let (game, address) = world.playing(1, terms).await;
    let mut route = tcp(session(1), game.at);
    route.generation = 7;
    world.route(route).await;
    for player in [Some("b"), None] {
        let mut client = dial(address).await;
        if let Some(player) = player {
            say(&mut client, &world.line(player, session(1))).await;
        }
        say(&mut client, b"first").await;
        let (told, mut at_game) = header(game.accept().await).await;
        assert_eq!(told.source, client.local_addr().unwrap());
        assert_eq!(told.session, session(1).to_string());
        assert_eq!(told.player.as_deref(), player);
        assert_eq!(told.generation, "7");
        hears(&mut at_game, b"first").await;
    }
}

#[tokio::test]
async fn a_joiner_whose_answer_overtook_the_stream_is_let_in() {
    let world = World::start().await;
    let (game, address) = world.playing(1, ASKED).await;
    // The control plane knows of the player already; the stream has not said so.
    let mut newer = tcp(session(1), game.at);
    newer.players = players(&["a", "late"]);
    world.link.hide(newer.clone());
    let mut client = dial(address).await;
    say(&mut client, &world.line("late", session(1))).await;
    say(&mut client, b"here").await;
    eventually("it is asked about", || world.link.asked() == 1).await;
    // An older update that is still on its way does not cut them off.
    let mut older = tcp(session(1), game.at);
    older.phase = Phase::Running;
    world.route(older).await;
    world.route(newer).await;
    let mut at_game = game.accept().await;
    hears(&mut at_game, b"here").await;
    // Somebody it does not know either is refused.
    let mut stranger = dial(address).await;
    say(&mut stranger, &world.line("nobody", session(1))).await;
    assert_eq!(rest(&mut stranger).await.unwrap(), b"ERROR forbidden\n");
    assert_eq!(world.link.asked(), 2);
    // The same for a WebSocket.
    let ws = crate::games::EchoGame::start().await;
    world.route(ready(session(2), ws.at)).await;
    let mut newer = ready(session(2), ws.at);
    newer.players = players(&["late"]);
    world.link.hide(newer.clone());
    let (client, ()) = tokio::join!(world.offer(session(2), "late", &[]), async {
        eventually("it is asked about", || world.link.asked() == 3).await;
        world.route(newer).await;
    });
    client.unwrap().echo("here").await;
}
