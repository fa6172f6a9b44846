//! The one lock of the gateway: routes and tunnels together, so that "this route is still of that generation" and "this tunnel
//! counts as connected" are one decision, and no update can slip in between. Nothing awaits inside.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use spawnpoint_core::audit::{RouteSeen, TunnelSeen};
use spawnpoint_core::{Clock, PlayerId, SessionId};
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::{Cursor, Link, Protocol, Route, RouteUpdate};
use tokio::sync::{Notify, watch};

use crate::audit;
use crate::config::{GatewayConfig, RESOLVE_TIMEOUT};
use crate::decide::{self, Refusal, Use};
use crate::http_game::Pool;
use crate::metrics::{Counters, lock};
use crate::routes::{Budget, Known, RouteState, Routes};
use crate::serve::Permit;
use crate::tunnels::{Newcomer, Nudge, Presence, Sending, Tunnel, Tunnels};

#[derive(Debug)]
struct State {
    routes: Routes,
    tunnels: Tunnels,
    budget: Budget,
    /// One question about one session at a time.
    asking: HashMap<SessionId, Arc<tokio::sync::Mutex<()>>>,
    incarnation: Option<u64>,
    full_due: bool,
    draining: bool,
}

/// See the module.
pub(crate) struct Table {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    /// Wakes the reporter.
    edge: Notify,
    /// Wakes a drain.
    empty: Notify,
    pub(crate) counters: Arc<Counters>,
    max_per_session: u32,
    max_requests_per_session: u32,
    max_per_address: u32,
    limit_loopback: bool,
    pool: Arc<Pool>,
}

impl Table {
    pub(crate) fn new(config: &GatewayConfig, clock: Arc<dyn Clock>, pool: Arc<Pool>) -> Self {
        let state = State {
            routes: Routes::default(),
            tunnels: Tunnels::default(),
            budget: Budget::full(clock.now()),
            asking: HashMap::new(),
            incarnation: None,
            full_due: true,
            draining: false,
        };
        Self {
            state: Mutex::new(state),
            clock,
            edge: Notify::new(),
            empty: Notify::new(),
            counters: Arc::default(),
            max_per_session: config.max_per_session,
            max_requests_per_session: config.max_requests_per_session,
            max_per_address: config.max_per_address,
            limit_loopback: config.limit_loopback,
            pool,
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Takes in one message of the stream and closes the tunnels it condemns. Returns the place after it.
    pub(crate) fn apply(&self, update: RouteUpdate) -> Cursor {
        let now = self.clock.now();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let cursor = match update {
            RouteUpdate::All { cursor, routes } => {
                for session in state.routes.not_in(&routes, cursor) {
                    state.gone(session, now);
                    self.pool.settle(session, None);
                }
                for route in routes {
                    self.set(state, route, cursor);
                }
                if state.incarnation != Some(cursor.incarnation) {
                    // Another run of the server: it knows nothing of what this gateway saw.
                    state.full_due = true;
                    self.edge.notify_one();
                }
                cursor
            }
            RouteUpdate::Set { cursor, route } => {
                self.set(state, *route, cursor);
                cursor
            }
            RouteUpdate::Gone { cursor, session } => {
                state.gone(session, now);
                self.pool.settle(session, None);
                cursor
            }
        };
        state.incarnation = Some(cursor.incarnation);
        cursor
    }

    /// Takes in a route of the stream, unless a newer one is known.
    fn set(&self, state: &mut State, route: Route, at: Cursor) {
        if let Some(route) = state.routes.set(route, at) {
            self.settle(&route);
            state.judge(&route);
        }
    }

    /// Closes free connections to what this route does not lead to any more.
    fn settle(&self, route: &Route) {
        if route.protocol == Protocol::Http {
            let accepts = route.phase.accepts();
            self.pool
                .settle(route.session, accepts.then_some(route.generation));
        }
    }

    /// The route of a session; asks the control plane once if it is not known.
    pub(crate) async fn find(
        &self,
        link: &dyn Link,
        session: SessionId,
    ) -> Result<Arc<Route>, Refusal> {
        let turn = {
            let mut state = lock(&self.state);
            match settled(state.routes.get(session, self.clock.now())) {
                Some(answer) => return answer,
                None => state.asking.entry(session).or_default().clone(),
            }
        };
        let _turn = turn.lock().await;
        let _asking = Asking {
            table: self,
            session,
        };
        let allowed = {
            let mut state = lock(&self.state);
            if let Some(answer) = settled(state.routes.get(session, self.clock.now())) {
                return answer;
            }
            state.budget.take(self.clock.now())
        };
        let known = if allowed {
            self.counters.resolves.fetch_add(1, Ordering::Relaxed);
            let answer = tokio::time::timeout(RESOLVE_TIMEOUT, link.resolve(session)).await;
            let now = self.clock.now();
            let mut state = lock(&self.state);
            match answer {
                Ok(Ok(route)) => state.routes.answered(session, route, now),
                Ok(Err(_)) | Err(_) => state.routes.unanswered(session, now),
            }
        } else {
            self.counters
                .resolves_over_budget
                .fetch_add(1, Ordering::Relaxed);
            Known::Unreachable
        };
        settled(known).unwrap_or(Err(Refusal::CannotKnow))
    }

    /// Asks the control plane about a session that is known, for something that may be newer there. `None`: the budget does not allow
    /// it; an error: there was no answer. The table itself follows the stream only.
    pub(crate) async fn ask_again(
        &self,
        link: &dyn Link,
        session: SessionId,
    ) -> Option<Result<Option<Route>, ()>> {
        let allowed = lock(&self.state).budget.take(self.clock.now());
        if !allowed {
            let over = &self.counters.resolves_over_budget;
            over.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.counters.resolves.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, link.resolve(session)).await;
        let answer = answer.map_err(|_| ()).and_then(|a| a.map_err(|_| ()));
        Some(answer.map(|found| found.map(|f| f.route)))
    }

    /// Follows one session's route, if it is known.
    pub(crate) fn watch(&self, session: SessionId) -> Option<watch::Receiver<RouteState>> {
        lock(&self.state).routes.watch(session)
    }

    /// Takes in a connection. Its place is given back when the [`Admission`] is dropped.
    pub(crate) fn admit(
        self: &Arc<Self>,
        session: SessionId,
        player: &PlayerId,
        address: IpAddr,
        permit: Option<Permit>,
        wanted: Use,
    ) -> Result<Admission, Refusal> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let watch = self.may_come(state, session, address)?;
        let route = state.live(session, self.clock.now())?;
        let protocol = route.protocol;
        let newcomer = Newcomer {
            session,
            player,
            unnamed: false,
            address,
            wanted,
            takes_over: decide::takes_over(protocol, wanted),
            most: match protocol {
                Protocol::Http => self.max_requests_per_session,
                _ => self.max_per_session,
            },
        };
        let (tunnel, older) = state.tunnels.admit(newcomer).ok_or(Refusal::Limit)?;
        Ok(Admission {
            table: self.clone(),
            tunnel,
            older,
            watch: Some(watch),
            presence: None,
            _permit: permit,
        })
    }

    /// Takes in a connection of which nobody said whose it is.
    pub(crate) fn admit_unnamed(
        self: &Arc<Self>,
        session: SessionId,
        address: IpAddr,
        permit: Option<Permit>,
        wanted: Use,
    ) -> Result<Admission, Refusal> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let watch = self.may_come(state, session, address)?;
        let route = state.live(session, self.clock.now())?;
        let player = state
            .tunnels
            .stand_in(session, &route.players)
            .ok_or(Refusal::NotOnRoster)?;
        let newcomer = Newcomer {
            session,
            player: &player,
            unnamed: true,
            address,
            wanted,
            takes_over: false,
            most: self.max_per_session,
        };
        let (tunnel, older) = state.tunnels.admit(newcomer).ok_or(Refusal::Limit)?;
        Ok(Admission {
            table: self.clone(),
            tunnel,
            older,
            watch: Some(watch),
            presence: None,
            _permit: permit,
        })
    }

    /// Whether one more connection to this session is taken in; then, how its route goes on.
    fn may_come(
        &self,
        state: &mut State,
        session: SessionId,
        address: IpAddr,
    ) -> Result<watch::Receiver<RouteState>, Refusal> {
        if state.draining {
            return Err(Refusal::Draining);
        }
        let counts = self.limit_loopback || !address.is_loopback();
        if counts && state.tunnels.of_address(address) >= self.max_per_address {
            return Err(Refusal::Limit);
        }
        match state.routes.watch(session) {
            Some(watch) => Ok(watch),
            None => Err(match state.routes.get(session, self.clock.now()) {
                Known::Ended(reason) => Refusal::Ended(reason),
                _ => Refusal::Unknown,
            }),
        }
    }

    /// No new connections; everybody is told to go.
    pub(crate) fn begin_drain(&self) {
        let mut state = lock(&self.state);
        state.draining = true;
        for tunnel in state.tunnels.all() {
            tunnel.order(Close::DRAIN);
            tunnel.nudge(Nudge::Hurry);
        }
    }

    /// Waits until nobody is connected.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            if lock(&self.state).tunnels.len() == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn routes(&self) -> usize {
        lock(&self.state).routes.len()
    }

    /// Routes, and connections that have not been told to close.
    pub(crate) fn audit(&self) -> (Vec<RouteSeen>, Vec<TunnelSeen>) {
        let state = lock(&self.state);
        let routes = state.routes.all().map(RouteSeen::from).collect();
        let stays = state.tunnels.all().filter(|t| t.ordered().is_none());
        let tunnels = audit::count(stays.map(|t| (t.session, t.generation())));
        (routes, tunnels)
    }

    /// Waits until somebody comes or leaves, or a full report is due.
    pub(crate) async fn edge(&self) {
        self.edge.notified().await;
    }

    /// Whether there is something that should be told at once.
    pub(crate) fn urgent(&self) -> bool {
        let state = lock(&self.state);
        state.full_due || state.tunnels.has_edges()
    }

    /// The next report, if there is anything to say.
    pub(crate) fn report(&self) -> Option<Sending> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let full = std::mem::take(&mut state.full_due);
        state.tunnels.report(full, now)
    }

    pub(crate) fn report_arrived(&self, sent: &Sending) {
        lock(&self.state).tunnels.arrived(sent);
    }

    /// After a loss the next report says everything: nobody knows what the server knows.
    pub(crate) fn report_lost(&self, sent: &Sending) {
        let mut state = lock(&self.state);
        state.full_due = true;
        state.tunnels.lost(sent);
    }

    fn flows(&self, presence: &Arc<Presence>) {
        lock(&self.state).tunnels.flows(presence.clone());
    }
}

impl State {
    /// The route of a session that is in the table.
    fn live(
        &self,
        session: SessionId,
        now: spawnpoint_core::Moment,
    ) -> Result<Arc<Route>, Refusal> {
        match self.routes.get(session, now) {
            Known::Live(route) => Ok(route),
            Known::Ended(reason) => Err(Refusal::Ended(reason)),
            Known::None | Known::Missing => Err(Refusal::Unknown),
            Known::Unreachable => Err(Refusal::CannotKnow),
        }
    }

    /// Closes the tunnels that this route condemns.
    fn judge(&self, route: &Route) {
        for (tunnel, generation) in self.tunnels.connected(route.session) {
            match decide::verdict(route, generation, &tunnel.player) {
                // It may be anybody's: a player who leaves takes no other's connection along.
                Some(Close::OTHER_SESSION) if tunnel.unnamed => tunnel.nudge(Nudge::Orphaned),
                Some(close) => tunnel.order(close),
                None => {}
            }
        }
    }

    fn gone(&mut self, session: SessionId, now: spawnpoint_core::Moment) {
        if let Some(reason) = self.routes.gone(session, now) {
            for (tunnel, _) in self.tunnels.connected(session) {
                tunnel.order(decide::ended(reason));
            }
        }
    }
}

fn settled(known: Known) -> Option<Result<Arc<Route>, Refusal>> {
    match known {
        Known::Live(route) => Some(Ok(route)),
        Known::Ended(reason) => Some(Err(Refusal::Ended(reason))),
        Known::None => Some(Err(Refusal::Unknown)),
        Known::Unreachable => Some(Err(Refusal::CannotKnow)),
        Known::Missing => None,
    }
}

/// Ends a turn of asking, also when whoever asked went away in the middle.
struct Asking<'a> {
    table: &'a Table,
    session: SessionId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.table.state).asking.remove(&self.session);
    }
}

/// One connection's place. Dropping it gives everything back.
pub(crate) struct Admission {
    table: Arc<Table>,
    tunnel: Arc<Tunnel>,
    older: Vec<Arc<Tunnel>>,
    /// Follows the route until the connection is made.
    watch: Option<watch::Receiver<RouteState>>,
    presence: Option<Arc<Presence>>,
    /// Its place among the connections of the listener.
    _permit: Option<Permit>,
}

impl Admission {
    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// For hearing orders while the admission is elsewhere.
    pub(crate) fn shared_tunnel(&self) -> Arc<Tunnel> {
        self.tunnel.clone()
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// A view of the route that changes with it.
    pub(crate) fn watch(&self) -> Option<watch::Receiver<RouteState>> {
        self.watch.clone()
    }

    /// Whether [`Self::older_gone`] would wait.
    pub(crate) const fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// Waits until the game has lost this player's older connections, or for as long as one should.
    pub(crate) async fn older_gone(&mut self, limit: std::time::Duration) {
        let older = std::mem::take(&mut self.older);
        let all = async {
            for tunnel in &older {
                tunnel.left_game().await;
            }
        };
        // Past the limit the game sees both for a moment; that is better than a player who cannot come back.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// The game is connected: counts from now on, if the route is still the one that was dialled.
    pub(crate) fn attach(&mut self, dialled: &Route) -> bool {
        self.stand_for_somebody();
        let mut guard = lock(&self.table.state);
        let state = &mut *guard;
        let Known::Live(route) = state
            .routes
            .get(self.tunnel.session, self.table.clock.now())
        else {
            return false;
        };
        let same = route.generation == dialled.generation && route.address == dialled.address;
        if !same
            || state.draining
            || self.tunnel.ordered().is_some()
            || decide::verdict(&route, dialled.generation, &self.tunnel.player).is_some()
        {
            return false;
        }
        self.presence = Some(state.tunnels.attach(&self.tunnel, dialled.generation));
        self.watch = None;
        self.older = Vec::new();
        let news = state.tunnels.has_edges();
        drop(guard);
        self.table.counters.of(self.tunnel.wanted).up();
        if news {
            self.table.edge.notify_one();
        }
        true
    }

    /// Stands for this player from now on (who was not known), or for another one of the roster. Their other connections are closed if
    /// the player is known.
    fn become_of(&mut self, player: Option<&PlayerId>) -> Result<(), Refusal> {
        let mut guard = lock(&self.table.state);
        let state = &mut *guard;
        let old = self.tunnel.clone();
        let session = old.session;
        let route = state.live(session, self.table.clock.now())?;
        let stands_for = match player {
            Some(player) => route.players.contains(player).then(|| player.clone()),
            None => state.tunnels.stand_in(session, &route.players),
        };
        let newcomer = Newcomer {
            session,
            player: &stands_for.ok_or(Refusal::NotOnRoster)?,
            unnamed: player.is_none(),
            address: old.address,
            wanted: old.wanted,
            takes_over: player.is_some() && decide::takes_over(route.protocol, old.wanted),
            // One in, one out: the limit has been kept already.
            most: u32::MAX,
        };
        let (new, older) = state.tunnels.admit(newcomer).ok_or(Refusal::Limit)?;
        state.tunnels.remove(&old);
        self.older = older;
        if let Some(presence) = &self.presence {
            let generation = old.generation();
            state.tunnels.detach(presence, old.wanted);
            self.presence = Some(state.tunnels.attach(&new, generation));
            self.older = Vec::new();
        }
        if let Some(close) = old.ordered() {
            new.order(close);
        }
        old.leave_game();
        self.tunnel = new;
        drop(guard);
        self.table.edge.notify_one();
        Ok(())
    }

    /// It turned out whose connection this is.
    pub(crate) fn named(&mut self, player: &PlayerId) -> Result<(), Refusal> {
        self.become_of(Some(player))
    }

    /// If nobody said whose it is and the player it stands for has left, it stands for another one.
    pub(crate) fn stand_for_somebody(&mut self) {
        if !self.tunnel.unnamed {
            return;
        }
        let route = {
            let state = lock(&self.table.state);
            state.live(self.tunnel.session, self.table.clock.now())
        };
        if route.is_ok_and(|r| !r.players.contains(&self.tunnel.player)) {
            // If that fails the session is over or nobody is left: then there is nobody to stand for.
            let _ = self.become_of(None);
        }
    }

    /// The connection to the game is down. Idempotent.
    pub(crate) fn detach(&mut self) {
        if let Some(presence) = self.presence.take() {
            let wanted = self.tunnel.wanted;
            lock(&self.table.state).tunnels.detach(&presence, wanted);
            self.table.counters.of(wanted).down();
            if wanted != Use::Request {
                self.table.edge.notify_one();
            }
        }
        self.tunnel.leave_game();
    }

    /// Bytes came from the player.
    pub(crate) fn heard_client(&self, bytes: usize, data: bool) {
        self.table
            .counters
            .bytes_in
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(p) = &self.presence
            && p.heard_client(bytes, data, self.table.clock.now())
        {
            self.table.flows(p);
        }
    }

    /// Bytes came from the game.
    pub(crate) fn heard_server(&self, bytes: usize, data: bool) {
        self.table
            .counters
            .bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(p) = &self.presence
            && p.heard_server(bytes, data, self.table.clock.now())
        {
            self.table.flows(p);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.detach();
        let mut state = lock(&self.table.state);
        state.tunnels.remove(&self.tunnel);
        if state.tunnels.len() == 0 {
            self.table.empty.notify_waiters();
        }
    }
}
