//! What can happen to a session, what must be done about it, and what is told to those who listen.

use std::time::Duration;

use super::{Exit, Phase, Session};
use crate::id::{Generation, InstanceId, PlayerId};
use crate::lifecycle::{EndedBy, Reason};
use crate::{Code, Moment};

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An instance holds this session's place in the queue; it is not running yet.
    Gated(InstanceId),
    /// An instance was bound to it (a cold start begun, or a warm one claimed). When this is rejected the instance belongs to
    /// nobody: whoever offered it stops it.
    Granted {
        /// Which.
        instance: InstanceId,
        /// For which incarnation.
        generation: Generation,
    },
    /// The instance accepts players.
    Accepting(Generation),
    /// The instance is over.
    Exited(Generation, Exit),
    /// No instance could be had, and trying again would not help.
    CannotStart(Code),
    /// A player was put on the roster.
    Join(PlayerId),
    /// A player was taken off the roster (left or kicked).
    Leave(PlayerId),
    /// Open connections of a player through gateways, as counted now. None of somebody who had none: they came and left since.
    Connections(PlayerId, u32),
    /// Nobody can say who is connected (a restart, a lost gateway).
    SightLost,
    /// The gateways have reported in full.
    SightRegained,
    /// Data passed, last at this moment. `None`: from the server's side (counts under the rule `any`).
    Data(Option<PlayerId>, Moment),
    /// A heartbeat.
    Heartbeat(Heartbeat),
    /// Push the absolute deadline to this moment; `raise` lifts the limit first.
    Extend {
        /// The wanted deadline.
        to: Moment,
        /// Only backends may.
        raise: bool,
    },
    /// Somebody or something ends it.
    End {
        /// Why.
        reason: Reason,
        /// Who.
        by: EndedBy,
    },
    /// Look at the deadlines. `hold` keeps back culls for `idle`, `empty` and `never_joined` (late tick, mass-end brake) and
    /// nothing else.
    Tick {
        /// See above.
        hold: bool,
    },
    /// The match record is written and the instance forgotten.
    Recorded,
}

macro_rules! names {
    ($($pattern:pat => $name:literal,)*) => {
        impl Event {
            /// The names of all events. A new variant does not compile without one, and the exhaustive table fails without
            /// scenarios for each name.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// Its name, for logs and documents.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $($pattern => $name,)* }
            }
        }
    };
}

names! {
    Self::Gated(_) => "gated",
    Self::Granted { .. } => "granted",
    Self::Accepting(_) => "accepting",
    Self::Exited(..) => "exited",
    Self::CannotStart(_) => "cannot_start",
    Self::Join(_) => "join",
    Self::Leave(_) => "leave",
    Self::Connections(..) => "connections",
    Self::SightLost => "sight_lost",
    Self::SightRegained => "sight_regained",
    Self::Data(..) => "data",
    Self::Heartbeat(_) => "heartbeat",
    Self::Extend { .. } => "extend",
    Self::End { .. } => "end",
    Self::Tick { .. } => "tick",
    Self::Recorded => "recorded",
}

/// A heartbeat as the decisions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The player it speaks for; `None` when the game or a backend speaks for the session.
    pub player: Option<PlayerId>,
    /// What it says.
    pub status: Status,
    /// Time since the last activity.
    pub idle: Duration,
    /// How long `busy` (or, in direct modes, presence) is believed; by default three heartbeat periods, at most
    /// [`MAX_HEARTBEAT_TTL`](crate::limits::MAX_HEARTBEAT_TTL).
    pub ttl: Option<Duration>,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Doing something; the last of it `idle` ago.
    Active,
    /// There, perhaps, but not playing.
    Inactive,
    /// Nobody types, yet work is being done.
    Busy,
}

/// What the one writer must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the durable facts (deadlines, generation, roster, end reason) to the instance before anything after this.
    Save,
    /// Find an instance for this incarnation, not before the given moment.
    Acquire {
        /// For which incarnation.
        generation: Generation,
        /// Start the same instance again instead of another.
        in_place: bool,
        /// Back-off.
        not_before: Moment,
    },
    /// Stop an instance (SIGTERM, grace, SIGKILL).
    Stop(InstanceId),
    /// Write the match record, then forget the instance, then say [`Event::Recorded`].
    Record,
    /// Tell whoever listens.
    Announce(Notice),
}

/// What listeners are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The phase changed to this.
    Phase(Phase),
    /// A player connected who was not connected before.
    PlayerJoined(PlayerId),
    /// A player left the roster, their last connection closed, or (direct modes) their lease ran out.
    PlayerLeft(PlayerId),
    /// A cull is near.
    Warning {
        /// For what.
        reason: Reason,
        /// When.
        cull_at: Moment,
    },
    /// Another instance takes over: reconnect.
    Replaced(Generation),
    /// It is over.
    Ended(Reason),
}

/// The outcome of an accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state after it.
    pub next: Session,
    /// What must be done, in order.
    pub effects: Vec<Effect>,
    /// Why, in words.
    pub because: &'static str,
}

/// An event that changes nothing, and why. Most are harmless echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{because}")]
pub struct Rejected {
    /// Why, in words.
    pub because: &'static str,
    /// The code for a caller, if a caller asked.
    pub code: Option<Code>,
}
