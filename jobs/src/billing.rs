//! `starling billing`: what businesses are billed for, exactly (P35). Every read of it is in the hash-chained log before it is shown (I6).

use std::sync::Arc;

use anyhow::Context as _;
use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema, UInt8Type, UInt16Type};
use starling_query::Answer;
use starling_schemas::codes::{Category, Country};
use starling_schemas::ids::EpochId;
use starling_schemas::rows::{COMMENT, column};

use crate::cli::BillingArgs;
use crate::home::Home;

fn day(flag: &str, text: Option<&String>) -> anyhow::Result<Option<EpochId>> {
    text.map(|text| EpochId::parse_day(text).with_context(|| format!("{flag}: no day of the calendar; write it as 2026-01-05")))
        .transpose()
}

/// The bill of some days: one row for each day, business, portfolio, category and country.
///
/// # Errors
/// When a day is none, the audit log cannot be written (then nothing is shown), or a file cannot be read.
pub async fn answer(home: &Home, asked: &BillingArgs) -> anyhow::Result<Answer> {
    let from = day("--from", asked.from.as_ref())?.unwrap_or(EpochId(i32::MIN));
    let to = day("--to", asked.to.as_ref())?.unwrap_or(EpochId::LAST_DAY);
    let detail = serde_json::json!({ "from": asked.from, "to": asked.to, "of_one_business": asked.business.is_some() });
    let logged = home.metastore.append_audit("billing_read", detail, home.clock.now_ms()).await;
    logged.context("the audit log cannot be written, so nothing is shown (I6)")?;
    let rows = home.billing().rows(from, to).await?;
    let business = rows.column_by_name("business").and_then(|c| c.as_string_opt::<i32>()).context("rows without a business")?;
    let wanted = business.iter().map(|name| Some(asked.business.as_deref().is_none_or(|wanted| name == Some(wanted)))).collect();
    let rows = named(&filter_record_batch(&rows, &wanted)?)?;
    let notes =
        vec!["exact counts for billing; nobody is in them. A day is final when nothing of it can come any more".to_owned()];
    Ok(Answer {
        schema: rows.schema(),
        batches: if rows.num_rows() == 0 { vec![] } else { vec![rows] },
        notes,
        questions: Vec::new(),
    })
}

/// Codes as names.
fn named(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, values) in rows.schema().fields().iter().zip(rows.columns()) {
        let names: Option<StringArray> = match field.name().as_str() {
            "category" => values.as_primitive_opt::<UInt8Type>().map(|codes| {
                let name = |code| Category::from_code(code).unwrap_or(Category::Unknown).name();
                StringArray::from_iter_values(codes.values().iter().map(|code| name(*code)))
            }),
            "country" => values
                .as_primitive_opt::<UInt16Type>()
                .map(|codes| StringArray::from_iter_values(codes.values().iter().map(|code| Country::from_code(*code).name()))),
            _ => None,
        };
        let comment = field.metadata().get(COMMENT).map_or("", String::as_str);
        match names {
            Some(names) => {
                fields.push(column(field.name(), DataType::Utf8, false, comment));
                columns.push(Arc::new(names));
            }
            None => {
                fields.push(field.as_ref().clone());
                columns.push(Arc::clone(values));
            }
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
