//! Which alerts are chosen under a stated false-discovery level: what the integrity room writes down for it, and what whoever reads alerts makes of it.
//!
//! Why e-values, of what, and what is promised is in the integrity room's `evidence`. Here is the arithmetic: e-BH (Wang and Ramdas 2022) over the subjects of
//! a kind and day, each with the mean of what its channels say, among as many as were tested.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Channels that look at people: `slow_bulk` and `coordinated_senders`.
const CHANNELS_OF_PEOPLE: f64 = 2.0;

/// The decimal logarithm of the mean of e-values over `channels`, those that are not among them counting as 0.
#[must_use]
pub fn mean_log10(log10: &[f64], channels: f64) -> f64 {
    let largest = log10.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + (log10.iter().map(|e| 10_f64.powf(e - largest)).sum::<f64>() / channels).log10()
}

/// Of each e-value, by its decimal logarithm, the least level at which e-BH chooses it among `tested`; 1 where none does.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn levels(log10: &[f64], tested: u64) -> Vec<f64> {
    let tested = (tested.max(log10.len() as u64) as f64).log10();
    let mut order: Vec<usize> = (0..log10.len()).collect();
    let of = |place: &usize| log10.get(*place).copied().unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|a, b| of(b).total_cmp(&of(a)));
    let (mut out, mut least) = (vec![1.0; log10.len()], 1.0_f64);
    for (rank, place) in order.iter().enumerate().rev() {
        least = least.min(10_f64.powf(tested - ((rank + 1) as f64).log10() - of(place)));
        if let Some(level) = out.get_mut(*place) {
            *level = least;
        }
    }
    out
}

/// An alert with an e-value that stands, as far as it is chosen by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found<'a> {
    /// The alert's.
    pub fingerprint: &'a str,
    /// `person`, `business` or `group`.
    pub kind: &'a str,
    /// Whom it means.
    pub subject: &'a str,
    /// Day of its subject's key or, where there is none, of its window, since 1970-01-01.
    pub day: i32,
    /// Decimal logarithm of its e-value.
    pub log10: f64,
}

/// Of each subject its alerts: fingerprint and e-value.
type Subjects<'a> = BTreeMap<&'a str, Vec<(&'a str, f64)>>;

/// Of each alert, by its fingerprint, the least level at which it is chosen among what `tested` says was tested of its kind on its day (since 1970-01-01);
/// where that is not known, 1. Alerts on one subject have one level. Each alert must come once.
#[must_use]
pub fn chosen<'a>(
    alerts: impl IntoIterator<Item = Found<'a>>,
    tested: impl Fn(&str, i32) -> Option<u64>,
) -> BTreeMap<String, f64> {
    let mut families: BTreeMap<(&str, i32), Subjects<'_>> = BTreeMap::new();
    for Found { fingerprint, kind, subject, day, log10 } in alerts {
        families.entry((kind, day)).or_default().entry(subject).or_default().push((fingerprint, log10));
    }
    let mut out = BTreeMap::new();
    for ((kind, day), subjects) in families {
        let channels = if kind == "person" { CHANNELS_OF_PEOPLE } else { 1.0 };
        let mean = |found: &Vec<(&str, f64)>| mean_log10(&found.iter().map(|(_, log10)| *log10).collect::<Vec<_>>(), channels);
        // Where it is not known how many were tested, nothing is chosen.
        let tested = tested(kind, day).unwrap_or(u64::MAX);
        let levels = levels(&subjects.values().map(mean).collect::<Vec<_>>(), tested);
        for (found, level) in subjects.into_values().zip(levels) {
            out.extend(found.into_iter().map(|(fingerprint, _)| (fingerprint.to_owned(), rounded(level))));
        }
    }
    out
}

/// To three digits: e-values are no more exact.
fn rounded(level: f64) -> f64 {
    format!("{level:.2e}").parse().unwrap_or(level)
}

/// Of one part: by day from the first one on, for each kind; null where not all were counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPart {
    /// The first day, since 1970-01-01.
    pub first: i32,
    /// People.
    pub person: Vec<Option<u64>>,
    /// Businesses.
    pub business: Vec<Option<u64>>,
    /// Groups.
    pub group: Vec<Option<u64>>,
}

impl OfPart {
    /// As it is committed; `None` if it cannot be written.
    #[must_use]
    pub fn json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    fn of(&self, kind: &str, day: i32) -> Option<u64> {
        let counts = match kind {
            "person" => &self.person,
            "business" => &self.business,
            "group" => &self.group,
            _ => return None,
        };
        // What is before has been forgotten; of what is after nothing was seen.
        let place = usize::try_from(i64::from(day) - i64::from(self.first)).ok()?;
        counts.get(place).copied().unwrap_or(Some(0))
    }
}

/// How many were tested by all parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TestedDays(Vec<OfPart>);

impl TestedDays {
    /// Reads what each part committed. `None`: something of it is damaged.
    #[must_use]
    pub fn read(parts: &[String]) -> Option<Self> {
        parts.iter().map(|part| serde_json::from_str(part).ok()).collect::<Option<_>>().map(Self)
    }

    /// How many of a kind, `person`, `business` or `group`, on a day since 1970-01-01. `None`: a part did not count all of them, or
    /// none has said anything.
    #[must_use]
    pub fn of(&self, kind: &str, day: i32) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter().map(|part| part.of(kind, day)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_up_and_what_one_of_them_did_not_count_is_not_known() {
        let part = |first, person: &[Option<u64>]| {
            let part = OfPart { first, person: person.to_vec(), business: vec![Some(7)], group: Vec::new() };
            part.json().expect("JSON")
        };
        let days = TestedDays::read(&[part(10, &[Some(1), None, Some(3)]), part(11, &[Some(5), Some(6)])]).expect("reads");
        assert_eq!([10, 11, 12, 13].map(|day| days.of("person", day)), [None, None, Some(9), Some(0)]);
        assert_eq!((days.of("business", 11), days.of("pipeline", 11)), (Some(7), None));
        assert_eq!(TestedDays::read(&["{}".to_owned()]), None);
        assert_eq!(TestedDays::default().of("person", 1), None, "nobody says how many");
    }
}
