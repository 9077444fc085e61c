//! How answers are written: a table for people, CSV, JSON lines or an Arrow stream for programs.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use starling_query::{Answer, delta};

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// Whether a table may be written into `folder`: it is not there, or has nothing in it.
///
/// # Errors
/// When the folder holds something, or cannot be looked into.
pub fn is_new(folder: &Path) -> anyhow::Result<()> {
    let found = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("{}: cannot be looked into", folder.display()))?.next(),
    };
    anyhow::ensure!(found.is_none(), "{}: there is something in this folder already; name a new one", folder.display());
    Ok(())
}

/// Keeps an answer as a Delta table in a new folder. Its commit is written last, so that a table is whole or is none.
///
/// # Errors
/// When columns do not fit, the folder holds something, or the disk fails.
pub fn keep(answer: &Answer, statement: &str, now_ms: i64, folder: &Path) -> anyhow::Result<()> {
    let [rows, commit] = delta::keep(answer, statement, now_ms)?;
    let failed = || format!("{}: the table cannot be written", folder.display());
    is_new(folder)?;
    for (name, bytes) in [(delta::ROWS, rows), (delta::COMMIT, commit)] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder)).with_context(failed)?;
        let mut file = std::fs::File::create_new(&path).with_context(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).with_context(failed)?;
    }
    Ok(())
}

/// Writes an answer.
///
/// # Errors
/// When the writer fails.
pub fn write(answer: &Answer, format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            let batches: Vec<RecordBatch> = if answer.batches.is_empty() {
                vec![RecordBatch::new_empty(answer.schema.clone())]
            } else {
                answer.batches.clone()
            };
            writeln!(out, "{}", pretty_format_batches(&batches)?)?;
            let rows: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
            writeln!(out, "{rows} {}", if rows == 1 { "row" } else { "rows" })?;
        }
        Format::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *out);
            if answer.batches.is_empty() {
                writer.write(&RecordBatch::new_empty(answer.schema.clone()))?;
            }
            for batch in &answer.batches {
                writer.write(batch)?;
            }
        }
        Format::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(&mut *out);
            for batch in &answer.batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        Format::Arrow => {
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut *out, &answer.schema)?;
            for batch in &answer.batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
    }
    out.flush()?;
    Ok(())
}
