//! Who is there and what they do: roster, connections, leases, activity.

use super::event::{Effect, Heartbeat, Notice, Status};
use super::step::{Moved, Transition, refuse, reject};
use super::{Phase, Player};
use crate::Code;
use crate::Moment;
use crate::id::PlayerId;
use crate::lifecycle::{ActivityRule, Sight};
use crate::limits::MAX_HEARTBEAT_TTL;
use crate::time::Known;

impl Transition {
    pub(super) fn join(&mut self, player: &PlayerId) -> Moved {
        if self.next.player(player).is_some() {
            return reject("already on the roster");
        }
        if self.next.roster.len() >= self.next.policy.max_players {
            return refuse(Code::SessionFull, "every place is taken");
        }
        self.next.roster.push(Player::new(player.clone(), self.now));
        if self.next.owner.is_none() {
            self.next.owner = Some(player.clone());
        }
        self.effects.push(Effect::Save);
        Ok("a player joined the roster")
    }

    pub(super) fn leave(&mut self, player: &PlayerId) -> Moved {
        let Some(at) = self.next.roster.iter().position(|p| p.id == *player) else {
            return refuse(Code::PlayerNotInSession, "not on the roster");
        };
        let s = &mut self.next;
        let gone = s.roster.remove(at);
        // What they did stays done: without this the idle deadline would jump back to that of those who stay.
        s.server_active = s.server_active.max(gone.last_active);
        let unseen = matches!(s.sight, Known::Unknown { .. });
        let last_there = if gone.is_present(self.now) || unseen {
            self.now
        } else {
            gone.lease_until
                .max(gone.gone_since)
                .unwrap_or(gone.joined_at)
        };
        s.emptied_at = s.emptied_at.max(Some(last_there));
        if s.owner.as_ref() == Some(player) {
            s.owner = s.roster.first().map(|p| p.id.clone());
        }
        self.effects
            .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
        self.effects.push(Effect::Save);
        Ok("a player left the roster")
    }

    pub(super) fn connections(&mut self, player: &PlayerId, n: u32) -> Moved {
        let now = self.now;
        let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) else {
            return reject("not on the roster");
        };
        if p.connections == n {
            return reject("nothing changed");
        }
        let had = std::mem::replace(&mut p.connections, n);
        if n == 0 {
            p.gone_since = Some(now);
            self.effects
                .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
            return Ok("a player's last connection closed");
        }
        if had > 0 {
            return Ok("a player's connections were counted");
        }
        self.arrived(player);
        Ok("a player connected")
    }

    /// A player is here who was not.
    fn arrived(&mut self, player: &PlayerId) {
        let now = self.now;
        if let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) {
            p.gone_since = None;
            // Coming is doing something; coming back is not. An abandoned tab whose proxy cuts it every few minutes reconnects
            // for ever.
            p.last_active = p.last_active.or(Some(now));
        }
        self.effects
            .push(Effect::Announce(Notice::PlayerJoined(player.clone())));
        if self.next.first_joined_at.is_none() {
            self.next.first_joined_at = Some(now);
            self.effects.push(Effect::Save);
        }
        if self.next.phase == Phase::Ready {
            self.enter(Phase::Running);
        }
    }

    /// An instance accepts: whoever was with the one before could not come back until now, nor do anything.
    pub(super) fn restart_graces(&mut self) {
        let now = self.now;
        let s = &mut self.next;
        for p in &mut s.roster {
            p.gone_since = p.gone_since.map(|_| now);
            p.lease_until = p.lease_until.map(|l| l.max(now));
        }
        s.emptied_at = s.emptied_at.map(|_| now);
        if s.first_joined_at.is_some() {
            s.server_active = s.server_active.max(Some(now));
        }
    }

    /// Direct modes: players whose lease ran out have left.
    pub(super) fn lapse_leases(&mut self) -> bool {
        let now = self.now;
        let before = self.effects.len();
        for p in &mut self.next.roster {
            if p.lease_lapses().is_some_and(|l| l <= now) {
                p.gone_since = p.lease_until;
                self.effects
                    .push(Effect::Announce(Notice::PlayerLeft(p.id.clone())));
            }
        }
        self.effects.len() > before
    }

    pub(super) fn sight_lost(&mut self) -> Moved {
        if matches!(self.next.sight, Known::Unknown { .. }) {
            return reject("already unknown");
        }
        self.next.sight = Known::Unknown { since: self.now };
        Ok("nobody can say who is connected")
    }

    pub(super) fn sight_regained(&mut self) -> Moved {
        let Known::Unknown { since } = self.next.sight else {
            return reject("already known");
        };
        let now = self.now;
        let s = &mut self.next;
        s.sight = Known::Is(());
        // Gateways keep their own idle clocks and have reported them; the last moment seen stays counted, so that learning more
        // never brings the idle deadline nearer.
        s.server_active = s.server_active.max(Some(since));
        // Anybody may have come and gone unseen, where an instance accepted: graces start now.
        if matches!(s.phase, Phase::Ready | Phase::Running | Phase::Replacing) {
            let direct = s.policy.sight == Sight::Direct;
            for p in s.roster.iter_mut().filter(|p| !p.is_present(now)) {
                p.gone_since = Some(now);
                if direct {
                    p.lease_until = Some(now);
                }
            }
        }
        Ok("the gateways have reported in full")
    }

    pub(super) fn data(&mut self, player: Option<&PlayerId>, at: Moment) -> Moved {
        let at = at.min(self.now);
        let s = &mut self.next;
        match (s.policy.activity, player) {
            (ActivityRule::Heartbeat, _) => {
                reject("only heartbeats count as activity in this fleet")
            }
            (ActivityRule::ClientData, None) => {
                reject("what the server sends does not count as activity")
            }
            (ActivityRule::Any, None) => {
                let mut here = s
                    .roster
                    .iter()
                    .filter(|p| p.is_present(self.now))
                    .peekable();
                if here.peek().is_some() && here.all(|p| p.inactive) {
                    return reject("everybody there said that they are inactive");
                }
                if s.server_active >= Some(at) {
                    return reject("older than what is known");
                }
                s.server_active = Some(at);
                Ok("the server sent data")
            }
            (ActivityRule::Any | ActivityRule::ClientData, Some(id)) => {
                let Some(p) = s.roster.iter_mut().find(|p| p.id == *id) else {
                    return reject("not on the roster");
                };
                if p.last_active >= Some(at) {
                    return reject("older than what is known");
                }
                p.last_active = Some(at);
                // Reports come in batches: data from before they said `inactive` does not contradict it.
                p.inactive = p.inactive && p.inactive_at >= Some(at);
                Ok("a player sent data")
            }
        }
    }

    pub(super) fn heartbeat(&mut self, beat: &Heartbeat) -> Moved {
        let now = self.now;
        let at = now.before(beat.idle);
        let ttl = beat
            .ttl
            .unwrap_or(self.next.policy.heartbeat.saturating_mul(3))
            .min(MAX_HEARTBEAT_TTL);
        if let Some(id) = &beat.player {
            let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *id) else {
                return refuse(Code::PlayerNotInSession, "not on the roster");
            };
            match beat.status {
                Status::Active => {
                    p.inactive = false;
                    p.last_active = p.last_active.max(Some(at));
                }
                Status::Inactive => {
                    p.inactive = true;
                    p.inactive_at = Some(now);
                }
                Status::Busy => {}
            }
            if self.next.policy.sight == Sight::Direct {
                self.lease(id, beat.status, now.after(ttl));
            }
        } else if beat.status == Status::Active {
            self.next.server_active = self.next.server_active.max(Some(at));
        }
        if beat.status == Status::Busy {
            self.next.busy_until = self.next.busy_until.max(Some(now.after(ttl)));
        }
        Ok(match (beat.status, &beat.player) {
            (Status::Active, Some(_)) => "a player reported activity",
            (Status::Inactive, Some(_)) => "a player reported no activity",
            (Status::Busy, Some(_)) => "a player's quiet work goes on",
            (Status::Active, None) => "the server's side reported activity",
            (Status::Inactive, None) => "the server's side reported no activity",
            (Status::Busy, None) => "a quiet worker is alive",
        })
    }

    /// Direct modes: a heartbeat is a lease on being there. `inactive` keeps somebody there (a hidden tab) but brings nobody, and
    /// before the instance accepts nobody can be there.
    fn lease(&mut self, player: &PlayerId, status: Status, until: Moment) {
        let now = self.now;
        let comes = status != Status::Inactive && self.next.phase.accepts();
        let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) else {
            return;
        };
        let here = p.lease_until.is_some_and(|l| l > now);
        if here || comes {
            p.lease_until = Some(until);
        }
        if comes && !here {
            self.arrived(player);
        }
    }
}

impl Player {
    /// When their lease runs out, if it has not been noticed yet.
    pub(super) fn lease_lapses(&self) -> Option<Moment> {
        self.lease_until.filter(|_| self.gone_since.is_none())
    }
}
