//! Makes a failure smaller: fewer kinds of trouble, fewer players, a shorter time, as long as the same checker still finds something.

use crate::plan::{Cut, Plan};
use crate::run::{Outcome, run_seed};
use crate::world::Finding;

/// Most worlds tried for one failure: each takes a fraction of a second.
const MOST_RUNS: usize = 60;
/// Lines of history that are shown.
const MOST_LINES: usize = 90;

/// A smaller cut under which the same checker still finds something, and that world's outcome.
///
/// # Errors
/// When no runtime can be had.
pub fn shrink(failed: Outcome, cut: Cut) -> std::io::Result<(Cut, Outcome)> {
    let Some(finding) = failed.finding.clone() else {
        return Ok((cut, failed));
    };
    let mut best = (cut, failed);
    let mut runs = 0;
    let mut attempt = |try_: Cut, best: &mut (Cut, Outcome)| -> std::io::Result<bool> {
        if runs >= MOST_RUNS || try_ == best.0 {
            return Ok(false);
        }
        runs += 1;
        let outcome = run_seed(best.1.seed, &try_)?;
        let same = outcome
            .finding
            .as_ref()
            .is_some_and(|f| f.checker == finding.checker);
        if same {
            *best = (try_, outcome);
        }
        Ok(same)
    };
    let plan = Plan::of(best.1.seed).cut(&best.0);
    for trouble in plan.troubles() {
        let mut less = best.0.clone();
        less.without.insert(trouble);
        attempt(less, &mut best)?;
    }
    let mut seconds = plan.horizon.as_secs();
    while seconds > 5 {
        let mut less = best.0.clone();
        less.seconds = Some(seconds * 3 / 4);
        if !attempt(less, &mut best)? {
            break;
        }
        seconds = seconds * 3 / 4;
    }
    let mut players = plan.players;
    while players > 1 {
        let mut less = best.0.clone();
        less.players = Some(players - 1);
        if !attempt(less, &mut best)? {
            break;
        }
        players -= 1;
    }
    Ok(best)
}

/// The lines that matter for a finding: those that speak of what it names, and what went wrong meanwhile.
#[must_use]
pub fn short_history(outcome: &Outcome) -> Vec<String> {
    let names = outcome.finding.as_ref().map(names).unwrap_or_default();
    let matters = |line: &&String| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        let who = line.split_whitespace().nth(1).unwrap_or("");
        matches!(who, "nature" | "keeper" | "server" | "CHECK")
            || words.any(|w| names.iter().any(|n| n == w))
    };
    let mut lines: Vec<String> = outcome.history.iter().filter(matters).cloned().collect();
    if lines.len() < 10 {
        let all = outcome.history.len();
        lines = outcome.history[all.saturating_sub(MOST_LINES)..].to_vec();
    }
    let skip = lines.len().saturating_sub(MOST_LINES);
    lines.split_off(skip)
}

/// The short names (`s3`, `i12`, `t1`, `p2`) in a finding.
fn names(finding: &Finding) -> Vec<String> {
    let words = finding.what.split(|c: char| !c.is_ascii_alphanumeric());
    let is_name = |w: &&str| {
        let mut c = w.chars();
        c.next().is_some_and(|k| "sitp".contains(k)) && w.len() > 1 && c.all(|d| d.is_ascii_digit())
    };
    words.filter(is_name).map(str::to_owned).collect()
}
