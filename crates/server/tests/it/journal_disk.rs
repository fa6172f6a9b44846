//! The journal on a disk that is full, a small real one: what cannot be written is counted and said, nobody waits for it, and when there is
//! room again every state is known anew.

use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use spawnpoint_core::session::table::{Row, in_phase, walk};
use spawnpoint_core::session::{Phase, Session, step};
use spawnpoint_core::{Clock, Moment};
use spawnpoint_server::journal::{Counts, FileJournal, Journal, Made, Replay, StepMade, files};
use spawnpoint_wire::journal::{Line, Numbered};

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where this user or machine cannot mount one.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .output();
        match made {
            Ok(o) if o.status.success() => Some(Self(dir)),
            other => {
                println!("SKIPPED: no small file system can be mounted here: {other:?}");
                None
            }
        }
    }

    /// Takes what room there is, to the last byte.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        let mut piece = 64 * 1024;
        while piece > 0 {
            if filler.write_all(&vec![0; piece]).is_err() {
                piece /= 2;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.0.path();
        let _ = Command::new("umount").arg("-l").arg(path).status();
    }
}

/// Moved by hand: the writer tries again after a while, which nobody has to wait for here.
#[derive(Default)]
struct ByHand(AtomicI64);

impl ByHand {
    fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ByHand {
    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0
    }

    fn boot_id(&self) -> &str {
        "boot"
    }

    fn monotonic(&self, moment: Moment) -> i64 {
        moment.0
    }
}

/// So many steps of one session, from the state that it has come to: players come and go, and it stays in its phase.
fn steps(state: &mut Session, how_many: usize) -> Vec<Made> {
    let stays = |row: &Row| {
        let changed = row
            .outcome
            .as_ref()
            .is_ok_and(|s| s.next.phase == row.before.phase && s.next != row.before);
        row.before.phase == state.phase && changed
    };
    let events: Vec<_> = walk()
        .into_iter()
        .filter(stays)
        .map(|row| row.event)
        .collect();
    let mut made = Vec::new();
    let mut now = Moment(50_000);
    for event in events.iter().cycle().take(how_many * 50) {
        if made.len() == how_many {
            break;
        }
        now = now.after(Duration::from_millis(7));
        let result = step(state, event, now);
        let Ok(done) = &result else { continue };
        if done.next.phase != state.phase {
            continue;
        }
        let next = done.next.clone();
        made.push(Made::Step(Box::new(StepMade {
            before: std::mem::replace(state, next),
            event: event.clone(),
            now,
            result,
        })));
    }
    assert_eq!(made.len(), how_many);
    made
}

/// Waits for the writer, by what it has counted.
fn until(journal: &FileJournal, what: &str, is: impl Fn(Counts) -> bool) {
    let begun = std::time::Instant::now();
    while !is(journal.counts()) {
        let counts = journal.counts();
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "never {what}: {counts:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn lines(directory: &Path) -> Vec<Numbered> {
    let mut all = Vec::new();
    for file in files(directory).unwrap() {
        let text = std::fs::read_to_string(&file.path).unwrap();
        all.extend(text.lines().map(|l| Numbered::read(l.as_bytes()).unwrap()));
    }
    all
}

#[test]
fn a_full_disk_loses_decisions_and_says_how_many() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let directory = disk.0.path().join("decisions");
    let clock = Arc::new(ByHand::default());
    let journal = FileJournal::open(
        directory.clone(),
        1024 * 1024,
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();
    let mut state = in_phase(Phase::Running);
    let note = |made: Vec<Made>| {
        let noted = made.len() as u64;
        made.into_iter().for_each(|m| journal.note(m));
        noted
    };

    let early = note(steps(&mut state, 20));
    until(&journal, "written", |c| c.written == early);
    disk.fill();
    // Also what had begun to be written is taken back: the rest of a page may have taken half a line.
    let mut while_full = note(steps(&mut state, 300));
    until(&journal, "given up", |c| {
        c.written + c.lost == early + while_full
    });
    // Nothing is tried before its time, and then in vain.
    for _ in 0..3 {
        let lost = journal.counts().lost;
        assert!(lost > 0);
        clock.advance(Duration::from_secs(3));
        let more = note(steps(&mut state, 10));
        until(&journal, "left out", |c| c.lost == lost + more);
        while_full += more;
    }
    // Far more than may wait for the writer, at once: whoever decides is not held up, and each of them is counted.
    for _ in 0..10 {
        while_full += note(steps(&mut state, 2_000));
    }
    until(&journal, "left out", |c| {
        c.written + c.lost == early + while_full
    });

    disk.make_room();
    clock.advance(Duration::from_secs(6));
    let counts = journal.counts();
    let late = note(steps(&mut state, 20));
    until(&journal, "written again", |c| {
        c.written == counts.written + late
    });
    journal.close();
    let counts = journal.counts();
    assert_eq!(counts.written + counts.lost, early + while_full + late);

    // What was begun in vain is not left lying about.
    assert_eq!(files(&directory).unwrap().len(), 2);
    // A line says how many, and after it the session's whole state is there before its next step.
    let lines = lines(&directory);
    let at = lines.iter().position(|l| matches!(l.line, Line::Gap(_)));
    let [gap, after, next] = &lines[at.unwrap()..][..3] else {
        unreachable!()
    };
    let Line::Gap(gap) = &gap.line else {
        unreachable!()
    };
    assert_eq!(gap.lost, counts.lost);
    assert!(
        matches!(&after.line, Line::State(s) if s.state.id == state.id),
        "{after:?}"
    );
    assert!(matches!(next.line, Line::Step(_)), "{next:?}");
    let gaps = lines.iter().filter(|l| matches!(l.line, Line::Gap(_)));
    assert_eq!(gaps.count(), 1);
    let steps = lines.iter().filter(|l| matches!(l.line, Line::Step(_)));
    assert_eq!(steps.count() as u64, counts.written);

    let mut replay = Replay::new();
    for file in files(&directory).unwrap() {
        let from = BufReader::new(std::fs::File::open(&file.path).unwrap());
        let name = file.path.display().to_string();
        replay.file(&name, from, |_| ()).unwrap();
    }
    let replayed = replay.finish();
    assert!(replayed.same, "{replayed:#?}");
    assert_eq!((replayed.lost, replayed.torn), (counts.lost, 0));
    let stepped = replayed
        .functions
        .iter()
        .find(|f| f.function == "session::step");
    assert_eq!(stepped.unwrap().same, counts.written);
}

/// Without a file nothing can be begun, which is said when the server starts.
#[test]
fn a_disk_that_is_full_from_the_start_is_said_at_once() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    disk.fill();
    let clock: Arc<dyn Clock> = Arc::new(ByHand::default());
    let opened = FileJournal::open(disk.0.path().join("decisions"), 1024 * 1024, clock);
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert_eq!(files(&disk.0.path().join("decisions")).unwrap(), []);
}
