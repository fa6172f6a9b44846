//! The tables of `docs/lifecycle.md`.

use std::fmt::Write as _;
use std::time::Duration;

use spawnpoint_core::lifecycle::{ActivityRule, EndRule, OnCrash, Policy, Reason, brake_applies};
use spawnpoint_core::limits;
use spawnpoint_core::session::Phase;

/// A duration as a person says it.
fn say(d: Duration) -> String {
    match d.as_secs() {
        0 => "0 s".to_owned(),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 && s > 60 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

fn say_or_none(d: Option<Duration>) -> String {
    d.map_or_else(|| "none (unlimited)".to_owned(), say)
}

pub(super) fn phases() -> String {
    let mut out = String::from("| phase | meaning |\n|---|---|\n");
    for phase in Phase::ALL {
        let _ = writeln!(out, "| `{}` | {} |", phase.as_str(), phase.about());
    }
    out
}

pub(super) fn reasons() -> String {
    let mut out = String::from("| reason | meaning | the brake holds it |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let held = if brake_applies(reason) { "yes" } else { "no" };
        let _ = writeln!(
            out,
            "| `{}` | {} | {held} |",
            reason.as_str(),
            reason.about()
        );
    }
    out
}

pub(super) fn numbers() -> String {
    let p = Policy::default();
    let warnings: Vec<_> = p.warnings.iter().map(|w| say(*w)).collect();
    let activity = match p.activity {
        ActivityRule::ClientData => "data from client to server",
        ActivityRule::Any => "data in either direction",
        ActivityRule::Heartbeat => "heartbeats only",
    };
    let on_crash = match p.on_crash {
        OnCrash::Replace => "replace",
        OnCrash::Restart => "restart",
        OnCrash::End => "end",
    };
    let end_by = match p.end_by {
        EndRule::Owner => "the owner (or the last player)",
        EndRule::Any => "any player",
        EndRule::All => "all players",
    };
    let rows = [
        (
            "wait for capacity",
            say(p.queue),
            "the call",
            "`start_failed`",
        ),
        (
            "start of an instance",
            say(p.boot),
            "the grant, each incarnation",
            "`start_failed` (`crashed` if it was ready before)",
        ),
        (
            "join timeout",
            say_or_none(p.join),
            "ready; for later players their own joining",
            "`never_joined`",
        ),
        (
            "idle timeout",
            say_or_none(p.idle),
            "the latest activity of any player or the game",
            "`idle`",
        ),
        (
            "maximum",
            say_or_none(p.max),
            "the first grant",
            "`max_duration`",
        ),
        (
            "limit of extension",
            say_or_none(p.max_limit),
            "the first grant",
            "-",
        ),
        (
            "reconnect grace",
            say(p.reconnect),
            "the last player left",
            "`empty`",
        ),
        (
            "termination grace",
            say(p.grace),
            "SIGTERM, then SIGKILL",
            "-",
        ),
        ("heartbeat period", say(p.heartbeat), "-", "-"),
        (
            "warnings before a cull",
            warnings.join(" and "),
            "the cull, backwards",
            "-",
        ),
        ("activity", activity.to_owned(), "-", "-"),
        ("on crash", on_crash.to_owned(), "-", "-"),
        ("who ends it for all", end_by.to_owned(), "-", "-"),
        ("players", p.max_players.to_string(), "-", "-"),
    ];
    let mut out =
        String::from("| number | default | counted from | ends as |\n|---|---|---|---|\n");
    for (name, value, from, ends) in rows {
        let _ = writeln!(out, "| {name} | {value} | {from} | {ends} |");
    }
    out
}

pub(super) fn limits() -> String {
    let rows = [
        (
            "crashes that end a session",
            format!(
                "{} within {}",
                limits::CRASH_LOOP,
                say(limits::CRASH_LOOP_WINDOW)
            ),
        ),
        (
            "longest pause before an instance is started again",
            say(limits::MAX_CRASH_BACKOFF),
        ),
        (
            "longest `ttl` of one heartbeat",
            say(limits::MAX_HEARTBEAT_TTL),
        ),
        (
            "a tick this late holds culls",
            format!("more than {}", say(limits::LATE_TICK)),
        ),
        (
            "mass-end brake",
            format!(
                "above {} % of the live sessions and at least {}, within {}",
                limits::BRAKE_PERCENT,
                limits::BRAKE_MIN,
                say(limits::BRAKE_WINDOW)
            ),
        ),
        (
            "longest hold of the brake once facts are known",
            say(limits::BRAKE_LONGEST_HOLD),
        ),
        (
            "sessions waiting for one fleet",
            limits::MAX_QUEUED.to_string(),
        ),
    ];
    let mut out = String::from("| limit | value |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_their_largest_whole_unit() {
        let say = |s| say(Duration::from_secs(s));
        assert_eq!(say(5), "5 s");
        assert_eq!(say(60), "60 s");
        assert_eq!(say(90), "90 s");
        assert_eq!(say(300), "5 min");
        assert_eq!(say(3600), "1 h");
        assert_eq!(say(5400), "90 min");
        assert_eq!(say(0), "0 s");
        assert_eq!(say_or_none(None), "none (unlimited)");
    }
}
