//! An answer as JSON: columns with a plain type each, and rows as arrays.
//!
//! | type | values |
//! |---|---|
//! | `integer` | a number; as text beyond ±2⁵³, which JavaScript would round |
//! | `real` | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` as text; decimals with all their digits |
//! | `boolean` | `true`, `false` |
//! | `timestamp` | text as in RFC 3339, UTC |
//! | `date` | text, `2026-01-05` |
//! | `text` | everything else, as text |
//!
//! NULL is `null`. An answer that would be longer than it may be ends early, and says so.

use std::fmt::Write as _;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};
use serde_json::json;
use starling_query::Answer;

use super::told::Refused;

/// Rows and bytes of an answer.
const MOST_ROWS: usize = 100_000;
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// From here on JavaScript's numbers skip some.
const EXACT: u64 = 1 << 53;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer,
    Natural,
    Real,
    Decimal,
    Boolean,
    Timestamp,
    Date,
    Text,
}

impl Kind {
    fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Boolean => Self::Boolean,
            DataType::UInt64 => Self::Natural,
            kind if kind.is_integer() => Self::Integer,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Real,
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Self::Decimal
            }
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Date32 | DataType::Date64 => Self::Date,
            _ => Self::Text,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Integer | Self::Natural => "integer",
            Self::Real | Self::Decimal => "real",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Text => "text",
        }
    }

    /// The one Arrow type in which its values are read.
    fn canonical(self, kind: &DataType) -> DataType {
        match (self, kind) {
            (Self::Boolean, _) => DataType::Boolean,
            (Self::Integer, _) => DataType::Int64,
            (Self::Natural, _) => DataType::UInt64,
            (Self::Real, _) => DataType::Float64,
            // A moment without a zone is UTC here.
            (Self::Timestamp, DataType::Timestamp(unit, None)) => DataType::Timestamp(*unit, None),
            (Self::Timestamp, DataType::Timestamp(unit, Some(_))) => DataType::Timestamp(*unit, Some("+00:00".into())),
            (Self::Timestamp, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            (Self::Date, _) => DataType::Date32,
            (Self::Decimal | Self::Text, _) => DataType::Utf8,
        }
    }
}

struct Column {
    kind: Kind,
    values: ArrayRef,
}

/// The answer, with its notices. What is left out is told in them too.
///
/// # Errors
/// 22003 and 22008 for a value that cannot be written.
pub(super) fn json(answer: &mut Answer, began: Instant) -> Result<String, Refused> {
    json_within(answer, began, MOST_ROWS, MOST_BYTES)
}

fn json_within(answer: &mut Answer, began: Instant, most_rows: usize, most_bytes: usize) -> Result<String, Refused> {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| json!({ "name": field.name(), "type": Kind::of(field.data_type()).name() });
    let columns: Vec<_> = answer.schema.fields().iter().map(column).collect();
    let mut out = format!("{{\"columns\":{},\"rows\":[", json!(columns));
    let (mut rows, mut truncated) = (0, false);
    'all: for batch in &answer.batches {
        let columns = batch.columns().iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for at in 0..batch.num_rows() {
            let before = out.len();
            out.push_str(if rows == 0 { "[" } else { ",[" });
            for (number, column) in columns.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { "," });
                cell(column, at, &mut out);
            }
            out.push(']');
            if rows == most_rows || out.len() > most_bytes {
                out.truncate(before);
                truncated = true;
                break 'all;
            }
            rows += 1;
        }
    }
    if truncated {
        let all: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
        answer.notes.push(format!("these are {rows} of {all} rows: as JSON there is no room for more; ask for CSV or Arrow"));
    }
    let question = answer.questions.first();
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _ = write!(
        out,
        "],\"truncated\":{truncated},\"notices\":{},\"question\":{},\"questions\":{},\"elapsed_ms\":{elapsed_ms}}}",
        json!(answer.notes),
        json!(question),
        json!(answer.questions)
    );
    out.push('\n');
    Ok(out)
}

fn read(column: &ArrayRef) -> Result<Column, Refused> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    // What Arrow says of it would quote the value.
    let to = |values: &ArrayRef, kind: &DataType| {
        cast_with_options(values, kind, &options)
            .map_err(|_| Refused::new("22003", "a value cannot be written as JSON", "CAST it to text, or restrict it with WHERE"))
    };
    let kind = Kind::of(column.data_type());
    let values = to(column, &kind.canonical(column.data_type()))?;
    let values = if matches!(kind, Kind::Date | Kind::Timestamp) { to(&values, &DataType::Utf8)? } else { values };
    Ok(Column { kind, values })
}

fn cell(column: &Column, at: usize, out: &mut String) {
    let values = &column.values;
    if values.is_null(at) {
        return out.push_str("null");
    }
    let text = || values.as_string::<i32>().value(at);
    let _ = match column.kind {
        Kind::Boolean => write!(out, "{}", values.as_boolean().value(at)),
        Kind::Integer => {
            let number = values.as_primitive::<Int64Type>().value(at);
            integer(out, number.unsigned_abs(), number)
        }
        Kind::Natural => {
            let number = values.as_primitive::<UInt64Type>().value(at);
            integer(out, number, number)
        }
        Kind::Real => match values.as_primitive::<Float64Type>().value(at) {
            number if number.is_nan() => write!(out, "\"NaN\""),
            number if number.is_infinite() => write!(out, "\"{}Infinity\"", if number < 0.0 { "-" } else { "" }),
            number => write!(out, "{}", json!(number)),
        },
        Kind::Decimal => write!(out, "{}", text()),
        Kind::Timestamp => write!(out, "\"{}Z\"", text().trim_end_matches("+00:00").trim_end_matches('Z')),
        Kind::Date => write!(out, "\"{}\"", text()),
        Kind::Text => write!(out, "{}", json!(text())),
    };
}

fn integer(out: &mut String, size: u64, number: impl std::fmt::Display) -> std::fmt::Result {
    if size > EXACT { write!(out, "\"{number}\"") } else { write!(out, "{number}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, NullArray, StringArray, TimestampMillisecondArray,
        UInt64Array,
    };
    use arrow::datatypes::{Field, Schema};
    use serde_json::Value;

    use super::*;

    fn answer(columns: Vec<ArrayRef>) -> Answer {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("fits");
        Answer { schema, batches: vec![batch], notes: vec!["cost".to_owned()], questions: Vec::new() }
    }

    #[test]
    fn every_type_is_written_as_the_contract_says() {
        let moment = TimestampMillisecondArray::from(vec![Some(1_767_607_200_500), None]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-3)])),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(1 << 53)])),
            Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY)])),
            Arc::new(Float64Array::from(vec![Some(0.1), Some(1e300)])),
            Arc::new(Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).expect("fits").slice(0, 1)),
        ];
        let (rest, decimal) = (columns[..5].to_vec(), columns[5].clone());
        let text: Value = serde_json::from_str(&json(&mut answer(rest), Instant::now()).expect("fits")).expect("JSON");
        let types: Vec<&str> = text["columns"].as_array().expect("columns").iter().filter_map(|c| c["type"].as_str()).collect();
        assert_eq!(types, ["boolean", "integer", "integer", "real", "real"]);
        assert_eq!(text["rows"][0], json!([true, "-9223372036854775808", "18446744073709551615", "NaN", 0.1]));
        assert_eq!(text["rows"][1], json!([null, -3, 9_007_199_254_740_992_u64, "-Infinity", 1e300]));
        assert_eq!((&text["truncated"], &text["question"], &text["notices"]), (&json!(false), &Value::Null, &json!(["cost"])));
        let text = json(&mut answer(vec![decimal]), Instant::now()).expect("fits");
        assert!(text.contains("\"rows\":[[123.45]]"), "{text}");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Date32Array::from(vec![Some(20_458), None])),
            Arc::new(moment.clone()),
            Arc::new(moment.with_timezone("+00:00")),
            Arc::new(StringArray::from(vec![Some("é\"\n"), None])),
            Arc::new(NullArray::new(2)),
        ];
        let text: Value = serde_json::from_str(&json(&mut answer(columns), Instant::now()).expect("fits")).expect("JSON");
        let types: Vec<&str> = text["columns"].as_array().expect("columns").iter().filter_map(|c| c["type"].as_str()).collect();
        assert_eq!(types, ["date", "timestamp", "timestamp", "text", "text"]);
        let moment = "2026-01-05T10:00:00.500Z";
        assert_eq!(text["rows"], json!([["2026-01-05", moment, moment, "é\"\n", null], vec![Value::Null; 5]]));
    }

    #[test]
    fn what_is_too_long_ends_with_a_whole_row_and_says_so() {
        let rows: ArrayRef = Arc::new(StringArray::from(vec!["0123456789"; 50]));
        for (most_rows, most_bytes, expected) in [(50, 10_000, 50), (49, 10_000, 49), (50, 300, 16)] {
            let mut answer = answer(vec![Arc::clone(&rows)]);
            let text = json_within(&mut answer, Instant::now(), most_rows, most_bytes).expect("fits");
            let text: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(text["rows"].as_array().expect("rows").len(), expected);
            assert_eq!(text["truncated"], json!(expected < 50));
            assert_eq!(text["notices"].to_string().contains("of 50 rows"), expected < 50, "{text}");
        }
    }

    #[test]
    fn i4_a_value_that_cannot_be_written_is_not_quoted() {
        let far: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]));
        let refused = json(&mut answer(vec![far]), Instant::now()).expect_err("too far");
        assert!(!refused.refusal.reason.contains("9223372036854775807"), "{refused:?}");
    }
}
