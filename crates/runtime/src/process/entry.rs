//! What is known of one instance, and the decisions that follow from it. Pure but for reading the pages.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use spawnpoint_core::session::Exit;
use spawnpoint_core::{Clock, FleetName, InstanceId};

use super::pages::{ExitNote, ProcessId, ReadyNote, RunFile, Status, StopNote};
use super::record::Record;
use crate::contract::{Instance, State, Timings, Version};

/// One instance: the record and those pages that speak of its present attempt.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: InstanceId,
    pub(super) fleet: FleetName,
    pub(super) record: Record,
    /// Of the durable state: the record's, or the stop note's if that was written later.
    pub(super) version: u64,
    pub(super) status: Option<Status>,
    pub(super) ready: Option<ReadyNote>,
    pub(super) stop: Option<StopNote>,
    pub(super) exit: Option<ExitNote>,
    /// A shim that was started and has not spoken yet.
    pub(super) launched: Option<ProcessId>,
}

impl Entry {
    /// A fresh or stored record without its pages. `None` if its ids are not ids.
    pub(super) fn of(record: Record) -> Option<Self> {
        Some(Self {
            id: record.instance()?,
            fleet: record.fleet()?,
            version: record.revision,
            record,
            status: None,
            ready: None,
            stop: None,
            exit: None,
            launched: None,
        })
    }

    /// Takes over what the pages say of the present attempt.
    pub(super) fn read_pages(&mut self, run: &RunFile) -> io::Result<()> {
        let attempt = self.record.attempt;
        self.status = run.read::<Status>()?.filter(|s| s.attempt == attempt);
        self.ready = run.read::<ReadyNote>()?.filter(|r| r.attempt == attempt);
        self.exit = run.read::<ExitNote>()?.filter(|e| e.attempt == attempt);
        let stop = run.read::<StopNote>()?;
        self.version = self
            .record
            .revision
            .max(stop.as_ref().map_or(0, |s| s.version));
        self.stop = stop.filter(|s| s.attempt == attempt);
        Ok(())
    }

    /// Holds a place and does not run.
    pub(super) fn gated(&self) -> bool {
        self.record.gated
    }

    /// Whether a caller may still claim, release or bind it.
    pub(super) fn usable(&self) -> bool {
        self.exit.is_none() && self.stop.is_none()
    }

    /// Where players reach it as far as is known without looking.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.ready.as_ref()?.address
    }

    /// Where it is expected when nobody was seen listening.
    pub(super) fn expected_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, self.record.port?)))
    }

    pub(super) fn state(&self, clock: &dyn Clock) -> State {
        if let Some(exit) = &self.exit {
            State::Exited(exit_of(exit, clock))
        } else if self.stop.is_some() {
            State::Stopping
        } else if self.gated() {
            State::Gated
        } else if self.ready.is_some() {
            State::Ready
        } else {
            State::Starting
        }
    }

    /// As callers see it.
    pub(super) fn instance(&self, clock: &dyn Clock) -> Instance {
        let released_at = self.record.released_at.as_ref().map(|s| s.moment(clock));
        let game = self.status.as_ref().and_then(|s| s.game);
        Instance {
            id: self.id,
            fleet: self.fleet.clone(),
            template: self.record.fingerprint,
            version: Version(self.version),
            state: self.state(clock),
            facts: self.record.facts(),
            address: self.address(),
            restarts: self.record.restarts,
            timings: Timings {
                ordered_at: Some(self.record.ordered_at.moment(clock)),
                released_at,
                pulled_at: released_at,
                spawned_at: self
                    .status
                    .as_ref()
                    .and_then(|s| s.spawned_at.as_ref())
                    .map(|s| s.moment(clock)),
                ready_at: self.ready.as_ref().map(|r| r.at.moment(clock)),
            },
            label: game.map_or_else(String::new, |g| format!("pid {}", g.pid)),
        }
    }
}

pub(super) fn exit_of(note: &ExitNote, clock: &dyn Clock) -> Exit {
    Exit {
        code: note.code,
        signal: note.signal,
        oom: note.oom,
        never_ran: note.never_ran,
        lost: note.lost,
        at: note.at.moment(clock),
    }
}

/// What the pages say of an attempt that should be running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It ended, and this is how.
    Over(ExitNote),
    /// This shim has it.
    Serving(ProcessId),
    /// A shim had it and is gone without a word.
    Lost,
    /// No shim ever took it.
    Unclaimed,
    /// No shim ever took it, and the machine was started anew since.
    Stale,
}

/// Reads the situation of an attempt. This is the table of crash points: whatever was killed wherever, one of these is true.
pub(super) fn find(entry: &Entry, boot_id: &str, alive: impl Fn(ProcessId) -> bool) -> Found {
    if let Some(exit) = &entry.exit {
        return Found::Over(exit.clone());
    }
    match &entry.status {
        Some(status) if status.boot_id == boot_id && alive(status.shim) => {
            Found::Serving(status.shim)
        }
        Some(_) => Found::Lost,
        None => {
            let released = entry.record.released_at.as_ref();
            if released.is_some_and(|r| r.boot_id != boot_id) {
                Found::Stale
            } else {
                Found::Unclaimed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::Stamp;
    use super::super::record::{ProtocolRecord, ReadyRecord, TemplateRecord};
    use super::*;
    use std::collections::BTreeMap;

    const SHIM: ProcessId = ProcessId {
        pid: 77,
        started: 5,
    };

    fn stamp(boot: &str) -> Stamp {
        Stamp {
            wall_ms: 10,
            monotonic_ms: 1,
            boot_id: boot.into(),
        }
    }

    fn entry() -> Entry {
        Entry::of(Record {
            version: 1,
            id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
            fleet: "spice".into(),
            template: TemplateRecord {
                command: vec!["x".into()],
                env: BTreeMap::new(),
                inherit_env: false,
                workdir: None,
                cpu_millis: None,
                memory_bytes: None,
                protocol: ProtocolRecord::Tcp,
                ready: ReadyRecord::Dial,
                fixed_port: None,
                host_port: false,
            },
            fingerprint: 1,
            gated: false,
            facts: None,
            session_file: None,
            env: BTreeMap::new(),
            revision: 3,
            port: Some(20_000),
            attempt: 2,
            port_moves: 0,
            restarts: 1,
            log_bytes: 100,
            ordered_at: stamp("now"),
            released_at: Some(stamp("now")),
        })
        .unwrap()
    }

    fn status(boot: &str) -> Status {
        Status {
            attempt: 2,
            boot_id: boot.into(),
            shim: SHIM,
            game: None,
            spawned_at: None,
            line_seen_at: None,
            groups: vec![],
        }
    }

    #[test]
    fn every_crash_point_has_one_reading() {
        let exit = ExitNote {
            attempt: 2,
            code: Some(3),
            signal: None,
            oom: false,
            never_ran: false,
            lost: false,
            at: stamp("now"),
        };
        let table = [
            (
                "recorded, no shim started",
                None,
                None,
                true,
                "now",
                Found::Unclaimed,
            ),
            (
                "recorded, then a reboot",
                None,
                None,
                true,
                "before",
                Found::Stale,
            ),
            (
                "claimed or running, shim alive",
                Some("now"),
                None,
                true,
                "now",
                Found::Serving(SHIM),
            ),
            (
                "claimed or running, shim killed",
                Some("now"),
                None,
                false,
                "now",
                Found::Lost,
            ),
            (
                "running, then a reboot (the number lives again)",
                Some("before"),
                None,
                true,
                "before",
                Found::Lost,
            ),
            (
                "over, shim gone",
                Some("now"),
                Some(exit.clone()),
                false,
                "now",
                Found::Over(exit.clone()),
            ),
            (
                "over, shim on its way out",
                Some("now"),
                Some(exit.clone()),
                true,
                "now",
                Found::Over(exit.clone()),
            ),
            (
                "over before a reboot",
                Some("before"),
                Some(exit.clone()),
                false,
                "before",
                Found::Over(exit.clone()),
            ),
        ];
        for (what, said, exited, alive, released, want) in table {
            let mut e = entry();
            e.record.released_at = Some(stamp(released));
            e.status = said.map(status);
            e.exit = exited;
            assert_eq!(find(&e, "now", |_| alive), want, "{what}");
        }
    }

    #[test]
    fn pages_of_an_earlier_attempt_say_nothing_of_this_one_but_the_version() {
        let dir = tempfile::tempdir().unwrap();
        RunFile::create(dir.path()).unwrap();
        let run = RunFile::open(dir.path()).unwrap();
        run.write(&Status {
            attempt: 1,
            ..status("now")
        })
        .unwrap();
        run.write(&StopNote {
            attempt: 1,
            version: 9,
            kill_at: stamp("now"),
        })
        .unwrap();
        let mut e = entry();
        e.read_pages(&run).unwrap();
        assert!(e.status.is_none() && e.stop.is_none() && e.usable());
        assert_eq!(e.version, 9);
    }
}
