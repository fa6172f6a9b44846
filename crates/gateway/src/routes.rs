//! The table of routes as a plain value: what the stream said, what was asked for, what is known to be gone. No lock, no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::{Moment, SessionId};
use spawnpoint_wire::link::{Cursor, Resolved, Route};
use tokio::sync::watch;

use crate::config::{
    ENDED_KEPT, MAX_MISSES, MISS_KEPT, RESOLVE_BURST, RESOLVE_RATE, UNREACHABLE_KEPT,
};

/// What a waiting connection sees of its session.
#[derive(Clone, Debug)]
pub(crate) enum RouteState {
    /// It is in the table.
    Live(Arc<Route>),
    /// It left the table; why, if that was said.
    Gone(Option<Reason>),
}

/// What the table knows about a session.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// It is there.
    Live(Arc<Route>),
    /// It was there and ended.
    Ended(Option<Reason>),
    /// The control plane said a moment ago that there is none.
    None,
    /// The control plane could not be asked a moment ago.
    Unreachable,
    /// Nobody asked yet.
    Missing,
}

#[derive(Debug)]
struct Slot {
    route: Arc<Route>,
    /// It was asked for: what the stream brings up to this place is older.
    as_of: Option<Cursor>,
    /// Only while somebody waits: most sessions have nobody waiting, and a channel is larger than a route.
    watch: Option<watch::Sender<RouteState>>,
}

impl Slot {
    /// Whether this was asked for behind that place in the stream. Numbers of two runs of the server cannot be compared.
    fn is_newer(&self, at: Cursor) -> bool {
        self.as_of
            .is_some_and(|a| a.incarnation == at.incarnation && a.sequence >= at.sequence)
    }
}

#[derive(Clone, Copy, Debug)]
enum Absence {
    Ended(Option<Reason>),
    None,
    Unreachable,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    live: HashMap<SessionId, Slot>,
    absent: HashMap<SessionId, (Absence, Moment)>,
    /// In the order of insertion, so that the oldest goes first when there are too many.
    absent_order: VecDeque<SessionId>,
}

impl Routes {
    /// How many routes there are.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Every route there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.live.values().map(|slot| &*slot.route)
    }

    /// What is known now.
    pub(crate) fn get(&self, session: SessionId, now: Moment) -> Known {
        if let Some(slot) = self.live.get(&session) {
            return Known::Live(slot.route.clone());
        }
        match self.absent.get(&session) {
            Some((absence, until)) if now < *until => match absence {
                Absence::Ended(reason) => Known::Ended(*reason),
                Absence::None => Known::None,
                Absence::Unreachable => Known::Unreachable,
            },
            _ => Known::Missing,
        }
    }

    /// A route of the stream, at this place in it. `None`: what is known is newer.
    pub(crate) fn set(&mut self, route: Route, at: Cursor) -> Option<Arc<Route>> {
        let known = self.live.get(&route.session);
        if known.is_some_and(|slot| slot.is_newer(at)) {
            return None;
        }
        Some(self.put(route, None))
    }

    fn put(&mut self, route: Route, as_of: Option<Cursor>) -> Arc<Route> {
        let route = Arc::new(route);
        self.absent.remove(&route.session);
        match self.live.get_mut(&route.session) {
            Some(slot) => {
                slot.route = route.clone();
                slot.as_of = as_of;
                if let Some(watch) = &slot.watch
                    && watch.send(RouteState::Live(route.clone())).is_err()
                {
                    slot.watch = None;
                }
            }
            None => {
                let slot = Slot {
                    route: route.clone(),
                    as_of,
                    watch: None,
                };
                self.live.insert(route.session, slot);
            }
        }
        route
    }

    /// A session left the table. Returns the last reason known, if it was there.
    pub(crate) fn gone(&mut self, session: SessionId, now: Moment) -> Option<Option<Reason>> {
        let slot = self.live.remove(&session);
        let reason = slot.as_ref().and_then(|s| s.route.ended);
        // Also remembered if it was not in the table: an answer that is still on its way must not bring it back to life.
        if slot.is_some() || !matches!(self.get(session, now), Known::Ended(_)) {
            self.note_absent(session, Absence::Ended(reason), now.after(ENDED_KEPT));
        }
        let slot = slot?;
        if let Some(watch) = slot.watch {
            // Nobody may be waiting any more; then there is nobody to tell.
            let _ = watch.send(RouteState::Gone(reason));
        }
        Some(reason)
    }

    /// Sessions that are not in this whole table, which is of this place in the stream.
    pub(crate) fn not_in(&self, all: &[Route], at: Cursor) -> Vec<SessionId> {
        let named: std::collections::HashSet<SessionId> = all.iter().map(|r| r.session).collect();
        let older = self.live.iter().filter(|(_, slot)| !slot.is_newer(at));
        let live = older.map(|(session, _)| *session);
        let mut gone: Vec<SessionId> = live.filter(|s| !named.contains(s)).collect();
        gone.sort_unstable();
        gone
    }

    /// The answer to a question about a session that was missing. What the stream has brought meanwhile wins; what it brings later may be
    /// older than the answer, and must not close what was connected by it.
    pub(crate) fn answered(
        &mut self,
        session: SessionId,
        answer: Option<Resolved>,
        now: Moment,
    ) -> Known {
        match (self.get(session, now), answer) {
            (Known::Missing | Known::None | Known::Unreachable, Some(answer))
                if answer.route.session == session =>
            {
                Known::Live(self.put(answer.route, Some(answer.as_of)))
            }
            (Known::Missing | Known::Unreachable, _) => {
                self.note_absent(session, Absence::None, now.after(MISS_KEPT));
                Known::None
            }
            (known, _) => known,
        }
    }

    /// The control plane could not be asked.
    pub(crate) fn unanswered(&mut self, session: SessionId, now: Moment) -> Known {
        match self.get(session, now) {
            Known::Missing => {
                self.note_absent(session, Absence::Unreachable, now.after(UNREACHABLE_KEPT));
                Known::Unreachable
            }
            known => known,
        }
    }

    /// Follows one session's route, if it is there.
    pub(crate) fn watch(&mut self, session: SessionId) -> Option<watch::Receiver<RouteState>> {
        let slot = self.live.get_mut(&session)?;
        Some(match &slot.watch {
            Some(watch) => watch.subscribe(),
            None => {
                let (send, receive) = watch::channel(RouteState::Live(slot.route.clone()));
                slot.watch = Some(send);
                receive
            }
        })
    }

    fn note_absent(&mut self, session: SessionId, what: Absence, until: Moment) {
        while self.absent_order.len() >= MAX_MISSES {
            if let Some(oldest) = self.absent_order.pop_front() {
                self.absent.remove(&oldest);
            }
        }
        self.absent.insert(session, (what, until));
        self.absent_order.push_back(session);
    }
}

/// Questions that may be asked: a bucket that fills with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Thousandths of a question, so that slow filling is not lost in rounding.
    left: u64,
    at: Moment,
}

impl Budget {
    pub(crate) const fn full(now: Moment) -> Self {
        Self {
            left: RESOLVE_BURST as u64 * 1000,
            at: now,
        }
    }

    /// Whether one more may be asked now; if so it is counted.
    pub(crate) fn take(&mut self, now: Moment) -> bool {
        let passed: Duration = now.since(self.at);
        let filled = u64::try_from(passed.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(u64::from(RESOLVE_RATE));
        self.left = self
            .left
            .saturating_add(filled)
            .min(u64::from(RESOLVE_BURST) * 1000);
        self.at = self.at.max(now);
        let enough = self.left >= 1000;
        if enough {
            self.left -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_core::session::Phase;
    use spawnpoint_wire::link::Protocol;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn route(generation: u32) -> Route {
        Route {
            session: ID.parse().unwrap(),
            fleet: "spice".parse().unwrap(),
            generation,
            phase: Phase::Ready,
            address: None,
            protocol: Protocol::WebSocket,
            players: [].into(),
            position: None,
            waiting_for: None,
            ended: None,
        }
    }

    fn at(sequence: u64) -> Cursor {
        Cursor {
            incarnation: 1,
            sequence,
        }
    }

    fn asked(generation: u32, sequence: u64) -> Resolved {
        Resolved {
            route: route(generation),
            as_of: at(sequence),
        }
    }

    #[test]
    fn a_stream_that_lags_behind_an_answer_overrules_nothing() {
        let id: SessionId = ID.parse().unwrap();
        let now = Moment(1_000);
        let mut routes = Routes::default();
        let known = |routes: &Routes| match routes.get(id, now) {
            Known::Live(route) => route.generation,
            other => panic!("{other:?}"),
        };
        routes.answered(id, Some(asked(5, 7)), now);
        // On its way when it was asked for: earlier routes, and a whole table from before the session.
        for older in [3, 6, 7] {
            assert!(routes.set(route(4), at(older)).is_none(), "{older}");
        }
        assert_eq!(routes.not_in(&[], at(6)), []);
        assert_eq!(known(&routes), 5);
        assert!(routes.set(route(6), at(8)).is_some());
        assert_eq!(known(&routes), 6);
        assert_eq!(routes.not_in(&[], at(9)), [id]);
        // Another run of the server counts anew.
        routes.gone(id, now);
        routes.put(route(6), Some(at(100)));
        let anew = Cursor {
            incarnation: 2,
            sequence: 1,
        };
        assert!(routes.set(route(1), anew).is_some());
        assert_eq!(known(&routes), 1);
    }

    #[test]
    fn an_answer_never_overrules_the_stream() {
        let id: SessionId = ID.parse().unwrap();
        let now = Moment(1_000);
        let mut routes = Routes::default();
        routes.set(route(3), at(1));
        assert!(
            matches!(routes.answered(id, Some(asked(2, 1)), now), Known::Live(r) if r.generation == 3)
        );
        let mut over = route(3);
        over.ended = Some(Reason::Idle);
        routes.set(over, at(1));
        assert_eq!(routes.gone(id, now), Some(Some(Reason::Idle)));
        assert!(
            matches!(
                routes.answered(id, Some(asked(3, 1)), now),
                Known::Ended(Some(Reason::Idle))
            ),
            "no zombie"
        );
        assert_eq!(routes.gone(id, now), None);
        assert!(
            matches!(routes.get(id, now), Known::Ended(Some(Reason::Idle))),
            "said twice, remembered once"
        );
        assert!(matches!(
            routes.get(id, now.after(ENDED_KEPT)),
            Known::Missing
        ));
    }

    #[test]
    fn an_end_heard_while_asking_wins_over_the_answer() {
        let id: SessionId = ID.parse().unwrap();
        let now = Moment(0);
        let mut routes = Routes::default();
        assert!(matches!(routes.get(id, now), Known::Missing));
        routes.gone(id, now);
        assert!(matches!(
            routes.answered(id, Some(asked(1, 1)), now),
            Known::Ended(None)
        ));
    }

    #[test]
    fn misses_are_remembered_for_a_while_and_not_without_bound() {
        let id: SessionId = ID.parse().unwrap();
        let now = Moment(0);
        let mut routes = Routes::default();
        assert!(matches!(routes.answered(id, None, now), Known::None));
        assert!(matches!(routes.get(id, now), Known::None));
        assert!(matches!(
            routes.get(id, now.after(MISS_KEPT)),
            Known::Missing
        ));
        routes.set(route(1), at(1));
        assert!(
            matches!(routes.get(id, now), Known::Live(_)),
            "the stream knows better"
        );
        for n in 0..MAX_MISSES as u64 + 10 {
            let other = SessionId::new(uuid_of(n));
            routes.unanswered(other, now);
        }
        assert!(routes.absent.len() <= MAX_MISSES && routes.absent_order.len() <= MAX_MISSES);
    }

    fn uuid_of(n: u64) -> uuid::Uuid {
        uuid::Uuid::from_u64_pair(0x0189_0a5d_ac96_774b, 0x8000_0000_0000_0000 | n)
    }

    #[test]
    fn a_whole_table_says_who_is_gone() {
        let mut routes = Routes::default();
        routes.set(route(1), at(1));
        assert_eq!(routes.not_in(&[], at(1)), vec![ID.parse().unwrap()]);
        assert!(routes.not_in(&[route(2)], at(1)).is_empty());
    }

    #[test]
    fn waiting_costs_only_those_who_wait() {
        let id: SessionId = ID.parse().unwrap();
        let mut routes = Routes::default();
        routes.set(route(1), at(1));
        assert!(routes.live[&id].watch.is_none());
        let mut seen = routes.watch(id).unwrap();
        routes.set(route(2), at(1));
        assert!(matches!(&*seen.borrow_and_update(), RouteState::Live(r) if r.generation == 2));
        drop(seen);
        routes.set(route(3), at(1));
        assert!(routes.live[&id].watch.is_none());
    }

    #[test]
    fn questions_have_a_budget() {
        let mut budget = Budget::full(Moment(0));
        let now = Moment(0);
        assert_eq!(
            (0..1000).filter(|_| budget.take(now)).count(),
            RESOLVE_BURST as usize
        );
        assert!(!budget.take(Moment(19)));
        assert!(budget.take(Moment(20)), "fifty a second");
        assert!(!budget.take(Moment(20)));
        assert!(
            !budget.take(Moment(0)),
            "a clock that steps back fills nothing"
        );
    }
}
