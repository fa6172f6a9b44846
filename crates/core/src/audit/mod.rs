//! The audit: what must hold between the owners of facts (runtime, control plane, records, lobby, gateways), proven from what each of
//! them says. The same checks run in production (`spawnpoint audit`), in the seeded simulation and in tests.
//!
//! *Flow*: somebody gathers a [`Snapshot`]; [`check`] says what is wrong in it and what could not be seen. The parts of a snapshot are
//! never of one instant, so on a busy server a first look always finds some that were just coming or going: it is taken again a
//! moment later, and [`confirm`] keeps what was wrong both times. *Guarantees*: what is on its way by the rules of its phase is no
//! finding (a session that is ending may have a record and an instance; one that is not [settled](SessionSeen::settled) is judged by
//! what holds in every moment; an instance that is being discarded is nobody's); what could not be seen is [`Unseen`], never "fine".
//! *Assumptions*: between two looks everything that was on its way has arrived or is something else. *Caveats*: it proves what it
//! sees; starts and fates are remembered for a bounded time only.
//!
//! No I/O and no waiting may enter.

mod finding;
mod lives;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

pub use finding::{Finding, Id, Part, Rule, Unseen};
pub use snapshot::{
    Claim, Doing, Fate, Flaw, FleetSeen, GatewaySeen, GatewayTables, Holder, Holding, HoldingKind,
    InstanceSeen, RecordFlaw, RecordsSeen, RouteSeen, ServerSeen, SessionSeen, Snapshot, Standing,
    TicketKept, TicketSeen, TunnelSeen, Waits,
};

use crate::Moment;
use crate::id::{InstanceId, SessionId};
use crate::time::Known;

/// What the server retries, it retries within 2 s; a lost watch is opened again after 0.5 s; culls hold for a heartbeat period after a
/// late tick. What is still undone after this (and after the session's own termination grace, where an instance must stop first) is
/// not on its way any more.
pub const SETTLE: Duration = Duration::from_secs(30);

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, by rule and ids, each once.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
    /// What was looked at.
    pub counts: Counts,
}

impl Report {
    /// Nothing is wrong and everything was seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.unseen.is_empty()
    }

    /// The sessions that the findings name: those whose records a second look must ask after.
    #[must_use]
    pub fn suspects(&self) -> BTreeSet<SessionId> {
        let ids = self.findings.iter().flat_map(|f| &f.ids);
        ids.filter_map(|id| match id {
            Id::Session(s) => Some(*s),
            _ => None,
        })
        .collect()
    }
}

/// What an audit looked at. Parts that were not seen count as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that have not been recorded and forgotten.
    pub sessions: usize,
    /// Those of them that were just changing and judged by less.
    pub changing: usize,
    /// Instances.
    pub instances: usize,
    /// Ports, files, logs and processes.
    pub holdings: usize,
    /// Records in the store.
    pub records: u64,
    /// Sessions whose record was looked up.
    pub looked_up: usize,
    /// Answered starts that are remembered.
    pub starts: usize,
    /// Tickets that are there.
    pub tickets: usize,
    /// Fates of tickets that are remembered.
    pub fates: usize,
    /// Gateways.
    pub gateways: usize,
    /// Routes in their tables.
    pub routes: usize,
    /// Connections.
    pub tunnels: u64,
    /// Ports they listen on for one session each.
    pub listeners: usize,
}

/// Says what is wrong in a snapshot, and what could not be seen.
#[must_use]
pub fn check(snapshot: &Snapshot, now: Moment) -> Report {
    let mut look = Look::new(snapshot, now);
    look.unseen();
    look.sessions();
    look.instances();
    look.records();
    look.fleets();
    look.routes();
    look.holdings();
    look.tickets();
    let mut findings = look.findings;
    findings.sort_by(|a, b| a.key().cmp(&b.key()));
    findings.dedup_by(|a, b| a.is(b));
    Report {
        findings,
        unseen: look.unseen,
        counts: count(snapshot),
    }
}

/// What is left of a look's findings after a second look, which may have asked after the [suspects](Report::suspects)' records only:
/// those that both have. What either could not see was not seen.
#[must_use]
pub fn confirm(first: &Report, second: &Report) -> Report {
    let again: HashSet<_> = second.findings.iter().map(Finding::key).collect();
    let mut unseen = first.unseen.clone();
    for u in &second.unseen {
        if !unseen.iter().any(|f| f.part == u.part) {
            unseen.push(u.clone());
        }
    }
    Report {
        findings: first
            .findings
            .iter()
            .filter(|f| again.contains(&f.key()))
            .cloned()
            .collect(),
        unseen,
        counts: first.counts,
    }
}

fn count(s: &Snapshot) -> Counts {
    let mut n = Counts::default();
    if let Known::Is(server) = &s.server {
        n.sessions = server.sessions.len();
        n.changing = server.sessions.iter().filter(|s| !s.settled).count();
        n.starts = server.starts.len();
        n.tickets = server.tickets.len();
        n.fates = server.fates.len();
    }
    n.instances = s.instances.get().map_or(0, Vec::len);
    n.holdings = s.holdings.get().map_or(0, Vec::len);
    if let Known::Is(records) = &s.records {
        n.records = records.total;
        n.looked_up = records.asked.len();
    }
    if let Known::Is(gateways) = &s.gateways {
        n.gateways = gateways.len();
        for tables in gateways.iter().filter_map(|g| g.tables.get()) {
            n.routes += tables.routes.len();
            n.tunnels += tables
                .tunnels
                .iter()
                .map(|t| u64::from(t.open))
                .sum::<u64>();
            n.listeners += tables.listeners.len();
        }
    }
    n
}

/// One look, with what it looks up more than once.
struct Look<'a> {
    snapshot: &'a Snapshot,
    now: Moment,
    server: Option<&'a ServerSeen>,
    sessions: HashMap<SessionId, &'a SessionSeen>,
    holders: HashMap<InstanceId, Holder>,
    instances: Option<HashMap<InstanceId, &'a InstanceSeen>>,
    findings: Vec<Finding>,
    unseen: Vec<Unseen>,
}

impl<'a> Look<'a> {
    fn new(snapshot: &'a Snapshot, now: Moment) -> Self {
        let server = snapshot.server.get();
        let sessions = server.map_or_else(HashMap::new, |s| {
            s.sessions.iter().map(|s| (s.id, s)).collect()
        });
        let holders = server.map_or_else(HashMap::new, |s| s.holders.iter().copied().collect());
        let instances = snapshot
            .instances
            .get()
            .map(|all| all.iter().map(|i| (i.id, i)).collect());
        Self {
            snapshot,
            now,
            server,
            sessions,
            holders,
            instances,
            findings: Vec::new(),
            unseen: Vec::new(),
        }
    }

    fn found(&mut self, rule: Rule, ids: impl Into<Vec<Id>>, seen: impl Into<String>) {
        self.findings.push(Finding {
            rule,
            ids: ids.into(),
            seen: seen.into(),
        });
    }

    /// Since then and for longer than anything takes that is on its way.
    fn overdue(&self, since: Moment, allowed: Duration) -> bool {
        self.now.since(since) > allowed.saturating_add(SETTLE)
    }

    fn unseen(&mut self) {
        let s = self.snapshot;
        self.note(&s.server, Part::Server);
        self.note(&s.instances, Part::Instances);
        self.note(&s.holdings, Part::Holdings);
        self.note(&s.records, Part::Records);
        self.note(&s.lobby, Part::Lobby);
        self.note(&s.gateways, Part::Gateways);
        for i in s.instances.get().into_iter().flatten() {
            if let Doing::Unknown { since } = i.doing {
                let part = Part::Instance(i.id);
                self.unseen.push(Unseen { part, since });
            }
        }
        for g in s.gateways.get().into_iter().flatten() {
            self.note(&g.tables, Part::Gateway(g.name.clone()));
        }
    }

    fn note<T>(&mut self, what: &Known<T>, part: Part) {
        if let Known::Unknown { since } = what {
            let since = *since;
            self.unseen.push(Unseen { part, since });
        }
    }
}
