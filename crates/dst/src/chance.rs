//! Chance from a seed: splittable, so that what one actor draws never depends on how often another does.

use std::time::Duration;

use spawnpoint_runtime::chance::mix;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A stream of its own for this part of the world.
    #[must_use]
    pub fn part(seed: u64, name: &str) -> Self {
        let mut at = mix(seed);
        for b in name.bytes() {
            at = mix(at ^ u64::from(b));
        }
        Self(at)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `n` (0 for 0).
    pub const fn below(&mut self, n: u64) -> u64 {
        let draw = self.draw();
        if n == 0 { 0 } else { draw % n }
    }

    /// From the first to the second, both included.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True so often in a thousand.
    pub const fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }

    /// A length of time, milliseconds.
    pub const fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    /// A length of time, seconds.
    pub const fn secs(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from * 1_000, to * 1_000))
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of.get(at)
    }

    /// Fills bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.draw().to_le_bytes()) {
                *to = from;
            }
        }
    }
}
