//! Who sits in the arena: connections, names, colours and scores around one [`World`].
//!
//! Still pure: the driver calls it with commands and ticks and carries out what it returns.
//! It maps player ids to avatars, so that a player who comes back finds body and score, and it
//! decides when a state message is due.

use std::collections::BTreeMap;

use crate::protocol::{self, Who};
use crate::results::Scores;
use crate::sim::{AvatarId, Command, Full, Phase, Settings, TICK_HZ, World};

/// Ticks between two state messages while no round is on: enough to notice a lost connection.
const QUIET_EVERY: u64 = 15;
/// Distinct colours of the page's palette.
const HUES: usize = 16;

const FIRST: [&str; 16] = [
    "Swift", "Amber", "Silent", "Lucky", "Golden", "Dusty", "Bold", "Sly", "Scarlet", "Keen",
    "Wild", "Lone", "Bright", "Nimble", "Stormy", "Sunny",
];
const SECOND: [&str; 16] = [
    "Jerboa", "Fennec", "Viper", "Oryx", "Gecko", "Hawk", "Camel", "Scarab", "Jackal", "Lynx",
    "Gazelle", "Raven", "Meerkat", "Cobra", "Falcon", "Ibex",
];

struct Seat {
    avatar: AvatarId,
    /// Which connection holds the seat; an older one's farewell must not put the player to sleep.
    connection: u64,
    name: String,
    hue: usize,
}

/// One tick's message, in the two forms a connection may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) with_spice: String,
    pub(crate) without_spice: String,
    pub(crate) spice_version: u64,
}

/// What a player who sits down is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seated {
    pub(crate) avatar: AvatarId,
    pub(crate) hello: String,
    /// The connection that held this seat until now; its player has moved here.
    pub(crate) ousted: Option<u64>,
}

/// What the driver must send after a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) frame: Option<Frame>,
    pub(crate) roster: Option<String>,
    /// A round ended: the scores are worth writing down.
    pub(crate) results: Option<String>,
}

pub(crate) struct Room {
    world: World,
    settings: Settings,
    seats: BTreeMap<String, Seat>,
    scores: Scores,
    session: Option<String>,
    roster_changed: bool,
    /// The next tick sends a state whatever the phase.
    hurry: bool,
}

impl Room {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            world: World::new(settings),
            settings,
            seats: BTreeMap::new(),
            scores: Scores::default(),
            session: None,
            roster_changed: false,
            hurry: false,
        }
    }

    /// Learns which session this is: from the environment, the session file or the first player.
    pub(crate) fn learn_session(&mut self, id: &str) {
        if self.session.is_none() {
            self.session = Some(id.to_owned());
        }
    }

    pub(crate) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Nothing moves and nobody watches: the driver may stop ticking.
    pub(crate) fn is_still(&self) -> bool {
        self.seats.is_empty() && self.world.avatars.is_empty()
    }

    /// Gives `player_id` a seat on `connection`: the old one where there is one.
    pub(crate) fn sit(&mut self, player_id: &str, connection: u64) -> Result<Seated, Full> {
        self.hurry = true;
        self.roster_changed = true;
        let mut ousted = None;
        let mut resumed = false;
        if let Some(seat) = self.seats.get_mut(player_id) {
            resumed = self.world.wake(seat.avatar);
            if seat.connection != 0 {
                ousted = Some(seat.connection);
            }
            seat.connection = connection;
        }
        if !resumed {
            let avatar = self.world.enter()?;
            let seat = Seat {
                avatar,
                connection,
                name: self.free_name(player_id),
                hue: self.free_hue(),
            };
            self.seats.insert(player_id.to_owned(), seat);
        }
        let Some(seat) = self.seats.get(player_id) else {
            return Err(Full);
        };
        let hello = protocol::hello(
            &self.world,
            seat.avatar,
            &seat.name,
            resumed,
            self.settings.round_ticks,
            self.session.as_deref(),
        );
        Ok(Seated {
            avatar: seat.avatar,
            hello,
            ousted,
        })
    }

    /// `connection` is gone; its player sleeps, unless a newer connection took the seat.
    pub(crate) fn leave(&mut self, player_id: &str, connection: u64) {
        if let Some(seat) = self.seats.get_mut(player_id)
            && seat.connection == connection
        {
            seat.connection = 0;
            self.world.sleep(seat.avatar);
            self.hurry = true;
        }
    }

    pub(crate) fn command(&mut self, avatar: AvatarId, command: Command) {
        self.world.command(avatar, command);
        self.hurry |= command == Command::Start;
    }

    pub(crate) fn tick(&mut self) -> Due {
        self.world.step();
        let events = self.world.take_events();
        let round_over = events.contains(&crate::sim::Event::RoundOver);
        self.note_scores();
        self.forget_the_vanished();
        let mut due = Due::default();
        if std::mem::take(&mut self.roster_changed) {
            due.roster = Some(self.roster());
        }
        let playing = self.world.phase == Phase::Playing;
        let quiet_turn = self.world.tick.is_multiple_of(QUIET_EVERY);
        if playing || quiet_turn || !events.is_empty() || std::mem::take(&mut self.hurry) {
            due.frame = Some(Frame {
                with_spice: protocol::state(&self.world, &events, true),
                without_spice: protocol::state(&self.world, &events, false),
                spice_version: self.world.spice_version,
            });
        }
        if round_over {
            due.results = Some(self.results());
        }
        due
    }

    pub(crate) fn results(&self) -> String {
        self.scores
            .to_json(self.session.as_deref(), self.world.rounds)
    }

    fn roster(&self) -> String {
        let mut players: Vec<Who> = self
            .seats
            .values()
            .map(|seat| Who {
                id: seat.avatar,
                name: seat.name.clone(),
                hue: seat.hue,
            })
            .collect();
        players.sort_by_key(|who| who.id);
        protocol::roster(&players)
    }

    fn note_scores(&mut self) {
        // Once a second and at the end of a round is often enough to be right when stopped.
        if self.world.phase == Phase::Playing && !self.world.tick.is_multiple_of(u64::from(TICK_HZ))
        {
            return;
        }
        self.refresh_scores();
    }

    /// Brings the score table up to this tick.
    pub(crate) fn refresh_scores(&mut self) {
        for (player_id, seat) in &self.seats {
            if let Some(avatar) = self.world.avatar(seat.avatar) {
                self.scores
                    .note(player_id, &seat.name, avatar.best, avatar.score);
            }
        }
    }

    fn forget_the_vanished(&mut self) {
        let before = self.seats.len();
        let world = &self.world;
        self.seats
            .retain(|_, seat| world.avatar(seat.avatar).is_some());
        self.roster_changed |= self.seats.len() != before;
    }

    /// The id's own name; with a number after it when somebody here already bears it. The id
    /// itself is never shown to others: in some set-ups knowing it is enough to act as the player.
    fn free_name(&self, player_id: &str) -> String {
        let hash = fnv(player_id);
        let first = FIRST[usize::from((hash & 15) as u8)];
        let second = SECOND[usize::from(((hash >> 8) & 15) as u8)];
        let plain = format!("{first} {second}");
        let taken = |name: &str| self.seats.values().any(|seat| seat.name == name);
        if !taken(&plain) {
            return plain;
        }
        (2..=self.seats.len() + 2)
            .map(|n| format!("{plain} {n}"))
            .find(|name| !taken(name))
            .unwrap_or(plain)
    }

    fn free_hue(&self) -> usize {
        (0..HUES)
            .find(|hue| self.seats.values().all(|seat| seat.hue != *hue))
            .unwrap_or(0)
    }
}

/// FNV-1a: stable over releases, which the standard hasher does not promise.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::MAX_PLAYERS;

    fn room() -> Room {
        Room::new(Settings {
            seed: 1,
            round_ticks: 300,
            grace_ticks: 30,
        })
    }

    #[test]
    fn a_player_who_comes_back_finds_the_same_body() {
        let mut room = room();
        let first = room.sit("ann", 1).unwrap();
        room.command(first.avatar, Command::Start);
        room.tick();
        room.leave("ann", 1);
        room.tick();
        let again = room.sit("ann", 2).unwrap();
        assert_eq!(again.avatar, first.avatar);
        assert_eq!(again.ousted, None);
        assert!(again.hello.contains("\"resumed\":true"));
    }

    #[test]
    fn a_second_tab_takes_the_seat_and_the_first_ones_farewell_changes_nothing() {
        let mut room = room();
        let first = room.sit("ann", 1).unwrap();
        let second = room.sit("ann", 2).unwrap();
        assert_eq!(second.ousted, Some(1));
        room.leave("ann", 1);
        assert_eq!(room.world.avatar(first.avatar).unwrap().asleep, None);
        room.leave("ann", 2);
        assert!(room.world.avatar(first.avatar).unwrap().asleep.is_some());
    }

    #[test]
    fn after_the_grace_nothing_moves_but_the_score_is_kept() {
        let mut room = room();
        let seated = room.sit("ann", 1).unwrap();
        room.command(seated.avatar, Command::Start);
        for _ in 0..40 {
            room.tick();
        }
        room.leave("ann", 1);
        for _ in 0..40 {
            room.tick();
        }
        assert!(room.is_still());
        assert!(room.results().contains("\"player_id\":\"ann\""));
    }

    #[test]
    fn names_and_colours_are_not_shared() {
        let mut room = room();
        for n in 0..MAX_PLAYERS {
            room.sit(&format!("player-{n}"), n as u64 + 1).unwrap();
        }
        let mut names: Vec<_> = room.seats.values().map(|seat| seat.name.clone()).collect();
        let mut hues: Vec<_> = room.seats.values().map(|seat| seat.hue).collect();
        names.sort();
        names.dedup();
        hues.sort_unstable();
        hues.dedup();
        assert_eq!((names.len(), hues.len()), (MAX_PLAYERS, MAX_PLAYERS));
        assert_eq!(room.sit("one-more", 99).unwrap_err(), Full);
    }

    #[test]
    fn a_round_that_ends_hands_out_its_results() {
        let mut room = room();
        let seated = room.sit("ann", 1).unwrap();
        room.command(seated.avatar, Command::Start);
        let results = (0..301).find_map(|_| room.tick().results).unwrap();
        assert!(results.contains("\"rounds\":1"));
    }

    #[test]
    fn states_come_every_tick_in_a_round_and_seldom_between() {
        let mut room = room();
        let seated = room.sit("ann", 1).unwrap();
        room.tick();
        let quiet = (0..30).filter(|_| room.tick().frame.is_some()).count();
        assert_eq!(quiet, 2);
        room.command(seated.avatar, Command::Start);
        let busy = (0..30).filter(|_| room.tick().frame.is_some()).count();
        assert_eq!(busy, 30);
    }
}
