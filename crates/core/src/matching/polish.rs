//! Bringing closer what was matched quickly: a match and its nearest neighbours are matched anew, in the best of all ways.
//!
//! Cutting a row into neighbours knows nothing of regions that only some accept, of parties, or of a newcomer between two who accept
//! more. A few tickets at a time it need not: what is possible among them is all looked at.

use super::exact::{Exact, FEW};
use super::queue::Entry;
use super::search::Search;

/// What may be spent, in neighbourhoods of [`SMALL`]: some 5 us each.
const BUDGET: usize = 2_048;

/// Tickets of a small neighbourhood: more than half of the way to the best for a tenth of the work of a large one.
const SMALL: usize = 8;

/// What a neighbourhood of [`FEW`] costs in small ones.
const LARGE_COSTS: usize = 10;

/// Matches anew, around one match after the other, the oldest first, until nothing changes or the budget is spent.
pub(super) fn polish(search: &mut Search<'_>, exact: &mut Exact, due: impl Fn(u32) -> bool) {
    let first = |search: &Search<'_>, t: u32| search.members(t).first() == Some(&t);
    let tickets = 0..search.queue.len();
    let matches = tickets.clone().filter(|t| first(search, *t)).count();
    let (width, costs) = if matches * LARGE_COSTS <= BUDGET {
        (FEW, LARGE_COSTS)
    } else {
        (SMALL, 1)
    };
    let mut budget = BUDGET;
    loop {
        let mut changed = false;
        for ticket in tickets.clone() {
            if !first(search, ticket) {
                continue;
            }
            let Some(rest) = budget.checked_sub(costs) else {
                return;
            };
            budget = rest;
            let few = neighbourhood(search, ticket, width);
            changed |= again(search, exact, &few, &due);
        }
        if !changed {
            return;
        }
    }
}

/// Matches these anew. Says whether that made a difference.
fn again(
    search: &mut Search<'_>,
    exact: &mut Exact,
    few: &[u32],
    due: &impl Fn(u32) -> bool,
) -> bool {
    let groups = exact.best_matches(search.queue, search.rules, search.now, few, due);
    if groups
        .iter()
        .all(|g| search.members(g.oldest()) == g.tickets)
    {
        // The best has no fewer matches than there were, so these are all of them.
        return false;
    }
    search.unmake(few);
    for group in groups {
        search.make(group);
    }
    true
}

/// The match of a ticket and what is nearest to its members in the regions they accept: whole matches, and those who are free; oldest
/// first.
fn neighbourhood(search: &Search<'_>, ticket: u32, width: usize) -> Vec<u32> {
    let mut few: Vec<u32> = search.members(ticket).to_vec();
    let mut near: Vec<(f64, u32)> = Vec::new();
    for member in &few {
        for spot in search.lanes.spots(*member).iter().filter(|s| !s.open) {
            let row = &search.lanes.lanes[spot.lane as usize].ranked;
            let at = spot.at as usize;
            let below = row[..at].iter().rev().take(width);
            let above = row[at + 1..].iter().take(width);
            let apart = |e: &Entry| ((e.skill - row[at].skill).abs(), e.ticket);
            near.extend(below.chain(above).map(apart));
        }
    }
    near.sort_unstable_by(|(a, x), (b, y)| a.total_cmp(b).then(x.cmp(y)));
    for (_, ticket) in near {
        if few.len() == width {
            break;
        }
        let group = search.members(ticket);
        let all = if group.is_empty() {
            std::slice::from_ref(&ticket)
        } else {
            group
        };
        if few.len() + all.len() <= width && !few.contains(&ticket) {
            few.extend_from_slice(all);
        }
    }
    few.sort_unstable();
    few
}
