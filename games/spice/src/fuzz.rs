//! What this game's parsers promise, for the workspace member `fuzz`: functions from bytes that panic when a promise is broken.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use crate::config::ROUND_SECONDS;
use crate::http_head::{self, Head, MAX_HEAD, Upgrade};
use crate::protocol::{self, FromPlayer};
use crate::session_file;
use crate::sim::{ARENA_H, ARENA_W, Command, Settings, World};

/// Longest sentence about a message, bytes.
const MAX_SENTENCE: usize = 200;
/// Messages of one input that reach the world.
const MAX_MESSAGES: usize = 64;

/// Messages of two players in turn, a line each, and the world they make.
pub fn message(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut world = World::new(Settings {
        seed: 7,
        round_ticks: 40,
        grace_ticks: 10,
    });
    let mut enter = || world.enter().unwrap_or_else(|_| panic!("room for two"));
    let players = [enter(), enter()];
    world.command(players[0], Command::Start);
    for (line, player) in text
        .lines()
        .take(MAX_MESSAGES)
        .zip(players.into_iter().cycle())
    {
        match protocol::parse(line) {
            Ok(FromPlayer::Play(command)) => world.command(player, command),
            Ok(FromPlayer::Ping(c)) => {
                let pong = protocol::pong(c);
                assert!(
                    json(&pong)["c"]
                        .as_f64()
                        .is_some_and(|told| told == c || c == 0.0),
                    "{pong}"
                );
            }
            Err(why) => {
                assert!(why.len() <= MAX_SENTENCE, "{} bytes", why.len());
                let told = protocol::error("bad_message", &why);
                assert_eq!(json(&told)["message"], why.as_str());
            }
        }
        world.step();
        let events = world.take_events();
        let state = json(&protocol::state(&world, &events, true));
        for avatar in state["p"].as_array().into_iter().flatten() {
            let within = |n: usize, most: f64| {
                let at = avatar[n].as_f64();
                assert!(at.is_some_and(|at| (0.0..=most).contains(&at)), "{avatar}");
            };
            within(2, ARENA_W);
            within(3, ARENA_H);
        }
    }
}

fn json(text: &str) -> serde_json::Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(e) => panic!("{e}: {text}"),
    }
}

/// The first bytes of a connection.
pub fn head(input: &[u8]) {
    let input = input.get(..MAX_HEAD + 512).unwrap_or(input);
    match http_head::parse(input) {
        Head::Partial => assert!(input.len() < MAX_HEAD),
        Head::Answer(answer) => one_head(&answer, false),
        Head::Upgrade(upgrade) => {
            assert!(upgrade.length <= input.len());
            one_head(&upgrade.response, true);
            let id = upgrade.player_id.as_deref();
            assert!(id.is_none_or(|id| (1..=256).contains(&id.chars().count())));
            assert!(
                id.is_none_or(|id| !id.chars().any(char::is_control)),
                "{id:?}"
            );
            as_soon_as_whole(input, &upgrade);
        }
    }
}

fn as_soon_as_whole(input: &[u8], upgrade: &Upgrade) {
    let part = |length| http_head::parse(input.get(..length).unwrap_or_default());
    let steps = (upgrade.length / 64).max(1);
    for length in (0..upgrade.length).step_by(steps) {
        if length < MAX_HEAD {
            assert_eq!(
                part(length),
                Head::Partial,
                "{length} of {}",
                upgrade.length
            );
        }
    }
    assert_eq!(
        part(upgrade.length),
        Head::Upgrade(Upgrade {
            response: upgrade.response.clone(),
            length: upgrade.length,
            player_id: upgrade.player_id.clone(),
            session_id: upgrade.session_id.clone(),
        })
    );
}

/// An answer is one head, and a body of the length it names.
fn one_head(answer: &str, upgrade: bool) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(answer.as_bytes()) {
        Ok(httparse::Status::Complete(length)) => length,
        other => panic!("{other:?}: {answer:?}"),
    };
    assert_eq!(parsed.code == Some(101), upgrade);
    let body = answer.len() - length;
    let named = parsed
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))
        .and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok());
    match named {
        None => assert!(upgrade && body == 0),
        Some(named) => assert!(!upgrade && (body == named || body == 0)),
    }
}

/// The session file.
pub fn session_file(text: &str) {
    if let Some(facts) = session_file::parse(text) {
        let round = facts.payload.round_seconds;
        assert!(
            round.is_none_or(|s| ROUND_SECONDS.contains(&s)),
            "{round:?}"
        );
    }
}

/// Whose session a session file says it is.
#[must_use]
pub fn session_of(text: &str) -> Option<String> {
    session_file::parse(text)?.session_id
}
