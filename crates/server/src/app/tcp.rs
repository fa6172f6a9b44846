//! TCP games: each session has a port of its own at the gateway, opened before its address is told and kept in its claim.
//!
//! A session that cannot have one now waits in the queue like for any other resource. After a restart the same port is asked for;
//! only if another program has it meanwhile the address changes, and whoever listens to the session's events is told.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::session::{Effect, Phase};
use spawnpoint_core::{FleetName, SessionId};
use spawnpoint_runtime::{Protocol, RuntimeError};
use spawnpoint_wire::event::EventBody;
use spawnpoint_wire::tcp::{TcpPortError, TcpTerms};

use super::world::{Entry, Holder, Place, Todo};
use super::{Addressing, App};
use crate::config::{Expose, FleetConfig};

/// A live session whose port could not be opened after a restart tries again this often.
const PORT_AGAIN: Duration = Duration::from_secs(1);

/// Whether players of this fleet come through a port of their session's at the gateway.
pub(super) fn wants_port(fleet: &FleetConfig) -> bool {
    fleet.expose == Expose::Gateway && fleet.template.protocol == Protocol::Tcp
}

impl App {
    /// Whether there is a gateway that listens for TCP games.
    pub(super) const fn can_listen(&self) -> bool {
        self.tcp.is_some()
    }

    /// Sees to it that the session has its port, if it needs one. It is written down with whatever is written next about the session.
    pub(super) fn open_port(&self, id: SessionId) -> Result<(), RuntimeError> {
        let known = self.with_world(|w| {
            w.sessions
                .get(&id)
                .filter(|e| wants_port(&e.fleet) && e.tcp_port.is_none())
                .map(|e| e.fleet.tcp)
        });
        let (Some(terms), Some(tcp)) = (known, &self.tcp) else {
            return Ok(());
        };
        let port = tcp.open(id, None, terms).map_err(|e| exhausted(id, e))?;
        self.has_opened(id, port, false);
        Ok(())
    }

    /// Notes the port that was opened for a session. `new`: it has to be written down, and those who know another one told.
    fn has_opened(&self, id: SessionId, port: u16, new: bool) {
        let there = self.change_world(|w| {
            let entry = w.sessions.get_mut(&id)?;
            entry.tcp_port = Some(port);
            if new {
                entry.new_address();
            }
            Some(())
        });
        if there.is_none() {
            // It ended meanwhile, and has been closed before it was open.
            self.close_port(id);
        }
    }

    /// Whether the first of those who wait in a fleet can be placed as far as ports go. A port that is opened for it now is written
    /// down and told first: it is an address from then on, and has to be the same after a restart.
    pub(super) fn first_has_port(self: &Arc<Self>, fleet: &FleetName) -> bool {
        let first = self.with_world(|w| {
            let id = *w.fleets.get(fleet)?.queue.front()?;
            let entry = w.sessions.get(&id)?;
            let needs = wants_port(&entry.fleet) && entry.tcp_port.is_none();
            Some((id, needs, entry.unsaved == 0))
        });
        let Some((id, needs, written)) = first else {
            return true;
        };
        if !needs {
            return written;
        }
        let opened = self.open_port(id);
        self.change_world(|w| {
            if let Some(entry) = w.sessions.get_mut(&id) {
                match opened {
                    Ok(()) => entry.new_address(),
                    Err(_) => entry.waiting_for = "ports_exhausted",
                }
            }
        });
        self.drive(id);
        false
    }

    /// Nobody connects to the session any more.
    pub(super) fn close_port(&self, id: SessionId) {
        if let Some(tcp) = &self.tcp {
            tcp.close(id);
        }
    }

    /// Opens the ports of sessions that live since an earlier run. Those that can have theirs again come first: a new one for another
    /// session must not be one of them.
    pub(super) fn reopen_ports(self: &Arc<Self>, sessions: &[SessionId]) {
        let Some(tcp) = &self.tcp else {
            return;
        };
        let mut others = Vec::new();
        for id in sessions {
            let Some((had, terms)) = self.needs_port_again(*id) else {
                continue;
            };
            let opened = had.map(|port| tcp.open(*id, Some(port), terms));
            match opened {
                Some(Ok(port)) => self.has_opened(*id, port, false),
                Some(Err(e)) => {
                    tracing::warn!(session = %id, error = %super::start::chain(&e), "the session's port cannot be had again: its address changes");
                    others.push(*id);
                }
                None => others.push(*id),
            }
        }
        // An address that leads to another program is not told any more.
        self.change_world(|w| {
            for id in &others {
                if let Some(entry) = w.sessions.get_mut(id) {
                    entry.tcp_port = None;
                }
            }
        });
        for id in others {
            let app = Arc::clone(self);
            if !app.take_other_port(id) {
                self.tasks.spawn(async move { app.wait_for_port(id).await });
            }
        }
    }

    /// The port a session had, if it is to have one.
    fn needs_port_again(&self, id: SessionId) -> Option<(Option<u16>, TcpTerms)> {
        self.with_world(|w| {
            let entry = w.sessions.get(&id)?;
            let live = entry.session.phase.is_live();
            // One that waits in the queue without a port gets it with its turn.
            let has_it_since = entry.tcp_port.is_some() || entry.session.phase != Phase::Queued;
            (wants_port(&entry.fleet) && live && has_it_since)
                .then_some((entry.tcp_port, entry.fleet.tcp))
        })
    }

    /// False: not now.
    fn take_other_port(self: &Arc<Self>, id: SessionId) -> bool {
        let (Some((_, terms)), Some(tcp)) = (self.needs_port_again(id), &self.tcp) else {
            return true;
        };
        match tcp.open(id, None, terms) {
            Ok(port) => {
                self.has_opened(id, port, true);
                self.drive(id);
                true
            }
            Err(e) => {
                exhausted(id, e);
                false
            }
        }
    }

    async fn wait_for_port(self: Arc<Self>, id: SessionId) {
        while !self.take_other_port(id) {
            tokio::select! {
                biased;
                () = tokio::time::sleep(PORT_AGAIN) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Tells listeners where the session can be reached, which it was not known when they asked.
    pub(super) fn tell_address(&self, id: SessionId) {
        let Some(connect_port) = self.with_world(|w| w.sessions.get(&id).and_then(|e| e.tcp_port))
        else {
            return;
        };
        let config = self.config.load();
        let server = &config.server;
        // An event is for everybody, whichever way they reached us: without a public URL the first address is as good as any.
        let first = server.public.first().map(ToString::to_string);
        let at = Addressing::new(server.public_url.as_deref(), first.as_deref());
        let body = EventBody::Address {
            connect_host: at.host_port().0,
            connect_port,
        };
        self.tell(id, body);
    }

    /// A place that was chosen for a new session and cannot be used yet.
    pub(super) fn give_back(self: &Arc<Self>, id: SessionId, place: Place) {
        let warm = self.change_world(|w| {
            let fleet = w.sessions.get(&id)?.session.fleet.clone();
            match place {
                Place::Cold(instance) => {
                    w.drop_instance(instance, &fleet);
                    None
                }
                Place::Warm(instance) => match w.instances.get(&instance).cloned() {
                    Some(seen) => {
                        w.hold(instance, &fleet, Holder::Warm);
                        Some(seen)
                    }
                    None => {
                        w.drop_instance(instance, &fleet);
                        None
                    }
                },
                Place::Wait | Place::Full => None,
            }
        });
        if let Some(instance) = warm {
            // As it was seen last, or as over if it died meanwhile.
            self.observe(instance);
        }
    }

    /// What a session that must queue waits for: what those before it wait for.
    pub(super) fn waiting_for(&self, id: SessionId) -> &'static str {
        self.with_world(|w| {
            let fleet = w.sessions.get(&id).map(|e| &e.session.fleet);
            let first = fleet
                .and_then(|f| w.fleets.get(f))
                .and_then(|f| f.queue.front())
                .and_then(|first| w.sessions.get(first));
            match first.map(|e| e.waiting_for) {
                Some("ports_exhausted") => "ports_exhausted",
                _ => "capacity",
            }
        })
    }
}

impl Entry {
    /// Its address is to be written down, then told.
    fn new_address(&mut self) {
        self.unsaved += 1;
        self.todo.push_back(Todo::Effect(Effect::Save));
        self.todo.push_back(Todo::Address);
    }
}

fn exhausted(id: SessionId, e: TcpPortError) -> RuntimeError {
    tracing::warn!(session = %id, error = %super::start::chain(&e), "no port for a TCP session yet");
    match e {
        TcpPortError::Exhausted { from, to } => RuntimeError::PortsExhausted { from, to },
        TcpPortError::Socket(_) => RuntimeError::PortsExhausted { from: 0, to: 0 },
    }
}
