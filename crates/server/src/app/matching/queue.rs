//! One queue: its line, what it has done and when it is worth a look.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::matching::{Attribute, Candidate, Region, Ticket};
use spawnpoint_core::{Moment, SessionId};

use super::line::Line;
use super::pace::Pace;
use crate::config::QueueConfig;

/// The attribute that a queue's skill limit looks at.
pub(crate) const SKILL: &str = "skill";

/// Why a match was formed.
#[derive(Clone, Debug)]
pub(crate) struct LastMatch {
    pub(crate) at: Moment,
    pub(crate) session: SessionId,
    pub(crate) players: u32,
    pub(crate) because: String,
}

/// One queue.
pub(crate) struct Queue {
    pub(crate) config: Arc<QueueConfig>,
    pub(super) line: Line,
    /// Players of those who stand in line.
    pub(super) players: usize,
    pub(super) forming: usize,
    /// All tickets, those that join and form too.
    pub(super) tickets: usize,
    pub(crate) pace: Pace,
    pub(crate) last: Option<LastMatch>,
    /// Somebody came, came back or the rules are others: it must be looked at.
    pub(super) changed: bool,
    /// When time alone makes it worth a look.
    pub(super) due: Option<Moment>,
    /// The last look found matches.
    pub(super) found: bool,
}

impl Queue {
    pub(super) fn new(config: Arc<QueueConfig>) -> Self {
        Self {
            config,
            line: Line::default(),
            players: 0,
            forming: 0,
            tickets: 0,
            pace: Pace::default(),
            last: None,
            changed: false,
            due: None,
            found: false,
        }
    }
}

/// A queue as it is shown.
pub(crate) struct QueueNow<'q> {
    pub(crate) queue: &'q Queue,
    pub(crate) tickets: usize,
    pub(crate) players: usize,
    pub(crate) forming: usize,
    pub(crate) oldest: Option<Duration>,
}

/// Those who may be matched now.
pub(super) struct Candidates {
    pub(super) queue: Arc<QueueConfig>,
    /// Oldest first.
    pub(super) all: Vec<Arc<Candidate>>,
    /// When somebody who is held comes in.
    pub(super) held: Option<Moment>,
}

/// A ticket as the rules see it.
pub(super) fn candidate(ticket: &Ticket, queue: &QueueConfig, since: Moment) -> Candidate {
    let number = |name: &String| {
        let at = queue.regions.iter().position(|r| r == name)?;
        Region::new(u8::try_from(at).ok()?)
    };
    Candidate {
        id: ticket.id,
        players: u32::try_from(ticket.players.len()).unwrap_or(u32::MAX),
        skill: match ticket.attributes.get(SKILL) {
            Some(Attribute::Number(n)) => Some(*n),
            _ => None,
        },
        latencies: ticket
            .latencies
            .iter()
            .filter_map(|(name, ms)| Some((number(name)?, *ms)))
            .collect(),
        since,
    }
}
