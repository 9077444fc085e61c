//! What is lost, where the log is no longer what was read: the pure side of `starling accept-loss`.

use std::collections::BTreeMap;

use starling_schemas::ids::Offset;

/// Where a partition stands in the metastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Offset after the last committed one.
    pub next: Option<Offset>,
    /// The open plan: first offset, and first offset after it.
    pub plan: Option<(Offset, Offset)>,
}

/// A partition that cannot be read on as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Where it stands.
    pub standing: Standing,
    /// Where it may begin. `None`: at the log's beginning.
    pub begins: Option<Offset>,
    /// What is wrong, for people.
    pub why: &'static str,
}

/// Finds the partitions that cannot be read on. `recreated`: the topic has another id than the one that was read. `ends`: first offset each partition
/// has, and first it does not have yet.
///
/// A log that was cut and has grown past the position again looks sound from here: offsets cannot tell. There the operator must name the partition.
#[must_use]
pub fn losses(recreated: bool, known: &BTreeMap<i32, Standing>, ends: &BTreeMap<i32, (i64, i64)>) -> BTreeMap<i32, Loss> {
    known
        .iter()
        .filter_map(|(partition, standing)| {
            let needed = standing.plan.map(|(_, to)| to).or(standing.next);
            let (begins, why) = match (ends.get(partition), standing.next, needed) {
                (None, ..) if recreated => (None, "the new topic has no such partition"),
                (Some(_), ..) if recreated => (None, "the topic was made anew: it is read from its beginning"),
                (Some((low, _)), Some(next), _) if next.0 < *low => {
                    (Some(Offset(*low)), "events were deleted before they were read: it goes on at the first that is left")
                }
                (Some((_, high)), _, Some(needed)) if needed.0 > *high => {
                    (Some(Offset(*high)), "the log was cut below what was read or planned: it goes on at its present end")
                }
                _ => return None,
            };
            Some((*partition, Loss { standing: *standing, begins, why }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(next: i64, plan: Option<(i64, i64)>) -> Standing {
        Standing { next: Some(Offset(next)), plan: plan.map(|(from, to)| (Offset(from), Offset(to))) }
    }

    fn begins(recreated: bool, known: &[(i32, Standing)], ends: &[(i32, (i64, i64))]) -> Vec<(i32, Option<i64>)> {
        let found = losses(recreated, &known.iter().copied().collect(), &ends.iter().copied().collect());
        found.into_iter().map(|(partition, loss)| (partition, loss.begins.map(|o| o.0))).collect()
    }

    #[test]
    fn a_partition_goes_on_at_what_is_left_or_at_the_end_and_a_sound_one_is_left_alone() {
        let known = [
            (0, standing(50, None)),
            (1, standing(150, None)),
            (2, standing(100, None)),
            (3, standing(200, None)),
            (4, standing(201, None)),
            (5, standing(150, Some((150, 201)))),
            (6, standing(150, Some((150, 200)))),
            (7, Standing { next: None, plan: None }),
        ];
        let ends: Vec<_> = (0..8).map(|p| (p, (100, 200))).collect();
        assert_eq!(begins(false, &known, &ends), [(0, Some(100)), (4, Some(200)), (5, Some(200))]);
    }

    #[test]
    fn every_partition_of_a_topic_made_anew_begins_at_the_beginning() {
        let known = [(0, standing(150, None)), (1, standing(150, Some((150, 160))))];
        assert_eq!(begins(true, &known, &[(0, (0, 500))]), [(0, None), (1, None)]);
        assert_eq!(begins(false, &known, &[(0, (0, 500))]), [], "a partition whose ends are not known is not guessed at");
    }
}
