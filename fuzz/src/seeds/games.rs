//! What the bundled games hear.

use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use super::{Seeds, texts};

pub(crate) fn arena_lines() -> Seeds {
    let long = format!("{}\r\nGET_STATE\n", "x".repeat(300));
    let fits = format!("{}\r\n", "y".repeat(256));
    texts(&[
        ("match", "GET_STATE\nREQUEST_MATCH 1.5\r\nGET_STATE"),
        ("spaces", "  GET_STATE \t\nREQUEST_MATCH\t30\n"),
        (
            "bad",
            "REQUEST_MATCH\nREQUEST_MATCH nan\nREQUEST_MATCH 1e9\nget_state\n\n",
        ),
        ("long", &long),
        ("fits", &fits),
    ])
}

fn header(from: &str, to: &str, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else {
        unreachable!("the addresses of the examples are addresses")
    };
    let tlvs = tlvs
        .iter()
        .map(|(kind, value)| Tlv::Custom(*kind, (*value).into()));
    let mut bytes = Vec::new();
    let header = ProxyHeader::with_tlvs(Some(ProxiedAddress::stream(from, to)), tlvs);
    // A Vec takes every byte; what is too long to be a header is none.
    if header.encode_v2(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

pub(crate) fn arena_proxy() -> Seeds {
    let told: &[(u8, &[u8])] = &[
        (0xE0, b"01890a5d-ac96-774b-bcce-b302099a8057"),
        (0xE1, "ann \u{1f9c2}".as_bytes()),
        (0xE2, b"12"),
    ];
    let mut v4 = header("192.0.2.7:50000", "192.0.2.1:25000", told);
    v4.extend_from_slice(b"GET_STATE\n");
    let v6 = header("[2001:db8::7]:50000", "[2001:db8::1]:25000", told);
    let long = header("192.0.2.7:1", "192.0.2.1:2", &[(0xE1, &[b'x'; 4_096])]);
    let not_text = header("192.0.2.7:1", "192.0.2.1:2", &[(0xE1, b"\xff")]);
    let mut seeds = texts(&[
        (
            "v1",
            "PROXY TCP4 192.0.2.7 192.0.2.1 50000 25000\r\nGET_STATE\n",
        ),
        ("v1-unknown", "PROXY UNKNOWN\r\n"),
        ("none", "GET_STATE\n"),
    ]);
    seeds.extend([
        ("v4", v4),
        ("v6", v6),
        ("long", long),
        ("not-text", not_text),
    ]);
    seeds
}

pub(crate) fn arena_tokens() -> Seeds {
    let good = arena_tcp::fuzz::LINE;
    let spaced = format!("{good} ");
    let twice = format!("{good} {good}");
    let mut seeds = texts(&[
        ("good", good),
        ("spaced", &spaced),
        ("twice", &twice),
        ("required", "GET_STATE"),
        ("bad", "SPAWNPOINT v4.public.x"),
        ("key", arena_tcp::fuzz::KEY),
    ]);
    seeds.push(("one-change", vec![60, b'A']));
    seeds
}

pub(crate) fn spice_messages() -> Seeds {
    texts(&[
        (
            "round",
            "{\"t\":\"start\"}\n{\"t\":\"in\",\"x\":1,\"y\":-0.5}\n{\"t\":\"dash\"}\n{\"t\":\"ping\",\"c\":123.5}\n{\"t\":\"start\"}\n",
        ),
        (
            "steer",
            "{\"t\":\"in\",\"x\":-1e308,\"y\":1e308}\n{\"t\":\"in\",\"x\":0,\"y\":5e-324}\n{\"y\":1,\"x\":1,\"t\":\"in\"}\n",
        ),
        (
            "bad",
            "{\"t\":\"fly\"}\n{\"t\":\"in\",\"x\":\"left\",\"y\":0}\n[]\nnull\n{\"t\":7}\n",
        ),
    ])
}

pub(crate) fn spice_heads() -> Seeds {
    let handshake = "GET /a?player=bob%20b&x=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let plain = format!("{handshake}\r\n\u{81}\u{85}");
    let named = format!("{handshake}X-Player-Id: %F0%9F%A6%80%2F..\r\nX-Session-Id: s1\r\n\r\n");
    let offered =
        format!("{handshake}Sec-WebSocket-Protocol: spawnpoint.progress, spawnpoint.v1\r\n\r\n");
    texts(&[
        ("plain", &plain),
        ("named", &named),
        ("offered", &offered),
        ("probe", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("head", "HEAD / HTTP/1.0\r\n\r\n"),
        ("post", "POST / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("nonsense", "\u{1}\u{2}nonsense\r\n\r\n"),
    ])
}
