//! When something can be matched that cannot be now, if nobody comes and nobody leaves.

use std::time::Duration;

use super::search::{Goal, Search};
use crate::time::Moment;

/// How soon to look again after a search that looked at as much as it may and is not sure to have seen everything.
const UNSURE: Duration = Duration::from_secs(1);

/// Tickets are asked in an order that has nothing to do with anything: a multiple of an odd number, modulo a power of two, names each
/// once. Then the first few asked are soon near the earliest moment there is, and all the others only need to be asked about the moment
/// before it.
const SCATTER: u32 = 0x9e37_79b1;

/// The time that passes until those who are free can be matched, to the millisecond.
pub(super) fn next_change(search: &mut Search<'_>) -> Option<Duration> {
    let now = search.now;
    let n = search.queue.len();
    let youngest = (0..n).rev().find(|t| search.free(*t))?;
    let youngest = search.queue.get(youngest).since.max(now);
    // A little more than everything takes, so that rounding leaves nothing behind.
    let end = youngest
        .after(search.rules.settled_after())
        .after(Duration::from_secs(1));
    search.only_free_until(end);
    let mut earliest: Option<Moment> = None;
    let slots = n.next_power_of_two();
    for slot in 0..slots {
        let ticket = slot.wrapping_mul(SCATTER) & (slots - 1);
        if ticket >= n || !search.free(ticket) {
            continue;
        }
        let before = earliest.map_or(end, |e| Moment(e.0 - 1));
        if before <= now {
            break;
        }
        if !possible(search, ticket, before) {
            continue;
        }
        let (mut not_yet, mut possibly) = (now, before);
        while possibly.0 - not_yet.0 > 1 {
            let middle = Moment(not_yet.0 + (possibly.0 - not_yet.0) / 2);
            if possible(search, ticket, middle) {
                possibly = middle;
            } else {
                not_yet = middle;
            }
        }
        earliest = Some(possibly);
    }
    search.now = now;
    let after = earliest.map(|e| e.since(now));
    if search.exhausted() {
        return Some(after.map_or(UNSURE, |a| a.min(UNSURE)));
    }
    after
}

/// Whether some match begins with this ticket then: as its least skilled, or as the one that has waited long enough for a partial one.
fn possible(search: &mut Search<'_>, ticket: u32, then: Moment) -> bool {
    search.now = then;
    let since = search.queue.get(ticket).since;
    search.can_begin(ticket)
        || (search.rules.flushes(since, then) && search.around(ticket, Goal::Partial).is_some())
}
