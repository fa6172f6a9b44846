//! Holds `docs/requirements.md` to its word: every id is there once and in order, every test it names exists and ran and passed,
//! every other thing it names exists. Reads only; `test` records what ran.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use self::document::{Document, Row, State};
use crate::suites::{self, ran::Fate};

const DOCUMENT: &str = "docs/requirements.md";

/// What an evidence cell may refer to.
struct World {
    /// Every test of the recorded runs; `Passed` only if each test of that name passed.
    ran: BTreeMap<String, Fate>,
    /// The suites without a whole run on record.
    unseen: Vec<&'static str>,
    /// The targets of the Makefile.
    targets: BTreeSet<String>,
    /// Whether a file of the repository exists.
    exists: Box<dyn Fn(&str) -> bool>,
}

/// Checks the document and says what is wrong; true when nothing is.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let text = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let document = document::parse(&text);
    let world = World::of(root)?;
    let mut complaints = document.complaints.clone();
    for row in &document.rows {
        complaints.extend(judge(row, &document, &world));
    }
    complaints.extend(count_is_said(&document));
    for complaint in &complaints {
        println!("{DOCUMENT}: {complaint}");
    }
    if !world.unseen.is_empty() {
        println!(
            "not checked: tests of {} (no whole run on record; `make test` makes one)",
            world.unseen.join(", ")
        );
    }
    println!("requirements: {}", document.count());
    Ok(complaints.is_empty())
}

impl World {
    fn of(root: &Path) -> Result<Self> {
        let target = suites::target(root);
        let (mut ran, mut unseen) = (BTreeMap::new(), Vec::new());
        for suite in suites::names() {
            let Some(tests) = suites::ran::recorded(&target, suite)? else {
                unseen.push(suite);
                continue;
            };
            for test in tests {
                let fate = ran.entry(test.name).or_insert(test.fate);
                if test.fate != Fate::Passed {
                    *fate = test.fate;
                }
            }
        }
        let makefile = fs::read_to_string(root.join("Makefile")).context("Makefile")?;
        let root = root.to_owned();
        Ok(Self {
            ran,
            unseen,
            targets: targets(&makefile),
            exists: Box::new(move |path| root.join(path).is_file()),
        })
    }
}

fn targets(makefile: &str) -> BTreeSet<String> {
    let rules = makefile
        .lines()
        .filter(|l| !l.starts_with(['\t', '#', '.']));
    let names = rules.filter_map(|l| l.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// What is wrong with one row.
fn judge(row: &Row, document: &Document, world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let shows = matches!(row.state, State::Done | State::DoneLocally);
    if shows && row.evidence.is_empty() {
        wrong.push("names nothing that shows it".to_owned());
    }
    for named in &row.evidence {
        wrong.extend(missing(named, world));
    }
    let waits = matches!(row.state, State::Later | State::DoneLocally);
    if waits && row.waits.is_empty() {
        wrong.push("does not say what it waits for (`later: …`)".to_owned());
    }
    for thing in &row.waits {
        if !document.awaited.contains(thing) {
            wrong.push(format!(
                "waits for \"{thing}\", which is not in the list above the tables"
            ));
        }
    }
    if matches!(row.state, State::Refused | State::Open) && row.why.is_empty() {
        wrong.push("does not say why".to_owned());
    }
    wrong.iter().map(|w| format!("{}: {w}", row.id)).collect()
}

/// What is wrong with one thing that a row names: a test, a make target or a file.
fn missing(named: &str, world: &World) -> Option<String> {
    if let Some(target) = named.strip_prefix("make ") {
        let target = target.split(' ').next().unwrap_or_default();
        return (!world.targets.contains(target))
            .then(|| format!("`{named}`: the Makefile has no such target"));
    }
    if named.contains(": ") {
        return match world.ran.get(named) {
            Some(Fate::Passed) => None,
            Some(Fate::Failed) => Some(format!("`{named}` failed")),
            Some(Fate::Skipped) => Some(format!("`{named}` was skipped")),
            None if world.unseen.contains(&suite_of(named)) => None,
            None => Some(format!("`{named}` is no test that ran")),
        };
    }
    (!(world.exists)(named)).then(|| {
        format!("`{named}` is neither a file nor `make TARGET` nor a test (`where: name`)")
    })
}

/// The suite that a test belongs to, by the word before its name: what is no suite's is a crate's.
fn suite_of(test: &str) -> &'static str {
    let place = test.split(": ").next().unwrap_or_default();
    suites::names().find(|s| *s == place).unwrap_or("rust")
}

/// The sentence with the numbers of rows in each state must be true.
fn count_is_said(document: &Document) -> Option<String> {
    let count = document.count();
    (document.said.as_deref() != Some(count.as_str()))
        .then(|| format!("must say on a line of its own: Counted: {count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(unseen: &[&'static str]) -> World {
        let ran = [
            ("core: good", Fate::Passed),
            ("core: bad", Fate::Failed),
            ("core: big", Fate::Skipped),
        ];
        World {
            ran: ran.map(|(n, f)| (n.to_owned(), f)).into(),
            unseen: unseen.to_vec(),
            targets: targets("help: ## x\n\tcargo a: b\nmake_it: build\n# no: target\n"),
            exists: Box::new(|path| path == "docs/here.md"),
        }
    }

    fn complaints(line: &str, unseen: &[&'static str]) -> Vec<String> {
        let text = format!("* **Kubernetes**: a cluster\n\n## S0 A (1 rows)\n\n{line}\n");
        let document = document::parse(&text);
        let row = document.rows.first().unwrap();
        judge(row, &document, &world(unseen))
    }

    #[test]
    fn a_row_that_is_done_names_tests_that_passed() {
        let fine = [
            "| S0-01 | a | done | `core: good`, `make help`, `docs/here.md` |",
            "| S0-01 | a | done locally | `core: good`; later: Kubernetes |",
            "| S0-01 | a | later | Kubernetes |",
            "| S0-01 | a | refused | it would harm |",
            "| S0-01 | a | open | too large |",
        ];
        for line in fine {
            assert_eq!(complaints(line, &[]), Vec::<String>::new(), "{line}");
        }
        let wrong = [
            ("| S0-01 | a | done | |", "names nothing"),
            ("| S0-01 | a | done | `core: bad` |", "failed"),
            ("| S0-01 | a | done | `core: big` |", "skipped"),
            ("| S0-01 | a | done | `core: none` |", "no test that ran"),
            ("| S0-01 | a | done | `make nothing` |", "no such target"),
            ("| S0-01 | a | done | `docs/gone.md` |", "neither a file"),
            ("| S0-01 | a | done locally | `core: good` |", "waits for"),
            ("| S0-01 | a | later | |", "waits for"),
            ("| S0-01 | a | later | the weather |", "not in the list"),
            ("| S0-01 | a | refused | |", "does not say why"),
            ("| S0-01 | a | open | |", "does not say why"),
        ];
        for (line, what) in wrong {
            let found = complaints(line, &[]);
            assert!(
                found.len() == 1 && found[0].starts_with("S0-01: ") && found[0].contains(what),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn a_suite_that_did_not_run_is_not_held_against_a_row() {
        let line = "| S0-01 | a | done | `browser: plays` |";
        assert!(complaints(line, &["browser"]).is_empty());
        assert_eq!(complaints(line, &["rust"]).len(), 1);
        let line = "| S0-01 | a | done | `server: plays` |";
        assert!(complaints(line, &["rust"]).is_empty());
        assert_eq!(complaints(line, &["dst"]).len(), 1);
    }
}
