//! What happened, one line an event: virtual time, who, what. The same for a seed to the byte.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// Most lines of one world: a world that says more than this is turning in circles.
const MOST_LINES: usize = 200_000;

/// Lines that are kept of a world that goes on for hours.
const LAST_LINES: usize = 20_000;

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    /// Of too many lines the last are kept, not the first.
    last: bool,
    names: HashMap<Uuid, String>,
    counts: HashMap<char, u32>,
}

impl History {
    /// One that keeps its last lines.
    pub(crate) fn of_the_last() -> Self {
        let history = Self::default();
        history
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last = true;
        history
    }

    /// One more line.
    pub(crate) fn say(&self, ms: i64, who: &str, what: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.last && inner.lines.len() >= LAST_LINES {
            inner.lines.pop_front();
        }
        if inner.lines.len() < MOST_LINES {
            let mut line = String::with_capacity(what.len() + 32);
            let _ = write!(line, "{:>9.3} {who:<10} {what}", seconds(ms));
            inner.lines.push_back(line);
        }
    }

    /// A short name for an id: `s1` for the first session that was spoken of, and so on.
    pub(crate) fn name(&self, kind: char, id: Uuid) -> String {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = inner.names.get(&id) {
            return name.clone();
        }
        let count = inner.counts.entry(kind).or_default();
        *count += 1;
        let name = format!("{kind}{count}");
        inner.names.insert(id, name.clone());
        name
    }

    /// All lines.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inner.lines).into()
    }

    /// These will not be spoken of again.
    pub(crate) fn forget(&self, ids: &[Uuid]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            inner.names.remove(id);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown to people")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
