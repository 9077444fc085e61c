//! Groups that are on a list: which lists, by what, and how often in a day. A hash is not known here.
//!
//! A group is kept until its day is over, as its pseudonym is of that day. Of more groups than the rule holds, those that come later are not told of.

use std::collections::BTreeMap;

use starling_schemas::codes::ProfileField;

/// Most lists and fields kept of one group.
pub(crate) const MOST_HITS: usize = 48;
/// Longest label that is taken.
pub(crate) const LABEL_BYTES: usize = 32;

/// What of one group was on lists in one day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listed {
    /// Day whose key the group is under.
    pub(crate) epoch: i32,
    /// Sweep during which it was touched last.
    pub(crate) touched: u32,
    /// How often, by what it was and the list's label.
    pub(crate) hits: BTreeMap<(ProfileField, Box<str>), u32>,
    /// The first time.
    pub(crate) first_ms: i64,
    /// The last.
    pub(crate) last_ms: i64,
}

impl Listed {
    /// Nothing yet.
    pub(crate) fn new(epoch: i32) -> Self {
        Self { epoch, first_ms: i64::MAX, last_ms: i64::MIN, ..Self::default() }
    }

    /// Notes a hit. `false`: it is one too many.
    pub(crate) fn hit(&mut self, time_ms: i64, field: ProfileField, list: &str) -> bool {
        let place = (field, list.into());
        if self.hits.len() >= MOST_HITS && !self.hits.contains_key(&place) {
            return false;
        }
        let often = self.hits.entry(place).or_default();
        *often = often.saturating_add(1);
        (self.first_ms, self.last_ms) = (self.first_ms.min(time_ms), self.last_ms.max(time_ms));
        true
    }

    /// Bytes this group takes, map entry aside.
    pub(crate) fn bytes(&self) -> usize {
        let labels: usize = self.hits.keys().map(|(_, label)| label.len()).sum();
        size_of::<Self>() + labels + self.hits.len() * size_of::<((ProfileField, Box<str>), u32)>()
    }
}
