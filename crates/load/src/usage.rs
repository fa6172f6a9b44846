//! What the tester itself costs. A tester that runs out of processor measures itself.

use serde::Serialize;
use tokio::time::Instant;

use crate::stats::Spread;

/// Above this share of all processors the tester may have been the bottleneck.
const BUSY: f64 = 0.8;
/// Above this the starts were not where they were meant to be.
const LATE_MS: f64 = 100.0;

/// The tester's own costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor seconds of this process during the run.
    pub cpu_s: f64,
    /// The same as a share of all processors there are, 0 to 1.
    pub cpu_share: f64,
    /// Processors.
    pub cpus: usize,
    /// Most resident memory of this process so far, bytes; null where the system does not say.
    pub peak_memory: Option<u64>,
    /// How late clients were started against their intended times.
    pub start_lag: Spread,
}

impl Usage {
    /// What makes the results doubtful, in words.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = vec![];
        if self.cpu_share > BUSY {
            doubts.push(format!(
                "the tester used {:.0} % of this machine's processors: part of what it measured is itself",
                self.cpu_share * 100.0
            ));
        }
        if self.start_lag.p99_ms > LATE_MS {
            doubts.push(format!(
                "clients were started late (p99 {:.0} ms): this machine did not keep up with the tester",
                self.start_lag.p99_ms
            ));
        }
        doubts
    }
}

/// The counters at the beginning of a run.
pub(crate) struct Meter {
    began: Instant,
    cpu_s: f64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
            cpu_s: cpu_seconds(),
        }
    }

    pub(crate) fn read(&self, start_lag: Spread) -> Usage {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpu_s = cpu_seconds() - self.cpu_s;
        let wall = self.began.elapsed().as_secs_f64().max(f64::EPSILON);
        Usage {
            cpu_s,
            cpu_share: cpu_s / wall / cpus as f64,
            cpus,
            peak_memory: peak_memory(),
            start_lag,
        }
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `VmHWM`, which Linux gives in kibibytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_doubts_are_said() {
        let meter = Meter::start();
        let mut sum = 0u64;
        while cpu_seconds() - meter.cpu_s < 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = meter.read(Spread::default());
        assert!(usage.cpu_s >= 0.02 && usage.cpus >= 1);
        assert!(usage.peak_memory.is_none_or(|bytes| bytes > 1 << 20));
        let calm = Usage {
            cpu_share: 0.1,
            ..usage.clone()
        };
        assert!(calm.doubts().is_empty());
        let busy = Usage {
            cpu_share: 0.95,
            start_lag: Spread {
                p99_ms: 300.0,
                ..Spread::default()
            },
            ..usage
        };
        assert_eq!(busy.doubts().len(), 2);
    }
}
