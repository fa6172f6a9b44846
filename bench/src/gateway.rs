//! The gateway beside haproxy, nginx and no relay at all, in one run: what a relayed message, an idle player and a handshake cost.
//!
//! Every relay is a process of its own in front of the same echo server (a process too). The gateway is the product's role with token
//! check, activity, metrics, reports and close handles; the others do none of that. Rounds are interleaved in an order drawn anew.

mod echo;
mod memory;
mod part;
mod player;
mod rivals;
mod role;
mod show;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use spawnpoint_wire::token::SigningKey;
use tokio::runtime::Runtime;

pub(crate) use part::Part;

use crate::proc::{family, threads_cpu};
use crate::report::Section;
use crate::stats::Order;
use crate::stopwatch::Mark;
use part::Running;
use player::{ASKED, Crowd, ECHOED};
use rivals::{Installed, Relay, Rival};

/// Players that talk at once under load.
const CROWD: usize = 200;
/// Callers that shake hands at once.
const CALLERS: usize = 32;
/// Rounds that are thrown away: caches fill, threads start.
const WARM_UP: usize = 2;
/// Descriptors a process needs besides those of players.
const OTHER_DESCRIPTORS: u64 = 200;
/// A process that used less CPU time than this ...
const QUIET: Duration = Duration::from_micros(300);
/// ... in this time has nothing more to do.
const QUIET_FOR: Duration = Duration::from_millis(20);
/// What does not settle in this time will not.
const SETTLES: Duration = Duration::from_secs(20);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    /// Messages of the one player in a round.
    pub(crate) messages: usize,
    /// Messages of each player of the crowd in a round.
    pub(crate) talk: usize,
    /// Handshakes in a round.
    pub(crate) handshakes: usize,
    /// Idle players, and players of starting sessions.
    pub(crate) tunnels: usize,
}

impl Size {
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                rounds: 4,
                messages: 500,
                talk: 20,
                handshakes: 400,
                tunnels: 1_000,
            }
        } else {
            Self {
                rounds: 40,
                messages: 2_000,
                talk: 50,
                handshakes: 1_500,
                tunnels: 8_000,
            }
        }
    }
}

/// What was seen of one relay.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Round trips of one player at a time.
    alone: Vec<Duration>,
    alone_cpu: Duration,
    /// Round trips of the crowd.
    crowd: Vec<Duration>,
    crowd_cpu: Duration,
    handshakes: usize,
    handshakes_took: Duration,
    handshakes_cpu: Duration,
}

/// What is measured: a relay, or the game without one.
struct Target {
    name: &'static str,
    address: SocketAddr,
    /// The relay's processes; none without a relay.
    family: Vec<u32>,
    one: TcpStream,
    crowd: Crowd,
    seen: Seen,
}

impl Target {
    fn cpu(&self) -> Result<Duration> {
        threads_cpu(&self.family)
    }
}

pub(crate) fn run(size: Size, progress: &ProgressBar) -> Result<Section> {
    let limit = raise_descriptor_limit()?;
    // A relay needs two for each player.
    let most = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 2)?;
    let size = Size {
        tunnels: size.tunnels.min(most),
        ..size
    };
    ensure!(
        size.tunnels > 2 * CROWD,
        "too few file descriptors: `ulimit -n` allows {limit}"
    );
    let mut installed = Vec::new();
    let mut missing = Vec::new();
    for rival in Rival::ALL {
        match rival.find() {
            Ok(found) => installed.push(found),
            Err(why) => missing.push(why.to_string()),
        }
    }
    progress.set_length((2 * (size.rounds + WARM_UP) + 3 + installed.len()) as u64);
    let key = SigningKey::generate()?;
    let messages = echo_and_handshakes(size, &installed, &key, progress)?;
    let memory = memory::measure(size.tunnels, &installed, &key, progress)?;
    show::section(&show::Results {
        size,
        targets: messages.seen,
        memory,
        checked: messages.checked,
        installed,
        missing,
    })
}

/// The gateway as a process, in front of the game at this address.
fn start_gateway(key: &SigningKey, game: SocketAddr) -> Result<(Running, SocketAddr)> {
    let orders = json!({ "key": key.public().paserk(), "game": game });
    let (running, answer) = Running::start(Part::Gateway, &orders)?;
    let address = serde_json::from_value(answer["address"].clone())?;
    Ok((running, address))
}

struct Messages {
    seen: Vec<(&'static str, Seen)>,
    /// The gateway's own word that nothing was switched off.
    checked: String,
}

fn echo_and_handshakes(
    size: Size,
    installed: &[Installed],
    key: &SigningKey,
    progress: &ProgressBar,
) -> Result<Messages> {
    let (_echo, answer) = Running::start(Part::Echo, &json!({ "ports": 2 + installed.len() }))?;
    let mut games = echo::addresses(&answer)?.into_iter();
    let mut game = || games.next().context("too few ports");
    // Everybody sends the same request, also to those who do not read the token in it.
    let paths = role::paths(key, 0..size.tunnels)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;

    let mut targets = Vec::new();
    targets.push(target(&runtime, "direct", game()?, Vec::new(), &paths)?);
    let (mut gateway, address) = start_gateway(key, game()?)?;
    gateway.ask(&json!({ "live": (0, paths.len()) }))?;
    let processes = family(gateway.pid())?;
    targets.push(target(&runtime, "gateway", address, processes, &paths)?);
    let mut relays: Vec<Relay> = Vec::new();
    for i in installed {
        let relay = i.start(game()?, size.tunnels)?;
        let processes = family(relay.pid())?;
        let name = i.rival.name();
        targets.push(target(&runtime, name, relay.address, processes, &paths)?);
        relays.push(relay);
    }

    let mut order = Order::new(0x6a7e);
    let mut turns: Vec<usize> = (0..targets.len()).collect();
    for round in 0..size.rounds + WARM_UP {
        order.shuffle(&mut turns);
        for turn in &turns {
            if let Some(target) = targets.get_mut(*turn) {
                talk(target, &runtime, size, round < WARM_UP)
                    .with_context(|| format!("talking through {}", target.name))?;
            }
        }
        progress.inc(1);
    }
    let reserved = 1 + CROWD;
    let mut next = reserved;
    for round in 0..size.rounds + WARM_UP {
        order.shuffle(&mut turns);
        if next + size.handshakes > paths.len() {
            next = reserved;
        }
        let callers = paths
            .get(next..next + size.handshakes)
            .context("too few sessions")?;
        next += size.handshakes;
        for turn in &turns {
            if let Some(target) = targets.get_mut(*turn) {
                shake_hands(target, &runtime, callers, round < WARM_UP)
                    .with_context(|| format!("shaking hands through {}", target.name))?;
            }
        }
        progress.inc(1);
    }
    let checked = check(&mut gateway, size)?;
    Ok(Messages {
        seen: targets.into_iter().map(|t| (t.name, t.seen)).collect(),
        checked,
    })
}

fn target(
    runtime: &Runtime,
    name: &'static str,
    address: SocketAddr,
    family: Vec<u32>,
    paths: &[String],
) -> Result<Target> {
    let (first, rest) = paths.split_first().context("no sessions")?;
    let rest = rest.get(..CROWD).context("too few sessions")?;
    let open = |path: &str| player::open(address, path);
    let one = open(first).with_context(|| format!("connecting through {name}"))?;
    let crowd = Crowd::new(runtime, player::each(rest, open)?)?;
    Ok(Target {
        name,
        address,
        family,
        one,
        crowd,
        seen: Seen::default(),
    })
}

fn talk(target: &mut Target, runtime: &Runtime, size: Size, thrown_away: bool) -> Result<()> {
    let before = target.cpu()?;
    let mut alone = Vec::with_capacity(size.messages);
    for _ in 0..size.messages {
        alone.push(player::round_trip(&mut target.one)?);
    }
    let between = target.cpu()?;
    let crowd = target.crowd.talk(runtime, size.talk)?;
    let after = target.cpu()?;
    ensure!(crowd.len() == target.crowd.len() * size.talk, "some echoes");
    if !thrown_away {
        target.seen.alone.extend(alone);
        target.seen.alone_cpu += between.saturating_sub(before);
        target.seen.crowd.extend(crowd);
        target.seen.crowd_cpu += after.saturating_sub(between);
    }
    Ok(())
}

fn shake_hands(
    target: &mut Target,
    runtime: &Runtime,
    paths: &[String],
    thrown_away: bool,
) -> Result<()> {
    let before = target.cpu()?;
    let (all, each) = player::handshakes(runtime, target.address, paths, CALLERS)?;
    // Hanging up is work too.
    settled(&target.family)?;
    let after = target.cpu()?;
    if !thrown_away {
        target.seen.handshakes += each.len();
        target.seen.handshakes_took += all;
        target.seen.handshakes_cpu += after.saturating_sub(before);
    }
    Ok(())
}

/// Waits until these processes have nothing more to do.
fn settled(processes: &[u32]) -> Result<()> {
    let began = Mark::now();
    let mut before = threads_cpu(processes)?;
    loop {
        std::thread::sleep(QUIET_FOR);
        let now = threads_cpu(processes)?;
        if now.saturating_sub(before) < QUIET || began.elapsed() > SETTLES {
            return Ok(());
        }
        before = now;
    }
}

/// The gateway's counters must hold every message and every handshake, and its reports too: else something was measured that is not
/// the product.
fn check(gateway: &mut Running, size: Size) -> Result<String> {
    let rounds = (size.rounds + WARM_UP) as u64;
    let first = 1 + CROWD as u64;
    let messages = rounds * (size.messages + CROWD * size.talk) as u64 + first;
    let handshakes = rounds * size.handshakes as u64 + first;
    let wanted = [
        ("bytes_in", messages * ASKED as u64),
        ("bytes_out", messages * ECHOED as u64),
        ("reported_in", messages * ASKED as u64),
        ("reported_out", messages * ECHOED as u64),
    ];
    let counters = wait_for(gateway, |c| {
        wanted.iter().all(|(name, n)| c[name].as_u64() == Some(*n))
            && c["handshakes"]["ok"].as_u64() == Some(handshakes)
    })
    .context("the gateway's counters do not show what was sent")?;
    Ok(format!(
        "Nothing of the gateway was switched off: it counted {handshakes} handshakes with valid tokens and every byte of {messages} messages \
         each way, and told the control plane the same in {} reports.",
        counters["reports"]
    ))
}

/// Asks for the counters until they are so.
fn wait_for(gateway: &mut Running, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let began = Mark::now();
    loop {
        let counters = gateway.ask(&json!({}))?;
        if so(&counters) {
            return Ok(counters);
        }
        ensure!(began.elapsed() < SETTLES, "they are {counters}");
        std::thread::sleep(QUIET_FOR);
    }
}

/// As many descriptors as we may have; children inherit it.
fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .context("raising the limit of file descriptors")?;
    Ok(most.unwrap_or(u64::MAX))
}
