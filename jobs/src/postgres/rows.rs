//! Columns and rows on the wire: which of PostgreSQL's types a column is, and its values as text or in binary, as the client asks.
//!
//! | here | there |
//! |---|---|
//! | Boolean | `bool` |
//! | Int8, Int16, UInt8; Int32, UInt16; Int64, UInt32, UInt64 | `int2`; `int4`; `int8` (22003 where it does not fit) |
//! | Float32, Float64 | `float4`, `float8` |
//! | Decimal | `numeric`, as text only |
//! | Date32, Date64 | `date` |
//! | Timestamp without, with a zone | `timestamp`, `timestamptz`, in microseconds |
//! | text, and everything else | `text` |

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
};
use bytes::{BufMut as _, BytesMut};
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};

use crate::doors::Refusal;

/// Days from 1970-01-01 to 2000-01-01, from which PostgreSQL counts.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = 86_400_000_000;

/// A type of PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Date,
    Timestamp,
    Timestamptz,
    Text,
}

impl Kind {
    fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::Int2,
            DataType::Int32 | DataType::UInt16 => Self::Int4,
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Self::Int8,
            DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Decimal128(..) | DataType::Decimal256(..) => Self::Numeric,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::Timestamptz,
            _ => Self::Text,
        }
    }

    /// Object identifier and width, as in `pg_type`.
    fn identity(self) -> (u32, i16) {
        match self {
            Self::Bool => (16, 1),
            Self::Int2 => (21, 2),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Float4 => (700, 4),
            Self::Float8 => (701, 8),
            Self::Numeric => (1700, -1),
            Self::Date => (1082, 4),
            Self::Timestamp => (1114, 8),
            Self::Timestamptz => (1184, 8),
            Self::Text => (25, -1),
        }
    }

    /// The one Arrow type in which its values are read.
    fn canonical(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::Numeric | Self::Text => DataType::Utf8,
        }
    }
}

/// Which columns are asked for in binary: none, all, or each by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Formats(Vec<i16>);

impl Formats {
    /// As Bind tells them. Codes beyond 0 and 1 are none.
    pub(super) fn of(codes: Vec<i16>) -> Option<Self> {
        codes.iter().all(|code| (0..=1).contains(code)).then_some(Self(codes))
    }

    /// Whether they can be those of so many columns.
    fn fit(&self, columns: usize) -> bool {
        self.0.len() <= 1 || self.0.len() == columns
    }

    fn is_binary(&self, column: usize) -> bool {
        match self.0.as_slice() {
            [] => false,
            [one] => *one == 1,
            each => each.get(column) == Some(&1),
        }
    }
}

/// The columns of an answer as the client is told of them.
///
/// # Errors
/// Formats for another number of columns; `numeric` in binary.
pub(super) fn description(schema: &Schema, formats: &Formats) -> Result<RowDescription, Refusal> {
    if !formats.fit(schema.fields().len()) {
        let reason = format!("formats are given for another number of columns than {}", schema.fields().len());
        return Err(Refusal::new("08P01", reason, "this is a fault of the client's driver"));
    }
    let field = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| {
        let kind = Kind::of(field.data_type());
        let binary = formats.is_binary(at);
        if binary && kind == Kind::Numeric {
            let hint = "CAST it to DOUBLE, or ask for text";
            return Err(Refusal::new("0A000", format!("column {} is a decimal, which is sent as text only", at + 1), hint));
        }
        let (oid, width) = kind.identity();
        Ok(FieldDescription::new(field.name().clone(), 0, 0, oid, width, -1, i16::from(binary)))
    };
    Ok(RowDescription::new(schema.fields().iter().enumerate().map(field).collect::<Result<_, _>>()?))
}

/// Whether two answers are read in the same way. A computed column without a name is called by what computes it, the values of parameters among
/// it, so names may differ.
pub(super) fn same(one: &Schema, other: &Schema) -> bool {
    let shape = |schema: &Schema| -> Vec<Kind> { schema.fields().iter().map(|field| Kind::of(field.data_type())).collect() };
    shape(one) == shape(other)
}

/// Rows of an answer, one after the other.
pub(super) struct Rows {
    batches: std::vec::IntoIter<RecordBatch>,
    formats: Formats,
    /// The columns being read, each with its text where it is asked for as text and has one of its own.
    now: Vec<Column>,
    at: usize,
    of: usize,
}

struct Column {
    kind: Kind,
    values: ArrayRef,
    text: Option<ArrayRef>,
}

impl Rows {
    pub(super) fn new(batches: Vec<RecordBatch>, formats: Formats) -> Self {
        Self { batches: batches.into_iter(), formats, now: Vec::new(), at: 0, of: 0 }
    }

    /// Whether there is another row.
    pub(super) fn more(&self) -> bool {
        self.at < self.of || self.batches.as_slice().iter().any(|batch| batch.num_rows() > 0)
    }

    /// The next row.
    ///
    /// # Errors
    /// 22003 for a number that does not fit its type.
    pub(super) fn next(&mut self) -> Result<Option<DataRow>, Refusal> {
        while self.at == self.of {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            (self.at, self.of) = (0, batch.num_rows());
            let columns = batch.columns().iter().enumerate();
            self.now = columns.map(|(at, column)| read(column, self.formats.is_binary(at))).collect::<Result<_, _>>()?;
        }
        let mut row = BytesMut::new();
        for (at, column) in self.now.iter().enumerate() {
            let start = row.len();
            row.put_i32(-1);
            if !column.values.is_null(self.at) {
                if self.formats.is_binary(at) {
                    binary(column, self.at, &mut row)
                } else {
                    text(column, self.at, &mut row)
                }
                let length = i32::try_from(row.len() - start - 4).unwrap_or(i32::MAX);
                row[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        self.at += 1;
        Ok(Some(DataRow::new(row, i16::try_from(self.now.len()).unwrap_or(i16::MAX))))
    }
}

fn read(column: &ArrayRef, binary: bool) -> Result<Column, Refusal> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let to = |kind: &DataType| {
        // What Arrow says of it would quote the value.
        cast_with_options(column, kind, &options).map_err(|_| {
            Refusal::new("22003", "a value does not fit its type on the wire", "CAST it to DOUBLE, to BIGINT or to text")
        })
    };
    let kind = Kind::of(column.data_type());
    let dated = matches!(kind, Kind::Date | Kind::Timestamp | Kind::Timestamptz);
    let values = to(&kind.canonical())?;
    let text = if dated && !binary {
        let text = cast_with_options(&values, &DataType::Utf8, &options);
        Some(text.map_err(|_| Refusal::new("22008", "a day or a moment is out of range", "restrict it with WHERE"))?)
    } else {
        None
    };
    Ok(Column { kind, values, text })
}

fn text(column: &Column, at: usize, out: &mut BytesMut) {
    let values = &column.values;
    let text = match column.kind {
        Kind::Bool => if values.as_boolean().value(at) { "t" } else { "f" }.to_owned(),
        Kind::Int2 => values.as_primitive::<Int16Type>().value(at).to_string(),
        Kind::Int4 => values.as_primitive::<Int32Type>().value(at).to_string(),
        Kind::Int8 => values.as_primitive::<Int64Type>().value(at).to_string(),
        Kind::Float4 => number(format!("{:?}", values.as_primitive::<Float32Type>().value(at))),
        Kind::Float8 => number(format!("{:?}", values.as_primitive::<Float64Type>().value(at))),
        Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
            // ISO 8601 with the space and the zone that PostgreSQL writes.
            let text = column.text.as_ref().map_or("", |text| text.as_string::<i32>().value(at));
            text.replacen('T', " ", 1).replacen('Z', "+00", 1).replacen("+00:00", "+00", 1)
        }
        Kind::Numeric | Kind::Text => return out.put_slice(values.as_string::<i32>().value(at).as_bytes()),
    };
    out.put_slice(text.as_bytes());
}

/// Rust's shortest text that reads back as the same number, in PostgreSQL's words.
fn number(text: String) -> String {
    match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned),
    }
}

fn binary(column: &Column, at: usize, out: &mut BytesMut) {
    let values = &column.values;
    match column.kind {
        Kind::Bool => out.put_u8(u8::from(values.as_boolean().value(at))),
        Kind::Int2 => out.put_i16(values.as_primitive::<Int16Type>().value(at)),
        Kind::Int4 => out.put_i32(values.as_primitive::<Int32Type>().value(at)),
        Kind::Int8 => out.put_i64(values.as_primitive::<Int64Type>().value(at)),
        Kind::Float4 => out.put_f32(values.as_primitive::<Float32Type>().value(at)),
        Kind::Float8 => out.put_f64(values.as_primitive::<Float64Type>().value(at)),
        // The ends of the range are PostgreSQL's infinities, which is what is beyond it.
        Kind::Date => out.put_i32(values.as_primitive::<Date32Type>().value(at).saturating_sub(DAYS)),
        Kind::Timestamp | Kind::Timestamptz => {
            let epoch = i64::from(DAYS) * MICROSECONDS;
            out.put_i64(values.as_primitive::<TimestampMicrosecondType>().value(at).saturating_sub(epoch));
        }
        Kind::Numeric | Kind::Text => out.put_slice(values.as_string::<i32>().value(at).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int64Array, NullArray, StringArray,
        TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::Field;

    use super::*;

    fn rows(columns: Vec<ArrayRef>, format: i16) -> Result<Vec<Vec<Option<Vec<u8>>>>, Refusal> {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("fits");
        let mut rows = Rows::new(vec![batch], Formats(vec![format]));
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let (mut bytes, mut cells) = (&row.data[..], Vec::new());
            while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*length)).ok();
                let (cell, rest) = rest.split_at(length.unwrap_or(0));
                cells.push(length.map(|_| cell.to_vec()));
                bytes = rest;
            }
            out.push(cells);
        }
        Ok(out)
    }

    fn columns() -> Vec<ArrayRef> {
        vec![
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Int8Array::from(vec![Some(-3), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            Arc::new(UInt64Array::from(vec![Some(7), None])),
            Arc::new(Float64Array::from(vec![Some(0.1), None])),
            Arc::new(Date32Array::from(vec![Some(20_458), None])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(1_767_607_200_500), None])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(1_767_607_200_000), None]).with_timezone("+00:00")),
            Arc::new(StringArray::from(vec![Some("é"), None])),
            Arc::new(NullArray::new(2)),
        ]
    }

    #[test]
    fn every_type_is_written_as_postgresql_writes_it() {
        let text = rows(columns(), 0).expect("fits");
        let shown: Vec<String> =
            text[0].iter().map(|c| c.as_ref().map_or("NULL".into(), |c| String::from_utf8_lossy(c).into_owned())).collect();
        assert_eq!(
            shown,
            [
                "t",
                "-3",
                "-9223372036854775808",
                "7",
                "0.1",
                "2026-01-05",
                "2026-01-05 10:00:00.500",
                "2026-01-05 10:00:00+00",
                "é",
                "NULL"
            ]
        );
        assert!(text[1].iter().all(Option::is_none));
        let binary = rows(columns(), 1).expect("fits");
        let moment = (1_767_607_200_500_i64 - 946_684_800_000) * 1000;
        let expected: [&[u8]; 9] = [
            &[1],
            &(-3_i16).to_be_bytes(),
            &i64::MIN.to_be_bytes(),
            &7_i64.to_be_bytes(),
            &0.1_f64.to_be_bytes(),
            &(20_458_i32 - 10_957).to_be_bytes(),
            &moment.to_be_bytes(),
            &(moment - 500_000).to_be_bytes(),
            "é".as_bytes(),
        ];
        for (cell, expected) in binary[0].iter().zip(expected) {
            assert_eq!(cell.as_deref(), Some(expected));
        }
        assert!(binary[1].iter().all(Option::is_none));
    }

    #[test]
    fn numbers_that_are_none_and_numbers_that_do_not_fit() {
        let odd = Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, 1e300, -0.0]);
        let text = rows(vec![Arc::new(odd)], 0).expect("fits");
        let shown: Vec<_> = text.iter().map(|row| String::from_utf8(row[0].clone().expect("there")).expect("text")).collect();
        assert_eq!(shown, ["NaN", "Infinity", "-Infinity", "1", "1e300", "-0"]);
        let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        let error = rows(vec![large], 0).expect_err("too large");
        assert!(error.code == "22003" && !error.reason.contains("18446744073709551615"));
        let decimal = Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).expect("fits");
        let decimal: ArrayRef = Arc::new(decimal);
        assert_eq!(rows(vec![Arc::clone(&decimal)], 0).expect("text")[0][0].as_deref(), Some(&b"123.45"[..]));
        let schema = Schema::new(vec![Field::new("c", decimal.data_type().clone(), true)]);
        assert_eq!(description(&schema, &Formats(vec![1])).expect_err("text only").code, "0A000");
        assert_eq!(description(&schema, &Formats(vec![0, 0])).expect_err("two of one").code, "08P01");
    }
}
