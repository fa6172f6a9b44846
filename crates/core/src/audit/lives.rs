//! Sessions, their instances and their records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Claim, Doing, Flaw, Holder, Id, InstanceSeen, Look, Rule, SessionSeen, Waits};
use crate::Moment;
use crate::id::{FleetName, Generation, InstanceId, PlayerId, SessionId};
use crate::session::Phase;
use crate::time::Known;

impl SessionSeen {
    /// Served by an instance that runs, as far as the session knows: in these phases, and once all of it is written.
    fn is_served(&self) -> bool {
        let served = matches!(self.phase, Phase::Starting | Phase::Ready | Phase::Running);
        served && self.settled && !self.over
    }
}

impl<'a> Look<'a> {
    pub(super) fn sessions(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        self.players();
        self.shared_instances();
        for s in &server.sessions {
            if s.phase.is_live() {
                if let Some(due) = s.due.filter(|due| self.overdue(*due, Duration::ZERO)) {
                    let late = self.now.since(due).as_secs();
                    let seen = format!("it should have ended {late} s ago");
                    self.found(Rule::DeadlineMissed, [s.id.into()], seen);
                }
                self.served(s);
            } else if let (Some(since), Known::Is(_)) = (s.ending_since, &self.snapshot.records)
                && self.overdue(since, s.grace)
            {
                let seconds = self.now.since(since).as_secs();
                let seen = format!("it has been {} for {seconds} s", s.phase.as_str());
                self.found(Rule::EndOverdue, [s.id.into()], seen);
            }
            if s.phase == Phase::Queued && s.settled && s.waits == Waits::Nowhere {
                let seen = "it is queued, in no line, and nobody is placing it";
                self.found(Rule::PlaceLost, [s.id.into()], seen);
            }
        }
    }

    /// Every player at most one live session per fleet, and none is kept from one by a session that is not there.
    fn players(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        let mut plays: HashMap<(&FleetName, &PlayerId), &SessionSeen> = HashMap::new();
        for s in server.sessions.iter().filter(|s| s.phase.is_live()) {
            for p in &s.roster {
                let Some(other) = plays.insert((&s.fleet, p), s) else {
                    continue;
                };
                if other.id == s.id {
                    continue;
                }
                let (a, b) = (other.id.min(s.id), other.id.max(s.id));
                let ids: [Id; 4] = [s.fleet.clone().into(), p.clone().into(), a.into(), b.into()];
                self.found(Rule::PlayerInTwoSessions, ids, "both are live");
            }
        }
        for (fleet, player, session) in &server.bound_players {
            let seen = match self.sessions.get(session) {
                Some(s) if s.phase.is_live() => continue,
                Some(s) => format!("the session is {}", s.phase.as_str()),
                None => "there is no such session".to_owned(),
            };
            let ids: [Id; 3] = [
                fleet.clone().into(),
                player.clone().into(),
                (*session).into(),
            ];
            self.found(Rule::PlayerLockedOut, ids, seen);
        }
    }

    /// No instance two sessions; no session two instances of one generation.
    fn shared_instances(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        let mut serves: HashMap<InstanceId, SessionId> = HashMap::new();
        for s in &server.sessions {
            let Some(instance) = s.instance.filter(|_| !s.over) else {
                continue;
            };
            if let Some(other) = serves.insert(instance, s.id) {
                let (a, b) = (other.min(s.id), other.max(s.id));
                let ids: [Id; 3] = [instance.into(), a.into(), b.into()];
                self.found(Rule::InstanceInTwoSessions, ids, "both have it as theirs");
            }
        }
        let mut claims: BTreeMap<(SessionId, Generation), BTreeSet<InstanceId>> = BTreeMap::new();
        for i in self.snapshot.instances.get().into_iter().flatten() {
            let discarded = self.holders.get(&i.id) == Some(&Holder::Discarded);
            if let Claim::Of(session, generation) = i.claim
                && !i.doing.is_over()
                && !discarded
            {
                claims
                    .entry((session, generation))
                    .or_default()
                    .insert(i.id);
            }
        }
        for ((session, generation), on) in claims {
            if on.len() > 1 {
                let ids: Vec<Id> = std::iter::once(session.into())
                    .chain(on.into_iter().map(Id::from))
                    .collect();
                let seen = format!("all are of generation {generation} and none is over");
                self.found(Rule::SessionOnTwoInstances, ids, seen);
            }
        }
    }

    /// A session that is served is served by an instance that is there, its own, and runs.
    fn served(&mut self, s: &SessionSeen) {
        let Some(instances) = &self.instances else {
            return;
        };
        let in_line = s.phase == Phase::Queued && s.waits == Waits::InLine;
        let queued = in_line && s.settled && !s.over;
        if !queued && !s.is_served() {
            return;
        }
        let phase = s.phase.as_str();
        let Some(id) = s.instance else {
            // One that has just been given back its place in the line may have none for a while.
            if !queued {
                let seen = format!("it is {phase} and has none");
                self.found(Rule::SessionWithoutInstance, [s.id.into()], seen);
            }
            return;
        };
        let ids: [Id; 2] = [s.id.into(), id.into()];
        let Some(instance) = instances.get(&id) else {
            let seen = format!("it is {phase} on one that the runtime does not have");
            self.found(Rule::SessionWithoutInstance, ids, seen);
            return;
        };
        if let Doing::Over { since } = instance.doing
            && self.overdue(since, Duration::ZERO)
        {
            let seconds = self.now.since(since).as_secs();
            let seen = format!("it is {phase}, and its instance has been over for {seconds} s");
            self.found(Rule::ExitUnnoticed, ids, seen);
            return;
        }
        match self.holders.get(&id).copied() {
            Some(Holder::Session(of) | Holder::Place(of)) if of == s.id => {}
            Some(Holder::Session(of) | Holder::Place(of)) => {
                let (a, b) = (of.min(s.id), of.max(s.id));
                let ids: [Id; 3] = [id.into(), a.into(), b.into()];
                let seen = "one has it as its own, and the server holds it for the other";
                self.found(Rule::InstanceInTwoSessions, ids, seen);
            }
            Some(Holder::Warm) => {
                let seen = format!("it is {phase} on one that the server would give to others");
                self.found(Rule::SessionWithoutInstance, ids, seen);
            }
            Some(Holder::Discarded) | None => {
                let seen = format!("it is {phase} on one that the server does not keep");
                self.found(Rule::SessionWithoutInstance, ids, seen);
            }
        }
    }

    /// Every instance belongs to what the server says, and is stored so.
    pub(super) fn instances(&mut self) {
        let (Some(_), Known::Is(all)) = (self.server, &self.snapshot.instances) else {
            return;
        };
        for i in all {
            if let Claim::Unreadable(session) = i.claim {
                let ids: [Id; 2] = [i.id.into(), session.into()];
                let seen = "its session goes on, if it is one, with nobody to end it";
                self.found(Rule::ClaimUnreadable, ids, seen);
                continue;
            }
            match self.holders.get(&i.id).copied() {
                None => self.orphaned(i, "the server does not know it"),
                Some(Holder::Warm) => {
                    if let Claim::Of(session, _) = i.claim {
                        let ids: [Id; 2] = [i.id.into(), session.into()];
                        let seen =
                            "it is stored as the session's, and the server would give it to others";
                        self.found(Rule::ClaimDiffers, ids, seen);
                    }
                    self.stays(i, Duration::ZERO);
                }
                Some(Holder::Discarded) => {
                    if matches!(i.doing, Doing::Gated | Doing::Running) {
                        let seen = "it was discarded and has not been told to stop";
                        self.found(Rule::InstanceNotRemoved, [i.id.into()], seen);
                    }
                    self.stays(i, Duration::ZERO);
                }
                Some(Holder::Session(session) | Holder::Place(session)) => self.held(i, session),
            }
        }
    }

    fn orphaned(&mut self, i: &InstanceSeen, seen: &str) {
        let session = i.claim.session();
        let ids: Vec<Id> = std::iter::once(i.id.into())
            .chain(session.map(Id::from))
            .collect();
        self.found(Rule::InstanceOrphaned, ids, seen);
    }

    /// It is over, nobody needs it, and it is still there.
    fn stays(&mut self, i: &InstanceSeen, allowed: Duration) {
        if let Doing::Over { since } = i.doing
            && self.overdue(since, allowed)
        {
            let seconds = self.now.since(since).as_secs();
            let seen = format!("it has been over for {seconds} s");
            self.found(Rule::InstanceNotRemoved, [i.id.into()], seen);
        }
    }

    /// An instance that the server holds for a session.
    fn held(&mut self, i: &InstanceSeen, session: SessionId) {
        let ids: [Id; 2] = [i.id.into(), session.into()];
        let Some(s) = self.sessions.get(&session).copied() else {
            self.orphaned(i, "the server holds it for a session that is not there");
            return;
        };
        if let Claim::Of(of, _) = i.claim
            && of != session
        {
            let ids: [Id; 3] = [i.id.into(), session.into(), of.into()];
            let seen = "the server holds it for the first, and it is stored as the second's";
            self.found(Rule::ClaimDiffers, ids, seen);
            return;
        }
        if !s.is_served() {
            return;
        }
        if s.instance != Some(i.id) {
            self.orphaned(i, "its session is served by another, and nobody removes it");
            return;
        }
        if i.doing.is_over() {
            return;
        }
        match i.claim {
            Claim::Of(_, generation) if generation != s.generation => {
                let seen = format!(
                    "it is stored as generation {generation}, and the session is at {}",
                    s.generation
                );
                self.found(Rule::ClaimDiffers, ids, seen);
            }
            Claim::None => {
                let seen = "the session plays on it, and it is stored as nobody's";
                self.found(Rule::ClaimDiffers, ids, seen);
            }
            Claim::Of(..) | Claim::Unreadable(_) => {}
        }
    }

    /// Every start is live or recorded, and not both; every record is one.
    pub(super) fn records(&mut self) {
        let Known::Is(records) = &self.snapshot.records else {
            return;
        };
        for flaw in &records.flaws {
            let (rule, seen) = match flaw.what {
                Flaw::Twice => (Rule::RecordTwice, "it is stored more than once"),
                Flaw::NoEnd => (Rule::RecordFlawed, "it does not say when it ended"),
                Flaw::NoReason => (Rule::RecordFlawed, "its reason is none that there is"),
                Flaw::NoSession => (Rule::RecordFlawed, "its session id is none"),
            };
            self.found(rule, [Id::Row(flaw.session.clone())], seen);
        }
        let Some(server) = self.server else {
            return;
        };
        for s in server.sessions.iter().filter(|s| s.phase.is_live()) {
            if records.found.contains(&s.id) {
                let seen = format!("it is {} and has a record", s.phase.as_str());
                self.found(Rule::LiveAndRecorded, [s.id.into()], seen);
            }
        }
        for (id, seen) in self.started() {
            if !self.sessions.contains_key(&id) && records.lacks(id) {
                self.found(Rule::StartLost, [id.into()], seen);
            }
        }
    }

    /// Sessions that were started, and who says so.
    fn started(&self) -> BTreeMap<SessionId, &'static str> {
        let mut all = BTreeMap::new();
        if let Some(server) = self.server {
            let kept = |at: Moment| at >= server.kept_since;
            let answered = server.starts.iter().filter(|(_, at)| kept(*at));
            all.extend(answered.map(|(id, _)| (*id, "its start was answered")));
        }
        for i in self.snapshot.instances.get().into_iter().flatten() {
            // What is being discarded may be a start that was called off.
            if self.holders.get(&i.id) != Some(&Holder::Discarded)
                && let Some(session) = i.claim.session()
            {
                all.entry(session)
                    .or_insert("an instance is stored as its own");
            }
        }
        all
    }

    /// No fleet runs more than it may, and who stands in its line waits.
    pub(super) fn fleets(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        let mut running: HashMap<&FleetName, u32> = HashMap::new();
        for i in self.snapshot.instances.get().into_iter().flatten() {
            let held = matches!(
                self.holders.get(&i.id),
                Some(Holder::Warm | Holder::Session(_))
            );
            if held && !matches!(i.doing, Doing::Over { .. } | Doing::Gated) {
                *running.entry(&i.fleet).or_default() += 1;
            }
        }
        for f in &server.fleets {
            let runs = running.get(&f.name).copied().unwrap_or(0);
            if let Some(limit) = f.limit.filter(|limit| runs > *limit) {
                let seen = format!("{runs} run, and {limit} may");
                self.found(Rule::CapacityExceeded, [f.name.clone().into()], seen);
            }
            for id in &f.line {
                let seen = match self.sessions.get(id) {
                    Some(s) if s.phase == Phase::Queued => continue,
                    Some(s) => format!("it is {}", s.phase.as_str()),
                    None => "there is no such session".to_owned(),
                };
                let ids: [Id; 2] = [f.name.clone().into(), (*id).into()];
                self.found(Rule::LineHoldsStranger, ids, seen);
            }
        }
    }
}
