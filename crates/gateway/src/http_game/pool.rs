//! Connections to HTTP games that are free for the next request. One belongs to one incarnation of one session and is never used
//! for another: what a game keeps by connection stays with its players.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use spawnpoint_core::SessionId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bodies::Upload;
use crate::config::{IDLE_CONNECTION, IDLE_SETTLES, MAX_HEAD, MAX_IDLE_CONNECTIONS};
use crate::game::{self, DialError};
use crate::metrics::lock;

/// What a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
    pub(crate) address: SocketAddr,
}

struct Idle {
    to: Destination,
    send: SendRequest<Upload>,
    since: Instant,
}

/// The free connections of all sessions.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<SessionId, Vec<Idle>>>,
    filled: Notify,
}

/// A connection in use. Dropped, it is closed.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    to: Destination,
    pub(crate) send: SendRequest<Upload>,
    /// It has carried a request before, and the game may be closing it at this very moment.
    pub(crate) used: bool,
}

impl Lease {
    /// The answer is through: the next request may have it.
    pub(crate) fn give_back(self) {
        if !self.send.is_closed() {
            self.pool.put(Idle {
                to: self.to,
                send: self.send,
                since: Instant::now(),
            });
        }
    }
}

impl Pool {
    fn put(&self, idle: Idle) {
        let mut all = lock(&self.idle);
        let free = all.entry(idle.to.session).or_default();
        // Of another incarnation: that one is gone.
        free.retain(|i| i.to == idle.to);
        if free.len() < MAX_IDLE_CONNECTIONS {
            free.push(idle);
        }
        drop(all);
        self.filled.notify_one();
    }

    fn take(&self, to: Destination) -> Option<SendRequest<Upload>> {
        let mut all = lock(&self.idle);
        let free = all.get_mut(&to.session)?;
        let mut found = None;
        // The one used last is the least likely to have been closed.
        while let Some(idle) = free.pop() {
            if idle.to == to && !idle.send.is_closed() && idle.since.elapsed() < IDLE_CONNECTION {
                found = Some(idle.send);
                break;
            }
        }
        if free.is_empty() {
            all.remove(&to.session);
        }
        found
    }

    /// A free connection, or a fresh one.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        to: Destination,
        tasks: &TaskTracker,
        kill: &CancellationToken,
    ) -> Result<Lease, DialError> {
        while let Some(mut send) = self.take(to) {
            // It was given back when its answer was read, a moment before it is done with it itself.
            if let Ok(Ok(())) = timeout(IDLE_SETTLES, send.ready()).await {
                return Ok(Lease {
                    pool: self.clone(),
                    to,
                    send,
                    used: true,
                });
            }
        }
        self.fresh(to, tasks, kill).await
    }

    /// A connection that nothing was asked on yet.
    pub(crate) async fn fresh(
        self: &Arc<Self>,
        to: Destination,
        tasks: &TaskTracker,
        kill: &CancellationToken,
    ) -> Result<Lease, DialError> {
        let stream = game::open(to.address).await?;
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .title_case_headers(true)
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Upload>(TokioIo::new(stream))
            .await
            .map_err(|_| DialError::Unreachable)?;
        let kill = kill.clone();
        tasks.spawn(async move {
            // How it ends is heard by whoever waits for an answer on it.
            let _ = kill.run_until_cancelled(connection).await;
        });
        Ok(Lease {
            pool: self.clone(),
            to,
            send,
            used: false,
        })
    }

    /// The session is at this incarnation now, or gone: connections to others are closed.
    pub(crate) fn settle(&self, session: SessionId, generation: Option<u32>) {
        let mut all = lock(&self.idle);
        if let Some(free) = all.get_mut(&session) {
            free.retain(|i| Some(i.to.generation) == generation);
            if free.is_empty() {
                all.remove(&session);
            }
        }
    }

    /// Closes all of them.
    pub(crate) fn clear(&self) {
        lock(&self.idle).clear();
    }

    fn sweep(&self) -> usize {
        let mut all = lock(&self.idle);
        all.retain(|_, free| {
            free.retain(|i| !i.send.is_closed() && i.since.elapsed() < IDLE_CONNECTION);
            !free.is_empty()
        });
        all.len()
    }

    /// Closes those that nobody uses, until told to stop.
    pub(crate) async fn expire(self: Arc<Self>, stop: CancellationToken) {
        let forever = async {
            loop {
                let filled = self.filled.notified();
                if self.sweep() == 0 {
                    filled.await;
                }
                sleep(IDLE_CONNECTION / 2).await;
            }
        };
        stop.run_until_cancelled(forever).await;
        self.clear();
    }

    /// Free connections there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.idle).values().map(Vec::len).sum()
    }
}
