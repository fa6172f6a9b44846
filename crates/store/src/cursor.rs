//! Where a page ended, as the opaque text a caller hands back.
//!
//! Versioned so that a later order of listing can tell its own cursors from these; one form for all stores, so that a page begun
//! on one is never misread by another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use spawnpoint_core::SessionId;
use spawnpoint_core::record::MatchRecord;
use uuid::Uuid;

use crate::StoreError;

/// The form below: order by end, then session id, both descending.
const VERSION: u8 = 1;
/// Version, end (8 bytes, big-endian), session id (16 bytes).
const LENGTH: usize = 1 + 8 + 16;

/// The last record of a page; the next page begins strictly after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// When that record ended, Unix milliseconds.
    pub(crate) ended_at: i64,
    /// Its session.
    pub(crate) session: SessionId,
}

impl Position {
    pub(crate) fn of(record: &MatchRecord) -> Self {
        Self {
            ended_at: record.ended_at,
            session: record.session,
        }
    }

    pub(crate) fn encode(self) -> String {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.ended_at.to_be_bytes());
        bytes[9..].copy_from_slice(self.session.uuid().as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn decode(text: &str) -> Result<Self, StoreError> {
        let mut bytes = [0; LENGTH];
        let n = URL_SAFE_NO_PAD
            .decode_slice(text, &mut bytes)
            .map_err(|_| StoreError::Cursor)?;
        if n != LENGTH || bytes[0] != VERSION {
            return Err(StoreError::Cursor);
        }
        let (end, session) = bytes[1..].split_at(8);
        let end = <[u8; 8]>::try_from(end).map_err(|_| StoreError::Cursor)?;
        let session = Uuid::from_slice(session).map_err(|_| StoreError::Cursor)?;
        Ok(Self {
            ended_at: i64::from_be_bytes(end),
            session: SessionId::new(session),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_comes_back(ended_at: i64, id: u128) {
            let p = Position { ended_at, session: SessionId::new(Uuid::from_u128(id)) };
            let text = p.encode();
            prop_assert_eq!(Position::decode(&text).unwrap(), p);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Position::decode(&text);
        }
    }

    #[test]
    fn another_version_or_length_is_refused() {
        let p = Position {
            ended_at: 5,
            session: SessionId::new(Uuid::from_u128(7)),
        };
        let mut bytes = URL_SAFE_NO_PAD.decode(p.encode()).unwrap();
        bytes[0] = 2;
        assert!(Position::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        bytes[0] = 1;
        bytes.push(0);
        assert!(Position::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        bytes.truncate(LENGTH - 1);
        assert!(Position::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
    }
}
