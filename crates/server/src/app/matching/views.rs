//! What callers are told of tickets and queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spawnpoint_core::{Code, FleetName, PlayerId, SessionId, TicketId};
use spawnpoint_wire::api::{MatchDecision, QueueList, QueueView, TicketStatus};
use spawnpoint_wire::event::EventBody;
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::TokenClaims;

use super::fates::End;
use super::pace::Pace;
use super::queue::QueueNow;
use super::table::{Seen, Standing};
use crate::app::{Addressing, App, wall_text};
use crate::config::{Config, QueueConfig};

/// What a ticket waits for, beside what sessions wait for.
const FOR_PLAYERS: &str = "players";
/// Life of a token that a ticket is asked after with; whoever waits longer joins again.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// After whom, and what, somebody asks.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) player: PlayerId,
    /// In this queue; by default in the one the player is in.
    pub(crate) queue: Option<FleetName>,
    /// The ticket they were told of.
    pub(crate) ticket: Option<TicketId>,
}

/// How a player stands.
enum Found {
    Queued(Seen),
    InSession {
        session: SessionId,
        queue: FleetName,
    },
    Lost {
        ticket: Option<TicketId>,
        queue: FleetName,
        waited: Option<Duration>,
        code: Code,
        detail: String,
    },
    None {
        queue: FleetName,
    },
}

/// A call waits on a ticket: nobody takes its player for gone.
struct Watching<'a> {
    app: &'a App,
    id: TicketId,
}

impl<'a> Watching<'a> {
    fn new(app: &'a App, id: TicketId) -> Self {
        app.tickets().watch(id, true, app.now());
        Self { app, id }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.app.tickets().watch(self.id, false, self.app.now());
    }
}

impl App {
    /// How a player stands, in a queue or matched. `wait` holds the answer while they are queued, or until their game accepts.
    pub(crate) async fn ticket_status(
        &self,
        ask: &Ask,
        wait: Option<Duration>,
        at: &Addressing,
    ) -> Result<TicketStatus, Problem> {
        let deadline = tokio::time::Instant::now() + wait.unwrap_or_default();
        let mut first = true;
        loop {
            let found = self.find(ask)?;
            let now = tokio::time::Instant::now();
            match &found {
                Found::Queued(seen) if now < deadline => {
                    let id = seen.ticket.id;
                    let _here = Watching::new(self, id);
                    let left = deadline.saturating_duration_since(now);
                    // Once more than it stands now: forming, or back in line, is still queued.
                    let standing = seen.standing;
                    self.wait_ticket(id, left, |s| s != Some(standing)).await;
                }
                Found::InSession { session, .. } => {
                    if let Err(problem) = self.durable(*session).await {
                        tracing::debug!(%session, code = problem.code, "a session was not to be");
                        if first {
                            first = false;
                            continue;
                        }
                    }
                    if first && now < deadline {
                        let left = deadline.saturating_duration_since(now);
                        self.wait_for(*session, left, |e| {
                            e.session.phase.accepts() || !e.session.phase.is_live()
                        })
                        .await;
                    }
                    match self.show_found(ask, found, at) {
                        // It ended between two looks: there is nothing to play any more.
                        Err(p) if p.code == Code::SessionNotFound.as_str() && first => {}
                        other => return other,
                    }
                }
                _ => return self.show_found(ask, found, at),
            }
            first = false;
            if self.stop.is_cancelled() {
                let found = self.find(ask)?;
                return self.show_found(ask, found, at);
            }
        }
    }

    /// Where a player stands right now: what is live decides, then the tickets, then what became of them.
    fn find(&self, ask: &Ask) -> Result<Found, Problem> {
        let config = self.config.load();
        let now = self.now();
        let (seen, gone, queue) = {
            let mut tickets = self.tickets();
            let mine = |id: TicketId| {
                let t = tickets.get(id)?;
                t.ticket.players.contains(&ask.player).then_some(id)
            };
            let of_player = || {
                Some(
                    tickets
                        .ticket_of(&ask.player, ask.queue.as_ref())?
                        .ticket
                        .id,
                )
            };
            let id = ask.ticket.and_then(mine).or_else(of_player);
            if let Some(id) = id {
                tickets.attend(id, now);
            }
            let seen = id.and_then(|id| tickets.seen(id, now));
            let gone = ask
                .ticket
                .and_then(|id| tickets.fate(id))
                .filter(|f| f.ticket.players.contains(&ask.player))
                .cloned();
            let queue = ask
                .queue
                .clone()
                .or_else(|| seen.as_ref().map(|s| s.ticket.queue.clone()))
                .or_else(|| gone.as_ref().map(|f| f.ticket.queue.clone()));
            (seen, gone, queue)
        };
        if let Some(seen) = seen.as_ref().filter(|s| s.standing != Standing::Waiting) {
            // Its session may be there and not be durable yet.
            return Ok(Found::Queued(seen.clone()));
        }
        if let Some((session, queue)) = self.in_session(&config, ask, queue.as_ref()) {
            return Ok(Found::InSession { session, queue });
        }
        if let Some(seen) = seen {
            return Ok(Found::Queued(seen));
        }
        let queue = queue
            .or_else(|| config.default_queue().map(|q| q.name.clone()))
            .ok_or_else(|| Problem::new(Code::QueueNotFound, "there is no queue"))?;
        let gone = match (gone, ask.ticket) {
            (Some(fate), _) => Some(fate),
            (None, Some(unknown)) => {
                if !self.lobby_loaded.load(Ordering::Acquire) {
                    return Err(Problem::new(
                        Code::LobbyUnavailable,
                        "the tickets of an earlier run have not been read yet; ask again",
                    ));
                }
                return Ok(Found::Lost {
                    ticket: Some(unknown),
                    queue,
                    waited: None,
                    code: Code::TicketLost,
                    detail: "the ticket is not known (any more); join again".to_owned(),
                });
            }
            (None, None) => self.tickets().latest_fate(&queue, &ask.player).cloned(),
        };
        Ok(match gone.map(|f| (f.end, f.ticket.id, f.waited)) {
            Some((End::Lost(code, detail), ticket, waited)) => Found::Lost {
                ticket: Some(ticket),
                queue,
                waited: Some(waited),
                code,
                detail,
            },
            // Matched to a game that is over by now, or left.
            Some((End::Matched(_) | End::Left, ..)) | None => Found::None { queue },
        })
    }

    /// The player's live session in the queue's fleet; without a queue in any, the default queue's first.
    fn in_session(
        &self,
        config: &Config,
        ask: &Ask,
        queue: Option<&FleetName>,
    ) -> Option<(SessionId, FleetName)> {
        let configured = queue.and_then(|q| config.queue(q).cloned());
        let gone = queue.and_then(|q| Some(Arc::clone(&self.tickets().queue(q)?.config)));
        let queues: Vec<Arc<QueueConfig>> = match (configured.or(gone), queue) {
            (Some(q), _) => vec![q],
            (None, Some(_)) => return None,
            (None, None) => {
                let first = config.default_queue().cloned().into_iter();
                first.chain(config.queues.iter().cloned()).collect()
            }
        };
        self.with_world(|w| {
            queues.iter().find_map(|q| {
                let id = w.by_player.get(&(q.fleet.clone(), ask.player.clone()))?;
                let own = w.sessions.get(id).and_then(|e| e.queue.clone());
                let name = own
                    .filter(|_| queue.is_none())
                    .unwrap_or_else(|| q.name.clone());
                Some((*id, name))
            })
        })
    }

    fn show_found(
        &self,
        ask: &Ask,
        found: Found,
        at: &Addressing,
    ) -> Result<TicketStatus, Problem> {
        let about = |status: &str, queue: &FleetName| TicketStatus {
            status: status.to_owned(),
            queue: queue.to_string(),
            player_id: Some(ask.player.to_string()),
            ..TicketStatus::default()
        };
        match found {
            Found::Queued(seen) => {
                let (token, expires) = self.ticket_token(&seen, &ask.player)?;
                Ok(TicketStatus {
                    ticket_id: Some(seen.ticket.id.to_string()),
                    position: Some(seen.position),
                    estimate_s: seen.estimate_s,
                    waited_s: Some(seen.waited.as_secs_f64()),
                    players: seen
                        .ticket
                        .players
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    token: Some(token),
                    token_expires_at: Some(expires),
                    ..about("queued", &seen.ticket.queue)
                })
            }
            Found::InSession { session, queue } => {
                let connection = self.connection(session, Some(&ask.player), at)?;
                let ticket = self.with_world(|w| {
                    let tickets = &w.sessions.get(&session)?.tickets;
                    tickets
                        .iter()
                        .find(|(p, _)| *p == ask.player)
                        .map(|(_, t)| *t)
                });
                let waited = ticket.and_then(|id| Some(self.tickets().fate(id)?.waited));
                let about = TicketStatus {
                    ticket_id: ticket.map(|t| t.to_string()),
                    waited_s: waited.map(|w| w.as_secs_f64()),
                    ..about("matched", &queue)
                };
                Ok(about.matched(connection))
            }
            Found::Lost {
                ticket,
                queue,
                waited,
                code,
                detail,
            } => Ok(TicketStatus {
                ticket_id: ticket.map(|t| t.to_string()),
                waited_s: waited.map(|w| w.as_secs_f64()),
                code: Some(code.as_str().to_owned()),
                detail: Some(detail),
                ..about("lost", &queue)
            }),
            Found::None { queue } => Ok(about("none", &queue)),
        }
    }

    /// A token that says who waits. Its session is the ticket, which is none: it opens no game.
    fn ticket_token(&self, seen: &Seen, player: &PlayerId) -> Result<(String, String), Problem> {
        let now = self.now();
        let fleet = self
            .tickets()
            .queue(&seen.ticket.queue)
            .map_or_else(|| seen.ticket.queue.clone(), |q| q.config.fleet.clone());
        let exp = self.clock.wall(now.after(TOKEN_LIFE)).div_euclid(1000);
        let claims = TokenClaims {
            sub: player.clone(),
            sid: SessionId::new(seen.ticket.id.uuid()),
            fleet,
            iat: self.clock.wall(now).div_euclid(1000),
            exp,
        };
        let token = self
            .keys
            .signing
            .sign(&claims)
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        Ok((token, wall_text(exp.saturating_mul(1000))))
    }

    /// What the lobby's stream says of a player's tickets; asking counts as being there.
    pub(crate) fn queued_now(&self, player: &PlayerId) -> Vec<(TicketId, EventBody)> {
        let now = self.now();
        let mut tickets = self.tickets();
        let ids = tickets.tickets_of(player);
        ids.into_iter()
            .filter_map(|id| {
                tickets.follow(id, now);
                let seen = tickets.seen(id, now)?;
                (seen.standing != Standing::Joining).then(|| (id, queued(&seen)))
            })
            .collect()
    }

    /// Every queue, as operators see it.
    pub(crate) fn queue_list(&self) -> QueueList {
        let config = self.config.load();
        let tickets = self.tickets();
        let mut names: Vec<FleetName> = config.queues.iter().map(|q| q.name.clone()).collect();
        // Queues that are gone from the configuration and still have tickets come last.
        names.extend(
            tickets
                .names()
                .into_iter()
                .filter(|n| config.queue(n).is_none()),
        );
        let now = self.now();
        let queues = names
            .iter()
            .filter_map(|n| tickets.look(n, now))
            .map(|q| self.queue_view(&q))
            .collect();
        QueueList { queues }
    }

    /// What each queue has done, for its metrics.
    pub(crate) fn each_pace(&self, mut tell: impl FnMut(&str, &Pace)) {
        let tickets = self.tickets();
        for name in tickets.names() {
            if let Some(queue) = tickets.queue(&name) {
                tell(name.as_str(), &queue.pace);
            }
        }
    }

    fn queue_view(&self, now: &QueueNow<'_>) -> QueueView {
        let q = now.queue;
        let rules = &q.config.rules;
        QueueView {
            name: q.config.name.to_string(),
            fleet: q.config.fleet.to_string(),
            session_size: rules.size(),
            min_partial_session_size: rules.min_partial(),
            flush_wait_s: rules.flush_wait().as_secs_f64(),
            tickets: now.tickets,
            players: now.players,
            forming: now.forming,
            oldest_wait_s: now.oldest.map(|d| d.as_secs_f64()),
            matches: q.pace.matches,
            partial_matches: q.pace.partial,
            matches_per_minute: q.pace.per_minute(self.now()),
            failures: q.pace.failures,
            lost: q.pace.lost,
            last_match: q.last.as_ref().map(|m| MatchDecision {
                at: self.text(m.at),
                session_id: m.session.to_string(),
                players: m.players,
                because: m.because.clone(),
            }),
        }
    }
}

/// The event that says where a ticket stands.
pub(super) fn queued(seen: &Seen) -> EventBody {
    EventBody::Queued {
        position: seen.position,
        waiting_for: FOR_PLAYERS.to_owned(),
        estimate_s: seen.estimate_s,
    }
}
