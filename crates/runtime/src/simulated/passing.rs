//! What happens to simulated games as time passes, and who is told.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use spawnpoint_core::session::Exit;
use spawnpoint_core::{InstanceId, Moment};
use tokio::time::Instant;

use super::SimulatedConfig;
use super::script::End;
use super::world::{Due, Game, Inner, What};
use crate::chance::mix;
use crate::{Change, Instance, ReadyRule, RuntimeError, State};

/// The signal that ends what heeds it, and the one that ends the rest.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Inner {
    pub(super) fn game(&mut self, id: InstanceId) -> Result<&mut Game, RuntimeError> {
        self.games.get_mut(&id).ok_or(RuntimeError::NotFound)
    }

    pub(super) fn list(&self) -> Vec<Instance> {
        self.order
            .iter()
            .filter_map(|id| self.games.get(id))
            .map(|g| g.view(self.blind_since))
            .collect()
    }

    /// Drops forgotten ids from the order once they are the larger part: O(1) an order over time.
    pub(super) fn sweep(&mut self) {
        if self.order.len() > 2 * self.games.len() + 64 {
            let games = &self.games;
            self.order.retain(|id| games.contains_key(id));
        }
    }

    pub(super) fn send(&self, change: Change) {
        // Nobody watching is no error.
        let _ = self.watchers.send(change);
    }

    /// Tells watchers how an instance is now.
    pub(super) fn tell(&self, id: InstanceId) {
        if self.watchers.receiver_count() == 0 || self.blind_since.is_some() {
            return;
        }
        if let Some(game) = self.games.get(&id)
            && game.lost_since.is_none()
        {
            self.send(Change::One(Box::new(game.view(None))));
        }
    }

    pub(super) fn plan(&mut self, id: InstanceId, run: u64, after: Duration, what: What) {
        self.serial += 1;
        self.agenda.push(Reverse(Due {
            at: Instant::now() + after,
            serial: self.serial,
            run,
            id,
            what,
        }));
    }

    /// Starts (again) what has a place.
    pub(super) fn run(&mut self, id: InstanceId, config: &SimulatedConfig) {
        self.serial += 1;
        let run = self.serial;
        let now = self.clock.now();
        let Some(game) = self.games.get_mut(&id) else {
            return;
        };
        game.run = run;
        game.seen.state = State::Starting;
        let t = &mut game.seen.timings;
        t.released_at = t.released_at.or(Some(now));
        t.pulled_at = t.pulled_at.or(t.released_at);
        t.spawned_at = Some(now);
        let draw = |n: u64| mix(config.seed ^ mix(run.wrapping_mul(8).wrapping_add(n)));
        let boot = game
            .script
            .boot
            .unwrap_or_else(|| config.boot.pick(draw(0)));
        let accepts = !game.script.never_ready && game.rule != ReadyRule::Sdk;
        let ends = game.script.ends.or_else(|| {
            let life = config.life?.pick(draw(1));
            let crashes = draw(2) % 1_000 < u64::from(config.crashes);
            Some((life, if crashes { End::Code(1) } else { End::Code(0) }))
        });
        if !game.script.lines.is_empty() {
            let text = game.script.lines.join("\n") + "\n";
            game.log().write(text.as_bytes());
        }
        if let Some((after, End::NeverRan)) = ends
            && after.is_zero()
        {
            self.exits(id, End::NeverRan);
            return;
        }
        // Kept with the game, so that a restart of its owner changes nothing about how it will end.
        game.script.ends = game.script.ends.or(ends);
        self.tell(id);
        if accepts {
            self.plan(id, run, boot, What::Accepts);
        }
        if let Some((after, _)) = ends {
            self.plan(id, run, after, What::Ends);
        }
    }

    pub(super) fn happen(&mut self, due: Due) {
        let Some(game) = self.games.get_mut(&due.id) else {
            return;
        };
        if game.run != due.run || game.is_over() {
            return;
        }
        match due.what {
            What::Accepts => {
                if game.seen.state == State::Starting {
                    self.accepts(due.id);
                }
            }
            What::Ends => {
                if let Some((_, end)) = game.script.ends {
                    game.results = game.script.results.clone().map(Bytes::from);
                    self.exits(due.id, end);
                }
            }
            What::Killed => {
                let by = if game.script.ignores_term {
                    SIGKILL
                } else {
                    SIGTERM
                };
                self.exits(due.id, End::Signal(by));
            }
        }
    }

    pub(super) fn accepts(&mut self, id: InstanceId) {
        let now = self.clock.now();
        if let Some(game) = self.games.get_mut(&id) {
            game.seen.state = State::Ready;
            game.seen.timings.ready_at = Some(now);
            self.tell(id);
        }
    }

    pub(super) fn exits(&mut self, id: InstanceId, end: End) {
        let exit = end.exit(self.clock.now());
        self.exited(id, exit);
    }

    pub(super) fn exited(&mut self, id: InstanceId, exit: Exit) {
        let blind = self.blind_since.is_some();
        let Some(game) = self.games.get_mut(&id) else {
            return;
        };
        if game.is_over() {
            return;
        }
        game.seen.state = State::Exited(exit);
        game.ended_unseen = blind || game.lost_since.is_some();
        if let Some(log) = &game.log {
            log.set_over(true);
        }
        self.tell(id);
    }

    pub(super) fn set_results(&mut self, id: InstanceId, results: Option<Bytes>) {
        if let Some(game) = self.games.get_mut(&id) {
            game.results = results;
        }
    }

    pub(super) fn write_log(&mut self, id: InstanceId, bytes: &[u8]) {
        if let Some(game) = self.games.get_mut(&id) {
            game.log().write(bytes);
        }
    }

    /// One instance cannot be seen any more, or again.
    pub(super) fn lose(&mut self, id: InstanceId, since: Option<Moment>) {
        let blind = self.blind_since;
        if let Some(game) = self.games.get_mut(&id) {
            game.lost_since = since;
            game.ended_unseen &= since.is_some() || blind.is_some();
            let view = game.view(blind);
            self.send(Change::One(Box::new(view)));
        }
    }

    /// Nothing can be seen any more, or everything again.
    pub(super) fn lose_all(&mut self, since: Option<Moment>) {
        self.blind_since = since;
        if since.is_none() {
            for game in self.games.values_mut() {
                game.ended_unseen &= game.lost_since.is_some();
            }
        }
        self.send(Change::All(self.list()));
    }
}
