//! Who is connected: tunnels and waiting connections per session, presence and activity per player, and what of it the control
//! plane has not heard yet. A plain value; [`crate::table`] holds the lock.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use spawnpoint_core::{Moment, PlayerId, SessionId};
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::{PlayerReport, SessionReport};
use tokio::sync::Notify;

use crate::config::MAX_DEPARTED;
use crate::decide::Use;

/// No data frame yet.
const NEVER: i64 = i64::MIN;

/// One connection of one player, waiting or connected. Shared by its task and whoever may close it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    id: u64,
    pub(crate) session: SessionId,
    pub(crate) player: PlayerId,
    pub(crate) address: IpAddr,
    pub(crate) wanted: Use,
    /// Nobody said whose it is: it stands for a player of the roster, so that somebody is seen to be there.
    pub(crate) unnamed: bool,
    /// Which incarnation it is connected to; 0 while it waits.
    generation: AtomicU32,
    order: OnceLock<Close>,
    /// See [`Nudge`].
    nudged: AtomicU8,
    waker: AtomicWaker,
    left: AtomicBool,
    left_notify: Notify,
}

/// Something that a tunnel should look after, and that does not close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Nudge {
    /// The player it stands for is not on the roster any more.
    Orphaned = 1,
    /// Whatever it is doing at its end, the process is going away.
    Hurry = 2,
}

impl Tunnel {
    /// Tells it to look after something.
    pub(crate) fn nudge(&self, what: Nudge) {
        self.nudged.fetch_or(what as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether it was told so since the last time this was asked. For the one task that owns it.
    pub(crate) fn take_nudge(&self, what: Nudge) -> bool {
        let bit = what as u8;
        self.nudged.load(Ordering::Relaxed) & bit != 0
            && self.nudged.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Tells it to close. The first order wins.
    pub(crate) fn order(&self, close: Close) {
        if self.order.set(close).is_ok() {
            self.waker.wake();
        }
    }

    /// Its order, if there is one; else the task is woken when one comes. For the one task that owns it.
    pub(crate) fn poll_order(&self, cx: &Context<'_>) -> Poll<Close> {
        self.waker.register(cx.waker());
        self.order.get().map_or(Poll::Pending, |c| Poll::Ready(*c))
    }

    /// The order so far.
    pub(crate) fn ordered(&self) -> Option<Close> {
        self.order.get().copied()
    }

    /// Whose it is, as far as that was said.
    pub(crate) fn named(&self) -> Option<&PlayerId> {
        (!self.unnamed).then_some(&self.player)
    }

    /// Which incarnation it is connected to; 0 while it waits.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Its connection to the game is down (or never came): a newer one of the same player may go ahead.
    pub(crate) fn leave_game(&self) {
        self.left.store(true, Ordering::Release);
        self.left_notify.notify_waiters();
    }

    /// Waits for [`Self::leave_game`].
    pub(crate) async fn left_game(&self) {
        let notified = self.left_notify.notified();
        tokio::pin!(notified);
        // Registered before looking, so that a call in between is not missed.
        notified.as_mut().enable();
        if !self.left.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

/// One player of one session as this gateway sees them; outlives a single connection, so that a takeover resets nothing.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) session: SessionId,
    player: PlayerId,
    connections: AtomicU32,
    client_data: AtomicI64,
    server_data: AtomicI64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Whether it is in the list of those with traffic since the last report.
    flowing: AtomicBool,
}

impl Presence {
    /// Bytes came from the player. `data`: they belong to data frames. True: tell [`Tunnels::flows`] about it.
    pub(crate) fn heard_client(&self, bytes: usize, data: bool, now: Moment) -> bool {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        if data {
            self.client_data.fetch_max(now.0, Ordering::Relaxed);
        }
        self.begins_to_flow()
    }

    /// Bytes came from the game, likewise.
    pub(crate) fn heard_server(&self, bytes: usize, data: bool, now: Moment) -> bool {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        if data {
            self.server_data.fetch_max(now.0, Ordering::Relaxed);
        }
        self.begins_to_flow()
    }

    fn begins_to_flow(&self) -> bool {
        !self.flowing.load(Ordering::Relaxed) && !self.flowing.swap(true, Ordering::AcqRel)
    }

    fn report(&self, now: Moment) -> PlayerReport {
        let age = |at: &AtomicI64| match at.load(Ordering::Relaxed) {
            NEVER => None,
            at => Some(u64::try_from(now.since(Moment(at)).as_millis()).unwrap_or(u64::MAX)),
        };
        PlayerReport {
            player: self.player.clone(),
            connections: self.connections.load(Ordering::Relaxed),
            client_data_age_ms: age(&self.client_data),
            server_data_age_ms: age(&self.server_data),
            bytes_in: self.bytes_in.swap(0, Ordering::Relaxed),
            bytes_out: self.bytes_out.swap(0, Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Crowd {
    tunnels: Vec<Arc<Tunnel>>,
    present: Vec<Arc<Presence>>,
    generation: u32,
}

/// A connection that asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer<'a> {
    pub(crate) session: SessionId,
    pub(crate) player: &'a PlayerId,
    /// Nobody said that it is theirs.
    pub(crate) unnamed: bool,
    pub(crate) address: IpAddr,
    pub(crate) wanted: Use,
    /// Its player's older connections give way to it.
    pub(crate) takes_over: bool,
    /// Places in the session.
    pub(crate) most: u32,
}

/// A report that is on its way, with what must be put back if it does not arrive.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pub(crate) sessions: Vec<SessionReport>,
    pub(crate) full: bool,
}

/// Everybody.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    crowds: HashMap<SessionId, Crowd>,
    by_address: HashMap<IpAddr, u32>,
    edges: HashSet<SessionId>,
    flowing: Vec<Arc<Presence>>,
    departed: usize,
    next_id: u64,
    count: usize,
}

impl Tunnels {
    /// Tunnels and waiting connections.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Tunnels and waiting connections from one address.
    pub(crate) fn of_address(&self, address: IpAddr) -> u32 {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    /// Takes in a connection of a player; where it takes over, their older ones are told to close. `None`: the session has too
    /// many.
    pub(crate) fn admit(&mut self, new: Newcomer<'_>) -> Option<(Arc<Tunnel>, Vec<Arc<Tunnel>>)> {
        let Newcomer {
            session,
            player,
            unnamed,
            address,
            wanted,
            takes_over,
            most,
        } = new;
        let crowd = self.crowds.entry(session).or_default();
        if crowd.tunnels.len() >= most as usize {
            return None;
        }
        let older: Vec<_> = crowd
            .tunnels
            .iter()
            .filter(|t| takes_over && t.player == *player && !t.unnamed)
            .cloned()
            .collect();
        for t in &older {
            t.order(Close::NEWER_CONNECTION);
        }
        self.next_id += 1;
        let tunnel = Arc::new(Tunnel {
            id: self.next_id,
            session,
            player: player.clone(),
            address,
            wanted,
            unnamed,
            generation: AtomicU32::new(0),
            order: OnceLock::new(),
            nudged: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            left: AtomicBool::new(false),
            left_notify: Notify::new(),
        });
        crowd.tunnels.push(tunnel.clone());
        *self.by_address.entry(address).or_default() += 1;
        self.count += 1;
        Some((tunnel, older))
    }

    /// Whom a connection stands for of which nobody said whose it is: a player of the roster who has none, else the first.
    pub(crate) fn stand_in(&self, session: SessionId, roster: &[PlayerId]) -> Option<PlayerId> {
        let here = self.crowds.get(&session).map_or(&[][..], |c| &c.tunnels);
        let absent = roster.iter().find(|p| here.iter().all(|t| t.player != **p));
        absent.or(roster.first()).cloned()
    }

    /// It is connected to the game now. Somebody coming is news at once; the next of somebody's requests is not.
    pub(crate) fn attach(&mut self, tunnel: &Tunnel, generation: u32) -> Arc<Presence> {
        tunnel.generation.store(generation, Ordering::Relaxed);
        let crowd = self.crowds.entry(tunnel.session).or_default();
        crowd.generation = generation;
        let known = crowd
            .present
            .iter()
            .find(|p| p.player == tunnel.player)
            .cloned();
        let news = tunnel.wanted != Use::Request || known.is_none();
        let presence = if let Some(known) = known {
            if known.connections.fetch_add(1, Ordering::Relaxed) == 0 {
                self.departed = self.departed.saturating_sub(1);
            }
            known
        } else {
            let new = Arc::new(Presence {
                session: tunnel.session,
                player: tunnel.player.clone(),
                connections: AtomicU32::new(1),
                client_data: AtomicI64::new(NEVER),
                server_data: AtomicI64::new(NEVER),
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                flowing: AtomicBool::new(false),
            });
            crowd.present.push(new.clone());
            new
        };
        if news {
            self.edges.insert(tunnel.session);
        }
        presence
    }

    /// It is not connected to the game any more. A request that is over goes with the next report of traffic: its player has not
    /// gone away.
    pub(crate) fn detach(&mut self, presence: &Arc<Presence>, wanted: Use) {
        if presence.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.departed += 1;
        }
        match wanted {
            Use::Tunnel | Use::Stream => {
                self.edges.insert(presence.session);
            }
            Use::Request => {
                if presence.begins_to_flow() {
                    self.flowing.push(presence.clone());
                }
            }
        }
        if self.departed > MAX_DEPARTED {
            self.forget_departed(None);
        }
    }

    /// Its task is over.
    pub(crate) fn remove(&mut self, tunnel: &Tunnel) {
        let Some(crowd) = self.crowds.get_mut(&tunnel.session) else {
            return;
        };
        let before = crowd.tunnels.len();
        crowd.tunnels.retain(|t| t.id != tunnel.id);
        if crowd.tunnels.len() == before {
            return;
        }
        self.count -= 1;
        if let Some(n) = self.by_address.get_mut(&tunnel.address) {
            *n -= 1;
            if *n == 0 {
                self.by_address.remove(&tunnel.address);
            }
        }
        if crowd.tunnels.is_empty() && crowd.present.is_empty() {
            self.crowds.remove(&tunnel.session);
        }
    }

    /// Connected tunnels of a session with their generation.
    pub(crate) fn connected(
        &self,
        session: SessionId,
    ) -> impl Iterator<Item = (&Arc<Tunnel>, u32)> {
        let tunnels = self.crowds.get(&session).map_or(&[][..], |c| &c.tunnels);
        tunnels
            .iter()
            .filter_map(|t| match t.generation.load(Ordering::Relaxed) {
                0 => None,
                generation => Some((t, generation)),
            })
    }

    /// Everybody, waiting or connected.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.crowds.values().flat_map(|c| &c.tunnels)
    }

    /// There is traffic of this player since the last report.
    pub(crate) fn flows(&mut self, presence: Arc<Presence>) {
        self.flowing.push(presence);
    }

    /// Whether somebody came or left since the last report.
    pub(crate) fn has_edges(&self) -> bool {
        !self.edges.is_empty()
    }

    /// What the control plane has not heard: everything, or what changed. `None`: nothing.
    pub(crate) fn report(&mut self, full: bool, now: Moment) -> Option<Sending> {
        let mut due = std::mem::take(&mut self.edges);
        for presence in self.flowing.drain(..) {
            presence.flowing.store(false, Ordering::Release);
            due.insert(presence.session);
        }
        if full {
            due = self.crowds.keys().copied().collect();
        }
        let mut due: Vec<SessionId> = due.into_iter().collect();
        due.sort_unstable();
        let sessions: Vec<SessionReport> = due
            .into_iter()
            .filter_map(|session| {
                let crowd = self.crowds.get(&session)?;
                let players: Vec<_> = crowd.present.iter().map(|p| p.report(now)).collect();
                (!players.is_empty()).then_some(SessionReport {
                    session,
                    generation: crowd.generation,
                    players,
                })
            })
            .collect();
        (full || !sessions.is_empty()).then_some(Sending { sessions, full })
    }

    /// It arrived: those who left have been reported once and are forgotten.
    pub(crate) fn arrived(&mut self, sent: &Sending) {
        for report in &sent.sessions {
            self.forget_departed(Some(report));
        }
    }

    /// It did not arrive, or nobody can say: bytes are counted again with the next one.
    pub(crate) fn lost(&mut self, sent: &Sending) {
        for report in &sent.sessions {
            let Some(crowd) = self.crowds.get(&report.session) else {
                continue;
            };
            self.edges.insert(report.session);
            for player in &report.players {
                if let Some(p) = crowd.present.iter().find(|p| p.player == player.player) {
                    p.bytes_in.fetch_add(player.bytes_in, Ordering::Relaxed);
                    p.bytes_out.fetch_add(player.bytes_out, Ordering::Relaxed);
                }
            }
        }
    }

    /// Forgets players without connections: those named as such in the report, or all.
    fn forget_departed(&mut self, reported: Option<&SessionReport>) {
        let sessions: Vec<SessionId> = match reported {
            Some(report) => vec![report.session],
            None => self.crowds.keys().copied().collect(),
        };
        for session in sessions {
            let Some(crowd) = self.crowds.get_mut(&session) else {
                continue;
            };
            let before = crowd.present.len();
            crowd.present.retain(|p| {
                let gone = p.connections.load(Ordering::Relaxed) == 0;
                let named = reported.is_none_or(|r| {
                    r.players
                        .iter()
                        .any(|q| q.player == p.player && q.connections == 0)
                });
                !(gone && named)
            });
            self.departed = self.departed.saturating_sub(before - crowd.present.len());
            if crowd.tunnels.is_empty() && crowd.present.is_empty() {
                self.crowds.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn join(t: &mut Tunnels, player: &str) -> (Arc<Tunnel>, Vec<Arc<Tunnel>>) {
        come(t, player, Use::Tunnel).unwrap()
    }

    fn come(t: &mut Tunnels, player: &str, wanted: Use) -> Option<(Arc<Tunnel>, Vec<Arc<Tunnel>>)> {
        t.admit(Newcomer {
            session: ID.parse().unwrap(),
            player: &player.parse().unwrap(),
            unnamed: false,
            address: HERE,
            wanted,
            takes_over: wanted == Use::Tunnel,
            most: 3,
        })
    }

    #[test]
    fn nobodys_connection_stands_for_whoever_is_absent_and_takes_nothing_over() {
        let roster: Vec<PlayerId> = ["a", "b", "c"].map(|p| p.parse().unwrap()).into();
        let mut t = Tunnels::default();
        let come = |t: &mut Tunnels, named: Option<&str>| {
            let stands_for = t.stand_in(ID.parse().unwrap(), &roster).unwrap();
            let newcomer = Newcomer {
                session: ID.parse().unwrap(),
                player: &named.map_or(stands_for, |n| n.parse().unwrap()),
                unnamed: named.is_none(),
                address: HERE,
                wanted: Use::Stream,
                takes_over: named.is_some(),
                most: 10,
            };
            t.admit(newcomer).unwrap()
        };
        let (b, _) = come(&mut t, Some("b"));
        let standing: Vec<_> = (0..4).map(|_| come(&mut t, None)).collect();
        let names: Vec<&str> = standing.iter().map(|(t, _)| t.player.as_str()).collect();
        assert_eq!(names, ["a", "c", "a", "a"], "then the first");
        assert!(standing.iter().all(|(_, older)| older.is_empty()));
        // Somebody who is known takes over from themselves only.
        assert!(come(&mut t, Some("a")).1.is_empty());
        let (_, older) = come(&mut t, Some("b"));
        assert!(older.len() == 1 && older[0].id == b.id);
        assert_eq!(t.stand_in(ID.parse().unwrap(), &[]), None);
    }

    #[test]
    fn a_newer_connection_of_the_same_player_closes_the_older() {
        let mut t = Tunnels::default();
        let (a, none) = join(&mut t, "a");
        assert!(none.is_empty());
        let (b, _) = join(&mut t, "b");
        let (_, older) = join(&mut t, "a");
        assert_eq!(older.len(), 1);
        assert_eq!(a.ordered(), Some(Close::NEWER_CONNECTION));
        assert_eq!(b.ordered(), None);
        assert!(come(&mut t, "c", Use::Tunnel).is_none(), "full");
        assert_eq!(t.of_address(HERE), 3);
        t.remove(&a);
        t.remove(&a);
        assert_eq!((t.len(), t.of_address(HERE)), (2, 2), "removed once");
    }

    #[test]
    fn the_first_order_wins() {
        let mut t = Tunnels::default();
        let (a, _) = join(&mut t, "a");
        a.order(Close::REPLACED);
        a.order(Close::DRAIN);
        assert_eq!(a.ordered(), Some(Close::REPLACED));
    }

    #[test]
    fn presence_is_reported_on_edges_and_a_departure_once() {
        let mut t = Tunnels::default();
        let (a, _) = join(&mut t, "a");
        assert!(
            t.report(false, Moment(0)).is_none(),
            "waiting is no presence"
        );
        let p = t.attach(&a, 2);
        let first = t.report(false, Moment(0)).unwrap();
        assert_eq!(first.sessions[0].generation, 2);
        assert_eq!(first.sessions[0].players[0].connections, 1);
        assert_eq!(first.sessions[0].players[0].client_data_age_ms, None);
        t.arrived(&first);
        assert!(t.report(false, Moment(0)).is_none());

        assert!(
            p.heard_client(10, true, Moment(5)),
            "the first byte since the report"
        );
        t.flows(p.clone());
        assert!(!p.heard_client(10, false, Moment(90)));
        let flow = t.report(false, Moment(100)).unwrap();
        let player = &flow.sessions[0].players[0];
        assert_eq!(
            (player.client_data_age_ms, player.bytes_in),
            (Some(95), 20),
            "a ping is no activity"
        );
        t.arrived(&flow);

        t.detach(&p, Use::Tunnel);
        t.remove(&a);
        let bye = t.report(false, Moment(200)).unwrap();
        assert_eq!(bye.sessions[0].players[0].connections, 0);
        assert_eq!(
            bye.sessions[0].players[0].client_data_age_ms,
            Some(195),
            "its last word is not lost"
        );
        t.arrived(&bye);
        assert!(t.report(false, Moment(200)).is_none());
        assert!(t.crowds.is_empty() && t.departed == 0);
        assert_eq!(t.report(true, Moment(0)).unwrap().sessions, []);
    }

    #[test]
    fn the_first_request_is_news_and_the_next_ones_are_traffic() {
        let mut t = Tunnels::default();
        let (a, _) = come(&mut t, "a", Use::Request).unwrap();
        let p = t.attach(&a, 1);
        assert!(t.has_edges());
        let (b, older) = come(&mut t, "a", Use::Request).unwrap();
        assert!(older.is_empty() && a.ordered().is_none(), "side by side");
        let sent = t.report(false, Moment(0)).unwrap();
        assert_eq!(sent.sessions[0].players[0].connections, 1);
        t.arrived(&sent);
        t.attach(&b, 1);
        t.detach(&p, Use::Request);
        t.detach(&p, Use::Request);
        assert!(!t.has_edges());
        let next = t.report(false, Moment(1)).unwrap();
        assert_eq!(next.sessions[0].players[0].connections, 0, "with the next");
        t.arrived(&next);
        for tunnel in [a, b] {
            t.remove(&tunnel);
        }
        assert!(t.crowds.is_empty() && t.departed == 0);
    }

    #[test]
    fn what_did_not_arrive_is_told_again() {
        let mut t = Tunnels::default();
        let (a, _) = join(&mut t, "a");
        let p = t.attach(&a, 1);
        p.heard_server(7, true, Moment(1));
        let sent = t.report(false, Moment(1)).unwrap();
        t.lost(&sent);
        t.detach(&p, Use::Tunnel);
        t.remove(&a);
        p.heard_server(1, true, Moment(1));
        let again = t.report(true, Moment(1)).unwrap();
        let player = &again.sessions[0].players[0];
        assert_eq!((player.connections, player.bytes_out), (0, 8));
    }

    #[test]
    fn who_came_back_before_the_answer_is_not_forgotten() {
        let mut t = Tunnels::default();
        let (a, _) = join(&mut t, "a");
        let p = t.attach(&a, 1);
        t.detach(&p, Use::Tunnel);
        let sent = t.report(false, Moment(1)).unwrap();
        let (b, _) = join(&mut t, "a");
        t.attach(&b, 1);
        t.arrived(&sent);
        let now = t.report(false, Moment(1)).unwrap();
        assert_eq!(now.sessions[0].players[0].connections, 1);
    }
}
