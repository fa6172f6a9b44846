//! Typed ids. A value of one of these types is valid by construction.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::limits::{MAX_FLEET_NAME, MAX_PLAYER_ID_CHARS};

/// Why a text is not an id of the wanted kind. `Display` is fit for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing between the quotes.
    #[error("must not be empty")]
    Empty,
    /// Longer than the documented limit.
    #[error("must be at most {max} characters, not {got}")]
    TooLong {
        /// The limit in characters.
        max: usize,
        /// What was sent.
        got: usize,
    },
    /// Control characters make logs and terminals lie.
    #[error("must not contain control characters")]
    Control,
    /// Not the form this id has.
    #[error("must be {0}")]
    Form(&'static str),
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// From a UUIDv7 that the caller made (this crate has no clock and no randomness).
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Only the canonical lower-case hyphenated form, so that one id has one spelling (it is a DNS label too).
            fn from_str(s: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(s).map_err(|_| IdError::Form($form))?;
                if id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) != s {
                    return Err(IdError::Form($form));
                }
                Ok(Self(id))
            }
        }
    };
}

uuid_id!(
    /// One game that players are in. Lower-case UUIDv7; unguessable is not claimed, tokens authorise.
    SessionId,
    "a session id: a lower-case UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"
);
uuid_id!(
    /// One running game server: a process or a pod. Lower-case UUIDv7, never made from player input.
    InstanceId,
    "an instance id: a lower-case UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"
);
uuid_id!(
    /// A player or party waiting for a match. Lower-case UUIDv7: a later ticket has a greater id.
    TicketId,
    "a ticket id: a lower-case UUID such as 01890a5d-ac96-774b-bcce-b302099a8057"
);

/// Which incarnation of a session's instance: 1, 2, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// The first instance of a session.
    pub const FIRST: Self = Self(1);

    /// The incarnation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A player as the caller names them: any text of 1 to 256 characters without control characters. Case and spelling matter;
/// nothing is ever derived from it (no path, name or label).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayerId(Box<str>);

impl PlayerId {
    /// A literal of this crate's own that is a player id; a test parses each that is used.
    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.into())
    }

    /// The text as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PlayerId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        if s.is_empty() {
            return Err(IdError::Empty);
        }
        // Counting a megabyte of characters to say "too long" is work for the sender's benefit only.
        let got = if s.len() > MAX_PLAYER_ID_CHARS * 4 {
            s.len()
        } else {
            s.chars().count()
        };
        if got > MAX_PLAYER_ID_CHARS {
            return Err(IdError::TooLong {
                max: MAX_PLAYER_ID_CHARS,
                got,
            });
        }
        if s.chars().any(char::is_control) {
            return Err(IdError::Control);
        }
        Ok(Self(s.into()))
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A fleet's name: a DNS label (lower-case letters, digits, inner hyphens, at most 63), because it becomes one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetName(Box<str>);

impl FleetName {
    /// A literal of this crate's own that is a fleet name; a test parses each that is used.
    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FleetName {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        const FORM: IdError =
            IdError::Form("a fleet name: lower-case letters, digits and inner hyphens, at most 63");
        if s.is_empty() {
            return Err(IdError::Empty);
        }
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if s.len() > MAX_FLEET_NAME
            || !s.bytes().all(inner)
            || s.starts_with('-')
            || s.ends_with('-')
        {
            return Err(FORM);
        }
        Ok(Self(s.into()))
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_has_one_spelling() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(id.parse::<SessionId>().unwrap().to_string(), id);
        for other in [
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "",
            "x",
        ] {
            assert!(other.parse::<SessionId>().is_err(), "{other}");
        }
    }

    #[test]
    fn player_ids_are_any_printable_text_within_the_limit() {
        for ok in [
            "1",
            "11",
            "1%",
            "_",
            "a,b",
            "\u{1f9c2}",
            "../../etc",
            "A B",
            &"x".repeat(256),
            &"\u{1f9c2}".repeat(256),
        ] {
            assert_eq!(ok.parse::<PlayerId>().unwrap().as_str(), ok);
        }
        assert_eq!("".parse::<PlayerId>(), Err(IdError::Empty));
        assert_eq!(
            "x".repeat(257).parse::<PlayerId>(),
            Err(IdError::TooLong { max: 256, got: 257 })
        );
        assert!("x".repeat(1 << 20).parse::<PlayerId>().is_err());
        for bad in ["a\0b", "a\nb", "\u{1b}[31m", "\u{7f}"] {
            assert_eq!(bad.parse::<PlayerId>(), Err(IdError::Control));
        }
    }

    #[test]
    fn fleet_names_are_dns_labels() {
        for ok in ["spice", "a", "a-1", "0", &"x".repeat(63)] {
            assert!(ok.parse::<FleetName>().is_ok(), "{ok}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64), "\u{e9}"] {
            assert!(bad.parse::<FleetName>().is_err(), "{bad}");
        }
    }
}
