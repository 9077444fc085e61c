//! How answers are written: a table for people, CSV, JSON lines or an Arrow stream for programs.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use starling_query::Answer;

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
