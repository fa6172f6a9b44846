//! `test`: every suite of the repository, each with what it needs, and at the end which ran, which did not and why.
//!
//! What a suite needs is installed through the ordinary package clients where that can be done without asking (root, or in CI);
//! otherwise the exact command is named. In CI (`CI=true`) nothing may be left out.

//! What ran is kept (`ran`), so that `docs/requirements.md` can be held to it.

pub(crate) mod ran;
mod tee;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use self::ran::{Ran, Runner};

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
    /// In order.
    steps: &'static [Step],
}

struct Step {
    /// The directory to run it in, from the root.
    dir: &'static str,
    command: &'static [&'static str],
    /// Who tells what ran; `None` when the step runs no named tests.
    runner: Option<Runner>,
}

/// A step that runs no tests by name: it succeeds or not.
const fn plain(dir: &'static str, command: &'static [&'static str]) -> Step {
    Step {
        dir,
        command,
        runner: None,
    }
}

/// A step whose runner tells which tests ran.
const fn tests(dir: &'static str, runner: Runner, command: &'static [&'static str]) -> Step {
    Step {
        dir,
        command,
        runner: Some(runner),
    }
}

/// Builds what a player needs.
const COMMAND_AND_GAMES: &[&str] = &[
    "cargo",
    "build",
    "-p",
    "spawnpoint",
    "-p",
    "spice",
    "-p",
    "arena-tcp",
];
const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

const SUITES: &[Suite] = &[
    Suite {
        name: "rust",
        needs: &[],
        steps: &[tests(
            ".",
            Runner::Cargo,
            &["cargo", "test", "--workspace", "--no-fail-fast"],
        )],
    },
    Suite {
        name: "dst",
        needs: &[],
        steps: &[
            tests(
                "crates/dst",
                Runner::Cargo,
                &[
                    "cargo",
                    "test",
                    "-p",
                    "spawnpoint-dst",
                    "--profile",
                    "simulation",
                    "--features",
                    "simulation",
                ],
            ),
            plain(
                "crates/dst",
                &[
                    "cargo",
                    "run",
                    "-q",
                    "-p",
                    "spawnpoint-dst",
                    "--profile",
                    "simulation",
                    "--features",
                    "simulation",
                    "--",
                    "--seeds",
                    "1000",
                ],
            ),
            plain(
                "crates/dst",
                &[
                    "cargo",
                    "run",
                    "-q",
                    "-p",
                    "spawnpoint-dst",
                    "--profile",
                    "simulation",
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
            plain(
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
            plain(
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
            plain(
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
        steps: &[tests(
            "web",
            Runner::Node("web"),
            &["npm", "test", "--silent"],
        )],
    },
    Suite {
        name: "examples",
        needs: &[(&["python3"], "python3"), (&["go"], "golang-go")],
        steps: &[
            plain(".", COMMAND_AND_GAMES),
            tests(
                ".",
                Runner::Unittest("examples"),
                &[
                    "python3",
                    "-m",
                    "unittest",
                    "-v",
                    "examples/test_examples.py",
                    "examples/test_notebook.py",
                    "examples/test_languages.py",
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
            plain(".", COMMAND_AND_GAMES),
            plain("e2e", &["npm", "ci", "--no-audit", "--no-fund"]),
            tests("e2e", Runner::Node("browser"), &["npm", "test", "--silent"]),
        ],
    },
];

/// The suites by name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|s| s.name)
}

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
    if only.is_empty() {
        println!("\n== requirements ==");
        bad |= !crate::requirements::run(root)?;
    } else {
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
    match steps(root, suite) {
        Ok(()) => Outcome::Passed,
        Err(e) => Outcome::Failed(format!("{e:#}")),
    }
}

/// All steps of a suite. What ran is recorded only when all of it passed: half a run shows nothing.
fn steps(root: &Path, suite: &Suite) -> Result<()> {
    ran::forget(&target(root), suite.name)?;
    let mut found = Vec::new();
    for step in suite.steps {
        match step.runner {
            Some(runner) => found.extend(told(root, step, runner)?),
            None => whole(command(root, step)?.status(), step)?,
        }
    }
    ran::record(&target(root), suite.name, &found)
}

/// Runs a step of tests and reads what its runner tells.
fn told(root: &Path, step: &Step, runner: Runner) -> Result<Vec<Ran>> {
    let crates = if matches!(runner, Runner::Cargo) {
        test_binaries(root, step)?
    } else {
        BTreeMap::new()
    };
    let (status, output) = tee::run(&mut command(root, step)?, &mut std::io::stdout())
        .with_context(|| format!("`{}`", step.command.join(" ")))?;
    whole(Ok(status), step)?;
    let ran = ran::read(runner, &output, &crates);
    if ran.is_empty() {
        bail!("`{}` told of no test", step.command.join(" "));
    }
    Ok(ran)
}

/// Builds the tests of a step without running them; only so does cargo tell whose each binary is.
fn test_binaries(root: &Path, step: &Step) -> Result<BTreeMap<String, String>> {
    let built = command(root, step)?
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output();
    let built = built.with_context(|| format!("`{}`", step.command.join(" ")))?;
    whole(Ok(built.status), step)?;
    Ok(ran::crates(&String::from_utf8_lossy(&built.stdout)))
}

fn command(root: &Path, step: &Step) -> Result<Command> {
    let (program, arguments) = step.command.split_first().context("an empty step")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(root.join(step.dir))
        .env("SPAWNPOINT_BIN", target(root).join("debug/spawnpoint"));
    // What cargo says of this program to itself; build scripts that look at it would run again, and half the dependencies with them.
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if ours.iter().any(|o| name.to_string_lossy().starts_with(o)) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

fn whole(status: std::io::Result<std::process::ExitStatus>, step: &Step) -> Result<()> {
    let name = || format!("`{}`", step.command.join(" "));
    let status = status.with_context(name)?;
    if !status.success() {
        bail!("{}: {status}", name());
    }
    Ok(())
}

/// Where cargo puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
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
