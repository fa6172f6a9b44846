//! Who a connection is: said by a gateway's PROXY header, or by a token.

use pasetors::keys::{AsymmetricKeyPair, Generate};
use pasetors::paserk::FormatAsPaserk;
use pasetors::version4::{PublicToken, V4};
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use crate::server::Server;

fn header(session: &str, player: &str) -> Vec<u8> {
    let address = ProxiedAddress::stream(
        "192.0.2.7:5000".parse().unwrap(),
        "192.0.2.1:25000".parse().unwrap(),
    );
    let tlvs = [(0xE0, session), (0xE1, player), (0xE2, "3")]
        .map(|(kind, value)| Tlv::Custom(kind, value.as_bytes().into()));
    let mut bytes = vec![];
    ProxyHeader::with_tlvs(Some(address), tlvs)
        .encode_v2(&mut bytes)
        .unwrap();
    bytes
}

#[test]
fn a_proxy_header_in_any_pieces_names_the_player() {
    let server = Server::start(&[("ARENA_PROXY", "1"), ("SESSION_ID", "s1")]);
    let mut keeper = server.dial();
    keeper.send(header("s1", "keeper"));
    assert_eq!(keeper.ask("GET_STATE"), "open\n");
    let mut bytes = header("s1", "ann 🧂");
    bytes.extend_from_slice(b"GET_STATE\n");
    for cut in 1..bytes.len() {
        let mut client = server.dial();
        client.send(&bytes[..cut]);
        client.send(&bytes[cut..]);
        assert_eq!(client.line(), "open\n", "cut at {cut}");
    }
    let mut probe = server.dial();
    let mut local = vec![];
    ProxyHeader::with_local().encode_v2(&mut local).unwrap();
    probe.send(local);
    assert_eq!(probe.ask("GET_STATE"), "open\n");
    let mut lost = server.dial();
    lost.send(header("s2", "bob"));
    assert!(lost.rest().starts_with("ERROR other_session: "));
    let mut bare = server.dial();
    bare.send("GET_STATE\n");
    assert!(bare.rest().starts_with("ERROR bad_proxy_header: "));
    drop((keeper, probe));
    let (code, log, results) = server.end();
    assert_eq!(code, Some(0));
    assert_eq!(results["players"], serde_json::json!(["ann 🧂", "keeper"]));
    let said =
        r#"player "ann 🧂", session Some("s1"), generation Some("3"), from Some(192.0.2.7:5000)"#;
    assert!(log.contains(said), "{log}");
}

#[test]
fn where_told_to_it_checks_tokens_itself() {
    let pair = AsymmetricKeyPair::<V4>::generate().unwrap();
    let mut paserk = String::new();
    pair.public.fmt(&mut paserk).unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let token = |sid: &str, exp: i64| {
        let claims =
            serde_json::json!({"sub": "ann", "sid": sid, "fleet": "arena", "iat": 0, "exp": exp});
        PublicToken::sign(&pair.secret, claims.to_string().as_bytes(), None, None).unwrap()
    };
    let server = Server::start(&[("ARENA_TOKENS", "1"), ("SPAWNPOINT_PUBLIC_KEYS", &paserk)]);
    // A warm server learns its session from the file, before the first player comes.
    std::fs::write(server.session_file(), r#"{"version":1,"session_id":"s1"}"#).unwrap();
    let mut ann = server.dial();
    ann.send(format!(
        "SPAWNPOINT {}\r\nGET_STATE\n",
        token("s1", now + 60)
    ));
    assert_eq!(ann.line(), "open\n");
    for (line, code) in [
        ("GET_STATE".to_owned(), "token_required"),
        ("x".repeat(5000), "token_required"),
        ("SPAWNPOINT x".to_owned(), "bad_token"),
        (
            format!("SPAWNPOINT {}", token("s1", now - 1)),
            "token_expired",
        ),
        (
            format!("SPAWNPOINT {}", token("s2", now + 60)),
            "other_session",
        ),
    ] {
        let mut client = server.dial();
        client.send(format!("{line}\nGET_STATE\n"));
        let heard = client.rest();
        assert!(heard.starts_with(&format!("ERROR {code}: ")), "{heard}");
        assert_eq!(heard.lines().count(), 1, "nothing more is answered");
    }
    drop(ann);
    let (code, _, results) = server.end();
    assert_eq!((code, &results["session_id"]), (Some(0), &"s1".into()));
    assert_eq!(results["players"], serde_json::json!(["ann"]));
}
