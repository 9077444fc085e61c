//! How alerts name somebody whom a truth knows. Only a simulation, or traffic that somebody labelled, has one.

use std::fmt::Write as _;

use starling_minimize::{keyed_group, keyed_subject};
use starling_schemas::ids::{EpochId, Purpose};

/// Somebody as alerts and signals name them.
pub struct Subject {
    /// `person`, `business` or `group`.
    pub kind: &'static str,
    /// As an alert has it.
    pub value: String,
    /// As a signal has it; a business has no keyed form.
    pub form: Option<[u8; 16]>,
}

/// A `sender`, `business` or `group` of a truth under the integrity key of `epoch`. `None`: it is no such kind, no E.164 number, or no identifier
/// in hex.
#[must_use]
pub fn subject(kind: &str, subject: &str, key: &[u8; 32], epoch: EpochId) -> Option<Subject> {
    let (kind, form) = match kind {
        "business" => return Some(Subject { kind: "business", value: subject.to_owned(), form: None }),
        "sender" => ("person", keyed_subject(subject, key, Purpose::Integrity, epoch)?),
        "group" => ("group", keyed_group(&unhex(subject)?, key, epoch)),
        _ => return None,
    };
    Some(Subject { kind, value: hex(&form), form: Some(form) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
