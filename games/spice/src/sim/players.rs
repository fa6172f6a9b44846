//! Players' bodies: running, dashing, bumping, stealing, falling and waking.

use super::rules::{
    ARENA_H, ARENA_W, COMBO_MAX, COMBO_STEP, COMBO_TICKS, DASH_COOLDOWN, DASH_NOISE, DASH_SPEED,
    DASH_TICKS, DOWN_TICKS, DT, GRIP, KNOCK_SPEED, LIVES, NOISE_FOLLOW, PLAYER_RADIUS, ROCK_FOLLOW,
    RUN_NOISE, RUN_SPEED, SHIELD_TICKS, STEAL_BASE, STEAL_GUARD_TICKS, STEAL_MAX, STUN_TICKS,
    WAKE_SHIELD_TICKS,
};
use super::{Avatar, AvatarId, Event, Rock, Status, Vec2, World};

impl Avatar {
    pub(super) fn new(id: AvatarId, at: Vec2) -> Self {
        Self {
            id,
            status: Status::Waiting,
            asleep: None,
            at,
            velocity: Vec2::ZERO,
            steer: Vec2::ZERO,
            facing: Vec2::new(1.0, 0.0),
            score: 0,
            best: 0,
            lives: LIVES,
            combo: 0,
            combo_left: 0,
            noise: 0.0,
            dash: 0,
            dash_wait: 0,
            dash_wanted: false,
            shield: 0,
            stun: 0,
            steal_guard: 0,
            on_rock: false,
        }
    }

    /// Has entered this round and still has lives.
    pub(crate) fn in_round(&self) -> bool {
        matches!(self.status, Status::Running | Status::Down { .. })
    }

    pub(super) fn can_be_eaten(&self) -> bool {
        self.status == Status::Running && self.shield == 0 && self.asleep.is_none()
    }

    /// Points are multiplied by this, 1 to 8.
    pub(crate) fn multiplier(&self) -> u32 {
        (1 + self.combo / COMBO_STEP).min(COMBO_MAX)
    }

    pub(super) fn begin_run(&mut self, at: Vec2) {
        let (id, best, steer) = (self.id, self.best, self.steer);
        *self = Self::new(id, at);
        self.best = best;
        self.steer = steer;
        self.status = Status::Running;
        self.shield = SHIELD_TICKS;
    }

    pub(super) fn fall_asleep(&mut self, grace: u32) {
        self.asleep = Some(grace);
        self.steer = Vec2::ZERO;
        self.velocity = Vec2::ZERO;
        self.dash = 0;
        self.dash_wanted = false;
        self.noise = 0.0;
    }

    pub(super) fn wake(&mut self) {
        if self.asleep.take().is_some() {
            self.shield = self.shield.max(WAKE_SHIELD_TICKS);
        }
    }

    pub(super) fn settle(&mut self) {
        self.best = self.best.max(self.score);
        self.velocity = Vec2::ZERO;
        self.noise = 0.0;
        self.dash = 0;
        self.combo = 0;
        self.combo_left = 0;
    }

    pub(super) fn be_swallowed(&mut self) {
        self.lives = self.lives.saturating_sub(1);
        self.settle();
        self.status = if self.lives == 0 {
            Status::Out
        } else {
            Status::Down { left: DOWN_TICKS }
        };
    }

    /// Adds a pick-up to the combo and its points to the score; the points.
    pub(super) fn collect(&mut self, value: u32) -> u32 {
        self.combo = self.combo.saturating_add(1);
        self.combo_left = COMBO_TICKS;
        let points = value.saturating_mul(self.multiplier());
        self.score = self.score.saturating_add(points);
        self.best = self.best.max(self.score);
        points
    }

    fn tick_timers(&mut self) {
        for timer in [
            &mut self.dash,
            &mut self.dash_wait,
            &mut self.shield,
            &mut self.stun,
            &mut self.steal_guard,
            &mut self.combo_left,
        ] {
            *timer = timer.saturating_sub(1);
        }
        if self.combo_left == 0 {
            self.combo = 0;
        }
    }

    fn run(&mut self, rocks: &[Rock]) {
        if self.stun > 0 {
            self.velocity = self.velocity * 0.88;
        } else {
            self.facing = self.steer.unit_or(self.facing);
            if self.dash_wanted && self.dash_wait == 0 {
                self.dash = DASH_TICKS;
                self.dash_wait = DASH_COOLDOWN;
                self.noise += DASH_NOISE;
            }
            self.velocity = if self.dash > 0 {
                self.facing * DASH_SPEED
            } else {
                self.velocity + (self.steer * RUN_SPEED - self.velocity) * GRIP
            };
        }
        self.dash_wanted = false;
        self.at = in_arena(self.at + self.velocity * DT);
        self.on_rock = rocks.iter().any(|rock| rock.holds(self.at));
        self.make_noise();
    }

    fn make_noise(&mut self) {
        let pace = (self.velocity.length() / RUN_SPEED).min(1.0);
        let (target, follow) = if self.on_rock {
            (0.0, ROCK_FOLLOW)
        } else {
            // Walking at half pace is nearly silent: the square rewards patience.
            (pace * pace * RUN_NOISE, NOISE_FOLLOW)
        };
        self.noise = (self.noise + (target - self.noise) * follow).clamp(0.0, 1.0);
    }
}

impl World {
    pub(super) fn move_players(&mut self) {
        for index in 0..self.avatars.len() {
            match self.avatars[index].status {
                Status::Waiting | Status::Out => {}
                Status::Down { left } if left > 1 => {
                    self.avatars[index].status = Status::Down { left: left - 1 };
                }
                Status::Down { .. } => {
                    let at = self.spawn_point();
                    let avatar = &mut self.avatars[index];
                    avatar.status = Status::Running;
                    avatar.at = at;
                    avatar.shield = SHIELD_TICKS;
                    avatar.dash_wanted = false;
                }
                Status::Running => {
                    let avatar = &mut self.avatars[index];
                    if avatar.asleep.is_none() {
                        avatar.tick_timers();
                        avatar.run(&self.rocks);
                    }
                }
            }
        }
    }

    /// Bodies do not overlap; a dash into somebody knocks them over and takes some of their spice.
    pub(super) fn bump_players(&mut self) {
        for first in 0..self.avatars.len() {
            let (head, tail) = self.avatars.split_at_mut(first + 1);
            let Some(a) = head.last_mut() else { continue };
            for b in tail {
                if !(a.solid() && b.solid()) || a.at.distance(b.at) >= 2.0 * PLAYER_RADIUS {
                    continue;
                }
                let apart = (b.at - a.at).unit_or(Vec2::new(1.0, 0.0));
                let overlap = 2.0 * PLAYER_RADIUS - a.at.distance(b.at);
                a.at = in_arena(a.at - apart * (overlap * 0.5));
                b.at = in_arena(b.at + apart * (overlap * 0.5));
                match (a.dash > 0, b.dash > 0) {
                    (true, true) => {
                        a.knock(apart * -1.0);
                        b.knock(apart);
                        self.events.push(Event::Bumped { at: a.at });
                    }
                    (true, false) => self.events.extend(rob(a, b, apart)),
                    (false, true) => self.events.extend(rob(b, a, apart * -1.0)),
                    (false, false) => {}
                }
            }
        }
    }

    /// On a rock, away from the others where possible.
    pub(super) fn spawn_point(&mut self) -> Vec2 {
        let mut best = (f64::MIN, Vec2::new(ARENA_W / 2.0, ARENA_H / 2.0));
        for _ in 0..4 {
            let Some(rock) = self.rocks.get(self.rng.below(self.rocks.len())).copied() else {
                break;
            };
            let at = rock.at + self.rng.direction() * (rock.radius * 0.5);
            let room = self
                .avatars
                .iter()
                .filter(|avatar| avatar.in_round())
                .map(|avatar| avatar.at.distance(at))
                .fold(1e9, f64::min);
            if room > best.0 {
                best = (room, in_arena(at));
            }
        }
        best.1
    }
}

impl Avatar {
    fn solid(&self) -> bool {
        self.status == Status::Running && self.asleep.is_none()
    }

    fn knock(&mut self, away: Vec2) {
        self.dash = 0;
        self.stun = STUN_TICKS;
        self.velocity = away * KNOCK_SPEED;
    }
}

fn rob(thief: &mut Avatar, victim: &mut Avatar, away: Vec2) -> [Event; 1] {
    thief.dash = 0;
    let at = victim.at;
    if victim.shield > 0 || victim.steal_guard > 0 {
        return [Event::Bumped { at }];
    }
    victim.knock(away);
    victim.steal_guard = STEAL_GUARD_TICKS;
    victim.combo = 0;
    let points = (STEAL_BASE + victim.score / 10)
        .min(STEAL_MAX)
        .min(victim.score);
    victim.score -= points;
    thief.score = thief.score.saturating_add(points);
    thief.best = thief.best.max(thief.score);
    [Event::Stolen {
        by: thief.id,
        from: victim.id,
        points,
        at,
    }]
}

fn in_arena(at: Vec2) -> Vec2 {
    Vec2::new(
        at.x.clamp(PLAYER_RADIUS, ARENA_W - PLAYER_RADIUS),
        at.y.clamp(PLAYER_RADIUS, ARENA_H - PLAYER_RADIUS),
    )
}
