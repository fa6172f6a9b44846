//! One session: its state, and [`step`], the only thing that changes its phase.

mod deadline;
mod event;
mod presence;
mod step;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

pub use event::{Effect, Event, Heartbeat, Notice, Rejected, Status, Step};
pub use step::step;

use crate::id::{FleetName, Generation, InstanceId, PlayerId, SessionId};
use crate::lifecycle::{EndRule, EndedBy, Policy, Reason};
use crate::time::Known;
use crate::{Code, Moment};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for capacity.
    Queued,
    /// Has an instance that does not accept yet.
    Starting,
    /// The instance accepts; nobody has come yet.
    Ready,
    /// Somebody has played.
    Running,
    /// The instance died and another takes over.
    Replacing,
    /// The reason is fixed; the instance is being stopped and the record written.
    Ending,
    /// The record is written, nothing is left.
    Ended,
}

impl Phase {
    /// All, in the order of a life.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Starting,
        Self::Ready,
        Self::Running,
        Self::Replacing,
        Self::Ending,
        Self::Ended,
    ];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Replacing => "replacing",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }

    /// What it means, in a sentence for people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Queued => "It waits for capacity.",
            Self::Starting => "It has an instance that does not accept yet.",
            Self::Ready => "The instance accepts; nobody has come yet.",
            Self::Running => "Somebody has played.",
            Self::Replacing => "The instance died and another takes over.",
            Self::Ending => {
                "The reason is fixed; the instance is being stopped and the record written."
            }
            Self::Ended => "The record is written, nothing is left.",
        }
    }

    /// The phase with this spelling.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == s)
    }

    /// Whether players may still come.
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Ending | Self::Ended)
    }

    /// Whether the game accepts connections.
    #[must_use]
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Ready | Self::Running)
    }
}

/// How an instance came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code of the process, if it exited by itself.
    pub code: Option<i32>,
    /// Signal that killed it.
    pub signal: Option<i32>,
    /// The memory limit killed it.
    pub oom: bool,
    /// It never ran (bad command, stopped while gated).
    pub never_ran: bool,
    /// The supervisor of the process vanished with it: the code is lost, and that is a crash.
    pub lost: bool,
    /// When it was over.
    pub at: Moment,
}

impl Exit {
    /// An exit by itself with this code.
    #[must_use]
    pub const fn with_code(code: i32, at: Moment) -> Self {
        Self {
            code: Some(code),
            signal: None,
            oom: false,
            never_ran: false,
            lost: false,
            at,
        }
    }

    /// Over = exit 0. Anything else is a crash.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self.code, Some(0)) && !self.oom && !self.lost
    }
}

/// A lease that does not run out.
pub(crate) const FOREVER: Moment = Moment(i64::MAX);

/// One player on a session's roster, with what is known of their presence. Everything but `id` and `joined_at` is soft: rebuilt
/// from the gateways after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Player {
    /// Who.
    pub id: PlayerId,
    /// When they were put on the roster.
    pub joined_at: Moment,
    /// Open connections through gateways.
    pub connections: u32,
    /// Since when they have none, if they ever had one.
    pub gone_since: Option<Moment>,
    /// Where connections do not say it ([`Sight`](crate::lifecycle::Sight)): presence is believed until then.
    pub lease_until: Option<Moment>,
    /// Latest activity known.
    pub last_active: Option<Moment>,
    /// They said so; holds until their next data frame or another word.
    pub inactive: bool,
    /// When they last said so, whether or not it still holds: data from before does not contradict it.
    pub inactive_at: Option<Moment>,
}

impl Player {
    fn new(id: PlayerId, now: Moment) -> Self {
        Self {
            id,
            joined_at: now,
            connections: 0,
            gone_since: None,
            lease_until: None,
            last_active: None,
            inactive: false,
            inactive_at: None,
        }
    }

    /// Whether they are there at `now`: connected through a gateway, or on lease.
    #[must_use]
    pub fn is_present(&self, now: Moment) -> bool {
        self.connections > 0 || self.lease_until.is_some_and(|l| l > now)
    }
}

/// The end of a session, fixed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    /// By whom.
    pub by: EndedBy,
    /// The narrower code, where there is one.
    pub code: Option<Code>,
    /// When it ended (not when it was recorded).
    pub at: Moment,
}

/// The warning last sent, so that each is sent once per deadline. One is enough: no deadline that is warned of ever comes nearer, so
/// the first of them never is one that was first before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warned {
    /// The deadline it spoke of.
    pub cull_at: Moment,
    /// The shortest threshold already announced.
    pub threshold: Duration,
}

/// The whole state of one session as the decisions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The fleet it belongs to.
    pub fleet: FleetName,
    /// Changed by [`step`] only.
    pub phase: Phase,
    /// Which incarnation of the instance.
    pub generation: Generation,
    /// The instance that serves it (or holds its place in the queue); over when `exit` is there too.
    pub instance: Option<InstanceId>,
    /// Its numbers, fixed at creation.
    pub policy: Arc<Policy>,
    /// Who may end it for all; the earliest remaining player when that one leaves.
    pub owner: Option<PlayerId>,
    /// Players in order of joining.
    pub roster: Vec<Player>,
    /// When the call came.
    pub created_at: Moment,
    /// Waiting for capacity ends then.
    pub queue_deadline: Moment,
    /// When an instance was first granted.
    pub granted_at: Option<Moment>,
    /// The present start must be over by then.
    pub start_deadline: Option<Moment>,
    /// When the present instance accepted.
    pub ready_at: Option<Moment>,
    /// When any instance of it first accepted: from then on a failure is a crash and no failed start.
    pub first_ready_at: Option<Moment>,
    /// When the first player connected.
    pub first_joined_at: Option<Moment>,
    /// Absolute deadline.
    pub max_at: Option<Moment>,
    /// Nothing extends past this.
    pub max_limit_at: Option<Moment>,
    /// How often the deadline was pushed.
    pub extends: u32,
    /// Latest activity that belongs to no player on the roster: reported by the game or a backend, or of players who have left.
    pub server_active: Option<Moment>,
    /// A quiet worker is alive until then.
    pub busy_until: Option<Moment>,
    /// Somebody who has left the roster was last there then. Only when nobody else is there does the reconnect grace count from it.
    pub emptied_at: Option<Moment>,
    /// Whether the gateways' view is known. After a restart: unknown since the restart.
    pub sight: Known<()>,
    /// When instances crashed lately, oldest first.
    pub crashes: Vec<Moment>,
    /// See [`Warned`].
    pub warned: Option<Warned>,
    /// Fixed once; `Some` from [`Phase::Ending`] on.
    pub ending: Option<Ending>,
    /// How the last instance ended.
    pub exit: Option<Exit>,
}

impl Session {
    /// A session as it is when the call comes: queued, first generation, nobody connected.
    #[must_use]
    pub fn new(
        id: SessionId,
        fleet: FleetName,
        policy: Arc<Policy>,
        players: Vec<PlayerId>,
        now: Moment,
    ) -> Self {
        let queue_deadline = now.after(policy.queue);
        Self {
            id,
            fleet,
            phase: Phase::Queued,
            generation: Generation::FIRST,
            instance: None,
            policy,
            owner: players.first().cloned(),
            roster: players.into_iter().map(|p| Player::new(p, now)).collect(),
            created_at: now,
            queue_deadline,
            granted_at: None,
            start_deadline: None,
            ready_at: None,
            first_ready_at: None,
            first_joined_at: None,
            max_at: None,
            max_limit_at: None,
            extends: 0,
            server_active: None,
            busy_until: None,
            emptied_at: None,
            sight: Known::Is(()),
            crashes: Vec::new(),
            warned: None,
            ending: None,
            exit: None,
        }
    }

    /// The instance, while it is not over.
    #[must_use]
    pub fn live_instance(&self) -> Option<InstanceId> {
        self.instance.filter(|_| self.exit.is_none())
    }

    /// The roster entry of a player.
    #[must_use]
    pub fn player(&self, id: &PlayerId) -> Option<&Player> {
        self.roster.iter().find(|p| p.id == *id)
    }

    /// Players connected right now (through gateways) or on lease at `now` (direct).
    #[must_use]
    pub fn present(&self, now: Moment) -> usize {
        self.roster.iter().filter(|p| p.is_present(now)).count()
    }

    /// The latest activity anybody reported. A player's explicit `inactive` does not erase what they did before.
    #[must_use]
    pub fn last_activity(&self) -> Option<Moment> {
        self.roster
            .iter()
            .filter_map(|p| p.last_active)
            .max()
            .max(self.server_active)
    }

    /// What an end call means when this caller makes it.
    #[must_use]
    pub fn end_call(&self, caller: EndCaller<'_>) -> EndMeaning {
        match caller {
            EndCaller::Backend => EndMeaning::End(EndedBy::Backend),
            EndCaller::Operator => EndMeaning::End(EndedBy::Operator),
            EndCaller::Player(id) => match self.player(id) {
                None => EndMeaning::Stranger,
                Some(_) if self.roster.len() == 1 => EndMeaning::End(EndedBy::Player),
                Some(_) => match self.policy.end_by {
                    EndRule::Any => EndMeaning::End(EndedBy::Player),
                    EndRule::Owner if self.owner.as_ref() == Some(id) => {
                        EndMeaning::End(EndedBy::Player)
                    }
                    EndRule::Owner | EndRule::All => EndMeaning::Leave,
                },
            },
        }
    }
}

/// Who calls end.
#[derive(Clone, Copy, Debug)]
pub enum EndCaller<'a> {
    /// A backend key.
    Backend,
    /// The admin listener.
    Operator,
    /// A player by their own token.
    Player(&'a PlayerId),
}

/// What their call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMeaning {
    /// The session ends.
    End(EndedBy),
    /// That player leaves.
    Leave,
    /// They are not in it.
    Stranger,
}
