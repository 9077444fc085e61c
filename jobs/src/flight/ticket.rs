//! Tickets of answers and handles of prepared statements: what was asked, sealed for whom it was asked by.
//!
//! ```text
//!   32 bytes: hash under this process's key over purpose, the user as the users file has it, and the letter
//!   the letter: when it ends, a number of its own, what was asked
//! ```
//!
//! The client keeps them, so that nothing is kept here. A seal says that the letter is this process's and this user's, and lends
//! no right: what is in it goes through the gate as if it had been sent anew.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_query::{Kind, Value};
use starling_schemas::time::Entropy;

use crate::doors::Refusal;

/// Bytes of a sealed letter.
const MOST_BYTES: usize = 128 * 1024;

/// What a letter is for, and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The ticket of an answer.
    Ticket,
    /// The handle of a prepared statement.
    Handle,
}

impl Purpose {
    /// Milliseconds until it ends.
    const fn life_ms(self) -> i64 {
        match self {
            Self::Ticket => 600_000,
            Self::Handle => 12 * 3_600_000,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Ticket => 1,
            Self::Handle => 2,
        }
    }
}

/// What a ticket is redeemed for.
#[derive(Serialize, Deserialize)]
pub(super) enum What {
    /// The rows of a statement.
    Rows(Statement),
    /// What there is, as this command of the protocol asks for it.
    Listing(Vec<u8>),
}

/// A statement, and the values of its parameters.
#[derive(Serialize, Deserialize)]
pub(super) struct Statement {
    pub(super) sql: String,
    values: Vec<Bound>,
}

impl Statement {
    pub(super) fn new(sql: String, values: &[Value]) -> Self {
        Self { sql, values: values.iter().map(Bound::from).collect() }
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.values.iter().map(Value::from).collect()
    }
}

/// A value as it stands in a letter. It has no `Debug`, as [`Value`] has none.
#[derive(Serialize, Deserialize)]
enum Bound {
    Null(u8),
    Bool(bool),
    Whole(i64),
    /// The bits of a double: JSON has no infinity.
    Float(u64),
    Text(String),
    Day(String),
    Moment(String),
}

const KINDS: [Kind; 6] = [Kind::Bool, Kind::Whole, Kind::Float, Kind::Text, Kind::Day, Kind::Moment];

impl From<&Value> for Bound {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null(kind) => Self::Null((0..).zip(KINDS).find(|(_, known)| known == kind).map_or(0, |(at, _)| at)),
            Value::Bool(value) => Self::Bool(*value),
            Value::Whole(value) => Self::Whole(*value),
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Day(text) => Self::Day(text.clone()),
            Value::Moment(text) => Self::Moment(text.clone()),
        }
    }
}

impl From<&Bound> for Value {
    fn from(bound: &Bound) -> Self {
        match bound {
            Bound::Null(at) => Self::Null(KINDS.get(usize::from(*at)).copied().unwrap_or(Kind::Text)),
            Bound::Bool(value) => Self::Bool(*value),
            Bound::Whole(value) => Self::Whole(*value),
            Bound::Float(bits) => Self::Float(f64::from_bits(*bits)),
            Bound::Text(text) => Self::Text(text.clone()),
            Bound::Day(text) => Self::Day(text.clone()),
            Bound::Moment(text) => Self::Moment(text.clone()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Letter<T> {
    ends_ms: i64,
    /// So that two tickets for one statement are two.
    once: u64,
    what: T,
}

/// This process's key, and the numbers that make letters differ.
pub(super) struct Seal {
    key: [u8; 32],
    next: AtomicU64,
}

/// A letter that was opened: its seal, by which it is known, and what is in it.
pub(super) struct Opened<T> {
    pub(super) seal: blake3::Hash,
    pub(super) what: T,
}

impl Seal {
    /// # Errors
    /// When there is no randomness.
    pub(super) fn new(entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let mut key = [0; 32];
        entropy.fill(&mut key)?;
        Ok(Self { key, next: AtomicU64::new(0) })
    }

    fn hash(&self, purpose: Purpose, mark: &blake3::Hash, letter: &[u8]) -> blake3::Hash {
        // Purpose and mark have one length each, so that no letter can pass for a part of them.
        blake3::Hasher::new_keyed(&self.key).update(&[purpose.byte()]).update(mark.as_bytes()).update(letter).finalize()
    }

    /// Seals a letter for the user of this mark; gives when it ends, too.
    ///
    /// # Errors
    /// When it would be too long.
    pub(super) fn seal<T: Serialize>(
        &self,
        purpose: Purpose,
        mark: &blake3::Hash,
        what: &T,
        now_ms: i64,
    ) -> Result<(Vec<u8>, i64), Refusal> {
        let once = self.next.fetch_add(1, Ordering::Relaxed);
        let ends_ms = now_ms.saturating_add(purpose.life_ms());
        let letter = serde_json::to_vec(&Letter { ends_ms, once, what }).map_err(|_| super::status::unmade())?;
        if letter.len() > MOST_BYTES {
            return Err(Refusal::new("54000", "the statement and its values are too long", "shorten them"));
        }
        let mut sealed = self.hash(purpose, mark, &letter).as_bytes().to_vec();
        sealed.extend_from_slice(&letter);
        Ok((sealed, ends_ms))
    }

    /// Opens a letter that was sealed for this purpose and the user of this mark.
    ///
    /// # Errors
    /// In the same words whether it is another's, has ended, or is none: whoever tries learns nothing from it.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        purpose: Purpose,
        mark: &blake3::Hash,
        sealed: &[u8],
        now_ms: i64,
    ) -> Result<Opened<T>, Refusal> {
        let opened = || {
            let (seal, letter) = sealed.split_first_chunk::<32>()?;
            let seal = blake3::Hash::from_bytes(*seal);
            // Hashes are compared in a time that says nothing of how much was right.
            if seal != self.hash(purpose, mark, letter) {
                return None;
            }
            let letter: Letter<T> = serde_json::from_slice(letter).ok()?;
            (now_ms < letter.ends_ms).then_some(Opened { seal, what: letter.what })
        };
        opened().ok_or_else(|| match purpose {
            Purpose::Ticket => Refusal::new(
                "42501",
                "the ticket is not yours, has ended, or is not of this server",
                "ask for it anew with GetFlightInfo; it lives for ten minutes",
            ),
            Purpose::Handle => Refusal::new(
                "42501",
                "the prepared statement is not yours, has ended, or is not of this server",
                "prepare it anew; it lives for twelve hours",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn rows(sql: &str) -> What {
        What::Rows(Statement::new(sql.to_owned(), &[Value::Float(f64::NEG_INFINITY), Value::Null(Kind::Day)]))
    }

    #[test]
    fn a_letter_is_opened_by_whom_it_is_for_while_it_lives_and_by_nobody_else() {
        let (seal, ada, joe) = (Seal::new(&SystemEntropy).expect("random"), blake3::hash(b"ada"), blake3::hash(b"joe"));
        let (sealed, ends_ms) = seal.seal(Purpose::Ticket, &ada, &rows("SELECT 1"), 1_000).expect("seals");
        assert_eq!(ends_ms, 601_000);
        let open = |purpose, mark: &blake3::Hash, sealed: &[u8], now_ms| seal.open::<What>(purpose, mark, sealed, now_ms);
        let Ok(Opened { what: What::Rows(statement), .. }) = open(Purpose::Ticket, &ada, &sealed, ends_ms - 1) else {
            panic!("hers, to the last moment")
        };
        assert!(open(Purpose::Ticket, &ada, &sealed, i64::MIN).is_ok(), "whoever asks for no time hears whose it is");
        let values = statement.values();
        assert!(statement.sql == "SELECT 1" && values == [Value::Float(f64::NEG_INFINITY), Value::Null(Kind::Day)]);
        let other = Seal::new(&SystemEntropy).expect("random");
        let refusals = [
            open(Purpose::Ticket, &joe, &sealed, 1_000),
            open(Purpose::Ticket, &ada, &sealed, ends_ms),
            open(Purpose::Handle, &ada, &sealed, 1_000),
            open(Purpose::Ticket, &ada, &sealed[..40], 1_000),
            open(Purpose::Ticket, &ada, &[], 1_000),
            other.open::<What>(Purpose::Ticket, &ada, &sealed, 1_000),
        ];
        for refused in refusals {
            assert_eq!(refused.err().map(|refusal| refusal.code), Some("42501"));
        }
        // No byte of it can be changed.
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(Purpose::Ticket, &ada, &changed, 1_000).is_err(), "{at}");
        }
    }

    #[test]
    fn two_tickets_for_one_statement_are_two_and_one_that_is_too_long_is_none() {
        let (seal, ada) = (Seal::new(&SystemEntropy).expect("random"), blake3::hash(b"ada"));
        let sealed = || seal.seal(Purpose::Ticket, &ada, &rows("SELECT 1"), 1_000).expect("seals").0;
        assert_ne!(sealed(), sealed());
        let long = seal.seal(Purpose::Ticket, &ada, &rows(&"x".repeat(MOST_BYTES)), 1_000);
        assert_eq!(long.err().map(|refusal| refusal.code), Some("54000"));
    }
}
