//! The shim: one small process per instance that stands between the game and us.
//!
//! It is the parent of the game and of every orphan the game leaves, the writer of its log, and the one who knows how it ended.
//! It lives exactly as long as the game, whoever else comes and goes. Synchronous, single-threaded, no runtime: it is started for
//! each game, so what it does before the game runs is what a player waits for.
//!
//! An attempt is run at most once: whoever has the run file's lock and finds neither a status nor an exit of the attempt writes
//! its status first and then starts the game. A second shim of the same attempt sees one of the three and leaves.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, setsid, wait};
use spawnpoint_core::{Clock, Moment};

use super::cgroup::Groups;
use super::launch;
use super::output::{Needle, Output};
use super::pages::{ExitNote, ProcessId, RunFile, Stamp, Status, StopNote};
use super::record::{ReadyRecord, Record, parse};
use super::state_dir::{RECORD_FILE, WORK_DIR};
use super::sys::{Signals, confine};
use super::tree;
use crate::clock::SystemClock;
use crate::fault;

/// Exit code of a shim that found its attempt taken or over.
pub(super) const TAKEN: u8 = 75;
/// Grace of a SIGTERM that came without a word (a person's `kill`): the default of the fleet's setting.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Bytes read from the game's output at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Chunks read before signals are looked at again, so that a flood does not put off a stop.
const CHUNKS_PER_TURN: usize = 16;
/// How often a tree that is being killed is looked at again: a fork may slip between the look and the kill.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// After this, what cannot be killed (a process stuck in the kernel) is left behind and said so in the log.
const KILL_GIVES_UP: Duration = Duration::from_secs(5);
/// How long a control group may stay busy after its last process was reaped.
const GROUP_LINGERS: Duration = Duration::from_millis(500);

/// Where a shim is; tests stop one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has the lock, nothing is written.
    Locked,
    /// The attempt is taken, the game is not started.
    Claimed,
    /// The game runs, and nobody but the shim knows.
    Spawned,
    /// The game's identity is written.
    Running,
    /// The game is over and its tree is gone, nothing is written of it.
    Over,
    /// How it ended is written.
    Noted,
}

impl Step {
    const fn point(self) -> &'static str {
        match self {
            Self::Locked => "shim.locked",
            Self::Claimed => "shim.claimed",
            Self::Spawned => "shim.spawned",
            Self::Running => "shim.running",
            Self::Over => "shim.over",
            Self::Noted => "shim.noted",
        }
    }
}

/// Runs the instance in this directory. The whole life of a shim process.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    run(dir, &mut |step| fault::pass(step.point()))
}

/// As [`main`], calling `observe` at each step.
#[must_use]
pub fn run(dir: &Path, observe: &mut dyn FnMut(Step)) -> ExitCode {
    match Shim::take(dir, observe) {
        Ok(Some(shim)) => shim.live(observe),
        Ok(None) => ExitCode::from(TAKEN),
        Err(e) => {
            Output::open(dir, u64::MAX).note(&format!("the supervisor could not start: {e}"));
            ExitCode::FAILURE
        }
    }
}

struct Shim<'a> {
    dir: &'a Path,
    clock: SystemClock,
    signals: Signals,
    run: RunFile,
    record: Record,
    status: Status,
    output: Output,
    groups: Groups,
}

/// How the game itself ended.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    code: Option<i32>,
    signal: Option<i32>,
}

impl<'a> Shim<'a> {
    /// Takes the attempt, or finds it taken.
    fn take(dir: &'a Path, observe: &mut dyn FnMut(Step)) -> io::Result<Option<Self>> {
        // Before anything else: from here on a SIGTERM is a request and not the end.
        let signals = Signals::install()?;
        // Fails only for a leader of a process group, which then has the session it started with.
        let _ = setsid();
        let clock = SystemClock::new();
        let run = RunFile::open(dir)?;
        if !run.try_lock()? {
            return Ok(None);
        }
        let text = std::fs::read(dir.join(RECORD_FILE))?;
        let record =
            parse(&text).map_err(|e| io::Error::other(format!("the record is not ours: {e:?}")))?;
        let attempt = record.attempt;
        let started = run.read::<Status>()?.is_some_and(|s| s.attempt >= attempt);
        let over = run
            .read::<ExitNote>()?
            .is_some_and(|e| e.attempt >= attempt);
        if attempt == 0 || started || over {
            return Ok(None);
        }
        observe(Step::Locked);
        let status = Status {
            attempt,
            boot_id: clock.boot_id().to_owned(),
            shim: tree::identify(getpid().as_raw_pid()),
            game: None,
            spawned_at: None,
            line_seen_at: None,
            groups: Vec::new(),
        };
        run.write(&status)?;
        observe(Step::Claimed);
        let output = Output::open(dir, record.log_bytes);
        Ok(Some(Self {
            dir,
            clock,
            signals,
            run,
            record,
            status,
            output,
            groups: Groups::default(),
        }))
    }

    fn live(mut self, observe: &mut dyn FnMut(Step)) -> ExitCode {
        let told_to_stop = self.signals.take_term() || self.stop_note().is_some();
        if told_to_stop {
            return self.never_ran();
        }
        #[cfg(target_os = "linux")]
        if let Err(e) = rustix::process::set_child_subreaper(Some(getpid())) {
            self.output.note(&format!(
                "processes that leave the game cannot be kept: {e}"
            ));
        }
        self.make_groups();
        let mut spawned = self.spawn();
        if let Err(e) = &spawned
            && !self.groups.paths.is_empty()
        {
            // Groups that can be made and not entered must not cost the game; nor may a limit be missing without a word.
            self.output.note(&format!("no limits: {e}"));
            self.remove_groups();
            self.groups = Groups::default();
            spawned = self.spawn();
        }
        let (game, reader) = match spawned {
            Ok(spawned) => spawned,
            Err(e) => {
                let program = self.record.template.command.first();
                let program = program.map_or("", String::as_str);
                self.output.note(&format!("cannot run {program}: {e}"));
                return self.never_ran();
            }
        };
        observe(Step::Spawned);
        self.status.game = Some(game);
        self.status.spawned_at = Some(Stamp::now(&self.clock));
        self.status.groups.clone_from(&self.groups.paths);
        self.say_status();
        observe(Step::Running);
        let (end, reader) = self.supervise(game, reader);
        let at = Stamp::now(&self.clock);
        self.sweep(game);
        if let Some(mut reader) = reader {
            self.pump(&mut reader, &mut None);
        }
        observe(Step::Over);
        let oom = end.code != Some(0) && self.groups.oom_killed();
        let code = self.finish(&ExitNote {
            attempt: self.record.attempt,
            code: end.code,
            signal: end.signal,
            oom,
            never_ran: false,
            lost: false,
            at,
        });
        observe(Step::Noted);
        code
    }

    fn never_ran(mut self) -> ExitCode {
        let note = ExitNote {
            attempt: self.record.attempt,
            code: None,
            signal: None,
            oom: false,
            never_ran: true,
            lost: false,
            at: Stamp::now(&self.clock),
        };
        self.finish(&note)
    }

    fn finish(&mut self, note: &ExitNote) -> ExitCode {
        // Before the note: whoever reads it may count on nothing being left.
        self.remove_groups();
        match self.run.write(note) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                self.output
                    .note(&format!("how it ended could not be written: {e}"));
                ExitCode::FAILURE
            }
        }
    }

    fn remove_groups(&mut self) {
        // A group may count its dead for a moment longer than we do.
        let give_up = self.clock.now().after(GROUP_LINGERS);
        while let Err(e) = self.groups.remove() {
            if self.clock.now() >= give_up {
                self.output
                    .note(&format!("its control group could not be removed: {e}"));
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn make_groups(&mut self) {
        let template = &self.record.template;
        if template.cpu_millis.is_none() && template.memory_bytes.is_none() {
            return;
        }
        let (groups, missing) =
            Groups::make(&self.record.id, template.cpu_millis, template.memory_bytes);
        for text in missing {
            self.output.note(&text);
        }
        self.groups = groups;
    }

    fn spawn(&self) -> io::Result<(ProcessId, PipeReader)> {
        let entries = self
            .groups
            .paths
            .iter()
            .map(|path| {
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(path.join("cgroup.procs"))?;
                Ok(OwnedFd::from(file))
            })
            .collect::<io::Result<Vec<_>>>()?;

        // What the shim was given is the base environment already.
        let base: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let env = launch::game_env(&self.record, self.dir);
        let mut arguments =
            launch::arguments(&self.record.template.command, &env, &base).into_iter();
        let program = arguments
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .envs(&env)
            .current_dir(
                self.record
                    .template
                    .workdir
                    .clone()
                    .unwrap_or_else(|| self.dir.join(WORK_DIR)),
            )
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .arg0(&program);
        confine(&mut command, entries);
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Not reaped through `child`: this process reaps whatever it has.
        Ok((tree::identify(pid), reader))
    }

    fn say_status(&mut self) {
        if let Err(e) = self.run.write(&self.status) {
            self.output
                .note(&format!("its status cannot be written: {e}"));
        }
    }

    fn stop_note(&self) -> Option<StopNote> {
        let note = self.run.read::<StopNote>().ok().flatten()?;
        (note.attempt == self.record.attempt).then_some(note)
    }

    /// Until the game's first process is over.
    fn supervise(&mut self, game: ProcessId, reader: PipeReader) -> (End, Option<PipeReader>) {
        let mut reader = Some(reader);
        let mut needle = match &self.record.template.ready {
            ReadyRecord::Log(text) => Some(Needle::new(text)),
            _ => None,
        };
        let mut kill_at: Option<Moment> = None;
        loop {
            self.wait_for_news(reader.as_ref(), kill_at);
            if self.signals.take_term() {
                kill_at = Some(self.begin_stop(game, kill_at));
            }
            if let Some(source) = &mut reader
                && !self.pump(source, &mut needle)
            {
                reader = None;
            }
            if let Some(end) = reap(game) {
                return (end, reader);
            }
            if kill_at.is_some_and(|at| at <= self.clock.now()) {
                self.kill_tree(Some(game));
                kill_at = Some(self.clock.now().after(KILL_AGAIN));
            }
        }
    }

    fn wait_for_news(&self, reader: Option<&PipeReader>, until: Option<Moment>) {
        let timeout = until.map(|at| {
            let left = at.since(self.clock.now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let wake = PollFd::new(self.signals.fd(), PollFlags::IN);
        let polled = match reader {
            Some(reader) => poll(
                &mut [wake, PollFd::new(reader, PollFlags::IN)],
                timeout.as_ref(),
            ),
            None => poll(&mut [wake], timeout.as_ref()),
        };
        // A signal interrupts; whatever else it says, the turn looks at everything.
        let _ = polled;
        self.signals.drain();
    }

    /// Asks the game to stop; returns when it will be made to.
    fn begin_stop(&mut self, game: ProcessId, before: Option<Moment>) -> Moment {
        let kill_at = self.stop_note().map_or_else(
            || self.clock.now().after(DEFAULT_GRACE),
            |note| note.kill_at.moment(&self.clock),
        );
        if before.is_none() {
            tree::kill_group(game.pid, Signal::TERM);
            // A game that somebody paused must hear it too.
            tree::kill_group(game.pid, Signal::CONT);
        }
        before.map_or(kill_at, |b| b.min(kill_at))
    }

    /// Kills all that descends from here. The game's group is killed in one call while its number is certainly its own, that is
    /// until the game has been reaped.
    fn kill_tree(&self, game: Option<ProcessId>) {
        if let Some(game) = game {
            tree::kill_group(game.pid, Signal::KILL);
        }
        self.groups.kill();
        for pid in tree::descendants(getpid().as_raw_pid()) {
            tree::kill(pid, Signal::KILL);
        }
    }

    /// Ends what outlived the game: children in its group, those that left it, daemons.
    fn sweep(&mut self, game: ProcessId) {
        let give_up = self.clock.now().after(KILL_GIVES_UP);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => continue,
                // No child left, and orphans would be children.
                Err(_) => {
                    self.groups.kill();
                    if !cfg!(target_os = "linux") {
                        // Without subreaping, the group is all that can be seen.
                        tree::kill_group(game.pid, Signal::KILL);
                    }
                    return;
                }
                Ok(None) => {}
            }
            if self.clock.now() >= give_up {
                let left = tree::descendants(getpid().as_raw_pid());
                self.output
                    .note(&format!("processes that could not be killed: {left:?}"));
                return;
            }
            self.kill_tree(None);
            self.wait_for_news(None, Some(self.clock.now().after(KILL_AGAIN)));
        }
    }

    /// Moves output to the log. False when there will be no more.
    fn pump(&mut self, reader: &mut PipeReader, needle: &mut Option<Needle>) -> bool {
        let mut chunk = [0u8; CHUNK];
        for _ in 0..CHUNKS_PER_TURN {
            match reader.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => {
                    self.output.write(&chunk[..n]);
                    if needle.as_mut().is_some_and(|text| text.feed(&chunk[..n])) {
                        *needle = None;
                        self.status.line_seen_at = Some(Stamp::now(&self.clock));
                        self.say_status();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Reaps every child that is over; says how the game ended if it was among them.
fn reap(game: ProcessId) -> Option<End> {
    let mut end = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == Pid::from_raw(game.pid) {
            end = Some(how(status));
        }
    }
    end
}

fn how(status: WaitStatus) -> End {
    End {
        code: status.exit_status(),
        signal: status.terminating_signal(),
    }
}
