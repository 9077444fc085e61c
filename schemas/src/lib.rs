//! # schemas: what may exist here
//!
//! Everything the rooms say to each other is written down in this crate, and nothing else of ours stands under it.
//!
//! ```text
//!  event.proto ──build.rs──► FIELDS (number, wire type, class, purposes, retention)     the decoder is written over these
//!                       └──► event::*   message types, for producers, traces and tests  `minimize` does not use them
//!  ids      PartitionId · Offset · Sequence · Generation · EpochId · Purpose · Pseudonym<P>
//!  business what a business says of itself
//!  chosen   which alerts a false-discovery level chooses, and among how many
//!  codes    Country · PlatformCode · Activity · Detail · Refusal …  closed lists: a label outside them cannot be written
//!  rows     Arrow schemas of clean rows, person rows and integrity signals
//!  voice    whose a block or report is, as far as a row may say
//!  signals  how integrity signals travel, and how they are routed by subject
//!  metrics  the released statistics as reviewed text (`metrics/*.toml`)
//!  cost     (ρ, δ) in integers, limits of a block, allotments of teams
//! ```
//!
//! **Comes in:** nothing. **Goes out:** types and constants.
//!
//! **Invariants kept here.** I4 and P1/P3/P5 begin with what has no name: no content, place or address-book field exists, and
//! `build.rs` refuses one; a field without class, purposes and retention fails the build. I5: no row schema has two person columns,
//! and a test says so.
//!
//! **What can go wrong.** A producer may send fields this schema does not know: they are skipped unread. Two versions of this schema may
//! run at once: numbers are never reused, and enum values outside the list become `unspecified`, never an error.

pub mod business;
pub mod chosen;
pub mod codes;
pub mod cost;
pub mod ids;
pub mod metrics;
pub mod questions;
pub mod rows;
pub mod signals;
pub mod time;
pub mod voice;

/// The protobuf messages of `event.proto`, for producers, trace files and tests.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod event {
    include!(concat!(env!("OUT_DIR"), "/starling.v1.rs"));
}

/// What `event.proto` says of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSpec {
    /// Message the field stands in, such as `Event`.
    pub message: &'static str,
    /// Field name.
    pub field: &'static str,
    /// Protobuf field number.
    pub number: u32,
    /// Protobuf wire type: 0 varint, 1 fixed 64, 2 length-delimited, 5 fixed 32.
    pub wire_type: u8,
    /// Data class, such as `phone_number`.
    pub class: &'static str,
    /// Purposes it may be used for.
    pub purposes: &'static [&'static str],
    /// Longest life and form, such as `not_kept`.
    pub retention: &'static str,
}

/// Field numbers and handling, generated from `event.proto`.
pub mod fields {
    use super::FieldSpec;
    include!(concat!(env!("OUT_DIR"), "/fields.rs"));
}

#[cfg(test)]
mod tests {
    use super::fields::FIELDS;

    #[test]
    fn p31_only_a_phone_number_field_can_hold_a_number_and_none_is_kept_in_clear() {
        let numbers: Vec<_> = FIELDS.iter().filter(|f| f.class == "phone_number").collect();
        assert_eq!(numbers.len(), 5, "a new phone number field needs a new reading of this test: {numbers:?}");
        for field in numbers {
            assert_eq!(field.retention, "keyed_epoch", "{}.{}", field.message, field.field);
        }
    }

    #[test]
    fn p4_the_network_address_is_never_kept() {
        assert!(FIELDS.iter().filter(|f| f.class == "network_address").all(|f| f.retention == "not_kept"));
    }

    #[test]
    fn p36_no_field_has_a_purpose_outside_the_closed_list() {
        let known = ["gate", "analytics", "integrity", "billing", "directory"];
        assert!(FIELDS.iter().flat_map(|f| f.purposes).all(|p| known.contains(p)));
    }

    #[test]
    fn numbers_are_unique_in_a_message() {
        let mut seen = std::collections::HashSet::new();
        assert!(FIELDS.iter().all(|f| seen.insert((f.message, f.number))));
    }
}
