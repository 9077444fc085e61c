//! Where each partition stands, worked out of what the metastore holds: for `starling ingest status` and for the gauges alike.

use starling_schemas::ids::PartitionId;
use starling_store::{Metastore, PartitionStatus, Plan, StoreError};

/// A partition at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The partition.
    pub partition: PartitionId,
    /// Name the owner gave itself: a consumer group and a process id.
    pub owner: String,
    /// Its generation.
    pub generation: i64,
    /// Where the next range begins; `None` before the first commit.
    pub next_offset: Option<i64>,
    /// Where the partition ends, as its owner last saw it.
    pub end_offset: Option<i64>,
    /// Events between the two, where both are known.
    pub lag: Option<i64>,
    /// Event time that is reached.
    pub watermark_ms: Option<i64>,
    /// The range in work.
    pub plan: Option<OpenPlan>,
    /// When a range was last committed; `None` before the first.
    pub last_commit_ms: Option<i64>,
    /// When the owner was last heard of.
    pub seen_ms: i64,
    /// Events committed.
    pub events: u64,
}

/// A range that is planned and not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPlan {
    /// First offset.
    pub from: i64,
    /// First offset after it.
    pub to: i64,
    /// When it was first planned.
    pub planned_at_ms: i64,
}

/// How long ago, at least zero: clocks of two machines may differ.
#[must_use]
pub fn age_ms(now_ms: i64, then_ms: i64) -> i64 {
    now_ms.saturating_sub(then_ms).max(0)
}

/// All partitions, in order.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn views(metastore: &Metastore) -> Result<Vec<View>, StoreError> {
    let partitions = metastore.partitions().await?;
    let plans = metastore.open_plans().await?;
    Ok(partitions.into_iter().map(|p| view(p, &plans)).collect())
}

fn view(status: PartitionStatus, plans: &[Plan]) -> View {
    let plan = plans.iter().find(|p| p.partition == status.partition);
    let (next, end) = (status.next_offset.map(|o| o.0), status.end_offset.map(|o| o.0));
    View {
        owner: status.owner,
        generation: status.generation.0,
        next_offset: next,
        end_offset: end,
        // The end is noted once a second: the next offset may be past it.
        lag: next.zip(end).map(|(next, end)| end.saturating_sub(next).max(0)),
        watermark_ms: status.watermark_ms,
        plan: plan.map(|p| OpenPlan { from: p.from.0, to: p.to.0, planned_at_ms: p.planned_at_ms }),
        last_commit_ms: next.map(|_| status.last_commit_ms),
        seen_ms: status.seen_ms,
        events: status.events,
        partition: status.partition,
    }
}

#[cfg(test)]
mod tests {
    use starling_schemas::ids::{Generation, Offset, Sequence};

    use super::*;

    fn status(next: Option<i64>, end: Option<i64>) -> PartitionStatus {
        PartitionStatus {
            partition: PartitionId { source: "events".into(), partition: 0 },
            generation: Generation(2),
            owner: "starling/7".into(),
            next_offset: next.map(Offset),
            next_sequence: Sequence(1),
            end_offset: end.map(Offset),
            watermark_ms: None,
            last_commit_ms: 5,
            seen_ms: 6,
            events: 0,
            has_open_plan: false,
        }
    }

    #[test]
    fn lag_is_known_where_both_ends_are_and_never_negative() {
        let lag = |next, end| view(status(next, end), &[]).lag;
        assert_eq!(lag(Some(10), Some(25)), Some(15));
        assert_eq!(lag(Some(26), Some(25)), Some(0));
        assert_eq!(lag(None, Some(25)), None, "where the log begins is not known");
        assert_eq!(lag(Some(10), None), None);
    }

    #[test]
    fn before_the_first_commit_there_is_no_last_one() {
        assert_eq!(view(status(None, None), &[]).last_commit_ms, None);
        assert_eq!(view(status(Some(1), None), &[]).last_commit_ms, Some(5));
    }
}
