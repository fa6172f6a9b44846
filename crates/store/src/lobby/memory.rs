//! A lobby in memory: for a server that stands alone. It lets go of nothing, and nothing of it outlives the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::{FleetName, PlayerId, SessionId, TicketId};

use super::{Held, Joined, Left, Lobby, LobbyError, MAX_LISTED, State, Taken};

/// Tickets in memory. Clones share their content.
#[derive(Clone, Debug, Default)]
pub struct MemoryLobby {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    tickets: BTreeMap<TicketId, Held>,
    /// Who has which ticket in which queue.
    places: HashMap<FleetName, HashMap<PlayerId, TicketId>>,
    forming: HashMap<SessionId, BTreeSet<TicketId>>,
}

impl MemoryLobby {
    /// An empty lobby.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each change is one that cannot panic half-way, so a poisoned lock still guards whole tables.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn remove(&mut self, id: TicketId) {
        let Some(Held { ticket, .. }) = self.tickets.remove(&id) else {
            return;
        };
        let Some(places) = self.places.get_mut(&ticket.queue) else {
            return;
        };
        for player in &ticket.players {
            places.remove(player);
        }
        if places.is_empty() {
            self.places.remove(&ticket.queue);
        }
    }
}

#[async_trait]
impl Lobby for MemoryLobby {
    async fn join(&self, ticket: &Ticket) -> Result<Joined, LobbyError> {
        let mut t = self.tables();
        if t.tickets.contains_key(&ticket.id) {
            return Ok(Joined::Before);
        }
        if let Some(places) = t.places.get(&ticket.queue) {
            let taken = |p: &PlayerId| Some((p.clone(), *places.get(p)?));
            if let Some((player, ticket)) = ticket.players.iter().find_map(taken) {
                return Ok(Joined::Elsewhere { player, ticket });
            }
        }
        let places = t.places.entry(ticket.queue.clone()).or_default();
        for player in &ticket.players {
            places.insert(player.clone(), ticket.id);
        }
        let held = Held {
            ticket: ticket.clone(),
            state: State::Waiting,
        };
        t.tickets.insert(ticket.id, held);
        Ok(Joined::Now)
    }

    async fn leave(&self, ticket: TicketId) -> Result<Left, LobbyError> {
        let mut t = self.tables();
        Ok(match t.tickets.get(&ticket).map(|held| held.state) {
            None => Left::Before,
            Some(State::Forming(session)) => Left::Forming(session),
            Some(State::Waiting) => {
                t.remove(ticket);
                Left::Now
            }
        })
    }

    async fn take(&self, session: SessionId, tickets: &[TicketId]) -> Result<Taken, LobbyError> {
        let mut t = self.tables();
        for ticket in tickets {
            let forming = match t.tickets.get(ticket).map(|held| held.state) {
                None => None,
                Some(State::Forming(other)) if other != session => Some(other),
                Some(_) => continue,
            };
            let ticket = *ticket;
            return Ok(Taken::Not { ticket, forming });
        }
        let mut taken = Taken::Before;
        for ticket in tickets {
            let Some(held) = t.tickets.get_mut(ticket) else {
                continue;
            };
            if held.state == State::Waiting {
                held.state = State::Forming(session);
                t.forming.entry(session).or_default().insert(*ticket);
                taken = Taken::Now;
            }
        }
        Ok(taken)
    }

    async fn settle(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        let mut t = self.tables();
        let tickets = t.forming.remove(&session).unwrap_or_default();
        for ticket in &tickets {
            t.remove(*ticket);
        }
        Ok(tickets.into_iter().collect())
    }

    async fn give_back(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError> {
        let mut t = self.tables();
        let tickets = t.forming.remove(&session).unwrap_or_default();
        for ticket in &tickets {
            if let Some(held) = t.tickets.get_mut(ticket) {
                held.state = State::Waiting;
                held.ticket.failures = held.ticket.failures.saturating_add(1);
            }
        }
        Ok(tickets.into_iter().collect())
    }

    async fn list(&self, after: Option<TicketId>, limit: usize) -> Result<Vec<Held>, LobbyError> {
        let limit = limit.clamp(1, MAX_LISTED);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let t = self.tables();
        let held = t.tickets.range((from, Bound::Unbounded)).take(limit);
        Ok(held.map(|(_, held)| held.clone()).collect())
    }

    async fn touch(&self, tickets: &[TicketId]) -> Result<Vec<TicketId>, LobbyError> {
        let t = self.tables();
        let gone = tickets.iter().filter(|id| !t.tickets.contains_key(id));
        Ok(gone.copied().collect())
    }

    async fn healthy(&self) -> Result<(), LobbyError> {
        Ok(())
    }
}
