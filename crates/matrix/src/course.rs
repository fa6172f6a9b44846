//! One run of one row: a place with players in it, the blow, the restart, and the proof that nothing came of it.

use std::time::Duration;

use rustix::process::Signal;

use crate::clock::{Chance, eventually, interrupted, pass};
use crate::crowd::{Crowd, Ledger, STAYERS};
use crate::machine::{self, Kind};
use crate::proof::{self, Stayed};
use crate::row::{Row, Trouble, Victims};
use crate::site::{PATIENCE, Programs, STAY, Site, Started};
use crate::trouble;

/// Games that were started since something happened: enough to say that it serves.
const GOES_ON: usize = 4;
/// A moment of chance lies within this, ms.
const MOMENT_MS: u64 = 900;

/// What a run needs to know.
pub(crate) struct Plan<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) row: Row,
    /// Which of the places that are used at the same time.
    pub(crate) slot: u16,
    pub(crate) seed: u64,
    /// How long everything stands still.
    pub(crate) still: Duration,
    /// Where the log of a failed run is kept.
    pub(crate) logs: &'a std::path::Path,
}

/// Runs it. The error says what was wrong; the log of `up` is kept then.
pub(crate) fn run(plan: &Plan<'_>) -> Result<(), String> {
    let mut chance = Chance::seeded(plan.seed);
    // Without a heartbeat's hold after a long pause, whoever stays would be idle by this.
    let idle_soon = "idle_timeout = \"4s\"\nwarnings = []";
    let stay = if plan.row == Row::Trouble(Trouble::StandStill) {
        idle_soon
    } else {
        STAY
    };
    let mut site = Site::new(plan.programs, plan.slot, stay, &mut chance)?;
    let done = course(plan, &mut site, &mut chance);
    done.map_err(|e| {
        if interrupted() {
            return e;
        }
        let name = plan.row.name().replace([' ', '.', ','], "-");
        let kept = plan.logs.join(format!("{name}-{}.log", plan.seed));
        site.keep_log(&kept);
        format!("{e}\n  the log: {}", kept.display())
    })
}

fn course(plan: &Plan<'_>, site: &mut Site, chance: &mut Chance) -> Result<(), String> {
    match plan.row {
        Row::Point(point) => {
            let nth = 1 + chance.below(plan.row.passes());
            at_a_point(site, chance, point, nth)
        }
        Row::Kill(victims) => at_any_moment(site, chance, victims),
        Row::Trouble(Trouble::DiskFull) => disk_full(site, chance),
        Row::Trouble(Trouble::RecordsReadOnly) => records_read_only(site, chance),
        Row::Trouble(Trouble::WallForward) => wall(site, chance, 3_600),
        Row::Trouble(Trouble::WallBack) => wall(site, chance, -3_600),
        Row::Trouble(Trouble::StandStill) => stand_still(site, chance, plan.still),
        Row::Control => control(site, chance),
    }
}

/// The variables that arm a point.
fn armed(site: &Site, point: &str, nth: u64) -> Vec<(&'static str, String)> {
    vec![
        ("SPAWNPOINT_FAULT", format!("{point}:{nth}")),
        (
            "SPAWNPOINT_FAULT_PASSES",
            site.file("passes").display().to_string(),
        ),
    ]
}

fn passes(site: &Site) -> u64 {
    std::fs::metadata(site.file("passes")).map_or(0, |m| m.len())
}

fn at_a_point(site: &mut Site, chance: &mut Chance, point: &str, nth: u64) -> Result<(), String> {
    let switch = armed(site, point, nth);
    // Now and then the very first start; else in the midst of games, which a start takes over.
    let fresh = point != "revive.listed" && chance.below(4) == 0;
    let mut crowd = if fresh {
        None
    } else {
        let crowd = busy(site, chance, &[])?;
        site.kill()?;
        Some(crowd)
    };
    // It may be deadly before anybody is told that it is ready.
    if let Started::Died(status) = site.start(&switch)?
        && passes(site) < nth
    {
        return Err(format!("up did not start: {status}\n{}", site.log_end()));
    }
    let crowd = crowd.get_or_insert_with(|| Crowd::start(site, chance));
    eventually(&format!("pass {nth} of {point}"), PATIENCE, || {
        let passes = passes(site);
        if passes >= nth {
            Ok(())
        } else {
            Err(format!("{passes} passes"))
        }
    })?;
    let stayed = if point.starts_with("shim.") {
        // The server goes on, and has to make good for it by itself.
        goes_on(&crowd.ledger)?;
        proof::audit(site)?;
        site.kill()?;
        Stayed::UnderTheSameAddress
    } else {
        site.killed()?;
        Stayed::OnTheSameProcess
    };
    again(site, crowd, &[], stayed)
}

fn at_any_moment(site: &mut Site, chance: &mut Chance, victims: Victims) -> Result<(), String> {
    let mut crowd = busy(site, chance, &[])?;
    moment(chance);
    let (shims, games) = (site.pids(Kind::Shim), site.pids(Kind::Game));
    let one = |all: &[i32], chance: &mut Chance| {
        chance.pick(all).copied().into_iter().collect::<Vec<_>>()
    };
    let mut dead = match victims {
        Victims::Up => Vec::new(),
        Victims::OneShim => one(&shims, chance),
        Victims::AllShims | Victims::ShimsAndUp => shims,
        Victims::OneGame => one(&games, chance),
        Victims::AllGames | Victims::GamesAndUp => games,
        Victims::Everything => [shims, games].concat(),
    };
    let with_up = matches!(
        victims,
        Victims::Up | Victims::GamesAndUp | Victims::ShimsAndUp | Victims::Everything
    );
    if with_up {
        dead.extend(site.pid());
    }
    if dead.is_empty() {
        return Err("there was nobody to kill".to_owned());
    }
    // The order is chance, too.
    while !dead.is_empty() {
        let next = usize::try_from(chance.below(dead.len() as u64)).unwrap_or(0);
        machine::signal(dead.swap_remove(next), Signal::KILL);
    }
    if with_up {
        site.killed()?;
    } else {
        goes_on(&crowd.ledger)?;
        proof::audit(site)?;
        site.kill()?;
    }
    let stayed = if victims == Victims::Up {
        Stayed::OnTheSameProcess
    } else {
        Stayed::UnderTheSameAddress
    };
    again(site, &mut crowd, &[], stayed)
}

fn disk_full(site: &mut Site, chance: &mut Chance) -> Result<(), String> {
    trouble::small_disk(site)?;
    let mut crowd = busy(site, chance, &[])?;
    trouble::fill(site)?;
    eventually("a start is refused for want of space", PATIENCE, || {
        if crowd.ledger.refused("storage_full") > 0 {
            Ok(())
        } else {
            Err("none was".to_owned())
        }
    })?;
    moment(chance);
    trouble::free(site)?;
    goes_on(&crowd.ledger)?;
    proof::audit(site)?;
    // Once more, and now nobody is there to make good for it.
    trouble::fill(site)?;
    moment(chance);
    site.kill()?;
    // Started on a full disk it may refuse, but must not harm.
    let started = site.start_as_it_can()?;
    trouble::free(site)?;
    if let Started::Ready = started {
        site.kill()?;
    }
    again(site, &mut crowd, &[], Stayed::OnTheSameProcess)
}

fn records_read_only(site: &mut Site, chance: &mut Chance) -> Result<(), String> {
    let mut crowd = busy(site, chance, &[])?;
    trouble::lock_records(site)?;
    // Games are started and ended all the same; what cannot be recorded waits with its instance.
    goes_on(&crowd.ledger)?;
    moment(chance);
    site.kill()?;
    let started = site.start_as_it_can()?;
    if let Started::Ready = started {
        moment(chance);
        site.kill()?;
    }
    trouble::unlock_records(site)?;
    again(site, &mut crowd, &[], Stayed::OnTheSameProcess)
}

/// The product's wall clock jumps while it runs, then over a restart, and back.
fn wall(site: &mut Site, chance: &mut Chance, seconds: i64) -> Result<(), String> {
    let clock = [(
        trouble::OFFSET_FILE,
        site.file("wall").display().to_string(),
    )];
    trouble::set_wall(site, 0)?;
    let mut crowd = busy(site, chance, &clock)?;
    trouble::set_wall(site, seconds)?;
    goes_on(&crowd.ledger)?;
    moves_on(&crowd.ledger)?;
    proof::audit(site)?;
    site.kill()?;
    site.start_well(&clock)?;
    goes_on(&crowd.ledger)?;
    moves_on(&crowd.ledger)?;
    site.kill()?;
    trouble::set_wall(site, 0)?;
    again(site, &mut crowd, &clock, Stayed::OnTheSameProcess)
}

/// As a laptop that is closed: nothing of ours runs for a while, and the players' data waits.
fn stand_still(site: &mut Site, chance: &mut Chance, still: Duration) -> Result<(), String> {
    let mut crowd = busy(site, chance, &[])?;
    let held = "spawnpoint_culls_held_total{by=\"late_tick\"}";
    let before = site.metric(held)?;
    let mut all = [site.pids(Kind::Shim), site.pids(Kind::Game)].concat();
    all.extend(site.pid());
    for pid in &all {
        machine::signal(*pid, Signal::STOP);
    }
    // Nothing can be awaited: nobody runs.
    pass(still)?;
    while !all.is_empty() {
        let next = usize::try_from(chance.below(all.len() as u64)).unwrap_or(0);
        machine::signal(all.swap_remove(next), Signal::CONT);
    }
    eventually("culls are held", PATIENCE, || {
        let now = site.metric(held)?;
        if now > before {
            Ok(())
        } else {
            Err(format!("{held} is still {now}"))
        }
    })?;
    moves_on(&crowd.ledger)?;
    goes_on(&crowd.ledger)?;
    proof::audit(site)?;
    site.kill()?;
    again(site, &mut crowd, &[], Stayed::OnTheSameProcess)
}

/// We lose a session ourselves, and the proof has to say so: a matrix that cannot fail proves nothing.
fn control(site: &mut Site, chance: &mut Chance) -> Result<(), String> {
    let crowd = busy(site, chance, &[])?;
    let anchors = crowd.ledger.anchors();
    let anchor = anchors.first().ok_or("nobody stayed")?;
    let session = site
        .admin
        .get(&format!("/api/sessions/{}", anchor.session))?;
    let instance = session.body["instance"]["id"]
        .as_str()
        .ok_or("it has no instance")?
        .to_owned();
    site.kill()?;
    for process in machine::processes(&site.state) {
        machine::signal(process.pid, Signal::KILL);
    }
    std::fs::remove_dir_all(site.state.join("instances").join(instance))
        .map_err(|e| e.to_string())?;
    site.start_well(&[])?;
    goes_on(&crowd.ledger)?;
    let stayed = proof::stayed(site, &crowd.ledger, Stayed::UnderTheSameAddress);
    let promises = proof::promises(site, &crowd.ledger, Duration::from_secs(5));
    match (stayed, promises) {
        (Err(_), Err(e)) if e.contains(&anchor.session) => Ok(()),
        other => Err(format!("a lost session was not noticed: {other:?}")),
    }
}

/// A server with games being played, and those in place who stay.
fn busy(
    site: &mut Site,
    chance: &mut Chance,
    variables: &[(&str, String)],
) -> Result<Crowd, String> {
    site.start_well(variables)?;
    let crowd = Crowd::start(site, chance);
    eventually("those who stay are in their games", PATIENCE, || {
        let there = crowd.ledger.anchors().len();
        if there == STAYERS {
            Ok(())
        } else {
            Err(format!("{there} of {STAYERS}"))
        }
    })?;
    goes_on(&crowd.ledger)?;
    Ok(crowd)
}

/// Starts it anew and proves everything.
fn again(
    site: &mut Site,
    crowd: &mut Crowd,
    variables: &[(&str, String)],
    stayed: Stayed,
) -> Result<(), String> {
    site.start_well(variables)?;
    goes_on(&crowd.ledger)?;
    moves_on(&crowd.ledger)?;
    proof::stayed(site, &crowd.ledger, stayed)?;
    crowd.stop()?;
    proof::all(site, &crowd.ledger)
}

/// More games are started, and some are ended.
fn goes_on(ledger: &Ledger) -> Result<(), String> {
    let (starts, ends) = (ledger.starts().len(), ledger.ends());
    eventually("games are started and ended", PATIENCE, || {
        let (more, over) = (ledger.starts().len() - starts, ledger.ends() - ends);
        if more >= GOES_ON && over > 0 {
            Ok(())
        } else {
            Err(format!("{more} started, {over} ended"))
        }
    })
}

/// Those who stay play on.
fn moves_on(ledger: &Ledger) -> Result<(), String> {
    let before = ledger.moves();
    eventually("those who stay play on", PATIENCE, || {
        let now = ledger.moves();
        let all = before.iter().zip(&now).all(|(b, n)| *n > b + 3);
        if all {
            Ok(())
        } else {
            Err(format!("moves {before:?}, now {now:?}"))
        }
    })
}

/// Chance decides when.
fn moment(chance: &mut Chance) {
    std::thread::sleep(Duration::from_millis(chance.below(MOMENT_MS)));
}
