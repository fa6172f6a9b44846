//! The registry of generated files. Each is a pure function of the code; the result is committed, so that a reader needs no build
//! and a change shows up in review.
//!
//! To add one: write the function in a module of its own, add a line to [`outputs`].

mod findings;
mod lifecycle;
mod problems;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

/// What a function generates.
enum Part {
    /// The whole file.
    File,
    /// The lines between `<!-- generated: NAME -->` and `<!-- /generated: NAME -->` of a file written by hand.
    Section(&'static str),
}

struct Output {
    path: &'static str,
    part: Part,
    text: fn() -> String,
}

fn outputs() -> Vec<Output> {
    let file = |path, text| Output {
        path,
        part: Part::File,
        text,
    };
    let section = |path, name, text| Output {
        path,
        part: Part::Section(name),
        text,
    };
    vec![
        file(
            "docs/state-machines.md",
            spawnpoint_core::session::table::render,
        ),
        file("docs/problems.md", problems::page),
        section("docs/lifecycle.md", "numbers", lifecycle::numbers),
        section("docs/lifecycle.md", "phases", lifecycle::phases),
        section("docs/lifecycle.md", "reasons", lifecycle::reasons),
        section("docs/lifecycle.md", "limits", lifecycle::limits),
        section("docs/reliability.md", "findings", findings::table),
    ]
}

/// Writes them all.
pub(crate) fn write(root: &Path) -> Result<ExitCode> {
    for output in outputs() {
        let path = root.join(output.path);
        let old = fs::read_to_string(&path).unwrap_or_default();
        let new = output.apply(&old)?;
        if new != old {
            fs::write(&path, new).with_context(|| format!("cannot write {}", output.path))?;
            println!("wrote {}", output.path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares them all; every difference is named.
pub(crate) fn check(root: &Path) -> Result<ExitCode> {
    let mut stale = 0;
    for output in outputs() {
        let path = root.join(output.path);
        let old = fs::read_to_string(&path).unwrap_or_default();
        let new = output.apply(&old)?;
        if let Some(line) = first_difference(&old, &new) {
            eprintln!(
                "{}:{line}: differs from what the code generates",
                output.path
            );
            stale += 1;
        }
    }
    if stale == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nrun `cargo run -p xtask -- gen` and commit the result");
    Ok(ExitCode::FAILURE)
}

impl Output {
    /// The file's text with this output in it.
    fn apply(&self, old: &str) -> Result<String> {
        let new = (self.text)();
        match self.part {
            Part::File => Ok(new),
            Part::Section(name) => {
                replace_section(old, name, &new).with_context(|| self.path.to_owned())
            }
        }
    }
}

fn replace_section(old: &str, name: &str, new: &str) -> Result<String> {
    let open = format!("<!-- generated: {name} -->\n");
    let close = format!("<!-- /generated: {name} -->\n");
    let (Some(from), Some(to)) = (old.find(&open), old.find(&close)) else {
        bail!("the markers of the generated section `{name}` are missing");
    };
    let from = from + open.len();
    if from > to {
        bail!("the markers of the generated section `{name}` are in the wrong order");
    }
    Ok(format!(
        "{}\n{}\n\n{}",
        &old[..from],
        new.trim(),
        &old[to..]
    ))
}

/// The first line that differs, counted from 1.
fn first_difference(old: &str, new: &str) -> Option<usize> {
    if old == new {
        return None;
    }
    let same = old.lines().zip(new.lines()).take_while(|(a, b)| a == b);
    Some(same.count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_between_its_markers_and_nothing_else_is() {
        let old = "a\n<!-- generated: x -->\nold\n<!-- /generated: x -->\nb\n";
        let new = replace_section(old, "x", "new\nlines\n").unwrap();
        assert_eq!(
            new,
            "a\n<!-- generated: x -->\n\nnew\nlines\n\n<!-- /generated: x -->\nb\n"
        );
        assert_eq!(replace_section(&new, "x", "new\nlines\n").unwrap(), new);
        assert!(replace_section("no markers", "x", "new").is_err());
    }

    #[test]
    fn the_first_difference_is_named_by_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }

    /// The committed documents are those of this code: `cargo test` says so even where nobody runs `gen --check`.
    #[test]
    fn committed_files_are_what_the_code_generates() {
        let root = crate::root().unwrap();
        for output in outputs() {
            let old = fs::read_to_string(root.join(output.path)).unwrap();
            let new = output.apply(&old).unwrap();
            assert_eq!(
                first_difference(&old, &new),
                None,
                "{} is stale: run `cargo run -p xtask -- gen`",
                output.path
            );
        }
    }
}
