//! What a TCP game is told about who connects: a PROXY protocol v2 header before the player's first byte.

use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};
use spawnpoint_core::{PlayerId, SessionId};
use spawnpoint_wire::tcp::{TLV_GENERATION, TLV_PLAYER, TLV_SESSION};

/// The header. `None` when the two addresses are of different families, which one connection's never are.
pub(crate) fn header(
    player_at: SocketAddr,
    listener_at: SocketAddr,
    session: SessionId,
    player: Option<&PlayerId>,
    generation: u32,
) -> Option<Vec<u8>> {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let address = ProxiedAddress::stream(canonical(player_at), canonical(listener_at));
    let mut header = ProxyHeader::with_address(address);
    let mut tell = |kind: u8, text: String| {
        header.append_tlv(Tlv::Custom(kind, text.into_bytes().into()));
    };
    tell(TLV_SESSION, session.to_string());
    if let Some(player) = player {
        tell(TLV_PLAYER, player.to_string());
    }
    tell(TLV_GENERATION, generation.to_string());
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proxy_header::ParseConfig;

    use super::*;

    #[test]
    fn a_game_reads_back_what_it_is_told() {
        let session: SessionId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let player: PlayerId = "user \u{1f9c2}".parse().unwrap();
        for (from, to) in [
            ("192.0.2.7:50000", "192.0.2.1:25000"),
            ("[2001:db8::7]:50000", "[2001:db8::1]:25000"),
            ("[::ffff:192.0.2.7]:50000", "[::ffff:192.0.2.1]:25000"),
        ] {
            for player in [Some(&player), None] {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let mut bytes = header(from, to, session, player, 12).unwrap();
                let length = bytes.len();
                bytes.extend_from_slice(b"GET_STATE\n");
                let (read, used) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
                assert_eq!(used, length);
                let address = read.proxied_address().unwrap();
                assert_eq!(address.source.ip(), from.ip().to_canonical());
                assert_eq!(address.destination.port(), 25000);
                let told: Vec<(u8, Vec<u8>)> = read
                    .tlvs()
                    .map(|t| {
                        let t = t.unwrap();
                        let Tlv::Custom(kind, value) = t else {
                            panic!("{t:?}")
                        };
                        (kind, value.into_owned())
                    })
                    .collect();
                let mut expected = vec![(0xE0, session.to_string().into_bytes())];
                expected.extend(player.map(|p| (0xE1, p.as_str().as_bytes().to_vec())));
                expected.push((0xE2, b"12".to_vec()));
                assert_eq!(told, expected);
            }
        }
    }
}
