//! A control plane that does what the test says.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use spawnpoint_core::SessionId;
use spawnpoint_wire::link::{Cursor, Link, LinkError, Report, Resolved, Route, RouteUpdate};
use tokio::sync::watch;

use crate::harness::eventually;

#[derive(Default)]
struct State {
    incarnation: u64,
    sequence: u64,
    routes: BTreeMap<SessionId, Route>,
    log: Vec<RouteUpdate>,
    /// Only found when asked for.
    hidden: BTreeMap<SessionId, Route>,
    asked: Vec<SessionId>,
    reports: Vec<Report>,
    down: bool,
    streams: u32,
    /// Reports are heard and not kept: they would outweigh the tunnels that they are about.
    forgetful: bool,
    /// Nothing comes by the stream.
    held_back: bool,
    /// Updates that the gateway has taken in.
    applied: u64,
}

pub(crate) struct MemoryLink {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl MemoryLink {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                incarnation: 1,
                ..State::default()
            }),
            changed: watch::channel(0).0,
        }
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    pub(crate) fn set(&self, route: Route) {
        self.change(|s| {
            s.sequence += 1;
            s.routes.insert(route.session, route.clone());
            let cursor = Cursor {
                incarnation: s.incarnation,
                sequence: s.sequence,
            };
            s.log.push(RouteUpdate::Set {
                cursor,
                route: Box::new(route),
            });
        });
    }

    pub(crate) fn gone(&self, session: SessionId) {
        self.change(|s| {
            s.sequence += 1;
            s.routes.remove(&session);
            let cursor = Cursor {
                incarnation: s.incarnation,
                sequence: s.sequence,
            };
            s.log.push(RouteUpdate::Gone { cursor, session });
        });
    }

    pub(crate) fn hide(&self, route: Route) {
        self.change(|s| s.hidden.insert(route.session, route));
    }

    pub(crate) fn forget_reports(&self) {
        self.change(|s| s.forgetful = true);
    }

    /// The link fails from now on; open streams end.
    pub(crate) fn set_down(&self, down: bool) {
        self.change(|s| s.down = down);
    }

    /// What happens from now on is late in the stream, until it is not held back any more.
    pub(crate) fn hold_back(&self, held: bool) {
        self.change(|s| s.held_back = held);
    }

    /// Another run of the server, with the same routes and no memory of reports.
    pub(crate) fn restart(&self) {
        self.change(|s| {
            s.incarnation += 1;
            s.sequence = 0;
            s.applied = u64::MAX;
            s.log.clear();
        });
    }

    /// Waits until the gateway has taken in everything said so far.
    pub(crate) async fn settled(&self) {
        eventually("the gateway follows", || {
            let state = self.state.lock().unwrap();
            state.applied == state.sequence
        })
        .await;
    }

    pub(crate) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked.len()
    }

    pub(crate) fn streams(&self) -> u32 {
        self.state.lock().unwrap().streams
    }

    /// Connections of each player of a session, as reported last.
    pub(crate) fn connections(&self, session: SessionId) -> BTreeMap<String, u32> {
        let mut now = BTreeMap::new();
        for report in &self.state.lock().unwrap().reports {
            if report.full {
                now.clear();
            }
            for seen in report.sessions.iter().filter(|s| s.session == session) {
                for p in &seen.players {
                    now.insert(p.player.to_string(), p.connections);
                }
            }
        }
        now
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.state.lock().unwrap().reports.clone()
    }

    pub(crate) async fn reported(&self, what: &str, wanted: impl Fn(&[Report]) -> bool) {
        eventually(what, || wanted(&self.state.lock().unwrap().reports)).await;
    }
}

struct Following {
    link: &'static MemoryLink,
    incarnation: u64,
    next: u64,
    whole: bool,
    changed: watch::Receiver<u64>,
}

#[async_trait]
impl Link for &'static MemoryLink {
    async fn routes(
        &self,
        from: Option<Cursor>,
    ) -> Result<BoxStream<'static, RouteUpdate>, LinkError> {
        let link: &'static MemoryLink = self;
        let (incarnation, resumed) = link.change(|s| {
            if s.down {
                return Err(LinkError::Unavailable("down".into()));
            }
            s.streams += 1;
            Ok((
                s.incarnation,
                from.filter(|c| c.incarnation == s.incarnation),
            ))
        })?;
        let following = Following {
            link,
            incarnation,
            next: resumed.map_or(0, |c| c.sequence),
            whole: resumed.is_none(),
            changed: link.changed.subscribe(),
        };
        let updates = stream::unfold(following, |mut f| async move {
            loop {
                let update = {
                    let mut state = f.link.state.lock().unwrap();
                    // Asking for the next one means that the last one is applied.
                    state.applied = f.next;
                    if state.down || state.incarnation != f.incarnation {
                        return None;
                    }
                    if f.whole {
                        f.whole = false;
                        f.next = state.sequence;
                        Some(RouteUpdate::All {
                            cursor: Cursor {
                                incarnation: state.incarnation,
                                sequence: state.sequence,
                            },
                            routes: state.routes.values().cloned().collect(),
                        })
                    } else {
                        let update = state.log.get(f.next as usize).cloned();
                        let update = update.filter(|_| !state.held_back);
                        f.next += u64::from(update.is_some());
                        update
                    }
                };
                if let Some(update) = update {
                    return Some((update, f));
                }
                f.changed.changed().await.ok()?;
            }
        });
        Ok(updates.boxed())
    }

    async fn resolve(&self, session: SessionId) -> Result<Option<Resolved>, LinkError> {
        self.change(|s| {
            s.asked.push(session);
            if s.down {
                return Err(LinkError::Unavailable("down".into()));
            }
            let found = s.hidden.get(&session).or(s.routes.get(&session));
            Ok(found.map(|route| Resolved {
                route: route.clone(),
                as_of: Cursor {
                    incarnation: s.incarnation,
                    sequence: s.sequence,
                },
            }))
        })
    }

    async fn report(&self, report: Report) -> Result<(), LinkError> {
        self.change(|s| {
            if s.down {
                return Err(LinkError::Unavailable("down".into()));
            }
            if !s.forgetful {
                s.reports.push(report);
            }
            Ok(())
        })
    }
}
