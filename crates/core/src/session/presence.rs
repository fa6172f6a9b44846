//! Who is there and what they do: roster, connections, leases, activity.

use super::event::{Effect, Heartbeat, Notice, Status};
use super::step::{Moved, Transition, refuse, reject};
use super::{FOREVER, Phase, Player};
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
            return if n == 0 {
                self.glanced(player)
            } else {
                reject("nothing changed")
            };
        }
        let (there, had) = (p.is_present(now), p.connections);
        p.connections = n;
        if self.next.policy.sight == Sight::Requests {
            return self.requests(player, had, there);
        }
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

    /// Whoever came and left between two reports was here all the same: one who never was has not stayed away, and the grace counts
    /// from this visit. Of requests the data tells as much.
    fn glanced(&mut self, player: &PlayerId) -> Moved {
        let now = self.now;
        let s = &self.next;
        let accepted = matches!(s.phase, Phase::Ready | Phase::Running | Phase::Replacing);
        if !accepted || s.policy.sight == Sight::Requests {
            return reject("nothing changed");
        }
        self.arrived(player);
        if let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) {
            p.gone_since = Some(now);
        }
        self.effects
            .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
        Ok("a player came and left between two reports")
    }

    /// Requests begin and end all the time; the first makes somebody there, and only a lapsed lease makes them leave.
    fn requests(&mut self, player: &PlayerId, had: u32, there: bool) -> Moved {
        let now = self.now;
        if had == 0 {
            self.visit(player, now);
            if there {
                return Ok("a player who is there asks for something");
            }
            self.arrived(player);
            return Ok("a player asks for something");
        }
        let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) else {
            return reject("not on the roster");
        };
        if p.is_present(now) {
            return Ok("a player's requests were counted");
        }
        // Something was kept open for longer than the lease, and is closed now.
        p.gone_since = Some(now);
        self.effects
            .push(Effect::Announce(Notice::PlayerLeft(player.clone())));
        Ok("what a player had kept open is closed")
    }

    /// They were there at that moment, and are believed to be until the idle timeout has passed since.
    fn visit(&mut self, player: &PlayerId, at: Moment) {
        let until = self.lease_from(at);
        if let Some(p) = self.next.roster.iter_mut().find(|p| p.id == *player) {
            p.lease_until = p.lease_until.max(Some(until));
        }
    }

    fn lease_from(&self, at: Moment) -> Moment {
        self.next.policy.idle.map_or(FOREVER, |idle| at.after(idle))
    }

    /// Something of a player was seen, between the reports of requests or by heartbeat.
    fn seen(&mut self, player: &PlayerId, at: Moment) -> bool {
        let (now, accepts) = (self.now, self.next.phase.accepts());
        let until = self.lease_from(at);
        let Some(p) = self.next.player(player) else {
            return false;
        };
        if p.lease_until >= Some(until) || until <= now {
            return false;
        }
        let there = p.is_present(now);
        if !there && !accepts {
            return false;
        }
        self.visit(player, at);
        if !there {
            self.arrived(player);
        }
        true
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
        let whole = match self.next.policy.sight {
            Sight::Requests => self.lease_from(now),
            Sight::Gateway | Sight::Direct => now,
        };
        let s = &mut self.next;
        for p in &mut s.roster {
            let left = p.gone_since.is_some();
            p.gone_since = p.gone_since.map(|_| now);
            p.lease_until = p.lease_until.map(|l| l.max(if left { now } else { whole }));
        }
        s.emptied_at = s.emptied_at.map(|_| now);
        if s.first_joined_at.is_some() {
            s.server_active = s.server_active.max(Some(now));
        }
    }

    /// Players whose lease ran out have left.
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
        // Anybody may have come and gone unseen, where an instance accepted: graces start now. It did for whoever has played, also
        // while nobody can say how the instance is (taken over after a restart, it counts as starting).
        let accepted = matches!(s.phase, Phase::Ready | Phase::Running | Phase::Replacing);
        if accepted || s.first_joined_at.is_some() {
            let lease = match s.policy.sight {
                Sight::Gateway => None,
                // Whoever was there, as far as anybody knows, may be reading: only the idle timeout says that they are not.
                Sight::Requests => s.first_joined_at.map(|_| self.lease_from(since)),
                Sight::Direct => Some(now),
            };
            let reads = self.next.policy.sight == Sight::Requests;
            for p in &mut self.next.roster {
                if reads && p.gone_since.is_none() {
                    p.lease_until = p.lease_until.max(lease);
                }
                if !p.is_present(now) {
                    p.gone_since = Some(now);
                    p.lease_until = if reads {
                        p.lease_until
                    } else {
                        lease.or(p.lease_until)
                    };
                }
            }
        }
        Ok("the gateways have reported in full")
    }

    pub(super) fn data(&mut self, player: Option<&PlayerId>, at: Moment) -> Moved {
        let at = at.min(self.now);
        let requests = self.next.policy.sight == Sight::Requests;
        let seen = player.is_some_and(|p| requests && self.seen(p, at));
        match self.activity(player, at) {
            Err(_) if seen => Ok("a player asked for something"),
            moved => moved,
        }
    }

    fn activity(&mut self, player: Option<&PlayerId>, at: Moment) -> Moved {
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
            match self.next.policy.sight {
                Sight::Gateway => {}
                Sight::Requests => {
                    if beat.status == Status::Active {
                        self.seen(id, at);
                    }
                }
                Sight::Direct => self.lease(id, beat.status, now.after(ttl)),
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
        self.lease_until
            .filter(|until| *until != FOREVER && self.gone_since.is_none() && self.connections == 0)
    }
}
