//! The line by which a TCP player says who they are, in bytes that come cut anywhere. Pure.

use spawnpoint_wire::tcp::TOKEN_LINE;
use spawnpoint_wire::token::MAX_TOKEN;

/// Longest line with its end: a longer one is no token of ours.
pub(crate) const MAX_LINE: usize = TOKEN_LINE.len() + MAX_TOKEN + 2;

/// The beginning of a client's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preamble {
    heard: Vec<u8>,
}

/// What the beginning is, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing yet.
    Nothing,
    /// Perhaps a token line: all of it so far is how one begins.
    Perhaps,
    /// A token line without its end.
    Begun,
    /// A token line, and what follows it.
    Token {
        /// As it was sent; checked by nobody yet.
        token: String,
        /// The game's.
        rest: Vec<u8>,
    },
    /// No token line: the game's from its first byte.
    Game(Vec<u8>),
    /// A token line longer than any token.
    TooLong,
}

impl Preamble {
    /// How many more bytes may be taken in.
    pub(crate) fn room(&self) -> usize {
        MAX_LINE - self.heard.len().min(MAX_LINE)
    }

    /// Takes in what came and says what it is now. After an answer with bytes in it, it is empty again.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Said {
        // No end was in what was heard before: it is not looked through again with each byte that comes alone.
        let before = self.heard.len();
        self.heard.extend_from_slice(bytes);
        let word = TOKEN_LINE.as_bytes();
        if self.heard.is_empty() {
            return Said::Nothing;
        }
        let known = self.heard.len().min(word.len());
        if self.heard.get(..known) != word.get(..known) {
            return Said::Game(self.take());
        }
        if known < word.len() {
            return Said::Perhaps;
        }
        let new = self.heard.get(before..).unwrap_or_default();
        match new.iter().position(|b| *b == b'\n') {
            Some(end) => {
                let end = before + end;
                let rest = self.heard.split_off(end + 1);
                let line = self.take();
                let token = line.get(word.len()..end).unwrap_or_default();
                let token = token.strip_suffix(b"\r").unwrap_or(token);
                Said::Token {
                    token: String::from_utf8_lossy(token).into_owned(),
                    rest,
                }
            }
            None if self.heard.len() >= MAX_LINE => Said::TooLong,
            None => Said::Begun,
        }
    }

    /// What was taken in; the game's after all.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8], cuts: &[usize]) -> Said {
        let mut preamble = Preamble::default();
        let mut said = Said::Nothing;
        let mut at = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            said = preamble.hear(&bytes[at..end]);
            at = end;
            if let Said::Token { rest, .. } | Said::Game(rest) = &mut said {
                rest.extend_from_slice(&bytes[at..]);
                return said;
            }
            if said == Said::TooLong {
                return said;
            }
        }
        said
    }

    fn token(token: &str, rest: &[u8]) -> Said {
        Said::Token {
            token: token.into(),
            rest: rest.into(),
        }
    }

    #[test]
    fn a_line_is_a_line_wherever_it_is_cut() {
        for (bytes, said) in [
            (&b""[..], Said::Nothing),
            (b"S", Said::Perhaps),
            (b"SPAWNPOINT", Said::Perhaps),
            (b"SPAWNPOINT ", Said::Begun),
            (b"SPAWNPOINT v4.public.x", Said::Begun),
            (b"SPAWNPOINT v4.public.x\n", token("v4.public.x", b"")),
            (
                b"SPAWNPOINT v4.public.x\r\nGET\r\n",
                token("v4.public.x", b"GET\r\n"),
            ),
            (b"SPAWNPOINT \n\n", token("", b"\n")),
            (b"SPAWNPOINT\n", Said::Game(b"SPAWNPOINT\n".to_vec())),
            (b"spawnpoint x\n", Said::Game(b"spawnpoint x\n".to_vec())),
            (b"GET_STATE\n", Said::Game(b"GET_STATE\n".to_vec())),
            (b"STOP", Said::Game(b"STOP".to_vec())),
            (b"\x00\xff", Said::Game(b"\x00\xff".to_vec())),
        ] {
            for cut in 0..=bytes.len() {
                assert_eq!(whole(bytes, &[cut]), said, "{bytes:?} cut at {cut}");
            }
            let all: Vec<usize> = (0..=bytes.len()).collect();
            assert_eq!(whole(bytes, &all), said, "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn a_line_longer_than_any_token_ends_at_its_limit() {
        let mut preamble = Preamble::default();
        assert_eq!(preamble.hear(TOKEN_LINE.as_bytes()), Said::Begun);
        let room = preamble.room();
        assert_eq!(room, MAX_TOKEN + 2);
        assert_eq!(preamble.hear(&vec![b'x'; room - 1]), Said::Begun);
        assert_eq!(preamble.hear(b"x"), Said::TooLong);
        assert_eq!(preamble.room(), 0);
        let longest = format!("{TOKEN_LINE}{}\r\n", "x".repeat(MAX_TOKEN));
        assert!(matches!(whole(longest.as_bytes(), &[]), Said::Token { .. }));
    }

    proptest! {
        #[test]
        fn nothing_of_the_games_is_lost_or_kept(
            head in prop_oneof![Just(&b"SPAWNPOINT abc\r\n"[..]), Just(&b"SPAWNPOINT "[..]), Just(&b"SPAWN"[..]), Just(&b""[..])],
            body in proptest::collection::vec(any::<u8>(), 0..64),
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
        ) {
            let bytes = [head, &body[..]].concat();
            let said = whole(&bytes, &cuts);
            prop_assert_eq!(&said, &whole(&bytes, &[]));
            match said {
                Said::Token { token, rest } => {
                    let line = bytes.len() - rest.len();
                    prop_assert!(bytes.starts_with(b"SPAWNPOINT ") && bytes[line - 1] == b'\n');
                    prop_assert!(!bytes[..line - 1].contains(&b'\n') && bytes.ends_with(&rest));
                    prop_assert!(token.len() < MAX_LINE);
                }
                Said::Game(all) => prop_assert_eq!(all, bytes),
                Said::Nothing => prop_assert!(bytes.is_empty()),
                Said::Perhaps => prop_assert!(b"SPAWNPOINT".starts_with(&bytes[..])),
                Said::Begun => prop_assert!(bytes.starts_with(b"SPAWNPOINT ") && !bytes.contains(&b'\n')),
                Said::TooLong => prop_assert!(false),
            }
        }
    }
}
