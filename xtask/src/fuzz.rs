//! `fuzz`: looks for inputs that break a promise of `fuzz/`, each target for a time, with libFuzzer on the pinned toolchain.
//!
//! What the engine needs to see coverage are passes of LLVM that stable compilers have; no nightly toolchain and no cargo plugin are
//! needed, only a C++ compiler for libFuzzer itself. What it finds is in `target/fuzz-found`, what it learned in `target/fuzz-work`; the
//! last lines of every run are kept in `target/fuzz-last-lines.txt`.

mod kept;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

/// Coverage as libFuzzer wants it: the flags that cargo-fuzz gives, less the sanitizers (there is next to no `unsafe` here, and
/// they need a nightly compiler).
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg",
    "fuzzing",
];
/// An input that takes longer than this has hit something that grows faster than its length, seconds.
const SLOWEST: u32 = 5;
/// Memory of the whole run, MiB; single inputs are held to less by the targets themselves.
const MOST_MEMORY: u32 = 2_048;
/// Files and bytes that are committed for each target at most; the crate's own tests hold the corpora to the same.
const MAX_FILES: usize = 100;
const MAX_BYTES: u64 = 200 * 1024;
/// How long each target is tried unless told otherwise, seconds.
const DEFAULT_SECONDS: u32 = 60;

pub(crate) const USAGE: &str = "\
usage: make fuzz [TIME=60] [TARGETS=\"frames config_file\"] [KEEP=1]
       cargo run -p xtask -- fuzz [--time SECONDS] [--keep] [TARGET...]

  TIME, --time   seconds for each target (60)
  TARGETS        which; every one by default
  KEEP, --keep   afterwards, add what was learned to fuzz/corpus, minimised and within its limits
";

struct Plan {
    seconds: u32,
    keep: bool,
    targets: Vec<String>,
}

/// Runs the targets one after the other.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let plan = plan(root, arguments)?;
    if let Some(missing) = missing() {
        println!("fuzz: {missing}");
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "fuzz: {} targets, {} s each: about {} minutes, after the build",
        plan.targets.len(),
        plan.seconds,
        (plan.targets.len() as u64 * u64::from(plan.seconds)).div_ceil(60),
    );
    let place = Place::of(root);
    let engine = build(root, &place)?;
    let mut lines = Vec::new();
    let mut failed = false;
    for (n, target) in plan.targets.iter().enumerate() {
        println!("\n== {target} ({} of {}) ==", n + 1, plan.targets.len());
        let ran = one(&place, &engine, target, plan.seconds)?;
        failed |= ran.found.is_some();
        if plan.keep && ran.found.is_none() {
            keep(&place, &engine, target)?;
        }
        lines.push(ran.line(target));
        // After each, so that a run that is cut short is not lost.
        fs::write(&place.last_lines, lines.join("\n") + "\n")?;
    }
    println!("\n== last lines ==");
    for line in &lines {
        println!("{line}");
    }
    println!("(kept in {})", place.last_lines.display());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn plan(root: &Path, arguments: &[&str]) -> Result<Plan> {
    let known = known(root)?;
    let mut plan = Plan {
        seconds: DEFAULT_SECONDS,
        keep: false,
        targets: Vec::new(),
    };
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        match argument {
            "--time" => {
                let seconds = rest.next().and_then(|s| s.parse().ok()).filter(|s| *s > 0);
                plan.seconds =
                    seconds.with_context(|| format!("--time takes seconds\n\n{USAGE}"))?;
            }
            "--keep" => plan.keep = true,
            name if known.iter().any(|k| k == name) => plan.targets.push(name.to_owned()),
            other => bail!(
                "there is no target `{other}`; there are: {}\n\n{USAGE}",
                known.join(", ")
            ),
        }
    }
    if plan.targets.is_empty() {
        plan.targets = known;
    }
    Ok(plan)
}

/// Every target has a folder of inputs; the crate's own tests see to it.
fn known(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/corpus")).context("fuzz/corpus is not there")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// What is not there and how to get it.
fn missing() -> Option<&'static str> {
    let compiler = |name: &str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let chosen = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if !compiler(&chosen) {
        return Some(
            "a C++ compiler is missing, libFuzzer is built with it: apt-get install g++ (Debian, Ubuntu), xcode-select --install (macOS)",
        );
    }
    None
}

/// Where things are kept.
struct Place {
    corpus: PathBuf,
    work: PathBuf,
    found: PathBuf,
    logs: PathBuf,
    last_lines: PathBuf,
    target: PathBuf,
}

impl Place {
    fn of(root: &Path) -> Self {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self {
            corpus: root.join("fuzz/corpus"),
            work: target.join("fuzz-work"),
            found: target.join("fuzz-found"),
            logs: target.join("fuzz-logs"),
            last_lines: target.join("fuzz-last-lines.txt"),
            target,
        }
    }
}

/// Builds all targets as one program, for this machine's own triple so that build scripts are left as they are.
fn build(root: &Path, place: &Place) -> Result<PathBuf> {
    let triple = triple()?;
    println!("building the targets with coverage (some minutes the first time)");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--profile",
            "fuzz",
            "--package",
            "spawnpoint-fuzz",
        ])
        .args([
            "--bin",
            "fuzz",
            "--features",
            "libfuzzer",
            "--target",
            &triple,
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the targets do not build");
    }
    Ok(place.target.join(triple).join("fuzz/fuzz"))
}

fn triple() -> Result<String> {
    let out = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// How a run of one target ended.
struct Ran {
    /// The engine's own closing line.
    done: String,
    executions: String,
    /// An input that broke a promise.
    found: Option<String>,
}

impl Ran {
    fn line(&self, target: &str) -> String {
        match &self.found {
            None => format!("{target}: {} ({} executions)", self.done, self.executions),
            Some(file) => format!("{target}: FOUND {file}: {}", self.done),
        }
    }
}

fn command(engine: &Path, target: &str) -> Command {
    let mut command = Command::new(engine);
    command.env("SPAWNPOINT_FUZZ_TARGET", target);
    command
}

fn one(place: &Place, engine: &Path, target: &str, seconds: u32) -> Result<Ran> {
    let (work, found) = (place.work.join(target), place.found.join(target));
    for folder in [&work, &found, &place.logs] {
        fs::create_dir_all(folder)?;
    }
    let mut child = command(engine, target)
        .arg(&work)
        .arg(place.corpus.join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", 66 * 1024))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-rss_limit_mb={MOST_MEMORY}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-report_slow_units=1"])
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the engine")?;
    let mut log = File::create(place.logs.join(format!("{target}.log")))?;
    let mut ran = Ran {
        done: String::new(),
        executions: "0".to_owned(),
        found: None,
    };
    if let Some(told) = child.stderr.take() {
        for line in BufReader::new(told).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(log, "{line}")?;
            hear(&mut ran, &line);
        }
    }
    let status = child.wait()?;
    if !status.success() && ran.found.is_none() {
        ran.found = Some(format!("nothing that was kept ({status})"));
    }
    println!("{}", ran.line(target));
    Ok(ran)
}

/// Picks what matters out of the engine's talk, and shows a little of it.
fn hear(ran: &mut Ran, line: &str) {
    if line.starts_with("Done ") {
        line.clone_into(&mut ran.done);
    } else if let Some(n) = line.strip_prefix("stat::number_of_executed_units:") {
        n.trim().clone_into(&mut ran.executions);
    } else if let Some((_, file)) = line.split_once("Test unit written to ") {
        // A slow unit is reported and survived; what ends the run says so itself.
        if !file.contains("slow-unit-") {
            ran.found = Some(file.trim().to_owned());
        }
        println!("  {line}");
    } else if line.contains("panicked at") || line.starts_with("SUMMARY") || line.contains("ERROR:")
    {
        if ran.done.is_empty() {
            line.clone_into(&mut ran.done);
        }
        println!("  {line}");
    } else if line.contains("\tpulse ") || line.contains("INITED") {
        println!("  {}", line.trim());
    }
}

/// Adds what a run learned to the committed inputs: what covers most, as far as there is room.
fn keep(place: &Place, engine: &Path, target: &str) -> Result<()> {
    let (corpus, work) = (place.corpus.join(target), place.work.join(target));
    let merged = place.work.join(format!("{target}.merged"));
    let control = place.work.join(format!("{target}.merge"));
    let _ = fs::remove_dir_all(&merged);
    let _ = fs::remove_file(&control);
    fs::create_dir_all(&merged)?;
    // Into an empty folder, so that every input is asked what it covers; its own choice is not used.
    let mut named = std::ffi::OsString::from("-merge_control_file=");
    named.push(&control);
    let status = command(engine, target)
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .arg(named)
        .arg(format!("-max_len={}", 66 * 1024))
        .args([&merged, &corpus, &work])
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("merging the inputs of {target} failed");
    }
    let said = fs::read_to_string(&control).context("the merge says what inputs cover")?;
    // The real examples are kept whatever they cover; so is what was found once.
    let (anyway, inputs): (Vec<_>, Vec<_>) = kept::covering(&said)?
        .into_iter()
        .partition(|c| c.path.parent() == Some(&corpus) && is_kept_anyway(&c.path));
    let mut room = kept::Room {
        files: MAX_FILES,
        bytes: MAX_BYTES,
    };
    let mut others = Vec::new();
    for entry in fs::read_dir(&corpus)? {
        let path = entry?.path();
        if is_kept_anyway(&path) {
            room.files = room.files.saturating_sub(1);
            room.bytes = room.bytes.saturating_sub(path.metadata()?.len());
        } else {
            others.push(path);
        }
    }
    let mut chosen = Vec::new();
    for path in kept::choose(&inputs, &anyway, room) {
        let name = path.file_name().context("an input has a name")?.to_owned();
        chosen.push((name, fs::read(&path)?));
    }
    // Read first: some of them are among those that are replaced.
    for path in others {
        fs::remove_file(path)?;
    }
    for (name, content) in &chosen {
        fs::write(corpus.join(name), content)?;
    }
    println!(
        "  kept {} inputs beside {} that always stay in {}",
        chosen.len(),
        MAX_FILES - room.files,
        corpus.display()
    );
    Ok(())
}

/// Real examples, and what was found once.
fn is_kept_anyway(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy());
    name.is_some_and(|n| n.starts_with("seed-") || n.starts_with("found-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Ran {
        let mut ran = Ran {
            done: String::new(),
            executions: String::new(),
            found: None,
        };
        for line in lines {
            hear(&mut ran, line);
        }
        ran
    }

    #[test]
    fn the_engines_talk_is_understood() {
        let fine = heard(&[
            "#2\tINITED cov: 5 ft: 5 corp: 1/1b exec/s: 0 rss: 30Mb",
            "Done 123 runs in 61 second(s)",
            "stat::number_of_executed_units: 123",
        ]);
        assert_eq!(
            fine.line("x"),
            "x: Done 123 runs in 61 second(s) (123 executions)"
        );
        let slow = heard(&["artifact_prefix='f/'; Test unit written to f/slow-unit-1"]);
        assert!(slow.found.is_none());
        let broken = heard(&[
            "thread 'x' panicked at fuzz/src/lib.rs:1:1:",
            "artifact_prefix='f/'; Test unit written to f/crash-1",
        ]);
        assert_eq!(broken.found.as_deref(), Some("f/crash-1"));
    }
}
