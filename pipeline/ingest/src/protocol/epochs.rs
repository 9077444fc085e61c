//! Under which leader epoch the last committed message was written (KIP-320). Pure.
//!
//! A log that was cut by an unclean leader election, or by a broker that lost what it had not written to disk, and that has grown again since,
//! has other messages at offsets that were read already. Offsets cannot tell, leader epochs can: for the epoch of a message that was read, the
//! leader says where that epoch ends, and if that is before the message, the message is gone.
//!
//! While a partition is fetched librdkafka asks this by itself whenever the leader changes. After a new assignment it would not, because an offset
//! alone says nothing about epochs. So a checkpoint is kept in the metastore, "the message before this offset was of this epoch",
//! and an assigned partition is sought there, with the epoch, before anything of it is taken. The checkpoint is noted once a second beside the
//! partition's end and lies at most that far behind the last commit; what is read again from there is dropped by the cutter.

use std::collections::VecDeque;

use starling_schemas::ids::Offset;

/// The message before this offset was written under this leader epoch.
pub type Checkpoint = (Offset, i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: i64,
    last: i64,
    epoch: i32,
}

/// Spans of messages whose epoch is known. Epochs only rise along a log, so what lies between two of the same epoch is of that epoch, too.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    spans: VecDeque<Span>,
}

impl Epochs {
    /// A message was read. Not every message need be told.
    pub fn saw(&mut self, offset: Offset, epoch: i32) {
        let Offset(offset) = offset;
        if epoch < 0 {
            return;
        }
        match self.spans.back_mut() {
            Some(span) if offset <= span.last => {}
            Some(span) if span.epoch == epoch => span.last = offset,
            _ => self.spans.push_back(Span { first: offset, last: offset, epoch }),
        }
    }

    /// The checkpoint at `position`, or the last one before it. What is older is forgotten.
    pub fn checkpoint(&mut self, position: Offset) -> Option<Checkpoint> {
        while self.spans.get(1).is_some_and(|next| next.first < position.0) {
            self.spans.pop_front();
        }
        let span = self.spans.front().filter(|span| span.first < position.0)?;
        Some((Offset(position.0.min(span.last.saturating_add(1))), span.epoch))
    }

    /// The epoch of the message read last, if that is the one before `position`.
    #[must_use]
    pub fn before(&self, position: Offset) -> Option<i32> {
        self.spans.back().filter(|span| span.last.saturating_add(1) == position.0).map(|span| span.epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_checkpoint_lies_at_the_position_or_at_the_last_known_message_before_it() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.checkpoint(Offset(10)), None);
        for (offset, epoch) in [(9, 3), (19, 3), (29, 4), (25, 3), (39, -1)] {
            epochs.saw(Offset(offset), epoch);
        }
        assert_eq!(epochs.before(Offset(30)), Some(4));
        assert_eq!(epochs.before(Offset(29)), None);
        assert_eq!(epochs.checkpoint(Offset(9)), None);
        assert_eq!(epochs.checkpoint(Offset(15)), Some((Offset(15), 3)));
        assert_eq!(epochs.checkpoint(Offset(25)), Some((Offset(20), 3)), "where the epoch changes is not known");
        assert_eq!(epochs.checkpoint(Offset(30)), Some((Offset(30), 4)));
        assert_eq!(epochs.checkpoint(Offset(35)), Some((Offset(30), 4)));
    }

    proptest! {
        #[test]
        fn a_checkpoint_is_never_beyond_the_position_and_its_epoch_is_true(
            rises in prop::collection::vec(prop::bool::weighted(0.1), 1..200),
            told in prop::collection::vec(any::<bool>(), 200),
            positions in prop::collection::vec(0..210_i64, 1..20),
        ) {
            let mut epoch = 0;
            let log: Vec<i32> = rises.iter().map(|rise| { epoch += i32::from(*rise); epoch }).collect();
            let mut epochs = Epochs::default();
            for (offset, epoch) in log.iter().enumerate().filter(|(n, _)| told[*n]) {
                epochs.saw(Offset(i64::try_from(offset).expect("small")), *epoch);
            }
            let mut positions = positions;
            positions.sort_unstable();
            for position in positions {
                if let Some((Offset(at), epoch)) = epochs.checkpoint(Offset(position)) {
                    prop_assert!(at <= position && at > 0);
                    prop_assert_eq!(log[usize::try_from(at - 1).expect("small")], epoch);
                }
            }
        }
    }
}
