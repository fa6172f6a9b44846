//! What every owner says now, as a [`Snapshot`].
//!
//! The order matters: starts and fates are read before the sessions that they lead to, sessions before the records that they become,
//! so that what moves on while this reads is found where it went.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spawnpoint_core::audit::{
    Claim as ClaimSeen, Doing, Fate, FleetSeen, GatewaySeen, GatewayTables, Holder as HolderSeen,
    Holding, HoldingKind, InstanceSeen, RecordsSeen, ServerSeen, SessionSeen, Snapshot, TicketKept,
    Waits,
};
use spawnpoint_core::session::Phase;
use spawnpoint_core::time::Known;
use spawnpoint_core::{FleetName, Generation, Moment, SessionId};
use spawnpoint_runtime::{Instance, State};
use spawnpoint_store::Inspection;
use spawnpoint_store::lobby::{State as LobbyState, load};
use spawnpoint_wire::claim::Claim;
use spawnpoint_wire::tables::Tables;

use super::super::App;
use super::super::world::{Commit, Entry, FleetState, Holder, World};

/// Sessions read under one hold of the world's lock: some tens of microseconds, so that a claim never waits for an audit.
const SLICE: usize = 256;
/// A part that has not answered by then cannot be seen. Three looks at three such parts, one after the other, are shorter than whoever
/// asks for an audit waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl App {
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        suspects: Option<&BTreeSet<SessionId>>,
        inspection: &mut Option<Inspection>,
    ) -> Snapshot {
        let others = async {
            let server = self.server_seen().await;
            let (instances, holdings, gateways, lobby) = tokio::join!(
                self.instances_seen(),
                self.holdings_seen(),
                self.gateways_seen(),
                self.lobby_seen()
            );
            (server, instances, holdings, gateways, lobby)
        };
        // What is stored is looked over beside all that: it takes as long, and elsewhere.
        let (others, ()) = tokio::join!(others, self.inspect(inspection));
        let (server, mut instances, holdings, gateways, lobby) = others;
        keep_managed(&mut instances, &holdings);
        let asked = concerned(&server, &instances, suspects);
        let records = self.records_seen(asked, inspection.as_ref()).await;
        Snapshot {
            server,
            instances,
            holdings,
            records,
            lobby,
            gateways,
        }
    }

    fn unknown<T>(&self) -> Known<T> {
        Known::Unknown { since: self.now() }
    }

    async fn server_seen(&self) -> Known<ServerSeen> {
        if !self.revived.load(Ordering::Acquire) || !self.lobby_loaded.load(Ordering::Acquire) {
            let since = self.started_at;
            return Known::Unknown { since };
        }
        let retention = self.config.load().server.retention;
        let mut seen = ServerSeen {
            starts: self.audits.starts(),
            kept_since: self.now().before(retention),
            fates: self.tickets().audit_fates(),
            ..ServerSeen::default()
        };
        let tickets = self.tickets().audit_ids();
        for some in tickets.chunks(SLICE) {
            seen.tickets.extend(self.tickets().audit(some));
            tokio::task::yield_now().await;
        }
        let held = self
            .held_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        let ids: Vec<SessionId> = self.with_world(|w| w.sessions.keys().copied().collect());
        let mut limits: HashMap<FleetName, Option<u32>> = HashMap::new();
        for some in ids.chunks(SLICE) {
            self.with_world(|w| {
                for entry in some.iter().filter_map(|id| w.sessions.get(id)) {
                    widen(&mut limits, entry);
                    seen.sessions.push(self.session_seen(w, entry, held));
                }
            });
            tokio::task::yield_now().await;
        }
        seen.routes = self.routes.all();
        self.with_world(|w| {
            let fleets = w.fleets.iter();
            seen.fleets = fleets.map(|(n, f)| fleet_seen(n, f, &limits)).collect();
        });
        seen.holders =
            self.with_world(|w| w.holders.iter().map(|(i, h)| (*i, holder(*h))).collect());
        self.bound_players(&mut seen);
        Known::Is(seen)
    }

    /// The players whose session is not live; the others say nothing new. Ids alone first: names are copied of the few in question.
    fn bound_players(&self, seen: &mut ServerSeen) {
        let live = seen.sessions.iter().filter(|s| s.phase.is_live());
        let live: HashSet<SessionId> = live.map(|s| s.id).collect();
        let mut others: HashSet<SessionId> =
            self.with_world(|w| w.by_player.values().copied().collect());
        others.retain(|id| !live.contains(id));
        if others.is_empty() {
            return;
        }
        seen.bound_players = self.with_world(|w| {
            let bound = w.by_player.iter().filter(|(_, id)| {
                // It may have become live since those were read.
                let live = |e: &Entry| e.session.phase.is_live();
                others.contains(*id) && !w.sessions.get(*id).is_some_and(live)
            });
            bound
                .map(|((f, p), id)| (f.clone(), p.clone(), *id))
                .collect()
        });
    }

    fn session_seen(&self, world: &World, entry: &Entry, held: bool) -> SessionSeen {
        let s = &entry.session;
        let written = *entry.commit.borrow() == Commit::Durable && entry.unsaved == 0;
        let waits = match s.phase {
            Phase::Queued => {
                let fleet = world.fleets.get(&s.fleet);
                if fleet.is_some_and(|f| f.queue.binary_search(&s.id).is_ok()) {
                    Waits::InLine
                } else if entry.start.placed.is_some() {
                    Waits::Placed
                } else {
                    Waits::Nowhere
                }
            }
            _ => Waits::Placed,
        };
        // What was due while nobody was there to do it is due since this run began.
        let here = |at: Moment| at.max(self.started_at);
        SessionSeen {
            id: s.id,
            fleet: s.fleet.clone(),
            phase: s.phase,
            generation: s.generation,
            instance: s.instance,
            over: s.exit.is_some(),
            settled: written && !entry.driving && entry.todo.is_empty(),
            roster: s.roster.iter().map(|p| p.id.clone()).collect(),
            tickets: entry.tickets.iter().map(|(_, t)| *t).collect(),
            ending_since: s.ending.map(|e| here(e.at)),
            grace: s.policy.grace,
            due: due(entry)
                .filter(|_| !held)
                .map(|at| here(at).after(s.policy.heartbeat)),
            waits,
            listens: entry.tcp_port,
        }
    }

    async fn instances_seen(self: &Arc<Self>) -> Known<Vec<InstanceSeen>> {
        let Ok(Ok(all)) = tokio::time::timeout(PATIENCE, self.runtime.list()).await else {
            return self.unknown();
        };
        let (since, size) = (self.started_at, all.len());
        // Each has a document to be read.
        let read = move || all.iter().map(|i| instance_seen(i, since)).collect();
        match self.aside(size, read).await {
            Some(seen) => Known::Is(seen),
            None => self.unknown(),
        }
    }

    async fn holdings_seen(&self) -> Known<Vec<Holding>> {
        match tokio::time::timeout(PATIENCE, self.runtime.holdings()).await {
            Ok(Ok(all)) => Known::Is(all),
            Ok(Err(_)) | Err(_) => self.unknown(),
        }
    }

    async fn lobby_seen(&self) -> Known<Vec<TicketKept>> {
        let Ok(Ok(all)) = tokio::time::timeout(PATIENCE, load(&*self.lobby)).await else {
            return self.unknown();
        };
        let kept = all.into_iter().map(|held| TicketKept {
            id: held.ticket.id,
            forming: match held.state {
                LobbyState::Waiting => None,
                LobbyState::Forming(session) => Some(session),
            },
        });
        Known::Is(kept.collect())
    }

    /// Every gateway that reports or can be asked.
    async fn gateways_seen(&self) -> Known<Vec<GatewaySeen>> {
        let mut seen = Vec::new();
        let mut asked = HashSet::new();
        for gateway in self.audits.gateways() {
            let name = gateway.name();
            asked.insert(name.clone());
            let tables = self.tables_of(&*gateway).await;
            seen.push(GatewaySeen { name, tables });
        }
        for (name, at) in self.reports.heard() {
            if !asked.contains(&name) {
                let tables = Known::Unknown { since: at };
                seen.push(GatewaySeen { name, tables });
            }
        }
        if seen.is_empty() {
            let since = self.started_at;
            return Known::Unknown { since };
        }
        Known::Is(seen)
    }

    async fn tables_of(&self, gateway: &dyn Tables) -> Known<GatewayTables> {
        match tokio::time::timeout(PATIENCE, gateway.tables()).await {
            Ok(Ok(tables)) => Known::Is(tables),
            Ok(Err(_)) | Err(_) => self.unknown(),
        }
    }

    /// Looks over what is stored, unless that was done.
    async fn inspect(&self, inspection: &mut Option<Inspection>) {
        if inspection.is_none() {
            let inspected = tokio::time::timeout(PATIENCE, self.records.inspect()).await;
            *inspection = inspected.ok().and_then(Result::ok);
        }
    }

    async fn records_seen(
        &self,
        asked: HashSet<SessionId>,
        inspection: Option<&Inspection>,
    ) -> Known<RecordsSeen> {
        let Some(stored) = inspection else {
            return self.unknown();
        };
        let ids: Vec<SessionId> = asked.iter().copied().collect();
        match tokio::time::timeout(PATIENCE, self.records.recorded(&ids)).await {
            Ok(Ok(found)) => Known::Is(RecordsSeen {
                asked,
                found,
                total: stored.total,
                flaws: stored.flaws.clone(),
            }),
            Ok(Err(_)) | Err(_) => self.unknown(),
        }
    }
}

/// Leaves only those ports that the runtime gives out: instances with addresses of their own (pods) may all have the same.
fn keep_managed(instances: &mut Known<Vec<InstanceSeen>>, holdings: &Known<Vec<Holding>>) {
    let given: HashSet<u16> = holdings
        .get()
        .into_iter()
        .flatten()
        .filter(|h| h.kind == HoldingKind::Port)
        .filter_map(|h| h.name.parse().ok())
        .collect();
    if let Known::Is(instances) = instances {
        for i in instances {
            i.port = i.port.filter(|p| given.contains(p));
        }
    }
}

/// The sessions whose records matter: all that anything names, or of those only the suspects.
fn concerned(
    server: &Known<ServerSeen>,
    instances: &Known<Vec<InstanceSeen>>,
    suspects: Option<&BTreeSet<SessionId>>,
) -> HashSet<SessionId> {
    if let Some(suspects) = suspects {
        return suspects.iter().copied().collect();
    }
    let mut all = HashSet::new();
    if let Known::Is(s) = server {
        all.extend(s.sessions.iter().map(|s| s.id));
        all.extend(s.starts.iter().map(|(id, _)| *id));
        all.extend(s.fates.iter().filter_map(|(_, fate)| match fate {
            Fate::Matched(session) => Some(*session),
            Fate::Unmatched => None,
        }));
    }
    let claims = instances.get().into_iter().flatten();
    all.extend(claims.filter_map(|i| i.claim.session()));
    all
}

/// When it ends by itself at the latest, as far as nobody can put that off.
fn due(entry: &Entry) -> Option<Moment> {
    let s = &entry.session;
    let own = match s.phase {
        Phase::Queued => Some(s.queue_deadline),
        Phase::Starting | Phase::Replacing => s.start_deadline,
        Phase::Ready | Phase::Running | Phase::Ending | Phase::Ended => None,
    };
    own.into_iter().chain(s.max_at).min()
}

/// A limit that was lowered since does not make those wrong that were started before.
fn widen(limits: &mut HashMap<FleetName, Option<u32>>, entry: &Entry) {
    let own = entry.fleet.max_instances;
    if let Some(limit) = limits.get_mut(&entry.session.fleet) {
        *limit = limit.zip(own).map(|(a, b)| a.max(b));
    } else {
        limits.insert(entry.session.fleet.clone(), own);
    }
}

fn fleet_seen(
    name: &FleetName,
    fleet: &FleetState,
    limits: &HashMap<FleetName, Option<u32>>,
) -> FleetSeen {
    let now = fleet.config.max_instances;
    let limit = match limits.get(name) {
        Some(before) => now.zip(*before).map(|(a, b)| a.max(b)),
        None => now,
    };
    FleetSeen {
        name: name.clone(),
        limit,
        line: fleet.queue.iter().copied().collect(),
    }
}

const fn holder(h: Holder) -> HolderSeen {
    match h {
        Holder::Warm => HolderSeen::Warm,
        Holder::Session(s) => HolderSeen::Session(s),
        Holder::Place(s) => HolderSeen::Place(s),
        Holder::Orphan => HolderSeen::Discarded,
    }
}

fn instance_seen(i: &Instance, here: Moment) -> InstanceSeen {
    let claim = match &i.facts {
        None => ClaimSeen::None,
        Some(facts) => match Claim::from_document(&facts.document) {
            Ok(claim) => ClaimSeen::Of(facts.session, Generation(claim.generation)),
            Err(_) => ClaimSeen::Unreadable(facts.session),
        },
    };
    let doing = match i.state {
        State::Gated => Doing::Gated,
        State::Starting | State::Ready => Doing::Running,
        State::Stopping => Doing::Stopping,
        State::Exited(exit) => Doing::Over {
            since: exit.at.max(here),
        },
        State::Unknown { since } => Doing::Unknown { since },
    };
    InstanceSeen {
        id: i.id,
        fleet: i.fleet.clone(),
        doing,
        claim,
        port: i.address.map(|a| a.port()),
    }
}
