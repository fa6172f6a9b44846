//! The one task that owns the room: takes commands, ticks thirty times a second, publishes states.
//!
//! States leave through a `watch` slot, which holds only the newest: a slow player skips states and
//! can never make the server's memory grow.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::protocol;
use crate::room::{Frame, Room};
use crate::session_file::SessionFacts;
use crate::sim::{AvatarId, Command, Full, Settings, TICK_HZ};

/// Commands waiting for the next turn of the loop; a full queue makes the senders wait.
pub(crate) const COMMAND_QUEUE: usize = 256;

/// A connection's request to the room.
pub(crate) enum ToHub {
    Sit {
        player_id: String,
        connection: u64,
        /// From the handshake's header.
        session_id: Option<String>,
        /// From the session file, where there is one.
        facts: Option<SessionFacts>,
        reply: oneshot::Sender<Result<Seat, Refused>>,
    },
    Leave {
        player_id: String,
        connection: u64,
    },
    Play {
        avatar: AvatarId,
        command: Command,
    },
}

/// What a seated connection gets to work with.
pub(crate) struct Seat {
    pub(crate) avatar: AvatarId,
    pub(crate) hello: Utf8Bytes,
    /// Resolves when a newer connection of the same player takes over.
    pub(crate) ousted: oneshot::Receiver<()>,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    /// The handshake names another session than this server's.
    OtherSession,
}

/// A state message ready to send; clones share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) with_spice: Utf8Bytes,
    pub(crate) without_spice: Utf8Bytes,
    pub(crate) spice_version: u64,
}

impl From<Frame> for Published {
    fn from(frame: Frame) -> Self {
        Self {
            with_spice: frame.with_spice.into(),
            without_spice: frame.without_spice.into(),
            spice_version: frame.spice_version,
        }
    }
}

/// What every connection reads from.
#[derive(Clone)]
pub(crate) struct Feeds {
    pub(crate) frames: watch::Receiver<Option<Published>>,
    pub(crate) roster: watch::Receiver<Utf8Bytes>,
}

pub(crate) struct Hub {
    room: Room,
    settings: Settings,
    commands: mpsc::Receiver<ToHub>,
    frames: watch::Sender<Option<Published>>,
    roster: watch::Sender<Utf8Bytes>,
    /// Newest results; the writer task takes the latest.
    results: watch::Sender<Option<String>>,
    seated: BTreeMap<u64, oneshot::Sender<()>>,
    untouched: bool,
}

impl Hub {
    pub(crate) fn new(
        settings: Settings,
        session_id: Option<&str>,
        results: watch::Sender<Option<String>>,
    ) -> (Self, mpsc::Sender<ToHub>, Feeds) {
        let mut room = Room::new(settings);
        if let Some(id) = session_id {
            room.learn_session(id);
        }
        let (to_hub, commands) = mpsc::channel(COMMAND_QUEUE);
        let (frames, frames_out) = watch::channel(None);
        let (roster, roster_out) = watch::channel(protocol::roster(&[]).into());
        let hub = Self {
            room,
            settings,
            commands,
            frames,
            roster,
            results,
            seated: BTreeMap::new(),
            untouched: true,
        };
        (
            hub,
            to_hub,
            Feeds {
                frames: frames_out,
                roster: roster_out,
            },
        )
    }

    /// Runs until told to stop or nobody can send commands; then hands out the final results.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / TICK_HZ);
        // A machine that slept must not see an hour of game played in a second.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let still = self.room.is_still();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                // An empty arena costs no wake-ups: warm instances wait here.
                _ = ticks.tick(), if !still => self.tick(),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
            }
        }
        self.room.refresh_scores();
        self.results.send_replace(Some(self.room.results()));
    }

    fn tick(&mut self) {
        let due = self.room.tick();
        if let Some(roster) = due.roster {
            self.roster.send_replace(roster.into());
        }
        if let Some(frame) = due.frame {
            self.frames.send_replace(Some(frame.into()));
        }
        if let Some(results) = due.results {
            self.results.send_replace(Some(results));
        }
    }

    fn obey(&mut self, command: ToHub) {
        match command {
            ToHub::Play { avatar, command } => self.room.command(avatar, command),
            ToHub::Leave {
                player_id,
                connection,
            } => {
                self.seated.remove(&connection);
                self.room.leave(&player_id, connection);
            }
            ToHub::Sit {
                player_id,
                connection,
                session_id,
                facts,
                reply,
            } => {
                let seat = self.sit(&player_id, connection, session_id, facts);
                if reply.send(seat).is_err() {
                    // The connection died while asking.
                    self.seated.remove(&connection);
                    self.room.leave(&player_id, connection);
                }
            }
        }
    }

    fn sit(
        &mut self,
        player_id: &str,
        connection: u64,
        session_id: Option<String>,
        facts: Option<SessionFacts>,
    ) -> Result<Seat, Refused> {
        if let Some(facts) = facts {
            self.apply(&facts);
        }
        if let Some(id) = session_id {
            if self.room.session().is_some_and(|known| known != id) {
                return Err(Refused::OtherSession);
            }
            self.room.learn_session(&id);
        }
        let seated = self
            .room
            .sit(player_id, connection)
            .map_err(|Full| Refused::Full)?;
        self.untouched = false;
        if let Some(old) = seated.ousted.and_then(|old| self.seated.remove(&old)) {
            // It may have gone by itself.
            let _ = old.send(());
        }
        let (oust, ousted) = oneshot::channel();
        self.seated.insert(connection, oust);
        Ok(Seat {
            avatar: seated.avatar,
            hello: seated.hello.into(),
            ousted,
        })
    }

    /// The session's wishes count once, before the first player sits down.
    fn apply(&mut self, facts: &SessionFacts) {
        if self.untouched {
            let payload = &facts.payload;
            if let Some(seconds) = payload.round_seconds {
                self.settings.round_ticks = seconds.saturating_mul(TICK_HZ);
            }
            if let Some(seed) = payload.seed {
                self.settings.seed = seed;
            }
            let known = self.room.session().map(str::to_owned);
            self.room = Room::new(self.settings);
            if let Some(id) = known {
                self.room.learn_session(&id);
            }
        }
        if let Some(id) = &facts.session_id {
            self.room.learn_session(id);
        }
    }
}
