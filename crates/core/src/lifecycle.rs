//! When a session is over: the numbers of a policy, the deadline they give, and what holds deadlines back.
//!
//! All of it is arithmetic on a [`Session`]; the one writer asks and acts.

use std::time::Duration;

use crate::limits::{BRAKE_MIN, BRAKE_PERCENT, LATE_TICK};
use crate::session::{Phase, Session};
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

/// The earliest deadline of a session, if it has any. Ties go to the maximum, then to the order below.
#[must_use]
pub fn cull(s: &Session) -> Option<Cull> {
    let mut first: Option<Cull> = None;
    let mut consider = |at: Option<Moment>, reason, code, rule| {
        if let Some(at) = at
            && first.is_none_or(|f| at < f.at)
        {
            first = Some(Cull {
                at,
                reason,
                code,
                rule,
            });
        }
    };
    let p = &s.policy;
    if matches!(s.phase, Phase::Ending | Phase::Ended) {
        return None;
    }
    if let (Some(at), Some(max)) = (s.max_at, p.max) {
        consider(Some(at), Reason::MaxDuration, None, max);
    }
    match s.phase {
        Phase::Queued => consider(
            Some(s.queue_deadline),
            Reason::StartFailed,
            Some(Code::Capacity),
            p.queue,
        ),
        Phase::Starting | Phase::Replacing => {
            consider(
                s.start_deadline,
                Reason::StartFailed,
                Some(Code::StartFailed),
                p.boot,
            );
        }
        Phase::Ready => {
            if let (Some(ready), Some(join)) = (s.ready_at, p.join) {
                let at = ready.after(join).max(s.busy_until.unwrap_or(ready));
                consider(Some(at), Reason::NeverJoined, None, join);
            }
        }
        Phase::Running => {
            consider(empty_at(s), Reason::Empty, None, p.reconnect);
            if let Some(idle) = p.idle {
                consider(idle_at(s, idle), Reason::Idle, None, idle);
            }
        }
        Phase::Ending | Phase::Ended => {}
    }
    first
}

/// When the reconnect grace runs out; `None` while somebody is there or while nobody can say.
fn empty_at(s: &Session) -> Option<Moment> {
    if matches!(s.sight, Known::Unknown { .. }) && s.policy.sight == Sight::Gateway {
        return None;
    }
    let mut last_left: Option<Moment> = None;
    for p in &s.roster {
        match s.policy.sight {
            Sight::Gateway if p.connections > 0 => return None,
            Sight::Gateway => last_left = last_left.max(p.gone_since),
            Sight::Direct => last_left = last_left.max(p.lease_until),
        }
    }
    let left = last_left.max(s.emptied_at)?;
    Some(
        left.after(s.policy.reconnect)
            .max(s.busy_until.unwrap_or(left)),
    )
}

/// When the idle timeout runs out. What was not seen is counted as activity at the last moment it could have happened, so an
/// unknown is never a cull too early.
fn idle_at(s: &Session, idle: Duration) -> Option<Moment> {
    let mut last = s.last_activity();
    if let Known::Unknown { since } = s.sight {
        last = last.max(Some(since));
    }
    let last = last.or(s.ready_at)?;
    Some(last.after(idle).max(s.busy_until.unwrap_or(last)))
}

/// Whether the mass-end brake holds: more than the set share of live sessions would end within the window for a reason that is
/// neither their own maximum nor somebody's explicit wish. `ending` counts those, `live` all live sessions.
#[must_use]
pub fn brake_holds(live: usize, ending: usize) -> bool {
    ending >= BRAKE_MIN && ending * 100 > live * BRAKE_PERCENT
}

/// Whether a cull for this reason counts towards the brake (and is held by it).
#[must_use]
pub const fn brake_applies(reason: Reason) -> bool {
    matches!(reason, Reason::Idle | Reason::Empty | Reason::NeverJoined)
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
    fn brake_needs_both_a_share_and_a_number() {
        assert!(!brake_holds(4, 4), "four friends going home");
        assert!(brake_holds(5, 5));
        assert!(brake_holds(24, 5));
        assert!(!brake_holds(25, 5), "exactly a fifth passes");
        assert!(!brake_holds(1000, 200));
        assert!(brake_holds(1000, 201));
        assert!(!brake_holds(0, 0));
    }

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
