//! What callers are shown: the live state as the bodies of the API.

use spawnpoint_core::decision::Decision;
use spawnpoint_core::lifecycle::{Cull, Joinable, Reason, Sight, cull};
use spawnpoint_core::record::MatchRecord;
use spawnpoint_core::session::{Phase, Session};
use spawnpoint_core::time::Known;
use spawnpoint_core::{FleetName, Moment, PlayerId, SessionId};
use spawnpoint_runtime::Protocol;
use spawnpoint_wire::api::{
    ClientClaim, Connection, DeadlineView, DecisionView, EndView, FleetView, InstanceView,
    MatchPlayerView, MatchView, PlanView, PlayerView, QueuePlace, SessionView, Why,
};
use spawnpoint_wire::problem::Problem;

use super::link::wire_protocol;
use super::revive::joinable_text;
use super::world::{Entry, FleetState, World};
use super::{App, wall_text};
use crate::config::Expose;

/// How players reach the public listener, for one request: `https` or not, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addressing {
    /// Whether it is behind TLS.
    pub(crate) tls: bool,
    /// Host and, if not the scheme's own, port.
    pub(crate) authority: String,
    /// Path before ours, without a slash at its end.
    pub(crate) base: String,
}

impl Addressing {
    /// From `public_url`, or else from the request's own `Host`.
    pub(crate) fn new(public_url: Option<&str>, host: Option<&str>) -> Self {
        if let Some(url) = public_url {
            let (tls, rest) = match url.split_once("://") {
                Some(("https" | "wss", rest)) => (true, rest),
                Some((_, rest)) => (false, rest),
                None => (false, url),
            };
            let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
            let base = base.trim_end_matches('/');
            let base = if base.is_empty() {
                String::new()
            } else {
                format!("/{base}")
            };
            return Self {
                tls,
                authority: authority.to_owned(),
                base,
            };
        }
        Self {
            tls: false,
            authority: host.unwrap_or("localhost:8080").to_owned(),
            base: String::new(),
        }
    }

    pub(super) fn host_port(&self) -> (String, u16) {
        let default = if self.tls { 443 } else { 80 };
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(p) => (host.trim_matches(['[', ']']).to_owned(), p),
                Err(_) => (self.authority.clone(), default),
            },
            _ => (self.authority.trim_matches(['[', ']']).to_owned(), default),
        }
    }

    fn ws(&self, id: SessionId) -> String {
        format!(
            "{}://{}{}/session/{id}",
            if self.tls { "wss" } else { "ws" },
            self.authority,
            self.base
        )
    }

    const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Where a browser opens an HTTP game: on a host name of its own where there can be one, so that games share neither cookies nor
    /// storage with one another or with us.
    fn page(&self, id: SessionId) -> String {
        let (scheme, authority) = (self.scheme(), &self.authority);
        if self.has_names() {
            format!("{scheme}://{id}.{authority}/")
        } else {
            format!("{scheme}://{authority}{}/session/{id}/", self.base)
        }
    }

    /// Whether names below the host lead here too: `localhost` does so by itself, a domain by its wildcard record; an address never
    /// does, nor does the name of a machine in a local network.
    fn has_names(&self) -> bool {
        let (host, _) = self.host_port();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.parse::<std::net::IpAddr>().is_ok() {
            return false;
        }
        host == "localhost" || (host.contains('.') && !host.ends_with(".local"))
    }

    fn share(&self, id: SessionId, invite: Option<&str>) -> String {
        let scheme = self.scheme();
        let invite = invite.map(|i| format!("&invite={i}")).unwrap_or_default();
        format!(
            "{scheme}://{}{}/play?join={id}{invite}",
            self.authority, self.base
        )
    }
}

struct Dial {
    ws: Option<String>,
    /// A page to open; for HTTP games.
    page: Option<String>,
    host: Option<String>,
    port: Option<u16>,
}

impl Dial {
    /// What to open or dial, with the token where it can carry one.
    fn url(&self, protocol: Protocol, token: Option<&str>) -> Option<String> {
        let with_token = |url: &String| match token {
            Some(token) => format!("{url}?token={token}"),
            None => url.clone(),
        };
        match protocol {
            Protocol::WebSocket => self.ws.as_ref().map(with_token),
            Protocol::Http => self.page.as_ref().map(with_token),
            Protocol::Tcp | Protocol::Udp => {
                let (host, port) = (bracketed(self.host.as_deref()?), self.port?);
                Some(format!(
                    "{}://{host}:{port}",
                    wire_protocol(protocol).as_str()
                ))
            }
        }
    }
}

/// A host as it stands in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn dial(entry: &Entry, at: &Addressing) -> Dial {
    let protocol = entry.fleet.template.protocol;
    let web = matches!(protocol, Protocol::WebSocket | Protocol::Http);
    let page = protocol == Protocol::Http;
    match entry.fleet.expose {
        Expose::Gateway if super::tcp::wants_port(&entry.fleet) => Dial {
            ws: None,
            page: None,
            host: entry.tcp_port.map(|_| at.host_port().0),
            port: entry.tcp_port,
        },
        Expose::Gateway => {
            let (host, port) = at.host_port();
            Dial {
                ws: web.then(|| at.ws(entry.session.id)),
                page: page.then(|| at.page(entry.session.id)),
                host: Some(host),
                port: Some(port),
            }
        }
        Expose::HostPort => {
            let Some(address) = entry.address else {
                return Dial {
                    ws: None,
                    page: None,
                    host: None,
                    port: None,
                };
            };
            // The instance listens on every address of this machine: the player dials the one they reached us by.
            let host = at.host_port().0;
            let rest = format!("{}:{}/", bracketed(&host), address.port());
            Dial {
                ws: web.then(|| format!("ws://{rest}")),
                page: page.then(|| format!("http://{rest}")),
                host: Some(host),
                port: Some(address.port()),
            }
        }
    }
}

impl App {
    fn queue_place(&self, world: &World, entry: &Entry) -> Option<QueuePlace> {
        (entry.session.phase == Phase::Queued).then(|| QueuePlace {
            position: world
                .position(&entry.session.fleet, entry.session.id)
                .unwrap_or(1),
            deadline: self.text(entry.session.queue_deadline),
            waiting_for: entry.waiting_for.to_owned(),
        })
    }

    /// How `player` plays this session, with a token of theirs.
    pub(crate) fn connection(
        &self,
        id: SessionId,
        player: Option<&PlayerId>,
        at: &Addressing,
    ) -> Result<Connection, Problem> {
        let token = player.map(|p| self.token(id, p)).transpose()?;
        let world = self.world();
        let Some(entry) = world.sessions.get(&id) else {
            return Err(super::calls::unknown_session(id));
        };
        let s = &entry.session;
        let d = dial(entry, at);
        let bare = token.as_ref().map(|(t, _)| t.as_str());
        let url = d.url(entry.fleet.template.protocol, bare);
        let ws_url = d.ws.map(|u| match &token {
            Some((t, _)) => format!("{u}?token={t}"),
            None => u,
        });
        let invite = (entry.joinable == Joinable::Invite).then(|| entry.invite.clone());
        let joinable = entry.joinable != Joinable::Closed;
        let share = (joinable && entry.fleet.has_page()).then(|| at.share(id, invite.as_deref()));
        let due = cull(s);
        Ok(Connection {
            session_id: id.to_string(),
            fleet: s.fleet.to_string(),
            phase: s.phase.as_str().to_owned(),
            ready: s.phase.accepts(),
            generation: s.generation.0,
            url,
            ws_url,
            share_url: share,
            invite,
            connect_host: d.host,
            connect_port: d.port,
            protocol: wire_protocol(entry.fleet.template.protocol)
                .as_str()
                .to_owned(),
            token_expires_at: token
                .as_ref()
                .map(|(_, exp)| wall_text(exp.saturating_mul(1000))),
            token: token.map(|(t, _)| t),
            player_id: player.map(ToString::to_string),
            players: s.roster.iter().map(|p| p.id.to_string()).collect(),
            queue: self.queue_place(&world, entry),
            cull_at: due.map(|c| self.text(c.at)),
            cull_reason: due.map(|c| c.reason.as_str().to_owned()),
            created_at: self.text(s.created_at),
            receipt: entry.receipt.map(Into::into),
        })
    }

    /// The connection of a session that has ended, for a repeated call.
    pub(crate) fn ended_connection(
        &self,
        r: &MatchRecord,
        player: Option<&PlayerId>,
    ) -> Connection {
        let fleet = self.config.load().fleet(&r.fleet).cloned();
        let protocol = fleet.map_or("websocket", |f| wire_protocol(f.template.protocol).as_str());
        Connection {
            session_id: r.session.to_string(),
            fleet: r.fleet.to_string(),
            phase: "ended".to_owned(),
            ready: false,
            generation: r.generation.0,
            url: None,
            ws_url: None,
            share_url: None,
            invite: None,
            connect_host: None,
            connect_port: None,
            protocol: protocol.to_owned(),
            token: None,
            token_expires_at: None,
            player_id: player.map(ToString::to_string),
            players: r.players.iter().map(|p| p.player.to_string()).collect(),
            queue: None,
            cull_at: None,
            cull_reason: None,
            created_at: wall_text(r.created_at),
            receipt: r.receipt.map(Into::into),
        }
    }

    /// One live session.
    pub(crate) fn session_view(
        &self,
        world: &World,
        entry: &Entry,
        at: &Addressing,
    ) -> SessionView {
        let s = &entry.session;
        let d = dial(entry, at);
        let due = cull(s);
        let known = matches!(s.sight, Known::Is(())) && s.policy.sight != Sight::Direct;
        SessionView {
            session_id: s.id.to_string(),
            fleet: s.fleet.to_string(),
            phase: s.phase.as_str().to_owned(),
            ready: s.phase.accepts(),
            generation: s.generation.0,
            owner: s.owner.as_ref().map(ToString::to_string),
            players: s
                .roster
                .iter()
                .map(|p| PlayerView {
                    player_id: p.id.to_string(),
                    joined_at: self.text(p.joined_at),
                    connections: known.then_some(p.connections),
                    last_active_at: p.last_active.map(|m| self.text(m)),
                })
                .collect(),
            joinable: joinable_text(entry.joinable).to_owned(),
            ws_url: d.ws,
            connect_host: d.host,
            connect_port: d.port,
            protocol: wire_protocol(entry.fleet.template.protocol)
                .as_str()
                .to_owned(),
            instance: s.instance.map(|i| InstanceView {
                id: i.to_string(),
                label: entry.label.clone(),
                address: entry.address.map(|a| a.to_string()),
                restarts: world.instances.get(&i).map_or(0, |i| i.restarts),
            }),
            queue: self.queue_place(world, entry),
            created_at: self.text(s.created_at),
            started_at: entry.started_at.map(|m| self.text(m)),
            first_joined_at: s.first_joined_at.map(|m| self.text(m)),
            last_active_at: s.last_activity().map(|m| self.text(m)),
            cull_at: due.map(|c| self.text(c.at)),
            cull_reason: due.map(|c| c.reason.as_str().to_owned()),
            extends: s.extends,
            receipt: entry.receipt.map(Into::into),
            end: self.end_view(s),
        }
    }

    fn end_view(&self, s: &Session) -> Option<EndView> {
        s.ending.map(|e| EndView {
            reason: e.reason.as_str().to_owned(),
            by: e.by.as_str().to_owned(),
            code: e.code.map(|c| c.as_str().to_owned()),
            at: self.text(e.at),
            exit_code: s.exit.and_then(|x| x.code),
        })
    }

    fn decision_view(&self, d: &Decision) -> DecisionView {
        DecisionView {
            at: self.text(d.at),
            function: d.function.to_owned(),
            input: d.input.clone(),
            output: d.output.clone(),
            because: d.because.clone(),
        }
    }

    /// Why a live session is alive, and when and why it would end.
    pub(crate) fn why(&self, entry: &Entry) -> Why {
        let now = self.now();
        let s = &entry.session;
        let due = cull(s);
        let deadlines = self.deadlines(s);
        let known = matches!(s.sight, Known::Is(()));
        let held_by = self
            .held_by
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .map(str::to_owned);
        Why {
            session_id: s.id.to_string(),
            phase: s.phase.as_str().to_owned(),
            summary: self.summary(entry, due, now),
            cull_at: due.map(|c| self.text(c.at)),
            cull_reason: due.map(|c| c.reason.as_str().to_owned()),
            deadlines,
            held_by,
            idle_s: s.last_activity().map(|m| now.since(m).as_secs_f64()),
            connected: known.then(|| s.present(now)),
            client_claims: entry
                .claims
                .iter()
                .map(|(p, c)| ClientClaim {
                    player_id: p.to_string(),
                    status: c.status.to_owned(),
                    idle_ms: c.idle_ms,
                    session_duration_ms: c.duration_ms,
                    at: self.text(c.at),
                })
                .collect(),
            recent_crashes: s.crashes.len(),
            receipt: entry.receipt.map(Into::into),
            end: self.end_view(s),
            decisions: entry
                .decisions
                .iter()
                .map(|d| self.decision_view(d))
                .collect(),
        }
    }

    fn deadlines(&self, s: &Session) -> Vec<DeadlineView> {
        let mut all: Vec<(Moment, Reason)> = spawnpoint_core::lifecycle::deadlines(s)
            .map(|c| (c.at, c.reason))
            .collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter()
            .map(|(at, r)| DeadlineView {
                reason: r.as_str().to_owned(),
                at: self.text(at),
            })
            .collect()
    }

    fn summary(&self, entry: &Entry, due: Option<Cull>, now: Moment) -> String {
        let s = &entry.session;
        let alive = match s.phase {
            Phase::Queued => format!("It waits for {}.", entry.waiting_for.replace('_', " ")),
            Phase::Starting => "Its game server is starting.".to_owned(),
            Phase::Ready => "Its game server accepts players and nobody has come yet.".to_owned(),
            Phase::Running => match (s.sight, s.present(now)) {
                (Known::Unknown { .. }, _) => {
                    "It runs; who is connected is not known until the gateways have reported."
                        .to_owned()
                }
                (_, 0) => "Everybody has left; it waits for somebody to come back.".to_owned(),
                (_, 1) => "One player is connected.".to_owned(),
                (_, n) => format!("{n} players are connected."),
            },
            Phase::Replacing => format!(
                "Its game server died; incarnation {} is being started.",
                s.generation
            ),
            Phase::Ending | Phase::Ended => match s.ending {
                Some(e) => {
                    return format!(
                        "It is ending: {} (by {}) at {}.",
                        e.reason.as_str(),
                        e.by.as_str(),
                        self.text(e.at)
                    );
                }
                None => return "It is ending.".to_owned(),
            },
        };
        let busy = s
            .busy_until
            .filter(|b| *b > now)
            .map(|b| format!(" A quiet worker keeps it alive until {}.", self.text(b)));
        let would = match due {
            None => " Nothing would end it by itself.".to_owned(),
            Some(c) => format!(
                " If nothing happens it ends at {} ({} s from now) for {}.",
                self.text(c.at),
                c.at.since(now).as_secs(),
                c.reason.as_str()
            ),
        };
        format!("{alive}{}{would}", busy.unwrap_or_default())
    }

    /// One fleet.
    pub(crate) fn fleet_view(&self, name: &FleetName, f: &FleetState) -> FleetView {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let warm = count(f.warm.values().filter(|w| w.ready).count());
        let claims = f.claims_warm + f.claims_cold;
        FleetView {
            name: name.to_string(),
            protocol: wire_protocol(f.config.template.protocol)
                .as_str()
                .to_owned(),
            expose: match f.config.expose {
                Expose::Gateway => "gateway".to_owned(),
                Expose::HostPort => "hostPort".to_owned(),
            },
            warm_target: if f.config.warm_allowed {
                f.config.warm
            } else {
                0
            },
            warm,
            starting: count(f.warm.len()) - warm,
            queued: count(f.queue.len()),
            claimed: f.claimed,
            stopping: f.stopping,
            max_instances: f.config.max_instances,
            sessions: f.sessions,
            claims_warm: f.claims_warm,
            claims_cold: f.claims_cold,
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
            hit_rate: (claims > 0).then(|| f.claims_warm as f64 / claims as f64),
            degraded: f.failures.degraded(self.now()),
            failures_in_a_row: f.failures.in_a_row,
            last_plan: f.last_plan.as_ref().map(|(at, p)| PlanView {
                at: self.text(*at),
                admit: p.admit,
                start: p.start,
                stop: count(p.stop.len()),
                because: p.because.clone(),
            }),
        }
    }
}

/// A match record as it is shown.
pub(crate) fn match_view(r: &MatchRecord, with_log: bool) -> MatchView {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of a match are far below 2^52"
    )]
    let duration_s = r
        .started_at
        .map(|s| r.ended_at.saturating_sub(s).max(0) as f64 / 1000.0);
    MatchView {
        session_id: r.session.to_string(),
        fleet: r.fleet.to_string(),
        players: r
            .players
            .iter()
            .map(|p| MatchPlayerView {
                player_id: p.player.to_string(),
                joined_at: wall_text(p.joined_at),
            })
            .collect(),
        server: r.server.clone(),
        instance: r.instance.map(|i| i.to_string()),
        generation: r.generation.0,
        created_at: wall_text(r.created_at),
        started_at: r.started_at.map(wall_text),
        ended_at: wall_text(r.ended_at),
        duration_s,
        reason: r.reason.as_str().to_owned(),
        ended_by: r.ended_by.as_str().to_owned(),
        code: r.code.clone(),
        exit_code: r.exit_code,
        exit_signal: r.exit_signal,
        oom: r.oom,
        results: r
            .results
            .as_deref()
            .and_then(|t| serde_json::from_str(t).ok()),
        results_error: r.results_error.clone(),
        receipt: r.receipt.map(Into::into),
        log_tail: with_log.then(|| String::from_utf8_lossy(&r.log_tail).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_says_what_to_open_or_dial() {
        let mut d = Dial {
            ws: Some("ws://h/session/x".into()),
            page: Some("http://x.h/".into()),
            host: Some("::1".into()),
            port: Some(7),
        };
        let url = |d: &Dial, p| d.url(p, Some("t"));
        assert_eq!(
            url(&d, Protocol::WebSocket).unwrap(),
            "ws://h/session/x?token=t"
        );
        assert_eq!(url(&d, Protocol::Http).unwrap(), "http://x.h/?token=t");
        assert_eq!(url(&d, Protocol::Tcp).unwrap(), "tcp://[::1]:7");
        assert_eq!(url(&d, Protocol::Udp).unwrap(), "udp://[::1]:7");
        assert_eq!(d.url(Protocol::Http, None).unwrap(), "http://x.h/");
        d.port = None;
        assert_eq!(url(&d, Protocol::Tcp), None, "not known yet");
    }

    #[test]
    fn addresses_follow_the_public_url_or_the_request() {
        let id: SessionId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let a = Addressing::new(Some("https://games.example.com"), Some("evil"));
        assert_eq!(
            a.ws(id),
            "wss://games.example.com/session/01890a5d-ac96-774b-bcce-b302099a8057"
        );
        assert_eq!(a.host_port(), ("games.example.com".to_owned(), 443));
        let b = Addressing::new(None, Some("127.0.0.1:8080"));
        assert_eq!(
            b.ws(id),
            "ws://127.0.0.1:8080/session/01890a5d-ac96-774b-bcce-b302099a8057"
        );
        assert_eq!(b.host_port(), ("127.0.0.1".to_owned(), 8080));
        assert_eq!(
            b.share(id, Some("x")),
            "http://127.0.0.1:8080/play?join=01890a5d-ac96-774b-bcce-b302099a8057&invite=x"
        );
        for (host, page) in [
            ("localhost:8080", "http://{}.localhost:8080/"),
            ("games.example.com", "http://{}.games.example.com/"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/session/{}/"),
            ("[::1]:8080", "http://[::1]:8080/session/{}/"),
            ("mybox:8080", "http://mybox:8080/session/{}/"),
            ("mybox.local:8080", "http://mybox.local:8080/session/{}/"),
        ] {
            let at = Addressing::new(None, Some(host));
            let page = page.replace("{}", &id.to_string());
            assert_eq!(at.page(id), page);
        }
        assert_eq!(
            a.page(id),
            "https://01890a5d-ac96-774b-bcce-b302099a8057.games.example.com/"
        );
        let c = Addressing::new(Some("https://example.com/games/"), None);
        assert_eq!(
            c.ws(id),
            "wss://example.com/games/session/01890a5d-ac96-774b-bcce-b302099a8057"
        );
        assert_eq!(
            Addressing::new(None, Some("[::1]:8080")).host_port(),
            ("::1".to_owned(), 8080)
        );
        assert_eq!(
            Addressing::new(None, Some("[::1]")).host_port(),
            ("::1".to_owned(), 80)
        );
    }
}
