//! The world's only source of chance: `SplitMix64`, seeded, with its state part of the world.

use super::vec2::Vec2;

/// Sixty-four bits of state; good enough for a desert and the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `0.0 .. 1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // 53 bits fit exactly
        let top = (self.next_u64() >> 11) as f64;
        top * (1.0 / 9_007_199_254_740_992.0)
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// In `0 .. bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        match u64::try_from(bound) {
            Ok(bound) if bound > 0 => usize::try_from(self.next_u64() % bound).unwrap_or(0),
            _ => 0,
        }
    }

    /// A direction of length one, without trigonometry: points of the square that miss the disc
    /// are thrown away. Sixteen misses in a row (one chance in 10^10) give a fixed direction.
    pub(crate) fn direction(&mut self) -> Vec2 {
        for _ in 0..16 {
            let v = Vec2::new(self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let length = v.length();
            if length > 0.05 && length <= 1.0 {
                return v * (1.0 / length);
            }
        }
        Vec2::new(1.0, 0.0)
    }
}
