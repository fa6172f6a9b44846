//! The tickets in memory: one writer's view, from which everything is decided. What must outlive the process is written through to the
//! lobby by whoever calls. Nothing here waits, and no clock is read: `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::matching::{Candidate, Ticket};
use spawnpoint_core::{FleetName, Moment, PlayerId, SessionId, TicketId};
use tokio::sync::watch;

use super::fates::{End, Fate, Fates};
use super::pace::{Outlook, estimate};
use super::queue::{Candidates, LastMatch, Queue, QueueNow, candidate};
use crate::config::QueueConfig;

/// First pause of a ticket after a match of it failed; doubles with each further failure.
const HOLD_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const HOLD_MOST: Duration = Duration::from_secs(30);
/// A ticket that was followed by an event stream, and has not been asked after by any means for this long, is not matched until it is
/// again: its page was closed, and who is matched with it would play alone. A stream looks every two seconds and a browser opens a
/// broken one again after three; a reload is quicker. Its place stays its own.
const AWAY_AFTER: Duration = Duration::from_secs(6);

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The lobby has not taken it in yet.
    Joining,
    /// It waits for a match.
    Waiting,
    /// Its match is being started.
    Forming(SessionId),
}

/// A ticket that is there.
pub(super) struct Waiting {
    pub(super) ticket: Arc<Ticket>,
    candidate: Arc<Candidate>,
    pub(super) since: Moment,
    pub(super) standing: Standing,
    pub(super) failures: u32,
    /// After a failed match it is not tried again before this.
    not_before: Option<Moment>,
    attended_at: Moment,
    /// By an event stream too, at some time.
    followed: bool,
    /// Calls that wait on it right now.
    watchers: u32,
    /// It leaves as soon as its match is known not to be.
    leaving: bool,
    /// A look later than this one has it among its candidates.
    pub(super) stood_at: u64,
    /// Counts changes; whoever asks after it waits on it.
    changed: watch::Sender<u64>,
}

impl Waiting {
    /// Whether its player has gone, as far as can be told: who only asks now and then is not to be judged by when.
    fn is_away(&self, now: Moment) -> bool {
        self.followed && self.watchers == 0 && now.since(self.attended_at) >= AWAY_AFTER
    }

    fn change(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

/// A ticket as whoever asks is told.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) ticket: Arc<Ticket>,
    pub(super) standing: Standing,
    pub(super) position: u32,
    pub(super) estimate_s: Option<u32>,
    pub(super) waited: Duration,
}

/// Whether players may join together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// They are free.
    Free,
    /// Exactly they wait already.
    Same(TicketId),
    /// One of them waits with others, or alone.
    Other(PlayerId),
    /// No further ticket is taken.
    Full,
    /// There is no such queue.
    Unknown,
}

/// What becomes of a ticket whose match was not to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// It waits again.
    Waits,
    /// It had failed too often.
    GivenUp,
    /// Somebody of it had left meanwhile.
    Leaves,
}

/// How a match came to nothing, for one of its tickets.
#[derive(Clone, Debug)]
pub(super) struct Setback {
    /// Whether it counts against the ticket.
    pub(super) counts: bool,
    /// It is not tried again before this has passed, whatever it counts.
    pub(super) hold: Duration,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Table {
    queues: BTreeMap<FleetName, Queue>,
    tickets: HashMap<TicketId, Waiting>,
    by_player: HashMap<PlayerId, Vec<TicketId>>,
    fates: Fates,
}

impl Table {
    /// Puts a configuration in place. Queues that are gone from it stay while somebody waits in them.
    pub(crate) fn configure(&mut self, queues: &[Arc<QueueConfig>], now: Moment) {
        for config in queues {
            let queue = self
                .queues
                .entry(config.name.clone())
                .or_insert_with(|| Queue::new(Arc::clone(config)));
            if queue.config != *config {
                queue.config = Arc::clone(config);
                queue.changed = true;
            }
        }
        let named = |name: &FleetName| queues.iter().any(|q| q.name == *name);
        self.queues.retain(|name, q| named(name) || q.tickets > 0);
        for t in self.tickets.values_mut() {
            if let Some(queue) = self.queues.get(&t.ticket.queue) {
                t.candidate = Arc::new(candidate(&t.ticket, &queue.config, t.since));
            }
        }
        self.fates.forget(now);
    }

    pub(super) fn queue(&self, name: &FleetName) -> Option<&Queue> {
        self.queues.get(name)
    }

    pub(super) fn names(&self) -> Vec<FleetName> {
        self.queues.keys().cloned().collect()
    }

    /// A queue as it is now.
    pub(crate) fn look(&self, name: &FleetName, now: Moment) -> Option<QueueNow<'_>> {
        let queue = self.queues.get(name)?;
        let oldest = queue.line.first().and_then(|id| self.tickets.get(&id));
        Some(QueueNow {
            queue,
            tickets: queue.line.len(),
            players: queue.players,
            forming: queue.forming,
            oldest: oldest.map(|t| now.since(t.since)),
        })
    }

    /// Whether these players may join a queue together.
    pub(super) fn room(&self, queue: &FleetName, players: &[PlayerId]) -> Room {
        let Some(q) = self.queues.get(queue) else {
            return Room::Unknown;
        };
        for p in players {
            let Some(t) = self.ticket_of(p, Some(queue)) else {
                continue;
            };
            let same = t.ticket.players.len() == players.len()
                && players.iter().all(|p| t.ticket.players.contains(p));
            return if same {
                Room::Same(t.ticket.id)
            } else {
                Room::Other(p.clone())
            };
        }
        if q.tickets >= q.config.max_tickets {
            return Room::Full;
        }
        Room::Free
    }

    /// The ticket of a player: in this queue, or the latest in any.
    pub(super) fn ticket_of(
        &self,
        player: &PlayerId,
        queue: Option<&FleetName>,
    ) -> Option<&Waiting> {
        let ids = self.by_player.get(player)?;
        let mut all = ids.iter().rev().filter_map(|id| self.tickets.get(id));
        all.find(|t| queue.is_none_or(|q| t.ticket.queue == *q))
    }

    /// All tickets of a player.
    pub(super) fn tickets_of(&self, player: &PlayerId) -> Vec<TicketId> {
        self.by_player.get(player).cloned().unwrap_or_default()
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Waiting> {
        self.tickets.get(&id)
    }

    /// Takes a ticket in that is not in the lobby yet: it holds its players and is no candidate.
    pub(super) fn admit(&mut self, ticket: Arc<Ticket>, since: Moment, now: Moment) {
        let Some(queue) = self.queues.get_mut(&ticket.queue) else {
            return;
        };
        queue.tickets += 1;
        let id = ticket.id;
        for p in &ticket.players {
            self.by_player.entry(p.clone()).or_default().push(id);
        }
        let waiting = Waiting {
            candidate: Arc::new(candidate(&ticket, &queue.config, since)),
            failures: ticket.failures,
            ticket,
            since,
            standing: Standing::Joining,
            not_before: None,
            attended_at: now,
            followed: false,
            watchers: 0,
            leaving: false,
            stood_at: 0,
            changed: watch::Sender::new(0),
        };
        self.tickets.insert(id, waiting);
    }

    /// The lobby has it: it stands in line, since this look of the matchmaker. Returns whether it does.
    pub(super) fn stand(&mut self, id: TicketId, look: u64) -> bool {
        let Some(t) = self.tickets.get_mut(&id) else {
            return false;
        };
        if t.standing == Standing::Waiting {
            return true;
        }
        let Some(queue) = self.queues.get_mut(&t.ticket.queue) else {
            return false;
        };
        if matches!(t.standing, Standing::Forming(_)) {
            queue.forming = queue.forming.saturating_sub(1);
        }
        t.standing = Standing::Waiting;
        t.stood_at = look;
        queue.line.push(id);
        queue.players += t.ticket.players.len();
        queue.changed = true;
        t.change();
        true
    }

    fn step_out(&mut self, id: TicketId) {
        let Some(t) = self.tickets.get(&id) else {
            return;
        };
        if t.standing == Standing::Waiting
            && let Some(queue) = self.queues.get_mut(&t.ticket.queue)
        {
            queue.line.step_out(id);
            queue.players = queue.players.saturating_sub(t.ticket.players.len());
        }
    }

    /// Takes tickets that wait for the match of this session: all of them or none.
    pub(super) fn take(
        &mut self,
        session: SessionId,
        ids: &[TicketId],
    ) -> Option<Vec<Arc<Ticket>>> {
        let free = |id: &TicketId| {
            let t = self.tickets.get(id)?;
            (t.standing == Standing::Waiting && !t.leaving).then(|| Arc::clone(&t.ticket))
        };
        let tickets: Vec<Arc<Ticket>> = ids.iter().map(free).collect::<Option<_>>()?;
        for id in ids {
            self.step_out(*id);
            if let Some(t) = self.tickets.get_mut(id) {
                t.standing = Standing::Forming(session);
                t.change();
                if let Some(queue) = self.queues.get_mut(&t.ticket.queue) {
                    queue.forming += 1;
                }
            }
        }
        Some(tickets)
    }

    /// As [`Table::take`], for a match that an earlier run began.
    pub(super) fn admit_forming(
        &mut self,
        ticket: Arc<Ticket>,
        since: Moment,
        now: Moment,
        session: SessionId,
    ) {
        let id = ticket.id;
        self.admit(ticket, since, now);
        if let Some(t) = self.tickets.get_mut(&id)
            && let Some(queue) = self.queues.get_mut(&t.ticket.queue)
        {
            t.standing = Standing::Forming(session);
            queue.forming += 1;
            // Its place is kept for when it comes back.
            queue.line.push(id);
            queue.line.step_out(id);
        }
    }

    /// What a setback makes of a ticket; nothing is changed yet.
    pub(super) fn judge(&self, id: TicketId, setback: &Setback) -> Option<Back> {
        let t = self.tickets.get(&id)?;
        let most = self.queues.get(&t.ticket.queue)?.config.max_failures;
        Some(if t.leaving {
            Back::Leaves
        } else if setback.counts && t.failures.saturating_add(1) >= most {
            Back::GivenUp
        } else {
            Back::Waits
        })
    }

    /// It waits again, as old as it was and in its old place.
    pub(super) fn give_back(&mut self, id: TicketId, setback: &Setback, look: u64, now: Moment) {
        if let Some(t) = self.tickets.get_mut(&id) {
            let mut hold = setback.hold;
            if setback.counts {
                let doubled = HOLD_FIRST.saturating_mul(1 << t.failures.min(10));
                hold = hold.max(doubled.min(HOLD_MOST));
                t.failures = t.failures.saturating_add(1);
            }
            t.not_before = (!hold.is_zero()).then(|| now.after(hold));
        }
        self.stand(id, look);
    }

    /// A ticket's one fate: it is gone from everywhere, and whoever waits on it is told.
    pub(super) fn end(&mut self, id: TicketId, end: End, now: Moment) -> Option<Fate> {
        self.step_out(id);
        let t = self.tickets.remove(&id)?;
        for p in &t.ticket.players {
            if let Some(ids) = self.by_player.get_mut(p) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    self.by_player.remove(p);
                }
            }
        }
        if let Some(queue) = self.queues.get_mut(&t.ticket.queue) {
            queue.line.remove(id);
            queue.tickets = queue.tickets.saturating_sub(1);
            if matches!(t.standing, Standing::Forming(_)) {
                queue.forming = queue.forming.saturating_sub(1);
            }
            match &end {
                End::Lost(..) => queue.pace.lost += 1,
                End::Left => queue.pace.left += 1,
                End::Matched(_) => {}
            }
        }
        let fate = Fate {
            ticket: Arc::clone(&t.ticket),
            end,
            waited: now.since(t.since),
        };
        self.fates.keep(fate.clone(), now);
        t.change();
        Some(fate)
    }

    pub(super) fn note_match(
        &mut self,
        queue: &FleetName,
        last: LastMatch,
        partial: bool,
        waited: &[Duration],
    ) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.pace.matched(last.at, partial, waited);
            q.last = Some(last);
        }
    }

    pub(super) fn note_failure(&mut self, queue: &FleetName) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.pace.failures += 1;
        }
    }

    /// It leaves once its match is known not to be.
    pub(super) fn leave_later(&mut self, id: TicketId) {
        if let Some(t) = self.tickets.get_mut(&id) {
            t.leaving = true;
        }
    }

    pub(super) fn is_leaving(&self, id: TicketId) -> bool {
        self.tickets.get(&id).is_some_and(|t| t.leaving)
    }

    pub(super) fn subscribe(&self, id: TicketId) -> Option<watch::Receiver<u64>> {
        Some(self.tickets.get(&id)?.changed.subscribe())
    }

    /// Somebody asks after it.
    pub(super) fn attend(&mut self, id: TicketId, now: Moment) {
        let Some(t) = self.tickets.get_mut(&id) else {
            return;
        };
        let back = t.is_away(now);
        t.attended_at = now;
        if back && let Some(queue) = self.queues.get_mut(&t.ticket.queue) {
            queue.changed = true;
        }
    }

    /// An event stream of a player of it is open.
    pub(super) fn follow(&mut self, id: TicketId, now: Moment) {
        self.attend(id, now);
        if let Some(t) = self.tickets.get_mut(&id) {
            t.followed = true;
        }
    }

    /// A call begins or ends to wait on it.
    pub(super) fn watch(&mut self, id: TicketId, begins: bool, now: Moment) {
        self.attend(id, now);
        if let Some(t) = self.tickets.get_mut(&id) {
            t.watchers = if begins {
                t.watchers.saturating_add(1)
            } else {
                t.watchers.saturating_sub(1)
            };
        }
    }

    /// Those who wait and whom nobody has asked after for too long.
    pub(super) fn unattended(&self, now: Moment) -> Vec<TicketId> {
        let late = |t: &&Waiting| {
            let queue = self.queues.get(&t.ticket.queue);
            t.standing == Standing::Waiting
                && t.watchers == 0
                && queue.is_some_and(|q| now.since(t.attended_at) >= q.config.unattended)
        };
        let late = self.tickets.values().filter(late);
        let mut ids: Vec<TicketId> = late.map(|t| t.ticket.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether a queue is worth a look now, and if not, when.
    pub(super) fn due(&self, name: &FleetName, now: Moment) -> Result<(), Option<Duration>> {
        match self.queues.get(name) {
            Some(q) if q.changed => Ok(()),
            Some(q) => match q.due {
                Some(due) if due <= now => Ok(()),
                due => Err(due.map(|d| d.since(now))),
            },
            None => Err(None),
        }
    }

    /// Those who may be matched now.
    pub(super) fn candidates(&mut self, name: &FleetName, now: Moment) -> Option<Candidates> {
        let queue = self.queues.get_mut(name)?;
        queue.changed = false;
        queue.due = None;
        let mut held: Option<Moment> = None;
        let mut all = Vec::with_capacity(queue.line.len());
        for id in queue.line.iter() {
            let Some(t) = self.tickets.get(&id) else {
                continue;
            };
            match t.not_before {
                Some(at) if at > now => held = Some(held.map_or(at, |h| h.min(at))),
                _ if t.is_away(now) => {}
                _ => all.push(Arc::clone(&t.candidate)),
            }
        }
        Some(Candidates {
            queue: Arc::clone(&queue.config),
            all,
            held,
        })
    }

    /// What the last look said of the next one.
    pub(super) fn look_again(&mut self, name: &FleetName, at: Option<Moment>) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.due = match (queue.due, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// Whether a look that found something, or nothing, is worth a line in the journal: nothing after nothing is not.
    pub(super) fn is_noteworthy(&mut self, name: &FleetName, found: bool) -> bool {
        let queue = self.queues.get_mut(name);
        queue.is_some_and(|q| std::mem::replace(&mut q.found, found) || found)
    }

    /// The next look happens as soon as it can.
    pub(super) fn look_soon(&mut self, name: &FleetName) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.changed = true;
        }
    }

    pub(super) fn seen(&self, id: TicketId, now: Moment) -> Option<Seen> {
        let t = self.tickets.get(&id)?;
        let queue = self.queues.get(&t.ticket.queue)?;
        let waited = now.since(t.since);
        let position = queue.line.position(id).unwrap_or(queue.line.len() + 1);
        let outlook = Outlook {
            position,
            waited,
            players: queue.players,
            held: t.not_before.map_or(Duration::ZERO, |at| at.since(now)),
        };
        let estimate_s = match t.standing {
            Standing::Forming(_) => Some(0),
            _ => estimate(&queue.config.rules, &queue.pace, outlook, now),
        };
        Some(Seen {
            ticket: Arc::clone(&t.ticket),
            standing: t.standing,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            estimate_s,
            waited,
        })
    }

    pub(super) const fn fates(&self) -> &Fates {
        &self.fates
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TicketId> {
        self.tickets.keys().copied()
    }

    pub(super) fn fate(&self, id: TicketId) -> Option<&Fate> {
        self.fates.of(id)
    }

    pub(super) fn latest_fate(&self, queue: &FleetName, player: &PlayerId) -> Option<&Fate> {
        self.fates.latest(queue, player)
    }

    /// Those who stand in line.
    pub(super) fn in_line(&self) -> Vec<Arc<Ticket>> {
        let lines = self.queues.values().flat_map(|q| q.line.iter());
        let of = |id| Some(Arc::clone(&self.tickets.get(&id)?.ticket));
        lines.filter_map(of).collect()
    }

    /// Parties that no match of their queue has room for, since it was configured anew, with the size of its matches.
    pub(super) fn too_large(&self) -> Vec<(TicketId, u32)> {
        let size = |t: &Waiting| Some(self.queues.get(&t.ticket.queue)?.config.rules.size());
        let too_large = |t: &Waiting| {
            let size = size(t)?;
            (t.ticket.players.len() > size as usize).then_some((t.ticket.id, size))
        };
        let mut all: Vec<_> = self.tickets.values().filter_map(too_large).collect();
        all.sort_unstable();
        all
    }
}
