//! One task per running instance: finds or starts its shim, learns when the game is ready, and learns how it ended.
//!
//! [`Shared::advance`] looks at what is written and takes the next step; it is the same for a fresh order, a restart and an
//! instance adopted from a killed owner, so each crash point has one way on.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use spawnpoint_core::InstanceId;

use super::cgroup::Groups;
use super::entry::{Entry, Found, find};
use super::gone::ShimGone;
use super::launch::base_env;
use super::output::Output;
use super::pages::{ExitNote, ProcessId, RunFile, Stamp, Status};
use super::ports::free_to_bind;
use super::shared::{Shared, Slot};
use super::start::{Start, Started};
use super::{OwnerStep, tree};

/// Shims that end without taking their attempt before it counts as never run. More than one: a process table that is full for a
/// moment is no fault of the game.
const LAUNCH_TRIES: u32 = 5;
/// Pause before trying again; also what a shim that holds the lock is given to say its name.
const LAUNCH_PAUSE: Duration = Duration::from_millis(20);
/// Other ports tried after somebody else's listener was found on the chosen one.
const PORT_MOVES: u32 = 5;
/// A shim that is still there this long after its game had to be killed is stuck (stopped, traced) and is killed itself.
const SHIM_OVERDUE: Duration = Duration::from_secs(8);

/// The next thing to do for an instance.
pub(super) enum Next {
    /// Watch this shim until it is gone, then look again.
    Watch(ProcessId),
    /// Look again after a pause.
    Again,
    /// Nothing, it is over (or was forgotten).
    Done,
}

impl Shared {
    /// Starts the task that keeps an instance, with what is to be done first if that is known already.
    pub(super) fn supervise(self: &Arc<Self>, id: InstanceId, first: Option<Next>) {
        let shared = Arc::clone(self);
        self.track(async move { keep(&shared, id, first).await });
    }

    /// Looks at an instance that should be running and takes the next step: start a shim, watch one, or settle how it ended.
    pub(super) fn advance(&self, id: InstanceId, tries: u32) -> Next {
        self.with_entry(id, |_, entry| Ok(self.advance_entry(entry, tries)))
            .unwrap_or(Next::Done)
    }

    fn advance_entry(&self, entry: &mut Entry, tries: u32) -> Next {
        let dir = self.dir(entry.id);
        let known = entry.exit.is_some();
        if let Err(e) = RunFile::open(&dir).and_then(|run| entry.read_pages(&run)) {
            if tries < LAUNCH_TRIES && !known {
                return Next::Again;
            }
            tracing::error!(instance = %entry.id, error = %e, "its run file cannot be read; it is ended");
            self.end_unwritten(entry, true, false);
            return Next::Done;
        }
        match find(entry, self.clock().boot_id(), tree::alive) {
            Found::Over(_) if known => Next::Done,
            Found::Over(_) => self.settle(entry),
            Found::Serving(shim) => {
                if entry.stop.is_some() {
                    self.signal_stop(entry);
                }
                Next::Watch(shim)
            }
            Found::Lost => {
                self.end_lost(entry);
                self.exit_or_again(entry, tries, true, false)
            }
            Found::Stale => self.exit_or_again(entry, tries, true, true),
            Found::Unclaimed if entry.stop.is_some() => {
                self.exit_or_again(entry, tries, false, true)
            }
            Found::Unclaimed if tries >= LAUNCH_TRIES => {
                Output::open(&dir, entry.record.log_bytes)
                    .note("the supervisor of the game ended before it could start it");
                self.exit_or_again(entry, tries, false, true)
            }
            Found::Unclaimed => self.launch(entry),
        }
    }

    fn exit_or_again(&self, entry: &mut Entry, tries: u32, lost: bool, never_ran: bool) -> Next {
        match self.write_exit(entry, lost, never_ran) {
            Ok(true) => self.settle(entry),
            Ok(false) => Next::Again,
            Err(_) if tries < LAUNCH_TRIES => Next::Again,
            Err(e) => {
                tracing::error!(instance = %entry.id, error = %e, "how it ended cannot be written");
                self.end_unwritten(entry, lost, never_ran);
                Next::Done
            }
        }
    }

    /// An end that only this process knows of, because the instance's files are gone or refuse. Whatever runs of it is ended.
    fn end_unwritten(&self, entry: &mut Entry, lost: bool, never_ran: bool) {
        if entry.exit.is_some() {
            return;
        }
        if let Some(shim) = entry.status.as_ref().map(|s| s.shim).or(entry.launched) {
            let _ = tree::signal(shim, Signal::KILL);
        }
        self.end_lost(entry);
        entry.exit = Some(ExitNote {
            attempt: entry.record.attempt,
            code: None,
            signal: None,
            oom: false,
            never_ran,
            lost,
            at: self.stamp(),
        });
    }

    /// Whether some shim took the attempt.
    fn claimed(&self, id: InstanceId, attempt: u32) -> bool {
        RunFile::open(&self.dir(id))
            .and_then(|run| run.read::<Status>())
            .is_ok_and(|status| status.is_some_and(|s| s.attempt >= attempt))
    }

    /// The end of an attempt is known. If it never had a chance because its port was somebody else's, it starts again on another.
    fn settle(&self, entry: &mut Entry) -> Next {
        if self.port_was_stolen(entry) && self.move_port(entry) {
            return self.launch(entry);
        }
        if entry.record.template.fixed_port.is_some() {
            // Nobody else can have another one, and whoever takes over needs this very port.
            self.return_port(entry.id, entry.record.port, false);
        }
        Next::Done
    }

    fn port_was_stolen(&self, entry: &Entry) -> bool {
        let ran = entry.exit.as_ref().is_some_and(|e| !e.never_ran && !e.lost);
        ran && entry.ready.is_none()
            && entry.stop.is_none()
            && entry.record.template.fixed_port.is_none()
            && entry.record.port_moves < PORT_MOVES
            // Its own tree is gone, so whoever has the port is somebody else.
            && entry.record.port.is_some_and(|port| !free_to_bind(port, true))
    }

    /// Gives an instance another port and a new attempt. False if there is none or it cannot be written.
    fn move_port(&self, entry: &mut Entry) -> bool {
        let id = entry.id;
        let old = entry.record.port;
        // Given back first, or its owner would have two; it rests, so it is not what comes next.
        self.return_port(id, old, true);
        let mut record = entry.record.clone();
        record.attempt += 1;
        record.port_moves += 1;
        let moved = self.grant_port(id, None).and_then(|port| {
            record.port = Some(port);
            self.state
                .replace(id, &record, false)
                .map_err(crate::RuntimeError::Storage)
        });
        if let Err(e) = moved {
            tracing::warn!(instance = %id, error = %e, "its port is taken and it cannot move to another");
            self.return_port(id, record.port, false);
            return false;
        }
        tracing::info!(instance = %id, from = old, to = record.port, "its port was taken by another process; it starts again on another");
        entry.record = record;
        entry.status = None;
        entry.ready = None;
        entry.exit = None;
        entry.launched = None;
        true
    }

    fn launch(&self, entry: &mut Entry) -> Next {
        let id = entry.id;
        let fixed = entry.record.template.fixed_port.is_some();
        let taken = entry
            .record
            .port
            .is_some_and(|port| !free_to_bind(port, true));
        if taken && !fixed && entry.record.port_moves < PORT_MOVES && !self.move_port(entry) {
            tracing::warn!(instance = %id, "it is started on a port that is taken");
        }
        match self.start_shim(entry) {
            Ok(shim) => {
                entry.launched = Some(shim);
                self.observe(id, OwnerStep::ShimStarted);
                Next::Watch(shim)
            }
            Err(e) => {
                tracing::warn!(instance = %id, error = %e, "its shim could not be started");
                Output::open(&self.dir(id), entry.record.log_bytes)
                    .note(&format!("its supervisor could not be started: {e}"));
                Next::Again
            }
        }
    }

    fn start_shim(&self, entry: &Entry) -> io::Result<ProcessId> {
        let (program, arguments) = self
            .config
            .shim_command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no shim command"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(self.dir(entry.id))
            .env_clear()
            .envs(base_env(
                entry.record.template.inherit_env,
                std::env::vars_os(),
            ));
        #[cfg(feature = "faults")]
        command.envs(crate::fault::passed_on());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // A child that nobody reaped keeps its number, so this cannot be another process.
        Ok(tree::identify(pid))
    }

    /// The shim is gone and did not say how its game ended: the game died with it; what it forked is ended here.
    fn end_lost(&self, entry: &Entry) {
        let Some(status) = &entry.status else {
            return;
        };
        let groups = Groups {
            paths: status.groups.clone(),
        };
        groups.kill();
        if status.boot_id == self.clock().boot_id() {
            let left = tree::sweep_orphans(&entry.record.id, Some(status.shim), status.game);
            if left > 0 {
                tracing::warn!(instance = %entry.id, left, "processes of it could not be killed");
            }
        }
        if let Err(e) = groups.remove() {
            tracing::warn!(instance = %entry.id, error = %e, "its control group could not be removed");
        }
    }

    /// Takes what a poll read into the instance's view.
    pub(super) fn note_status(&self, id: InstanceId, status: Status) {
        let _ = self.with_entry(id, |_, entry| {
            if entry.record.attempt == status.attempt {
                entry.status = Some(status);
            }
            Ok(())
        });
    }

    /// The attempt accepts, unless something else became of it meanwhile.
    pub(super) fn accept(
        &self,
        id: InstanceId,
        attempt: u32,
        at: Stamp,
        address: Option<SocketAddr>,
    ) {
        let noted = self.with_entry(id, |_, entry| {
            if entry.record.attempt != attempt || entry.exit.is_some() || entry.ready.is_some() {
                return Ok(());
            }
            let address = match address {
                Some(address) => Some(address),
                None => self.listening(entry),
            };
            self.note_ready(entry, at, address)
        });
        if let Err(e) = noted {
            tracing::warn!(instance = %id, error = %e, "that it is ready could not be written");
        }
    }
}

async fn keep(shared: &Arc<Shared>, id: InstanceId, first: Option<Next>) {
    let mut tries = 0;
    let mut next = first;
    loop {
        let step = match next.take() {
            Some(step) => step,
            None => blocking(shared, move |s| s.advance(id, tries))
                .await
                .unwrap_or(Next::Done),
        };
        match step {
            Next::Done => return,
            Next::Again => {
                tries += 1;
                tokio::time::sleep(LAUNCH_PAUSE).await;
            }
            Next::Watch(shim) => {
                let claimed = watch(shared, id, shim).await;
                if !claimed {
                    tries += 1;
                    tokio::time::sleep(LAUNCH_PAUSE).await;
                }
            }
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Option<T> {
    let owned = Arc::clone(shared);
    shared
        .tasks()
        .spawn_blocking(move || work(&owned))
        .await
        .ok()
}

/// Follows one shim until it is gone. False if it never took the attempt.
async fn watch(shared: &Arc<Shared>, id: InstanceId, shim: ProcessId) -> bool {
    let Some(slot) = shared.slot(id) else {
        return true;
    };
    let gone = ShimGone::of(shim);
    let start = blocking(shared, move |s| Start::new(s, id, shim)).await;
    let Some(mut start) = start.flatten() else {
        // Its files are gone; the shim itself may not be.
        follow(shared, &slot, shim, &gone).await;
        gone.reap();
        return false;
    };
    let attempt = start.attempt();
    let outcome = start.poll_until_ready(shared, &slot, &gone).await;
    // Its descriptors are for a start only: a thousand games that run need none of them.
    drop(start);
    if !matches!(outcome, Started::ShimGone) {
        follow(shared, &slot, shim, &gone).await;
    }
    gone.reap();
    blocking(shared, move |s| s.claimed(id, attempt))
        .await
        .unwrap_or(false)
}

/// A ready (or stopping) instance: nothing to do until its shim is gone, unless it is overdue.
async fn follow(shared: &Arc<Shared>, slot: &Slot, shim: ProcessId, gone: &ShimGone) {
    loop {
        let id = slot.id;
        let overdue = blocking(shared, move |s| {
            s.with_entry(id, |_, entry| {
                Ok(entry
                    .stop
                    .as_ref()
                    .map(|stop| stop.kill_at.moment(s.clock()).after(SHIM_OVERDUE)))
            })
        })
        .await
        .and_then(Result::ok)
        .flatten();
        let wait = overdue.map(|at| at.since(shared.now()));
        tokio::select! {
            () = gone.wait() => return,
            () = slot.wake.notified() => {}
            () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {
                tracing::warn!(instance = %id, "its shim does not stop; it is killed, and the game with it");
                let _ = tree::signal(shim, Signal::KILL);
                gone.wait().await;
                return;
            }
        }
    }
}
