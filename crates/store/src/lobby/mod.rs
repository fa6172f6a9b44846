//! Who waits: the durable side of the match queues, behind one trait.
//!
//! The one server that writes keeps its queues in memory, decides there, and writes through to a [`Lobby`]; at its start it reads
//! everything back. A lobby decides nothing but the conflicts that only it can see: two tickets of one player, two matches of one
//! ticket. [`memory`] is the backend of a server that stands alone, [`conformance`] the suite that every backend passes.

pub mod conformance;
pub mod memory;

use std::collections::BTreeMap;

use async_trait::async_trait;
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::{Code, Coded, PlayerId, Retry, SessionId, Side, TicketId};

/// Most tickets of one page of [`Lobby::list`].
pub const MAX_LISTED: usize = 1_000;

/// Why a lobby could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LobbyError {
    /// It cannot be reached, or did not answer. Whether the call was done is unknown; the same call again is harmless and tells.
    #[error("the lobby is unavailable: {what}")]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something stored cannot be read: damaged, or of a release that this one does not know. It is left as it was found.
    #[error("the lobby cannot be read: {what}")]
    Corrupt {
        /// Which part.
        what: String,
    },
}

impl LobbyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } => Code::LobbyUnavailable,
            Self::Corrupt { .. } => Code::Internal,
        }
    }

    /// Whose side it is on.
    #[must_use]
    pub fn side(&self) -> Side {
        self.code().side()
    }

    /// Whether the same call can succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code().retry()
    }
}

impl Coded for LobbyError {
    fn code(&self) -> Code {
        Self::code(self)
    }
}

/// What becomes of a ticket that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a match.
    Waiting,
    /// It is in a match whose session is being started.
    Forming(SessionId),
}

/// A ticket that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The ticket as it joined, with the failures since.
    pub ticket: Ticket,
    /// What becomes of it.
    pub state: State,
}

/// What a join did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The ticket waits from now on.
    Now,
    /// A ticket of this id is there already, and stays as it is: this call was made before.
    Before,
    /// Nothing: a player has another ticket in this queue.
    Elsewhere {
        /// The first of the ticket's players, in its order, who has one.
        player: PlayerId,
        /// The one they have.
        ticket: TicketId,
    },
}

/// What a leave did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The ticket waited and is gone.
    Now,
    /// There is no such ticket: it left, was settled, or never was.
    Before,
    /// Nothing: it is in a match of this session.
    Forming(SessionId),
}

/// What a take did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of them are forming for the session, some since now.
    Now,
    /// All of them were forming for this session already: this call was made before.
    Before,
    /// Nothing: one of them cannot be had.
    Not {
        /// The first in the order given.
        ticket: TicketId,
        /// The session it is forming for; none if it is not there.
        forming: Option<SessionId>,
    },
}

/// The tickets that wait, and those whose match is being started.
///
/// ```text
///            join            take              settle
///   (none) -------> waiting -------> forming ---------> (none)
///                    |    ^            |
///                    v    '------------'
///                  (none)   give_back
///                   leave
/// ```
///
/// Semantics that every implementation keeps and the conformance suite checks:
/// * Each call is atomic and in one order with all others: it is done wholly or not at all, and nobody sees half of it.
/// * A player has at most one ticket in each queue, waiting or forming, whoever calls at once. Players are told apart exactly
///   (`1`, `11`, `1%` and `a,b` never mix).
/// * A ticket is in at most one match, and a match gets all of its tickets or none.
/// * After an error the outcome is unknown. Every call may be made again, as often as it takes; the answer of the repetition then
///   says `Before` (or lists nothing) where the lost call was done. So that this holds, nobody takes, or lets leave, a ticket whose
///   join has not been answered.
/// * An implementation that outlives the process may let go of tickets that nobody has joined, given back or
///   [touched](Lobby::touch) for a time that it states, as if they had left, so that what a dead server kept is not kept for ever.
///   It never lets go of others.
#[async_trait]
pub trait Lobby: Send + Sync + 'static {
    /// Lets a ticket wait, with the failures that it comes with: for one that is new, and to write one back that was lost. A ticket
    /// whose id is there is left as it is, even if it differs.
    async fn join(&self, ticket: &Ticket) -> Result<Joined, LobbyError>;

    /// Removes a ticket that waits.
    async fn leave(&self, ticket: TicketId) -> Result<Left, LobbyError>;

    /// Takes tickets that wait for the match of this session: all of them or, if one cannot be had, none. Tickets that are
    /// forming for this session already are no hindrance.
    async fn take(&self, session: SessionId, tickets: &[TicketId]) -> Result<Taken, LobbyError>;

    /// The session of this match has been started: its tickets are gone, and their players free to join again. Returns which those
    /// were, by id.
    async fn settle(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError>;

    /// The session of this match will not be: its tickets wait again, as old as they were, each with one failure more. Returns which
    /// those were, by id.
    async fn give_back(&self, session: SessionId) -> Result<Vec<TicketId>, LobbyError>;

    /// A page of at most `limit` tickets with ids greater than `after`, by id; the limit is taken as at least 1 and at most
    /// [`MAX_LISTED`]. An empty page is the end. What is there all the while is listed exactly once, whatever comes and goes.
    async fn list(&self, after: Option<TicketId>, limit: usize) -> Result<Vec<Held>, LobbyError>;

    /// Says that these are still wanted. Returns those that are not there, in the order given.
    async fn touch(&self, tickets: &[TicketId]) -> Result<Vec<TicketId>, LobbyError>;

    /// Whether it can be written to right now.
    async fn healthy(&self) -> Result<(), LobbyError>;
}

/// Every ticket there is, by id: what a server reads at its start. Those that come or go meanwhile may be missing.
///
/// # Errors
/// Those of [`Lobby::list`].
pub async fn load(lobby: &(impl Lobby + ?Sized)) -> Result<Vec<Held>, LobbyError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = lobby.list(after, MAX_LISTED).await?;
        let Some(last) = page.last() else {
            return Ok(all);
        };
        after = Some(last.ticket.id);
        all.extend(page);
    }
}

/// The matches that were being started, each with its tickets by id: after a restart each is settled or given back.
#[must_use]
pub fn forming(held: &[Held]) -> BTreeMap<SessionId, Vec<TicketId>> {
    let mut matches: BTreeMap<SessionId, Vec<TicketId>> = BTreeMap::new();
    for h in held {
        if let State::Forming(session) = h.state {
            matches.entry(session).or_default().push(h.ticket.id);
        }
    }
    matches
}
