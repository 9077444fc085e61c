//! Who wrote to whom, as tokens: what the reply test of `integrity` is fed with, and why nobody else can use it.
//!
//! ```text
//!  a → b, one to one ──┬─ pair key of the day         ──┐  one hash of {a, b}: 8 bytes for a→b, 8 bytes for b→a
//!                      ├─ pair key of the day before  ──┤
//!                      └─ integrity key of the day before: the sender once more
//!                                                       ▼ when the range ends, in the events' order
//!      Contact, overlap   a under the day before's key   a→b      once a sender, for records to go on over midnight
//!      Contact            a under the day's key          a→b      both with a's registration cohort under the same key, and whether b's account is new
//!      Answered           nobody                         b→a      what b's contact would have said
//! ```
//!
//! **Which messages.** Those that say they are between two people, and name as recipient a number that is not the sender's. Groups, channels and
//! businesses have no pair. Of a sender whose account's age is unknown there is one all the same: the test has a segment for them. A message whose
//! pair key, or the day before's, has been destroyed gives none: it is two days late.
//!
//! **What is left out**: a contact that repeats its sender's last one in the range, because it would change nothing for who reads the rows one after the
//! other. So a conversation of a range leaves two contacts, however long it is, and an answer of each message.
//!
//! # Privacy
//! Recipients are hashed together with senders, and never alone; nothing here has a recipient's pseudonym (I5, P2). An answer has neither person, age nor
//! anything else of its message but the time. It stands beside the contact of the same message, though, so tokens must be covered where rows are
//! written down: see [`SignalBatch`](starling_schemas::signals::SignalBatch). The two directions are two halves of a hash: who lacks the key cannot tell
//! that they belong together.
//!
//! *Which rows there are* is read by who has no key, too. So it depends on no message but the sender's own: each one has its answer, whatever was said
//! before, and of contacts and copies are left out those that repeat what this sender did in the range. Were an answer left out that was given
//! already, then a's second message to b had one exactly if b had written a new contact to a in between, and a would be joined with one of the few who
//! wrote in between, with no token uncovered (`p2_which_rows_there_are_depends_on_no_other_senders_recipients`). What stays to be seen: that a message
//! went to the same recipient as its sender's last one in the range, and not to whom.
//!
//! *Whether the account written to is of its first week* is a bit of somebody whom no row names. Where only one account is new, though, its row tells who
//! knows that. *A cohort* says of senders that they were registered together, to who reads rows of one day; its copy ties its days as the senders' copies do. It is there
//! for accounts of their first month alone, and where the platform says it; its keyed form is no group's.
//!
//! # Cost
//! Two hashes a message for both tokens of both directions, one for the sender, all of them side by side with others (`lanes.rs`). One row a message,
//! two where its sender's recipient is another than before, three for a sender's first of a range.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use starling_schemas::codes::SignalKind;
use starling_schemas::ids::{EpochId, Integrity, Pair};

use crate::MinimizeError;
use crate::decode::RawGroup;
use crate::keys::{KeySource, OpenKeys};
use crate::output::{PairRow, Person, SignalColumns};
use crate::phone::Phone;

/// A pair's tokens under the day's key and the day before's.
pub(crate) type Tokens = [[u8; 8]; 2];

/// A one-to-one message of a range, until the range ends.
struct Message {
    time_ms: i64,
    account_age_s: Option<u64>,
    /// The row that has its sender.
    row: usize,
    /// Place of its first token; the day before's is the next one.
    place: usize,
    /// Place of the sender under the day before's key, if there is one.
    before: Option<usize>,
    /// Whether the sender's number is the lower one.
    is_upward: bool,
    to_new_account: Option<bool>,
    /// Place of its sender's cohort, if there is one.
    cohort: Option<usize>,
}

/// A registration cohort under the day's key and the day before's, where there are such.
type Cohort = [Option<[u8; 16]>; 2];

/// What is told of a message between two people, beside its tokens.
pub(crate) struct Told<'a> {
    pub(crate) sender: &'a Phone,
    pub(crate) recipient: &'a Phone,
    pub(crate) time_ms: i64,
    pub(crate) account_age_s: Option<u64>,
    /// Empty for none.
    pub(crate) cohort: RawGroup<'a>,
    pub(crate) to_new_account: Option<bool>,
    /// The row of its sender's signal.
    pub(crate) row: usize,
}

/// The pairs of one range.
pub(crate) struct Pairs {
    keys: OpenKeys<Pair>,
    /// Not people: both directions of a pair under one key.
    tokens: Person<Pair>,
    senders: OpenKeys<Integrity>,
    /// Senders under the day before's key.
    before: Person<Integrity>,
    messages: Vec<Message>,
    cohorts: Vec<Cohort>,
    contacts: Contacts,
}

/// Each sender's last contact in the range. Pseudonyms are uniform, and so their own hashes.
#[derive(Default)]
struct Contacts(HashTable<(u128, u64)>);

impl Pairs {
    pub(crate) fn new() -> Self {
        Self {
            keys: OpenKeys::new(),
            tokens: Person::default(),
            senders: OpenKeys::new(),
            before: Person::default(),
            messages: Vec::new(),
            cohorts: Vec::new(),
            contacts: Contacts::default(),
        }
    }

    /// Forgets everything but how much room it took.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.senders.clear();
        self.messages.clear();
        self.cohorts.clear();
        self.tokens.begin(0);
        self.before.begin(0);
        self.contacts.0.clear();
    }

    /// Takes a message.
    #[inline]
    pub(crate) fn push(&mut self, source: &dyn KeySource, told: &Told<'_>) -> Result<(), MinimizeError> {
        let &Told { sender, recipient, time_ms, account_age_s, to_new_account, row, .. } = told;
        let day = EpochId::of(time_ms);
        let day_before = EpochId(day.0.saturating_sub(1));
        // Both or none: who is known from the day before must not pass for a stranger.
        if self.keys.get(source, day_before, &mut self.tokens)?.is_none() {
            return Ok(());
        }
        let place = self.tokens.rows();
        let is_upward = sender.is_below(recipient);
        let (low, high) = if is_upward { (sender, recipient) } else { (recipient, sender) };
        for epoch in [day, day_before] {
            let Some(key) = self.keys.get(source, epoch, &mut self.tokens)? else { return Ok(()) };
            key.push_pair(low, high, &mut self.tokens);
        }
        let mut before = None;
        if let Some(key) = self.senders.get(source, day_before, &mut self.before)? {
            before = Some(self.before.rows());
            key.push_person(sender, &mut self.before);
        }
        let cohort = match told.cohort.written() {
            [] => None,
            written => Some(self.cohort(source, written, [day, day_before])?),
        };
        self.messages.push(Message { time_ms, account_age_s, row, place, before, is_upward, to_new_account, cohort });
        Ok(())
    }

    /// Keys a cohort; its place.
    #[cold]
    fn cohort(&mut self, source: &dyn KeySource, written: &[u8], days: [EpochId; 2]) -> Result<usize, MinimizeError> {
        let mut keyed = Cohort::default();
        for (to, day) in keyed.iter_mut().zip(days) {
            let key = self.senders.get(source, day, &mut self.before)?;
            *to = key.map(|key| *key.cohort(written).as_bytes());
        }
        self.cohorts.push(keyed);
        Ok(self.cohorts.len() - 1)
    }

    /// Ends the range: writes the rows of its pairs behind the others, whose people must be settled.
    pub(crate) fn finish(&mut self, signals: &mut SignalColumns) -> Result<(), MinimizeError> {
        self.keys.settle(&mut self.tokens);
        self.senders.settle(&mut self.before);
        let others = signals.rows();
        for message in &self.messages {
            let found =
                (signals.person.value(message.row), self.tokens.value(message.place), self.tokens.value(message.place + 1));
            let (Some(person), Some(now), Some(before)) = found else { return Err(MinimizeError::Columns) };
            let (there, back) = directions(&now, message.is_upward);
            let (there_before, back_before) = directions(&before, message.is_upward);
            let day = EpochId::of(message.time_ms);
            let [cohort, cohort_before] = message.cohort.and_then(|place| self.cohorts.get(place)).copied().unwrap_or_default();
            let contact = PairRow {
                kind: SignalKind::Contact,
                time_ms: message.time_ms,
                epoch: day,
                overlap: false,
                person: Some(person),
                account_age_s: message.account_age_s,
                pair: [there, there_before],
                cohort,
                to_new_account: message.to_new_account,
            };
            let (is_first, is_new) = self.contacts.note(&person, there);
            if let Some(before) = message.before.filter(|_| is_first).and_then(|place| self.before.value(place)) {
                let epoch = EpochId(day.0.saturating_sub(1));
                signals.push_of_pair(&PairRow { epoch, overlap: true, person: Some(before), cohort: cohort_before, ..contact });
            }
            if is_new {
                signals.push_of_pair(&contact);
            }
            // Of every message: whether there is one must not tell what others wrote.
            let (kind, pair) = (SignalKind::Answered, [back, back_before]);
            let nobodys = PairRow { person: None, account_age_s: None, cohort: None, to_new_account: None, ..contact };
            signals.push_of_pair(&PairRow { kind, pair, ..nobodys });
        }
        signals.fill(others);
        Ok(())
    }
}

impl Contacts {
    /// Notes a contact: whether it is the sender's first in the range, and whether it is another than the sender's last.
    fn note(&mut self, person: &[u8; 16], token: [u8; 8]) -> (bool, bool) {
        #[allow(clippy::cast_possible_truncation)]
        let uniform = |(person, _): &(u128, u64)| *person as u64;
        let (person, token) = (u128::from_le_bytes(*person), u64::from_le_bytes(token));
        match self.0.entry(uniform(&(person, 0)), |(other, _)| *other == person, uniform) {
            Entry::Occupied(mut entry) => (false, std::mem::replace(&mut entry.get_mut().1, token) != token),
            Entry::Vacant(entry) => {
                entry.insert((person, token));
                (true, true)
            }
        }
    }
}

/// The sender's direction and the other one, of a pair's hash.
pub(crate) fn directions(hash: &[u8; 16], is_upward: bool) -> ([u8; 8], [u8; 8]) {
    let (mut up, mut down) = ([0; 8], [0; 8]);
    for (place, byte) in hash.iter().enumerate() {
        if let Some(to) = if place < 8 { up.get_mut(place) } else { down.get_mut(place - 8) } {
            *to = *byte;
        }
    }
    if is_upward { (up, down) } else { (down, up) }
}
