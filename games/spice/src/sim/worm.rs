//! The sandworm: what it hears, whom it hunts, when it strikes. Pure; moves one worm one tick.

use super::rng::Rng;
use super::rules::{
    ARENA_H, ARENA_W, BREACH_TICKS, DIVE_TICKS, DT, FORESIGHT, ROCK_CLEAR, WINDUP_TICKS, WORM_EAR,
    WORM_GRUDGE, WORM_HASTE, WORM_HUNT_SPEED, WORM_REACH, WORM_ROAM_SPEED, WORM_STRIKE, WORM_TURN,
};
use super::vec2::Vec2;
use super::{AvatarId, Rock};

/// What a worm may be after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prey {
    Player(AvatarId),
    Thumper(u32),
}

/// Something that can be heard this tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sound {
    pub(crate) prey: Prey,
    pub(crate) at: Vec2,
    pub(crate) velocity: Vec2,
    pub(crate) loudness: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    /// Hears nothing worth it and wanders towards `goal`.
    Roam {
        goal: Vec2,
    },
    Hunt {
        prey: Prey,
    },
    /// The sand trembles at the worm's place for `left` more ticks.
    Windup {
        left: u32,
    },
    /// The jaws are open.
    Breach {
        left: u32,
    },
    /// Deep and deaf.
    Dive {
        left: u32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Worm {
    pub(crate) at: Vec2,
    /// Unit length.
    pub(crate) heading: Vec2,
    pub(crate) mood: Mood,
}

impl Worm {
    pub(crate) fn new(at: Vec2, rng: &mut Rng) -> Self {
        Self {
            at,
            heading: rng.direction(),
            mood: Mood::Dive { left: DIVE_TICKS },
        }
    }

    /// One tick. `progress` is the elapsed share of the round, 0..1. True on the tick the jaws open.
    pub(crate) fn step(
        &mut self,
        sounds: &[Sound],
        rocks: &[Rock],
        progress: f64,
        rng: &mut Rng,
    ) -> bool {
        match self.mood {
            Mood::Windup { left } if left > 1 => self.mood = Mood::Windup { left: left - 1 },
            Mood::Windup { .. } => {
                self.mood = Mood::Breach { left: BREACH_TICKS };
                return true;
            }
            Mood::Breach { left } if left > 1 => self.mood = Mood::Breach { left: left - 1 },
            Mood::Breach { .. } => self.mood = Mood::Dive { left: DIVE_TICKS },
            Mood::Dive { left } if left > 1 => {
                self.mood = Mood::Dive { left: left - 1 };
                let onward = self.at + self.heading * 200.0;
                self.swim(onward, WORM_ROAM_SPEED, rocks);
            }
            Mood::Dive { .. } => {
                self.mood = Mood::Roam {
                    goal: somewhere(rng),
                }
            }
            Mood::Roam { goal } => {
                if let Some(sound) = self.loudest(sounds, None) {
                    self.mood = Mood::Hunt { prey: sound.prey };
                } else if self.at.distance(goal) < 120.0 {
                    self.mood = Mood::Roam {
                        goal: somewhere(rng),
                    };
                } else {
                    self.swim(goal, WORM_ROAM_SPEED, rocks);
                }
            }
            Mood::Hunt { prey } => match self.loudest(sounds, Some(prey)) {
                None => {
                    self.mood = Mood::Roam {
                        goal: somewhere(rng),
                    }
                }
                Some(sound) => self.hunt(sound, rocks, progress),
            },
        }
        false
    }

    fn hunt(&mut self, sound: Sound, rocks: &[Rock], progress: f64) {
        self.mood = Mood::Hunt { prey: sound.prey };
        let on_rock = rocks.iter().any(|rock| rock.holds(sound.at));
        if self.at.distance(sound.at) < WORM_STRIKE && !on_rock {
            self.at = keep_off_rocks(sound.at + sound.velocity * FORESIGHT, rocks);
            self.mood = Mood::Windup { left: WINDUP_TICKS };
        } else {
            let speed = WORM_HUNT_SPEED + WORM_HASTE * progress;
            self.swim(sound.at + sound.velocity * FORESIGHT, speed, rocks);
        }
    }

    /// The most tempting sound: loudness less what the distance costs, with a bonus for the prey
    /// already hunted.
    fn loudest(&self, sounds: &[Sound], present: Option<Prey>) -> Option<Sound> {
        let mut best: Option<(f64, Sound)> = None;
        for sound in sounds {
            let grudge = if present == Some(sound.prey) {
                WORM_GRUDGE
            } else {
                0.0
            };
            if sound.loudness + grudge < WORM_EAR {
                continue;
            }
            let score = sound.loudness + grudge - self.at.distance(sound.at) / WORM_REACH;
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, *sound));
            }
        }
        best.map(|(_, sound)| sound)
    }

    fn swim(&mut self, to: Vec2, speed: f64, rocks: &[Rock]) {
        let wanted = (to - self.at).unit_or(self.heading);
        // Turning straight back has no side: take a quarter turn first.
        let turned = self.heading + wanted * WORM_TURN;
        self.heading = turned.unit_or(self.heading.perpendicular());
        self.at = keep_off_rocks(self.at + self.heading * (speed * DT), rocks);
    }
}

fn somewhere(rng: &mut Rng) -> Vec2 {
    Vec2::new(
        rng.between(80.0, ARENA_W - 80.0),
        rng.between(80.0, ARENA_H - 80.0),
    )
}

/// Inside the arena and, rock by rock, outside the rocks (they stand far enough apart).
fn keep_off_rocks(mut at: Vec2, rocks: &[Rock]) -> Vec2 {
    for rock in rocks {
        let reach = rock.radius + ROCK_CLEAR;
        if at.distance(rock.at) < reach {
            at = rock.at + (at - rock.at).unit_or(Vec2::new(1.0, 0.0)) * reach;
        }
    }
    Vec2::new(at.x.clamp(0.0, ARENA_W), at.y.clamp(0.0, ARENA_H))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(id: AvatarId, x: f64, loudness: f64) -> Sound {
        Sound {
            prey: Prey::Player(id),
            at: Vec2::new(x, 750.0),
            velocity: Vec2::ZERO,
            loudness,
        }
    }

    fn awake(x: f64) -> (Worm, Rng) {
        let mut rng = Rng::seeded(5);
        let mut worm = Worm::new(Vec2::new(x, 750.0), &mut rng);
        worm.mood = Mood::Roam {
            goal: Vec2::new(x, 100.0),
        };
        (worm, rng)
    }

    #[test]
    fn it_hunts_the_noisiest_of_two_at_the_same_distance() {
        let (mut worm, mut rng) = awake(1200.0);
        worm.step(
            &[sound(1, 900.0, 0.4), sound(2, 1500.0, 0.6)],
            &[],
            0.0,
            &mut rng,
        );
        assert_eq!(
            worm.mood,
            Mood::Hunt {
                prey: Prey::Player(2)
            }
        );
    }

    #[test]
    fn it_hears_nobody_who_stands_still() {
        let (mut worm, mut rng) = awake(1200.0);
        worm.step(&[sound(1, 1210.0, 0.0)], &[], 0.0, &mut rng);
        assert!(matches!(worm.mood, Mood::Roam { .. }));
    }

    #[test]
    fn it_trembles_before_it_strikes_and_dives_after() {
        let (mut worm, mut rng) = awake(1200.0);
        let prey = [sound(1, 1240.0, 0.9)];
        let mut opened = Vec::new();
        for tick in 0..(2 + WINDUP_TICKS + BREACH_TICKS) {
            if worm.step(&prey, &[], 0.0, &mut rng) {
                opened.push(tick);
            }
        }
        assert_eq!(opened, [1 + WINDUP_TICKS]);
        assert!(matches!(worm.mood, Mood::Dive { .. }));
    }

    #[test]
    fn it_never_strikes_a_rock() {
        let rock = Rock {
            at: Vec2::new(1200.0, 750.0),
            radius: 100.0,
        };
        let (mut worm, mut rng) = awake(1000.0);
        for _ in 0..300 {
            let opened = worm.step(&[sound(1, 1200.0, 1.0)], &[rock], 1.0, &mut rng);
            assert!(!opened);
            assert!(worm.at.distance(rock.at) >= rock.radius);
        }
    }
}
