//! The tables of `docs/requirements.md`, read into rows. Knows its form, and nothing of what it names.

use std::collections::{BTreeMap, BTreeSet};

/// How many rows each table has: none may be lost.
const SECTIONS: &[(&str, usize)] = &[
    ("S0", 39),
    ("S1", 49),
    ("S2", 25),
    ("S3", 88),
    ("S4", 115),
    ("C", 39),
    ("F", 13),
    ("W", 71),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Done,
    DoneLocally,
    Later,
    Refused,
    Open,
}

impl State {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Done, "done"),
        (Self::DoneLocally, "done locally"),
        (Self::Later, "later"),
        (Self::Refused, "refused"),
        (Self::Open, "open"),
    ];

    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, t)| *t == text).map(|(s, _)| *s)
    }
}

pub(super) struct Row {
    pub id: String,
    pub state: State,
    /// What stands in backticks in the last cell.
    pub evidence: Vec<String>,
    /// What it waits for.
    pub waits: Vec<String>,
    /// The last cell as it stands.
    pub why: String,
}

pub(super) struct Document {
    pub rows: Vec<Row>,
    /// What a row may wait for: the bold words of the list before the tables.
    pub awaited: BTreeSet<String>,
    /// What the line `Counted: …` says.
    pub said: Option<String>,
    /// What is wrong with the form.
    pub complaints: Vec<String>,
}

impl Document {
    /// How many rows are in each state, as the document has to say it.
    pub(super) fn count(&self) -> String {
        let mut counts = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.state).or_insert(0_usize) += 1;
        }
        let each = State::ALL.iter().map(|(state, text)| {
            let n = counts.get(state).copied().unwrap_or(0);
            format!("{n} {text}")
        });
        let each: Vec<_> = each.collect();
        format!("{} rows: {}", self.rows.len(), each.join(", "))
    }
}

/// Reads the document; what does not fit becomes a complaint, never silence.
pub(super) fn parse(text: &str) -> Document {
    let mut document = Document {
        rows: Vec::new(),
        awaited: BTreeSet::new(),
        said: None,
        complaints: Vec::new(),
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("* **") {
            let word = rest.split("**").next().unwrap_or_default();
            document.awaited.insert(word.to_owned());
        } else if let Some(count) = line.strip_prefix("Counted: ") {
            document.said = Some(count.trim_end_matches('.').to_owned());
        } else if is_row(line) {
            match row(line) {
                Ok(row) => document.rows.push(row),
                Err(why) => document.complaints.push(why),
            }
        }
    }
    document.complaints.extend(lost_or_doubled(&document.rows));
    document
}

/// A line of a table whose first cell begins with the letter of a section.
fn is_row(line: &str) -> bool {
    line.strip_prefix("| ").is_some_and(|l| {
        SECTIONS
            .iter()
            .any(|(s, _)| l.starts_with(&format!("{s}-")))
    })
}

fn row(line: &str) -> Result<Row, String> {
    let inner = line.trim().trim_start_matches('|');
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let [id, what, state, shown, ""] = cells.as_slice() else {
        return Err(format!("not four cells: {line}"));
    };
    let Some(state) = State::from_text(state) else {
        return Err(format!("{id}: there is no state \"{state}\""));
    };
    if what.is_empty() {
        return Err(format!("{id}: does not say what it asks"));
    }
    let awaited = match state {
        State::Later => Some(*shown),
        State::DoneLocally => shown.split_once("later: ").map(|(_, after)| after),
        State::Done | State::Refused | State::Open => None,
    };
    // Words after a semicolon explain.
    let awaited = awaited
        .and_then(|a| a.split(';').next())
        .unwrap_or_default();
    let waits = awaited.split(", ").filter(|w| !w.is_empty());
    Ok(Row {
        id: (*id).to_owned(),
        state,
        evidence: quoted(shown),
        waits: waits.map(str::to_owned).collect(),
        why: (*shown).to_owned(),
    })
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<String> {
    let inside = cell.split('`').skip(1).step_by(2);
    inside.map(str::to_owned).collect()
}

/// Every id of every section is there once, and they are in order.
fn lost_or_doubled(rows: &[Row]) -> Vec<String> {
    let expected = SECTIONS
        .iter()
        .flat_map(|(section, n)| (1..=*n).map(move |i| format!("{section}-{i:02}")));
    let expected: Vec<String> = expected.collect();
    let known: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for row in rows {
        if !known.contains(row.id.as_str()) {
            wrong.push(format!("{}: there is no such id", row.id));
        } else if !seen.insert(row.id.as_str()) {
            wrong.push(format!("{}: there twice", row.id));
        }
    }
    let lost = expected.iter().filter(|id| !seen.contains(id.as_str()));
    wrong.extend(lost.map(|id| format!("{id}: missing")));
    if wrong.is_empty() {
        let misplaced = rows.iter().zip(&expected).find(|(row, id)| row.id != **id);
        wrong.extend(misplaced.map(|(row, id)| format!("{}: here belongs {id}", row.id)));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_cell_by_cell() {
        let line = "| S1-12 | names of `games` | done locally | `core: a`, `web: b (c)`; later: Kubernetes, TLS; on two nodes |";
        let row = row(line).unwrap();
        assert_eq!((row.id.as_str(), row.state), ("S1-12", State::DoneLocally));
        assert_eq!(row.evidence, ["core: a", "web: b (c)"]);
        assert_eq!(row.waits, ["Kubernetes", "TLS"]);
    }

    #[test]
    fn what_is_no_row_is_named() {
        let lines = [
            ("| S1-12 | a | done |", "not four cells"),
            ("| S1-12 | a | perhaps | `core: a` |", "no state"),
            ("| S1-12 | | done | `core: a` |", "what it asks"),
        ];
        for (line, what) in lines {
            let document = parse(line);
            assert!(document.complaints[0].contains(what), "{line}");
        }
    }

    #[test]
    fn a_lost_doubled_unknown_or_misplaced_id_is_named() {
        let whole: Vec<String> = SECTIONS
            .iter()
            .flat_map(|(s, n)| (1..=*n).map(move |i| format!("| {s}-{i:02} | a | open | b |")))
            .collect();
        let complaints = |lines: &[String]| parse(&lines.join("\n")).complaints;
        assert!(complaints(&whole).is_empty());
        assert!(
            parse(&whole.join("\n"))
                .count()
                .starts_with("439 rows: 0 done")
        );

        let mut lost = whole.clone();
        let taken = lost.remove(40);
        assert_eq!(complaints(&lost), ["S1-02: missing"]);
        lost.push(taken.clone());
        assert_eq!(complaints(&lost), ["S1-03: here belongs S1-02"]);
        lost.push(taken);
        assert_eq!(complaints(&lost), ["S1-02: there twice"]);
        let mut more = whole;
        more.push("| W-72 | a | open | b |".to_owned());
        assert_eq!(complaints(&more), ["W-72: there is no such id"]);
    }
}
