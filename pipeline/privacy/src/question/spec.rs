//! What a question asks of the rows below it, and within which bounds. Made by the planner, from the question's text and the dataset's alone.

use std::sync::Arc;

use crate::PrivacyError;

/// Marks the absence of a value in an input column. A real value as small as this is clamped to the next one.
pub const ABSENT: i64 = i64::MIN;

/// An input column of a question: whole numbers, each row's clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Smallest value of a row.
    pub low: i64,
    /// Largest value of a row.
    pub high: i64,
}

/// Where an aggregate's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// One for every row.
    Rows,
    /// The input column at this place.
    Column(usize),
}

/// A share of the values, as a fraction: 1/2 is the median.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    numerator: u32,
    denominator: u32,
}

impl Rank {
    /// At most a thousandth fine: 0.5, 0.95, 0.999.
    ///
    /// # Errors
    /// [`PrivacyError::Question`] for a share that is not above 0 and below 1, or finer.
    pub fn of(share: f64) -> Result<Self, PrivacyError> {
        let wrong = || PrivacyError::Question { what: "a quantile's share must be above 0, below 1, and in thousandths" };
        if !(share > 0.0 && share < 1.0) {
            return Err(wrong());
        }
        for denominator in [2_u32, 4, 5, 10, 20, 100, 1000] {
            let scaled = share * f64::from(denominator);
            let numerator = scaled.round();
            if (scaled - numerator).abs() < 1e-9 && numerator >= 1.0 && numerator < f64::from(denominator) {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                return Ok(Self { numerator: numerator as u32, denominator });
            }
        }
        Err(wrong())
    }

    /// Its numerator.
    #[must_use]
    pub const fn numerator(self) -> u32 {
        self.numerator
    }

    /// Its denominator.
    #[must_use]
    pub const fn denominator(self) -> u32 {
        self.denominator
    }

    /// By how much one value more or less changes a score: the larger of the shares above and below.
    #[must_use]
    pub const fn step(self) -> u32 {
        let above = self.denominator - self.numerator;
        if self.numerator > above { self.numerator } else { above }
    }
}

/// Values a quantile may be answered with, strictly ascending. Public: made from the dataset's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid(Arc<[i64]>);

/// Most values of a grid.
const GRID: usize = 4096;

impl Grid {
    /// A grid over `low..=high`: every whole number where that is few, else finer near zero, so that neighbours differ by about the same share.
    ///
    /// # Errors
    /// [`PrivacyError::Question`] if the range is empty.
    pub fn over(low: i64, high: i64) -> Result<Self, PrivacyError> {
        if low >= high {
            return Err(PrivacyError::Question { what: "a quantile needs a measure whose smallest value is below its largest" });
        }
        let few = i64::try_from(GRID).unwrap_or(i64::MAX);
        if high.checked_sub(low).is_some_and(|width| width < few) {
            return Ok(Self((low..=high).collect()));
        }
        let mut values: Vec<i64> = Vec::with_capacity(GRID);
        let side = |most: u64, sign: i64, values: &mut Vec<i64>, steps: usize| {
            if most == 0 {
                return;
            }
            #[allow(clippy::cast_precision_loss)]
            let ratio = (most as f64).ln() / (steps - 1) as f64;
            for step in 0..steps {
                #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let value = ((ratio * step as f64).exp().round() as u64).min(most);
                values.push(sign * i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        if low > 0 || high < 0 {
            // On one side of zero: geometric from the end nearer to it.
            let (near, far, sign) = if low > 0 { (low, high, 1) } else { (-high, low.saturating_neg(), -1) };
            #[allow(clippy::cast_precision_loss)]
            let ratio = (far as f64 / near as f64).ln() / (GRID - 1) as f64;
            for step in 0..GRID {
                #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
                let value = ((near as f64) * (ratio * step as f64).exp()).round() as i64;
                values.push(sign * value.clamp(near, far));
            }
        } else {
            let both = if low < 0 && high > 0 { GRID / 2 } else { GRID };
            side(high.unsigned_abs(), 1, &mut values, both);
            side(low.unsigned_abs().min(i64::MAX.unsigned_abs()), -1, &mut values, both);
            values.push(0);
        }
        // The ends themselves, whatever rounding made of them.
        values.retain(|value| low < *value && *value < high);
        values.extend([low, high]);
        values.sort_unstable();
        values.dedup();
        Ok(Self(values.into()))
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[i64] {
        &self.0
    }

    /// The place of the grid's value nearest to `value`.
    #[must_use]
    pub fn place(&self, value: i64) -> usize {
        let after = self.0.partition_point(|v| *v < value);
        match (after.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(after)) {
            (Some(before), Some(next)) if value.abs_diff(*before) <= next.abs_diff(value) => after - 1,
            (_, Some(_)) => after,
            _ => self.0.len().saturating_sub(1),
        }
    }

    /// The smallest and the largest value that are answered with the value at this place, being nearest to it: of the values within the grid's ends.
    #[must_use]
    pub fn covered(&self, place: usize) -> (i64, i64) {
        let own = self.0.get(place).copied().unwrap_or_default();
        let (before, next) = (place.checked_sub(1).and_then(|before| self.0.get(before)), self.0.get(place + 1));
        let middle = |a: i64, b: i64| i64::try_from((i128::from(a) + i128::from(b)).div_euclid(2)).unwrap_or(own);
        (before.map_or(own, |before| middle(*before, own) + 1), next.map_or(own, |next| middle(own, *next)))
    }
}

/// One thing a question asks of every group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// The sum over a group's people of each one's part, which is their rows' sum, clipped. Distinct people are rows clipped to 0..=1.
    Sum {
        /// What is summed.
        of: Source,
        /// Smallest part of one person in each of `groups_per_person` groups; 0 or less.
        low: i64,
        /// Largest part of one person in each of `groups_per_person` groups; 0 or more.
        high: i64,
    },
    /// A quantile of a group's values, of which each person brings so many that the squares of their numbers by group add up to `per_person`² at
    /// most: so many in one group, or half as many in each of four. More would tell little more, and cost noise in proportion.
    Quantile {
        /// Place of the input column.
        of: usize,
        /// Which.
        rank: Rank,
        /// Most values of one person, who has them in one group.
        per_person: u32,
        /// What may be answered.
        grid: Grid,
        /// Whether its 95 % interval is asked for, too, for a part of the same budget.
        interval: bool,
    },
}

impl Aggregate {
    /// Distinct people.
    pub const PEOPLE: Self = Self::Sum { of: Source::Rows, low: 0, high: 1 };

    /// Whether one person's parts are bounded together, as one vector over all groups, instead of group by group.
    ///
    /// Gaussian noise is as wide as the vector is long. A person in one group who may count c in each of k groups has a vector of length c, and
    /// one of √k·c costs the same: so parts are scaled down only where the whole vector is longer than √k·c, and no group has to go. What is 0 or
    /// 1 cannot be scaled: there at most k groups stay.
    #[must_use]
    pub fn is_one_vector(&self) -> bool {
        matches!(self, Self::Sum { .. }) && self.step() > 1
    }

    /// The most one person changes in each of `groups_per_person` groups. For a quantile: the length of the vector of its scores' changes.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Sum { low, high, .. } => low.unsigned_abs().max(high.unsigned_abs()),
            Self::Quantile { rank, per_person, .. } => u64::from(rank.step()) * u64::from(*per_person),
        }
    }
}

/// A question below its noise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Columns people are grouped by.
    pub keys: usize,
    /// Input columns.
    pub inputs: Vec<Input>,
    /// Most groups that hold something of one person.
    pub groups_per_person: u32,
    /// Whether groups are found in the data, and shown where enough people are in them; else they are listed.
    pub discovered: bool,
    /// What is asked.
    pub aggregates: Vec<Aggregate>,
}

impl Spec {
    /// Checks that the parts fit together. Where groups are discovered, distinct people must be among the aggregates: they decide what is shown.
    ///
    /// # Errors
    /// [`PrivacyError::Question`].
    pub fn check(&self) -> Result<(), PrivacyError> {
        let wrong = |what| Err(PrivacyError::Question { what });
        if self.groups_per_person == 0 {
            return wrong("groups_per_person must be at least 1");
        }
        if self.inputs.iter().any(|input| input.low > input.high || input.low == ABSENT) {
            return wrong("an input's smallest value must not be above its largest");
        }
        if self.aggregates.is_empty() {
            return wrong("nothing is asked: name an aggregate such as COUNT(DISTINCT person)");
        }
        for aggregate in &self.aggregates {
            let place = match aggregate {
                Aggregate::Sum { of, low, high } => {
                    if *low > 0 || *high < 0 || aggregate.step() == 0 || *low == i64::MIN {
                        return wrong("a person's part of a sum must be clipped to a range around 0 that is not empty");
                    }
                    match of {
                        Source::Rows => continue,
                        Source::Column(place) => place,
                    }
                }
                Aggregate::Quantile { of, per_person, .. } => {
                    if *per_person == 0 {
                        return wrong("values_per_person must be at least 1");
                    }
                    of
                }
            };
            if *place >= self.inputs.len() {
                return wrong("an aggregate names an input that is not there");
            }
        }
        if self.discovered && self.keys == 0 {
            return wrong("without groups there is nothing to discover");
        }
        if self.discovered && self.people().is_none() {
            return wrong("discovered groups need the number of distinct people");
        }
        Ok(())
    }

    /// Most groups of one person: without keys there is but one.
    #[must_use]
    pub const fn groups_at_most(&self) -> u32 {
        if self.keys == 0 { 1 } else { self.groups_per_person }
    }

    /// The place of distinct people among the aggregates.
    #[must_use]
    pub fn people(&self) -> Option<usize> {
        self.aggregates.iter().position(|aggregate| *aggregate == Aggregate::PEOPLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_ascending_holds_its_ends_and_finds_the_nearest() {
        for (low, high) in [
            (0, 10),
            (0, 20_000),
            (1, 1_000_000),
            (-500_000, 500_000),
            (-9_000, 0),
            (5_000, 90_000),
            (0, i64::MAX),
            (-90_000, -5_000),
        ] {
            let grid = Grid::over(low, high).expect("a range");
            assert!(grid.values().is_sorted_by(|a, b| a < b), "{low} {high}");
            assert_eq!((grid.values().first(), grid.values().last()), (Some(&low), Some(&high)));
            assert!(grid.values().len() <= GRID + 2);
            for value in [low, high, i64::MIN, i64::MAX, low.saturating_add(7), 0, 3, 444] {
                let nearest = grid.values().iter().map(|v| v.abs_diff(value)).min();
                assert_eq!(Some(grid.values()[grid.place(value)].abs_diff(value)), nearest, "{low} {high} {value}");
            }
        }
        assert!(Grid::over(3, 3).is_err());
    }

    #[test]
    fn what_a_place_covers_is_nearest_to_it_and_what_is_beside_that_is_not() {
        for (low, high) in [(0, 10), (0, 20_000), (-500_000, 500_000), (-90_000, -5_000), (0, i64::MAX)] {
            let grid = Grid::over(low, high).expect("a range");
            for place in (0..grid.values().len()).step_by(7).chain([grid.values().len() - 1]) {
                let (first, last) = grid.covered(place);
                assert_eq!((grid.place(first), grid.place(last)), (place, place), "{low} {high}");
                assert!(first == low || grid.place(first - 1) == place - 1);
                assert!(last == high || grid.place(last + 1) == place + 1);
            }
        }
    }

    #[test]
    fn a_rank_is_a_fraction_in_thousandths() {
        assert_eq!(Rank::of(0.5).map(|r| (r.numerator(), r.denominator(), r.step())).expect("a share"), (1, 2, 1));
        assert_eq!(Rank::of(0.9).map(|r| (r.numerator(), r.denominator(), r.step())).expect("a share"), (9, 10, 9));
        assert_eq!(Rank::of(0.05).map(|r| r.step()).expect("a share"), 19);
        assert_eq!(Rank::of(0.999).map(|r| r.denominator()).expect("a share"), 1000);
        for share in [0.0, 1.0, -0.1, f64::NAN, 0.123_45] {
            assert!(Rank::of(share).is_err(), "{share}");
        }
    }
}
