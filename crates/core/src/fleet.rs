//! How many instances a fleet should have: [`plan`], a pure function of what is wanted and what is seen.

use std::time::Duration;

use crate::Moment;
use crate::id::InstanceId;
use crate::time::Known;

/// What the fleet's owner asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Unclaimed instances to keep ready; 0 starts each session cold.
    pub warm: u32,
    /// Warm instances older than this are renewed; `None` keeps them.
    pub max_age: Option<Duration>,
    /// Most instances of any kind; `None` is unlimited.
    pub max_instances: Option<u32>,
    /// Names the template that new instances are started from. A warm one of another template is stale.
    pub template: u64,
}

/// One unclaimed instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// Which.
    pub id: InstanceId,
    /// Whether it accepts.
    pub ready: bool,
    /// When it was started.
    pub started_at: Moment,
    /// The template it was started from.
    pub template: u64,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Unclaimed instances that are running or starting and not being stopped.
    pub warm: Vec<Warm>,
    /// Instances bound to sessions, starting ones included.
    pub claimed: u32,
    /// Instances being stopped: they still hold a place.
    pub stopping: u32,
    /// Sessions that wait for a place.
    pub queued: u32,
}

/// Starts that were ordered and are not in [`Pool`] yet. Counting them keeps a stale view from starting too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Ordered warm starts.
    pub warm: u32,
    /// Ordered starts for sessions.
    pub claimed: u32,
}

/// The breaker on a template that keeps failing to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Warm starts that failed in a row.
    pub in_a_row: u32,
    /// The last of them.
    pub last: Option<Moment>,
}

/// Failed starts in a row that open the breaker.
pub const BREAKER_OPENS_AT: u32 = 3;
/// The first hold of an open breaker; doubles with each further failure.
pub const BREAKER_FIRST_HOLD: Duration = Duration::from_secs(5);
/// The longest hold.
pub const BREAKER_LONGEST_HOLD: Duration = Duration::from_secs(300);

impl Failures {
    /// Until when nothing is started on speculation.
    #[must_use]
    pub fn held_until(&self) -> Option<Moment> {
        let last = self.last?;
        let over = self.in_a_row.checked_sub(BREAKER_OPENS_AT)?;
        let hold = BREAKER_FIRST_HOLD
            .saturating_mul(1 << over.min(10))
            .min(BREAKER_LONGEST_HOLD);
        Some(last.after(hold))
    }

    /// Whether the fleet is degraded now.
    #[must_use]
    pub fn degraded(&self, now: Moment) -> bool {
        self.held_until().is_some_and(|u| now < u)
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Waiting sessions that get a place now, oldest first.
    pub admit: u32,
    /// Warm instances to start.
    pub start: u32,
    /// Warm instances to stop.
    pub stop: Vec<InstanceId>,
    /// When to look again even if nothing happens.
    pub recheck_after: Option<Duration>,
    /// Why, in words with numbers.
    pub because: String,
}

impl Plan {
    fn nothing(because: impl Into<String>, recheck_after: Option<Duration>) -> Self {
        Self {
            admit: 0,
            start: 0,
            stop: Vec::new(),
            recheck_after,
            because: because.into(),
        }
    }
}

/// Plans a fleet's pool.
///
/// Waiting sessions come before warm instances; a claimed instance is never touched; a stale or old warm instance is stopped only
/// once enough good ones accept, so that a bad template never replaces good ones. An unknown view plans nothing.
#[must_use]
pub fn plan(
    spec: &PoolSpec,
    seen: &Known<Pool>,
    in_flight: InFlight,
    failures: Failures,
    now: Moment,
) -> Plan {
    let pool = match seen {
        Known::Is(pool) => pool,
        Known::Unknown { since } => {
            return Plan::nothing(
                format!(
                    "nothing can be seen since {} ms ago: neither starting nor stopping",
                    now.since(*since).as_millis()
                ),
                Some(Duration::from_secs(1)),
            );
        }
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let warm_all = count(pool.warm.len());
    let total = warm_all + pool.claimed + pool.stopping + in_flight.warm + in_flight.claimed;
    let mut room = spec
        .max_instances
        .map_or(u32::MAX, |max| max.saturating_sub(total));
    let mut because = Vec::new();
    let mut stop = Vec::new();

    // A ready warm instance is a place for a waiting session as well; the claim takes it without this plan's help.
    let ready = count(pool.warm.iter().filter(|w| w.ready).count());
    let admit = pool.queued.min(room.saturating_add(ready));
    room -= admit.saturating_sub(ready).min(room);
    if admit > 0 {
        because.push(format!("{admit} of {} waiting get a place", pool.queued));
    } else if pool.queued > 0 {
        because.push(format!(
            "{} wait: {total} of {} instances in use",
            pool.queued,
            spec.max_instances.unwrap_or(u32::MAX)
        ));
        // Starting (not yet accepting) warm instances of a full fleet make room for those who wait.
        let starting = pool.warm.iter().filter(|w| !w.ready).map(|w| w.id);
        stop.extend(starting.take(pool.queued as usize));
    }

    let fresh = |w: &&Warm| w.template == spec.template && !is_old(spec, w, now);
    let good: Vec<&Warm> = pool
        .warm
        .iter()
        .filter(fresh)
        .filter(|w| !stop.contains(&w.id))
        .collect();
    let good_ready = count(good.iter().filter(|w| w.ready).count());
    let have = count(good.len()) + in_flight.warm;
    let mut start = 0;
    if have < spec.warm && pool.queued == 0 {
        let missing = spec.warm - have;
        start = missing.min(room);
        because.push(format!("{have} of {} warm", spec.warm));
        if start < missing {
            because.push(format!("room for {start} of {missing}"));
        }
    }
    let bad: Vec<InstanceId> = pool
        .warm
        .iter()
        .filter(|w| !fresh(w))
        .map(|w| w.id)
        .collect();
    if !bad.is_empty() {
        // Replace one for one: each good one that accepts lets one bad one go; all go when the pool is good.
        let keep = spec.warm.saturating_sub(good_ready) as usize;
        let go = bad.len().saturating_sub(keep);
        // At the maximum there is no room for a good one beside the bad: one goes first to make it.
        let go = if go == 0 && room == 0 && start == 0 && have < spec.warm {
            1
        } else {
            go
        };
        if go > 0 {
            because.push(format!("{go} of {} stale or too old go", bad.len()));
            stop.extend(bad.into_iter().take(go));
        }
    }
    if have > spec.warm {
        let mut spare: Vec<&Warm> = good;
        // Those that do not accept yet go first, then the oldest.
        spare.sort_by_key(|w| (w.ready, w.started_at, w.id));
        let excess = (have - spec.warm) as usize;
        because.push(format!("{excess} more than {} warm", spec.warm));
        stop.extend(spare.into_iter().take(excess).map(|w| w.id));
    }

    let mut recheck_after = next_age(spec, pool, now);
    if let Some(until) = failures.held_until().filter(|u| now < *u)
        && start > 0
    {
        start = 0;
        recheck_after = Some(recheck_after.map_or(until.since(now), |r| r.min(until.since(now))));
        because.push(format!(
            "{} starts failed in a row: held for {} s",
            failures.in_a_row,
            until.since(now).as_secs()
        ));
    }
    if because.is_empty() {
        because.push(format!(
            "{have} of {} warm, {} claimed: as wanted",
            spec.warm, pool.claimed
        ));
    }
    Plan {
        admit,
        start,
        stop,
        recheck_after,
        because: because.join("; "),
    }
}

fn is_old(spec: &PoolSpec, w: &Warm, now: Moment) -> bool {
    spec.max_age
        .is_some_and(|age| now.since(w.started_at) >= age)
}

fn next_age(spec: &PoolSpec, pool: &Pool, now: Moment) -> Option<Duration> {
    let age = spec.max_age?;
    pool.warm
        .iter()
        .map(|w| w.started_at.after(age))
        .filter(|t| *t > now)
        .min()
        .map(|t| t.since(now))
}
