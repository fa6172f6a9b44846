//! What callers ask for, each as one synchronous step under the instance's lock: decide, write, publish.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spawnpoint_core::InstanceId;
use spawnpoint_core::limits::MAX_RESULTS;

use super::entry::Entry;
use super::listeners::{Prober, Seen, Transport};
use super::pages::{ExitNote, ReadyNote, RunFile, Stamp, StopNote};
use super::ports::free_to_bind;
use super::record::{Content, MAX_DOCUMENT, ProtocolRecord, ReadyRecord, Record};
use super::shared::{Shared, Slot, locked};
use super::state_dir::RESULTS_FILE;
use super::{OwnerStep, tree};
use crate::contract::{Facts, Instance, Order, RuntimeError, Version};
use crate::fault;

impl Shared {
    pub(super) fn order(self: &Arc<Self>, order: Order) -> Result<Instance, RuntimeError> {
        let id = order.id;
        check(&order)?;
        loop {
            let slot = Arc::clone(
                locked(&self.slots)
                    .entry(id)
                    .or_insert_with(|| Slot::empty(id)),
            );
            let mut guard = locked(&slot.entry);
            // A failed order or a forget may have taken the place out of the table while we waited for it.
            if !self.slot(id).is_some_and(|now| Arc::ptr_eq(&now, &slot)) {
                continue;
            }
            if let Some(entry) = guard.as_ref() {
                return Ok(entry.instance(self.clock()));
            }
            let entry = match self.record(&order) {
                Ok(entry) => entry,
                Err(e) => {
                    locked(&self.slots).remove(&id);
                    return Err(e);
                }
            };
            let instance = entry.instance(self.clock());
            let run_now = !entry.gated();
            *guard = Some(entry);
            self.publish(&slot, guard.as_ref());
            drop(guard);
            self.observe(id, OwnerStep::Recorded);
            if run_now {
                self.supervise(id, None);
            }
            return Ok(instance);
        }
    }

    /// Makes an order durable, or leaves nothing of it.
    fn record(&self, order: &Order) -> Result<Entry, RuntimeError> {
        let now = self.stamp();
        let mut record = Record::of(order, self.config.log_bytes, now);
        if let Some(workdir) = &record.template.workdir {
            // Relative to the caller now; a later owner may run elsewhere.
            record.template.workdir =
                Some(std::path::absolute(workdir).map_err(RuntimeError::Storage)?);
        }
        if !order.gated {
            record.port = Some(self.grant_port(order.id, record.template.fixed_port)?);
        }
        if let Err(e) = self.state.create(order.id, &record) {
            self.return_port(order.id, record.port, false);
            return Err(RuntimeError::Storage(e));
        }
        Entry::of(record).ok_or(RuntimeError::Unsupported("keep this id"))
    }

    /// A port for an instance: the one it insists on, or one of the range.
    pub(super) fn grant_port(
        &self,
        id: InstanceId,
        fixed: Option<u16>,
    ) -> Result<u16, RuntimeError> {
        let now = self.now();
        let mut ports = locked(&self.ports);
        if let Some(port) = fixed {
            if ports.take(port, id) {
                if free_to_bind(port, true) {
                    return Ok(port);
                }
                ports.release(port, id, false, now);
            }
            return Err(RuntimeError::PortsExhausted {
                from: port,
                to: port,
            });
        }
        let (from, to) = ports.range();
        ports
            .allocate(id, now, |port| free_to_bind(port, false))
            .ok_or(RuntimeError::PortsExhausted { from, to })
    }

    pub(super) fn return_port(&self, id: InstanceId, port: Option<u16>, used: bool) {
        if let Some(port) = port {
            let now = self.now();
            locked(&self.ports).release(port, id, used, now);
        }
    }

    pub(super) fn release(
        self: &Arc<Self>,
        id: InstanceId,
        expect: Version,
    ) -> Result<Version, RuntimeError> {
        let version = self.with_entry(id, |_, entry| {
            if !entry.usable() {
                return Err(RuntimeError::Over);
            }
            expected(entry, expect)?;
            if !entry.gated() {
                return Ok(None);
            }
            let port = self.grant_port(id, entry.record.template.fixed_port)?;
            let mut record = entry.record.clone();
            record.gated = false;
            record.attempt += 1;
            record.port = Some(port);
            record.released_at = Some(self.stamp());
            record.revision = entry.version + 1;
            if let Err(e) = self.state.replace(id, &record, false) {
                self.return_port(id, Some(port), false);
                return Err(RuntimeError::Storage(e));
            }
            entry.version = record.revision;
            entry.record = record;
            Ok(Some(Version(entry.version)))
        })?;
        match version {
            Some(version) => {
                self.observe(id, OwnerStep::Recorded);
                self.supervise(id, None);
                Ok(version)
            }
            None => Ok(expect),
        }
    }

    pub(super) fn bind(
        &self,
        id: InstanceId,
        expect: Version,
        facts: &Facts,
        session_file: Option<&Bytes>,
    ) -> Result<Version, RuntimeError> {
        check_facts(facts)?;
        self.with_entry(id, |slot, entry| {
            let own = entry
                .record
                .facts()
                .is_some_and(|f| f.session == facts.session);
            if !own && !entry.usable() {
                return Err(RuntimeError::Over);
            }
            expected(entry, expect)?;
            if !own && self.died(entry) {
                // The supervisor is on its way to say so.
                slot.wake.notify_one();
                return Err(RuntimeError::Over);
            }
            let mut record = entry.record.clone();
            record.facts = Some(facts.into());
            if let Some(content) = session_file {
                record.session_file = Some(Content::of(content));
            }
            record.revision = entry.version + 1;
            self.state
                .replace(id, &record, session_file.is_some())
                .map_err(RuntimeError::Storage)?;
            entry.version = record.revision;
            entry.record = record;
            Ok(Version(entry.version))
        })
    }

    /// Whether a running attempt's game is already dead, though nobody has said so yet.
    fn died(&self, entry: &Entry) -> bool {
        let game = entry.status.as_ref().and_then(|s| s.game);
        game.is_some_and(|game| !tree::alive(game))
    }

    pub(super) fn restart(
        self: &Arc<Self>,
        id: InstanceId,
        expect: Version,
        session_file: Option<&Bytes>,
    ) -> Result<Version, RuntimeError> {
        let version = self.with_entry(id, |_, entry| {
            if entry.exit.is_none() {
                return Err(RuntimeError::Conflict);
            }
            if entry.gated() {
                // Stopped while it waited: there is no place to start it in.
                return Err(RuntimeError::Over);
            }
            expected(entry, expect)?;
            let fixed = entry.record.template.fixed_port;
            let port = match entry.record.port {
                Some(port) if fixed.is_none() => port,
                _ => self.grant_port(id, fixed)?,
            };
            let mut record = entry.record.clone();
            record.gated = false;
            record.attempt += 1;
            record.restarts += 1;
            record.port_moves = 0;
            record.port = Some(port);
            record.released_at = Some(self.stamp());
            if let Some(content) = session_file {
                record.session_file = Some(Content::of(content));
            }
            record.revision = entry.version + 1;
            // Of the attempt that is over; the new one writes its own.
            match std::fs::remove_file(self.dir(id).join(RESULTS_FILE)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::Storage(e));
                }
                _ => {}
            }
            if let Err(e) = self.state.replace(id, &record, session_file.is_some()) {
                if fixed.is_some() {
                    self.return_port(id, Some(port), false);
                }
                return Err(RuntimeError::Storage(e));
            }
            let version = record.revision;
            let mut next = Entry::of(record).ok_or(RuntimeError::NotFound)?;
            next.version = version;
            *entry = next;
            Ok(Version(version))
        })?;
        self.observe(id, OwnerStep::Recorded);
        self.supervise(id, None);
        Ok(version)
    }

    pub(super) fn mark_ready(&self, id: InstanceId) -> Result<(), RuntimeError> {
        self.with_entry(id, |slot, entry| {
            if entry.record.template.ready != ReadyRecord::Sdk
                || entry.gated()
                || entry.ready.is_some()
                || !entry.usable()
            {
                return Ok(());
            }
            // The supervisor may not have read the status yet, though the game speaks.
            let _ = self.refresh_status(entry);
            let address = self.listening(entry);
            let at = self.stamp();
            self.note_ready(entry, at, address)?;
            slot.wake.notify_one();
            Ok(())
        })
    }

    /// Where the instance's own listener is, or where it would be.
    pub(super) fn listening(&self, entry: &Entry) -> Option<SocketAddr> {
        let seen = entry
            .status
            .as_ref()
            .zip(entry.record.port)
            .map(|(status, port)| {
                Prober::new().look(transport(&entry.record), port, status.shim.pid, true)
            });
        match seen {
            Some(Seen::Ours(address)) => Some(address),
            _ => entry.expected_address(),
        }
    }

    pub(super) fn note_ready(
        &self,
        entry: &mut Entry,
        at: Stamp,
        address: Option<SocketAddr>,
    ) -> Result<(), RuntimeError> {
        let note = ReadyNote {
            attempt: entry.record.attempt,
            at,
            address,
        };
        RunFile::open(&self.dir(entry.id))
            .and_then(|run| run.write(&note))
            .map_err(RuntimeError::Storage)?;
        fault::pass("ready.noted");
        entry.ready = Some(note);
        Ok(())
    }

    pub(super) fn refresh_status(&self, entry: &mut Entry) -> io::Result<()> {
        let run = RunFile::open(&self.dir(entry.id))?;
        let attempt = entry.record.attempt;
        if let Some(status) = run.read()? {
            let status: super::pages::Status = status;
            if status.attempt == attempt {
                entry.status = Some(status);
            }
        }
        Ok(())
    }

    pub(super) fn stop(
        &self,
        id: InstanceId,
        expect: Version,
        grace: Duration,
    ) -> Result<Version, RuntimeError> {
        self.with_entry(id, |slot, entry| {
            if entry.exit.is_some() {
                return Ok(Version(entry.version));
            }
            let kill_at = self.now().after(grace);
            let version = match &entry.stop {
                // Being stopped already; a shorter grace brings the end forward (a second Ctrl-C) and is no write of its own.
                Some(stop) if kill_at < stop.kill_at.moment(self.clock()) => entry.version,
                Some(_) => return Ok(Version(entry.version)),
                None => {
                    expected(entry, expect)?;
                    entry.version + 1
                }
            };
            let note = StopNote {
                attempt: entry.record.attempt,
                version,
                kill_at: Stamp::of(kill_at, self.clock()),
            };
            // In place, so that a full disk stops nobody from stopping a game.
            match RunFile::open(&self.dir(id)).and_then(|run| run.write(&note)) {
                // A game that removed its own directory is stopped all the same; a new owner would find nothing to adopt.
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::Storage(e));
                }
                _ => {}
            }
            fault::pass("stop.noted");
            entry.version = note.version;
            entry.stop = Some(note);
            if entry.gated() {
                self.end_unstarted(entry)?;
            } else {
                self.signal_stop(entry);
            }
            slot.wake.notify_one();
            Ok(Version(entry.version))
        })
    }

    /// Passes a noted stop on to the shim. Its word is on disk: should the signal miss a shim that is just starting, it reads it.
    pub(super) fn signal_stop(&self, entry: &Entry) {
        let shim = entry.status.as_ref().map(|s| s.shim).or(entry.launched);
        if let Some(shim) = shim
            && let Err(e) = tree::signal(shim, rustix::process::Signal::TERM)
        {
            tracing::warn!(instance = %entry.id, error = %e, "a shim could not be told to stop");
        }
    }

    /// Writes the exit of an attempt that no shim has or will have. False while a shim holds the run file after all.
    pub(super) fn write_exit(
        &self,
        entry: &mut Entry,
        lost: bool,
        never_ran: bool,
    ) -> io::Result<bool> {
        let run = RunFile::open(&self.dir(entry.id))?;
        if !run.try_lock()? {
            return Ok(false);
        }
        let attempt = entry.record.attempt;
        // Under the lock nothing changes any more; what was written before it counts.
        let note = match run.read::<ExitNote>()?.filter(|e| e.attempt == attempt) {
            Some(note) => note,
            None => {
                let note = ExitNote {
                    attempt,
                    code: None,
                    signal: None,
                    oom: false,
                    never_ran,
                    lost,
                    at: self.stamp(),
                };
                run.write(&note)?;
                note
            }
        };
        entry.exit = Some(note);
        Ok(true)
    }

    pub(super) fn end_unstarted(&self, entry: &mut Entry) -> Result<(), RuntimeError> {
        self.write_exit(entry, false, true)
            .map(|_| ())
            .map_err(RuntimeError::Storage)
    }

    pub(super) fn forget(&self, id: InstanceId, expect: Version) -> Result<(), RuntimeError> {
        let slot = self.slot(id).ok_or(RuntimeError::NotFound)?;
        let mut guard = locked(&slot.entry);
        let entry = guard.as_ref().ok_or(RuntimeError::NotFound)?;
        if entry.exit.is_none() {
            return Err(RuntimeError::Conflict);
        }
        expected(entry, expect)?;
        self.state.remove(id).map_err(RuntimeError::Storage)?;
        let used = entry.record.attempt > 0;
        self.return_port(id, entry.record.port, used);
        *guard = None;
        let mut slots = locked(&self.slots);
        if slots.get(&id).is_some_and(|now| Arc::ptr_eq(now, &slot)) {
            slots.remove(&id);
        }
        drop(slots);
        self.publish(&slot, None);
        Ok(())
    }

    pub(super) fn results(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        self.get(id).ok_or(RuntimeError::NotFound)?;
        // The game made this path: a link elsewhere or a pipe nobody writes to must not be followed or waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.dir(id).join(RESULTS_FILE));
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Ok(None);
            }
            Err(e) => return Err(RuntimeError::Storage(e)),
        };
        if !file.metadata().map_err(RuntimeError::Storage)?.is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        file.take(MAX_RESULTS as u64 + 1)
            .read_to_end(&mut content)
            .map_err(RuntimeError::Storage)?;
        Ok((!content.is_empty()).then(|| content.into()))
    }
}

pub(super) fn transport(record: &Record) -> Transport {
    match record.template.protocol {
        ProtocolRecord::Udp => Transport::Udp,
        ProtocolRecord::Tcp | ProtocolRecord::Http | ProtocolRecord::WebSocket => Transport::Tcp,
    }
}

fn expected(entry: &Entry, expect: Version) -> Result<(), RuntimeError> {
    if Version(entry.version) == expect {
        Ok(())
    } else {
        Err(RuntimeError::Conflict)
    }
}

fn check_facts(facts: &Facts) -> Result<(), RuntimeError> {
    if facts.document.len() > MAX_DOCUMENT {
        return Err(RuntimeError::Storage(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the facts' document is larger than 64 KiB",
        )));
    }
    Ok(())
}

/// What no process could be started with is refused before anything is written.
fn check(order: &Order) -> Result<(), RuntimeError> {
    if let Some(facts) = &order.facts {
        check_facts(facts)?;
    }
    let command = &order.template.command;
    let refuse = |why: &str| {
        Err(RuntimeError::Start {
            what: command.first().cloned().unwrap_or_default(),
            source: io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()),
        })
    };
    if command.first().is_none_or(String::is_empty) {
        return refuse("the command is empty");
    }
    if command.iter().any(|part| part.contains('\0')) {
        return refuse("the command contains a NUL byte");
    }
    let bad_variable = order
        .template
        .env
        .iter()
        .chain(&order.env)
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
    if bad_variable {
        return refuse("a variable's name or value cannot be passed to a process");
    }
    Ok(())
}
