//! How much one person can change, as distances between vectors of sums.

/// How much the vector of sums can change when one person's rows are added or removed.
///
/// # Privacy
/// Neighbours are two tables of which one has all rows of one person more than the other (add/remove). Then the vectors of sums differ in at
/// most `groups` places, in each by at most `value`, and by the distances below. That it is so is shown in `question/contributions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sensitivity {
    groups: u32,
    value: u32,
}

impl Sensitivity {
    /// Of totals that were bounded so.
    pub(crate) const fn of(groups: u32, value: u32) -> Self {
        Self { groups, value }
    }

    /// L0: in how many groups.
    #[must_use]
    pub const fn groups(self) -> u32 {
        self.groups
    }

    /// L∞: by how much in one group.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }

    /// L1 distance, exactly.
    #[must_use]
    pub fn l1(self) -> u64 {
        u64::from(self.groups) * u64::from(self.value)
    }

    /// Square of the L2 distance, exactly.
    #[must_use]
    pub fn l2_squared(self) -> u128 {
        u128::from(self.groups) * u128::from(self.value) * u128::from(self.value)
    }

    #[cfg(test)]
    pub(crate) const fn planted(groups: u32, value: u32) -> Self {
        Self { groups, value }
    }
}
