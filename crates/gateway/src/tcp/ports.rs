//! The listeners of TCP sessions: which session has which port, and the sockets until somebody accepts on them.
//!
//! They are made before the gateway is: the server opens those of sessions that live since an earlier run while it is being built,
//! and the gateway accepts as soon as it serves. Between the two the kernel keeps who connects.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use spawnpoint_core::ports::PortTable;
use spawnpoint_core::{Clock, SessionId};
use spawnpoint_wire::tcp::{TcpPortError, TcpPorts, TcpTerms};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::lock;

/// Connections that the kernel keeps for one session before they are accepted: a whole roster at once, and everybody again.
const BACKLOG: i32 = 256;
/// A port rests this long after its session: who still has the old address must not find themselves in somebody else's game.
pub const PORT_QUARANTINE: Duration = Duration::from_secs(15);

/// Where TCP sessions are listened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Every one of these, at each session's port. The first that this machine does not have at all (IPv6 switched off) is left out.
    pub addresses: Vec<IpAddr>,
    /// The ports.
    pub ports: RangeInclusive<u16>,
    /// See [`PORT_QUARANTINE`].
    pub quarantine: Duration,
}

impl TcpConfig {
    /// These addresses and ports.
    #[must_use]
    pub const fn new(addresses: Vec<IpAddr>, ports: RangeInclusive<u16>) -> Self {
        Self {
            addresses,
            ports,
            quarantine: PORT_QUARANTINE,
        }
    }
}

/// See the module.
pub struct TcpListeners {
    config: TcpConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// There is something to accept on.
    opened: Notify,
}

struct State {
    table: PortTable<SessionId>,
    open: HashMap<SessionId, Open>,
    /// Not accepted on yet. As many as there are ports, at most.
    fresh: Vec<Listening>,
}

struct Open {
    port: u16,
    closed: CancellationToken,
}

/// One session's sockets.
pub(crate) struct Listening {
    pub(crate) session: SessionId,
    pub(crate) terms: TcpTerms,
    pub(crate) sockets: Vec<std::net::TcpListener>,
    pub(crate) closed: CancellationToken,
}

impl TcpListeners {
    /// No listeners yet.
    #[must_use]
    pub fn new(config: TcpConfig, clock: Arc<dyn Clock>) -> Arc<Self> {
        // Two servers of one machine begin their search in different places.
        let seed = u64::from(std::process::id()).wrapping_mul(7919);
        let table = PortTable::new(
            *config.ports.start(),
            *config.ports.end(),
            config.quarantine,
            seed,
        );
        Arc::new(Self {
            config,
            clock,
            state: Mutex::new(State {
                table,
                open: HashMap::new(),
                fresh: Vec::new(),
            }),
            opened: Notify::new(),
        })
    }

    /// Sessions that are listened for.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.state).open.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every session that is listened for, with its port.
    #[must_use]
    pub fn all(&self) -> Vec<(SessionId, u16)> {
        let state = lock(&self.state);
        state.open.iter().map(|(s, o)| (*s, o.port)).collect()
    }

    /// The port a session has.
    #[must_use]
    pub fn port(&self, session: SessionId) -> Option<u16> {
        lock(&self.state).open.get(&session).map(|o| o.port)
    }

    /// Waits for sockets that nobody accepts on yet.
    pub(crate) async fn fresh(&self) -> Vec<Listening> {
        loop {
            let opened = self.opened.notified();
            let fresh = self.take_fresh();
            if !fresh.is_empty() {
                return fresh;
            }
            opened.await;
        }
    }

    /// Those sockets, if there are any.
    pub(crate) fn take_fresh(&self) -> Vec<Listening> {
        std::mem::take(&mut lock(&self.state).fresh)
    }

    fn bind_exactly(
        &self,
        table: &mut PortTable<SessionId>,
        session: SessionId,
        port: u16,
    ) -> Result<(u16, Vec<std::net::TcpListener>), TcpPortError> {
        let taken = TcpPortError::Exhausted {
            from: port,
            to: port,
        };
        if !table.take(port, session) {
            return Err(taken);
        }
        let bound = self.bind(port);
        if !matches!(bound, Ok(Some(_))) {
            table.release(port, session, false, self.clock.now());
        }
        match bound {
            Ok(Some(sockets)) => Ok((port, sockets)),
            Ok(None) => Err(taken),
            Err(e) => Err(TcpPortError::Socket(e)),
        }
    }

    fn bind_any(
        &self,
        table: &mut PortTable<SessionId>,
        session: SessionId,
    ) -> Result<(u16, Vec<std::net::TcpListener>), TcpPortError> {
        let now = self.clock.now();
        let (from, to) = table.range();
        let mut outcome = None;
        let port = table.allocate(session, now, |port| match self.bind(port) {
            Ok(None) => false,
            // Where the machine gives no socket no other port would do better.
            done => {
                outcome = Some(done);
                true
            }
        });
        match (port, outcome) {
            (Some(port), Some(Ok(Some(sockets)))) => Ok((port, sockets)),
            (Some(port), Some(Err(e))) => {
                table.release(port, session, false, now);
                Err(TcpPortError::Socket(e))
            }
            _ => Err(TcpPortError::Exhausted { from, to }),
        }
    }

    /// Listens on every address at this port. `None`: another program has it.
    fn bind(&self, port: u16) -> io::Result<Option<Vec<std::net::TcpListener>>> {
        let has_v4 = self.config.addresses.iter().any(IpAddr::is_ipv4);
        let mut bound = Vec::with_capacity(self.config.addresses.len());
        for address in &self.config.addresses {
            match bind_one(SocketAddr::new(*address, port), has_v4) {
                Ok(socket) => bound.push(socket),
                Err(e) if e.kind() == ErrorKind::AddrInUse => return Ok(None),
                Err(e) if !bound.is_empty() && address.is_ipv6() && is_missing(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok((!bound.is_empty()).then_some(bound))
    }
}

fn bind_one(address: SocketAddr, beside_v4: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `::` alone takes IPv4 as well; beside an IPv4 address it would take that one's port.
        socket.set_only_v6(beside_v4)?;
    }
    // Connections of the run before linger for a minute; the port is ours all the same.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn is_missing(e: &io::Error) -> bool {
    e.kind() == ErrorKind::AddrNotAvailable
        || e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

impl TcpPorts for TcpListeners {
    fn open(
        &self,
        session: SessionId,
        exactly: Option<u16>,
        terms: TcpTerms,
    ) -> Result<u16, TcpPortError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if let Some(open) = state.open.get(&session) {
            return Ok(open.port);
        }
        let (port, sockets) = match exactly {
            Some(port) => self.bind_exactly(&mut state.table, session, port)?,
            None => self.bind_any(&mut state.table, session)?,
        };
        let closed = CancellationToken::new();
        state.open.insert(
            session,
            Open {
                port,
                closed: closed.clone(),
            },
        );
        state.fresh.push(Listening {
            session,
            terms,
            sockets,
            closed,
        });
        drop(guard);
        self.opened.notify_one();
        Ok(port)
    }

    fn close(&self, session: SessionId) {
        let mut state = lock(&self.state);
        let Some(open) = state.open.remove(&session) else {
            return;
        };
        // Sockets that nobody accepts on yet stay where they are: who has connected to them is told that it is over.
        open.closed.cancel();
        let now = self.clock.now();
        state.table.release(open.port, session, true, now);
    }
}
