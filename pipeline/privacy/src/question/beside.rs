//! What is measured beside the groups that are shown: one total of all groups that are not, and how much the bounds cut off.
//!
//! # Privacy
//! *The other row.* Which groups are shown is an answer with noise, R. After it, and by a share of the budget that was planned before, the totals over
//! all groups outside R are measured once (composition of δ-approximate zCDP is adaptive; Bun & Steinke 2016, lemma 8.2 after 1.7). So R is fixed, and
//! one person changes such a total by what they have in all groups outside R together. That is not bounded by the length √k·c of their vector:
//! in m groups it may be √m·√k·c. In k groups it is k·c at most (Cauchy & Schwarz), and that is the bound for everybody: a copy of the vector, kept for
//! this row alone, is scaled down until the sizes of its parts add up to k·c ([`shrink`]). Whatever R is, a part of it adds up to no more.
//! The price: of whoever is in more than k groups the row holds less than it might, because the copy is scaled down over all of them, those that are then shown too. Which
//! these are is not known while rows are read, and reading them twice would cost more than it brings.
//! What is 0 or 1, such as being there, is asked of the pooled groups as if they were one: each person counts once, whoever is in several of them too. For that
//! it is held which groups people are in, each combination once with how many have it. A person changes one such number by 1.
//!
//! The noisy numbers of groups that are not shown are never added up: how many they are is nobody's business, and their noise would tell. The row is
//! there even if nothing is pooled.
//!
//! *What was cut.* Of each person and aggregate, what was kept and what was not, each at most k·c, add up to two totals over all groups; and people are counted, and
//! those of whom anything was cut: two more, of 1 each. One person changes the pair by √2·k·c, or √2, in length. A cut beyond k·c is
//! not seen: what is told is "at least".

use std::collections::HashMap;

use super::spec::{Aggregate, Spec};
use crate::PrivacyError;

/// What is measured beside the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beside {
    /// One row for all groups that are not shown.
    pub other: bool,
    /// How much the bounds cut off.
    pub bias: bool,
}

/// The most one person adds to a total beside the groups: k·c.
pub(crate) fn most(spec: &Spec, aggregate: &Aggregate) -> u128 {
    u128::from(spec.groups_at_most()).saturating_mul(u128::from(aggregate.step()))
}

/// The sum of the parts' sizes.
pub(crate) fn size(parts: &[i64]) -> u128 {
    parts.iter().map(|part| u128::from(part.unsigned_abs())).fold(0, u128::saturating_add)
}

/// Scales parts down until their sizes add up to `most` at most, in whole numbers. What rounding leaves is spent one by one in `order`, or nothing would be left
/// of a person who has a little in many groups.
pub(crate) fn shrink(parts: &mut [i64], most: u128, order: impl Iterator<Item = usize>) {
    let all = size(parts);
    if all <= most {
        return;
    }
    let before = parts.to_vec();
    for part in parts.iter_mut() {
        let scaled = u128::from(part.unsigned_abs()).saturating_mul(most) / all;
        *part = part.signum() * i64::try_from(scaled).unwrap_or(0);
    }
    let mut left = most.saturating_sub(size(parts));
    for at in order {
        let (Some(part), Some(before)) = (parts.get_mut(at), before.get(at)) else { continue };
        if left > 0 && part.unsigned_abs() < before.unsigned_abs() {
            *part += before.signum();
            left -= 1;
        }
    }
}

/// What people have, held so that it can be added up over any groups later.
#[derive(Default)]
pub(crate) struct Pool {
    /// By aggregate that is one vector, by group: parts bounded in the sum of their sizes.
    parts: Vec<Vec<i64>>,
    /// By aggregate of 0 or 1: the groups of a person (twice their number, one more where the part is below 0), and how many people have just these.
    sets: Vec<HashMap<Box<[u32]>, i64>>,
    held: usize,
}

impl Pool {
    pub(crate) fn new(aggregates: usize) -> Self {
        Self { parts: vec![Vec::new(); aggregates], sets: vec![HashMap::new(); aggregates], held: 0 }
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.held
    }

    /// Adds a part of one person's bounded vector.
    pub(crate) fn add(&mut self, aggregate: usize, group: u32, part: i64) -> Result<(), PrivacyError> {
        let (Some(parts), Ok(group)) = (self.parts.get_mut(aggregate), usize::try_from(group)) else { return Ok(()) };
        if parts.len() <= group {
            parts.resize(group + 1, 0);
        }
        let Some(slot) = parts.get_mut(group) else { return Ok(()) };
        *slot = slot.checked_add(part).ok_or(PrivacyError::Overflow)?;
        Ok(())
    }

    /// Adds so many people who are in just these groups, in ascending order.
    pub(crate) fn add_set(&mut self, aggregate: usize, set: &[u32], people: i64) {
        let Some(sets) = self.sets.get_mut(aggregate) else { return };
        if let Some(known) = sets.get_mut(set) {
            *known = known.saturating_add(people);
        } else if !set.is_empty() {
            self.held += 4 * set.len() + 48;
            sets.insert(set.into(), people);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) -> Result<(), PrivacyError> {
        for (aggregate, parts) in other.parts.into_iter().enumerate() {
            for (group, part) in (0..).zip(parts) {
                if part != 0 {
                    self.add(aggregate, group, part)?;
                }
            }
        }
        for (aggregate, sets) in other.sets.into_iter().enumerate() {
            for (set, people) in sets {
                self.add_set(aggregate, &set, people);
            }
        }
        Ok(())
    }

    /// The total of an aggregate over all groups that are not `shown`, which has a place for each.
    pub(crate) fn total(&self, at: usize, aggregate: &Aggregate, shown: &[bool]) -> Result<i64, PrivacyError> {
        let is_shown = |group: usize| shown.get(group).copied().unwrap_or(false);
        let add = |sum: i64, part: i64| sum.checked_add(part).ok_or(PrivacyError::Overflow);
        if aggregate.is_one_vector() {
            let parts = self.parts.get(at).map_or(&[][..], Vec::as_slice);
            return parts.iter().enumerate().filter(|(group, _)| !is_shown(*group)).try_fold(0, |sum, (_, part)| add(sum, *part));
        }
        let Aggregate::Sum { low, high, .. } = aggregate else { return Ok(0) };
        let Some(sets) = self.sets.get(at) else { return Ok(0) };
        sets.iter().try_fold(0, |sum, (set, people)| {
            let outside = set.iter().filter(|coded| !is_shown(**coded as usize >> 1));
            let part = outside.map(|coded| if coded & 1 == 1 { -1 } else { 1 }).sum::<i64>().clamp(*low, *high);
            add(sum, part.checked_mul(*people).ok_or(PrivacyError::Overflow)?)
        })
    }
}

/// What the bounds left of people's parts, and what they cut off.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cuts {
    /// By aggregate: kept, cut.
    pub(crate) parts: Vec<[i64; 2]>,
    /// All people, and those of whom anything was cut.
    pub(crate) people: [i64; 2],
}

impl Cuts {
    pub(crate) fn new(aggregates: usize) -> Self {
        Self { parts: vec![[0; 2]; aggregates], people: [0; 2] }
    }

    /// Adds one person's part of an aggregate, which is `most` at most of each.
    pub(crate) fn add(&mut self, aggregate: usize, kept: u128, cut: u128, most: u128) -> Result<(), PrivacyError> {
        let Some(slots) = self.parts.get_mut(aggregate) else { return Ok(()) };
        for (slot, part) in slots.iter_mut().zip([kept, cut]) {
            let part = i64::try_from(part.min(most)).map_err(|_| PrivacyError::Overflow)?;
            *slot = slot.checked_add(part).ok_or(PrivacyError::Overflow)?;
        }
        Ok(())
    }

    pub(crate) fn person(&mut self, is_cut: bool) {
        let [people, cut] = &mut self.people;
        *people += 1;
        *cut += i64::from(is_cut);
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), PrivacyError> {
        let mine = self.parts.iter_mut().chain([&mut self.people]);
        for (mine, theirs) in mine.zip(other.parts.iter().chain([&other.people])) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine = mine.checked_add(*theirs).ok_or(PrivacyError::Overflow)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
