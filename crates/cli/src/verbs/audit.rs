//! `spawnpoint audit`.

use spawnpoint_wire::api::{AuditCounts, AuditFinding, AuditReport, AuditUnseen};

use super::read;
use crate::args::Global;
use crate::client::Client;
use crate::exit::Failure;
use crate::output::{bold, distance, facts, now, printable, show};

/// Asks the running server whether anything is lost, doubled or left over.
pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.get("/debug/audit", &[])?;
    let report: AuditReport = read(&answer)?;
    show(global.output, &answer, || sentences(&report))?;
    outcome(&report)
}

/// Findings come first: whoever has both has to look at them. What could not be seen is never fine.
fn outcome(report: &AuditReport) -> Result<(), Failure> {
    if !report.findings.is_empty() {
        Err(Failure::Findings)
    } else if report.clean {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

fn sentences(report: &AuditReport) -> String {
    let mut parts = vec![counted(&report.counts)];
    parts.extend(report.findings.iter().map(finding));
    if report.left_out > 0 {
        parts.push(format!("... and {} more of the kind", report.left_out));
    }
    parts.extend(report.unseen.iter().map(unseen));
    let total = report.findings.len() + report.left_out;
    parts.push(verdict(total, report.unseen.len(), report.took_ms));
    parts.join("\n\n")
}

/// `3 sessions`, `1 session`.
fn several(n: impl Into<u64>, one: &str) -> String {
    let n = n.into();
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {one}{s}")
}

fn counted(c: &AuditCounts) -> String {
    let n = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let changing = if c.changing > 0 {
        format!(", {} just changing", c.changing)
    } else {
        String::new()
    };
    facts(&[
        (
            "sessions",
            format!(
                "{}{changing}; {} remembered",
                several(n(c.sessions), "session"),
                several(n(c.starts), "start")
            ),
        ),
        (
            "runtime",
            format!(
                "{}; {} ports, files and processes",
                several(n(c.instances), "instance"),
                c.holdings
            ),
        ),
        (
            "records",
            format!(
                "{}; {} looked up",
                several(c.records, "record"),
                c.looked_up
            ),
        ),
        (
            "lobby",
            format!(
                "{}; {} remembered",
                several(n(c.tickets), "ticket"),
                several(n(c.fates), "fate")
            ),
        ),
        (
            "gateways",
            format!(
                "{}; {}, {}, {}",
                several(n(c.gateways), "gateway"),
                several(n(c.routes), "route"),
                several(c.tunnels, "connection"),
                several(n(c.listeners), "port")
            ),
        ),
    ])
}

fn finding(f: &AuditFinding) -> String {
    let ids: Vec<(&str, String)> = f
        .ids
        .iter()
        .map(|i| (i.kind.as_str(), i.id.clone()))
        .collect();
    let mut shown = ids;
    shown.push(("seen", f.seen.clone()));
    shown.push(("do", f.advice.clone()));
    format!(
        "{}  {}\n{}",
        bold(&printable(&f.code)),
        printable(&f.about),
        indented(&facts(&shown))
    )
}

fn unseen(u: &AuditUnseen) -> String {
    let which =
        u.id.as_deref()
            .map(|id| format!(" {id}"))
            .unwrap_or_default();
    let since = distance(Some(&u.since), now());
    format!(
        "{}  {}{} (since {since})",
        bold("not seen"),
        printable(&format!("{}{which}: ", u.part)),
        printable(&u.about)
    )
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|l| format!("  {l}")).collect();
    lines.join("\n")
}

fn verdict(findings: usize, unseen: usize, took_ms: u64) -> String {
    let n = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let took = format!("({took_ms} ms)");
    match (findings, unseen) {
        (0, 0) => format!(
            "{} nothing lost, nothing double, nothing left over {took}",
            bold("clean:")
        ),
        (0, u) => format!(
            "{} {} could not be looked at {took}",
            bold("not proven:"),
            several(n(u), "part")
        ),
        (f, 0) => format!("{} {took}", bold(&several(n(f), "finding"))),
        (f, u) => format!(
            "{}, and {} could not be looked at {took}",
            bold(&several(n(f), "finding")),
            several(n(u), "part")
        ),
    }
}

#[cfg(test)]
mod tests {
    use spawnpoint_wire::api::AuditId;

    use super::*;

    fn report() -> AuditReport {
        AuditReport {
            clean: true,
            at: "2026-01-01T00:00:00Z".to_owned(),
            took_ms: 12,
            findings: Vec::new(),
            left_out: 0,
            unseen: Vec::new(),
            counts: AuditCounts {
                sessions: 1,
                ..AuditCounts::default()
            },
        }
    }

    fn broken() -> AuditFinding {
        AuditFinding {
            code: "instance_orphaned".to_owned(),
            about: "An instance belongs to nothing.".to_owned(),
            ids: vec![AuditId {
                kind: "instance".to_owned(),
                id: "x\u{1b}[31m".to_owned(),
            }],
            seen: "the server does not know it".to_owned(),
            advice: "restart the server".to_owned(),
        }
    }

    fn blind() -> AuditUnseen {
        AuditUnseen {
            part: "gateway".to_owned(),
            id: Some("gateway-1".to_owned()),
            about: "it cannot be heard".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn a_clean_audit_says_what_it_looked_at() {
        let text = sentences(&report());
        assert!(
            text.starts_with("sessions  1 session; 0 starts remembered\n"),
            "{text}"
        );
        assert!(text.ends_with("clean: nothing lost, nothing double, nothing left over (12 ms)"));
        assert!(outcome(&report()).is_ok());
    }

    #[test]
    fn findings_say_who_and_what_to_do_and_exit_with_5() {
        let r = AuditReport {
            clean: false,
            findings: vec![broken()],
            left_out: 2,
            unseen: vec![blind()],
            ..report()
        };
        let text = sentences(&r);
        for want in [
            "instance_orphaned  An instance belongs to nothing.",
            "  instance  x\u{fffd}[31m",
            "  do        restart the server",
            "... and 2 more",
            "gateway gateway-1: it cannot be heard",
            "3 findings, and 1 part could not be looked at",
        ] {
            assert!(text.contains(want), "{want}\n{text}");
        }
        assert_eq!(outcome(&r).unwrap_err().exit_code(), crate::exit::FINDINGS);
    }

    #[test]
    fn what_could_not_be_seen_is_not_fine() {
        let r = AuditReport {
            clean: false,
            unseen: vec![blind()],
            ..report()
        };
        assert!(sentences(&r).contains("not proven: 1 part could not be looked at"));
        assert_eq!(outcome(&r).unwrap_err().exit_code(), crate::exit::FAILED);
    }
}
