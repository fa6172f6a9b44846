//! Who plays with whom: [`propose`], a pure function of who waits, the queue's [`Rules`] and the time.
//!
//! **What a match is.** A whole match has exactly `size` players; a party (a ticket of several players) is never split. A smaller one
//! of at least `min_partial` starts once its oldest ticket has waited `flush_wait`. In both, each ticket accepts the match by its own
//! limit, relaxed by its own waiting time:
//!
//! * *Skill*: the spread (greatest less least skill of the match) is at most what **every** member accepts now, so a newcomer is never
//!   dragged into a wide match by somebody who has waited long. A ticket that states no skill fits anywhere: it accepts any spread and
//!   adds none.
//! * *Latency*: there is a region to which **every** member's latency is at most what that member accepts now. A region that a ticket
//!   does not list is one it does not accept; a ticket that lists none accepts all.
//!
//! **Who goes with whom.** As many whole matches as possible, and of those the closest in skill. The best of all ways is taken while few
//! wait ([`exact`]); with more, quick cuts ([`line`]) are bettered a neighbourhood at a time ([`polish`]), which is close to the best too
//! but not always it.
//!
//! **Who goes first.** Closeness, until a ticket is *due* ([`Rules::due_after`]): from then on it is matched with whomever it can be
//! matched with, unless they are in a match with somebody who is due and older ([`search`]). And nobody is left over who could be
//! matched with others that are left over.
//!
//! **What it costs** is nearly linear in the tickets, also where nothing fits. Parties that do not add up are the exception, and the
//! search is bounded for them: then it may miss matches, and says to look again soon.
//!
//! Nothing here keeps anything between two calls, and the order of the candidates does not matter.

mod exact;
mod line;
mod next;
mod polish;
mod queue;
mod rules;
mod search;
mod ticket;
mod window;

use std::fmt::Write as _;
use std::time::Duration;

pub use rules::{Limit, PATIENCE, RuleError, RuleProblem, Rules};
pub use ticket::{Attribute, Ticket};

use crate::id::TicketId;
use crate::time::Moment;
use queue::Queue;
use search::{Goal, Group, Search};

/// Regions that the tickets of one queue may name between them: one bit each where regions are compared.
pub const MAX_REGIONS: u8 = 64;

/// A region by its number in the queue; whoever calls keeps the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(u8);

impl Region {
    /// The region of this number, if it is below [`MAX_REGIONS`].
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < MAX_REGIONS {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// One ticket that waits: a player or a party.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which. No two candidates of one call have the same.
    pub id: TicketId,
    /// Players of the party. One with none, or with more than a whole match, is never matched.
    pub players: u32,
    /// Skill, on whatever scale the queue uses; anything but a finite number counts as none stated.
    pub skill: Option<f64>,
    /// Milliseconds to each region it can play in, each region once. Empty: any.
    pub latencies: Vec<(Region, u32)>,
    /// Since when it waits. A moment that has not come yet counts as now.
    pub since: Moment,
}

/// Tickets that play together.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The tickets, oldest first.
    pub tickets: Vec<TicketId>,
    /// Their players.
    pub players: u32,
    /// Whether it has fewer players than a whole match.
    pub partial: bool,
    /// Greatest less least skill; 0 if at most one states any, or the queue does not ask.
    pub spread: f64,
    /// The greatest spread that all of them accept now; none if nobody states a skill, or the queue does not ask.
    pub accepted: Option<f64>,
    /// The region where the worst latency of a member is best; none if no member lists any, or the queue does not ask.
    pub region: Option<Region>,
    /// That worst latency, in milliseconds.
    pub latency: Option<u32>,
    /// How long the oldest ticket has waited.
    pub waited: Duration,
}

impl Match {
    /// Why these, in words with numbers.
    #[must_use]
    pub fn because(&self, rules: &Rules) -> String {
        let waited = self.waited.as_secs_f64();
        let mut text = format!(
            "{} of {} players, the oldest ticket waited {waited:.1} s",
            self.players,
            rules.size()
        );
        // Writing to a string cannot fail.
        if self.partial {
            let flush = rules.flush_wait().as_secs_f64();
            let least = rules.min_partial();
            let _ = write!(text, ": after {flush:.1} s {least} are enough");
        }
        if let Some(accepted) = self.accepted {
            let _ = write!(text, "; skill spread {} of {accepted:.1}", self.spread);
        }
        if let (Some(region), Some(ms)) = (self.region, self.latency) {
            let _ = write!(text, "; at most {ms} ms to region {}", region.number());
        }
        text
    }
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// Matches to start, oldest first. No ticket is in two.
    pub matches: Vec<Match>,
    /// If nobody comes and nobody leaves, nothing can be matched before this time has passed, and then something can.
    /// `None`: never. (After a search that came to its bound: when to look again.)
    pub recheck_after: Option<Duration>,
}

/// Proposes matches among those who wait.
#[must_use]
pub fn propose<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    rules: &Rules,
    now: Moment,
) -> Proposal {
    let queue = Queue::of(candidates, rules);
    let mut search = Search::new(&queue, rules, now);
    let due = |ticket: u32| now.since(queue.get(ticket).since) >= rules.due_after();
    let mut exact = exact::Exact::new();
    if queue.len() as usize <= exact::FEW {
        let all: Vec<u32> = (0..queue.len()).collect();
        for group in exact.best_matches(&queue, rules, now, &all, due) {
            search.make(group);
        }
    } else {
        line::match_neighbours(&mut search);
        polish::polish(&mut search, &mut exact, due);
    }
    match_the_rest(&mut search, due);
    let recheck_after = next::next_change(&mut search);
    let groups = search.into_groups();
    let matches = groups.iter().map(|g| described(&queue, rules, now, g));
    Proposal {
        matches: matches.collect(),
        recheck_after,
    }
}

/// Whom closeness has left over: those who are due take whom they need from younger ones, then whole matches of those who are left, then
/// partial ones; always around the oldest.
fn match_the_rest(search: &mut Search<'_>, due: impl Fn(u32) -> bool) {
    let n = search.queue.len();
    let first_not_due = (0..n).find(|t| !due(*t)).unwrap_or(n);
    for ticket in 0..first_not_due {
        if search.free(ticket) {
            search.may_break = ticket + 1;
            if let Some(group) = search.around(ticket, Goal::Whole) {
                search.make(group);
            }
        }
    }
    search.only_free();
    for ticket in first_not_due..n {
        if search.free(ticket)
            && let Some(group) = search.around(ticket, Goal::Whole)
        {
            search.make(group);
        }
    }
    for ticket in 0..n {
        if !search
            .rules
            .flushes(search.queue.get(ticket).since, search.now)
        {
            // The rest is younger.
            return;
        }
        if search.free(ticket)
            && let Some(group) = search.around(ticket, Goal::Partial)
        {
            search.make(group);
        }
    }
}

fn described(queue: &Queue, rules: &Rules, now: Moment, group: &Group) -> Match {
    let members = || group.tickets.iter().map(|t| queue.get(*t));
    let rated = members().filter(|m| rules.skill().is_some() && m.skill().is_some());
    let accepted = rated
        .map(|m| rules.spread_at(m.since, now))
        .reduce(f64::min);
    let place = queue.place(rules, now, &group.tickets);
    Match {
        tickets: members().map(|m| m.id).collect(),
        players: group.players,
        partial: group.players < rules.size(),
        spread: group.spread,
        accepted,
        region: place.map(|(region, _)| region),
        latency: place.map(|(_, ms)| ms),
        waited: now.since(queue.get(group.oldest()).since),
    }
}
