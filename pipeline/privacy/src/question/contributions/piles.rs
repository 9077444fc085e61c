//! Rows in any order: laid in piles by person, and bounded a pile at a time on all cores.

use std::ops::Range;

use super::super::beside::Beside;
use super::super::keys::NO_GROUP;
use super::super::spec::ABSENT;
use super::Person;
use super::bounder::{Bounder, Rule, Totals};
use crate::PrivacyError;

/// Rows of some people, in any order.
pub(super) struct Pile<P> {
    people: Vec<P>,
    groups: Vec<u32>,
    inputs: Vec<Vec<i64>>,
}

impl<P: Person> Pile<P> {
    pub(super) fn new(inputs: usize) -> Self {
        Self { people: Vec::new(), groups: Vec::new(), inputs: vec![Vec::new(); inputs] }
    }

    /// Brings each person's rows together and bounds them.
    pub(super) fn bound(
        &self,
        rule: Rule<'_>,
        bounder: &mut Bounder,
        sorted: &mut Vec<(P, u32, u32)>,
        theirs: &mut Vec<(u32, u32)>,
    ) -> Result<(), PrivacyError> {
        sorted.clear();
        sorted.extend(self.people.iter().zip(&self.groups).zip(0..).map(|((person, group), row)| (*person, *group, row)));
        sorted.sort_unstable();
        let input =
            |column: usize, row: u32| self.inputs.get(column).and_then(|c| c.get(row as usize)).copied().unwrap_or(ABSENT);
        for rows in sorted.chunk_by(|a, b| a.0 == b.0) {
            let Some((person, ..)) = rows.first() else { continue };
            theirs.clear();
            theirs.extend(rows.iter().map(|(_, group, row)| (*group, *row)));
            bounder.person(rule, person.mixed(), theirs, input)?;
        }
        Ok(())
    }
}

/// Piles: rows in any order lie in as many, by person.
pub(super) const PILES: usize = 256;

pub(super) enum Held {
    Short(Vec<Pile<u64>>),
    Long(Vec<Pile<u128>>),
}

/// Piles that are empty, each.
pub(super) fn no_piles<P: Person>(inputs: usize) -> Vec<Pile<P>> {
    (0..PILES).map(|_| Pile::new(inputs)).collect()
}

/// Throws away what lies in the piles from this one on; gives the number of rows that stay.
pub(super) fn empty<P: Person>(piles: &mut [Pile<P>], from: usize) -> usize {
    for pile in piles.iter_mut().skip(from) {
        *pile = Pile::new(pile.inputs.len());
    }
    piles.iter().map(|pile| pile.people.len()).sum()
}

/// Puts the rows of people in these piles there; gives how many those are.
pub(super) fn scatter<P: Person>(
    piles: &mut [Pile<P>],
    taken: &Range<usize>,
    people: &[P],
    groups: &[u32],
    inputs: &[&[i64]],
) -> usize {
    let mut rows = 0;
    for (row, person) in people.iter().enumerate() {
        let group = groups.get(row).copied().unwrap_or(0);
        if group == NO_GROUP {
            continue;
        }
        #[allow(clippy::cast_possible_truncation)]
        let at = (person.mixed() >> 56) as usize;
        let (true, Some(pile)) = (taken.contains(&at), piles.get_mut(at)) else { continue };
        rows += 1;
        pile.people.push(*person);
        pile.groups.push(group);
        for (held, input) in pile.inputs.iter_mut().zip(inputs) {
            held.push(input.get(row).copied().unwrap_or(ABSENT));
        }
    }
    rows
}

/// Bounds piles on all cores: no person is in two.
pub(super) fn bound_piles<P: Person + Send + Sync>(
    piles: Vec<Pile<P>>,
    rule: Rule<'_>,
    beside: Beside,
    into: &mut Totals,
) -> Result<(), PrivacyError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut bounder = Bounder::new(rule.spec, beside, rule.probes);
        let (mut sorted, mut theirs) = (Vec::new(), Vec::new());
        while let Some(pile) = piles.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            pile.bound(rule, &mut bounder, &mut sorted, &mut theirs)?;
        }
        Ok(bounder.out)
    };
    let parts: Vec<Result<Totals, PrivacyError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Err(PrivacyError::NotDrawn))).collect()
    });
    for part in parts {
        into.merge(part?)?;
    }
    Ok(())
}
