//! The table.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::row::Row;

const BEGIN: &str = "<!-- kill matrix: begin -->";
const END: &str = "<!-- kill matrix: end -->";

/// How often a row was run, and what went wrong.
pub(crate) struct Score {
    pub(crate) row: Row,
    pub(crate) runs: usize,
    pub(crate) failures: Vec<String>,
}

impl Score {
    pub(crate) fn new(row: Row) -> Self {
        Self {
            row,
            runs: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, done: Result<(), String>) {
        self.runs += 1;
        self.failures.extend(done.err());
    }
}

/// The table, and before it how it came about.
pub(crate) fn table(scores: &[Score], left_out: &[(Row, String)], heading: &str) -> String {
    let mut out = format!(
        "{heading}\n\n| killed, or wrong | where | runs | as promised |\n|---|---|---|---|\n"
    );
    for s in scores {
        let good = s.runs - s.failures.len();
        let good = if good == s.runs {
            good.to_string()
        } else {
            format!("**{good}**")
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {good} |",
            s.row.who(),
            s.row.at(),
            s.runs
        );
    }
    for (row, _) in left_out {
        let _ = writeln!(
            out,
            "| {} | {} | 0 | left out: not permitted here |",
            row.who(),
            row.at()
        );
    }
    out
}

/// The document with this table between its markers.
pub(crate) fn put(page: &str, table: &str) -> Result<String> {
    let missing = || format!("the document has no `{BEGIN}` ... `{END}`");
    let (before, rest) = page.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_failed_and_replaces_what_was_there() {
        let mut score = Score::new(Row::Point("record.drafted"));
        score.add(Ok(()));
        score.add(Err("lost".to_owned()));
        let table = table(&[score], &[], "Twice.");
        assert!(
            table.contains("| `up` | `record.drafted` | 2 | **1** |"),
            "{table}"
        );
        let page = put(&format!("a\n{BEGIN}\nold\n{END}\nb"), &table).unwrap();
        assert!(page.starts_with("a\n") && page.ends_with("\nb") && !page.contains("old"));
        assert!(put("nothing", &table).is_err());
    }
}
