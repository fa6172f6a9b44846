//! Section `[[queue]]`.

use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::matching::Limit;

use super::{DURATION, Is, Key, Meta, Words, convert, key};

const LIMIT: &str = "`{ start, per_second, most }`, a number, or `\"none\"`";

pub(crate) static NAME: Key<FleetName> = key(
    "name",
    "DNS label",
    Words("the fleet's name"),
    convert::queue_name,
    "The queue's name in calls, metrics and listings.",
);
pub(crate) static FLEET: Key<FleetName> = key(
    "fleet",
    "a fleet's name",
    Words("the fleet named like the queue"),
    convert::fleet_name,
    "Which fleet's game servers its matches are played on.",
);
pub(crate) static SESSION_SIZE: Key<u32> = key(
    "session_size",
    "1 to 100",
    Is("2"),
    convert::session_size,
    "Players of a whole match. At most the fleet's `max_players`.",
)
.env(&["SESSION_SIZE"]);
pub(crate) static MIN_PARTIAL: Key<u32> = key(
    "min_partial_session_size",
    "1 to `session_size`",
    Is("1"),
    convert::session_size,
    "Fewest players of a partial match. Equal to `session_size`: only whole matches.",
)
.env(&["MIN_PARTIAL_SESSION_SIZE"]);
pub(crate) static FLUSH_WAIT: Key<Duration> = key(
    "flush_wait",
    DURATION,
    Is("10s"),
    convert::positive,
    "A partial match starts once its oldest ticket has waited this long, also when nobody else ever joins.",
)
.env(&["FLUSH_WAIT_SECONDS"]);
pub(crate) static SKILL: Key<Option<Limit>> = key(
    "skill",
    LIMIT,
    Is("none"),
    convert::limit,
    "Largest difference of the attribute `skill` within a match: `start` at once, `per_second` more for each second of waiting, never above `most`.",
);
pub(crate) static LATENCY: Key<Option<Limit>> = key(
    "latency",
    LIMIT,
    Is("none"),
    convert::limit,
    "Most milliseconds to the region that all players of a match share, relaxing like `skill`.",
);
pub(crate) static REGIONS: Key<Vec<String>> = key(
    "regions",
    "list of names",
    Is(""),
    convert::regions,
    "The regions that `latencies` of a ticket may name, at most 64. Needed for `latency`.",
);
pub(crate) static MAX_TICKETS: Key<u32> = key(
    "max_tickets",
    "1 to 1000000",
    Is("100000"),
    convert::rate,
    "Most tickets that wait. Further joins are answered `matchmaking_full`.",
);
pub(crate) static UNATTENDED: Key<Duration> = key(
    "unattended",
    DURATION,
    Words("`flush_wait` and one minute more"),
    convert::positive,
    "A ticket that nobody has asked after for this long (no join, no status, no stream) is dropped: who has closed the page is no opponent. Longer than `flush_wait`.",
);
pub(crate) static MAX_FAILURES: Key<u32> = key(
    "max_failures",
    "1 to 100",
    Is("3"),
    convert::failures,
    "A ticket whose matches failed to start so often in a row is given up (`lost`, with the cause's code) instead of being matched again.",
);

/// All of them, in the order of the documentation.
pub(crate) static ALL: &[&Meta] = &[
    &NAME.meta,
    &FLEET.meta,
    &SESSION_SIZE.meta,
    &MIN_PARTIAL.meta,
    &FLUSH_WAIT.meta,
    &SKILL.meta,
    &LATENCY.meta,
    &REGIONS.meta,
    &MAX_TICKETS.meta,
    &UNATTENDED.meta,
    &MAX_FAILURES.meta,
];
