//! How late sessions are ended that nobody ends: for idleness, age, because everybody left or because nobody ever came.
//!
//! A cull is late by what lies between its deadline, which is known from outside, and the moment somebody outside can tell that it
//! happened. Early is worse than late: it takes a game from somebody.

mod real;
mod simulated;

use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;

use crate::platform::Binaries;
use crate::report::{Section, Verdict, ms, thousands};
use crate::stats::Samples;

/// What is promised, milliseconds.
const TARGET_P99: f64 = 200.0;
const TARGET_MOST: f64 = 1_000.0;
/// Deadlines are told in whole milliseconds.
const ROUNDING_MS: f64 = 1.0;

/// How many sessions of each run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    simulated: usize,
    real: usize,
}

impl Size {
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                simulated: 400,
                real: 40,
            }
        } else {
            Self {
                simulated: 10_000,
                real: 500,
            }
        }
    }
}

/// One cull.
#[derive(Clone, Copy, Debug)]
struct Cull {
    why: &'static str,
    /// From its deadline to when it could be told, milliseconds; less than nothing is early.
    late_ms: f64,
}

pub(crate) fn run(binaries: &Binaries, size: Size, progress: &ProgressBar) -> Result<Section> {
    progress.set_length(2 * (size.simulated + size.real) as u64);
    let runs = [
        (
            "simulated games",
            simulated::run(size.simulated, false, progress)?,
        ),
        (
            "simulated games, over a restart",
            simulated::run(size.simulated, true, progress)?,
        ),
        (
            "real games",
            real::run(binaries, size.real, false, progress)?,
        ),
        (
            "real games, over a kill -9 and a restart",
            real::run(binaries, size.real, true, progress)?,
        ),
    ];
    Ok(section(size, &runs))
}

fn section(size: Size, runs: &[(&str, Vec<Cull>)]) -> Section {
    let mut s = Section::new(
        "culls",
        "How late culls are",
        &[
            "",
            "ended for",
            "sessions",
            "least ms",
            "median ms",
            "p99 ms",
            "most ms",
        ],
    );
    s.method = format!(
        "Simulated: {} sessions in the real server, in real time, over simulated games and records in memory; late is from the deadline to \
         the end that the record states. Real: {} sessions on processes of their own under `spawnpoint up`, started 25 a second, some \
         with a player connected; late is from the deadline to when somebody outside can tell: the player's connection is closed, or \
         an API call that waits for it is answered. Deadlines are counted from what the caller did (the last input, the last one \
         leaving) or are the ones that were told at the start (the maximum, nobody came). Over a restart: the server is killed when all \
         have started and before the first deadline, and started again at once.",
        thousands(size.simulated as f64),
        thousands(size.real as f64),
    );
    let mut data = Vec::new();
    for (name, culls) in runs {
        let mut kinds: Vec<&'static str> = culls.iter().map(|c| c.why).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let of = |why: Option<&str>| {
            let wanted = culls.iter().filter(|c| why.is_none_or(|w| c.why == w));
            Samples::new(wanted.map(|c| c.late_ms))
        };
        for why in kinds {
            s.rows.push(row(name, why, &of(Some(why))));
        }
        let all = of(None);
        s.rows.push(row(name, "all", &all));
        s.verdicts.push(Verdict::at_most(
            &format!("{name}: p99, ms late"),
            all.quantile(0.99),
            TARGET_P99,
        ));
        s.verdicts.push(Verdict::at_most(
            &format!("{name}: the latest, ms"),
            all.quantile(1.0),
            TARGET_MOST,
        ));
        s.verdicts.push(Verdict::at_least(
            &format!("{name}: the earliest, ms (less than nothing is early)"),
            all.quantile(0.0),
            -ROUNDING_MS,
        ));
        data.push(
            json!({"run": name, "sessions": all.len(), "least_ms": all.quantile(0.0),
            "median_ms": all.median(), "p99_ms": all.quantile(0.99), "most_ms": all.quantile(1.0)}),
        );
    }
    s.data = data.into();
    s
}

fn row(run: &str, why: &str, late: &Samples) -> Vec<String> {
    vec![
        run.to_owned(),
        why.to_owned(),
        thousands(late.len() as f64),
        ms(late.quantile(0.0)),
        ms(late.median()),
        ms(late.quantile(0.99)),
        ms(late.quantile(1.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_is_a_miss_however_little_late_the_rest_is() {
        let culls = |late: &[f64]| {
            let of = |late_ms: &f64| Cull {
                why: "idle",
                late_ms: *late_ms,
            };
            late.iter().map(of).collect::<Vec<_>>()
        };
        let met = |late: &[f64]| -> Vec<bool> {
            let s = section(Size::of(true), &[("a run", culls(late))]);
            s.verdicts.iter().map(Verdict::met).collect()
        };
        assert_eq!(met(&[0.0, 5.0, 20.0]), [true, true, true]);
        assert_eq!(met(&[-1.0, 5.0]), [true, true, true]);
        assert_eq!(met(&[-3.0, 5.0]), [true, true, false]);
        assert_eq!(met(&[0.0, 250.0]), [false, true, true]);
        assert_eq!(met(&[0.0, 1_250.0]), [false, false, true]);
    }
}
