//! Bytes to lines, whatever pieces they come in, within a fixed memory. Pure.

/// Longest line, bytes without its end: ten times the longest command.
pub(crate) const MAX_LINE: usize = 256;

/// What [`Lines::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line, without `\n` or `\r\n`.
    Whole(Vec<u8>),
    /// A line passed the limit. Said once, at once; the rest of the line is skipped.
    TooLong,
}

/// The beginning of a line that has not ended yet.
#[derive(Debug)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    skipping: bool,
    limit: usize,
}

impl Lines {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            partial: Vec::new(),
            skipping: false,
            limit,
        }
    }

    /// For the lines that begin from here on.
    pub(crate) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes off `input` up to the next thing to say; `None` when it is used up.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Option<Line> {
        loop {
            let end = input.iter().position(|byte| *byte == b'\n');
            let (piece, rest) = match end {
                Some(at) => (&input[..at], &input[at + 1..]),
                None => (*input, &input[input.len()..]),
            };
            if self.skipping {
                *input = rest;
                end?;
                self.skipping = false;
                continue;
            }
            // One byte above the limit may be the `\r` of a line that just fits.
            let room = (self.limit + 1).saturating_sub(self.partial.len());
            let fits = piece.len() <= room;
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            let over = self.partial.len() > self.limit && self.partial.last() != Some(&b'\r');
            if !fits || over {
                // The newline stays: it is what ends the skipping.
                *input = &input[piece.len()..];
                self.partial = Vec::new();
                self.skipping = true;
                return Some(Line::TooLong);
            }
            *input = rest;
            end?;
            let mut line = std::mem::take(&mut self.partial);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Some(Line::Whole(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]], limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(limit);
        let mut found = vec![];
        for piece in pieces {
            let mut input = *piece;
            while let Some(line) = lines.next(&mut input) {
                found.push(line);
                assert!(lines.partial.len() <= limit + 1);
            }
            assert!(input.is_empty());
            assert!(lines.partial.len() <= limit + 1);
        }
        found
    }

    #[test]
    fn ends_limits_and_skipping() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(
            all(&[b"a\nb\r\n\n\r\nc"], 8),
            [whole("a"), whole("b"), whole(""), whole("")]
        );
        assert_eq!(all(&[b"12345678\n"], 8), [whole("12345678")]);
        assert_eq!(all(&[b"12345678\r\n"], 8), [whole("12345678")]);
        assert_eq!(all(&[b"123456789\nx\n"], 8), [Line::TooLong, whole("x")]);
        assert_eq!(all(&[b"12345678\rx\ny\n"], 8), [Line::TooLong, whole("y")]);
        // Once, at once, and however long it goes on.
        let long = vec![b'x'; 1 << 20];
        assert_eq!(
            all(&[&long, &long, b"\r\nGET\n"], 8),
            [Line::TooLong, whole("GET")]
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0usize..200, 0..20),
            limit in 1usize..12,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            let one: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = all(&[&bytes], limit);
            prop_assert_eq!(&all(&pieces, limit), &whole);
            prop_assert_eq!(&all(&one, limit), &whole);
            let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(whole.len() <= newlines + 1);
        }
    }
}
