//! House rules that clippy cannot see. Each rule is a function of the tracked files; findings name file, line and what to do.

mod rules;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

/// A tracked file.
struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    /// Its text; `None` when it is not UTF-8.
    text: Option<String>,
}

/// Something a rule has to say.
struct Finding {
    path: String,
    /// Counted from 1; 0 for the file as a whole.
    line: usize,
    what: String,
    /// Does not fail the task.
    warning: bool,
}

impl Finding {
    fn error(file: &File, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            what: what.into(),
            warning: false,
        }
    }

    fn warning(file: &File, what: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::error(file, 0, what)
        }
    }
}

/// Checks everything.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let files = tracked(root)?;
    let exists = |path: &str| root.join(path).exists();
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(rules::text_is_utf8(file));
        findings.extend(rules::nothing_half_built(file));
        findings.extend(rules::files_fit_in_a_head(file));
        findings.extend(rules::only_the_command_line_prints(file));
        findings.extend(rules::no_path_of_one_machine(file));
        findings.extend(rules::links_resolve(file, &exists));
        findings.extend(rules::nothing_that_ships_can_be_told_to_die(file));
        findings.extend(rules::architecture_names_what_exists(file, &exists));
    }
    for (package, banned) in rules::WALLS {
        findings.extend(rules::wall_holds(
            package,
            banned,
            &dependencies(root, package)?,
        ));
    }
    let mut errors = 0;
    for f in &findings {
        let kind = if f.warning { "warning: " } else { "" };
        let line = if f.line > 0 {
            format!(":{}", f.line)
        } else {
            String::new()
        };
        eprintln!("{}{line}: {kind}{}", f.path, f.what);
        errors += usize::from(!f.warning);
    }
    let warnings = findings.len() - errors;
    println!(
        "tidy: {} files, {errors} errors, {warnings} warnings",
        files.len()
    );
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tracked(root: &Path) -> Result<Vec<File>> {
    let out = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("git is needed to list the tracked files")?;
    if !out.status.success() {
        bail!(
            "git ls-files: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    let names = String::from_utf8(out.stdout).context("a file name is not UTF-8")?;
    let mut files = Vec::new();
    for path in names.split('\0').filter(|p| !p.is_empty()) {
        if path.starts_with(rules::INPUTS) {
            continue;
        }
        // Deleted and not committed yet, or a link to a directory: nothing to read.
        let Ok(bytes) = fs::read(root.join(path)) else {
            continue;
        };
        files.push(File {
            path: path.to_owned(),
            text: String::from_utf8(bytes).ok(),
        });
    }
    Ok(files)
}

/// The names of all crates that this one is built from, transitively.
fn dependencies(root: &Path, package: &str) -> Result<Vec<String>> {
    let args = [
        "tree",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
    ];
    let out = Command::new(env!("CARGO"))
        .args(args)
        .arg(package)
        .current_dir(root)
        .output()
        .context("cannot run cargo tree")?;
    if !out.status.success() {
        bail!(
            "cargo tree: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    let text = String::from_utf8(out.stdout).context("cargo tree is not UTF-8")?;
    let names = text.lines().filter_map(|l| l.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}
