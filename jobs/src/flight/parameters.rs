//! Values of parameters as Arrow clients bind them: one row of a record batch, a column for each parameter.
//!
//! | type there | value here |
//! |---|---|
//! | `bool` | true or false |
//! | integers | a whole number |
//! | floats, decimals | a double |
//! | `utf8`, `large_utf8` | text |
//! | dates; timestamps | a day; a moment in UTC |
//! | `null` | NULL of the kind that the statement tells |
//!
//! What cannot be read is refused with the parameter's number and never with its value. Lengths and offsets of the messages are a
//! stranger's: see the essay of `flight` for what is looked at before what.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::utils::flight_data_to_arrow_batch;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use starling_query::{Kind, Value};

use super::status::unreadable;
use crate::doors::Refusal;

/// Values of one statement's parameters, from the messages that hold them.
///
/// # Errors
/// Messages that cannot be read, another number of rows than one or of values than `kinds`, and values that are not of their
/// type.
pub(super) async fn read(messages: Vec<FlightData>, kinds: Vec<Option<Kind>>) -> Result<Vec<Value>, Refusal> {
    // A stranger's offsets may lead nowhere, which Arrow's reader answers with a panic: it has a thread of its own for that.
    let reading = tokio::task::spawn_blocking(move || values(&batch(&messages)?, &kinds));
    reading.await.map_err(|_| unreadable("a batch of parameters"))?
}

fn batch(messages: &[FlightData]) -> Result<RecordBatch, Refusal> {
    let mut messages = messages.iter().filter(|message| !message.data_header.is_empty());
    let schema = messages.next().and_then(|first| Schema::try_from(first).ok());
    let schema: SchemaRef = Arc::new(schema.ok_or_else(|| unreadable("the parameters' columns"))?);
    for (at, field) in (1..).zip(schema.fields()) {
        if !is_taken(field.data_type()) {
            let reason = format!("parameter {at} has a type that is not taken here");
            let hint =
                "numbers, text, booleans, days and moments are; give a list as one parameter for each value, as in IN ($1, $2)";
            return Err(Refusal::new("0A000", reason, hint));
        }
    }
    let mut found: Option<RecordBatch> = None;
    for message in messages {
        let header = root_as_message(&message.data_header).map_err(|_| unreadable("a batch of parameters"))?;
        let rows = header.header_as_record_batch().ok_or_else(|| unreadable("a batch of parameters"))?;
        if header.header_type() != MessageHeader::RecordBatch || rows.compression().is_some() {
            return Err(Refusal::new("0A000", "parameters are compressed", "bind them as they are"));
        }
        let batch = flight_data_to_arrow_batch(message, Arc::clone(&schema), &HashMap::new());
        let batch = batch.map_err(|_| unreadable("a batch of parameters"))?;
        match (batch.num_rows(), &found) {
            (0, _) => {}
            (1, None) => found = Some(batch),
            _ => return Err(one_row("more than one row")),
        }
    }
    found.ok_or_else(|| one_row("no row"))
}

fn one_row(what: &str) -> Refusal {
    let hint = "bind one row and execute the statement for each; statements answer here, and change nothing in bulk";
    Refusal::new("0A000", format!("{what} of parameters is bound"), hint)
}

fn is_taken(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Null
            | DataType::Boolean
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
    ) || kind.is_integer()
}

fn values(batch: &RecordBatch, kinds: &[Option<Kind>]) -> Result<Vec<Value>, Refusal> {
    if batch.num_columns() != kinds.len() {
        let reason = format!("{} values are bound to a statement with {} parameters", batch.num_columns(), kinds.len());
        return Err(Refusal::new("08P01", reason, "bind one value to each parameter"));
    }
    let each = (1..).zip(batch.columns().iter().zip(kinds));
    each.map(|(at, (column, told)): (usize, _)| {
        value(column, told.unwrap_or(Kind::Text)).ok_or_else(|| {
            let hint = "bind a value that its type holds, or CAST the parameter where it stands, as in $1::text";
            Refusal::new("22P02", format!("parameter {at} is a value that cannot be taken"), hint)
        })
    })
    .collect()
}

fn value(column: &ArrayRef, told: Kind) -> Option<Value> {
    let kind = match column.data_type() {
        DataType::Null => return Some(Value::Null(told)),
        DataType::Boolean => Kind::Bool,
        DataType::Utf8 | DataType::LargeUtf8 => Kind::Text,
        DataType::Date32 | DataType::Date64 => Kind::Day,
        DataType::Timestamp(..) => Kind::Moment,
        kind if kind.is_integer() => Kind::Whole,
        _ => Kind::Float,
    };
    if column.is_null(0) {
        return Some(Value::Null(kind));
    }
    let to = |kind: &DataType| {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(column, kind, &strict).ok().filter(|column| column.is_valid(0))
    };
    Some(match kind {
        Kind::Bool => Value::Bool(column.as_boolean().value(0)),
        Kind::Whole => Value::Whole(to(&DataType::Int64)?.as_primitive::<Int64Type>().value(0)),
        Kind::Float => Value::Float(to(&DataType::Float64)?.as_primitive::<Float64Type>().value(0)),
        Kind::Text => {
            let text = to(&DataType::Utf8)?;
            // PostgreSQL has no text with a zero in it either.
            Some(text.as_string::<i32>().value(0)).filter(|text| !text.contains('\0')).map(|text| Value::Text(text.to_owned()))?
        }
        Kind::Day => {
            let days = to(&DataType::Date32)?.as_primitive::<Date32Type>().value(0);
            Value::Day(moment(i128::from(days) * 86_400 * 1_000_000_000)?.date().to_string())
        }
        Kind::Moment => {
            // With a zone or without, it is counted in UTC.
            let DataType::Timestamp(unit, _) = column.data_type() else { return None };
            let one = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            let count = to(&DataType::Int64)?.as_primitive::<Int64Type>().value(0);
            Value::Moment(moment(i128::from(count) * one)?.to_string())
        }
    })
}

fn moment(nanoseconds: i128) -> Option<jiff::civil::DateTime> {
    Some(Timestamp::from_nanosecond(nanoseconds).ok()?.to_zoned(TimeZone::UTC).datetime())
}

/// The type that a parameter of this kind is told as.
pub(super) const fn type_of(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Whole => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Text => DataType::Utf8,
        Kind::Day => DataType::Date32,
        Kind::Moment => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, ListArray, NullArray, StringArray,
        TimestampMillisecondArray, UInt64Array, new_null_array,
    };
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use arrow_flight::utils::batches_to_flight_data;
    use futures::{TryStreamExt as _, stream};

    use super::*;

    fn messages(batches: &[RecordBatch]) -> Vec<FlightData> {
        batches_to_flight_data(&batches[0].schema(), batches.to_vec()).expect("encodes")
    }

    fn row(columns: Vec<ArrayRef>) -> RecordBatch {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        RecordBatch::try_from_iter_with_nullable(names.into_iter().zip(columns).map(|(name, column)| (name, column, true)))
            .expect("a row")
    }

    async fn told(batches: &[RecordBatch], kinds: &[Option<Kind>]) -> Result<Vec<Value>, Refusal> {
        read(messages(batches), kinds.to_vec()).await
    }

    #[tokio::test]
    async fn every_type_is_read_as_its_kind() {
        let batch = row(vec![
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(Int32Array::from(vec![-7])),
            Arc::new(Float64Array::from(vec![0.5])),
            Arc::new(Decimal128Array::from(vec![125]).with_precision_and_scale(5, 2).expect("fits")),
            Arc::new(StringArray::from(vec!["it's"])),
            Arc::new(Date32Array::from(vec![20_458])),
            Arc::new(TimestampMillisecondArray::from(vec![1_767_607_200_500]).with_timezone("+02:00")),
            Arc::new(NullArray::new(1)),
            new_null_array(&DataType::Int64, 1),
        ]);
        let read = told(&[batch], &[const { Some(Kind::Day) }; 9]).await.expect("values");
        let expected = [
            Value::Bool(true),
            Value::Whole(-7),
            Value::Float(0.5),
            Value::Float(1.25),
            Value::Text("it's".to_owned()),
            Value::Day("2026-01-05".to_owned()),
            Value::Moment("2026-01-05T10:00:00.5".to_owned()),
            Value::Null(Kind::Day),
            Value::Null(Kind::Whole),
        ];
        assert!(read == expected);
    }

    #[tokio::test]
    async fn what_cannot_be_bound_is_refused_and_not_repeated() {
        let one = || row(vec![Arc::new(Int32Array::from(vec![1]))]);
        let two = || row(vec![Arc::new(Int32Array::from(vec![1, 2]))]);
        let text = |text: &str| row(vec![Arc::new(StringArray::from(vec![text]))]);
        let big = row(vec![Arc::new(UInt64Array::from(vec![u64::MAX]))]);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        for (batches, code) in [
            (vec![two()], "0A000"),
            (vec![one(), one()], "0A000"),
            (vec![one().slice(0, 0)], "0A000"),
            (vec![row(vec![Arc::new(list)])], "0A000"),
            (vec![text("c4n4ry\0")], "22P02"),
            (vec![big], "22P02"),
        ] {
            let refused = told(&batches, &[None]).await.err().expect("refused");
            assert_eq!(refused.code, code);
            assert!(!refused.reason.contains("c4n4ry"), "{}", refused.reason);
        }
        assert_eq!(told(&[one()], &[None, None]).await.err().map(|refused| refused.code), Some("08P01"));
    }

    #[tokio::test]
    async fn a_compressed_batch_is_refused_before_its_length_is_believed() {
        let batch = row(vec![Arc::new(StringArray::from(vec!["some text ".repeat(1_000)]))]);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).expect("known");
        let encoder = FlightDataEncoderBuilder::new().with_options(options).build(stream::iter([Ok(batch)]));
        let messages: Vec<FlightData> = encoder.try_collect().await.expect("encodes");
        assert_eq!(read(messages, vec![None]).await.err().map(|refused| refused.code), Some("0A000"));
    }

    #[tokio::test]
    async fn messages_made_by_hand_are_refused_whatever_is_in_them() {
        let good = messages(&[row(vec![Arc::new(StringArray::from(vec!["some text"])), Arc::new(Int32Array::from(vec![1]))])]);
        assert!(read(good.clone(), vec![None, None]).await.is_ok());
        let mut cut = good.clone();
        cut[1].data_body = cut[1].data_body.slice(..8);
        assert!(read(cut, vec![None, None]).await.is_err(), "half a body");
        assert!(read(Vec::new(), vec![None]).await.is_err() && read(good[..1].to_vec(), vec![None]).await.is_err());
        assert!(read(vec![good[1].clone(), good[0].clone()], vec![None, None]).await.is_err(), "the other way round");
        // Every byte of the head and of the body, changed in turn: read, or refused, and never the end of the process.
        for (at, length) in [(0, good[0].data_header.len()), (1, good[1].data_header.len())] {
            for byte in 0..length {
                let mut changed = good.clone();
                let mut header = changed[at].data_header.to_vec();
                header[byte] ^= 0xff;
                changed[at].data_header = header.into();
                let _ = read(changed, vec![None, None]).await;
            }
        }
        for byte in 0..good[1].data_body.len() {
            let mut changed = good.clone();
            let mut body = changed[1].data_body.to_vec();
            body[byte] ^= 0xff;
            changed[1].data_body = body.into();
            let _ = read(changed, vec![None, None]).await;
        }
    }
}
