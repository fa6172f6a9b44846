//! Plane vectors from `+ - * /` and `sqrt` only.
//!
//! Those five are exact by IEEE 754, so the same seed and inputs give the same state on every
//! machine; `sin` and `cos` come from the platform's libm and would not.

use std::ops::{Add, AddAssign, Mul, Sub};

/// A point or a direction, in arena units (one unit is about a centimetre of desert).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Vec2 {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Vec2 {
    pub(crate) const ZERO: Self = Self { x: 0.0, y: 0.0 };

    pub(crate) const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    pub(crate) fn length(self) -> f64 {
        (self.x * self.x + self.y * self.y).sqrt()
    }

    pub(crate) fn distance(self, other: Self) -> f64 {
        (self - other).length()
    }

    /// Length one in the same direction, or `fallback` where there is no direction.
    pub(crate) fn unit_or(self, fallback: Self) -> Self {
        let length = self.length();
        if length.is_finite() && length > 1e-9 {
            self * (1.0 / length)
        } else {
            fallback
        }
    }

    /// The same direction, no longer than `limit`; anything that is not a number becomes zero.
    pub(crate) fn clamped(self, limit: f64) -> Self {
        if !(self.x.is_finite() && self.y.is_finite()) {
            return Self::ZERO;
        }
        // Bounded per axis first: the square of a huge finite number is infinite.
        let bounded = Self::new(self.x.clamp(-1e6, 1e6), self.y.clamp(-1e6, 1e6));
        let length = bounded.length();
        if length > limit {
            bounded * (limit / length)
        } else {
            bounded
        }
    }

    /// A quarter turn.
    pub(crate) fn perpendicular(self) -> Self {
        Self::new(-self.y, self.x)
    }
}

impl Add for Vec2 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.x + other.x, self.y + other.y)
    }
}

impl AddAssign for Vec2 {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Vec2 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::new(self.x - other.x, self.y - other.y)
    }
}

impl Mul<f64> for Vec2 {
    type Output = Self;
    fn mul(self, by: f64) -> Self {
        Self::new(self.x * by, self.y * by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_steers_nowhere() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Vec2::new(bad, 1.0).clamped(1.0), Vec2::ZERO);
            assert_eq!(Vec2::new(0.0, bad).clamped(1.0), Vec2::ZERO);
        }
        let huge = Vec2::new(f64::MAX, f64::MIN).clamped(1.0);
        assert!((huge.length() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn no_direction_takes_the_fallback() {
        assert_eq!(Vec2::ZERO.unit_or(Vec2::new(1.0, 0.0)), Vec2::new(1.0, 0.0));
    }
}
