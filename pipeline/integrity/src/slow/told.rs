//! Which pseudonyms members of cohorts were told under: all of them are taken back when one is.
//!
//! A member goes on under the next day's pseudonym, and is then told anew under that one. What clears it clears all of its days.

use std::collections::{BTreeMap, BTreeSet};

use super::cohorts::Crowd;

/// A pseudonym, and the day of the key it is under.
pub(super) type Name = ([u8; 16], i32);

/// By the newest pseudonym of a member, as [`Cohorts`](super::Cohorts) has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told(pub(super) BTreeMap<[u8; 16], BTreeSet<Name>>);

impl Told {
    /// Heap bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let names: usize = self.0.values().map(BTreeSet::len).sum();
        self.0.len() * size_of::<([u8; 16], BTreeSet<Name>)>() + names * size_of::<Name>()
    }

    /// Whether something that is told of this member stands.
    pub(super) fn has(&self, person: &[u8; 16]) -> bool {
        self.0.contains_key(person)
    }

    /// Lets what is told of a member go on beside its next pseudonym.
    pub(super) fn renamed(&mut self, before: &[u8; 16], person: [u8; 16]) {
        if let Some(mut names) = self.0.remove(before) {
            self.0.entry(person).or_default().append(&mut names);
        }
    }

    /// What is told of a member stands for ever.
    pub(super) fn forget(&mut self, person: &[u8; 16]) {
        self.0.remove(person);
    }

    /// What is to be said of a member whose name is this one at the time: of one that stands, that; of one that does not, the same of each name it was told
    /// under.
    pub(super) fn say(&mut self, crowd: Crowd, name: Name) -> Vec<Crowd> {
        let of = |(person, epoch): Name| Crowd { person, epoch, ..crowd };
        if crowd.stands {
            self.0.entry(crowd.person).or_default().insert(name);
            return vec![of(name)];
        }
        let mut names = self.0.remove(&crowd.person).unwrap_or_default();
        // What was told before it was noted under which name.
        names.insert(name);
        names.into_iter().map(of).collect()
    }
}
