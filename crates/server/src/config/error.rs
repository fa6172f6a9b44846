//! What is wrong with a configuration: one error for each thing, with its place, its value and what would be right.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag, as typed (`--port`).
    Flag(String),
    /// An environment variable.
    Env(String),
    /// The file.
    File {
        /// Its line; 1 is the first.
        line: usize,
    },
    /// Nobody said anything: the documented default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Env(name) => write!(f, "{name}"),
            Self::File { line } => write!(f, "line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The file is not TOML.
    Syntax,
    /// A key nobody knows.
    UnknownKey,
    /// A required key is not there.
    Missing,
    /// A value of the wrong type or out of its range.
    Invalid,
    /// Two values that cannot both hold.
    Conflict,
    /// Something this release or this mode cannot do.
    Unsupported,
    /// It would let strangers in.
    Unsafe,
}

/// One thing that is wrong. Secrets are never part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct ConfigError {
    /// What kind of mistake.
    pub kind: ErrorKind,
    /// The key (`fleet.spice.idle_timeout`); empty for the file as a whole.
    pub path: String,
    /// Where the value came from.
    pub origin: Origin,
    /// The value as written, unless it is missing or secret.
    pub value: Option<String>,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl ConfigError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.kind {
            ErrorKind::Syntax => "config_syntax",
            ErrorKind::UnknownKey => "config_unknown_key",
            ErrorKind::Missing => "config_missing",
            ErrorKind::Invalid => "config_invalid",
            ErrorKind::Conflict => "config_conflict",
            ErrorKind::Unsupported => "config_unsupported",
            ErrorKind::Unsafe => "config_unsafe",
        }
    }

    fn sentence(&self) -> String {
        let mut out = String::new();
        if self.path.is_empty() {
            out.push_str(&self.origin.to_string());
        } else {
            out.push_str(&self.path);
            if let Some(v) = &self.value {
                out.push_str(" = ");
                out.push_str(v);
            }
            if self.origin != Origin::Default {
                out.push_str(&format!(" ({})", self.origin));
            }
        }
        out.push_str(": ");
        out.push_str(&self.problem);
        out
    }
}

/// The known name closest to `name`, when one is close enough to be what was meant.
#[must_use]
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Longer input than any key of ours is no typing mistake, and the distance below is quadratic.
    let name: Vec<char> = name.chars().take(64).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|k| (distance(&name, &k.chars().collect::<Vec<_>>()), k))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Levenshtein's distance, with a swap of two neighbours counted as one step.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut rows = vec![0; (a.len() + 1) * width];
    let at = |i: usize, j: usize| i * width + j;
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[at(i, j)] = if i == 0 || j == 0 {
                i + j
            } else {
                let cost = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[at(i - 1, j)] + 1)
                    .min(rows[at(i, j - 1)] + 1)
                    .min(rows[at(i - 1, j - 1)] + cost);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[at(i - 2, j - 2)] + 1);
                }
                best
            };
        }
    }
    rows[at(a.len(), b.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let known = [
            "idle_timeout",
            "max_duration",
            "max_duration_limit",
            "warm",
            "port",
            "protocol",
        ];
        for (typed, meant) in [
            ("idle_timout", Some("idle_timeout")),
            ("idel_timeout", Some("idle_timeout")),
            ("max_durations", Some("max_duration")),
            ("wram", Some("warm")),
            ("prot", Some("port")),
            ("zzz", None),
            ("", None),
            (&*"x".repeat(100_000), None),
        ] {
            assert_eq!(
                nearest(typed, known),
                meant,
                "{}",
                &typed[..typed.len().min(20)]
            );
        }
    }

    #[test]
    fn a_sentence_has_path_value_place_and_what_is_allowed() {
        let e = ConfigError {
            kind: ErrorKind::Invalid,
            path: "fleet.spice.idle_timeout".into(),
            origin: Origin::File { line: 7 },
            value: Some("0".into()),
            problem: "must be longer than 0, or \"none\"".into(),
        };
        assert_eq!(
            e.to_string(),
            "fleet.spice.idle_timeout = 0 (line 7): must be longer than 0, or \"none\""
        );
    }
}
