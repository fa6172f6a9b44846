//! A report as others read it.

use std::time::Duration;

use spawnpoint_core::Moment;
use spawnpoint_core::audit::{Finding, Part, Report, Unseen};
use spawnpoint_wire::api::{AuditCounts, AuditFinding, AuditId, AuditReport, AuditUnseen};

use super::super::App;

/// Findings named in one answer: beyond this many something is wrong with everything, and more names would not say more.
const NAMED: usize = 1_000;

impl App {
    pub(super) fn audit_view(&self, report: &Report, at: Moment, took: Duration) -> AuditReport {
        let c = report.counts;
        AuditReport {
            clean: report.is_clean(),
            at: self.text(at),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            findings: report.findings.iter().take(NAMED).map(finding).collect(),
            left_out: report.findings.len().saturating_sub(NAMED),
            unseen: report.unseen.iter().map(|u| self.unseen(u)).collect(),
            counts: AuditCounts {
                sessions: c.sessions,
                changing: c.changing,
                instances: c.instances,
                holdings: c.holdings,
                records: c.records,
                looked_up: c.looked_up,
                starts: c.starts,
                tickets: c.tickets,
                fates: c.fates,
                gateways: c.gateways,
                routes: c.routes,
                tunnels: c.tunnels,
                listeners: c.listeners,
            },
        }
    }

    fn unseen(&self, u: &Unseen) -> AuditUnseen {
        let id = match &u.part {
            Part::Instance(id) => Some(id.to_string()),
            Part::Gateway(name) => Some(name.clone()),
            _ => None,
        };
        AuditUnseen {
            part: u.part.as_str().to_owned(),
            id,
            about: u.part.about().to_owned(),
            since: self.text(u.since),
        }
    }
}

fn finding(f: &Finding) -> AuditFinding {
    AuditFinding {
        code: f.rule.as_str().to_owned(),
        about: f.rule.about().to_owned(),
        ids: f
            .ids
            .iter()
            .map(|id| AuditId {
                kind: id.kind().to_owned(),
                id: id.to_string(),
            })
            .collect(),
        seen: f.seen.clone(),
        advice: f.rule.advice().to_owned(),
    }
}
