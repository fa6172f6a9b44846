//! What others keep for sessions and instances: routes, connections, listeners, ports, files, tickets.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Fate, GatewayTables, HoldingKind, Id, Look, RouteSeen, Rule, SessionSeen, Standing};
use crate::id::{FleetName, InstanceId, PlayerId, SessionId, TicketId};
use crate::time::Known;

/// The table that gateways are told, where a gateway is named.
const SERVER: &str = "server";

impl<'a> Look<'a> {
    /// Every table has the routes of exactly what is there, and connections lead to what is live.
    pub(super) fn routes(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        self.table(SERVER, &server.routes);
        let Known::Is(gateways) = &self.snapshot.gateways else {
            return;
        };
        let mut all_seen = true;
        let mut listened: HashSet<(SessionId, u16)> = HashSet::new();
        for g in gateways {
            let Known::Is(tables) = &g.tables else {
                all_seen = false;
                continue;
            };
            self.table(&g.name, &tables.routes);
            self.connections(&g.name, tables);
            listened.extend(&tables.listeners);
        }
        if !all_seen {
            return;
        }
        for s in &server.sessions {
            if let Some(port) = s.listens.filter(|_| s.phase.is_live() && s.settled)
                && !listened.contains(&(s.id, port))
            {
                let seen = format!("it is {}", s.phase.as_str());
                self.found(Rule::ListenerMissing, [s.id.into(), port.into()], seen);
            }
        }
    }

    fn table(&mut self, name: &str, routes: &[RouteSeen]) {
        let Some(server) = self.server else {
            return;
        };
        let gateway = || Id::Gateway(name.to_owned());
        let mut there: HashSet<SessionId> = HashSet::with_capacity(routes.len());
        for r in routes {
            there.insert(r.session);
            let Some(s) = self.sessions.get(&r.session).copied() else {
                let seen = format!("it shows {}", r.phase.as_str());
                self.found(Rule::RouteOrphaned, [gateway(), r.session.into()], seen);
                continue;
            };
            if s.settled && (r.generation, r.phase) != (s.generation, s.phase) {
                let seen = format!(
                    "it shows generation {} and {}, and the session is at {} and {}",
                    r.generation,
                    r.phase.as_str(),
                    s.generation,
                    s.phase.as_str()
                );
                self.found(Rule::RouteDiffers, [gateway(), r.session.into()], seen);
            }
        }
        let lacks = |s: &&SessionSeen| s.phase.is_live() && s.settled && !there.contains(&s.id);
        for s in server.sessions.iter().filter(lacks) {
            let seen = format!("it is {}", s.phase.as_str());
            self.found(Rule::RouteMissing, [gateway(), s.id.into()], seen);
        }
    }

    fn connections(&mut self, name: &str, tables: &GatewayTables) {
        let gateway = || Id::Gateway(name.to_owned());
        for t in tables.tunnels.iter().filter(|t| t.open > 0) {
            let ids: [Id; 2] = [gateway(), t.session.into()];
            match self.sessions.get(&t.session).copied() {
                None => {
                    let seen = format!("{} are open", t.open);
                    self.found(Rule::TunnelOrphaned, ids, seen);
                }
                Some(s) if s.settled && s.phase.is_live() && t.generation < s.generation => {
                    let seen = format!(
                        "{} lead to generation {}, and the session is at {}",
                        t.open, t.generation, s.generation
                    );
                    self.found(Rule::TunnelOutdated, ids, seen);
                }
                Some(_) => {}
            }
        }
        for (session, port) in &tables.listeners {
            if !self.sessions.contains_key(session) {
                let ids: [Id; 3] = [gateway(), (*session).into(), (*port).into()];
                self.found(Rule::ListenerOrphaned, ids, "it is open");
            }
        }
    }

    /// Everything that is kept for an instance is kept for one that is there, and no two have one port.
    pub(super) fn holdings(&mut self) {
        let Some(instances) = &self.instances else {
            return;
        };
        let mut ports: BTreeMap<u16, InstanceId> = BTreeMap::new();
        let mut found: Vec<(Rule, Vec<Id>, String)> = Vec::new();
        for i in self.snapshot.instances.get().into_iter().flatten() {
            let Some(port) = i.port.filter(|_| !i.doing.is_over()) else {
                continue;
            };
            if let Some(other) = ports.insert(port, i.id) {
                let (a, b) = (other.min(i.id), other.max(i.id));
                let ids: [Id; 3] = [port.into(), a.into(), b.into()];
                found.push((Rule::PortShared, ids.into(), "neither is over".to_owned()));
            }
        }
        for h in self.snapshot.holdings.get().into_iter().flatten() {
            if h.of.is_some_and(|of| instances.contains_key(&of)) {
                continue;
            }
            let rule = match h.kind {
                HoldingKind::Port => Rule::PortOrphaned,
                HoldingKind::File => Rule::FileOrphaned,
                HoldingKind::Log => Rule::LogOrphaned,
                HoldingKind::Process => Rule::ProcessOrphaned,
            };
            let ids: Vec<Id> = std::iter::once(Id::Thing(h.name.clone()))
                .chain(h.of.map(Id::from))
                .collect();
            let seen = match h.of {
                Some(_) => "the runtime does not have its instance",
                None => "it is nothing of the runtime's own",
            };
            found.push((rule, ids, seen.to_owned()));
        }
        for (rule, ids, seen) in found {
            self.found(rule, ids, seen);
        }
    }

    /// Every ticket has one fate.
    pub(super) fn tickets(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        self.matches();
        let fates: HashMap<TicketId, Fate> = server.fates.iter().copied().collect();
        let mut waits: HashMap<(&FleetName, &PlayerId), TicketId> = HashMap::new();
        for t in &server.tickets {
            let id = t.ticket.id;
            if fates.contains_key(&id) {
                let seen = "it is in the queue, and its players are told otherwise";
                self.found(Rule::TicketTwoFates, [id.into()], seen);
            }
            if let Standing::Forming(session) = t.standing
                && !self.sessions.contains_key(&session)
            {
                let seen = "there is no such session";
                self.found(Rule::TicketStuck, [id.into(), session.into()], seen);
            }
            for p in &t.ticket.players {
                if let Some(other) = waits.insert((t.queue(), p), id)
                    && other != id
                {
                    let (a, b) = (other.min(id), other.max(id));
                    let ids: [Id; 4] = [
                        t.queue().clone().into(),
                        p.clone().into(),
                        a.into(),
                        b.into(),
                    ];
                    self.found(Rule::PlayerInTwoTickets, ids, "both are there");
                }
            }
        }
        if let Known::Is(records) = &self.snapshot.records {
            for (id, fate) in &server.fates {
                if let Fate::Matched(session) = *fate
                    && !self.sessions.contains_key(&session)
                    && records.lacks(session)
                {
                    let seen = "its players were told that they play in it";
                    let ids: [Id; 2] = [(*id).into(), session.into()];
                    self.found(Rule::TicketWithoutSession, ids, seen);
                }
            }
        }
        self.lobby();
    }

    /// A ticket is in one match.
    fn matches(&mut self) {
        let Some(server) = self.server else {
            return;
        };
        let mut of: HashMap<TicketId, SessionId> = HashMap::new();
        let fates = server.fates.iter().filter_map(|(t, f)| match f {
            Fate::Matched(s) => Some((*t, *s)),
            Fate::Unmatched => None,
        });
        let sessions = server
            .sessions
            .iter()
            .flat_map(|s| s.tickets.iter().map(|t| (*t, s.id)));
        for (ticket, session) in sessions.chain(fates) {
            if let Some(other) = of.insert(ticket, session)
                && other != session
            {
                let (a, b) = (other.min(session), other.max(session));
                let ids: [Id; 3] = [ticket.into(), a.into(), b.into()];
                self.found(Rule::TicketInTwoMatches, ids, "both have it");
            }
        }
    }

    /// The lobby keeps the tickets that are there, and no others.
    fn lobby(&mut self) {
        let (Some(server), Known::Is(kept)) = (self.server, &self.snapshot.lobby) else {
            return;
        };
        let there: HashSet<TicketId> = server.tickets.iter().map(|t| t.ticket.id).collect();
        let in_lobby: HashSet<TicketId> = kept.iter().map(|k| k.id).collect();
        for k in kept.iter().filter(|k| !there.contains(&k.id)) {
            let (ids, seen): (Vec<Id>, _) = match k.forming {
                Some(s) => (vec![k.id.into(), s.into()], "its match is being started"),
                None => (vec![k.id.into()], "it waits there"),
            };
            self.found(Rule::TicketUnknown, ids, seen);
        }
        for t in &server.tickets {
            // One that is being taken in may not be there yet, one whose match is being settled not any more.
            if t.standing == Standing::Waiting && !in_lobby.contains(&t.ticket.id) {
                let seen = "it stands in line";
                self.found(Rule::TicketNotKept, [t.ticket.id.into()], seen);
            }
        }
    }
}
