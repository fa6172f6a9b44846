//! What became of tickets: kept for a while, so that whoever asks after one that is gone is told its one fate.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::matching::Ticket;
use spawnpoint_core::{Code, FleetName, Moment, PlayerId, SessionId, TicketId};

/// Fates kept at most: players ask within seconds, and a fate is a few hundred bytes.
const KEPT: usize = 20_000;
/// And for how long: a client that comes back later joins anew anyway.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// How a ticket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its match was started: this is its session.
    Matched(SessionId),
    /// Somebody of it left.
    Left,
    /// It is gone without a match: why, as a code and in words.
    Lost(Code, String),
}

/// One fate.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) end: End,
    /// How long it had waited.
    pub(crate) waited: Duration,
}

/// The fates of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Fates {
    by_ticket: HashMap<TicketId, Fate>,
    /// The latest of a player in a queue.
    by_player: HashMap<(FleetName, PlayerId), TicketId>,
    order: VecDeque<(Moment, TicketId)>,
}

impl Fates {
    pub(super) fn keep(&mut self, fate: Fate, now: Moment) {
        self.forget(now);
        let id = fate.ticket.id;
        for p in &fate.ticket.players {
            self.by_player
                .insert((fate.ticket.queue.clone(), p.clone()), id);
        }
        if self.by_ticket.insert(id, fate).is_none() {
            self.order.push_back((now, id));
        }
    }

    /// Drops what is old, and what is too much.
    pub(super) fn forget(&mut self, now: Moment) {
        while let Some((at, id)) = self.order.front().copied() {
            if self.order.len() <= KEPT && now.since(at) < KEPT_FOR {
                break;
            }
            self.order.pop_front();
            let Some(fate) = self.by_ticket.remove(&id) else {
                continue;
            };
            for p in &fate.ticket.players {
                let key = (fate.ticket.queue.clone(), p.clone());
                if self.by_player.get(&key) == Some(&id) {
                    self.by_player.remove(&key);
                }
            }
        }
    }

    /// Those that are kept.
    pub(super) fn all(&self) -> impl Iterator<Item = (TicketId, &Fate)> {
        self.by_ticket.iter().map(|(id, fate)| (*id, fate))
    }

    pub(super) fn of(&self, ticket: TicketId) -> Option<&Fate> {
        self.by_ticket.get(&ticket)
    }

    pub(super) fn latest(&self, queue: &FleetName, player: &PlayerId) -> Option<&Fate> {
        // The key is owned: two short strings are copied, only when somebody asks after a ticket that is gone.
        let id = self.by_player.get(&(queue.clone(), player.clone()))?;
        self.by_ticket.get(id)
    }
}
