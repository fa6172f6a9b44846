//! What players send to the gateway.

use spawnpoint_gateway::frames::{CLOSE, PING, TEXT, client_close, server_close, server_frame};

use super::tokens::SIGNED;
use super::{ID, Seeds, texts};

/// A client's frame: masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = server_frame(first & 0x0f, payload);
    if let Some(byte) = frame.first_mut() {
        *byte = first;
    }
    if let Some(byte) = frame.get_mut(1) {
        *byte |= 0x80;
    }
    let body = frame.split_off(frame.len() - payload.len());
    frame.extend_from_slice(&mask);
    frame.extend(body.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

pub(crate) fn frames() -> Seeds {
    let steer = br#"{"t":"in","x":0.5,"y":-1}"#;
    let client = [
        masked(0x80 | TEXT, steer),
        masked(TEXT, b"in two "),
        masked(0x80 | PING, b"?"),
        masked(0x80, b"pieces"),
        client_close(1000).to_vec(),
    ];
    let server = [
        server_frame(TEXT, br#"{"t":"hello"}"#),
        server_frame(2, &[7; 300]),
        server_frame(PING, b""),
        server_close(4408, "idle"),
    ];
    vec![
        ("client", client.concat()),
        ("server", server.concat()),
        ("server-close", server_close(1012, "replaced")),
        ("client-ping", masked(0x80 | PING, b"are you there?")),
        (
            "long-form",
            vec![0x82, 127, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
        ),
        ("too-long", vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("reserved", vec![0xf1, 0x05, b'h', b'e', b'l', b'l', b'o']),
        (
            "after-close",
            [client_close(1001).to_vec(), vec![0x81, 0x80]].concat(),
        ),
        ("close-alone", vec![0x80 | CLOSE, 0x80, 1, 2, 3, 4]),
    ]
}

pub(crate) fn token_lines() -> Seeds {
    let line = format!("SPAWNPOINT {}\r\nGET_STATE\n", SIGNED.player);
    let long = format!("SPAWNPOINT {}", "x".repeat(4_200));
    texts(&[
        ("line", &line),
        ("game", "GET_STATE\nREQUEST_MATCH 1.5\n"),
        ("perhaps", "SPAWN"),
        ("begun", "SPAWNPOINT v4.public."),
        ("no-token", "SPAWNPOINT\n"),
        ("empty-token", "SPAWNPOINT \n\n"),
        ("too-long", &long),
    ])
}

pub(crate) fn proxy_headers() -> Seeds {
    let mut v4 = vec![0];
    v4.extend([192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x50]);
    v4.extend([192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x61, 0xa8]);
    v4.extend([0, 0, 0, 12]);
    v4.extend([0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b]);
    v4.extend([0xbc, 0xce, 0xb3, 0x02, 0x09, 0x9a, 0x80, 0x57]);
    let unnamed = v4.clone();
    v4.extend("ann \u{1f9c2}".as_bytes());
    let mut v6 = v4.clone();
    if let Some(kind) = v6.first_mut() {
        *kind = 3;
    }
    let mut mixed = v4.clone();
    if let Some(kind) = mixed.first_mut() {
        *kind = 1;
    }
    let mut mapped = vec![3];
    for port in [0xc3, 0x61] {
        mapped.extend([
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7, port, 1,
        ]);
    }
    mapped.extend([0; 20]);
    vec![
        ("v4", v4),
        ("unnamed", unnamed),
        ("v6", v6),
        ("mixed", mixed),
        ("mapped", mapped),
    ]
}

pub(crate) fn game_requests() -> Seeds {
    let token = &SIGNED.player;
    let websocket = format!(
        "GET /session/{ID}?token={token}&room=1 HTTP/1.1\r\nHost: games.example.com\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: spawnpoint.progress, spawnpoint.v1, chat\r\nOrigin: https://games.example.com\r\n\r\n"
    );
    let subprotocol = format!(
        "GET /ws/ann HTTP/1.1\r\nhost: localhost:8080\r\nsec-websocket-protocol: spawnpoint.token.{token},spawnpoint.v1\r\n\r\n"
    );
    let upload = format!(
        "POST /session/{ID}/api/save?x=1 HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 7\r\nContent-Type: application/json\r\nX-Player-Id: root\r\nX_Session_Id: other\r\n\
         Connection: close, x-own\r\nX-Own: 1\r\nExpect: 100-continue\r\n\r\n"
    );
    let host = format!(
        "GET //evil.example/x?token={token} HTTP/1.1\r\nHost: {ID}.localhost:8080\r\n\
         Cookie: a=1; spawnpoint={token}; b=\"x;y\"\r\nCookie: __Host-spawnpoint=\"{token}\"\r\n\
         Referer: http://{ID}.localhost:8080/?token={token}&y=2\r\nAuthorization: Bearer its-own\r\n\
         Sec-Fetch-Site: same-origin\r\nAccept: text/html\r\n\r\n"
    );
    let stream = format!(
        "PUT /notes HTTP/1.1\r\nHost: {ID}.games.example.com\r\nTransfer-Encoding: chunked\r\nOrigin: null\r\n\r\n"
    );
    let absolute = format!(
        "GET http://localhost:8080/session/{ID}/a%2F../b?%74oken=x HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"
    );
    texts(&[
        ("websocket", &websocket),
        ("subprotocol", &subprotocol),
        ("upload", &upload),
        ("host", &host),
        ("stream", &stream),
        ("absolute", &absolute),
    ])
}

pub(crate) fn game_answers() -> Seeds {
    texts(&[
        (
            "accepted",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nUPGRADE: WebSocket\r\nX-mixedCase: 1\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\nContent-Length: 0\r\n\r\n\u{1}\u{2}hi",
        ),
        (
            "extended",
            "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
             Sec-WebSocket-Protocol: made-up\r\nSet-Cookie: a=1\r\n\r\n",
        ),
        (
            "continue",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 X\r\n\r\n",
        ),
        ("refused", "HTTP/1.0 403 Forbidden\nContent-Length: 2\n\nno"),
        ("other", "SSH-2.0-x\r\n"),
    ])
}
