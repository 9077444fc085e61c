//! The Arrow schemas rooms hand to each other. At most one person column in each (I5).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Bytes of a pseudonym in a column.
pub const PSEUDONYM_BYTES: i32 = 16;

/// Key of a field's metadata under which its comment stands.
pub const COMMENT: &str = "comment";

/// A column with its comment.
#[must_use]
pub fn column(name: &str, data_type: DataType, nullable: bool, comment: &str) -> Field {
    Field::new(name, data_type, nullable).with_metadata(HashMap::from([(COMMENT.to_owned(), comment.to_owned())]))
}

/// One accepted event, without who else was there, and to the hour.
pub static CLEAN_ROWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("person", DataType::FixedSizeBinary(PSEUDONYM_BYTES), false, "pseudonym under the day's analytics key"),
        column("day", DataType::Date32, false, "UTC day of the event"),
        column("hour", DataType::UInt8, false, "UTC hour of the event, 0-23"),
        column("country", DataType::UInt16, false, "ISO 3166-1 letters packed big-endian, from the calling code"),
        column("platform", DataType::UInt8, false, "PlatformCode"),
        column("activity", DataType::UInt8, false, "Activity"),
        column("seconds", DataType::UInt32, false, "duration of a call, else 0"),
    ]))
});

/// One (person, day, coarse dimensions) with small counters: the only pseudonymous state of analytics (design 3.3). Sorted by all key columns.
pub static PERSON_ROWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("person", DataType::FixedSizeBinary(PSEUDONYM_BYTES), false, "pseudonym under the day's analytics key"),
        column("country", DataType::UInt16, false, "ISO 3166-1 letters packed big-endian"),
        column("platform", DataType::UInt8, false, "PlatformCode"),
        column("activity", DataType::UInt8, false, "Activity"),
        column("events", DataType::UInt32, false, "how many, saturating"),
        column("seconds", DataType::UInt32, false, "summed call duration, saturating"),
    ]))
});

/// Integrity signals. `person` is the only person of a row: the sender of a message, the one reported or blocked, or the one a business
/// wrote to. A one-to-one message's recipient is not here at all.
pub static SIGNALS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("kind", DataType::UInt8, false, "SignalKind"),
        column("time", DataType::Timestamp(TimeUnit::Millisecond, None), false, "event time, UTC"),
        column("epoch", DataType::Date32, false, "day of the integrity key the pseudonyms are under"),
        column(
            "overlap",
            DataType::Boolean,
            false,
            "a second copy under the day before's key, for windows that span midnight; counts for sender rules only",
        ),
        column("person", DataType::FixedSizeBinary(PSEUDONYM_BYTES), true, "pseudonym under the day's integrity key"),
        column("group", DataType::FixedSizeBinary(PSEUDONYM_BYTES), true, "keyed form of a group"),
        column("business", DataType::Utf8, true, "business identifier; not a person"),
        column("portfolio", DataType::Utf8, true, "portfolio of the business"),
        column("category", DataType::UInt8, false, "Category"),
        column("tier", DataType::UInt8, false, "Tier"),
        column("conversation", DataType::UInt8, false, "Conversation, or 0"),
        column("thread_is_new", DataType::Boolean, false, "first message between the two, where the edge knows"),
        column("count", DataType::UInt32, false, "members added, else 1"),
        column("strangers", DataType::UInt32, false, "how many of them the adder never wrote with"),
        column("account_age_s", DataType::UInt64, true, "seconds since the actor's account was registered"),
    ]))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i5_no_row_has_room_for_two_people() {
        for schema in [&*CLEAN_ROWS, &*PERSON_ROWS, &*SIGNALS] {
            let people = schema.fields().iter().filter(|f| f.name().contains("person") || f.name().contains("recipient")).count();
            assert_eq!(people, 1, "{schema:?}");
        }
    }

    #[test]
    fn every_column_is_explained() {
        for schema in [&*CLEAN_ROWS, &*PERSON_ROWS, &*SIGNALS] {
            assert!(schema.fields().iter().all(|f| f.metadata().get(COMMENT).is_some_and(|c| !c.is_empty())));
        }
    }
}
