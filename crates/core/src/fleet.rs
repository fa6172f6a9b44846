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

/// The breaker on one template that keeps failing to start: fold each outcome in with [`failed`](Failures::failed) and
/// [`succeeded`](Failures::succeeded), begin anew with another template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Starts that failed in a row; those of one batch count once the breaker is open.
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

    /// After a start, begun at `started_at`, that failed at `now`. Once the breaker is open the rest of the batch that opened it
    /// says nothing new: fifty starts that fail together are not fifty reasons to wait longer.
    #[must_use]
    pub fn failed(self, started_at: Moment, now: Moment) -> Self {
        let same_batch =
            self.in_a_row >= BREAKER_OPENS_AT && self.last.is_some_and(|last| started_at <= last);
        if same_batch {
            return self;
        }
        Self {
            in_a_row: self.in_a_row.saturating_add(1),
            last: Some(now),
        }
    }

    /// After a start that became ready.
    #[must_use]
    pub fn succeeded(self) -> Self {
        Self::default()
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
    /// Waiting sessions that get a place now, oldest first. Those beyond the ready warm instances are started cold.
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

/// How often to look again while nothing can be seen.
const UNSEEN_RECHECK: Duration = Duration::from_secs(1);

/// Plans a fleet's pool.
///
/// * Waiting sessions come before warm instances: none is started while one waits.
/// * Never more than the maximum, whatever is starting, in flight or being stopped; lowered, it sheds warm ones.
/// * A claimed instance is never touched; there is no way to say so.
/// * A stale or old warm instance that accepts is stopped only once a good one accepts in its place, so that a bad template never
///   replaces good ones. At the maximum there is no room for both: then one goes first, never the last, never while a
///   replacement is on its way or starts fail.
/// * A template whose starts fail is tried one at a time, and after [`BREAKER_OPENS_AT`] with growing pauses.
/// * An unknown view plans nothing.
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
            let ago = now.since(*since).as_millis();
            return Plan {
                admit: 0,
                start: 0,
                stop: Vec::new(),
                recheck_after: Some(UNSEEN_RECHECK),
                because: format!(
                    "nothing has been seen for {ago} ms: neither starting nor stopping"
                ),
            };
        }
    };
    let sorted = Sorted::of(spec, pool, now);
    let total = count(pool.warm.len())
        .saturating_add(pool.claimed)
        .saturating_add(pool.stopping)
        .saturating_add(in_flight.warm)
        .saturating_add(in_flight.claimed);
    let room = spec
        .max_instances
        .map_or(u32::MAX, |max| max.saturating_sub(total));
    let mut because = Vec::new();

    // A ready warm instance is a place as well; the claim takes it without this plan's help.
    let ready = count(sorted.good_ready.len() + sorted.stale_ready.len());
    let admit = pool.queued.min(room.saturating_add(ready));
    if pool.queued > 0 {
        let max = spec.max_instances.unwrap_or(u32::MAX);
        because.push(format!(
            "{admit} of {} waiting get a place, {total} of {max} instances in use",
            pool.queued
        ));
    }

    let pending = count(sorted.good_pending.len()).saturating_add(in_flight.warm);
    let have = pending.saturating_add(count(sorted.good_ready.len()));
    // Sessions have the first claim on the maximum; what is above it (it was lowered) is surplus.
    let busy = pool.claimed.saturating_add(in_flight.claimed);
    let target = spec
        .max_instances
        .map_or(spec.warm, |max| spec.warm.min(max.saturating_sub(busy)));
    let missing = target.saturating_sub(have);
    let mut start = 0;
    let mut recheck_after = next_age(spec, pool, now);
    if missing > 0 && pool.queued == 0 {
        start = missing.min(room).min(failures.allowed(pending, now));
        because.push(format!("{have} of {target} warm: {start} more"));
        if failures.in_a_row > 0 {
            because.push(format!("{} starts failed in a row", failures.in_a_row));
        } else if start < missing {
            because.push(format!("room for {room}"));
        }
        if let Some(until) = failures.held_until().filter(|u| now < *u) {
            let hold = until.since(now);
            because.push(format!("held for {} ms", hold.as_millis()));
            recheck_after = Some(recheck_after.map_or(hold, |r| r.min(hold)));
        }
    }

    let make_room = missing > 0
        && room == 0
        && pending == 0
        && pool.queued == 0
        && pool.stopping == 0
        && failures.in_a_row == 0;
    let stop = if pool.queued > 0 {
        // Whatever accepts is about to be claimed.
        sorted.stale_pending.clone()
    } else {
        sorted.stops(target, make_room)
    };
    if !stop.is_empty() {
        because.push(format!("{} surplus, stale or too old go", stop.len()));
    } else if !sorted.stale_ready.is_empty() {
        let stay = sorted.stale_ready.len();
        because.push(format!("{stay} stale or too old stay until others accept"));
    }
    if because.is_empty() {
        because.push(format!(
            "{have} of {target} warm, {} claimed: as wanted",
            pool.claimed
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

impl Failures {
    /// How many starts may be under way now, less those that are: any number while nothing fails, else one at a time, none
    /// while held.
    fn allowed(&self, pending: u32, now: Moment) -> u32 {
        match self.in_a_row {
            0 => u32::MAX,
            _ if self.degraded(now) => 0,
            _ => 1_u32.saturating_sub(pending),
        }
    }
}

/// The unclaimed instances by what they are worth, each list with the first to go first (oldest, then by id).
struct Sorted {
    /// Of the present template and young enough: they accept.
    good_ready: Vec<InstanceId>,
    /// Of the present template: they do not accept yet.
    good_pending: Vec<InstanceId>,
    /// Of another template, or too old: they accept, and are better than none.
    stale_ready: Vec<InstanceId>,
    /// Of another template: nobody will miss them.
    stale_pending: Vec<InstanceId>,
}

impl Sorted {
    fn of(spec: &PoolSpec, pool: &Pool, now: Moment) -> Self {
        let mut warm: Vec<&Warm> = pool.warm.iter().collect();
        warm.sort_by_key(|w| (w.started_at, w.id));
        // Age counts once it accepts: a boot longer than the age would never end otherwise.
        let old = |w: &Warm| {
            let age = now.since(w.started_at);
            w.ready && spec.max_age.is_some_and(|max| age >= max)
        };
        let those = |ready: bool, good: bool| -> Vec<InstanceId> {
            let fits =
                |w: &&&Warm| w.ready == ready && (w.template == spec.template && !old(w)) == good;
            warm.iter().filter(fits).map(|w| w.id).collect()
        };
        Self {
            good_ready: those(true, true),
            good_pending: those(false, true),
            stale_ready: those(true, false),
            stale_pending: those(false, false),
        }
    }

    fn stops(&self, warm: u32, make_room: bool) -> Vec<InstanceId> {
        let warm = usize::try_from(warm).unwrap_or(usize::MAX);
        let good = self.good_pending.len() + self.good_ready.len();
        let accepting = self.good_ready.len() + self.stale_ready.len();
        // Each good one that accepts lets one go; what is beyond the target goes anyway.
        let mut stale = accepting.saturating_sub(warm).min(self.stale_ready.len());
        let mut stop = self.stale_pending.clone();
        if stale == 0
            && stop.is_empty()
            && make_room
            && accepting > 1
            && !self.stale_ready.is_empty()
        {
            stale = 1;
        }
        stop.extend(self.stale_ready.iter().take(stale));
        let surplus = self.good_pending.iter().chain(&self.good_ready);
        stop.extend(surplus.take(good.saturating_sub(warm)));
        stop
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// When the next warm instance gets too old.
fn next_age(spec: &PoolSpec, pool: &Pool, now: Moment) -> Option<Duration> {
    let age = spec.max_age?;
    pool.warm
        .iter()
        .map(|w| w.started_at.after(age))
        .filter(|t| *t > now)
        .min()
        .map(|t| t.since(now))
}
