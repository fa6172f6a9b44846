//! Values as they were written, wherever that was: a file, a variable or a flag. No meaning yet; that is [`super::convert`]'s.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ErrorKind, Origin};

/// Largest configuration file read, bytes: far above any real one, far below what would hurt.
pub const MAX_FILE: usize = 1024 * 1024;

/// A value and the line it stands on (1 is the first; 0 when it comes from no file).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: usize,
}

/// A value without its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Quoted in a file: text and nothing else.
    Text(String),
    /// From a variable or a flag: whatever the key takes, spelled as text.
    Loose(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// A list.
    List(Vec<Node>),
    /// A table, names as written.
    Table(Vec<(String, Node)>),
    /// What no key takes, named for the error.
    Other(&'static str),
}

impl Value {
    /// As it is shown in errors and listings: one line, cut to a length that fits a terminal.
    pub(super) fn shown(&self) -> String {
        let full = match self {
            Self::Text(s) => format!("{s:?}"),
            Self::Loose(s) => s.escape_debug().to_string(),
            Self::Integer(i) => i.to_string(),
            Self::Float(f) => f.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::List(items) => {
                let inner: Vec<String> = items
                    .iter()
                    .take(MAX_SHOWN)
                    .map(|n| n.value.shown())
                    .collect();
                format!("[{}]", inner.join(", "))
            }
            Self::Table(pairs) => {
                let inner: Vec<String> = pairs
                    .iter()
                    .take(MAX_SHOWN)
                    .map(|(k, n)| format!("{} = {}", k.escape_debug(), n.value.shown()))
                    .collect();
                format!("{{{}}}", inner.join(", "))
            }
            Self::Other(what) => (*what).to_owned(),
        };
        if full.chars().count() > MAX_SHOWN {
            full.chars()
                .take(MAX_SHOWN - 3)
                .chain("...".chars())
                .collect()
        } else {
            full
        }
    }

    /// A value from a variable or flag for a key that takes lists or tables: TOML when it looks like it, else `None`.
    pub(super) fn structured(text: &str) -> Option<Result<Self, String>> {
        let text = text.trim();
        if !text.starts_with(['[', '{']) {
            return None;
        }
        Some(match DeValue::parse(text) {
            Ok(v) => Ok(node(&v, &Lines::new("")).value),
            Err(e) => Err(format!("not valid TOML ({})", e.message())),
        })
    }
}

/// Longest value shown in an error, characters.
const MAX_SHOWN: usize = 80;

/// Parses a file into its top-level entries. Every syntax error is collected; what could be read is returned all the same.
///
/// The parser's own error text quotes the line, which may hold a secret: only its message and place are used.
pub(super) fn parse_file(text: &str, errors: &mut Vec<ConfigError>) -> Vec<(String, Node)> {
    if text.len() > MAX_FILE {
        errors.push(ConfigError {
            kind: ErrorKind::Syntax,
            path: String::new(),
            origin: Origin::File { line: 1 },
            value: None,
            problem: format!(
                "the file has {} bytes; at most {MAX_FILE} are read",
                text.len()
            ),
        });
        return Vec::new();
    }
    let lines = Lines::new(text);
    let (table, problems) = DeTable::parse_recoverable(text);
    for e in problems {
        errors.push(ConfigError {
            kind: ErrorKind::Syntax,
            path: String::new(),
            origin: Origin::File {
                line: e.span().map_or(1, |s| lines.of(s.start)),
            },
            value: None,
            problem: format!(
                "not valid TOML: {}",
                e.message().lines().collect::<Vec<_>>().join(", ")
            ),
        });
    }
    entries(table.get_ref(), &lines)
}

fn entries(table: &DeTable<'_>, lines: &Lines) -> Vec<(String, Node)> {
    table
        .iter()
        .map(|(k, v)| {
            let mut n = node(v, lines);
            // A table's own span may begin at its first key; the key's place is what a person looks for.
            if !matches!(n.value, Value::List(_)) {
                n.line = lines.of(k.span().start);
            }
            (k.get_ref().to_string(), n)
        })
        .collect()
}

fn node(v: &Spanned<DeValue<'_>>, lines: &Lines) -> Node {
    let value = match v.get_ref() {
        DeValue::String(s) => Value::Text(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
            .map_or(Value::Other("a number that is too large"), Value::Integer),
        DeValue::Float(f) => f
            .as_str()
            .parse()
            .map_or(Value::Other("not a number"), Value::Float),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(items.iter().map(|i| node(i, lines)).collect()),
        DeValue::Table(t) => Value::Table(entries(t, lines)),
    };
    Node {
        value,
        line: lines.of(v.span().start),
    }
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(
                    text.bytes()
                        .enumerate()
                        .filter(|(_, b)| *b == b'\n')
                        .map(|(i, _)| i + 1),
                )
                .collect(),
        )
    }

    fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let mut errors = Vec::new();
        let top = parse_file(
            "a = 1\n\n[[b]]\nc = \"x\"\n[[b]]\nc = [1,\n 2]\n",
            &mut errors,
        );
        assert_eq!(errors, []);
        assert_eq!(top[0].1.line, 1);
        let Value::List(b) = &top[1].1.value else {
            panic!("{top:?}")
        };
        let Value::Table(second) = &b[1].value else {
            panic!("{top:?}")
        };
        assert_eq!(second[0].1.value.shown(), "[1, 2]");
        assert_eq!((b[0].line, b[1].line), (3, 5));
    }

    #[test]
    fn every_syntax_error_is_found_and_no_line_is_quoted() {
        let mut errors = Vec::new();
        parse_file("keys = [\"ci:very-secret-value\"\nx = = 1\n", &mut errors);
        assert!(!errors.is_empty());
        assert!(
            errors
                .iter()
                .all(|e| !e.to_string().contains("very-secret")),
            "{errors:?}"
        );
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(
            Value::Text("x".repeat(1000)).shown().chars().count(),
            MAX_SHOWN
        );
        assert_eq!(
            Value::Text("a\u{1b}[31m\n".into()).shown(),
            r#""a\u{1b}[31m\n""#
        );
    }
}
