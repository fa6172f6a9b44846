//! What is true: what the runtime and the records really hold, what clients were told and what they really did. Times are milliseconds
//! of the world's own time. Nothing here is the product's view of itself.

use std::collections::{BTreeMap, BTreeSet};

use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::{FleetName, InstanceId, PlayerId, SessionId, TicketId};
use spawnpoint_wire::claim::Claim;

/// A visit as short as this may be nobody's news, milliseconds.
const BLINK: i64 = 100;

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
    /// When its end was first written anywhere, and why and when it says that was.
    pub(crate) ending: Option<(i64, Reason)>,
    /// Its record: when it was written.
    pub(crate) recorded: Option<i64>,
    /// The reason in its record.
    pub(crate) reason: Option<Reason>,
    /// Last data of any of its players.
    pub(crate) data: Option<i64>,
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
    /// When the gateway could not be heard: from, until.
    pub(crate) deaf: Vec<(i64, i64)>,
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
    pub(crate) fn went(&mut self, id: SessionId, player: &PlayerId, now: i64) {
        let game = self.game(id);
        if let Some(n) = game.here.get_mut(player) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                game.here.remove(player);
            }
        }
        if game.here.is_empty() {
            // Who came and went between two reports was not there for anybody who could tell.
            if game.here_since.is_none_or(|since| now - since > BLINK) {
                game.left = Some(now);
            }
            game.here_since = None;
        }
    }
}
