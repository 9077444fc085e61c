//! Whether what the client hands out really follows what was seen before. Pure, like its siblings; the driver does the re-reading.
//!
//! # What happens in librdkafka 2.12.1
//!
//! Before it tells the application of a rebalance, librdkafka pauses *every* assigned partition, and resumes those that stay when the
//! rebalance is answered. Pausing writes "the application's position" down as the place where fetching goes on
//! (`rd_kafka_toppar_pause_resume`), and that position is wrong in two ways when messages are taken out in batches
//! (`rd_kafka_q_serve_rkmessages`):
//!
//! - The report "end of the partition at 860" is counted like a message at 860, so the position becomes 861 (issue 4844, mended upstream by
//!   pull request 5213). Fetching goes on at 861. If 860 has been written meanwhile, **it is skipped without a word**; if not,
//!   861 is out of range, and the partition stops with an error although nothing is wrong.
//! - The position is written after the batch was taken out, by the application's thread, so a pause in between reads an older one. Then messages
//!   come twice, which is harmless here: the cutter drops them.
//!
//! In an eager rebalance every partition is given up and starts anew at an offset that we name, so nothing comes of it. In a cooperative
//! one the partitions that stay would be read on from the wrong position. Hence two defences:
//!
//! 1. *By construction*: before a rebalance is answered, while everything is paused, each partition that stays is sought to the
//!    position that its [`Cutter`](super::Cutter) knows (and with the leader epoch of the last message, see [`epochs`](super::epochs)). Seeking clears the application's position and raises the partition's version, so
//!    that whatever was fetched before is dropped unseen. Nobody but the one reader thread takes messages out, so none can come between.
//! 2. *By distrust*, should the first fail (a seek is refused while a partition is still starting): the first thing seen after every
//!    assignment, seek or rebalance is compared with the position wanted. If it lies beyond, it is not believed, and the partition is read
//!    once more from that position. What is still missing then is missing in the log (compacted away, an aborted transaction, a marker). This
//!    is [`Continuity`]; an error "out of range" is judged the same way by [`judge_out_of_range`].
//!
//! On the hot path this costs one comparison a message with a flag that does not change.

use starling_schemas::ids::Offset;

/// How often in a row "out of range" is answered by reading again, although it is not known why.
pub const MAX_REREADS: u32 = 3;

/// What is thought of the next thing seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It follows what was seen before, or nothing can be missing.
    Believed,
    /// Something lies between: do not take it, seek to the position wanted, and say so with [`Continuity::sought`].
    ReadAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reading has begun at a position that the client was told, or may have forgotten.
    Unproven,
    /// Something beyond the position was seen; until the seek everything is dropped.
    AwaitingSeek,
    /// Read once more from the position wanted: what comes now is what the log has.
    Rereading,
    /// The position wanted was seen.
    Proven,
}

/// Guards one partition. See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuity {
    state: State,
}

impl Default for Continuity {
    fn default() -> Self {
        Self { state: State::Unproven }
    }
}

impl Continuity {
    /// Whether every further thing is believed unseen.
    #[inline]
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.state == State::Proven
    }

    /// The client may have lost its position: a rebalance has paused the partition, or it was assigned or sought.
    pub fn interrupted(&mut self) {
        self.state = State::Unproven;
    }

    /// The position wanted was sought, because [`Belief::ReadAgain`] asked for it.
    pub fn sought(&mut self) {
        if self.state == State::AwaitingSeek {
            self.state = State::Rereading;
        }
    }

    /// Shows it the next message, or the end of the partition, at `seen`. `wanted`: the lowest offset not seen yet; `None` for a partition
    /// that was never read, which begins wherever its log does.
    pub fn see(&mut self, wanted: Option<Offset>, seen: Offset) -> Belief {
        let beyond = wanted.is_some_and(|wanted| seen > wanted);
        match (self.state, beyond) {
            (State::AwaitingSeek, _) => Belief::ReadAgain,
            (State::Unproven, true) => {
                self.state = State::AwaitingSeek;
                Belief::ReadAgain
            }
            // What lies before the position proves nothing; the cutter drops it.
            (State::Unproven | State::Rereading, false) if wanted.is_some_and(|wanted| seen < wanted) => Belief::Believed,
            _ => {
                self.state = State::Proven;
                Belief::Believed
            }
        }
    }
}

/// What an error "offset out of range" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFault {
    /// Nothing is known to be wrong: read again from the position wanted.
    ReadAgain,
    /// What comes next was deleted, or cannot be read although it should be there.
    Gap,
    /// The log ends before the position wanted, or was cut and written anew: what was read is no longer what the log holds.
    Truncated,
}

/// Judges "out of range".
///
/// `asked`: the offset that the broker was asked for and does not have. If that is the one wanted, the broker has spoken, and reading again
/// could only hide it: a log that was cut may have grown past the position by then. If it is another one, the client had gone elsewhere.
/// `low`: first offset the broker has, if it told. `truncated`: the client has compared leader epochs and found the log cut (KIP-320). `rereads`:
/// how often in a row this was answered by reading again.
#[must_use]
pub fn judge_out_of_range(
    wanted: Option<Offset>,
    asked: Option<Offset>,
    low: Option<i64>,
    truncated: bool,
    rereads: u32,
) -> LogFault {
    match (wanted, low) {
        _ if truncated => LogFault::Truncated,
        (Some(wanted), Some(low)) if wanted.0 < low => LogFault::Gap,
        (Some(_), Some(_)) if asked == wanted => LogFault::Truncated,
        // Never read: wherever the log begins is right, also if its beginning moved while it was asked for.
        _ if asked != wanted && rereads < MAX_REREADS => LogFault::ReadAgain,
        _ => LogFault::Gap,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Option<Offset> = Some(Offset(860));

    #[test]
    fn a_message_beyond_the_position_is_not_believed_until_it_was_read_again() {
        let mut guard = Continuity::default();
        assert_eq!(guard.see(WANTED, Offset(861)), Belief::ReadAgain);
        assert_eq!(guard.see(WANTED, Offset(860)), Belief::ReadAgain, "what was fetched before the seek is dropped");
        guard.sought();
        assert_eq!(guard.see(WANTED, Offset(860)), Belief::Believed);
        assert!(guard.is_proven());
    }

    #[test]
    fn a_gap_that_survives_the_rereading_is_real() {
        let mut guard = Continuity::default();
        assert_eq!(guard.see(WANTED, Offset(870)), Belief::ReadAgain);
        guard.sought();
        assert_eq!(guard.see(WANTED, Offset(870)), Belief::Believed);
        assert!(guard.is_proven());
    }

    #[test]
    fn a_rebalance_during_the_rereading_begins_the_distrust_anew() {
        let mut guard = Continuity::default();
        guard.see(WANTED, Offset(870));
        guard.sought();
        guard.interrupted();
        assert_eq!(guard.see(WANTED, Offset(870)), Belief::ReadAgain);
        guard.interrupted();
        guard.sought();
        assert_eq!(guard.see(WANTED, Offset(870)), Belief::ReadAgain, "a seek nobody asked for proves nothing");
    }

    #[test]
    fn messages_before_the_position_are_let_through_and_prove_nothing() {
        let mut guard = Continuity::default();
        assert_eq!(guard.see(WANTED, Offset(800)), Belief::Believed);
        assert!(!guard.is_proven());
        assert_eq!(guard.see(WANTED, Offset(861)), Belief::ReadAgain);
    }

    #[test]
    fn a_partition_never_read_begins_where_its_log_does() {
        let mut guard = Continuity::default();
        assert_eq!(guard.see(None, Offset(5000)), Belief::Believed);
        assert!(guard.is_proven());
    }

    #[test]
    fn out_of_range_is_a_gap_below_the_log_and_a_truncation_above_it() {
        let judge =
            |wanted, asked, rereads| judge_out_of_range(Some(Offset(wanted)), Some(Offset(asked)), Some(100), false, rereads);
        assert_eq!(judge(99, 99, 0), LogFault::Gap);
        assert_eq!(judge(201, 201, 0), LogFault::Truncated);
        assert_eq!(judge(99, 861, 0), LogFault::Gap, "whatever was asked for, what is wanted is gone");
    }

    #[test]
    fn a_log_that_was_cut_and_has_grown_past_the_position_since_is_not_read_on() {
        // The broker did not have 150 when it was asked; by the time of the second question it does.
        assert_eq!(judge_out_of_range(Some(Offset(150)), Some(Offset(150)), Some(0), false, 0), LogFault::Truncated);
        assert_eq!(judge_out_of_range(Some(Offset(150)), None, Some(0), true, 0), LogFault::Truncated, "as the epochs tell");
    }

    #[test]
    fn out_of_range_at_another_place_than_the_wanted_one_is_the_clients_fault_and_read_again() {
        let judge = |rereads| judge_out_of_range(WANTED, Some(Offset(861)), Some(0), false, rereads);
        assert_eq!(judge(0), LogFault::ReadAgain);
        assert_eq!(judge(MAX_REREADS), LogFault::Gap, "but not for ever");
        assert_eq!(judge_out_of_range(None, Some(Offset(5)), Some(100), false, 0), LogFault::ReadAgain);
        assert_eq!(judge_out_of_range(WANTED, WANTED, None, false, 0), LogFault::Gap, "the broker does not tell what it has");
    }

    /// A client that reads a log with holes, and after each rebalance may go on at a wrong place, before or beyond the right one.
    struct Client {
        at: i64,
    }

    proptest! {
        #[test]
        fn i9_wherever_the_client_goes_on_after_a_rebalance_every_message_is_taken_once_and_in_order(
            holes in prop::collection::vec(any::<bool>(), 60),
            steps in prop::collection::vec((0..12_u8, -5..6_i64), 1..200),
        ) {
            let log: Vec<i64> = (0..60).filter(|n| !holes[usize::try_from(*n).expect("small")]).collect();
            let (mut client, mut guard) = (Client { at: 0 }, Continuity::default());
            let (mut wanted, mut taken) = (0_i64, Vec::new());
            let mut run = |client: &mut Client, guard: &mut Continuity, count: usize, taken: &mut Vec<i64>| {
                for _ in 0..count {
                    // Behind the last message comes the report of the end, which is guarded like a message.
                    let message = log.iter().copied().find(|offset| *offset >= client.at);
                    let seen = message.unwrap_or(client.at.max(60));
                    if !guard.is_proven() && guard.see(Some(Offset(wanted)), Offset(seen)) == Belief::ReadAgain {
                        client.at = wanted;
                        guard.sought();
                        continue;
                    }
                    let Some(seen) = message else { return };
                    client.at = seen + 1;
                    if seen >= wanted {
                        taken.push(seen);
                        wanted = seen + 1;
                    }
                }
            };
            for (count, jump) in steps {
                run(&mut client, &mut guard, usize::from(count), &mut taken);
                client.at = (client.at + jump).max(0);
                guard.interrupted();
            }
            run(&mut client, &mut guard, 1000, &mut taken);
            prop_assert_eq!(taken, log);
        }
    }
}
