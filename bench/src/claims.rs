//! Instructions per claim, whatever is live.
//!
//! The real server over simulated instances and records in memory, in one thread and virtual time, counted by callgrind. Counting is
//! switched on for [`measured`] only; two runs that differ in the number of claims give the cost of one, with what both have in
//! common cancelled out.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use spawnpoint_core::Clock;
use spawnpoint_core::lifecycle::Policy;
use spawnpoint_runtime::simulated::{SimulatedConfig, SimulatedRuntime, Span};
use spawnpoint_server::config::{Config, FleetConfig, ServerConfig};
use spawnpoint_server::{Deps, Keys, Server, build};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::memory::MemoryRecords;
use spawnpoint_testkit::VirtualClock;
use spawnpoint_wire::link::Report;
use spawnpoint_wire::token::{Keyring, SigningKey};
use tower::ServiceExt;

use crate::proc::{memory, thread_cpu};
use crate::report::{Section, Verdict, bytes, ratio, thousands};
use crate::stats::Samples;

/// Live sessions while claims are counted.
const LIVE: [usize; 3] = [0, 1_000, 10_000];
/// What is promised: a claim with the most sessions live costs at most so many times one with none.
const TARGET: f64 = 1.1;
/// Claims of the two runs.
const FEW: usize = 100;
const MANY: usize = 600;
/// Runs that are not counted, for CPU time and memory.
const PLAIN: usize = 5;
/// Signing the player's and the instance's token, which no number of live sessions changes: counted and not counted, because it is
/// most of a claim and would hide what grows beside it.
const SIGNING: &str = "pasetors::version4::PublicToken::sign";
/// Warm instances of the fleet; each claim's replacement is started and is counted with it.
const WARM: u32 = 32;
/// A simulated boot, and between two claims twice that, so that the pool never runs dry.
const BOOT: Duration = Duration::from_millis(1);
/// Deadlines exist, as in real life, and none is reached.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) live: usize,
    pub(crate) claims: usize,
}

/// The program that is counted: prints memory and CPU time per claim as JSON.
pub(crate) fn claim_loop(load: Load) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    let before = memory(std::process::id())?.resident;
    let bench = runtime.block_on(Bench::start())?;
    runtime.block_on(bench.claims("live", load.live))?;
    let after = memory(std::process::id())?.resident;
    let cpu = thread_cpu()?;
    measured(&runtime, &bench, load.claims)?;
    let cpu = thread_cpu()?.saturating_sub(cpu);
    let live = bench.server.live();
    ensure!(
        live == load.live + load.claims,
        "{live} sessions are live, not {}",
        load.live + load.claims
    );
    let answer = json!({
        "live": load.live, "claims": load.claims, "resident_bytes": after.saturating_sub(before),
        "cpu_us_per_claim": cpu.as_secs_f64() * 1e6 / load.claims.max(1) as f64,
    });
    // As a `kill -9` would: ending all sessions is no part of it and would take longer than the rest.
    bench.server.abandon();
    Ok(answer)
}

/// Counted by name, so it must stay a function.
#[inline(never)]
fn measured(runtime: &tokio::runtime::Runtime, bench: &Bench, claims: usize) -> Result<()> {
    runtime.block_on(bench.claims("counted", claims))
}

struct Bench {
    server: Server,
    public: Router,
}

impl Bench {
    async fn start() -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new());
        let simulated = SimulatedConfig {
            boot: Span::Fixed(BOOT),
            ..SimulatedConfig::default()
        };
        let signing = SigningKey::generate()?;
        let ring = Arc::new(Keyring::new(vec![signing.public().clone()]));
        let deps = Deps {
            runtime: Arc::new(SimulatedRuntime::new(Arc::clone(&clock), simulated)),
            records: Arc::new(MemoryRecords::new()),
            lobby: Arc::new(MemoryLobby::new()),
            clock,
            keys: Keys { signing, ring },
            sdk_url: Some("http://127.0.0.1:8082".into()),
            more_metrics: None,
            tcp: None,
            random: spawnpoint_server::os_random(),
            journal: None,
        };
        let server = build(config()?, deps).await?;
        // A gateway is there and carries nobody.
        let report = Report {
            gateway: "bench".into(),
            sequence: 1,
            full: true,
            sessions: Vec::new(),
        };
        server.link().report(report).await?;
        let public = server.public_router();
        let bench = Self { server, public };
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(bench)
    }

    /// So many claims through the HTTP router, each served warm.
    async fn claims(&self, prefix: &str, count: usize) -> Result<()> {
        for n in 0..count {
            let body = json!({"playerId": format!("{prefix}-{n}")}).to_string();
            let request = Request::post("/api/new-game")
                .header("host", "127.0.0.1:8080")
                .body(Body::from(body))?;
            let response = self.public.clone().oneshot(request).await?;
            ensure!(response.status() == 201, "answered {}", response.status());
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
            ensure!(!body.is_empty(), "an empty answer");
            // Virtual: the replacement boots.
            tokio::time::sleep(BOOT * 2).await;
        }
        Ok(())
    }
}

/// One fleet of simulated game servers, in which nothing ends by itself.
pub(crate) fn config() -> Result<Config> {
    let policy = Policy {
        idle: Some(FAR),
        max: Some(FAR),
        max_limit: Some(FAR),
        join: Some(FAR),
        ..Policy::default()
    };
    let fleet = FleetConfig {
        warm: WARM,
        ..FleetConfig::plain("bench".parse()?, vec!["game".into()], policy)
    };
    Ok(Config {
        server: ServerConfig::in_memory("bench"),
        fleets: vec![Arc::new(fleet)],
        queues: Vec::new(),
    })
}

/// What was found for one number of live sessions.
struct Found {
    live: usize,
    instructions: f64,
    /// Without signing tokens.
    rest: f64,
    cpu_us: f64,
    bytes_per_session: Option<f64>,
}

pub(crate) fn run(quick: bool, progress: &ProgressBar) -> Result<Section> {
    let live: &[usize] = if quick { &LIVE[..2] } else { &LIVE };
    progress.set_length((PLAIN + live.len() * 4) as u64);
    let mut plain = vec![Vec::new(); live.len()];
    for _ in 0..PLAIN {
        for (answers, &live) in plain.iter_mut().zip(live) {
            answers.push(alone(Load { live, claims: MANY })?);
        }
        progress.inc(1);
    }
    let median = |at: usize, key: &str| {
        Samples::new(plain[at].iter().filter_map(|a: &Value| a[key].as_f64())).median()
    };
    let mut found = Vec::new();
    for (at, &live) in live.iter().enumerate() {
        let per_claim = |signing| -> Result<f64> {
            let few = counted(Load { live, claims: FEW }, signing)?;
            progress.inc(1);
            let many = counted(Load { live, claims: MANY }, signing)?;
            progress.inc(1);
            Ok((many - few) as f64 / (MANY - FEW) as f64)
        };
        let (instructions, rest) = (per_claim(true)?, per_claim(false)?);
        ensure!(
            rest < instructions,
            "signing was not found by its name: {SIGNING}"
        );
        // What the process grew by before any session was live is not theirs.
        let grown = median(at, "resident_bytes") - median(0, "resident_bytes");
        found.push(Found {
            live,
            instructions,
            rest,
            cpu_us: median(at, "cpu_us_per_claim"),
            bytes_per_session: (live > 0).then(|| grown / live as f64),
        });
    }
    Ok(section(&found))
}

/// Runs the loop in a process of its own.
fn alone(load: Load) -> Result<Value> {
    let own = std::env::current_exe()?;
    let out = command(Command::new(own), load)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        out.status.success(),
        "the claim loop failed: {}",
        out.status
    );
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn command(mut command: Command, load: Load) -> Command {
    command.args([
        "claim-loop",
        "--live",
        &load.live.to_string(),
        "--claims",
        &load.claims.to_string(),
    ]);
    command
}

/// Runs it under callgrind; the instructions of all claims together, with or without signing.
fn counted(load: Load, signing: bool) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=spawnpoint_bench::claims::measured*")
        // Entered while counting, it stops the count until it is left.
        .args((!signing).then(|| format!("--toggle-collect={SIGNING}")))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?);
    let out = match command(valgrind, load).output() {
        Ok(out) => out,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "instructions are counted by valgrind, which is not installed (Debian: apt-get install valgrind)"
            )
        }
        Err(e) => return Err(e).context("starting valgrind"),
    };
    ensure!(
        out.status.success(),
        "valgrind failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    total(&file)
}

fn total(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let count = parse_total(&text).context("callgrind wrote no total")?;
    ensure!(
        count > 0,
        "callgrind counted nothing: the measured function was not found by its name"
    );
    Ok(count)
}

fn parse_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| {
        l.strip_prefix("totals:")
            .or_else(|| l.strip_prefix("summary:"))
    })?;
    line.split_whitespace().next()?.parse().ok()
}

fn section(found: &[Found]) -> Section {
    let mut s = Section::new(
        "claims",
        "Instructions per claim",
        &[
            "live sessions",
            "instructions per claim",
            "ratio to none",
            "of them without signing",
            "ratio to none",
            "CPU us per claim",
            "server memory per session",
        ],
    );
    s.method = format!(
        "The server in one thread over simulated instances and records in memory, in virtual time: {MANY} calls of `POST /api/new-game` \
         through the HTTP router, each served by a warm instance (pool of {WARM}) whose replacement is started and counted with it. \
         Instructions are callgrind's, for the claims alone: the difference of a run with {MANY} and one with {FEW}, divided. \
         Signing is that of the two tokens a claim needs (the player's, the replacement's), which has nothing to do with how many \
         sessions are live. CPU time is the median of {PLAIN} runs of the same loop without callgrind, and shows what a growing working set costs besides instructions; memory is what the process \
         grew by."
    );
    let none = |f: fn(&Found) -> f64| found.first().map_or(f64::NAN, f);
    let (whole, rest) = (none(|f| f.instructions), none(|f| f.rest));
    for f in found {
        s.rows.push(vec![
            thousands(f.live as f64),
            thousands(f.instructions),
            ratio(f.instructions / whole),
            thousands(f.rest),
            ratio(f.rest / rest),
            format!("{:.0}", f.cpu_us),
            f.bytes_per_session.map(bytes).unwrap_or_default(),
        ]);
    }
    if let Some(last) = found.last() {
        for (part, measured) in [
            ("", last.instructions / whole),
            (" without signing", last.rest / rest),
        ] {
            let live = thousands(last.live as f64);
            let what = format!(
                "instructions per claim{part} with {live} live, as a multiple of those with none"
            );
            s.verdicts.push(Verdict::at_most(&what, measured, TARGET));
        }
    }
    s.data = found
        .iter()
        .map(|f| {
            json!({
                "live": f.live, "instructions": f.instructions, "ratio": f.instructions / whole,
                "without_signing": f.rest, "ratio_without_signing": f.rest / rest,
                "cpu_us": f.cpu_us, "bytes_per_session": f.bytes_per_session,
            })
        })
        .collect::<Vec<_>>()
        .into();
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_callgrind() {
        assert_eq!(
            parse_total("events: Ir\nfn=(1)\nsummary: 123\n\ntotals: 456\n"),
            Some(123)
        );
        assert_eq!(parse_total("totals: 9 8\n"), Some(9));
        assert_eq!(parse_total("nothing"), None);
    }

    #[test]
    fn a_few_claims_go_through() {
        let answer = claim_loop(Load {
            live: 20,
            claims: 40,
        })
        .unwrap();
        assert_eq!(answer["claims"], 40);
    }
}
