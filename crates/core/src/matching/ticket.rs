//! A ticket: the players who wait together, and what they said when they came.

use std::collections::BTreeMap;

use crate::id::{FleetName, PlayerId, TicketId};

/// What a ticket says of itself under some name, for rules to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A finite number: skill, level.
    Number(f64),
    /// A word: mode, map.
    Text(String),
}

/// A player or party that waits for a match.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// Which.
    pub id: TicketId,
    /// The queue it waits in. Queues are named like fleets, and after their fleet unless they are named.
    pub queue: FleetName,
    /// Who waits together, in the order they were named; at least one, each once.
    pub players: Vec<PlayerId>,
    /// What it said of itself.
    pub attributes: BTreeMap<String, Attribute>,
    /// Milliseconds to each region it can play in. Empty: any.
    pub latencies: BTreeMap<String, u32>,
    /// When it joined, Unix milliseconds by the wall clock. Stays when a match of it fails.
    pub joined_at: i64,
    /// Matches of it that failed to start.
    pub failures: u32,
    /// The caller that joined it, as the server names callers: only they may do something with it.
    pub caller: Option<String>,
}
