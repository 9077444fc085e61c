//! Distinct people by a HyperLogLog of 1,024 registers (Flajolet et al. 2007), few of them by its empty registers (linear counting: Whang et al. 1990),
//! told as a lower bound, so that its error can hide an alert and makes one only beyond three standard errors (about one in a thousand at the very
//! threshold).

/// Registers.
pub(crate) const REGISTERS: usize = 1024;
/// How far below the estimate the lower bound is, in standard errors.
const ERRORS: f64 = 3.0;

/// Counts distinct pseudonyms. They are uniform already, so no further hash is taken.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) registers: Box<[u8; REGISTERS]>,
}

impl Default for Reach {
    fn default() -> Self {
        Self { registers: Box::new([0; REGISTERS]) }
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach(..)")
    }
}

impl Reach {
    /// Adds a person; says whether anything changed.
    pub(crate) fn add(&mut self, person: &[u8; 16]) -> bool {
        let bits = u128::from_be_bytes(*person);
        let register = usize::try_from(bits >> 118).unwrap_or(0) % REGISTERS;
        let rank = u8::try_from(((bits << 10) | (1 << 9)).leading_zeros() + 1).unwrap_or(u8::MAX);
        let slot = &mut self.registers[register];
        let changed = rank > *slot;
        *slot = (*slot).max(rank);
        changed
    }

    /// About how many.
    pub(crate) fn estimate(&self) -> f64 {
        self.counted().0
    }

    /// At least how many: three standard errors below the estimate.
    pub(crate) fn at_least(&self) -> f64 {
        let (estimate, error) = self.counted();
        (estimate - ERRORS * error).max(0.0)
    }

    /// At most how many: three standard errors above it.
    pub(crate) fn at_most(&self) -> f64 {
        let (estimate, error) = self.counted();
        estimate + ERRORS * error
    }

    /// About how many, and the standard error of that.
    #[allow(clippy::cast_precision_loss)]
    fn counted(&self) -> (f64, f64) {
        let m = REGISTERS as f64;
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / self.registers.iter().map(|r| 2_f64.powi(-i32::from(*r))).sum::<f64>();
        let empty = self.registers.iter().filter(|r| **r == 0).count();
        if raw <= 2.5 * m && empty > 0 {
            let load = (m / empty as f64).ln();
            (m * load, (m * (load.exp() - load - 1.0)).sqrt())
        } else {
            (raw, raw * 1.04 / m.sqrt())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(n: u64, salt: u64) -> Reach {
        let mut reach = Reach::default();
        for i in 0..n {
            let hash = blake3::hash(&[i.to_le_bytes(), salt.to_le_bytes()].concat());
            reach.add(&hash.as_bytes()[..16].try_into().expect("16 bytes"));
        }
        reach
    }

    #[test]
    fn the_lower_bound_is_below_the_truth_and_not_far_below() {
        let mut above = 0;
        for salt in 0..100 {
            for n in [10, 100, 250, 1_000, 3_000, 20_000] {
                let bound = reach(n, salt).at_least();
                above += usize::from(bound > n as f64);
                assert!(bound > n as f64 * 0.75 - 1.0, "{n}: {bound}");
                assert!(!(100..=1_000).contains(&n) || bound > n as f64 * 0.86, "few are counted better: {n}: {bound}");
            }
        }
        assert!(above <= 6, "{above} of 600 bounds lie above the truth: three standard errors allow about one");
    }

    #[test]
    fn the_same_person_counts_once() {
        let mut reach = Reach::default();
        for _ in 0..1_000 {
            reach.add(&[7; 16]);
        }
        assert!(reach.estimate() < 1.5);
    }
}
