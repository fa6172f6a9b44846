//! What was really done, written down as it happens, and the checks that need no waiting: they hold at every moment, whatever goes
//! wrong.

use std::time::Duration;

use futures::FutureExt as _;
use spawnpoint_core::lifecycle::{Reason, brake_applies, brake_holds};
use spawnpoint_core::record::{MatchPlayer, MatchRecord};
use spawnpoint_core::{FleetName, InstanceId, SessionId};
use spawnpoint_runtime::{Facts, Instance, Order, Runtime as _, State};
use spawnpoint_store::Inserted;
use spawnpoint_wire::claim::Claim;

use crate::plan::FleetPlan;
use crate::truth::{Body, Game, Truth};
use crate::world::World;

/// Gateways tell of data within this, milliseconds: younger data may be news to the server.
const REPORTED: i64 = 2_200;
/// A gateway that cannot be heard is known to be so within this, milliseconds.
const KNOWN_DEAF: i64 = 21_000;
/// The mass-end brake looks at what would end within this time, milliseconds.
const BRAKE_LOOKS_BACK: i64 = 10_000;
/// A worker that is later than this knows that it was stopped, and holds culls for (nearly) a heartbeat period, milliseconds.
const LATE: i64 = 5_500;
const HELD: i64 = 4_900;
/// A call to the runtime takes this long at most, milliseconds.
const UNDER_WAY: i64 = 3_000;
/// Moments are rounded to milliseconds.
const ROUNDING: i64 = 2;

impl World {
    pub(crate) fn fleet(&self, name: &FleetName) -> Option<&FleetPlan> {
        self.plan.fleets.iter().find(|f| f.name == name.as_str())
    }

    /// Every instance there is.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.runtime
            .list()
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    pub(crate) fn instance(&self, id: InstanceId) -> Option<Instance> {
        self.runtime.get(id).now_or_never().and_then(Result::ok)
    }

    pub(crate) fn ordered(&self, order: &Order) {
        let again = self.truth().bodies.contains_key(&order.id);
        if again {
            return;
        }
        let gated = if order.gated { " gated" } else { "" };
        let of = order
            .facts
            .as_ref()
            .map_or_else(|| "warm".to_owned(), |f| self.s(f.session));
        self.say(
            "runtime",
            &format!(
                "{} ordered{gated} for {} {of}",
                self.i(order.id),
                order.fleet
            ),
        );
        self.truth().bodies.insert(
            order.id,
            Body {
                session: None,
                told_to_stop: false,
            },
        );
        if let Some(facts) = &order.facts {
            self.carries(order.id, facts);
        }
        if !order.gated {
            self.check_capacity(&order.fleet);
        }
    }

    pub(crate) fn released(&self, id: InstanceId) {
        self.say("runtime", &format!("{} released", self.i(id)));
        if let Some(seen) = self.instance(id) {
            self.check_capacity(&seen.fleet);
        }
    }

    pub(crate) fn bound(&self, id: InstanceId, facts: &Facts) {
        self.carries(id, facts);
    }

    pub(crate) fn restarted(&self, id: InstanceId) {
        self.say("runtime", &format!("{} started again", self.i(id)));
        if let Some(seen) = self.instance(id) {
            self.check_capacity(&seen.fleet);
        }
    }

    /// An instance carries a session's claim from now on.
    fn carries(&self, id: InstanceId, facts: &Facts) {
        let Ok(claim) = Claim::from_document(&facts.document) else {
            self.fail("claim readable", "a claim was written that cannot be read");
            return;
        };
        let now = self.now();
        let session = facts.session;
        let short = (self.s(session), self.i(id));
        let mut ending = "";
        if let Some(e) = &claim.ending {
            ending = e.reason.as_str();
        }
        self.say(
            "runtime",
            &format!(
                "{} carries {} generation {} {ending}",
                short.1, short.0, claim.generation
            ),
        );
        let other = {
            let mut truth = self.truth();
            let body = truth.bodies.get_mut(&id);
            body.and_then(|b| match b.session {
                Some(first) if first != session => Some(first),
                _ => {
                    b.session = Some(session);
                    None
                }
            })
        };
        self.checked();
        if let Some(other) = other {
            let what = format!("{} was {}'s and is {}'s", short.1, self.s(other), short.0);
            self.fail("no instance has two sessions", &what);
            return;
        }
        self.check_not_after_record(session, &claim);
        self.check_healthy_kept(session, id, &claim);
        self.check_end_not_ahead(session, &claim);
        self.check_not_called_dead(session, id, &claim);
        let granted = claim.granted.is_some();
        let ended = claim.ending.as_ref().map(|e| e.reason);
        let tickets: Vec<_> = claim.players.iter().filter_map(|p| p.ticket).collect();
        let fleet = claim.fleet.clone();
        let generation = claim.generation;
        let mut truth = self.truth();
        for t in tickets {
            truth.by_ticket.entry(t).or_default().insert(session);
        }
        let game = truth.game(session);
        game.fleet = Some(fleet);
        game.on.insert(id, generation);
        if granted && claim.started.is_none() {
            // The grant may be drawn up anew until the game is known to run: its maximum counts from the last.
            game.drawn = Some(now);
        }
        if granted && game.granted.is_none() {
            game.granted = Some(now);
        }
        let newer = game
            .claim
            .as_ref()
            .is_none_or(|(c, i)| c.generation <= generation || *i == id);
        if newer {
            game.claim = Some((claim, id));
        }
        if let Some(reason) = ended
            && game.ending.is_none()
        {
            game.ending = Some((now, reason));
        }
    }

    /// What is recorded does not come back to life.
    fn check_not_after_record(&self, session: SessionId, claim: &Claim) {
        self.checked();
        let recorded = self.truth().game(session).recorded;
        // A claim that was under way when the session ended lands all the same, and is taken back; it is not made after the record.
        let long_recorded = recorded.is_some_and(|at| self.now() - at > UNDER_WAY);
        if long_recorded && claim.ending.is_none() {
            self.fail(
                "a start is live or recorded, never both",
                &format!("{} is recorded and is claimed for again", self.s(session)),
            );
        }
    }

    /// Nobody ends in the future: a cull that is written before its time is a cull too early.
    fn check_end_not_ahead(&self, session: SessionId, claim: &Claim) {
        let Some(ending) = &claim.ending else {
            return;
        };
        self.checked();
        let at = self.ms(ending.at.restore(&claim.boot_id, self.clock.as_ref()));
        let now = self.now();
        if at > now + ROUNDING {
            self.fail(
                "no cull too early",
                &format!(
                    "{} ended for {} {} ms before its time",
                    self.s(session),
                    ending.reason.as_str(),
                    at - now
                ),
            );
        }
    }

    /// A game that players are on is not called dead while it is well, or while nobody can say.
    fn check_not_called_dead(&self, session: SessionId, id: InstanceId, claim: &Claim) {
        let Some(ending) = claim
            .ending
            .as_ref()
            .filter(|e| e.reason == Reason::Crashed)
        else {
            return;
        };
        self.checked();
        let played = self.truth().game(session).played_on == Some(id);
        let Some(seen) = self.instance(id).filter(|_| played) else {
            return;
        };
        // It accepted before it could not be seen any more: nothing says that it does not.
        let well = match (seen.state, seen.timings.ready_at) {
            (State::Ready, _) => true,
            (State::Unknown { since }, Some(ready)) => ready <= since,
            _ => false,
        };
        if well {
            self.fail(
                "nobody well is called dead",
                &format!(
                    "{} ends as {} while {} is {:?}",
                    self.s(session),
                    ending.reason.as_str(),
                    self.i(id),
                    seen.state
                ),
            );
        }
    }

    /// An instance that players can be on is not replaced while it is well.
    fn check_healthy_kept(&self, session: SessionId, new: InstanceId, claim: &Claim) {
        self.checked();
        let old = {
            let mut truth = self.truth();
            let game = truth.game(session);
            game.played_on.filter(|i| *i != new)
        };
        let Some(old) = old.filter(|_| claim.ending.is_none()) else {
            return;
        };
        if let Some(seen) = self.instance(old)
            && seen.state == State::Ready
        {
            self.fail(
                "nobody well is replaced",
                &format!(
                    "{} gets {} while {} is well",
                    self.s(session),
                    self.i(new),
                    self.i(old)
                ),
            );
        }
    }

    pub(crate) fn check_capacity(&self, fleet: &FleetName) {
        let Some(max) = self.fleet(fleet).and_then(|f| f.max) else {
            return;
        };
        self.checked();
        let up = |i: &Instance| {
            matches!(i.state, State::Starting | State::Ready | State::Stopping) && i.fleet == *fleet
        };
        let there = self.instances().into_iter().filter(up).count();
        if there > max as usize {
            self.fail(
                "capacity is never exceeded",
                &format!("{there} instances of {fleet} run, {max} may"),
            );
        }
    }

    pub(crate) fn stopped(&self, id: InstanceId, before: Option<&Instance>) {
        let of = {
            let mut truth = self.truth();
            truth.bodies.get_mut(&id).and_then(|b| {
                b.told_to_stop = true;
                b.session
            })
        };
        let whose = of.map_or_else(|| "warm".to_owned(), |s| self.s(s));
        self.say("runtime", &format!("{} told to stop, {whose}", self.i(id)));
        let well = before.is_some_and(|b| matches!(b.state, State::Ready | State::Starting));
        let Some(session) = of.filter(|_| well) else {
            return;
        };
        self.checked();
        let wrong = {
            let mut truth = self.truth();
            let game = truth.game(session);
            // Players can be on it: somebody was let in, and nothing says that it ends.
            game.played_on == Some(id) && game.ending.is_none() && game.recorded.is_none()
        };
        if wrong {
            self.fail(
                "no claimed instance is stopped",
                &format!("{} of {whose} was told to stop", self.i(id)),
            );
        }
    }

    pub(crate) fn forgotten(&self, id: InstanceId) {
        let session = {
            let mut truth = self.truth();
            let session = truth.bodies.remove(&id).and_then(|b| b.session);
            if let Some(session) = session {
                truth.game(session).on.remove(&id);
            }
            session
        };
        let whose = session.map_or_else(|| "warm".to_owned(), |s| self.s(s));
        self.say("runtime", &format!("{} forgotten, {whose}", self.i(id)));
        if let Some(session) = session {
            self.check_somewhere(session);
        }
    }

    /// What a client was told of is live or recorded, at every moment.
    pub(crate) fn check_somewhere(&self, session: SessionId) {
        self.checked();
        let nowhere = {
            let mut truth = self.truth();
            let game = truth.game(session);
            game.acked.is_some() && game.on.is_empty() && game.recorded.is_none()
        };
        if nowhere {
            self.fail(
                "an acknowledged start is live or recorded",
                &format!("{} is neither", self.s(session)),
            );
        }
    }

    /// A client was told of a session.
    pub(crate) fn acked(&self, session: SessionId) {
        let now = self.now();
        self.truth().game(session).acked.get_or_insert(now);
        self.check_somewhere(session);
    }

    pub(crate) fn recorded(&self, record: &MatchRecord, inserted: Inserted) {
        let session = record.session;
        self.say(
            "records",
            &format!(
                "{} {} ({inserted:?})",
                self.s(session),
                record.reason.as_str()
            ),
        );
        self.checked();
        if inserted == Inserted::Before {
            self.check_same_record(record);
            return;
        }
        let another = {
            let mut truth = self.truth();
            truth.records += 1;
            let of = |i| truth.bodies.get(&i).and_then(|b| b.session);
            record.instance.and_then(of).filter(|s| *s != session)
        };
        if let Some(another) = another {
            self.fail(
                "one session, one record",
                &format!(
                    "{} is recorded with the instance of {}",
                    self.s(session),
                    self.s(another)
                ),
            );
            return;
        }
        self.check_reason(record);
        self.check_guards(record);
        let now = self.now();
        let mut truth = self.truth();
        let game = truth.game(session);
        game.recorded = Some(now);
        game.reason = Some(record.reason);
        if game.ending.is_none() {
            game.ending = Some((now, record.reason));
        }
    }

    fn check_same_record(&self, record: &MatchRecord) {
        use spawnpoint_store::Records as _;
        let kept = self.records.get(record.session).now_or_never();
        if let Some(Ok(Some(kept))) = kept
            && kept.reason != record.reason
        {
            self.fail(
                "one record, one reason",
                &format!(
                    "{} was recorded as {} and now as {}",
                    self.s(record.session),
                    kept.reason.as_str(),
                    record.reason.as_str()
                ),
            );
        }
    }

    /// The reason in a record fits what really was.
    fn check_reason(&self, record: &MatchRecord) {
        self.checked();
        let now = self.now();
        let ended = self.ended_at(record, now);
        let Some(ended) = ended else { return };
        let Some(policy) = self.fleet(&record.fleet).cloned() else {
            return;
        };
        let truth = self.truth();
        let deaf = truth.was_deaf(ended - KNOWN_DEAF, ended);
        let Some(game) = truth.games.get(&record.session) else {
            return;
        };
        let wrong = match record.reason {
            Reason::Idle => {
                let run = self.site().map(|s| s.life.number);
                early_idle(game, ended, policy.idle, deaf, run)
            }
            Reason::Empty => early_empty(game, ended, policy.reconnect, deaf),
            Reason::NeverJoined => early_never_joined(game, ended, deaf),
            Reason::MaxDuration => early_max(game, ended, policy.longest),
            Reason::EndedByClient if !was_asked(&truth, game, record, ended) => {
                Some("nobody asked for it".to_owned())
            }
            _ => None,
        };
        let seen = game.ending.map_or(now, |(at, _)| at);
        let late = (record.reason == Reason::MaxDuration)
            .then(|| seen - ended.min(deadline(game, policy.longest, ended)))
            .filter(|late| *late > 3_000 && self.was_calm_since(ended - 5_000));
        drop(truth);
        if let Some(why) = wrong {
            self.fail(
                "no cull too early",
                &format!(
                    "{} ended for {} at {ended} ms: {why}",
                    self.s(record.session),
                    record.reason.as_str()
                ),
            );
        } else if let Some(late) = late {
            self.fail(
                "no cull too late",
                &format!(
                    "{} ended for {} {late} ms after its time",
                    self.s(record.session),
                    record.reason.as_str()
                ),
            );
        }
    }

    /// Culls that rest on what others report wait after a late tick, and a mass of them while nobody can say who is there.
    fn check_guards(&self, record: &MatchRecord) {
        if !brake_applies(record.reason) {
            return;
        }
        self.checked();
        let now = self.now();
        let Some(ended) = self.ended_at(record, now) else {
            return;
        };
        let mut truth = self.truth();
        truth.culls.push(ended);
        let live = truth.games.values().filter(|g| g.is_live()).count();
        let lately = |at: &&i64| (ended - BRAKE_LOOKS_BACK..=ended).contains(*at);
        let many = truth.culls.iter().filter(lately).count();
        let unheard = |(a, b): &(i64, i64)| *a + KNOWN_DEAF <= ended && ended <= *b;
        let unknown = truth.unheard.iter().any(unheard);
        let late = truth
            .stops
            .iter()
            .any(|(at, lasts)| *lasts > LATE && (*at..*at + HELD).contains(&ended));
        drop(truth);
        let name = self.s(record.session);
        if late {
            self.fail(
                "a late tick holds culls",
                &format!(
                    "{name} ended for {} at {ended} ms, right after everything stood still",
                    record.reason.as_str()
                ),
            );
        }
        if unknown && brake_holds(live + many, many) {
            self.fail(
                "the mass-end brake holds",
                &format!("{name} is the {many}th cull in a row while no gateway can be heard"),
            );
        }
    }

    /// When a record says that it ended, in the world's time: by one of the wall clock's settings that is a time that has been.
    fn ended_at(&self, record: &MatchRecord, now: i64) -> Option<i64> {
        let start = spawnpoint_testkit::clock::WALL_AT_START;
        let offsets = self.truth().offsets.clone();
        let of = |o: &i64| record.ended_at - start - o;
        let fits = |at: &i64| (-1..=now + ROUNDING).contains(at);
        // Several settings may give a time that has been: the one meant is next to when its end was first seen.
        let seen = self
            .truth()
            .games
            .get(&record.session)
            .and_then(|g| g.ending);
        let seen = seen.map_or(now, |(at, _)| at);
        let at = offsets
            .iter()
            .rev()
            .map(of)
            .filter(fits)
            .min_by_key(|at| at.abs_diff(seen));
        if at.is_none() {
            self.fail(
                "the end is when it was",
                &format!(
                    "{} ended at {}, which has not been",
                    self.s(record.session),
                    record.ended_at - start
                ),
            );
        }
        at
    }
}

fn ms(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

/// When its maximum really is over, from when it was granted and how often that was pushed.
fn deadline(game: &Game, longest: Duration, or: i64) -> i64 {
    match (&game.claim, game.drawn.max(game.granted)) {
        (Some((claim, _)), Some(granted)) if claim.extends == 0 => granted + ms(longest),
        _ => or,
    }
}

fn early_idle(
    game: &Game,
    ended: i64,
    idle: Duration,
    deaf: bool,
    run: Option<u32>,
) -> Option<String> {
    if let Some((busy, by)) = game.busy
        && busy > ended + ROUNDING
        && Some(by) == run
    {
        return Some(format!("it was busy until {busy}"));
    }
    let latest = game.data.values().copied().max();
    let told = latest.filter(|d| *d <= ended - REPORTED && !deaf);
    let last = told.max(game.active.filter(|a| *a <= ended - ROUNDING))?;
    (last + ms(idle) > ended + ROUNDING).then(|| {
        format!(
            "the last activity was at {last}, the timeout is {} ms",
            idle.as_millis()
        )
    })
}

fn early_empty(game: &Game, ended: i64, grace: Duration, deaf: bool) -> Option<String> {
    if let Some(since) = game.here_since {
        return (since <= ended - REPORTED && !deaf)
            .then(|| format!("somebody has been there since {since}"));
    }
    let left = game.left?;
    (left <= ended - REPORTED && left + ms(grace) > ended + 500 && !deaf).then(|| {
        format!(
            "the last one left at {left}, the grace is {} ms",
            grace.as_millis()
        )
    })
}

fn early_never_joined(game: &Game, ended: i64, deaf: bool) -> Option<String> {
    // Whoever left has been there too, however short.
    let was = game.here_since.or(game.left)?;
    (was <= ended - REPORTED && !deaf).then(|| format!("somebody was there at {was}"))
}

/// Somebody asked for its end, or one of its players for another game instead (within the patience of a call).
fn was_asked(truth: &Truth, game: &Game, record: &MatchRecord, ended: i64) -> bool {
    let before = |at: i64| at <= ended + ROUNDING;
    let fresh = |p: &MatchPlayer| {
        let mut at = truth.fresh.get(&p.player).into_iter().flatten();
        at.any(|at| before(*at) && ended - at < 60_000)
    };
    game.end_asked.is_some_and(before) || record.players.iter().any(fresh)
}

fn early_max(game: &Game, ended: i64, longest: Duration) -> Option<String> {
    let granted = game.granted?;
    // The grant is counted from when it was drawn up, which was before it was written.
    (granted + ms(longest) > ended + 3_000).then(|| {
        format!(
            "it was granted at {granted}, the maximum is {} ms",
            longest.as_millis()
        )
    })
}
