//! The segments of a week or month become one whenever a day has closed, so that none tells on which day, let alone in which minutes, its people
//! were there.
//!
//! ```text
//!  segments of ranges ─┐                                   one transaction          one by one
//!  what was gathered ──┴─► merge ─► gathered-<day>-<n> ──► records replaced ──► files of the old ones go
//! ```
//!
//! A crash before the transaction leaves a file that no record names, one after it leaves files of the old segments. The next look gathers again, or
//! finds that a window was gathered and not swept; either way it removes what neither a record nor a range in work names.

use std::collections::HashSet;
use std::sync::Arc;

use starling_schemas::ids::{EpochId, Span, WindowId};
use starling_store::{SegmentRecord, StoreError, WindowState, killpoint};

use crate::AggregateError;
use crate::close::Closer;
use crate::merge::Merger;
use crate::segment::{data_key, segment_folder, segment_path};
use crate::spill::Spill;

impl Closer {
    /// Puts the segments of every open week and month into one each, as of the close of the newest closed day. Does nothing where that is done. Says how
    /// many segments were gathered.
    ///
    /// A window with a segment that is lost or damaged is left as it is, with a line in the log: its close judges that.
    ///
    /// # Errors
    /// [`AggregateError::SpillInUse`], and errors of merging, store and keyring.
    pub async fn gather(&self) -> Result<usize, AggregateError> {
        let days = self.metastore.windows().await?;
        let Some(through) = days.iter().filter(|day| day.state.is_final()).map(|day| day.epoch).max() else { return Ok(0) };
        let mut gathered = 0;
        for span in Span::LONG {
            for window in self.metastore.windows_of(span).await? {
                let id = window.id();
                if window.state != WindowState::Open || window.epoch > through {
                    continue;
                }
                if window.gathered_through.is_some_and(|before| before >= through) {
                    if window.swept_through < window.gathered_through {
                        self.sweep(id, through).await?;
                    }
                    continue;
                }
                match self.gather_window(id, through).await {
                    Ok(segments) => gathered += segments,
                    Err(
                        error @ (AggregateError::Store(StoreError::FileMissing { .. } | StoreError::TableUnreadable { .. })
                        | AggregateError::OtherVersion { .. }
                        | AggregateError::CountsDiffer { .. }),
                    ) => tracing::error!(window = %id, "segments are not gathered: {error}"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(gathered)
    }

    async fn gather_window(&self, window: WindowId, through: EpochId) -> Result<usize, AggregateError> {
        let spill = Spill::open(&self.spill_dir)?;
        let segments = self.metastore.segments(window).await?;
        if segments.is_empty() {
            return Ok(0);
        }
        // Segments only become more until they are gathered: two who gather at once give one name to the same segments alone.
        let path = format!("{}gathered-{through}-{}.parquet", segment_folder(window), segments.len());
        let merger = Merger::new(Arc::new(data_key(&self.keyring, window)?), window.span, self.memory_bytes)?;
        let (writer, merged) = merger.merge(&self.files, &segments, &spill, &path).await?;
        drop(spill);
        let counted = segments.iter().fold(0, |rows: u64, segment| rows.saturating_add(segment.rows));
        if merged.read != counted {
            return Err(AggregateError::CountsDiffer { window, what: "rows", counted, in_rows: merged.read });
        }
        let table = writer.finish().await?;
        killpoint::reached("after_gathered_file");
        let into = SegmentRecord { window, path, rows: table.rows, bytes: table.bytes };
        let replaced = self.metastore.gather_segments(&segments, &into, through).await?;
        killpoint::reached("after_gathered");
        self.sweep(window, through).await?;
        Ok(if replaced { segments.len() } else { 0 })
    }

    /// Deletes the segment files of an open week or month that nobody will read: those which neither a record nor a range in work names.
    async fn sweep(&self, window: WindowId, through: EpochId) -> Result<(), AggregateError> {
        // In this order: what is listed and was in work is named by its plan, or by its record once that is committed.
        let files = self.files.list(&segment_folder(window)).await?;
        let plans = self.metastore.open_plans_before(EpochId::LAST_DAY).await?;
        let mut named: HashSet<String> = plans.iter().map(|plan| segment_path(&plan.partition, plan.sequence, window)).collect();
        named.extend(self.metastore.segments(window).await?.into_iter().map(|segment| segment.path));
        for path in files.iter().filter(|path| !named.contains(*path)) {
            self.files.delete(path).await?;
        }
        Ok(self.metastore.note_swept(window, through).await?)
    }
}
