//! What a business says of itself (P34). A business is no person: nothing of who acted for it is here.

use crate::codes::{Category, Tier};

/// Longest identifier of a business or portfolio, in bytes. Longer ones are not cut: two businesses could become one.
pub const IDENTIFIER_BYTES: usize = 256;
/// Longest name of a business, in bytes. Longer ones are cut.
pub const NAME_BYTES: usize = 256;

/// What a business said of itself, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusinessAccount {
    /// Identifier of the business; never empty.
    pub business: String,
    /// Its portfolio; empty where none was said.
    pub portfolio: String,
    /// What it calls itself; empty where nothing was said.
    pub name: String,
    /// What its messages are for.
    pub category: Category,
    /// How many people it may write to.
    pub tier: Tier,
    /// When it said so, in milliseconds since 1970-01-01 UTC.
    pub told_ms: i64,
}

impl BusinessAccount {
    /// Whether this stands where both were said of one business: what was said later does. Of two things said at the same moment it is the greater
    /// one, byte by byte, so that no order in which they come makes a difference (I9).
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> (i64, &str, &str, u8, u8) {
        (self.told_ms, &self.portfolio, &self.name, self.category.code(), self.tier.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i9_of_two_things_one_stands_whichever_comes_first() {
        let of = |told_ms, portfolio: &str, name: &str, tier| BusinessAccount {
            business: "b-1".to_owned(),
            portfolio: portfolio.to_owned(),
            name: name.to_owned(),
            category: Category::Service,
            tier,
            told_ms,
        };
        let rising = [
            of(1, "z", "z", Tier::Unlimited),
            of(2, "", "z", Tier::T10k),
            of(2, "p", "", Tier::Unlimited),
            of(2, "p", "Z", Tier::T250),
            of(2, "p", "a", Tier::T250),
            of(2, "p", "a", Tier::T2k),
            of(2, "p", "ä", Tier::T250),
        ];
        for (at, one) in rising.iter().enumerate() {
            for (before, other) in rising.iter().enumerate() {
                assert_eq!(one.supersedes(other), at > before, "{one:?} and {other:?}");
            }
        }
    }
}
