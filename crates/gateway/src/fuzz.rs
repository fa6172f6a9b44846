//! What the private parsers of this crate promise, for the workspace member `fuzz`: functions from bytes that panic when a promise
//! is broken.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{AUTHORIZATION, COOKIE, HOST, REFERER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use percent_encoding::percent_decode;
use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use spawnpoint_core::{PlayerId, SessionId};
use spawnpoint_wire::access::Access;
use spawnpoint_wire::tcp::{TLV_GENERATION, TLV_PLAYER, TLV_SESSION, TOKEN_LINE};

use crate::access::{self, Target};
use crate::game::Introduction;
use crate::head;
use crate::http_game::entrance::{self, Credentials, Door};
use crate::http_game::heads::{self, Framing};
use crate::tcp::preamble::{MAX_LINE, Preamble, Said};
use crate::tcp::proxy;

/// The line by which a TCP player says who they are.
pub fn token_line(stream: &[u8]) {
    let whole = listen(stream, MAX_LINE);
    for piece in [1, 2, 5, 11, 64] {
        assert_eq!(listen(stream, piece), whole, "in pieces of {piece}");
    }
    let word = TOKEN_LINE.as_bytes();
    match whole {
        Said::Nothing => assert!(stream.is_empty()),
        Said::Perhaps => assert!(word.starts_with(stream) && stream.len() < word.len()),
        Said::Game(all) => {
            assert_eq!(all, stream, "the game's, from the first byte");
            assert!(!word.starts_with(stream) && !stream.starts_with(word));
        }
        Said::Begun => {
            assert!(stream.starts_with(word) && stream.len() < MAX_LINE);
            assert!(!stream.contains(&b'\n'));
        }
        Said::TooLong => {
            assert!(stream.starts_with(word) && stream.len() >= MAX_LINE);
            let line = stream.get(..MAX_LINE).unwrap_or_default();
            assert!(!line.contains(&b'\n'));
        }
        Said::Token { token, rest } => {
            let end = stream.len() - rest.len();
            let (line, after) = stream.split_at(end);
            assert_eq!(after, rest, "nothing of the game's is lost");
            assert!(end <= MAX_LINE && line.starts_with(word));
            assert_eq!(line.iter().position(|b| *b == b'\n'), Some(end - 1));
            let said = line.get(word.len()..end - 1).unwrap_or_default();
            let said = String::from_utf8_lossy(said.strip_suffix(b"\r").unwrap_or(said));
            assert_eq!(said, token);
        }
    }
}

/// As the socket's reader does it: never more than there is room for; what is not taken in follows.
fn listen(mut stream: &[u8], piece: usize) -> Said {
    let mut preamble = Preamble::default();
    let mut said = Said::Nothing;
    while !stream.is_empty() {
        let (now, later) = stream.split_at(piece.min(preamble.room()).min(stream.len()));
        assert!(!now.is_empty(), "no room, and nothing was said");
        stream = later;
        said = preamble.hear(now);
        match &mut said {
            Said::Token { rest, .. } | Said::Game(rest) => {
                rest.extend_from_slice(stream);
                assert!(preamble.take().is_empty(), "kept twice");
                return said;
            }
            Said::TooLong => return said,
            Said::Nothing | Said::Perhaps | Said::Begun => {}
        }
    }
    said
}

/// The header that tells a TCP game who connects. Input: family, two addresses with ports, generation, session, player's name.
pub fn proxy_header(input: &[u8]) {
    const FIXED: usize = 1 + 2 * (16 + 2) + 4 + 16;
    let mut fixed = [0; FIXED];
    let (head, name) = input.split_at(input.len().min(FIXED));
    for (to, from) in fixed.iter_mut().zip(head) {
        *to = *from;
    }
    let number = |at: usize, bytes: usize| {
        let found = fixed.get(at..at + bytes).unwrap_or_default();
        found.iter().fold(0u128, |n, b| n << 8 | u128::from(*b))
    };
    let address = |at: usize, v6: bool| {
        let ip = if v6 {
            IpAddr::V6(Ipv6Addr::from(number(at, 16)))
        } else {
            IpAddr::V4(Ipv4Addr::from(number(at, 4) as u32))
        };
        SocketAddr::new(ip, number(at + 16, 2) as u16)
    };
    let kind = number(0, 1);
    let (from, to) = (address(1, kind & 1 != 0), address(19, kind & 2 != 0));
    let generation = number(37, 4) as u32;
    let Ok(session) = uuid_of(number(41, 16)).parse::<SessionId>() else {
        panic!("sixteen bytes are an id")
    };
    let player: Option<PlayerId> = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok());
    let same_family = from.ip().to_canonical().is_ipv4() == to.ip().to_canonical().is_ipv4();
    let Some(mut header) = proxy::header(from, to, session, player.as_ref(), generation) else {
        assert!(!same_family, "no header for {from} to {to}");
        return;
    };
    assert!(same_family, "a header for {from} to {to}");
    let length = header.len();
    header.extend_from_slice(name);
    read_back(&header, length, from, to);
    let mut expected = vec![(TLV_SESSION, session.to_string())];
    expected.extend(player.map(|p| (TLV_PLAYER, p.to_string())));
    expected.push((TLV_GENERATION, generation.to_string()));
    assert_eq!(told(&header), expected);
    for cut in 0..length {
        let cut = header.get(..cut).unwrap_or_default();
        assert!(ProxyHeader::parse(cut, ParseConfig::default()).is_err());
    }
}

fn read_back(header: &[u8], length: usize, from: SocketAddr, to: SocketAddr) {
    let Ok((read, used)) = ProxyHeader::parse(header, ParseConfig::default()) else {
        panic!("not a header: {header:?}")
    };
    assert_eq!(used, length);
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let read = read.proxied_address().map(|a| (a.source, a.destination));
    assert_eq!(read, Some((canonical(from), canonical(to))));
}

fn told(header: &[u8]) -> Vec<(u8, String)> {
    let Ok((read, _)) = ProxyHeader::parse(header, ParseConfig::default()) else {
        return Vec::new();
    };
    let tlvs = read.tlvs().map(|tlv| match tlv {
        Ok(Tlv::Custom(kind, value)) => (kind, String::from_utf8_lossy(&value).into_owned()),
        other => panic!("{other:?}"),
    });
    tlvs.collect()
}

fn uuid_of(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// A whole request head, as hyper reads it and the game gets it.
pub fn game_request(input: &[u8]) {
    let Some(client) = request(input) else { return };
    let access = Access {
        hosts: vec!["games.example.com".into()],
        origins: Vec::new(),
        loopback_origins: true,
    };
    let Some(door) = entrance::door(&client.headers, &client.uri, &access) else {
        return;
    };
    for secure in [false, true] {
        let checked = entrance::check_form(&client.headers, &client.uri, &client.method);
        if checked.is_ok() {
            for framing in [Framing::Empty, Framing::Sized(7), Framing::Chunked] {
                pass_on(client.clone(), door, secure, framing);
            }
        }
    }
    for name in access::offer(&client.headers).game {
        assert!(!name.starts_with("spawnpoint."), "{name} is ours");
    }
}

fn request(input: &[u8]) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(input).ok()?.is_complete() {
        return None;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    parts.uri = parsed.path?.parse::<Uri>().ok()?;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(header.value).ok()?;
        parts.headers.append(name, value);
    }
    Some(parts)
}

fn pass_on(client: Parts, door: Door, secure: bool, framing: Framing) {
    let Some(target) = entrance::target(door, &client.uri) else {
        return;
    };
    let offer = access::offer(&client.headers);
    let offered = offer.token.as_deref();
    let credentials = entrance::credentials(door, &target, offered, &client.headers, secure);
    assert!(credentials.cookies <= credentials.tokens.len());
    assert!(
        door != Door::Path || credentials.cookies == 0,
        "no cookies there"
    );
    no_token_in_query(target.path_and_query.as_bytes());
    stays_here(&entrance::without_token(&target.path_and_query));
    let player: PlayerId = match "an 'n\u{1f9c2}".parse() {
        Ok(player) => player,
        Err(e) => panic!("{e}"),
    };
    let session = match door {
        Door::Host(session) => session,
        Door::Path => match uuid_of(7).parse() {
            Ok(session) => session,
            Err(e) => panic!("{e}"),
        },
    };
    let who = Introduction {
        session,
        player: &player,
        peer: SocketAddr::from(([10, 1, 2, 3], 9)),
        secure,
    };
    let host = client.headers.get(HOST).cloned();
    let Ok(game) = heads::for_game(client, door, &target, &credentials, &who, framing) else {
        return;
    };
    framed(&game.headers, framing);
    introduced(&game.headers, &target, session, host.as_ref());
    nothing_of_ours(&game.headers, &credentials, door);
    one_request(&game);
}

/// No pair of the query is a token, however its name is escaped.
fn no_token_in_query(address: &[u8]) {
    let Some(at) = address.iter().position(|b| *b == b'?') else {
        return;
    };
    for pair in address.split_at(at + 1).1.split(|b| *b == b'&') {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        let name: Vec<u8> = percent_decode(name).collect();
        assert_ne!(name, b"token", "{}", String::from_utf8_lossy(address));
    }
}

/// A redirect to this address leads to this host.
fn stays_here(location: &str) {
    let mut bytes = location.bytes();
    assert_eq!(bytes.next(), Some(b'/'), "{location}");
    assert!(!matches!(bytes.next(), Some(b'/' | b'\\')), "{location}");
}

fn count(headers: &HeaderMap, name: &str) -> usize {
    headers.get_all(name).iter().count()
}

fn framed(headers: &HeaderMap, framing: Framing) {
    let (length, encoding) = (
        count(headers, "content-length"),
        count(headers, "transfer-encoding"),
    );
    match framing {
        Framing::Empty => assert!(length <= 1 && encoding == 0),
        Framing::Sized(_) => assert_eq!((length, encoding), (1, 0)),
        Framing::Chunked => assert_eq!((length, encoding), (0, 1)),
    }
    for about_one_connection in ["connection", "keep-alive", "te", "trailer", "upgrade"] {
        assert_eq!(count(headers, about_one_connection), 0);
    }
}

fn introduced(
    headers: &HeaderMap,
    target: &Target,
    session: SessionId,
    host: Option<&HeaderValue>,
) {
    for name in headers.keys() {
        let as_frameworks_read = name.as_str().replace('_', "-");
        let ours = [
            "x-player-id",
            "x-session-id",
            "x-forwarded-for",
            "x-forwarded-proto",
        ];
        if ours.contains(&as_frameworks_read.as_str()) {
            assert!(
                ours.contains(&name.as_str()),
                "{name} can be taken for ours"
            );
        }
    }
    let one = |name: &str, told: &str| {
        assert_eq!(count(headers, name), 1, "{name}");
        let value = headers.get(name).map(HeaderValue::as_bytes);
        assert_eq!(value, Some(told.as_bytes()), "{name}");
    };
    one("x-session-id", &session.to_string());
    one("x-player-id", "an%20%27n%F0%9F%A7%82");
    one("x-forwarded-for", "10.1.2.3");
    if target.prefix.is_empty() {
        assert_eq!(count(headers, "x-forwarded-prefix"), 0);
    } else {
        one("x-forwarded-prefix", &target.prefix);
    }
    assert_eq!(headers.get(HOST), host, "kept");
}

fn nothing_of_ours(headers: &HeaderMap, credentials: &Credentials, door: Door) {
    if credentials.bearer_is_ours {
        assert_eq!(count(headers, AUTHORIZATION.as_str()), 0);
    }
    if matches!(door, Door::Host(_)) {
        for value in headers.get_all(COOKIE) {
            let pairs = value.as_bytes().split(|b| *b == b';');
            for pair in pairs {
                assert!(!entrance::is_ours_named(pair.trim_ascii()), "{value:?}");
            }
        }
    }
    for value in headers.get_all(REFERER) {
        no_token_in_query(value.as_bytes());
    }
}

/// Printed as hyper prints it, it is one request of the same headers and nothing more.
fn one_request(game: &Parts) {
    assert!(game.uri.authority().is_none() && game.uri.path().starts_with('/'));
    let mut printed = format!("{} {} HTTP/1.1\r\n", game.method, game.uri).into_bytes();
    for (name, value) in &game.headers {
        printed.extend_from_slice(name.as_str().as_bytes());
        printed.extend_from_slice(b": ");
        printed.extend_from_slice(value.as_bytes());
        printed.extend_from_slice(b"\r\n");
    }
    printed.extend_from_slice(b"\r\n");
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut headers);
    let used = parsed.parse(&printed);
    assert_eq!(used, Ok(httparse::Status::Complete(printed.len())));
    assert_eq!(parsed.headers.len(), game.headers.len());
    let path = game.uri.path_and_query().map(|p| p.as_str());
    assert_eq!(parsed.path, path);
}

/// What a game answers to a handshake, and what of it the client gets.
pub fn game_answer(input: &[u8]) {
    let Ok(Some((answer, length))) = head::game_answer(input) else {
        return;
    };
    assert!(length <= input.len());
    for n in (0..length).step_by((length / 64).max(1)) {
        let part = input.get(..n).unwrap_or_default();
        assert_eq!(head::game_answer(part), Ok(None), "{n} of {length}");
    }
    let whole = input.get(..length).unwrap_or_default();
    let again = head::game_answer(whole);
    assert_eq!(again, Ok(Some((answer.clone(), length))));
    let offered = ["chat".to_owned(), "v2".to_owned()];
    for ours in [None, Some("spawnpoint.v1")] {
        let told = answer.for_client(&offered, ours);
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut parsed = httparse::Response::new(&mut headers);
        let read = parsed.parse(&told);
        assert_eq!(read, Ok(httparse::Status::Complete(told.len())));
        assert_eq!(parsed.code, Some(101));
        let all = |name: &str| {
            let lines = parsed.headers.iter();
            let lines = lines.filter(|h| h.name.eq_ignore_ascii_case(name));
            lines.map(|h| h.value).collect::<Vec<_>>()
        };
        assert_eq!(all("connection"), [b"Upgrade".as_slice()]);
        assert_eq!(all("upgrade"), [b"websocket".as_slice()]);
        assert!(all("content-length").is_empty() && all("transfer-encoding").is_empty());
        match all("sec-websocket-protocol").as_slice() {
            [] => assert!(ours.is_none()),
            [chosen] => {
                let text = std::str::from_utf8(chosen).unwrap_or_default();
                assert!(offered.iter().any(|o| o == text) || ours == Some(text));
            }
            several => panic!("{several:?}"),
        }
    }
}
