//! What happens, told to whoever listens: the ring of events behind the resumable streams, how fleets are, and the table of routes behind
//! the gateways.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spawnpoint_core::audit::RouteSeen;
use spawnpoint_core::limits::EVENT_RING;
use spawnpoint_core::{PlayerId, SessionId};
use spawnpoint_wire::api::FleetChange;
use spawnpoint_wire::event::Event;
use spawnpoint_wire::link::{Cursor, Resolved, Route, RouteUpdate};
use tokio::sync::broadcast;

/// Messages a slow listener may lag behind before it is given a fresh start instead.
const LAG: usize = 1_024;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event with those who may see it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its number.
    pub sequence: u64,
    /// The roster when it happened.
    pub players: Arc<[PlayerId]>,
    /// What is sent.
    pub event: Event,
}

/// What a listener gets.
pub struct Listening {
    /// What it missed; `None` when that is not all kept.
    pub backlog: Option<Vec<Arc<Heard>>>,
    /// What is told from here on.
    pub live: broadcast::Receiver<Arc<Heard>>,
    /// The id to resume from to hear exactly that.
    pub place: String,
}

/// Recent events, numbered, and a broadcast of new ones.
pub struct EventHub {
    incarnation: u64,
    ring: Mutex<(u64, VecDeque<Arc<Heard>>)>,
    live: broadcast::Sender<Arc<Heard>>,
}

impl EventHub {
    /// An empty hub of this run of the server.
    #[must_use]
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            ring: Mutex::new((0, VecDeque::new())),
            live: broadcast::Sender::new(LAG),
        }
    }

    /// Numbers and tells one event.
    pub fn tell(&self, mut event: Event, players: Arc<[PlayerId]>) {
        let mut ring = lock(&self.ring);
        ring.0 += 1;
        let sequence = ring.0;
        event.id = format!("{}-{sequence}", self.incarnation);
        let heard = Arc::new(Heard {
            sequence,
            players,
            event,
        });
        if ring.1.len() == EVENT_RING {
            ring.1.pop_front();
        }
        ring.1.push_back(Arc::clone(&heard));
        // Sent under the lock, so that a listener that subscribes under it misses nothing and sees nothing twice.
        let _ = self.live.send(heard);
    }

    /// Events after `last` that are still kept (`None` when they are not all kept), and the live ones from here on.
    #[must_use]
    pub fn listen(&self, last: Option<&str>) -> Listening {
        let ring = lock(&self.ring);
        let live = self.live.subscribe();
        let backlog = last.and_then(|id| {
            let (incarnation, sequence) = id.split_once('-')?;
            if incarnation.parse::<u64>().ok()? != self.incarnation {
                return None;
            }
            let after: u64 = sequence.parse().ok()?;
            let oldest = ring.1.front().map_or(ring.0 + 1, |h| h.sequence);
            if after > ring.0 || after + 1 < oldest {
                return None;
            }
            Some(
                ring.1
                    .iter()
                    .filter(|h| h.sequence > after)
                    .cloned()
                    .collect(),
            )
        });
        Listening {
            backlog,
            live,
            place: format!("{}-{}", self.incarnation, ring.0),
        }
    }
}

/// How fleets are, told to whoever follows them each time one is planned. Nothing is kept: who begins, or was too slow, is shown how
/// all are now.
pub struct FleetHub(broadcast::Sender<Arc<FleetChange>>);

impl Default for FleetHub {
    fn default() -> Self {
        Self(broadcast::Sender::new(LAG))
    }
}

impl FleetHub {
    /// Whether anybody follows: else there is nothing to prepare.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells how one is.
    pub fn tell(&self, change: FleetChange) {
        let _ = self.0.send(Arc::new(change));
    }

    /// What is told from here on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<FleetChange>> {
        self.0.subscribe()
    }
}

/// The table of routes, numbered, and a broadcast of its changes.
pub struct RouteHub {
    incarnation: u64,
    table: Mutex<(u64, HashMap<SessionId, Route>)>,
    live: broadcast::Sender<RouteUpdate>,
}

impl RouteHub {
    /// An empty table of this run of the server.
    #[must_use]
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            table: Mutex::new((0, HashMap::new())),
            live: broadcast::Sender::new(LAG),
        }
    }

    /// Every session's route as an audit compares it.
    #[must_use]
    pub fn all(&self) -> Vec<RouteSeen> {
        lock(&self.table).1.values().map(RouteSeen::from).collect()
    }

    /// Sets a route; says nothing when it is as it was.
    pub fn set(&self, route: Route) {
        let mut table = lock(&self.table);
        if table.1.get(&route.session) == Some(&route) {
            return;
        }
        table.0 += 1;
        let cursor = Cursor {
            incarnation: self.incarnation,
            sequence: table.0,
        };
        table.1.insert(route.session, route.clone());
        let _ = self.live.send(RouteUpdate::Set {
            cursor,
            route: Box::new(route),
        });
    }

    /// Removes a route.
    pub fn gone(&self, session: SessionId) {
        let mut table = lock(&self.table);
        if table.1.remove(&session).is_none() {
            return;
        }
        table.0 += 1;
        let cursor = Cursor {
            incarnation: self.incarnation,
            sequence: table.0,
        };
        let _ = self.live.send(RouteUpdate::Gone { cursor, session });
    }

    /// One route, with the place in the stream that it includes.
    #[must_use]
    pub fn resolve(&self, session: SessionId) -> Option<Resolved> {
        let table = lock(&self.table);
        let route = table.1.get(&session).cloned()?;
        let as_of = Cursor {
            incarnation: self.incarnation,
            sequence: table.0,
        };
        Some(Resolved { route, as_of })
    }

    /// The whole table as one message, and the changes after it.
    #[must_use]
    pub fn listen(&self) -> (RouteUpdate, broadcast::Receiver<RouteUpdate>) {
        let table = lock(&self.table);
        let cursor = Cursor {
            incarnation: self.incarnation,
            sequence: table.0,
        };
        let mut routes: Vec<Route> = table.1.values().cloned().collect();
        routes.sort_unstable_by_key(|r| r.session);
        let all = RouteUpdate::All { cursor, routes };
        (all, self.live.subscribe())
    }

    /// Only the changes, if nothing happened since this cursor.
    #[must_use]
    pub fn resume(&self, from: Cursor) -> Option<broadcast::Receiver<RouteUpdate>> {
        let table = lock(&self.table);
        (from.incarnation == self.incarnation && from.sequence == table.0)
            .then(|| self.live.subscribe())
    }
}
