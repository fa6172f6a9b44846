//! The server as gateways see it: routes out, reports in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use spawnpoint_core::session::{Event, Phase};
use spawnpoint_core::time::Known;
use spawnpoint_core::{Moment, PlayerId, SessionId};
use spawnpoint_runtime::Protocol as RunProtocol;
use spawnpoint_wire::link::{
    Cursor, GATEWAY_SILENT, Link, LinkError, Protocol, Report, Resolved, Route, RouteUpdate,
};
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::world::Entry;

/// A gateway that has been silent for this long does not come back; its tunnels are gone.
const GATEWAY_FORGOTTEN: Duration = Duration::from_secs(600);

/// What each gateway last said.
#[derive(Default)]
pub(crate) struct Reports {
    gateways: Mutex<HashMap<String, Seen>>,
    /// Some session's view is unknown.
    pub(super) unseen: AtomicBool,
}

struct Seen {
    sequence: u64,
    at: Moment,
    /// It has not been heard for too long: what it said last is kept, and believed again when it speaks.
    silent: bool,
    connections: HashMap<(SessionId, PlayerId), u32>,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every gateway has reported since this moment; unknown when there is none (since `start`) or one cannot be heard.
    pub(crate) fn facts(&self, start: Moment) -> Known<Moment> {
        let gateways = self.lock();
        let oldest = gateways.values().map(|g| g.at).min();
        match oldest {
            Some(oldest) if gateways.values().all(|g| !g.silent) => Known::Is(oldest),
            other => Known::Unknown {
                since: other.unwrap_or(start),
            },
        }
    }

    /// Every gateway that is not given up, with when it was last heard.
    pub(super) fn heard(&self) -> Vec<(String, Moment)> {
        let gateways = self.lock();
        gateways.iter().map(|(n, g)| (n.clone(), g.at)).collect()
    }

    fn total(gateways: &HashMap<String, Seen>, key: &(SessionId, PlayerId)) -> u32 {
        gateways
            .values()
            .filter_map(|g| g.connections.get(key))
            .sum()
    }
}

impl Entry {
    /// Where its connections go now.
    pub(super) fn route(&self, position: Option<u32>) -> Route {
        let s = &self.session;
        let protocol = wire_protocol(self.fleet.template.protocol);
        Route {
            session: s.id,
            fleet: s.fleet.clone(),
            generation: s.generation.0,
            phase: s.phase,
            address: self.address.filter(|_| s.phase.accepts()),
            protocol,
            players: s.roster.iter().map(|p| p.id.clone()).collect(),
            position,
            waiting_for: (s.phase == Phase::Queued).then(|| self.waiting_for.to_owned()),
            ended: s.ending.map(|e| e.reason),
        }
    }
}

/// The protocol's spelling on the wire.
pub(crate) const fn wire_protocol(p: RunProtocol) -> Protocol {
    match p {
        RunProtocol::WebSocket => Protocol::WebSocket,
        RunProtocol::Http => Protocol::Http,
        RunProtocol::Tcp => Protocol::Tcp,
        RunProtocol::Udp => Protocol::Udp,
    }
}

/// [`Link`] for a gateway in the same process.
pub struct LocalLink(pub Arc<App>);

#[async_trait]
impl Link for LocalLink {
    async fn routes(
        &self,
        from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError> {
        let app = Arc::clone(&self.0);
        let (first, live) = match from.and_then(|c| app.routes.resume(c)) {
            Some(live) => (None, live),
            None => {
                let (all, live) = app.routes.listen();
                (Some(all), live)
            }
        };
        let changes = stream::unfold((app, live), |(app, mut live)| async move {
            match live.recv().await {
                Ok(update) => Some((update, (app, live))),
                Err(RecvError::Lagged(_)) => {
                    // A gap would hide an end: the whole table again.
                    let (all, live) = app.routes.listen();
                    Some((all, (app, live)))
                }
                Err(RecvError::Closed) => None,
            }
        });
        Ok(stream::iter(first).chain(changes).boxed())
    }

    async fn resolve(&self, session: SessionId) -> Result<Option<Resolved>, LinkError> {
        Ok(self.0.routes.resolve(session))
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.0.take_report(&report);
        Ok(())
    }
}

impl App {
    fn take_report(self: &Arc<Self>, report: &Report) {
        let now = self.now();
        let mut events: Vec<(SessionId, Event)> = Vec::new();
        let all_heard = {
            let mut gateways = self.reports.lock();
            let known = gateways.contains_key(&report.gateway);
            let seen = gateways
                .entry(report.gateway.clone())
                .or_insert_with(|| Seen {
                    sequence: 0,
                    at: now,
                    silent: !report.full,
                    connections: HashMap::new(),
                });
            if known && report.sequence <= seen.sequence {
                return;
            }
            seen.sequence = report.sequence;
            seen.at = now;
            seen.silent &= !known;
            let mut touched: Vec<(SessionId, PlayerId)> = Vec::new();
            if report.full {
                seen.silent = false;
                touched.extend(seen.connections.drain().map(|(k, _)| k));
                touched.sort_unstable();
            }
            for s in &report.sessions {
                for p in &s.players {
                    let key = (s.session, p.player.clone());
                    if p.connections == 0 {
                        seen.connections.remove(&key);
                    } else {
                        seen.connections.insert(key.clone(), p.connections);
                    }
                    touched.push(key);
                    if let Some(age) = p.client_data_age_ms {
                        events.push((
                            s.session,
                            Event::Data(
                                Some(p.player.clone()),
                                now.before(Duration::from_millis(age)),
                            ),
                        ));
                    }
                    if let Some(age) = p.server_data_age_ms {
                        events.push((
                            s.session,
                            Event::Data(None, now.before(Duration::from_millis(age))),
                        ));
                    }
                }
            }
            let counts = touched.into_iter().map(|key| {
                let total = Reports::total(&gateways, &key);
                (key.0, Event::Connections(key.1, total))
            });
            // Arrivals before data, or the data of somebody just connected would be of a stranger.
            events.splice(0..0, counts.collect::<Vec<_>>());
            gateways.values().all(|g| !g.silent)
        };
        for (id, event) in events {
            let _ = self.apply(id, &event);
        }
        if all_heard {
            self.regain_sight();
        }
    }

    /// Every gateway can be heard: what nobody reports is not there.
    fn regain_sight(self: &Arc<Self>) {
        // Reports come by the thousand; walking all sessions is for the rare one after a gap.
        if !self.reports.unseen.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut unseen: Vec<SessionId> = self.with_world(|w| {
            w.sessions
                .values()
                .filter(|e| matches!(e.session.sight, Known::Unknown { .. }))
                .map(|e| e.session.id)
                .collect()
        });
        unseen.sort_unstable();
        for id in unseen {
            let _ = self.apply(id, &Event::SightRegained);
        }
    }

    /// Notes gateways that cannot be heard (their sessions' view is unknown until they speak again) and gives up those that have been
    /// silent for ever.
    pub(crate) fn note_silent_gateways(self: &Arc<Self>) {
        let now = self.now();
        let mut lost: Vec<SessionId> = Vec::new();
        let mut counts: Vec<(SessionId, PlayerId)> = Vec::new();
        {
            let mut gateways = self.reports.lock();
            for g in gateways
                .values_mut()
                .filter(|g| !g.silent && now.since(g.at) > GATEWAY_SILENT)
            {
                g.silent = true;
                lost.extend(g.connections.keys().map(|(s, _)| *s));
            }
            gateways.retain(|_, g| {
                let keep = now.since(g.at) <= GATEWAY_FORGOTTEN;
                if !keep {
                    counts.extend(g.connections.keys().cloned());
                }
                keep
            });
        }
        counts.sort_unstable();
        lost.sort_unstable();
        lost.dedup();
        for id in lost {
            self.reports.unseen.store(true, Ordering::Release);
            let _ = self.apply(id, &Event::SightLost);
        }
        if counts.is_empty() {
            return;
        }
        let totals: Vec<_> = {
            let gateways = self.reports.lock();
            counts
                .into_iter()
                .map(|key| (Reports::total(&gateways, &key), key))
                .collect()
        };
        for (total, (id, player)) in totals {
            let _ = self.apply(id, &Event::Connections(player, total));
        }
        if self.reports.lock().values().all(|g| !g.silent) {
            self.regain_sight();
        }
    }
}
