//! What is true: what the runtime and the records really hold, what clients were told and what they really did. Times are milliseconds
//! of the world's own time. Nothing here is the product's view of itself.

use std::collections::{BTreeMap, BTreeSet};

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::{FleetName, InstanceId, PlayerId, SessionId, TicketId};
use spawnpoint_wire::claim::Claim;

/// Who leaves the roster this soon after they came may be off it before anybody is told that they are there, milliseconds.
const BLINK: i64 = 100;

/// Between what somebody does and the report of it, milliseconds.
const UNTOLD: i64 = 2_500;

/// How somebody's connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// They went, were cut off, or the game is over.
    Game,
    /// They did nothing else: that they came and went is all that the server can be told.
    AfterALook,
    /// They were taken off the roster some time before.
    Roster,
}

/// A session, from its first trace on.
#[derive(Debug, Default)]
pub(crate) struct Game {
    /// Its fleet.
    pub(crate) fleet: Option<FleetName>,
    /// A client was told that it is there.
    pub(crate) acked: Option<i64>,
    /// The instances that carry its claim now, with the generation.
    pub(crate) on: BTreeMap<InstanceId, u32>,
    /// The newest claim that was written, and on what.
    pub(crate) claim: Option<(Claim, InstanceId)>,
    /// When an instance was first granted.
    pub(crate) granted: Option<i64>,
    /// When a grant was last written before the game was known to run.
    pub(crate) drawn: Option<i64>,
    /// When its end was first written anywhere, and why and when it says that was.
    pub(crate) ending: Option<(i64, Reason)>,
    /// Its record: when it was written.
    pub(crate) recorded: Option<i64>,
    /// The reason in its record.
    pub(crate) reason: Option<Reason>,
    /// Last data of each of its players.
    pub(crate) data: BTreeMap<PlayerId, i64>,
    /// Last heartbeat that said `active` and was sent.
    pub(crate) active: Option<i64>,
    /// A heartbeat that said `busy` was answered: believed until then, by this run of the server.
    pub(crate) busy: Option<(i64, u32)>,
    /// Players whose connection stands, and how many each has.
    pub(crate) here: BTreeMap<PlayerId, u32>,
    /// Since when somebody has been there without a gap.
    pub(crate) here_since: Option<i64>,
    /// When the last one went.
    pub(crate) left: Option<i64>,
    /// Somebody first asked for its end.
    pub(crate) end_asked: Option<i64>,
    /// What the last one who came was let in to.
    pub(crate) played_on: Option<InstanceId>,
}

impl Game {
    /// It runs or waits to, as far as anything durable says.
    pub(crate) fn is_live(&self) -> bool {
        self.recorded.is_none() && self.ending.is_none() && !self.on.is_empty()
    }
}

/// An instance.
#[derive(Debug)]
pub(crate) struct Body {
    /// Whose it was first bound to.
    pub(crate) session: Option<SessionId>,
    /// It was told to stop.
    pub(crate) told_to_stop: bool,
}

/// A ticket that a client was told of.
#[derive(Debug)]
pub(crate) struct Slip {
    /// They asked to leave.
    pub(crate) left: bool,
    /// Somebody asked after it last.
    pub(crate) asked: i64,
    /// The run of the server that last said that it waits or is matched.
    pub(crate) run: Option<u32>,
    /// A client heard what became of it.
    pub(crate) fate: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) games: BTreeMap<SessionId, Game>,
    pub(crate) bodies: BTreeMap<InstanceId, Body>,
    pub(crate) slips: BTreeMap<TicketId, Slip>,
    /// Sessions that carried a ticket in their claim.
    pub(crate) by_ticket: BTreeMap<TicketId, BTreeSet<SessionId>>,
    /// When the gateway may have been unheard: from, until.
    pub(crate) deaf: Vec<(i64, i64)>,
    /// When it surely could not: from, until.
    pub(crate) unheard: Vec<(i64, i64)>,
    /// When everything stood still: when it went on, and for how long it had, milliseconds.
    pub(crate) stops: Vec<(i64, i64)>,
    /// When sessions were culled for what others report.
    pub(crate) culls: Vec<i64>,
    /// Offsets of the wall clock so far, milliseconds.
    pub(crate) offsets: Vec<i64>,
    /// When each player last asked for a game in place of the one they had.
    pub(crate) fresh: BTreeMap<PlayerId, Vec<i64>>,
    /// Records by instance and generation.
    pub(crate) records: usize,
}

impl Truth {
    pub(crate) fn game(&mut self, id: SessionId) -> &mut Game {
        self.games.entry(id).or_default()
    }

    /// The gateway may be unheard from, until; and surely is, where that is known.
    pub(crate) fn goes_deaf(&mut self, may: (i64, i64), surely: Option<(i64, i64)>) {
        self.deaf.push(may);
        self.unheard.extend(surely);
    }

    /// Whether the gateway could not be heard at some time between the two.
    pub(crate) fn was_deaf(&self, from: i64, until: i64) -> bool {
        self.deaf.iter().any(|(a, b)| *a <= until && from <= *b)
    }

    /// Somebody's connection stands.
    pub(crate) fn came(
        &mut self,
        id: SessionId,
        player: &PlayerId,
        on: Option<InstanceId>,
        now: i64,
    ) {
        let game = self.game(id);
        if game.here.is_empty() {
            game.here_since = Some(now);
        }
        *game.here.entry(player.clone()).or_default() += 1;
        game.played_on = on.or(game.played_on);
    }

    /// It does not any more.
    pub(crate) fn went(&mut self, id: SessionId, player: &PlayerId, how: Leaves, now: i64) {
        let game = self.game(id);
        if let Some(n) = game.here.get_mut(player) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                game.here.remove(player);
            }
        }
        if how == Leaves::Roster {
            // Their last word may be told of when nobody knows them any more.
            game.data.retain(|p, at| p != player || *at <= now - UNTOLD);
        }
        if game.here.is_empty() {
            let long = game.here_since.is_none_or(|since| now - since > BLINK);
            game.left = match how {
                Leaves::AfterALook => Some(now),
                Leaves::Game if long => Some(now),
                Leaves::Game => game.left,
                // When that was their connection does not say: it is closed when the roster is durable.
                Leaves::Roster => None,
            };
            game.here_since = None;
        }
    }
}
