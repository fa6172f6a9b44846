//! Where WebSocket frames begin and end in a stream of bytes that we only carry (RFC 6455, section 5.2).
//!
//! Pure and incremental: bytes come in chunks cut anywhere, payloads are counted and never looked at, nothing is buffered. Only
//! what the relay needs may enter: is this activity, is here a frame boundary, did somebody say goodbye.

/// Payload of a control frame is at most this long (RFC 6455, section 5.5).
const MAX_CONTROL: u8 = 125;

/// Who sends this stream: clients mask their frames, servers must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The player.
    Client,
    /// The game.
    Server,
}

/// What one chunk held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// At least one byte of it belongs to a data frame (continuation, text, binary).
    pub data: bool,
    /// Bytes up to and with the last frame that ended in this chunk.
    pub boundary: Option<usize>,
    /// A Close frame ended in this chunk.
    pub close: bool,
    /// From here on the stream is not WebSocket. What came before `boundary` is whole.
    pub violation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next byte begins a frame.
    Start,
    /// The next byte is the mask bit and the short length.
    Length,
    /// This many bytes of the long length are still to come; `so_far` has the others.
    Extended { to_come: u8, so_far: u64 },
    /// This many bytes of masking key and payload are still to come.
    Body { left: u64 },
    /// The stream broke the protocol: no boundary will ever be known again.
    Lost,
    /// Not WebSocket at all: every byte is data, and every place a boundary.
    Opaque,
}

/// Follows one direction of one connection. 32 bytes.
#[derive(Clone, Debug)]
pub struct Follower {
    stage: Stage,
    /// First byte of the present frame: FIN, reserved bits, opcode.
    first: u8,
    masked: bool,
    sender: Sender,
    /// With an extension negotiated, reserved bits and opcodes have a meaning that only the two ends know.
    extensions: bool,
    closed: bool,
    /// First two bytes of a server's Close payload.
    code: [u8; 2],
    code_bytes: u8,
}

impl Follower {
    /// A stream at its beginning.
    #[must_use]
    pub const fn new(sender: Sender, extensions: bool) -> Self {
        Self {
            stage: Stage::Start,
            first: 0,
            masked: false,
            sender,
            extensions,
            closed: false,
            code: [0; 2],
            code_bytes: 0,
        }
    }

    /// A stream that has no frames.
    #[must_use]
    pub const fn opaque(sender: Sender) -> Self {
        let mut follower = Self::new(sender, false);
        follower.stage = Stage::Opaque;
        follower
    }

    /// Whether a frame of ours may be put here.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        matches!(self.stage, Stage::Start | Stage::Opaque)
    }

    /// Whether a whole Close frame has passed. Nothing may follow it.
    #[must_use]
    pub const fn closed(&self) -> bool {
        self.closed
    }

    /// Whether the position in the stream is not known any more.
    #[must_use]
    pub const fn lost(&self) -> bool {
        matches!(self.stage, Stage::Lost)
    }

    /// The code in a Close frame of the server, if it carried one (a client's is masked and not read).
    #[must_use]
    pub const fn close_code(&self) -> Option<u16> {
        if self.closed && self.code_bytes == 2 {
            Some(u16::from_be_bytes(self.code))
        } else {
            None
        }
    }

    /// Follows the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            match self.stage {
                Stage::Start => {
                    self.first = byte;
                    self.stage = if self.first_is_valid() {
                        Stage::Length
                    } else {
                        Stage::Lost
                    };
                    seen.data |= self.is_data() && !self.lost();
                    at += 1;
                }
                Stage::Length => {
                    self.length(byte);
                    seen.data |= self.is_data() && !self.lost();
                    at += 1;
                    self.end_frame(at, &mut seen);
                }
                Stage::Extended { to_come, so_far } => {
                    let so_far = so_far << 8 | u64::from(byte);
                    if to_come == 1 {
                        self.body(so_far);
                    } else {
                        self.stage = Stage::Extended {
                            to_come: to_come - 1,
                            so_far,
                        };
                    }
                    seen.data |= self.is_data() && !self.lost();
                    at += 1;
                    self.end_frame(at, &mut seen);
                }
                Stage::Body { left } => {
                    let here = (chunk.len() - at) as u64;
                    let take = here.min(left);
                    // `take` is at most the length of a slice.
                    let end = at + usize::try_from(take).unwrap_or(usize::MAX);
                    self.note_code(chunk.get(at..end).unwrap_or_default());
                    seen.data |= self.is_data();
                    self.stage = Stage::Body { left: left - take };
                    at = end;
                    self.end_frame(at, &mut seen);
                }
                Stage::Lost => break,
                Stage::Opaque => {
                    seen.data = true;
                    seen.boundary = Some(chunk.len());
                    return seen;
                }
            }
        }
        seen.violation = self.lost();
        seen
    }

    const fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    const fn is_data(&self) -> bool {
        self.opcode() < 8
    }

    const fn is_close(&self) -> bool {
        self.opcode() == 8
    }

    const fn first_is_valid(&self) -> bool {
        let reserved = self.first & 0x70 != 0;
        let known = matches!(self.opcode(), 0..=2 | 8..=10);
        let fragmented_control = self.opcode() >= 8 && self.first & 0x80 == 0;
        // Nothing may follow a Close frame.
        (self.extensions || (!reserved && known)) && !fragmented_control && !self.closed
    }

    fn length(&mut self, byte: u8) {
        self.masked = byte & 0x80 != 0;
        let short = byte & 0x7f;
        let wrong_mask = self.masked != matches!(self.sender, Sender::Client);
        if wrong_mask || (!self.is_data() && short > MAX_CONTROL) {
            self.stage = Stage::Lost;
            return;
        }
        match short {
            126 => {
                self.stage = Stage::Extended {
                    to_come: 2,
                    so_far: 0,
                }
            }
            127 => {
                self.stage = Stage::Extended {
                    to_come: 8,
                    so_far: 0,
                }
            }
            n => self.body(u64::from(n)),
        }
    }

    fn body(&mut self, payload: u64) {
        // The top bit must be 0 (section 5.2), so adding the masking key cannot overflow.
        self.stage = if payload >> 63 == 0 {
            Stage::Body {
                left: payload + if self.masked { 4 } else { 0 },
            }
        } else {
            Stage::Lost
        };
    }

    fn end_frame(&mut self, at: usize, seen: &mut Seen) {
        if matches!(self.stage, Stage::Body { left: 0 }) {
            self.stage = Stage::Start;
            seen.boundary = Some(at);
            if self.is_close() {
                self.closed = true;
                seen.close = true;
            }
        }
    }

    fn note_code(&mut self, body: &[u8]) {
        if !self.is_close() || self.masked {
            return;
        }
        for &byte in body {
            match self.code.get_mut(usize::from(self.code_bytes)) {
                Some(slot) => {
                    *slot = byte;
                    self.code_bytes += 1;
                }
                None => return,
            }
        }
    }
}

/// What stands at the head of a client's stream that nobody relays yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// Not enough bytes to say.
    Incomplete,
    /// A data frame: the game's business.
    Data,
    /// A whole control frame of this many bytes, its payload unmasked.
    Control {
        /// Close, Ping or Pong.
        opcode: u8,
        /// Length of the whole frame.
        length: usize,
        /// At most 125 bytes.
        payload: Vec<u8>,
    },
    /// Not a client's WebSocket stream.
    Violation,
}

/// Longest control frame of a client: two bytes, masking key, payload.
pub const MAX_CLIENT_CONTROL: usize = 2 + 4 + MAX_CONTROL as usize;

/// Looks at the head of a client's stream without extensions.
#[must_use]
pub fn head(bytes: &[u8]) -> Head {
    let mut follower = Follower::new(Sender::Client, false);
    let start = bytes.get(..bytes.len().min(2)).unwrap_or_default();
    if follower.feed(start).violation {
        return Head::Violation;
    }
    match bytes {
        [first, ..] if first & 0x0f < 8 => Head::Data,
        [first, second, m0, m1, m2, m3, rest @ ..] => {
            let long = usize::from(second & 0x7f);
            match rest.get(..long) {
                Some(masked) => {
                    let mask = [m0, m1, m2, m3];
                    let payload = masked
                        .iter()
                        .zip(mask.into_iter().cycle())
                        .map(|(b, m)| b ^ m)
                        .collect();
                    Head::Control {
                        opcode: first & 0x0f,
                        length: 6 + long,
                        payload,
                    }
                }
                None => Head::Incomplete,
            }
        }
        _ => Head::Incomplete,
    }
}

/// A whole frame of a server: FIN set, not masked. For our own few frames only.
#[must_use]
pub fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(n), _) if n < 126 => frame.push(n),
        (_, Ok(n)) => {
            frame.push(126);
            frame.extend_from_slice(&n.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a Close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a Ping.
pub const PING: u8 = 9;
/// Opcode of a Pong.
pub const PONG: u8 = 10;

/// A Close frame as a server sends it.
#[must_use]
pub fn server_close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    // A control frame has room for 123 bytes of reason; it is text, or browsers take the whole frame for an error.
    let room = usize::from(MAX_CONTROL) - payload.len();
    let fits = reason.floor_char_boundary(room.min(reason.len()));
    payload.extend_from_slice(reason.get(..fits).unwrap_or_default().as_bytes());
    server_frame(CLOSE, &payload)
}

/// A Close frame as a client sends it: masked, with a key of zero (masking protects proxies from scripted clients; this one is
/// ours and its payload is fixed).
#[must_use]
pub const fn client_close(code: u16) -> [u8; 8] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 0x82, 0, 0, 0, 0, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One frame by the book, written apart from the code above.
    #[derive(Clone, Debug)]
    struct Frame {
        fin: bool,
        opcode: u8,
        rsv: u8,
        length: usize,
        /// Encode the length in at least this many bytes (0, 2, 8): long forms of short lengths are read too.
        form: u8,
    }

    fn encode(f: &Frame, sender: Sender) -> Vec<u8> {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        let mut out = vec![u8::from(f.fin) << 7 | f.rsv << 4 | f.opcode];
        if f.form == 8 || f.length > 65_535 {
            out.push(mask | 127);
            out.extend((f.length as u64).to_be_bytes());
        } else if f.form == 2 || f.length > 125 {
            out.push(mask | 126);
            out.extend((f.length as u16).to_be_bytes());
        } else {
            out.push(mask | f.length as u8);
        }
        if mask != 0 {
            out.extend([1, 2, 3, 4]);
        }
        // Bytes that look like headers, so that a follower that lost its place would show.
        out.extend((0..f.length).map(|i| [0x88, 0x00, 0x81, 0xff][i % 4]));
        out
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let data = (
            any::<bool>(),
            0u8..3,
            prop_oneof![0usize..130, Just(125), Just(126), 65_530usize..65_540,],
            prop_oneof![Just(0u8), Just(2), Just(8)],
        )
            .prop_map(|(fin, opcode, length, form)| Frame {
                fin,
                opcode,
                rsv: 0,
                length,
                form,
            });
        let control = (9u8..11, 0usize..126).prop_map(|(opcode, length)| Frame {
            fin: true,
            opcode,
            rsv: 0,
            length,
            form: 0,
        });
        prop_oneof![3 => data, 1 => control]
    }

    fn cuts(len: usize, seeds: &[u16]) -> Vec<usize> {
        let mut cuts: Vec<usize> = seeds.iter().map(|s| usize::from(*s) % (len + 1)).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        cuts
    }

    proptest! {
        #[test]
        fn boundaries_and_activity_do_not_depend_on_how_the_stream_is_cut(
            frames in prop::collection::vec(frame(), 0..6),
            seeds in prop::collection::vec(any::<u16>(), 0..12),
            client in any::<bool>(),
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let mut stream = Vec::new();
            let mut ends = Vec::new();
            let mut spans = Vec::new();
            for f in &frames {
                let start = stream.len();
                stream.extend(encode(f, sender));
                ends.push(stream.len());
                spans.push((start, stream.len(), f.opcode < 8));
            }
            let mut follower = Follower::new(sender, false);
            for pair in cuts(stream.len(), &seeds).windows(2) {
                let (from, to) = (pair[0], pair[1]);
                let seen = follower.feed(&stream[from..to]);
                prop_assert!(!seen.violation);
                let expected = ends.iter().copied().filter(|e| *e > from && *e <= to).max();
                prop_assert_eq!(seen.boundary.map(|b| b + from), expected);
                let data = from < to && spans.iter().any(|(s, e, d)| *d && *s < to && *e > from);
                prop_assert_eq!(seen.data, data, "{}..{}", from, to);
                prop_assert_eq!(follower.at_boundary(), to == 0 || ends.contains(&to));
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_a_lost_stream_stays_lost(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            seeds in prop::collection::vec(any::<u16>(), 0..8),
            extensions in any::<bool>(),
            client in any::<bool>(),
        ) {
            let sender = if client { Sender::Client } else { Sender::Server };
            let mut whole = Follower::new(sender, extensions);
            let all = whole.feed(&bytes);
            let mut cut = Follower::new(sender, extensions);
            let mut boundary = None;
            for pair in cuts(bytes.len(), &seeds).windows(2) {
                if let Some(b) = cut.feed(&bytes[pair[0]..pair[1]]).boundary {
                    boundary = Some(b + pair[0]);
                }
            }
            prop_assert_eq!(all.boundary, boundary);
            prop_assert_eq!(whole.lost(), cut.lost());
            prop_assert_eq!(whole.closed(), cut.closed());
            prop_assert_eq!(whole.close_code(), cut.close_code());
            if whole.lost() {
                prop_assert!(whole.feed(&[0x81, 0x80, 0, 0, 0, 0]).violation);
            }
        }
    }

    fn violates(bytes: &[u8], sender: Sender, extensions: bool) -> bool {
        Follower::new(sender, extensions).feed(bytes).violation
    }

    #[test]
    fn hostile_headers_are_named_and_never_overflow() {
        let huge = [0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(
            violates(&huge, Sender::Server, true),
            "top bit of a 64-bit length"
        );
        let largest = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let mut f = Follower::new(Sender::Client, false);
        assert!(!f.feed(&largest).violation);
        assert!(f.feed(&[0; 100]).data && !f.at_boundary());
        assert!(
            violates(&[0x89, 0x7e], Sender::Server, false),
            "a long ping"
        );
        assert!(
            violates(&[0x09, 0x00], Sender::Server, false),
            "a ping in fragments"
        );
        assert!(
            violates(&[0x81, 0x01], Sender::Client, false),
            "a client that does not mask"
        );
        assert!(
            violates(&[0x81, 0x81], Sender::Server, false),
            "a server that masks"
        );
        for bits in [0x10, 0x20, 0x40] {
            assert!(violates(&[0x81 | bits, 0x00], Sender::Server, false));
            assert!(
                !violates(&[0x81 | bits, 0x00], Sender::Server, true),
                "compressed"
            );
        }
        assert!(
            violates(&[0x83, 0x00], Sender::Server, false),
            "an opcode nobody knows"
        );
        assert!(!violates(&[0x83, 0x00], Sender::Server, true));
        assert!(
            violates(&[0x88, 0x00, 0x81, 0x00], Sender::Server, false),
            "talk after goodbye"
        );
    }

    #[test]
    fn a_close_frame_is_noticed_with_its_code() {
        for cut in 0..8 {
            let mut f = Follower::new(Sender::Server, false);
            let mut stream = server_frame(TEXT, b"x");
            stream.extend(server_close(4408, "idle"));
            let cut = stream.len().min(cut);
            let (a, b) = stream.split_at(cut);
            let first = f.feed(a);
            let second = f.feed(b);
            assert!(!first.close && second.close && f.closed() && f.at_boundary());
            assert_eq!(f.close_code(), Some(4408));
        }
        let mut f = Follower::new(Sender::Client, false);
        assert!(f.feed(&client_close(1001)).close);
        assert_eq!(f.close_code(), None, "a client's is masked");
        let mut f = Follower::new(Sender::Server, false);
        assert!(f.feed(&[0x88, 0]).close);
        assert_eq!(f.close_code(), None, "no code given");
    }

    #[test]
    fn pings_between_fragments_are_boundaries_but_no_activity() {
        let mut f = Follower::new(Sender::Client, false);
        assert!(f.feed(&[0x01, 0x81, 1, 2, 3, 4, b'a']).data);
        let ping = f.feed(&[0x89, 0x80, 1, 2, 3, 4]);
        assert!(!ping.data && ping.boundary == Some(6));
        assert!(f.feed(&[0x80, 0x80, 1, 2, 3, 4]).data);
    }

    #[test]
    fn the_head_of_a_waiting_clients_stream_is_read_without_touching_data() {
        let ping = [0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2, 0x81];
        for n in 0..8 {
            assert_eq!(head(&ping[..n]), Head::Incomplete, "{n}");
        }
        for n in 8..=9 {
            assert_eq!(
                head(&ping[..n]),
                Head::Control {
                    opcode: PING,
                    length: 8,
                    payload: b"hi".to_vec()
                }
            );
        }
        assert_eq!(head(&[0x82]), Head::Data);
        assert_eq!(head(&[0x81, 0xff]), Head::Data);
        assert_eq!(head(&[0x81, 0x01]), Head::Violation, "not masked");
        assert_eq!(head(&[0xc1]), Head::Violation, "reserved bit");
        assert_eq!(head(&[0x89, 0xfe]), Head::Violation, "a long ping");
        let longest = [&[0x8a, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
        assert_eq!(longest.len(), MAX_CLIENT_CONTROL);
        assert!(matches!(
            head(&longest),
            Head::Control {
                opcode: PONG,
                length: MAX_CLIENT_CONTROL,
                ..
            }
        ));
    }

    #[test]
    fn our_own_frames_are_by_the_book() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = server_frame(TEXT, &vec![b'x'; len]);
            let mut f = Follower::new(Sender::Server, false);
            assert_eq!(f.feed(&frame).boundary, Some(frame.len()));
        }
    }

    #[test]
    fn following_is_cheap_to_keep() {
        assert!(size_of::<Follower>() <= 32, "{}", size_of::<Follower>());
    }
}
