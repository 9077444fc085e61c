//! What businesses are billed for, counted exactly (P35): messages by day, business, portfolio, category, country and how far they came.
//!
//! Billing is a purpose of its own. It needs no consent to analytics and knows no person: of the one at the other end it takes the country of the
//! calling code, which the price depends on, and no pseudonym, so that nothing can be counted by person or joined with a person row. An event that
//! is late or refused for statistics is billed all the same.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Date32Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array};
use starling_schemas::rows::BILLING;

use crate::MinimizeError;

/// How far a message came: sent, delivered, read, replied.
pub(crate) const STAGES: usize = 4;

/// One message that came to a stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bill<'a> {
    pub(crate) day: i32,
    pub(crate) business: &'a str,
    pub(crate) portfolio: &'a str,
    pub(crate) category: u8,
    pub(crate) country: u16,
    /// From 0, in the order of [`STAGES`].
    pub(crate) stage: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    day: i32,
    business: u32,
    portfolio: u32,
    category: u8,
    country: u16,
}

/// The counts of one range.
#[derive(Default)]
pub(crate) struct Bills {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    counts: HashMap<Place, [u64; STAGES]>,
}

impl Bills {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.numbers.clear();
        self.names.clear();
        self.counts.clear();
    }

    /// Counts a message. Allocates for a business, portfolio or place that is new in the range, and for no other.
    pub(crate) fn add(&mut self, bill: Bill<'_>) {
        let place = Place {
            day: bill.day,
            business: self.number(bill.business),
            portfolio: self.number(bill.portfolio),
            category: bill.category,
            country: bill.country,
        };
        if let Some(count) = self.counts.entry(place).or_default().get_mut(bill.stage) {
            *count += 1;
        }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    /// The rows of [`BILLING`], in order of all that is not counted: the same for every replay.
    pub(crate) fn finish(&self) -> Result<RecordBatch, MinimizeError> {
        let name = |number: u32| usize::try_from(number).ok().and_then(|at| self.names.get(at)).map_or("", String::as_str);
        let mut rows: Vec<_> = self.counts.iter().map(|(place, counts)| (*place, *counts)).collect();
        rows.sort_unstable_by_key(|(p, _)| (p.day, name(p.business), name(p.portfolio), p.category, p.country));
        let stage = |at: usize| rows.iter().map(|(_, counts)| counts.get(at).copied().unwrap_or(0)).collect::<UInt64Array>();
        let portfolio = |p: &Place| Some(name(p.portfolio)).filter(|name| !name.is_empty());
        RecordBatch::try_new(
            Arc::clone(&BILLING),
            vec![
                Arc::new(Date32Array::from_iter_values(rows.iter().map(|(p, _)| p.day))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|(p, _)| name(p.business)))),
                Arc::new(rows.iter().map(|(p, _)| portfolio(p)).collect::<StringArray>()),
                Arc::new(rows.iter().map(|(p, _)| p.category).collect::<UInt8Array>()),
                Arc::new(rows.iter().map(|(p, _)| p.country).collect::<UInt16Array>()),
                Arc::new(stage(0)),
                Arc::new(stage(1)),
                Arc::new(stage(2)),
                Arc::new(stage(3)),
            ],
        )
        .map_err(|_| MinimizeError::Columns)
    }
}
