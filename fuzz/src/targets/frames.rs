//! WebSocket frames by the book (RFC 6455, section 5.2), and what the follower says of the same stream.

use spawnpoint_gateway::frames::{
    CLOSE, Follower, Head, MAX_CLIENT_CONTROL, Seen, Sender, client_close, head, server_close,
    server_frame,
};

/// What a decoder that has the whole stream knows of it.
#[derive(Debug, Default)]
struct Book {
    /// Where each whole frame begins and ends, and its opcode.
    frames: Vec<(usize, usize, u8)>,
    /// Where each data frame's bytes are, the last one's as far as they came.
    data: Vec<(usize, usize)>,
    /// The byte that showed that this is no such stream.
    broken: Option<usize>,
}

pub(super) fn check(stream: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        for extensions in [false, true] {
            let book = decode(stream, sender, extensions);
            for piece in [1, 2, 3, 7, 64, stream.len().max(1)] {
                follow(stream, piece, sender, extensions, &book);
            }
        }
    }
    begins(stream);
    ours(stream);
}

fn decode(stream: &[u8], sender: Sender, extensions: bool) -> Book {
    let mut book = Book::default();
    let mut at = 0;
    let mut closed = false;
    while let Some(&first) = stream.get(at) {
        let start = at;
        let opcode = first & 15;
        let control = opcode & 8 != 0;
        let reserved = first & 0b0111_0000 != 0 || (3..8).contains(&opcode) || opcode > 10;
        if closed || (control && first < 128) || (reserved && !extensions) {
            book.broken = Some(at);
            return book;
        }
        let Some(&second) = stream.get(at + 1) else {
            book.data
                .extend((!control).then_some((start, stream.len())));
            return book;
        };
        let masked = second >= 128;
        let short = second & 127;
        if masked != (sender == Sender::Client) || (control && short > 125) {
            // The first byte of a data frame counts as such; the second showed that it is none.
            book.data.extend((!control).then_some((start, start + 1)));
            book.broken = Some(at + 1);
            return book;
        }
        let long = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = start + 2 + long;
        let Some(length) = stream.get(start + 2..head) else {
            book.data
                .extend((!control).then_some((start, stream.len())));
            return book;
        };
        let payload = if long == 0 {
            u64::from(short)
        } else {
            length.iter().fold(0, |n, b| n << 8 | u64::from(*b))
        };
        if payload > u64::MAX >> 1 {
            book.data.extend((!control).then_some((start, head - 1)));
            book.broken = Some(head - 1);
            return book;
        }
        let whole = payload + if masked { 4 } else { 0 };
        let end = usize::try_from(whole)
            .ok()
            .and_then(|n| n.checked_add(head));
        match end.filter(|end| *end <= stream.len()) {
            Some(end) => {
                book.data.extend((!control).then_some((start, end)));
                book.frames.push((start, end, opcode));
                closed |= opcode == 8;
                at = end;
            }
            None => {
                book.data
                    .extend((!control).then_some((start, stream.len())));
                return book;
            }
        }
    }
    book
}

fn follow(stream: &[u8], piece: usize, sender: Sender, extensions: bool, book: &Book) {
    let mut follower = Follower::new(sender, extensions);
    let mut from = 0;
    for chunk in stream.chunks(piece) {
        let to = from + chunk.len();
        let seen = follower.feed(chunk);
        let inside = |at: usize| at > from && at <= to;
        let ended = book.frames.iter().filter(|(_, end, _)| inside(*end));
        let expected = Seen {
            data: book.data.iter().any(|(s, e)| *s < to && *e > from),
            boundary: ended.clone().map(|(_, end, _)| end - from).max(),
            close: ended.clone().any(|(_, _, opcode)| *opcode == 8),
            violation: book.broken.is_some_and(|at| at < to),
        };
        assert_eq!(
            seen, expected,
            "{from}..{to} in pieces of {piece}, {sender:?}"
        );
        let done = to == 0 || book.frames.iter().any(|(_, end, _)| *end == to);
        assert_eq!(follower.at_boundary(), done && !follower.lost());
        from = to;
    }
    let last = book.frames.last().filter(|(_, _, opcode)| *opcode == 8);
    assert_eq!(follower.closed(), last.is_some());
    let code = last
        .filter(|_| sender == Sender::Server)
        .and_then(|(start, end, _)| {
            let payload = stream.get(start + 2..*end)?;
            Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?]))
        });
    assert_eq!(follower.close_code(), code);
}

/// The head of a client's stream that nobody relays yet.
fn begins(stream: &[u8]) {
    let book = decode(stream, Sender::Client, false);
    match head(stream) {
        Head::Violation => assert!(book.broken.is_some_and(|at| at < 2)),
        Head::Data => assert!(stream.first().is_some_and(|b| b & 15 < 3)),
        Head::Incomplete => {
            assert!(book.frames.is_empty() && stream.len() < MAX_CLIENT_CONTROL);
            assert!(book.broken.is_none());
        }
        Head::Control {
            opcode,
            length,
            payload,
        } => {
            let first = book.frames.first().copied();
            assert_eq!(first, Some((0, length, opcode)));
            assert!(length <= MAX_CLIENT_CONTROL && length == payload.len() + 6);
            let mask = stream.get(2..6).unwrap_or_default();
            let sent = stream.get(6..length).unwrap_or_default();
            for (i, (plain, sent)) in payload.iter().zip(sent).enumerate() {
                assert_eq!(Some(&(plain ^ sent)), mask.get(i % 4));
            }
        }
    }
}

/// Frames of our own are whole frames.
fn ours(payload: &[u8]) {
    let one = |bytes: &[u8], sender| {
        let book = decode(bytes, sender, false);
        assert!(book.broken.is_none());
        assert_eq!(book.frames.len(), 1);
        assert_eq!(book.frames.first().map(|f| f.1), Some(bytes.len()));
    };
    one(&server_frame(1, payload), Sender::Server);
    let reason = String::from_utf8_lossy(payload);
    let code = u16::from_be_bytes([
        *payload.first().unwrap_or(&3),
        *payload.get(1).unwrap_or(&232),
    ]);
    let close = server_close(code, &reason);
    one(&close, Sender::Server);
    one(&client_close(code), Sender::Client);
    let mut follower = Follower::new(Sender::Server, false);
    follower.feed(&close);
    assert_eq!(follower.close_code(), Some(code));
    assert_eq!(close.first(), Some(&(0x80 | CLOSE)));
    let said = close.get(4..).unwrap_or_default();
    assert!(std::str::from_utf8(said).is_ok(), "a reason is text");
}
