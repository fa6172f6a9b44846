//! Serde for values that have one canonical text: ids, phases, reasons. `#[serde(with = "text")]`, `text::option`, `text::list`.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes the canonical text.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

/// Reads the canonical text.
///
/// # Errors
/// When it is not a string or not of the wanted form; the message says which form that is.
pub fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

/// The same for `Option<T>`; combine with `#[serde(default)]`.
pub mod option {
    use super::{Deserialize, Deserializer, Display, Error, FromStr, Serializer};

    /// Writes the text or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(v) => s.collect_str(v),
            None => s.serialize_none(),
        }
    }

    /// Reads the text or null.
    ///
    /// # Errors
    /// When it is neither null nor of the wanted form.
    pub fn deserialize<'de, T, D>(d: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        Option::<String>::deserialize(d)?
            .map(|s| s.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// The same for `Vec<T>`.
pub mod list {
    use serde::ser::SerializeSeq;

    use super::{Deserialize, Deserializer, Display, Error, FromStr, Serializer};

    /// Writes a list of texts.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Display, S: Serializer>(value: &[T], s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(value.len()))?;
        for v in value {
            seq.serialize_element(&format_args!("{v}"))?;
        }
        seq.end()
    }

    /// Reads a list of texts.
    ///
    /// # Errors
    /// When one of them is not of the wanted form.
    pub fn deserialize<'de, T, D>(d: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        Vec::<String>::deserialize(d)?
            .into_iter()
            .map(|s| s.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// Serde for core enums that spell themselves with `as_str` and `parse`.
macro_rules! spelled {
    ($module:ident, $type:ty) => {
        #[doc = concat!("Serde for [`", stringify!($type), "`] by its stable spelling.")]
        pub mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            /// Writes the spelling.
            ///
            /// # Errors
            /// Those of the serializer.
            pub fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(value.as_str())
            }

            /// Reads the spelling.
            ///
            /// # Errors
            /// When it is not a known one.
            pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                let s = String::deserialize(d)?;
                <$type>::parse(&s)
                    .ok_or_else(|| D::Error::custom(format_args!("{s:?} is not a known value")))
            }

            /// The same for an `Option`; combine with `#[serde(default)]`.
            pub mod option {
                use serde::{Deserialize, Deserializer, Serialize, Serializer};

                /// One value, which is there.
                #[derive(Serialize, Deserialize)]
                struct There(#[serde(with = "super")] $type);

                /// Writes the spelling or null.
                ///
                /// # Errors
                /// Those of the serializer.
                pub fn serialize<S: Serializer>(
                    value: &Option<$type>,
                    s: S,
                ) -> Result<S::Ok, S::Error> {
                    value.map(There).serialize(s)
                }

                /// Reads the spelling or null.
                ///
                /// # Errors
                /// When it is neither null nor a known one.
                pub fn deserialize<'de, D: Deserializer<'de>>(
                    d: D,
                ) -> Result<Option<$type>, D::Error> {
                    Ok(Option::<There>::deserialize(d)?.map(|there| there.0))
                }
            }
        }
    };
}

spelled!(phase, spawnpoint_core::session::Phase);
spelled!(reason, spawnpoint_core::lifecycle::Reason);
spelled!(ended_by, spawnpoint_core::lifecycle::EndedBy);
