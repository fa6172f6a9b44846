//! Where the clients are at this moment, and where they were: gauges that any task may read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::fault::Phase;

/// Samples kept. When there are as many, every second one goes and the next come half as often: a long run keeps its whole shape.
const MAX_SAMPLES: usize = 1_200;
const FIRST_PERIOD: Duration = Duration::from_millis(250);

/// Follows a run from outside. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Gauges>);

#[derive(Debug, Default)]
struct Gauges {
    total: AtomicUsize,
    phases: [AtomicUsize; Phase::ALL.len()],
    good: AtomicUsize,
    failed: AtomicUsize,
    interrupted: AtomicUsize,
    samples: Mutex<Samples>,
}

#[derive(Debug)]
struct Samples {
    taken: Vec<Sample>,
    period: Duration,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            taken: vec![],
            period: FIRST_PERIOD,
        }
    }
}

/// How many clients are where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Clients of the run; 0 before it has begun.
    pub total: usize,
    /// Waiting for a match.
    pub queue: usize,
    /// Matched, waiting for the game's first word.
    pub start: usize,
    /// Dialling.
    pub connect: usize,
    /// Playing.
    pub play: usize,
    /// Making the end call.
    pub end: usize,
    /// Finished as they should.
    pub good: usize,
    /// Failed.
    pub failed: usize,
    /// Given up because the run was ended early.
    pub interrupted: usize,
}

/// A snapshot with its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the run began.
    pub at_s: f64,
    /// How many clients were where.
    #[serde(flatten)]
    pub clients: Snapshot,
}

/// How a client ended, for the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Good,
    Failed,
    Interrupted,
}

impl Progress {
    /// How many clients are where now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let read = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed);
        let [queue, start, connect, play, end] = &self.0.phases;
        Snapshot {
            total: read(&self.0.total),
            queue: read(queue),
            start: read(start),
            connect: read(connect),
            play: read(play),
            end: read(end),
            good: read(&self.0.good),
            failed: read(&self.0.failed),
            interrupted: read(&self.0.interrupted),
        }
    }

    pub(crate) fn begin(&self, clients: usize) {
        self.0.total.store(clients, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self, how: Ended) {
        let gauge = match how {
            Ended::Good => &self.0.good,
            Ended::Failed => &self.0.failed,
            Ended::Interrupted => &self.0.interrupted,
        };
        gauge.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps how it is now; returns when to look again.
    pub(crate) fn sample(&self, at: Duration) -> Duration {
        let clients = self.snapshot();
        let mut samples = self
            .0
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        samples.taken.push(Sample {
            at_s: at.as_secs_f64(),
            clients,
        });
        if samples.taken.len() >= MAX_SAMPLES {
            let mut n = 0usize;
            samples.taken.retain(|_| {
                n += 1;
                n % 2 == 1
            });
            samples.period *= 2;
        }
        samples.period
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let samples = self
            .0
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        samples.taken.clone()
    }
}

/// One client's place among the gauges; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    progress: Progress,
    phase: Option<Phase>,
}

impl Place {
    pub(crate) const fn nowhere(progress: Progress) -> Self {
        Self {
            progress,
            phase: None,
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        self.leave();
        self.phase = Some(phase);
        self.gauge(phase).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&mut self) {
        if let Some(phase) = self.phase.take() {
            self.gauge(phase).fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn gauge(&self, phase: Phase) -> &AtomicUsize {
        let [queue, start, connect, play, end] = &self.progress.0.phases;
        match phase {
            Phase::Queue => queue,
            Phase::Start => start,
            Phase::Connect => connect,
            Phase::Play => play,
            Phase::End => end,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_in_one_place() {
        let progress = Progress::default();
        progress.begin(2);
        let mut place = Place::nowhere(progress.clone());
        place.enter(Phase::Queue);
        assert_eq!(progress.snapshot().queue, 1);
        place.enter(Phase::Play);
        let now = progress.snapshot();
        assert_eq!((now.queue, now.play), (0, 1));
        drop(place);
        progress.finish(Ended::Good);
        let now = progress.snapshot();
        assert_eq!((now.play, now.good, now.total), (0, 1, 2));
    }

    #[test]
    fn a_long_run_keeps_its_shape_in_bounded_memory() {
        let progress = Progress::default();
        let mut at = Duration::ZERO;
        for _ in 0..10_000 {
            at += progress.sample(at);
        }
        let samples = progress.samples();
        assert!(samples.len() < MAX_SAMPLES && samples.len() > MAX_SAMPLES / 4);
        assert_eq!(samples[0].at_s, 0.0);
        assert!(samples.windows(2).all(|w| w[0].at_s < w[1].at_s));
    }
}
