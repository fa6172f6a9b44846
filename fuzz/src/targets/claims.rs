//! What is stored with an instance, what its game reads, and what server and gateway tell each other.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use spawnpoint_core::{Clock, Moment};
use spawnpoint_wire::claim::{CLAIM_VERSION, Claim, ClaimError, SessionFile, Stamp};
use spawnpoint_wire::event::Event;
use spawnpoint_wire::link::{Cursor, Report, Route, RouteUpdate};

/// A machine that has been up for a day.
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Moment {
        Moment(1_790_000_000_000)
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0.saturating_add(1_500)
    }

    fn boot_id(&self) -> &'static str {
        "boot-1"
    }

    fn monotonic(&self, moment: Moment) -> i64 {
        moment.0.saturating_sub(1_789_913_600_000)
    }
}

pub(super) fn stored(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Claim::from_document(&text) {
        Ok(claim) => {
            assert!(claim.version <= CLAIM_VERSION + 1);
            let again = Claim::from_document(&claim.to_document());
            assert_eq!(again.ok().as_ref(), Some(&claim), "as it was written");
            for stamp in stamps(&claim) {
                for boot in [claim.boot_id.as_str(), "boot-1", "boot-0"] {
                    let at = stamp.restore(boot, &Fixed);
                    // Kept again by this process, it is the same moment.
                    let kept = Stamp::of(at, &Fixed);
                    let back = kept.restore("boot-1", &Fixed);
                    let edge = at.0.unsigned_abs() > 1 << 62;
                    assert!(back == at || edge, "{stamp:?} is {at:?}, then {back:?}");
                }
            }
        }
        Err(ClaimError::Damaged(_)) => {}
        Err(ClaimError::TooNew(version)) => assert!(version > CLAIM_VERSION + 1),
    }
}

fn stamps(claim: &Claim) -> Vec<&Stamp> {
    let mut all = vec![&claim.created];
    all.extend(&claim.granted);
    all.extend(&claim.started);
    all.extend(&claim.first_joined);
    all.extend(&claim.max);
    all.extend(&claim.max_limit);
    all.extend(&claim.crashes);
    all.extend(claim.players.iter().map(|p| &p.joined));
    all.extend(claim.ending.iter().map(|e| &e.at));
    all
}

pub(super) fn messages(bytes: &[u8]) {
    there_and_back::<RouteUpdate>(bytes);
    there_and_back::<Route>(bytes);
    there_and_back::<Cursor>(bytes);
    there_and_back::<Report>(bytes);
    there_and_back::<Event>(bytes);
}

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    let again: Option<T> = serde_json::from_slice(&written).ok();
    assert_eq!(
        again.as_ref(),
        Some(&read),
        "{}",
        String::from_utf8_lossy(&written)
    );
}

pub(super) fn session_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    spice::fuzz::session_file(&text);
    let (spice, arena) = (
        spice::fuzz::session_of(&text),
        arena_tcp::fuzz::session_of(&text),
    );
    if let Ok(file) = serde_json::from_str::<SessionFile>(&text) {
        let id = Some(file.session_id.to_string());
        assert_eq!(spice, id, "as spice reads it");
        assert_eq!(arena, id, "as arena-tcp reads it");
    }
    there_and_back::<SessionFile>(text.as_bytes());
}
