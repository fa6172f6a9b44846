//! Calls about a live session: end, leave, join, heartbeat, extend, tokens.

use std::sync::Arc;
use std::time::Duration;

use spawnpoint_core::lifecycle::{EndedBy, Joinable, Reason};
use spawnpoint_core::limits::MAX_RESULTS;
use spawnpoint_core::session::{EndCaller, EndMeaning, Event, Heartbeat, Phase, Status};
use spawnpoint_core::{Code, Moment, PlayerId, SessionId};
use spawnpoint_wire::api::{EndReply, ExtendReply, HeartbeatReply, WarningView};
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::TokenClaims;

use super::world::Claimed;
use super::{App, Caller, rejected};
use crate::mutant::{self, Mutant};

/// A token lives this much longer than its session's deadline, so that the last reconnect still works.
const TOKEN_SLACK: Duration = Duration::from_secs(600);
/// Life of a token of an unlimited session; renewable.
const TOKEN_UNLIMITED: Duration = Duration::from_secs(24 * 3600);

/// How far an extend goes when neither the call nor the fleet says.
const EXTEND_DEFAULT: Duration = Duration::from_secs(300);

/// A heartbeat, checked.
pub(crate) struct Beat {
    pub(crate) player: Option<PlayerId>,
    pub(crate) status: Status,
    pub(crate) idle_ms: Option<f64>,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) ttl: Option<Duration>,
}

impl App {
    /// The caller must be in the session, or trusted. A stranger learns nothing but that they may not.
    pub(crate) fn allow(&self, id: SessionId, caller: &Caller) -> Result<(), Problem> {
        match caller {
            Caller::Operator | Caller::Backend { .. } => Ok(()),
            Caller::Player(claims) if claims.sid == id || mutant::on(Mutant::ForeignToken) => {
                Ok(())
            }
            Caller::Player(_) => Err(Problem::new(
                Code::Forbidden,
                "this token is for another session",
            )),
            Caller::Guest => Err(Problem::new(
                Code::Unauthenticated,
                "send the session's token (Authorization: Bearer ...) or a backend key",
            )),
        }
    }

    /// Ends a session, or lets the caller leave it.
    pub(crate) async fn end(
        self: &Arc<Self>,
        id: SessionId,
        caller: &Caller,
        spoken_for: Option<&PlayerId>,
        results: Option<String>,
    ) -> Result<EndReply, Problem> {
        let who = match (caller, spoken_for) {
            (Caller::Player(c), _) => EndCaller::Player(&c.sub),
            (_, Some(p)) => EndCaller::Player(p),
            (Caller::Operator, None) => EndCaller::Operator,
            (_, None) => EndCaller::Backend,
        };
        // What the call means and what it does is one step: between the two another player's call could end the session, and leaving
        // one that is ending would be refused.
        let now = self.now();
        let ended = self.change_world(|world| {
            let entry = world.sessions.get_mut(&id)?;
            if !entry.session.phase.is_live() {
                return Some(Ok(true));
            }
            let event = match (entry.session.end_call(who), who) {
                (EndMeaning::Stranger, _) => {
                    return Some(Err(Problem::new(
                        Code::Forbidden,
                        "only those who are in the session may end it",
                    )));
                }
                (EndMeaning::Leave, EndCaller::Player(player)) => Event::Leave(player.clone()),
                (EndMeaning::Leave, _) => return Some(Ok(false)),
                (EndMeaning::End(by), _) => {
                    if let (Some(results), true) = (results, caller.is_trusted()) {
                        entry.results = Some(results);
                    }
                    Event::End {
                        reason: Reason::EndedByClient,
                        by,
                    }
                }
            };
            let fleet = entry.session.fleet.clone();
            let stepped = self.apply_in(world, id, &event, now);
            if let Event::Leave(player) = &event {
                world.release_player(&fleet, player, id);
            }
            let ends = matches!(event, Event::End { .. });
            Some(stepped.map(|_| ends).map_err(rejected))
        });
        self.drive(id);
        if !ended.transpose()?.unwrap_or(true) {
            return Ok(self.end_reply(id, false));
        }
        let durable = self.saved_ending(id).await;
        if self.with_world(|w| !w.sessions.contains_key(&id)) {
            return self.ended_before(id).await;
        }
        if !durable {
            return Err(Problem::new(
                Code::Unknown,
                "the session ends, but that could not be written down yet (is the disk full?); ask again",
            ));
        }
        Ok(self.end_reply(id, true))
    }

    /// A reply that says "ended" is given once the reason is durable: the first reason wins even over a `kill -9` after it.
    async fn saved_ending(&self, id: SessionId) -> bool {
        let saved = self.wait_for(id, Duration::from_secs(5), |e| match e.session.phase {
            Phase::Ending => e.unsaved == 0,
            phase => phase == Phase::Ended,
        });
        saved.await
    }

    fn end_reply(&self, id: SessionId, ended: bool) -> EndReply {
        let world = self.world();
        let entry = world.sessions.get(&id);
        EndReply {
            session_id: id.to_string(),
            ended,
            reason: entry
                .and_then(|e| e.session.ending)
                .map(|e| e.reason.as_str().to_owned()),
            phase: entry
                .map_or(if ended { "ended" } else { "running" }, |e| {
                    e.session.phase.as_str()
                })
                .to_owned(),
        }
    }

    async fn ended_before(&self, id: SessionId) -> Result<EndReply, Problem> {
        match self.records.get(id).await {
            Ok(Some(r)) => Ok(EndReply {
                session_id: id.to_string(),
                ended: true,
                reason: Some(r.reason.as_str().to_owned()),
                phase: "ended".to_owned(),
            }),
            Ok(None) => Err(unknown_session(id)),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes a player off the roster (they leave, or are kicked).
    pub(crate) fn leave(self: &Arc<Self>, id: SessionId, player: &PlayerId) -> Result<(), Problem> {
        let result = self.apply(id, &Event::Leave(player.clone()));
        let mut world = self.world();
        if let Some(fleet) = world.sessions.get(&id).map(|e| e.session.fleet.clone()) {
            world.release_player(&fleet, player, id);
        }
        drop(world);
        result.map(|_| ()).map_err(rejected)
    }

    /// Puts a player on the roster of somebody's session. Returns once that is durable and gateways can see it: the caller connects
    /// with the next breath, and would be turned away as a stranger.
    pub(crate) async fn join(
        self: &Arc<Self>,
        id: SessionId,
        player: &PlayerId,
        invite: Option<&str>,
        trusted: bool,
    ) -> Result<(), Problem> {
        self.enroll(id, player, invite, trusted)?;
        let _ = self
            .wait_for(id, Duration::from_secs(5), |e| e.unsaved == 0)
            .await;
        self.show_route(id);
        Ok(())
    }

    fn enroll(
        self: &Arc<Self>,
        id: SessionId,
        player: &PlayerId,
        invite: Option<&str>,
        trusted: bool,
    ) -> Result<(), Problem> {
        let now = self.now();
        let mut world = self.world();
        let Some(entry) = world.sessions.get(&id) else {
            return Err(unknown_session(id));
        };
        if !entry.session.phase.is_live() {
            return Err(Problem::new(
                Code::SessionEnded,
                "the session has ended or is ending; start a new one",
            ));
        }
        if entry.session.player(player).is_some() {
            return Ok(());
        }
        if !trusted {
            check_invite(entry.joinable, &entry.invite, invite)?;
        }
        let fleet = entry.session.fleet.clone();
        if let Some(other) = world
            .by_player
            .get(&(fleet.clone(), player.clone()))
            .copied()
            && other != id
        {
            return Err(super::start::in_other_session(player, &fleet).on("player_id"));
        }
        self.apply_in(&mut world, id, &Event::Join(player.clone()), now)
            .map_err(rejected)?;
        world.by_player.insert((fleet, player.clone()), id);
        drop(world);
        self.drive(id);
        Ok(())
    }

    /// Takes a heartbeat.
    pub(crate) fn heartbeat(
        self: &Arc<Self>,
        id: SessionId,
        beat: &Beat,
    ) -> Result<HeartbeatReply, Problem> {
        Self::bump(&self.counters.heartbeats);
        let idle = beat.idle_ms.map_or(Duration::ZERO, |ms| {
            Duration::from_secs_f64((ms / 1000.0).clamp(0.0, 1e9))
        });
        let event = Event::Heartbeat(Heartbeat {
            player: beat.player.clone(),
            status: match beat.status {
                Status::Busy if mutant::on(Mutant::IdleWhileBusy) => Status::Active,
                status => status,
            },
            idle,
            ttl: beat.ttl,
        });
        let result = self.apply(id, &event);
        let now = self.now();
        let mut world = self.world();
        let Some(entry) = world.sessions.get_mut(&id) else {
            return Err(unknown_session(id));
        };
        if let Err(r) = result
            && r.code == Some(Code::PlayerNotInSession)
        {
            return Err(rejected(r));
        }
        if let Some(p) = &beat.player {
            let status = match beat.status {
                Status::Active => "active",
                Status::Inactive => "inactive",
                Status::Busy => "busy",
            };
            let claimed = Claimed {
                status,
                idle_ms: beat.idle_ms,
                duration_ms: beat.duration_ms,
                at: now,
            };
            entry.claims.insert(p.clone(), claimed);
        }
        let s = &entry.session;
        let cull = spawnpoint_core::lifecycle::cull(s);
        let warned = cull.filter(|c| s.has_warned(c));
        Ok(HeartbeatReply {
            session_id: id.to_string(),
            phase: s.phase.as_str().to_owned(),
            generation: s.generation.0,
            cull_at: cull.map(|c| self.text(c.at)),
            cull_reason: cull.map(|c| c.reason.as_str().to_owned()),
            cull_in_ms: cull
                .map(|c| u64::try_from(c.at.since(now).as_millis()).unwrap_or(u64::MAX)),
            warning: warned.map(|c| WarningView {
                reason: c.reason.as_str().to_owned(),
                cull_at: self.text(c.at),
            }),
            next_heartbeat_s: s.policy.heartbeat.as_secs_f64(),
        })
    }

    /// Pushes the absolute deadline by this much from where it is; by the idle timeout when nothing is said ("keep playing").
    pub(crate) async fn extend(
        self: &Arc<Self>,
        id: SessionId,
        by: Option<Duration>,
        raise: bool,
    ) -> Result<ExtendReply, Problem> {
        let to = {
            let world = self.world();
            let Some(entry) = world.sessions.get(&id) else {
                return Err(unknown_session(id));
            };
            let by = by.or(entry.session.policy.idle).unwrap_or(EXTEND_DEFAULT);
            entry
                .session
                .max_at
                .map_or(Moment(i64::MAX), |m| m.after(by))
        };
        let extended = match self.apply(id, &Event::Extend { to, raise }) {
            Ok(_) => true,
            Err(r) if r.code.is_some() => return Err(rejected(r)),
            Err(_) => false,
        };
        if extended {
            let _ = self
                .wait_for(id, Duration::from_secs(5), |e| e.unsaved == 0)
                .await;
        }
        let world = self.world();
        let Some(entry) = world.sessions.get(&id) else {
            return Err(unknown_session(id));
        };
        let s = &entry.session;
        let cull = spawnpoint_core::lifecycle::cull(s);
        Ok(ExtendReply {
            session_id: id.to_string(),
            extended,
            max_at: s.max_at.map(|m| self.text(m)),
            max_limit_at: s.max_limit_at.map(|m| self.text(m)),
            cull_at: cull.map(|c| self.text(c.at)),
            cull_reason: cull.map(|c| c.reason.as_str().to_owned()),
        })
    }

    /// A token for a player of a live session, and when it expires (Unix seconds).
    pub(crate) fn token(&self, id: SessionId, player: &PlayerId) -> Result<(String, i64), Problem> {
        let now = self.now();
        let (fleet, expires) = {
            let world = self.world();
            let Some(entry) = world.sessions.get(&id) else {
                return Err(unknown_session(id));
            };
            if entry.session.player(player).is_none() {
                return Err(Problem::new(
                    Code::PlayerNotInSession,
                    "that player is not in the session",
                ));
            }
            let s = &entry.session;
            let max = s
                .max_at
                .or_else(|| s.policy.max.map(|m| s.queue_deadline.after(m)));
            (
                s.fleet.clone(),
                max.map_or(now.after(TOKEN_UNLIMITED), |m| m.after(TOKEN_SLACK)),
            )
        };
        let exp = self.clock.wall(expires).div_euclid(1000);
        let iat = self.clock.wall(now).div_euclid(1000);
        let claims = TokenClaims {
            sub: player.clone(),
            sid: id,
            fleet,
            iat,
            exp,
        };
        let token = self
            .keys
            .signing
            .sign(&claims)
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        Ok((token, exp))
    }

    /// The game says that its session is over.
    pub(crate) fn end_by_server(self: &Arc<Self>, id: SessionId, results: Option<String>) {
        if let Some(entry) = self.world().sessions.get_mut(&id)
            && results.is_some()
        {
            entry.results = results;
        }
        let _ = self.apply(
            id,
            &Event::End {
                reason: Reason::EndedByServer,
                by: EndedBy::Server,
            },
        );
    }
}

fn check_invite(rule: Joinable, code: &str, sent: Option<&str>) -> Result<(), Problem> {
    use subtle::ConstantTimeEq;
    match rule {
        Joinable::Open => Ok(()),
        Joinable::Closed => Err(Problem::new(
            Code::NotJoinable,
            "this session is closed to others",
        )),
        Joinable::Invite => match sent {
            None => Err(Problem::new(
                Code::InviteRequired,
                "joining needs the invite code of the share link",
            )
            .on("invite")),
            Some(sent) if bool::from(sent.as_bytes().ct_eq(code.as_bytes())) => Ok(()),
            Some(_) => Err(Problem::new(
                Code::InviteRequired,
                "the invite code is wrong; ask for the share link again",
            )
            .on("invite")),
        },
    }
}

/// The problem for an id that is neither live nor recorded.
pub(crate) fn unknown_session(id: SessionId) -> Problem {
    Problem::new(
        Code::SessionNotFound,
        format!("there is no live session {id}"),
    )
}

/// Results as text, if they are small enough.
pub(crate) fn check_results(value: Option<&serde_json::Value>) -> Result<Option<String>, Problem> {
    let Some(text) = value.map(serde_json::Value::to_string) else {
        return Ok(None);
    };
    if text.len() > MAX_RESULTS {
        return Err(Problem::new(
            Code::InvalidField,
            format!("results must be at most {MAX_RESULTS} bytes of JSON"),
        )
        .on("results"));
    }
    Ok(Some(text))
}
