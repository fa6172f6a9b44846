//! `test`: every suite of the repository, each with what it needs, and at the end which ran, which did not and why.
//!
//! What a suite needs is installed through the ordinary package clients where that can be done without asking (root, or in CI);
//! otherwise the exact command is named. In CI (`CI=true`) nothing may be left out.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::Result;

/// What became of a suite.
enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
}

struct Suite {
    name: &'static str,
    /// Programs it needs, each with the Debian package that has it.
    needs: &'static [(&'static [&'static str], &'static str)],
    /// Commands, in order, each with its directory.
    steps: &'static [(&'static str, &'static [&'static str])],
}

const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

const SUITES: &[Suite] = &[
    Suite {
        name: "rust",
        needs: &[],
        steps: &[(".", &["cargo", "test", "--workspace", "--no-fail-fast"])],
    },
    Suite {
        name: "dst",
        needs: &[],
        steps: &[
            (
                "crates/dst",
                &[
                    "cargo",
                    "test",
                    "-q",
                    "-p",
                    "spawnpoint-dst",
                    "--features",
                    "simulation",
                ],
            ),
            (
                "crates/dst",
                &[
                    "cargo",
                    "run",
                    "-q",
                    "-p",
                    "spawnpoint-dst",
                    "--features",
                    "simulation",
                    "--",
                    "--seeds",
                    "1000",
                ],
            ),
            (
                "crates/dst",
                &[
                    "cargo",
                    "run",
                    "-q",
                    "-p",
                    "spawnpoint-dst",
                    "--features",
                    "simulation",
                    "--",
                    "--mutants",
                    "--seeds",
                    "100",
                ],
            ),
        ],
    },
    Suite {
        name: "kill-matrix",
        needs: &[],
        steps: &[
            (
                ".",
                &[
                    "cargo",
                    "build",
                    "-q",
                    "-p",
                    "spawnpoint-matrix",
                    "-p",
                    "spice",
                    "-p",
                    "arena-tcp",
                ],
            ),
            (
                ".",
                &[
                    "cargo",
                    "build",
                    "-q",
                    "-p",
                    "spawnpoint",
                    "--features",
                    "faults",
                    "--bin",
                    "spawnpoint-faults",
                ],
            ),
            // Each row once; long enough standing still that culls are held, and no longer.
            (
                ".",
                &[
                    "cargo",
                    "run",
                    "-q",
                    "-p",
                    "spawnpoint-matrix",
                    "--",
                    "--times",
                    "1",
                    "--still",
                    "8",
                ],
            ),
        ],
    },
    Suite {
        name: "web",
        needs: &[(&["node"], "nodejs")],
        steps: &[("web", &["npm", "test", "--silent"])],
    },
    Suite {
        name: "examples",
        needs: &[(&["python3"], "python3"), (&["go"], "golang-go")],
        steps: &[
            (".", &["cargo", "build", "-p", "spawnpoint"]),
            (
                ".",
                &[
                    "python3",
                    "-m",
                    "unittest",
                    "examples/test_examples.py",
                    "examples/test_notebook.py",
                ],
            ),
        ],
    },
    Suite {
        name: "browser",
        needs: &[
            (&["node"], "nodejs"),
            (&["npm"], "npm"),
            (CHROMIUM, "chromium"),
        ],
        steps: &[
            (
                ".",
                &[
                    "cargo",
                    "build",
                    "-p",
                    "spawnpoint",
                    "-p",
                    "spice",
                    "-p",
                    "arena-tcp",
                ],
            ),
            ("e2e", &["npm", "ci", "--no-audit", "--no-fund"]),
            ("e2e", &["npm", "test", "--silent"]),
        ],
    },
];

/// Runs the named suites, or all.
pub(crate) fn run(root: &Path, only: &[&str]) -> Result<ExitCode> {
    let strict = std::env::var_os("CI").is_some();
    if let Some(unknown) = only.iter().find(|n| SUITES.iter().all(|s| s.name != **n)) {
        let known: Vec<_> = SUITES.iter().map(|s| s.name).collect();
        anyhow::bail!(
            "there is no suite `{unknown}`; there are: {}",
            known.join(", ")
        );
    }
    let mut results = Vec::new();
    for suite in SUITES
        .iter()
        .filter(|s| only.is_empty() || only.contains(&s.name))
    {
        println!("\n== {} ==", suite.name);
        #[expect(
            clippy::disallowed_methods,
            reason = "shown to people, decides nothing"
        )]
        let start = Instant::now();
        let outcome = one(root, suite);
        results.push((suite.name, start.elapsed().as_secs(), outcome));
    }
    println!("\n== suites ==");
    let mut bad = false;
    for (name, seconds, outcome) in &results {
        match outcome {
            Outcome::Passed => println!("  ran and passed   {name} ({seconds} s)"),
            Outcome::Failed(why) => {
                bad = true;
                println!("  ran and FAILED   {name} ({seconds} s): {why}");
            }
            Outcome::LeftOut(why) => {
                bad |= strict;
                println!("  left out         {name}: {why}");
            }
        }
    }
    if !only.is_empty() {
        println!("  (only what was asked for)");
    }
    Ok(if bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn one(root: &Path, suite: &Suite) -> Outcome {
    for (programs, package) in suite.needs {
        if !present(programs) && !install(package) {
            let why = format!(
                "{} is missing: apt-get install {package}",
                programs.join(" or ")
            );
            return Outcome::LeftOut(why);
        }
        if !present(programs) {
            return Outcome::LeftOut(format!(
                "{package} was installed and {} is still not in PATH",
                programs.join(" or ")
            ));
        }
    }
    for (dir, command) in suite.steps {
        let Some((program, arguments)) = command.split_first() else {
            continue;
        };
        let status = Command::new(program)
            .args(arguments)
            .current_dir(root.join(dir))
            .env("SPAWNPOINT_BIN", built(root))
            .status();
        match status {
            Ok(s) if s.success() => {}
            Ok(s) => return Outcome::Failed(format!("`{}`: {s}", command.join(" "))),
            Err(e) => return Outcome::Failed(format!("`{}`: {e}", command.join(" "))),
        }
    }
    Outcome::Passed
}

/// Where cargo puts the command that the browser tests drive.
fn built(root: &Path) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("debug/spawnpoint")
}

fn present(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| programs.iter().any(|p| dir.join(p).is_file()))
}

/// Installs a Debian package when that needs no question: as root. Says what it does.
fn install(package: &str) -> bool {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.starts_with(b"0\n"));
    if !root || !present(&["apt-get"]) {
        return false;
    }
    println!("installing {package} (apt-get install {package})");
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    apt(&["update", "-qq"]);
    apt(&["install", "-y", "-qq", "--no-install-recommends", package])
}
