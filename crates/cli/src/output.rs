//! What the terminal sees: lines, tables and JSON, colours only where a person looks.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use spawnpoint_server::config::show_duration;

use crate::args::Format;
use crate::exit::Failure;

/// One line on standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Bytes on standard output as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// One line on standard error. Nothing can be done when that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error on standard error.
pub(crate) fn complain(text: &str) {
    let word = paint(io::stderr().is_terminal(), "31;1", "error");
    note(&format!("{word}: {text}"));
}

/// A line that replaces itself while something goes on; on a terminal only, else it is left out but for its last state.
pub(crate) struct Progress {
    shown: bool,
    live: bool,
    last: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            shown: false,
            live: io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    /// Shows this instead of what was there.
    pub(crate) fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        text.clone_into(&mut self.last);
        if self.live {
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K{text}");
            self.shown = true;
        } else {
            note(text);
        }
    }

    /// Ends the line.
    pub(crate) fn end(&mut self) {
        if self.shown {
            note("");
            self.shown = false;
        }
    }
}

/// Whether colours are wanted on standard output: a terminal, and `NO_COLOR` is not set.
pub(crate) fn coloured() -> bool {
    io::stdout().is_terminal()
}

/// The text in this style, if it is shown to a person who did not refuse colours (<https://no-color.org>).
pub(crate) fn paint(terminal: bool, style: &str, text: &str) -> String {
    if terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) {
        format!("\u{1b}[{style}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Bold on standard output.
pub(crate) fn bold(text: &str) -> String {
    paint(coloured(), "1", text)
}

/// Shows a JSON value or, for people, what `table` makes of it.
pub(crate) fn show(
    format: Format,
    value: &Value,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Json => json(value),
        Format::Table => line(&table()),
    }
}

/// A JSON value, indented.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?)
}

/// A JSON value on one line, for streams.
pub(crate) fn json_line(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// Rows under headings, without borders: easy to read, to copy and to cut.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|c| printable(c)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    if let Some(first) = lines.first_mut() {
        *first = bold(first);
    }
    lines.join("\n")
}

/// Names and values below each other; rows without a value are left out.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    highlighting("", pairs)
}

/// The same, with the value that people look for in bold.
pub(crate) fn highlighting(row: &str, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let shown = printable(value);
        let shown = if *name == row { bold(&shown) } else { shown };
        format!("{name}{}  {shown}", " ".repeat(width - name.len()))
    };
    let lines: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(line)
        .collect();
    lines.join("\n")
}

/// Without control characters: what others chose (player ids, logs' words) must not move our cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// A duration for people: to the second, or to the millisecond below ten of them.
pub(crate) fn rough(d: Duration) -> String {
    if d < Duration::from_secs(10) {
        format!("{:.1}s", d.as_secs_f64())
    } else {
        show_duration(Duration::from_secs(d.as_secs()))
    }
}

/// How far away an RFC 3339 time is: `in 4m10s`, `2s ago`; empty for none.
pub(crate) fn distance(at: Option<&str>, now: jiff::Timestamp) -> String {
    let Some(at) = at.and_then(|t| t.parse::<jiff::Timestamp>().ok()) else {
        return String::new();
    };
    let ms = at.as_millisecond() - now.as_millisecond();
    let d = rough(Duration::from_secs(ms.unsigned_abs().div_ceil(1000)));
    if ms >= 0 {
        format!("in {d}")
    } else {
        format!("{d} ago")
    }
}

/// Now, for [`distance`].
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_and_hold_no_control_characters() {
        let t = table(
            &["A", "LONGER"],
            vec![
                vec!["x\u{1b}[31m".into(), "1".into()],
                vec!["yy".into(), String::new()],
            ],
        );
        assert_eq!(t, "A       LONGER\nx\u{fffd}[31m  1\nyy");
    }

    #[test]
    fn distances_are_for_people() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(distance(Some("2026-01-01T00:04:10Z"), now), "in 4m10s");
        assert_eq!(distance(Some("2025-12-31T23:59:58Z"), now), "2.0s ago");
        assert_eq!(distance(Some("nonsense"), now), "");
        assert_eq!(distance(None, now), "");
    }
}
