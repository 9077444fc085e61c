//! The Arrow schemas rooms hand to each other. At most one person column in each (I5).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Bytes of a pseudonym in a column.
pub const PSEUDONYM_BYTES: i32 = 16;

/// Bytes of a pair's token in a column.
pub const TOKEN_BYTES: i32 = 8;

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
        column("version", DataType::UInt16, false, "ClientVersion: major × 256 + minor of the client, 0 for unknown (P19)"),
        column("detail", DataType::UInt8, false, "Detail: a number of the closed list that the activity chooses, 0 for none"),
        column("account", DataType::UInt8, false, "AccountAge"),
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
        column("version", DataType::UInt16, false, "ClientVersion: major × 256 + minor of the client, 0 for unknown (P19)"),
        column("detail", DataType::UInt8, false, "Detail: a number of the closed list that the activity chooses, 0 for none"),
        column("account", DataType::UInt8, false, "AccountAge"),
        column("events", DataType::UInt32, false, "how many, saturating"),
        column("seconds", DataType::UInt32, false, "summed call duration, saturating"),
    ]))
});

/// Who was there in a window of several days, and nothing else (P14): one row a person, sorted.
pub static PRESENCE_ROWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let person =
        column("person", DataType::FixedSizeBinary(PSEUDONYM_BYTES), false, "pseudonym under the window's own analytics key");
    Arc::new(Schema::new(vec![person]))
});

/// What businesses are billed for (P35): exact counts, and nobody in them. Sorted by all columns that are not counts.
pub static BILLING: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        column("day", DataType::Date32, false, "UTC day of the event"),
        column("business", DataType::Utf8, false, "business identifier; not a person"),
        column("portfolio", DataType::Utf8, true, "portfolio of the business"),
        column("category", DataType::UInt8, false, "Category of the message's template"),
        column(
            "country",
            DataType::UInt16,
            false,
            "ISO 3166-1 letters packed big-endian, from the calling code at the other end",
        ),
        column("sent", DataType::UInt64, false, "messages that were sent"),
        column("delivered", DataType::UInt64, false, "messages that were delivered"),
        column("read", DataType::UInt64, false, "messages that were read"),
        column("replied", DataType::UInt64, false, "messages that were replied to"),
    ]))
});

/// The first column of `wanted` that `given` lacks, or has with another type, place or nullability; also when there is one too many. Files
/// of another version are refused by it.
#[must_use]
pub fn first_difference(wanted: &'static Schema, given: &Schema) -> Option<&'static str> {
    let same = |(wanted, given): (&Field, &Field)| {
        wanted.name() == given.name() && wanted.data_type() == given.data_type() && (wanted.is_nullable() || !given.is_nullable())
    };
    let mut others = given.fields().iter();
    let missing = wanted.fields().iter().find(|field| !others.next().is_some_and(|other| same((field, other))));
    let missing = missing.or_else(|| others.next().and(wanted.fields().last()));
    missing.map(|field| field.name().as_str())
}

/// Integrity signals. `person` is the only person of a row: the sender of a message, the one reported or blocked, or the one a business
/// wrote to. A one-to-one message's recipient is not here at all: of him there is a token that says who wrote to whom only to who has the pair key
/// of the day and both numbers. Outside memory tokens are covered: see [`SignalBatch::cover`](crate::signals::SignalBatch::cover). Who created a group is
/// in a row without the group, whose time is the start of its hour.
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
        column(
            "group",
            DataType::FixedSizeBinary(PSEUDONYM_BYTES),
            true,
            "keyed form of a group; of a contact, of the cohort its sender was registered in",
        ),
        column("business", DataType::Utf8, true, "business identifier; not a person"),
        column("portfolio", DataType::Utf8, true, "portfolio of the business"),
        column("category", DataType::UInt8, false, "Category"),
        column("tier", DataType::UInt8, false, "Tier"),
        column("conversation", DataType::UInt8, false, "Conversation, or 0"),
        column("thread_is_new", DataType::Boolean, false, "first message between the two, where the edge knows"),
        column(
            "count",
            DataType::UInt32,
            false,
            "members added; of a report, 0 where nothing had been delivered before, else 1; of anything else 1",
        ),
        column(
            "strangers",
            DataType::UInt32,
            false,
            "how many of them the adder never wrote with; of a block or report of a business, a report of a group, and a group made, 1 where the account it comes from is of its first week",
        ),
        column("account_age_s", DataType::UInt64, true, "seconds since the actor's account was registered"),
        column(
            "pair",
            DataType::FixedSizeBinary(TOKEN_BYTES),
            true,
            "token of sender and recipient under the day's pair key; of an answer, of the direction it answers",
        ),
        column("pair_before", DataType::FixedSizeBinary(TOKEN_BYTES), true, "the same under the pair key of the day before"),
        column(
            "to_new_account",
            DataType::Boolean,
            true,
            "of a contact, whether the account written to is of its first week, if known",
        ),
        column("list", DataType::Utf8, true, "of a group that is listed, the label of the operator's list"),
        column("listed", DataType::UInt8, true, "ProfileField that is on it"),
        column(
            "voice",
            DataType::UInt16,
            true,
            "of a block or report of a business and a report of a group, Voice: bucket of the cohort that its account was registered in, and how often it objects",
        ),
        column(
            "template",
            DataType::Utf8,
            true,
            "of a message that a business sent, its template's name; of a block or report of a business, that of the message received last",
        ),
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
        let of_nobody = BILLING
            .fields()
            .iter()
            .all(|f| !f.name().contains("person") && !matches!(f.data_type(), DataType::FixedSizeBinary(_)));
        assert!(of_nobody, "billing knows nobody: {:?}", *BILLING);
    }

    #[test]
    fn a_schema_of_another_version_is_told_by_the_first_column_that_differs() {
        let of = |change: &dyn Fn(&mut Vec<Field>)| {
            let mut fields: Vec<Field> =
                PERSON_ROWS.fields().iter().map(|f| f.as_ref().clone().with_metadata(HashMap::new())).collect();
            change(&mut fields);
            first_difference(&PERSON_ROWS, &Schema::new(fields))
        };
        assert_eq!(of(&|_| {}), None, "comments may differ");
        let before: &dyn Fn(&mut Vec<Field>) = &|f| f.retain(|f| !["version", "detail", "account"].contains(&f.name().as_str()));
        assert_eq!(of(before), Some("version"));
        assert_eq!(of(&|f| drop(f.pop())), Some("seconds"));
        assert_eq!(of(&|f| f[4] = Field::new("version", DataType::UInt8, false)), Some("version"));
        assert_eq!(of(&|f| f[4] = Field::new("version", DataType::UInt16, true)), Some("version"));
        assert_eq!(of(&|f| f.swap(2, 3)), Some("platform"));
        assert_eq!(of(&|f| f.push(Field::new("more", DataType::UInt8, false))), Some("seconds"));
    }

    #[test]
    fn every_column_is_explained() {
        for schema in [&*CLEAN_ROWS, &*PERSON_ROWS, &*SIGNALS, &*BILLING] {
            assert!(schema.fields().iter().all(|f| f.metadata().get(COMMENT).is_some_and(|c| !c.is_empty())));
        }
    }
}
