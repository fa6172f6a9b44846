//! What callers of the HTTP API send.

use super::{ID, Seeds, texts};

pub(crate) fn bodies() -> Seeds {
    texts(&[
        ("empty", ""),
        ("object", "{}"),
        ("new-game", r#"{"player_id":"ann"}"#),
        (
            "new-game-full",
            r#"{"playerId":"ann","fleet":"spice","players":["ann","bob \ud83e\uddc2"],"payload":{"map":"dune","n":[1,2.5,-1e-7,null,true]},"maxDuration":"1h30m","fresh":true,"joinable":"invite"}"#,
        ),
        (
            "heartbeat",
            r#"{"sessionId":"01890a5d-ac96-774b-bcce-b302099a8057","status":"active","idleTime":"1500","sessionDuration":90000.5,"timestamp":"2026-11-21T00:00:00Z","ttl":30,"event":"game_session_heartbeat"}"#,
        ),
        (
            "heartbeat-beacon",
            r#"{"status":"inactive","token":"v4.public.x","player_id":"ann"}"#,
        ),
        ("extend", r#"{"by":"10m","raise_limit":true,"token":"t"}"#),
        (
            "end",
            r#"{"results":{"winner":"ann","score":[3,1]},"playerId":"ann"}"#,
        ),
        ("join", r#"{"player_id":"bob","invite":"k3yb04rd"}"#),
        (
            "match-join",
            r#"{"playerId":"ann","players":["ann","bob"],"queue":"ranked","attributes":{"skill":1500.25,"region":"eu"},"latencies":{"eu":20,"us":"110"}}"#,
        ),
        ("match-leave", r#"{"queue":"ranked","token":"t"}"#),
        (
            "sdk-activity",
            r#"{"status":"busy","ttl":60,"player_id":"ann"}"#,
        ),
        ("both-spellings", r#"{"player_id":"ann","playerId":"ann"}"#),
        (
            "both-and-different",
            r#"{"player_id":"ann","playerId":"bob"}"#,
        ),
        ("unknown", r#"{"playerid":"ann"}"#),
        ("wrong-type", r#"{"players":{"a":1}}"#),
        (
            "deep",
            &format!("{{\"payload\":{}1{}}}", "[".repeat(120), "]".repeat(120)),
        ),
    ])
}

pub(crate) fn queries() -> Seeds {
    texts(&[
        ("empty", ""),
        ("page", "fleet=spice&limit=50&cursor=AQAAAZ&player_id=ann"),
        (
            "camel",
            "sessionId=01890a5d-ac96-774b-bcce-b302099a8057&wait=30",
        ),
        ("escapes", "player_id=ann%20b%C3%B6b+c&%74oken=a%2Eb&&=&x"),
        ("no-text", "player_id=%FF"),
    ])
}

pub(crate) fn cursors() -> Seeds {
    texts(&[
        ("one", "AQAAAZqv7UAAAYkKXayWd0u8zrMCCZqAVw"),
        ("first", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("other-version", "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("padded", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ])
}

pub(crate) fn ids() -> Seeds {
    texts(&[
        ("uuid", ID),
        ("upper", "01890A5D-AC96-774B-BCCE-B302099A8057"),
        ("bare", "01890a5dac96774bbcceb302099a8057"),
        ("player", "ann b\u{f6}b \u{1f9c2}"),
        ("control", "a\u{1b}[31m"),
        ("long", &"x".repeat(257)),
        ("fleet", "arena-2"),
        ("fleet-bad", "-arena"),
        ("network", "10.0.0.0/8"),
        ("network-v6", "fd00::/8"),
        ("address", "::ffff:10.0.0.1"),
    ])
}

pub(crate) fn hosts() -> Seeds {
    let own = format!("{ID}.localhost:8080\nhttp://{ID}.localhost:8080");
    let under = format!("{ID}.games.example.com\nhttps://{ID}.games.example.com");
    let address = format!("{ID}.127.0.0.1:8080\nhttp://{ID}.127.0.0.1:8080");
    texts(&[
        ("local", "localhost:8080\nhttp://localhost:8080"),
        ("dev-page", "localhost:8080\nhttp://localhost:5173"),
        ("named", "games.example.com\nhttps://games.example.com"),
        (
            "listed-page",
            "games.example.com:443\nhttps://play.example.com",
        ),
        ("v6", "[::1]:8080\nhttp://[::1]:5173"),
        ("v4", "192.168.1.4\nhttp://192.168.1.4"),
        ("rebound", "127.0.0.1.evil.com:8080\nhttp://evil.com"),
        ("null", "localhost\nnull"),
        (
            "final-dot",
            "games.example.com.\nhttps://games.example.com.",
        ),
        ("own", &own),
        ("own-under", &under),
        ("own-address", &address),
    ])
}
