//! The PROXY protocol header a gateway may put before a connection's bytes, and what its TLVs say. Pure.

use proxy_header::{Error, ParseConfig, ProxyHeader, Tlv};

/// Longest header, bytes: addresses, ids, and a player id of 256 characters, with room for TLVs of others.
pub(crate) const MAX_HEADER: usize = 4 * 1024;

/// Longest header of version 1, which is a line of text, bytes with its end (the protocol's own number).
const MAX_LINE: usize = 107;

const TLV_SESSION: u8 = 0xE0;
const TLV_PLAYER: u8 = 0xE1;
const TLV_GENERATION: u8 = 0xE2;

/// Who a gateway says is connecting; what it does not say is unknown.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) session_id: Option<String>,
    pub(crate) player_id: Option<String>,
    pub(crate) generation: Option<String>,
    /// The player's own address.
    pub(crate) from: Option<std::net::SocketAddr>,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Not all of it is here yet.
    Partial,
    /// Not a header, or a broken or too long one.
    Bad,
    /// A header of so many bytes.
    Whole(Introduction, usize),
}

pub(crate) fn parse(bytes: &[u8]) -> Header {
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        // Told apart here, or a line that is too long would be one when it comes at once and none when it comes in pieces.
        Ok((_, length)) if bytes.starts_with(b"PROXY") && length > MAX_LINE => Header::Bad,
        Ok((header, length)) if length <= MAX_HEADER => match introduction(&header) {
            Some(introduction) => Header::Whole(introduction, length),
            None => Header::Bad,
        },
        Err(Error::BufferTooShort) if bytes.len() < MAX_HEADER => Header::Partial,
        _ => Header::Bad,
    }
}

fn introduction(header: &ProxyHeader<'_>) -> Option<Introduction> {
    let mut found = Introduction {
        from: header.proxied_address().map(|address| address.source),
        ..Introduction::default()
    };
    for tlv in header.tlvs() {
        let Tlv::Custom(kind, value) = tlv.ok()? else {
            continue;
        };
        let text = || Some(std::str::from_utf8(&value).ok()?.to_owned());
        match kind {
            TLV_SESSION => found.session_id = Some(text()?),
            TLV_PLAYER => found.player_id = Some(text()?),
            TLV_GENERATION => found.generation = Some(text()?),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_header::ProxiedAddress;

    fn header(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let address = ProxiedAddress::stream(
            "10.0.0.1:5000".parse().unwrap(),
            "10.0.0.2:25000".parse().unwrap(),
        );
        let tlvs = tlvs
            .iter()
            .map(|(kind, value)| Tlv::Custom(*kind, (*value).into()));
        let mut bytes = vec![];
        ProxyHeader::with_tlvs(Some(address), tlvs)
            .encode_v2(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn every_prefix_waits_and_the_whole_introduces() {
        let mut bytes = header(&[
            (0xE0, b"s1"),
            (0xE1, "ann 🧂".as_bytes()),
            (0xE2, b"2"),
            (0xEE, b"x"),
        ]);
        let length = bytes.len();
        for cut in 0..length {
            assert_eq!(parse(&bytes[..cut]), Header::Partial, "{cut}");
        }
        bytes.extend_from_slice(b"GET_STATE\n");
        let wanted = Introduction {
            session_id: Some("s1".into()),
            player_id: Some("ann 🧂".into()),
            generation: Some("2".into()),
            from: Some("10.0.0.1:5000".parse().unwrap()),
        };
        assert_eq!(parse(&bytes), Header::Whole(wanted, length));
    }

    #[test]
    fn a_probe_of_the_gateway_introduces_nobody() {
        let mut bytes = vec![];
        ProxyHeader::with_local().encode_v2(&mut bytes).unwrap();
        assert_eq!(
            parse(&bytes),
            Header::Whole(Introduction::default(), bytes.len())
        );
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse(b"GET_STATE\n"), Header::Bad);
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
        for cut in [MAX_LINE, long.len()] {
            assert_eq!(parse(&long.as_bytes()[..cut]), Header::Bad, "{cut}");
        }
        assert_eq!(parse(&header(&[(0xE1, b"\xff")])), Header::Bad);
        let long = header(&[(0xE1, &[b'x'; MAX_HEADER])]);
        assert_eq!(parse(&long), Header::Bad);
        assert_eq!(parse(&long[..MAX_HEADER]), Header::Bad);
        let mut broken = header(&[(0xE1, b"ann")]);
        let at = broken.len() - 4;
        broken[at] = 200; // a TLV longer than the header
        assert_eq!(parse(&broken), Header::Bad);
    }
}
