//! The 95 % interval of a quantile: one draw more for each end.
//!
//! The exponential mechanism is known to miss by so many ranks. How far that is in values depends on how dense values are there, which its draw does
//! not tell: nothing can be read off it for free, and the ends have to be drawn. They share the quantile's own budget, so that its price stays what
//! it was. The value keeps half, because it is what people use, and each end has a quarter: with an interval the value is off by √2 times as many ranks.
//!
//! ```text
//!  lowest value ●─────────●─────●───●──●─●●●●◆●●●●─●──●───●─────●───────● highest value      ◆ the value drawn; ● where an end may be
//!                             ▲                              ▲
//!                           low: the quantile `reach` ranks below     high: above
//! ```
//!
//! An end is the same mechanism, aimed `reach` ranks beside the quantile, so far that it lands on the wrong side of it with a probability of 1/20 at
//! most, whatever the data: there are m places on the wrong side at most, each is `reach` worse than the best, and m·exp(−γ·reach) = 1/20. Of the
//! whole grid m would be 4,095. Around the value that was drawn, which is public by then, places may lie farther apart the farther off they are: so
//! m is 37, and the interval little more than half as wide.
//!
//! What was weighed (most of it by Drechsler, Globus-Harris, McMillan, Sarathy & Smith 2022, "Nonparametric differentially private confidence
//! intervals for the median"). Half widths for a median, in ranks as units of a person's values over √ρ of value and interval: this 4.7. Counts in
//! a tree over the grid, off which both ends can be read, 8 to 12, and a worse value; a search by halves with noisy ranks 3.5 to 7, by how its
//! steps fall, and a value that is twice as far off.
//!
//! # Coverage
//! *Of what:* of the quantile of all values that are left within the bounds. Customs differ by one rank in what a quantile is (Hyndman & Fan 1996):
//! the interval reaches one rank farther, and holds each of them. *How often:* with a probability of 95 % or more each, for any data, ties and few
//! values too. Either the quantile is at the value drawn or above it: then the low end, which is never above that value, cannot miss. Or it is
//! below, and the high end cannot. So each end may be wrong once in twenty, and not once in forty. *At what price:* the worst data decide the width;
//! of well-spread values more than 99 in 100 are held. Where there are fewer values than the reach is long, an end is the lowest or the highest value
//! that is possible.
//!
//! *Proof* for the low end, of n values, a share of a/w, a reach t and so a target T = a·n − t, in scores, which are ranks times w. Each value is counted
//! at the nearest place at or below it. Let v be a quantile by some custom: a·n/w − 1 values or more are at v or below.
//! 1. All these lie below a place above v, whose score therefore is w·(a·n/w − 1) − T = t − w or more.
//! 2. Of the lowest place up to which T is reached the score is 0: up to the one before it is not reached, so that not more than T is below it;
//!    and the very lowest place is never too high, nothing being below it.
//! 3. So the end is above v with a probability of m·exp(−γ·(t − w)) at most, which is 1/20 or less: t is chosen so.
//!
//! # Privacy
//! Each end is an exponential mechanism whose scores one value more changes by [`Rank::step`] at most, as the quantile's own: values are moved to
//! public places before they are counted, and t is public. Its rate is [`Gamma::within`] its share. That its places depend on the value that was
//! drawn is adaptive composition: the three costs add up, to no more than the quantile's share.

use super::quantile::{self, Gamma};
use super::spec::Rank;
use crate::PrivacyError;

/// One end in so many may be wrong.
const WRONG: f64 = 20.0;

/// Places are a step farther apart where they are so many steps off.
const FINE: usize = 4;

/// How the ends of an interval are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ends {
    pub(crate) gamma: Gamma,
    /// How far beside the quantile they are aimed, in scores.
    pub(crate) reach: u64,
}

impl Ends {
    /// Of a quantile that is answered from so many places.
    pub(crate) fn of(gamma: Gamma, rank: Rank, places: usize) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let wrong = (distances(places.saturating_sub(1)).len().saturating_sub(1)).max(1) as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let reach = ((WRONG * wrong).ln() / gamma.per_score() * (1.0 + 1e-9)).ceil() as u64;
        Self { gamma, reach: reach.saturating_add(rank.denominator().into()) }
    }

    /// Draws both ends, given how many values lie at each place and which place was drawn: places of the same grid.
    ///
    /// # Errors
    /// [`PrivacyError::NotDrawn`] without entropy, or for a place that is not there.
    pub(crate) fn draw(&self, counts: &[u64], rank: Rank, drawn: usize) -> Result<(usize, usize), PrivacyError> {
        let last = counts.len().checked_sub(1).filter(|last| drawn <= *last).ok_or(PrivacyError::NotDrawn)?;
        let (share, whole) = (u64::from(rank.numerator()), u64::from(rank.denominator()));
        let low = self.lower(counts, share, whole, drawn)?;
        // The high end is the low one of everything turned round.
        let turned: Vec<u64> = counts.iter().rev().copied().collect();
        let high = self.lower(&turned, whole - share, whole, last - drawn)?;
        Ok((low, last - high))
    }

    fn lower(&self, counts: &[u64], share: u64, whole: u64, drawn: usize) -> Result<usize, PrivacyError> {
        let places = places(drawn);
        let at = quantile::draw(&self.scores(counts, share, whole, &places), self.gamma)?;
        places.get(at).copied().ok_or(PrivacyError::NotDrawn)
    }

    /// Scores of these places, the lowest of the grid first, for a low end.
    fn scores(&self, counts: &[u64], share: u64, whole: u64, places: &[usize]) -> Vec<u64> {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        let target = i128::from(share * sum(counts)) - i128::from(self.reach);
        let mut below = 0;
        let score = |(at, from): (usize, &usize)| {
            let until = places.get(at + 1).copied().unwrap_or(counts.len());
            let up_to = below + sum(counts.get(*from..until).unwrap_or_default());
            let too_low = target - i128::from(whole * up_to);
            // There is nothing below the lowest place: it is never too high.
            let too_high = if at == 0 { 0 } else { i128::from(whole * below) - target };
            below = up_to;
            u64::try_from(too_low.max(too_high).max(0)).unwrap_or(u64::MAX)
        };
        places.iter().enumerate().map(score).collect()
    }
}

/// How far from the value drawn an end may be, in places: 0, then each about a quarter farther, and `most`.
fn distances(most: usize) -> Vec<usize> {
    let next = |distance: &usize| Some(distance + (distance / FINE).max(1));
    let mut out: Vec<usize> = std::iter::successors(Some(0_usize), next).take_while(|distance| *distance < most).collect();
    out.push(most);
    out
}

/// Where a low end may be, ascending: the lowest place first, the one drawn last.
fn places(drawn: usize) -> Vec<usize> {
    distances(drawn).into_iter().rev().map(|distance| drawn - distance).collect()
}

#[cfg(test)]
mod tests;
