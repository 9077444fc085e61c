//! Rows on their way out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use starling_schemas::rows::COMMENT;

/// The rows a statement asked for.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Columns, each with its comment where it is a column of a table or keeps one's name and meaning. Text is always `Utf8`.
    pub schema: SchemaRef,
    /// Rows, in order. May be empty.
    pub batches: Vec<RecordBatch>,
    /// What whoever asked should know beside the rows: what a private answer cost, and what it leaves out.
    pub notes: Vec<String>,
    /// The questions over protected tables that it was made of, as the ledger knows them.
    pub questions: Vec<String>,
}

impl Answer {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// (column, comment) in order; `None` where a column was computed and has no comment.
    #[must_use]
    pub fn comments(&self) -> Vec<(&str, Option<&str>)> {
        self.schema
            .fields()
            .iter()
            .map(|field| (field.name().as_str(), field.metadata().get(COMMENT).map(String::as_str)))
            .collect()
    }

    /// The columns with which rows of these leave.
    pub(crate) fn columns(schema: &Schema) -> SchemaRef {
        Arc::new(Schema::new(schema.fields().iter().map(|field| plain(field)).collect::<Vec<Field>>()))
    }

    /// Makes every kind of text `Utf8`, so that doors need to know one.
    pub(crate) fn of(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Self, ArrowError> {
        let schema = Self::columns(schema);
        let batches = batches
            .into_iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| {
                let columns = batch.columns().iter().zip(schema.fields());
                let columns =
                    columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<Vec<ArrayRef>, _>>()?;
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { schema, batches, notes: Vec::new(), questions: Vec::new() })
    }
}

fn plain(field: &Field) -> Field {
    let text = matches!(field.data_type(), DataType::Utf8View | DataType::LargeUtf8);
    // A union or an outer join may give NULL where a planned schema says it cannot.
    let field = field.clone().with_nullable(true);
    if text { field.with_data_type(DataType::Utf8) } else { field }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringViewArray};

    use super::*;

    #[test]
    fn every_kind_of_text_leaves_as_one_kind_and_keeps_its_comment() {
        let field = starling_schemas::rows::column("country", DataType::Utf8View, false, "of the calling code");
        let schema = Arc::new(Schema::new(vec![field]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringViewArray::from(vec!["DE"]))]).expect("fits");
        let answer = Answer::of(&schema, vec![batch]).expect("text is text");
        assert_eq!(answer.comments(), [("country", Some("of the calling code"))]);
        assert_eq!(answer.batches[0].column(0).as_string::<i32>().value(0), "DE");
        assert_eq!(answer.rows(), 1);
    }
}
