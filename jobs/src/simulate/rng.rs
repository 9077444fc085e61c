//! Draws that depend on nothing but the seed and what they are for: any slice of time can be made on its own.

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[inline]
pub(super) const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Mixes two values; not symmetric.
#[inline]
pub(super) const fn mix2(a: u64, b: u64) -> u64 {
    mix(a ^ b.wrapping_mul(0xd134_2543_de82_ef95))
}

/// A small stream of draws. Not for keys: who knows the seed knows all of it, and is meant to.
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    /// Starts a stream.
    #[inline]
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 uniform bits.
    #[inline]
    pub(super) const fn bits(&mut self) -> u64 {
        let out = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        out
    }

    /// Uniform in `0..n`; 0 when `n` is 0. The bias is below n / 2^32.
    #[inline]
    pub(super) const fn below(&mut self, n: u32) -> u32 {
        (((self.bits() >> 32) * n as u64) >> 32) as u32
    }

    /// Uniform in [0, 1).
    #[inline]
    pub(super) const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True `n` times in 1,000.
    #[inline]
    pub(super) const fn permille(&mut self, n: u32) -> bool {
        self.below(1000) < n
    }

    /// Exponential with this mean, as a whole number.
    #[inline]
    pub(super) fn exponential(&mut self, mean: f64) -> u32 {
        (-(1.0 - self.unit()).ln() * mean) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_and_repeatable() {
        let mut draw = Draw::new(7);
        let mean = (0..10_000).map(|_| draw.unit()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let mean = (0..10_000).map(|_| f64::from(draw.exponential(100.0))).sum::<f64>() / 10_000.0;
        assert!((mean - 99.5).abs() < 5.0, "{mean}");
        assert_eq!(Draw::new(3).bits(), Draw::new(3).bits());
        assert_eq!(Draw::new(3).below(0), 0);
    }
}
