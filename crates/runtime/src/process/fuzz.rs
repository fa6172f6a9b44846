//! What the private parsers of this crate promise, for the workspace member `fuzz`.
#![allow(
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use std::fmt::Debug;

use super::pages::{self, ExitNote, Page, ProcessId, ReadyNote, Stamp, Status, StopNote};
use super::record::{RECORD_VERSION, Record, Unreadable, parse};
use super::tree::parse_stat;
use crate::contract::Order;

fn stamp() -> Stamp {
    Stamp {
        wall_ms: 1_790_000_000_000,
        monotonic_ms: 86_400_000,
        boot_id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".into(),
    }
}

/// The record of an order as it is stored.
#[must_use]
pub fn example_record(order: &Order) -> Vec<u8> {
    serde_json::to_vec(&Record::of(order, 1 << 20, stamp())).unwrap_or_default()
}

/// What the pages of a run file hold, by name.
#[must_use]
pub fn example_pages() -> Vec<(&'static str, Vec<u8>)> {
    let game = ProcessId {
        pid: 4711,
        started: 123_456,
    };
    let status = Status {
        attempt: 2,
        boot_id: stamp().boot_id,
        shim: game,
        game: Some(game),
        spawned_at: Some(stamp()),
        line_seen_at: None,
        groups: vec!["games/a".into()],
    };
    let exit = ExitNote {
        attempt: 2,
        code: None,
        signal: Some(9),
        oom: true,
        never_ran: false,
        lost: false,
        at: stamp(),
    };
    let ready = ReadyNote {
        attempt: 1,
        at: stamp(),
        address: Some(([127, 0, 0, 1], 20_000).into()),
    };
    let stop = StopNote {
        attempt: 1,
        version: 7,
        kill_at: stamp(),
    };
    let body = |page: serde_json::Result<Vec<u8>>| page.unwrap_or_default();
    let sealed = pages::encode(&exit).unwrap_or_default();
    vec![
        ("status", body(serde_json::to_vec(&status))),
        ("exit", body(serde_json::to_vec(&exit))),
        ("ready", body(serde_json::to_vec(&ready))),
        ("stop", body(serde_json::to_vec(&stop))),
        ("sealed", sealed),
    ]
}

/// The record of an instance in the state directory.
pub fn instance_record(input: &[u8]) {
    match parse(input) {
        Ok(record) => {
            assert!(record.version <= RECORD_VERSION);
            assert!(record.instance().is_some() && record.fleet().is_some());
            assert_eq!(record.facts.is_some(), record.facts().is_some());
            let written = serde_json::to_vec(&record).unwrap_or_default();
            assert_eq!(parse(&written), Ok(record));
        }
        Err(Unreadable::Torn) => {}
        Err(Unreadable::Newer(version)) => assert!(version > RECORD_VERSION),
    }
}

/// The pages of the run file: the input as a page, and as what a page with a right checksum holds.
pub fn run_pages(input: &[u8]) {
    page::<Status>(input);
    page::<ExitNote>(input);
    page::<ReadyNote>(input);
    page::<StopNote>(input);
}

fn page<P: Page + PartialEq + Debug>(input: &[u8]) {
    if let Some(read) = pages::decode::<P>(input) {
        whole(&read);
    }
    let sealed = pages::seal(input);
    let read: Option<P> = pages::decode(&sealed);
    if let Some(read) = &read {
        whole(read);
    }
    for cut in 0..sealed.len().min(64) {
        let cut = sealed.get(..cut).unwrap_or_default();
        assert_eq!(pages::decode::<P>(cut), None, "cut off");
    }
    let mut torn = sealed;
    if let Some(last) = torn.last_mut() {
        *last ^= 0x20;
        assert_eq!(pages::decode::<P>(&torn), None, "torn");
    }
}

fn whole<P: Page + PartialEq + Debug>(read: &P) {
    match pages::encode(read) {
        Ok(written) => assert_eq!(pages::decode::<P>(&written).as_ref(), Some(read)),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::FileTooLarge),
    }
}

/// A line of `/proc/<pid>/stat`: as it is, and with the input as the name that a process gave itself.
pub fn process_stat(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = parse_stat(&text);
    let line = format!(
        "77 ({text}) Z 5 6 7 8 9 0 0 0 0 0 0 0 0 0 0 0 1 0 {}",
        text.len()
    );
    let stat = parse_stat(&line).map(|s| (s.zombie, s.parent, s.session, s.started));
    assert_eq!(stat, Some((true, 5, 7, text.len() as u64)), "{line:?}");
}
