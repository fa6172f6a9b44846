//! Which tests ran, as the test runners say it themselves. Reads their output, runs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What a test runner prints.
#[derive(Clone, Copy, Debug)]
pub(super) enum Runner {
    /// `cargo test`: `Running … (path of the binary)` and `test NAME ... ok`.
    Cargo,
    /// The `spec` reporter of `node --test`; the word stands before the names.
    Node(&'static str),
    /// `python3 -m unittest -v`; the word stands before the names.
    Unittest(&'static str),
}

/// What became of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    Failed,
    /// Ignored or skipped: it exists and shows nothing.
    Skipped,
}

/// A test and its fate. Its name is `where: name`: a crate's directory (`core: session::ends`), or the word of its suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub name: String,
    pub fate: Fate,
}

impl Ran {
    fn new(place: &str, name: &str, fate: Fate) -> Self {
        Self {
            name: format!("{place}: {name}"),
            fate,
        }
    }
}

/// The tests that `output` tells of. `crates` says whose each test binary is ([`crates`]).
pub(super) fn read(runner: Runner, output: &str, crates: &BTreeMap<String, String>) -> Vec<Ran> {
    let plain = without_colours(output);
    match runner {
        Runner::Cargo => cargo(&plain, crates),
        Runner::Node(place) => plain.lines().filter_map(|l| node(place, l)).collect(),
        Runner::Unittest(place) => plain.lines().filter_map(|l| unittest(place, l)).collect(),
    }
}

/// From `cargo test --no-run --message-format=json`: file name of each test binary -> directory name of its crate.
pub(super) fn crates(messages: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let (Some(file), Some(id)) = (
            message["executable"].as_str(),
            message["package_id"].as_str(),
        ) else {
            continue;
        };
        // path+file:///home/me/spawnpoint/crates/core#spawnpoint-core@0.1.0
        let place = id.split('#').next().unwrap_or(id);
        let place = place.rsplit('/').next().unwrap_or(place);
        found.insert(file_name(file).to_owned(), place.to_owned());
    }
    found
}

fn cargo(output: &str, crates: &BTreeMap<String, String>) -> Vec<Ran> {
    let mut found = Vec::new();
    let mut place = "?";
    for line in output.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("Running ") && trimmed.ends_with(')') {
            let binary = trimmed.rsplit('(').next().unwrap_or_default();
            let binary = file_name(binary.trim_end_matches(')'));
            place = crates.get(binary).map_or("?", String::as_str);
        } else if let Some(name) = trimmed.strip_prefix("Doc-tests ") {
            place = name;
        } else if let Some((name, fate)) = test_line(line) {
            found.push(Ran::new(place, name, fate));
        }
    }
    found
}

/// `test NAME ... ok`; what a child of a test wrote before it on the same line is passed over.
fn test_line(line: &str) -> Option<(&str, Fate)> {
    let (before, fate) = line.rsplit_once(" ... ")?;
    let start = before.rfind("test ")?;
    let name = before[start + 5..].trim_end_matches(" - should panic");
    let fate = match fate.split([',', ' ']).next()? {
        "ok" => Fate::Passed,
        "FAILED" => Fate::Failed,
        "ignored" => Fate::Skipped,
        _ => return None,
    };
    Some((name, fate))
}

/// `✔ title (1.5ms)`, `✖ title (1.5ms)`, `﹣ title (1.5ms) # SKIP`; groups are said in the same way.
fn node(place: &str, line: &str) -> Option<Ran> {
    let line = line.trim_start();
    let (mark, rest) = line.split_once(' ')?;
    let (title, after) = rest.rsplit_once(" (")?;
    let (time, remark) = after.split_once("ms)")?;
    time.parse::<f64>().ok()?;
    let fate = match mark {
        "✔" if remark.trim().is_empty() => Fate::Passed,
        "✔" | "﹣" => Fate::Skipped,
        "✖" => Fate::Failed,
        _ => return None,
    };
    Some(Ran::new(place, title, fate))
}

/// `test_name (path.to.Class.test_name) ... ok`: the part in brackets is the name.
fn unittest(place: &str, line: &str) -> Option<Ran> {
    let (test, fate) = line.split_once(" ... ")?;
    let name = test.rsplit_once(" (")?.1.strip_suffix(')')?;
    let fate = match fate.split(' ').next()? {
        "ok" => Fate::Passed,
        "skipped" => Fate::Skipped,
        _ => Fate::Failed,
    };
    Some(Ran::new(place, name, fate))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..start]);
        let code = &rest[start + 2..];
        let end = code.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |e| &code[e + 1..]);
    }
    plain + rest
}

/// Where a run of a suite leaves what ran, until the next one.
fn file(target: &Path, suite: &str) -> PathBuf {
    target.join("suites").join(format!("{suite}.tests"))
}

/// Forgets the run before: a run that is cut short has no results of an older one.
pub(super) fn forget(target: &Path, suite: &str) -> Result<()> {
    match fs::remove_file(file(target, suite)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).context("cannot remove the results of the run before")
        }
        _ => Ok(()),
    }
}

/// Keeps what ran for [`recorded`].
pub(super) fn record(target: &Path, suite: &str, ran: &[Ran]) -> Result<()> {
    let path = file(target, suite);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let lines: String = ran.iter().map(written).collect();
    fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))
}

/// What the last run of a suite left; `None` when it did not come to its end.
pub(crate) fn recorded(target: &Path, suite: &str) -> Result<Option<Vec<Ran>>> {
    let text = match fs::read_to_string(file(target, suite)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context("cannot read the results of a suite"),
    };
    text.lines()
        .map(understood)
        .collect::<Result<_>>()
        .map(Some)
}

fn written(ran: &Ran) -> String {
    let fate = match ran.fate {
        Fate::Passed => "passed",
        Fate::Failed => "failed",
        Fate::Skipped => "skipped",
    };
    format!("{fate}\t{}\n", ran.name)
}

fn understood(line: &str) -> Result<Ran> {
    let Some((fate, name)) = line.split_once('\t') else {
        bail!("not a line of results: {line}");
    };
    let fate = match fate {
        "passed" => Fate::Passed,
        "failed" => Fate::Failed,
        "skipped" => Fate::Skipped,
        _ => bail!("not a line of results: {line}"),
    };
    Ok(Ran {
        name: name.to_owned(),
        fate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ran: &[Ran]) -> Vec<(&str, Fate)> {
        ran.iter().map(|r| (r.name.as_str(), r.fate)).collect()
    }

    #[test]
    fn cargo_says_whose_a_test_is_by_its_binary_alone() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/core#spawnpoint-core@0.1.0","executable":"/t/debug/deps/it-12ab"}
{"reason":"compiler-artifact","package_id":"path+file:///w/games/spice#0.1.0","executable":"/t/debug/deps/it-34cd"}
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/wire#spawnpoint-wire@0.1.0","executable":null}
{"reason":"build-finished","success":true}"#;
        let output = "
   Compiling spawnpoint-core v0.1.0
     Running tests/it/main.rs (/t/debug/deps/it-12ab)

running 3 tests
test session::ends ... ok
said by a child, without an end of line: test lifecycle::warns ... ok
test lifecycle::slow - should panic ... ok
test big ... ignored, takes an hour
     Running tests/it/main.rs (target/debug/deps/it-34cd)
\u{1b}[32mtest two_see ... FAILED\u{1b}[0m
test result: FAILED. 0 passed; 1 failed; 0 ignored
";
        let ran = read(Runner::Cargo, output, &crates(messages));
        assert_eq!(
            names(&ran),
            [
                ("core: session::ends", Fate::Passed),
                ("core: lifecycle::warns", Fate::Passed),
                ("core: lifecycle::slow", Fate::Passed),
                ("core: big", Fate::Skipped),
                ("spice: two_see", Fate::Failed),
            ]
        );
    }

    #[test]
    fn node_says_titles_with_a_mark_and_a_time() {
        let output = "
▶ starting
  ✔ offers (the best) (18.25ms)
  ﹣ waits (0.1ms) # SKIP
✔ starting (20ms)
✖ breaks (1ms)
ℹ tests 3
some log (with brackets)
";
        let ran = read(Runner::Node("web"), output, &BTreeMap::new());
        assert_eq!(
            names(&ran),
            [
                ("web: offers (the best)", Fate::Passed),
                ("web: waits", Fate::Skipped),
                ("web: starting", Fate::Passed),
                ("web: breaks", Fate::Failed),
            ]
        );
    }

    #[test]
    fn unittest_says_the_whole_path_of_a_test() {
        let output = "
test_echo (examples.test_examples.GoEcho.test_echo) ... ok
test_close (examples.test_examples.GoEcho.test_close) ... skipped 'no go'
test_wrong (examples.test_examples.GoEcho.test_wrong) ... FAIL
Ran 3 tests in 1.0s
";
        let ran = read(Runner::Unittest("examples"), output, &BTreeMap::new());
        let name = |test: &str| format!("examples: examples.test_examples.GoEcho.{test}");
        assert_eq!(
            names(&ran),
            [
                (name("test_echo").as_str(), Fate::Passed),
                (name("test_close").as_str(), Fate::Skipped),
                (name("test_wrong").as_str(), Fate::Failed),
            ]
        );
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let ran = Ran::new("core", "a ... test\u{e9}", Fate::Skipped);
        assert_eq!(understood(written(&ran).trim_end()).unwrap(), ran);
        assert!(understood("passed core: x").is_err());
        assert!(understood("perhaps\tcore: x").is_err());
    }
}
