//! TCP games: each session has a port of its own at the gateway, opened before its address is told and kept in its claim.
//!
//! A session that cannot have one now waits in the queue like for any other resource. After a restart the same port is asked for;
//! only if another program has it meanwhile the address changes, and whoever listens to the session's events is told.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::SessionId;
use spawnpoint_core::session::{Effect, Phase};
use spawnpoint_runtime::{Protocol, RuntimeError};
use spawnpoint_wire::event::EventBody;
use spawnpoint_wire::tcp::TcpPortError;

use super::world::{Holder, Place, Todo};
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

    /// Whether the session needs no port, or has it.
    pub(super) fn has_port(&self, id: SessionId) -> bool {
        self.with_world(|w| {
            w.sessions
                .get(&id)
                .is_none_or(|e| !wants_port(&e.fleet) || e.tcp_port.is_some())
        })
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
        self.change_world(|w| {
            if let Some(entry) = w.sessions.get_mut(&id) {
                entry.tcp_port = Some(port);
            }
        });
        Ok(())
    }

    /// Nobody connects to the session any more.
    pub(super) fn close_port(&self, id: SessionId) {
        if let Some(tcp) = &self.tcp {
            tcp.close(id);
        }
    }

    /// Opens the port of a session that lives since an earlier run; keeps trying beside everything else if it must.
    pub(super) fn reopen_port(self: &Arc<Self>, id: SessionId) {
        if !self.take_port_again(id) {
            let app = Arc::clone(self);
            self.tasks.spawn(async move {
                while !app.take_port_again(id) {
                    tokio::select! {
                        () = tokio::time::sleep(PORT_AGAIN) => {}
                        () = app.stop.cancelled() => return,
                    }
                }
            });
        }
    }

    /// False: not now.
    fn take_port_again(self: &Arc<Self>, id: SessionId) -> bool {
        let known = self.with_world(|w| {
            w.sessions
                .get(&id)
                .filter(|e| wants_port(&e.fleet) && e.session.phase.is_live())
                // One that waits in the queue without a port gets it with its place.
                .filter(|e| e.tcp_port.is_some() || e.session.phase != Phase::Queued)
                .map(|e| (e.tcp_port, e.fleet.tcp))
        });
        let (Some((wanted, terms)), Some(tcp)) = (known, &self.tcp) else {
            return true;
        };
        let port = match tcp.open(id, wanted, terms) {
            Ok(port) => port,
            Err(e) => {
                exhausted(id, e);
                return false;
            }
        };
        if wanted == Some(port) {
            return true;
        }
        tracing::warn!(session = %id, was = ?wanted, port, "another program has the session's port: its address changes");
        self.change_world(|w| {
            if let Some(entry) = w.sessions.get_mut(&id) {
                entry.tcp_port = Some(port);
                entry.unsaved += 1;
                entry.todo.push_back(Todo::Effect(Effect::Save));
            }
        });
        self.drive(id);
        self.tell_address(id);
        true
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

    /// A place that was chosen for a session and cannot be used yet.
    pub(super) fn give_back(self: &Arc<Self>, id: SessionId, place: Place) {
        let warm = self.change_world(|w| {
            let fleet = w.sessions.get(&id)?.session.fleet.clone();
            match place {
                Place::Cold(instance) => {
                    w.drop_instance(instance, &fleet);
                    None
                }
                Place::Warm(instance) => {
                    w.hold(instance, &fleet, Holder::Warm);
                    w.instances.get(&instance).cloned()
                }
                Place::Wait | Place::Full => None,
            }
        });
        if let Some(instance) = warm {
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

fn exhausted(id: SessionId, e: TcpPortError) -> RuntimeError {
    tracing::warn!(session = %id, error = %super::start::chain(&e), "no port for a TCP session yet");
    match e {
        TcpPortError::Exhausted { from, to } => RuntimeError::PortsExhausted { from, to },
        TcpPortError::Socket(_) => RuntimeError::PortsExhausted { from: 0, to: 0 },
    }
}
