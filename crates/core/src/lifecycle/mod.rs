//! When a session is over: the numbers of a policy, the deadline they give, and what holds deadlines back.
//!
//! All of it is arithmetic on a [`Session`]; the one writer asks and acts.

mod brake;

use std::time::Duration;

pub use brake::{Brake, Verdict, brake_applies, brake_counts, brake_holds, late_tick_applies};

use crate::limits::LATE_TICK;
use crate::session::{FOREVER, Phase, Player, Session};
use crate::time::Known;
use crate::{Code, Moment};

/// Why a session ended. First reason wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Nobody did anything for the idle timeout.
    Idle,
    /// It reached its maximum.
    MaxDuration,
    /// Everybody left and nobody came back within the reconnect grace.
    Empty,
    /// It was ready and nobody ever came.
    NeverJoined,
    /// A player, backend or operator ended it.
    EndedByClient,
    /// The game server exited 0 or said so.
    EndedByServer,
    /// The game server crashed and its policy gave up.
    Crashed,
    /// It never became ready.
    StartFailed,
    /// The machine or node under it went away.
    Evicted,
    /// A quota was enforced.
    Quota,
    /// Spawnpoint was told to stop and end its games.
    Shutdown,
}

impl Reason {
    /// All of them, for documents and tests.
    pub const ALL: [Self; 11] = [
        Self::Idle,
        Self::MaxDuration,
        Self::Empty,
        Self::NeverJoined,
        Self::EndedByClient,
        Self::EndedByServer,
        Self::Crashed,
        Self::StartFailed,
        Self::Evicted,
        Self::Quota,
        Self::Shutdown,
    ];

    /// The stable spelling, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::MaxDuration => "max_duration",
            Self::Empty => "empty",
            Self::NeverJoined => "never_joined",
            Self::EndedByClient => "ended_by_client",
            Self::EndedByServer => "ended_by_server",
            Self::Crashed => "crashed",
            Self::StartFailed => "start_failed",
            Self::Evicted => "evicted",
            Self::Quota => "quota",
            Self::Shutdown => "shutdown",
        }
    }

    /// What it means, in a sentence for people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Idle => "Nobody did anything for the idle timeout.",
            Self::MaxDuration => "It reached its maximum.",
            Self::Empty => "Everybody left and nobody came back within the reconnect grace.",
            Self::NeverJoined => "It was ready and nobody came within the join timeout.",
            Self::EndedByClient => "A player, a backend or an operator ended it.",
            Self::EndedByServer => "The game server exited 0 or said that the game is over.",
            Self::Crashed => "The game server crashed and the fleet's policy gave up.",
            Self::StartFailed => "It never became ready.",
            Self::Evicted => "The machine or node under it went away.",
            Self::Quota => "A quota was enforced.",
            Self::Shutdown => "Spawnpoint was told to stop and to end its games.",
        }
    }

    /// The reason with this spelling.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == s)
    }
}

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// One of its players.
    Player,
    /// A backend key.
    Backend,
    /// A person at the admin listener or command line.
    Operator,
    /// The game server itself.
    Server,
    /// Spawnpoint, by a rule.
    System,
}

impl EndedBy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Player,
        Self::Backend,
        Self::Operator,
        Self::Server,
        Self::System,
    ];

    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Player => "player",
            Self::Backend => "backend",
            Self::Operator => "operator",
            Self::Server => "server",
            Self::System => "system",
        }
    }

    /// The value with this spelling.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == s)
    }
}

/// What counts as a player doing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityRule {
    /// Data frames or bytes from client to server. Pings and what the server streams never count.
    ClientData,
    /// Data in either direction.
    Any,
    /// Heartbeats only.
    Heartbeat,
}

/// What happens when the instance dies under its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// A new instance takes over: same session id, URL and tokens, generation + 1.
    Replace,
    /// The same instance starts again in its place (process runtime), generation + 1.
    Restart,
    /// The session ends.
    End,
}

/// Whose call ends a session for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRule {
    /// The owner's (or the last player's).
    Owner,
    /// Any player's.
    Any,
    /// Only when all players have called.
    All,
}

/// Who may join somebody's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joinable {
    /// Anyone with the session id.
    Open,
    /// Anyone with the invite code.
    Invite,
    /// Nobody but those it was made for.
    Closed,
}

/// How players' presence is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A gateway carries every connection.
    Gateway,
    /// A gateway carries every request, and nobody holds a connection between two: whoever asked for something is there until they
    /// have done nothing for the idle timeout.
    Requests,
    /// Players connect directly: heartbeats and the SDK are all there is, and each is a lease.
    Direct,
}

/// The lifecycle numbers of one session. `None` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often clients are asked to send a heartbeat.
    pub heartbeat: Duration,
    /// Without activity for this long the session is idle.
    pub idle: Option<Duration>,
    /// First absolute deadline, from when an instance was granted.
    pub max: Option<Duration>,
    /// Nothing extends past this, from the same moment.
    pub max_limit: Option<Duration>,
    /// Longest wait for capacity.
    pub queue: Duration,
    /// Longest start, from grant to ready.
    pub boot: Duration,
    /// Ready and nobody ever came.
    pub join: Option<Duration>,
    /// After the last player left.
    pub reconnect: Duration,
    /// How long before a cull its warnings go out, longest first.
    pub warnings: Vec<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// See [`ActivityRule`].
    pub activity: ActivityRule,
    /// See [`OnCrash`].
    pub on_crash: OnCrash,
    /// See [`EndRule`].
    pub end_by: EndRule,
    /// See [`Joinable`].
    pub joinable: Joinable,
    /// See [`Sight`].
    pub sight: Sight,
    /// Most players on the roster.
    pub max_players: usize,
}

impl Default for Policy {
    /// The documented defaults (PRODUCT 4).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            idle: Some(Duration::from_secs(300)),
            max: Some(Duration::from_secs(1800)),
            max_limit: Some(Duration::from_secs(1800)),
            queue: crate::limits::QUEUE_DEADLINE,
            boot: Duration::from_secs(45),
            join: Some(Duration::from_secs(60)),
            reconnect: Duration::from_secs(30),
            warnings: vec![Duration::from_secs(60), Duration::from_secs(10)],
            grace: Duration::from_secs(10),
            activity: ActivityRule::ClientData,
            on_crash: OnCrash::Replace,
            end_by: EndRule::Owner,
            joinable: Joinable::Invite,
            sight: Sight::Gateway,
            max_players: crate::limits::MAX_PLAYERS,
        }
    }
}

/// A deadline and what it would end the session for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cull {
    /// When.
    pub at: Moment,
    /// For what.
    pub reason: Reason,
    /// The narrower code where the reason has several causes (`start_failed` for want of capacity).
    pub code: Option<Code>,
    /// How long the rule is that set it; a warning longer than its rule would fire at once and says nothing.
    pub rule: Duration,
}

/// Deadlines nearer to one another than this are the same one: a heartbeat's `idleTime` comes with the network's jitter, and a
/// deadline that moved by milliseconds is not news.
pub const SAME_DEADLINE: Duration = Duration::from_secs(1);

/// The earliest deadline of a session, if it has any. Ties go to the maximum, then to the order of [`deadlines`].
#[must_use]
pub fn cull(s: &Session) -> Option<Cull> {
    deadlines(s).min_by_key(|c| c.at)
}

/// All deadlines that run: its maximum, then those of its phase.
pub fn deadlines(s: &Session) -> impl Iterator<Item = Cull> {
    let of_phase = match s.phase {
        Phase::Queued => [Some(queue_deadline(s)), None],
        Phase::Starting | Phase::Replacing => [start_deadline(s), None],
        // Unseen, somebody may have come through a gateway that cannot tell us: only what is true of a running session counts.
        Phase::Ready if s.unseen() => [None, idle_deadline(s)],
        Phase::Ready => [never_joined_deadline(s), None],
        Phase::Running => [empty_deadline(s), idle_deadline(s)],
        Phase::Ending | Phase::Ended => [None, None],
    };
    let max = s.max_at.filter(|_| s.phase.is_live()).map(|at| Cull {
        at,
        reason: Reason::MaxDuration,
        code: None,
        rule: at.since(s.granted_at.unwrap_or(s.created_at)),
    });
    [max].into_iter().chain(of_phase).flatten()
}

/// What it is called when a session gets no instance (any more): it never started, or it crashed.
pub(crate) fn failure(s: &Session) -> Reason {
    match s.first_ready_at {
        Some(_) => Reason::Crashed,
        None => Reason::StartFailed,
    }
}

fn queue_deadline(s: &Session) -> Cull {
    Cull {
        at: s.queue_deadline,
        reason: Reason::StartFailed,
        code: Some(Code::Capacity),
        rule: s.policy.queue,
    }
}

fn start_deadline(s: &Session) -> Option<Cull> {
    Some(Cull {
        at: s.start_deadline?,
        reason: failure(s),
        code: Some(Code::StartFailed),
        rule: s.policy.boot,
    })
}

/// The join timeout, from when the instance accepts, and for whoever is put on the roster later from then. `busy` defers it. `None` while
/// nobody can say whether they came.
fn never_joined_deadline(s: &Session) -> Option<Cull> {
    let rule = s.policy.join.filter(|_| !s.unseen())?;
    let mut from = s.ready_at?;
    if let Known::Unknown { since } = s.sight {
        from = from.max(since);
    }
    for p in &s.roster {
        from = from.max(p.joined_at).max(p.gone_since.unwrap_or(from));
    }
    Some(Cull {
        at: deferred(s, from.after(rule)),
        reason: Reason::NeverJoined,
        code: None,
        rule,
    })
}

/// When the reconnect grace runs out; `None` while somebody is there or while nobody can say.
fn empty_deadline(s: &Session) -> Option<Cull> {
    let stays = |p: &Player| p.connections > 0 || p.lease_until == Some(FOREVER);
    if s.unseen() || s.roster.iter().any(stays) {
        return None;
    }
    let last_there = |p: &Player| match s.policy.sight {
        Sight::Gateway => p.gone_since.unwrap_or(p.joined_at),
        Sight::Requests => p.lease_until.max(p.gone_since).unwrap_or(p.joined_at),
        // A lease says in advance until when somebody is there; without one they never came.
        Sight::Direct => p.lease_until.unwrap_or(p.joined_at),
    };
    let mut left = s.roster.iter().map(last_there).max().max(s.emptied_at)?;
    if let Known::Unknown { since } = s.sight {
        // Direct modes, after a restart: everybody may have been there and has three heartbeats to say so again.
        left = left.max(since.after(s.policy.heartbeat.saturating_mul(3)));
    }
    Some(Cull {
        at: deferred(s, left.after(s.policy.reconnect)),
        reason: Reason::Empty,
        code: None,
        rule: s.policy.reconnect,
    })
}

/// When the idle timeout runs out; `None` while nobody can say what the players do. Once it is known again, what was not seen counts as
/// activity at the last moment it was seen.
fn idle_deadline(s: &Session) -> Option<Cull> {
    let rule = s.policy.idle.filter(|_| !s.unseen())?;
    let mut last = s.last_activity().max(s.first_joined_at).or(s.ready_at);
    if let Known::Unknown { since } = s.sight {
        last = last.max(Some(since));
    }
    Some(Cull {
        at: deferred(s, last?.after(rule)),
        reason: Reason::Idle,
        code: None,
        rule,
    })
}

/// A quiet worker is alive: nothing but the maximum ends it before its word runs out.
fn deferred(s: &Session, at: Moment) -> Moment {
    s.busy_until.map_or(at, |busy| at.max(busy))
}

impl Session {
    /// Whether players come through gateways whose view is unknown.
    fn unseen(&self) -> bool {
        self.policy.sight != Sight::Direct && matches!(self.sight, Known::Unknown { .. })
    }
}

/// After a tick that came too late (the machine slept, the process was stopped) culls hold for one heartbeat period, so that
/// players can say that they are still there. Returns until when.
#[must_use]
pub fn hold_after(expected: Moment, now: Moment, heartbeat: Duration) -> Option<Moment> {
    (now.since(expected) > LATE_TICK).then(|| now.after(heartbeat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_late_tick_holds() {
        let hb = Duration::from_secs(5);
        assert_eq!(hold_after(Moment(0), Moment(5_000), hb), None);
        assert_eq!(
            hold_after(Moment(0), Moment(5_001), hb),
            Some(Moment(10_001))
        );
        assert_eq!(hold_after(Moment(10), Moment(0), hb), None);
    }

    #[test]
    fn reasons_and_actors_round_trip() {
        for r in Reason::ALL {
            assert_eq!(Reason::parse(r.as_str()), Some(r));
        }
        for b in EndedBy::ALL {
            assert_eq!(EndedBy::parse(b.as_str()), Some(b));
        }
        assert_eq!(Reason::parse("nonsense"), None);
    }
}
