//! A report as text for a terminal.

use std::fmt::Write as _;

use crate::report::{FaultCount, Report};
use crate::stats::Spread;

/// The report in words and columns, ending without a newline.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, report)
        .and_then(|()| phases(&mut out, report))
        .and_then(|()| faults(&mut out, "failures", &report.faults))
        .and_then(|()| recovered(&mut out, report))
        .and_then(|()| records(&mut out, report))
        .and_then(|()| requests(&mut out, report))
        .and_then(|()| tester(&mut out, report))
        .and_then(|()| verdict(&mut out, report));
    out.truncate(out.trim_end().len());
    out
}

fn head(out: &mut String, r: &Report) -> std::fmt::Result {
    let c = &r.config;
    let fleet = c.fleet.as_deref().unwrap_or("the default");
    writeln!(out, "{} ({}, fleet {fleet})", c.target, c.mode)?;
    let rate = if c.spawn_rate > 0.0 {
        format!("{} a second", c.spawn_rate)
    } else {
        "all at once".to_owned()
    };
    writeln!(
        out,
        "{} clients, {rate}; {} s matches; {} matches in {:.1} s",
        r.clients.total, c.match_duration_s, r.matches, r.wall_s
    )?;
    let t = &r.clients;
    write!(
        out,
        "{} done, {} forced, {} failed",
        t.done, t.forced, t.failed
    )?;
    if t.interrupted > 0 {
        write!(out, ", {} interrupted", t.interrupted)?;
    }
    writeln!(out, "\n")
}

fn phases(out: &mut String, r: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "{:<14}{:>8}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "PHASE", "PASSED", "FAILED", "P50", "P90", "P99", "P99.9", "MAX"
    )?;
    for phase in &r.phases {
        let failed = phase.failed.to_string();
        row(
            out,
            phase.phase.as_str(),
            phase.passed,
            &failed,
            &phase.times,
        )?;
    }
    let count = |spread: &Spread| usize::try_from(spread.count).unwrap_or(usize::MAX);
    row(
        out,
        "to first word",
        count(&r.to_first_word),
        "",
        &r.to_first_word,
    )?;
    row(out, "round trip", count(&r.round_trip), "", &r.round_trip)?;
    if let Some(inputs) = &r.input_to_state {
        row(out, "input to state", count(inputs), "", inputs)?;
    }
    writeln!(out)
}

fn row(out: &mut String, name: &str, passed: usize, failed: &str, t: &Spread) -> std::fmt::Result {
    write!(out, "{name:<14}{passed:>8}{failed:>8}")?;
    for ms in [t.p50_ms, t.p90_ms, t.p99_ms, t.p999_ms, t.max_ms] {
        let shown = if t.count == 0 {
            "-".to_owned()
        } else {
            span(ms)
        };
        write!(out, "{shown:>11}")?;
    }
    writeln!(out)
}

/// A time for people.
pub(crate) fn span(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

fn faults(out: &mut String, name: &str, faults: &[FaultCount]) -> std::fmt::Result {
    if faults.is_empty() {
        return writeln!(out, "{name}: none");
    }
    writeln!(out, "{name}:")?;
    for f in faults {
        writeln!(
            out,
            "  {:>6} x {} in {}: {}",
            f.count, f.class, f.phase, f.example
        )?;
    }
    Ok(())
}

fn recovered(out: &mut String, r: &Report) -> std::fmt::Result {
    if r.config.reconnect_s > 0.0 {
        faults(out, "overcome", &r.recovered)?;
        writeln!(out, "reconnects: {}", r.reconnects)?;
    }
    Ok(())
}

fn records(out: &mut String, r: &Report) -> std::fmt::Result {
    let check = &r.records;
    if let Some(why) = &check.unchecked {
        return writeln!(out, "records: not compared: {why}");
    }
    write!(
        out,
        "records: {} of {} sessions have one",
        check.found, check.expected
    )?;
    for (reason, count) in &check.reasons {
        write!(out, ", {reason} {count}")?;
    }
    match check.mismatched {
        0 => writeln!(out),
        n => writeln!(out, "; {n} do not fit"),
    }
}

fn requests(out: &mut String, r: &Report) -> std::fmt::Result {
    writeln!(out, "requests: {}", request_rates(r))
}

/// How many requests, and by what.
pub(crate) fn request_rates(r: &Report) -> String {
    let q = &r.requests;
    let each = q.total as f64 / r.clients.total.max(1) as f64;
    let mut out = format!("{}, {each:.1} a client", q.total);
    for (rate, of) in [
        (q.per_player_s, "a second and playing client"),
        (q.per_session_s, "in all a second and live session"),
    ] {
        if let Some(rate) = rate {
            let _ = write!(out, "; {rate:.2} {of}");
        }
    }
    out
}

fn tester(out: &mut String, r: &Report) -> std::fmt::Result {
    let t = &r.tester;
    write!(
        out,
        "tester: {:.1} s of processor ({:.0} % of {})",
        t.cpu_s,
        t.cpu_share * 100.0,
        t.cpus
    )?;
    if let Some(bytes) = t.peak_memory {
        write!(out, ", {} MiB at most", bytes >> 20)?;
    }
    writeln!(out, ", starts late by {} (p99)", span(t.start_lag.p99_ms))?;
    for doubt in &r.doubts {
        writeln!(out, "note: {doubt}")?;
    }
    Ok(())
}

fn verdict(out: &mut String, r: &Report) -> std::fmt::Result {
    if r.verdict.passed {
        return writeln!(out, "\npassed");
    }
    writeln!(out, "\nFAILED")?;
    for cause in &r.verdict.causes {
        writeln!(out, "  {cause}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::RecordsCheck;
    use crate::report::Outcome;
    use crate::report::tests::{report, row as client};
    use crate::{Fault, Phase};

    #[test]
    fn a_good_run_and_a_bad_one() {
        let rows = (0..100).map(|n| client(n, Outcome::Done)).collect();
        let good = text(&report(rows, RecordsCheck::default()));
        assert!(
            good.contains("100 clients, all at once; 2 s matches; 50 matches"),
            "{good}"
        );
        assert!(
            good.contains("failures: none") && good.ends_with("passed"),
            "{good}"
        );
        assert!(
            good.contains("requests: 0, 0.0 a client; 0.00 in all a second and live session\n"),
            "nobody played: {good}"
        );
        let mut rows: Vec<_> = (0..99).map(|n| client(n, Outcome::Done)).collect();
        let mut refused = crate::ClientRow::new(99, std::time::Duration::ZERO);
        refused.failed(Phase::Queue, Fault::new("queue_full", "503: later"));
        rows.push(refused);
        let bad = text(&report(rows, RecordsCheck::unchecked("no key", 3)));
        assert!(bad.contains("1 x queue_full in queue: 503: later"), "{bad}");
        assert!(
            bad.contains("FAILED\n  1 of 100 clients failed in queue"),
            "{bad}"
        );
        assert!(bad.contains("records: not compared: no key"), "{bad}");
    }

    #[test]
    fn times_for_people() {
        assert_eq!(span(0.123), "0.12 ms");
        assert_eq!(span(123.4), "123 ms");
        assert_eq!(span(5012.0), "5.01 s");
    }
}
