//! What lies in the sand: rocks, spice, blows and thumpers.

use super::rng::Rng;
use super::rules::{
    ARENA_H, ARENA_W, BLOW_EVERY, BLOW_RADIUS, BLOW_SPICE, BLOW_WARN, PICK_RADIUS, RICH_POINTS,
    ROCK_GAP, ROCK_MAX, ROCK_MIN, ROCKS, SPICE_BASE, SPICE_EVERY, SPICE_MAX, SPICE_PER_PLAYER,
    SPICE_POINTS, THUMPER_EVERY, THUMPER_TICKS, THUMPERS_MAX,
};
use super::{Avatar, Blow, Event, Rock, Spice, Thumper, Vec2, World};

/// Keeps rocks and spice off the border, where a player cannot get around them.
const MARGIN: f64 = 60.0;

pub(super) fn place_rocks(rng: &mut Rng) -> Vec<Rock> {
    let mut rocks: Vec<Rock> = Vec::with_capacity(ROCKS);
    // Bounded: a seed that keeps missing gets fewer rocks, never a hang.
    for _ in 0..400 {
        if rocks.len() == ROCKS {
            break;
        }
        let radius = rng.between(ROCK_MIN, ROCK_MAX);
        let edge = radius + MARGIN;
        let at = Vec2::new(
            rng.between(edge, ARENA_W - edge),
            rng.between(edge, ARENA_H - edge),
        );
        let free = rocks
            .iter()
            .all(|rock| rock.at.distance(at) > rock.radius + radius + ROCK_GAP * 0.6);
        if free {
            rocks.push(Rock { at, radius });
        }
    }
    rocks
}

impl World {
    pub(super) fn scatter_first_spice(&mut self) {
        // Each trail adds at least one; the bound only guards against a desert all of rock.
        for _ in 0..SPICE_MAX {
            if self.spice.len() >= SPICE_BASE {
                break;
            }
            self.add_trail();
        }
        self.spice_version = self.spice_version.wrapping_add(1);
    }

    fn sandy_spot(&mut self) -> Option<Vec2> {
        for _ in 0..16 {
            let at = Vec2::new(
                self.rng.between(MARGIN, ARENA_W - MARGIN),
                self.rng.between(MARGIN, ARENA_H - MARGIN),
            );
            if self.is_open_sand(at) {
                return Some(at);
            }
        }
        None
    }

    fn is_open_sand(&self, at: Vec2) -> bool {
        let inside = at.x >= MARGIN
            && at.y >= MARGIN
            && at.x <= ARENA_W - MARGIN
            && at.y <= ARENA_H - MARGIN;
        inside
            && self
                .rocks
                .iter()
                .all(|rock| rock.at.distance(at) > rock.radius + 30.0)
    }

    fn add_spice(&mut self, at: Vec2, rich: bool) {
        if self.spice.len() < SPICE_MAX && self.is_open_sand(at) {
            let id = self.fresh_id();
            self.spice.push(Spice { id, at, rich });
            self.spice_version = self.spice_version.wrapping_add(1);
        }
    }

    /// A short line of spice: something to run along, which is what builds a combo.
    fn add_trail(&mut self) {
        let Some(start) = self.sandy_spot() else {
            return;
        };
        let mut way = self.rng.direction();
        let mut at = start;
        for _ in 0..(3 + self.rng.below(4)) {
            self.add_spice(at, false);
            way = (way + self.rng.direction() * 0.5).unit_or(way);
            at += way * 62.0;
        }
    }

    pub(super) fn pick_up(&mut self) {
        let events = &mut self.events;
        let avatars = &mut self.avatars;
        let before = self.spice.len();
        self.spice.retain(|spice| {
            let Some(who) = nearest_within(avatars, spice.at, PICK_RADIUS) else {
                return true;
            };
            let value = if spice.rich {
                RICH_POINTS
            } else {
                SPICE_POINTS
            };
            let points = who.collect(value);
            events.push(Event::Picked {
                who: who.id,
                at: spice.at,
                points,
            });
            false
        });
        if self.spice.len() != before {
            self.spice_version = self.spice_version.wrapping_add(1);
        }
        for thumper in &mut self.thumpers {
            if thumper.pounding.is_none()
                && nearest_within(avatars, thumper.at, PICK_RADIUS).is_some()
            {
                thumper.pounding = Some(THUMPER_TICKS);
                events.push(Event::Thumping { at: thumper.at });
            }
        }
    }

    pub(super) fn grow_sand(&mut self) {
        let playing = self.avatars.iter().filter(|a| a.in_round()).count();
        let wanted = (SPICE_BASE + SPICE_PER_PLAYER * playing).min(SPICE_MAX);
        if self.tick.is_multiple_of(SPICE_EVERY) && self.spice.len() < wanted {
            self.add_trail();
        }
        self.grow_blow();
        for thumper in &mut self.thumpers {
            thumper.pounding = thumper.pounding.map(|left| left.saturating_sub(1));
        }
        self.thumpers.retain(|thumper| thumper.pounding != Some(0));
        if self.ticks_left % THUMPER_EVERY == THUMPER_EVERY / 2
            && self.thumpers.len() < THUMPERS_MAX
            && let Some(at) = self.sandy_spot()
        {
            let id = self.fresh_id();
            self.thumpers.push(Thumper {
                id,
                at,
                pounding: None,
            });
        }
    }

    fn grow_blow(&mut self) {
        match self.blow {
            Some(Blow { at, left }) if left > 1 => {
                self.blow = Some(Blow { at, left: left - 1 });
            }
            Some(Blow { at, .. }) => {
                self.blow = None;
                self.events.push(Event::Erupted { at });
                self.add_spice(at, true);
                for _ in 0..BLOW_SPICE {
                    let away = self.rng.direction() * self.rng.between(30.0, BLOW_RADIUS);
                    self.add_spice(at + away, false);
                }
            }
            None => {
                if self.ticks_left % BLOW_EVERY == BLOW_EVERY / 3 {
                    self.blow = self.sandy_spot().map(|at| Blow {
                        at,
                        left: BLOW_WARN,
                    });
                }
            }
        }
    }
}

fn nearest_within(avatars: &mut [Avatar], at: Vec2, reach: f64) -> Option<&mut Avatar> {
    let mut best: Option<(f64, usize)> = None;
    for (index, avatar) in avatars.iter().enumerate() {
        let running = avatar.status == super::Status::Running && avatar.asleep.is_none();
        let distance = avatar.at.distance(at);
        if running && distance < reach && best.is_none_or(|(top, _)| distance < top) {
            best = Some((distance, index));
        }
    }
    best.and_then(|(_, index)| avatars.get_mut(index))
}
