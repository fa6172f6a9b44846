//! What this game's parsers promise, for the workspace member `fuzz`: functions from bytes that panic when a promise is broken.
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use std::time::Duration;

use crate::command::{self, Command, Refusal};
use crate::lines::{Line, Lines, MAX_LINE};
use crate::proxy::{self, Header, MAX_HEADER};
use crate::session_file;
use crate::token::{Keys, MAX_PREAMBLE};

/// Longest match in these runs.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Lines and what they ask for, whatever pieces they come in.
pub fn lines(stream: &[u8]) {
    let whole = read(stream, stream.len().max(1), MAX_LINE);
    for piece in [1, 2, 3, 17, 300] {
        assert_eq!(read(stream, piece, MAX_LINE), whole, "in pieces of {piece}");
    }
    let ends = stream.iter().filter(|b| **b == b'\n').count();
    assert!(whole.len() <= ends + 1);
    for line in &whole {
        let Line::Whole(line) = line else { continue };
        assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
        match command::parse(line, LONGEST) {
            Ok(Command::GetState) => assert_eq!(line.trim_ascii(), b"GET_STATE"),
            Ok(Command::RequestMatch(lasts)) => {
                assert!(lasts > Duration::ZERO && lasts <= LONGEST, "{lasts:?}");
                let again = format!("REQUEST_MATCH {}", lasts.as_secs_f64());
                let again = command::parse(again.as_bytes(), LONGEST);
                assert_eq!(again, Ok(Command::RequestMatch(lasts)));
            }
            Err(refusal) => said(refusal),
        }
    }
    // The longer limit for the first line, as where tokens are asked for.
    assert_eq!(
        read(stream, 1, MAX_PREAMBLE),
        read(stream, 1_000, MAX_PREAMBLE)
    );
}

fn read(stream: &[u8], piece: usize, limit: usize) -> Vec<Line> {
    let mut lines = Lines::new(limit);
    let mut found = Vec::new();
    for mut chunk in stream.chunks(piece) {
        while let Some(line) = lines.next(&mut chunk) {
            found.push(line);
        }
        assert!(chunk.is_empty(), "taken in whole");
    }
    found
}

/// What a client is told is one line with a code.
fn said(refusal: Refusal) {
    let line = refusal.line();
    let code = refusal.code();
    assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    assert!(line.starts_with(&format!("ERROR {code}: ")));
    assert_eq!(line.find('\n'), Some(line.len() - 1));
}

/// The PROXY protocol header before everything else.
pub fn proxy_header(stream: &[u8]) {
    let told = proxy::parse(stream);
    let Header::Whole(_, length) = &told else {
        // Nobody waits for more than a header can have.
        assert!(told == Header::Bad || stream.len() < MAX_HEADER);
        return;
    };
    let length = *length;
    assert!(length <= MAX_HEADER && length <= stream.len());
    let part = |n: usize| proxy::parse(stream.get(..n).unwrap_or_default());
    for n in 0..length {
        assert_eq!(part(n), Header::Partial, "{n} of {length}");
    }
    assert_eq!(part(length), told, "what follows changes nothing");
}

/// A line that brings a token, signed by a key of these runs for session `s1` and player `ann`.
pub fn token(line: &[u8]) {
    let Some(keys) = Keys::parse(KEY) else {
        panic!("the key of these runs is one")
    };
    accepted(&keys, line);
    // The same bytes as changes to the good line: place, and what is changed there.
    let mut changed = LINE.as_bytes().to_vec();
    for change in line.chunks_exact(2).take(8) {
        let &[at, to] = change else { continue };
        let length = changed.len().max(1);
        if let Some(byte) = changed.get_mut(usize::from(at) % length) {
            *byte = to;
        }
    }
    accepted(&keys, &changed);
    let text = String::from_utf8_lossy(line);
    if Keys::parse(&text).is_some() {
        assert!(
            text.split_ascii_whitespace()
                .all(|k| k.starts_with("k4.public."))
        );
    }
}

fn accepted(keys: &Keys, line: &[u8]) {
    // White space around a token is no part of it.
    let text = String::from_utf8_lossy(line);
    let good = text
        .strip_prefix("SPAWNPOINT ")
        .is_some_and(|token| format!("SPAWNPOINT {}", token.trim()) == LINE);
    match keys.player(line, Some("s1"), EXPIRES - 1) {
        Ok(player) => assert!(good && player == "ann", "{text}"),
        Err(refusal) => {
            assert!(!good, "{refusal:?}: {text}");
            said(refusal);
        }
    }
    for (session, now) in [(Some("s2"), 0), (None, 0), (Some("s1"), EXPIRES)] {
        assert!(keys.player(line, session, now).is_err());
    }
}

/// Whose session a session file says it is.
#[must_use]
pub fn session_of(text: &str) -> Option<String> {
    session_file::parse(text)
}

/// When the token of these runs expires, Unix seconds.
const EXPIRES: i64 = 1_800_000_000;
/// The public key of these runs; the secret one was thrown away.
pub const KEY: &str = "k4.public.z_PxzO-zlQ3wd3lL1yQ9xAMTYb_K8sJQElubHh0kfZY";
/// The line that is good.
pub const LINE: &str = "SPAWNPOINT v4.public.eyJzdWIiOiJhbm4iLCJzaWQiOiJzMSIsImZsZWV0IjoiYXJlbmEiLCJpYXQiOjE3OTAwMDAwMDAsImV4cCI6MTgwMDAwMDAwMH35RzQLry6p2y2vvS2AyyAtZVLjNbeYe-jXeqsDXNF9HeuTAOL7T8v60nUdsfZ70hXipRlwwCzf_iewtqXhWFIF.eyJraWQiOiJrNC5waWQuZnV6eiJ9";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_line_is_good() {
        let keys = Keys::parse(KEY).unwrap();
        let player = keys.player(LINE.as_bytes(), Some("s1"), 0);
        assert_eq!(player.as_deref(), Ok("ann"));
    }
}
