//! The game itself: a seeded world stepped thirty times a second.
//!
//! Pure. No clock, socket, log, thread or platform randomness may enter: the state after a step
//! depends on the seed and the commands alone, which is what the property tests check and what
//! lets a round be replayed from its inputs.

mod players;
mod rng;
mod rules;
mod sand;
#[cfg(test)]
mod tests;
mod vec2;
mod worm;

use rng::Rng;
pub(crate) use rules::{ARENA_H, ARENA_W, DASH_COOLDOWN, MAX_PLAYERS, TICK_HZ};
pub(crate) use vec2::Vec2;
pub(crate) use worm::Mood;
use worm::{Prey, Sound, Worm};

/// Names an avatar for the life of the process; never reused.
pub(crate) type AvatarId = u32;

/// What a world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// Length of a round.
    pub(crate) round_ticks: u32,
    /// How long a disconnected player sleeps in the arena before vanishing.
    pub(crate) grace_ticks: u32,
}

/// Where the arena is in its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody has started yet.
    Lobby,
    Playing,
    /// The standings are final until somebody starts again.
    Over,
}

/// What a player wants. Anything may arrive, in any order; the world makes sense of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Command {
    /// Start a round, or enter the one that is on (with a new score after having been out).
    Start,
    /// Run this way; length up to one is the pace, zero stands still. Holds until the next.
    Steer(Vec2),
    Dash,
}

/// Where one avatar is in the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Watches; has not entered this round.
    Waiting,
    Running,
    /// Swallowed; back on a rock when the count reaches zero.
    Down {
        left: u32,
    },
    /// No lives left.
    Out,
}

/// One player's body. Public to the room, which encodes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Avatar {
    pub(crate) id: AvatarId,
    pub(crate) status: Status,
    /// `Some(ticks left)` while the player's connection is gone.
    pub(crate) asleep: Option<u32>,
    pub(crate) at: Vec2,
    pub(crate) velocity: Vec2,
    steer: Vec2,
    facing: Vec2,
    pub(crate) score: u32,
    pub(crate) best: u32,
    pub(crate) lives: u8,
    /// Pick-ups in the running combo.
    combo: u32,
    combo_left: u32,
    /// 0..1, what worms hear.
    pub(crate) noise: f64,
    pub(crate) dash: u32,
    pub(crate) dash_wait: u32,
    dash_wanted: bool,
    pub(crate) shield: u32,
    pub(crate) stun: u32,
    steal_guard: u32,
    pub(crate) on_rock: bool,
}

/// Safe ground: worms cannot breach it, and no spice grows on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rock {
    pub(crate) at: Vec2,
    pub(crate) radius: f64,
}

impl Rock {
    fn holds(&self, point: Vec2) -> bool {
        self.at.distance(point) < self.radius
    }
}

/// Something to collect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spice {
    pub(crate) id: u32,
    pub(crate) at: Vec2,
    pub(crate) rich: bool,
}

/// An announced eruption of spice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Blow {
    pub(crate) at: Vec2,
    pub(crate) left: u32,
}

/// A decoy. `pounding` counts down once somebody set it off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Thumper {
    id: u32,
    pub(crate) at: Vec2,
    pub(crate) pounding: Option<u32>,
}

/// What happened in one step: for sparks and sounds, never needed to know the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    Picked {
        who: AvatarId,
        at: Vec2,
        points: u32,
    },
    Stolen {
        by: AvatarId,
        from: AvatarId,
        points: u32,
        at: Vec2,
    },
    Bumped {
        at: Vec2,
    },
    Breached {
        at: Vec2,
    },
    Swallowed {
        who: AvatarId,
        at: Vec2,
    },
    Erupted {
        at: Vec2,
    },
    Thumping {
        at: Vec2,
    },
    RoundStarted,
    RoundOver,
}

/// The arena is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The whole state; two worlds with equal seeds and inputs are equal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct World {
    settings: Settings,
    rng: Rng,
    pub(crate) tick: u64,
    pub(crate) phase: Phase,
    pub(crate) rounds: u32,
    pub(crate) ticks_left: u32,
    pub(crate) avatars: Vec<Avatar>,
    pub(crate) rocks: Vec<Rock>,
    pub(crate) spice: Vec<Spice>,
    /// Grows whenever `spice` changes, so that an unchanged list need not be sent.
    pub(crate) spice_version: u64,
    pub(crate) blow: Option<Blow>,
    pub(crate) thumpers: Vec<Thumper>,
    pub(crate) worms: Vec<Worm>,
    /// Of the last step and the commands since.
    pub(crate) events: Vec<Event>,
    next_id: u32,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut world = Self {
            settings,
            rng: Rng::seeded(settings.seed),
            tick: 0,
            phase: Phase::Lobby,
            rounds: 0,
            ticks_left: settings.round_ticks,
            avatars: Vec::new(),
            rocks: Vec::new(),
            spice: Vec::new(),
            spice_version: 0,
            blow: None,
            thumpers: Vec::new(),
            worms: Vec::new(),
            events: Vec::new(),
            next_id: 0,
        };
        world.rocks = sand::place_rocks(&mut world.rng);
        world.scatter_first_spice();
        world
    }

    fn fresh_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// A new avatar, waiting at the edge of the round.
    pub(crate) fn enter(&mut self) -> Result<AvatarId, Full> {
        if self.avatars.len() >= MAX_PLAYERS {
            return Err(Full);
        }
        let id = self.fresh_id();
        let at = self.spawn_point();
        self.avatars.push(Avatar::new(id, at));
        Ok(id)
    }

    /// The player is back (true) or gone for good (false).
    pub(crate) fn wake(&mut self, id: AvatarId) -> bool {
        self.avatar_mut(id).is_some_and(|avatar| {
            avatar.wake();
            true
        })
    }

    /// The player's connection is gone: the body stays for the grace.
    pub(crate) fn sleep(&mut self, id: AvatarId) {
        let grace = self.settings.grace_ticks;
        if let Some(avatar) = self.avatar_mut(id) {
            avatar.fall_asleep(grace);
        }
    }

    pub(crate) fn command(&mut self, id: AvatarId, command: Command) {
        match command {
            Command::Start => self.start(id),
            Command::Steer(to) => {
                if let Some(avatar) = self.avatar_mut(id) {
                    avatar.steer = to.clamped(1.0);
                }
            }
            Command::Dash => {
                if let Some(avatar) = self.avatar_mut(id) {
                    avatar.dash_wanted = true;
                }
            }
        }
    }

    pub(crate) fn avatar(&self, id: AvatarId) -> Option<&Avatar> {
        self.avatars.iter().find(|avatar| avatar.id == id)
    }

    fn avatar_mut(&mut self, id: AvatarId) -> Option<&mut Avatar> {
        self.avatars.iter_mut().find(|avatar| avatar.id == id)
    }

    fn start(&mut self, id: AvatarId) {
        if self.avatar(id).is_none() {
            return;
        }
        if self.phase != Phase::Playing {
            self.new_round();
        }
        let at = self.spawn_point();
        if let Some(avatar) = self.avatar_mut(id)
            && matches!(avatar.status, Status::Waiting | Status::Out)
        {
            avatar.begin_run(at);
        }
    }

    fn new_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
        self.phase = Phase::Playing;
        self.ticks_left = self.settings.round_ticks.max(1);
        for avatar in &mut self.avatars {
            avatar.status = Status::Waiting;
        }
        self.blow = None;
        self.thumpers.clear();
        self.worms.clear();
        self.spice.clear();
        self.scatter_first_spice();
        self.add_worm();
        self.events.push(Event::RoundStarted);
    }

    /// One thirtieth of a second.
    pub(crate) fn step(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        self.vanish_sleepers();
        if self.phase != Phase::Playing {
            return;
        }
        let mut playing = self.avatars.iter().filter(|a| a.in_round()).peekable();
        // Nobody who plays is here to see it: the round waits for them (a lost connection must
        // not cost a lone player the game).
        if playing.peek().is_some() && playing.all(|avatar| avatar.asleep.is_some()) {
            return;
        }
        self.ticks_left = self.ticks_left.saturating_sub(1);
        self.move_players();
        self.bump_players();
        self.pick_up();
        self.grow_sand();
        self.move_worms();
        let nobody_left = !self.avatars.iter().any(Avatar::in_round);
        if self.ticks_left == 0 || nobody_left {
            self.finish_round();
        }
    }

    /// Takes what happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn finish_round(&mut self) {
        self.phase = Phase::Over;
        self.worms.clear();
        self.blow = None;
        for avatar in &mut self.avatars {
            avatar.settle();
        }
        self.events.push(Event::RoundOver);
    }

    fn vanish_sleepers(&mut self) {
        let before = self.avatars.len();
        self.avatars.retain_mut(|avatar| match avatar.asleep {
            None => true,
            Some(0) => false,
            Some(left) => {
                avatar.asleep = Some(left - 1);
                true
            }
        });
        let left_playing = self.avatars.iter().any(Avatar::in_round);
        if self.avatars.len() < before && self.phase == Phase::Playing && !left_playing {
            self.finish_round();
        }
        if self.avatars.is_empty() && self.phase == Phase::Over {
            self.phase = Phase::Lobby;
        }
    }

    /// Elapsed share of the round, 0..1.
    fn progress(&self) -> f64 {
        1.0 - f64::from(self.ticks_left) / f64::from(self.settings.round_ticks.max(1))
    }

    fn add_worm(&mut self) {
        // The corner farthest from everybody.
        let corners = [
            Vec2::new(60.0, 60.0),
            Vec2::new(ARENA_W - 60.0, 60.0),
            Vec2::new(60.0, ARENA_H - 60.0),
            Vec2::new(ARENA_W - 60.0, ARENA_H - 60.0),
        ];
        let nearest = |corner: Vec2| {
            self.avatars
                .iter()
                .filter(|avatar| avatar.in_round())
                .map(|avatar| avatar.at.distance(corner))
                .fold(f64::MAX, f64::min)
        };
        let mut best = corners[self.rng.below(corners.len())];
        for corner in corners {
            if nearest(corner) > nearest(best) {
                best = corner;
            }
        }
        let worm = Worm::new(best, &mut self.rng);
        self.worms.push(worm);
    }

    fn move_worms(&mut self) {
        let progress = self.progress();
        let playing = self.avatars.iter().filter(|a| a.in_round()).count();
        let wanted = match playing {
            _ if progress < 0.35 => 1,
            0..=4 => 2,
            _ if progress < 0.65 => 2,
            _ => rules::WORMS_MAX,
        };
        if self.worms.len() < wanted {
            self.add_worm();
        }
        let sounds = self.sounds();
        let mut bitten = Vec::new();
        for worm in &mut self.worms {
            if worm.step(&sounds, &self.rocks, progress, &mut self.rng) {
                self.events.push(Event::Breached { at: worm.at });
            }
            if matches!(worm.mood, Mood::Breach { .. }) {
                bitten.push(worm.at);
            }
        }
        for jaws in bitten {
            self.swallow(jaws);
        }
    }

    fn sounds(&self) -> Vec<Sound> {
        let mut sounds: Vec<Sound> = self
            .avatars
            .iter()
            .filter(|avatar| avatar.can_be_eaten())
            .map(|avatar| Sound {
                prey: Prey::Player(avatar.id),
                at: avatar.at,
                velocity: avatar.velocity,
                loudness: avatar.noise,
            })
            .collect();
        for thumper in self.thumpers.iter().filter(|t| t.pounding.is_some()) {
            sounds.push(Sound {
                prey: Prey::Thumper(thumper.id),
                at: thumper.at,
                velocity: Vec2::ZERO,
                loudness: rules::THUMPER_NOISE,
            });
        }
        sounds
    }

    fn swallow(&mut self, jaws: Vec2) {
        for avatar in &mut self.avatars {
            if avatar.can_be_eaten()
                && !avatar.on_rock
                && avatar.at.distance(jaws) < rules::JAW_RADIUS
            {
                self.events.push(Event::Swallowed {
                    who: avatar.id,
                    at: avatar.at,
                });
                avatar.be_swallowed();
            }
        }
        self.thumpers.retain(|thumper| {
            thumper.pounding.is_none() || thumper.at.distance(jaws) >= rules::JAW_RADIUS
        });
    }
}
