//! Carries out what `decide` decides: asks for keys, hashes, writes rows, counts.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{AccountAge, Fault, Outcome, PlatformCode};
use starling_schemas::ids::{AnalyticsDay, DAY_MS, EpochId, HOUR_MS, Integrity, Offset, Purpose, WindowId};
use starling_schemas::voice::Voice;

use crate::account::Accounts;
use crate::bill::Bills;
use crate::decide::{Bounds, Readable, Signal, Suspect, account, bill, gate, maker, on_lists, read, recipient, signal};
use crate::decode::Event;
use crate::keys::{KeySource, KeySourceError, OpenKeys};
use crate::listed::GroupLists;
use crate::makers::Makers;
use crate::output::{CleanColumns, CleanRow, SignalColumns, SignalRow};
use crate::pairs::{Pairs, Told};
use crate::present::Present;
use crate::tally::{PartitionClock, Tally};

/// Why a range could not be minimised. No text holds a value from the data.
#[derive(Debug, thiserror::Error)]
pub enum MinimizeError {
    /// The key source could not say whether there is a key.
    #[error(
        "the {purpose} pseudonym key of {epoch} could not be had: {source}; put the key source in order, the range is tried again"
    )]
    KeySource {
        /// The key's purpose.
        purpose: Purpose,
        /// The key's day, or hour.
        epoch: EpochId,
        /// What the source said.
        source: KeySourceError,
    },
    /// The names of businesses in one range do not fit into a column.
    #[error("a range holds more than 2 GiB of business names: plan smaller ranges (ingest's max_bytes)")]
    RangeTooLarge,
    /// Arrow refused the columns: a defect of this crate, or of the schemas it was built with.
    #[error("rows do not fit the schemas of starling-schemas: minimize and schemas are of different versions, rebuild both")]
    Columns,
}

/// What holds for every range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame that is looked at, in bytes. A metadata event is far smaller.
    pub max_event_bytes: usize,
    /// Earliest event time, in milliseconds since 1970-01-01 UTC.
    pub earliest_ms: i64,
    /// For how many milliseconds after midnight a message's signal is also written under the day before's key.
    pub overlap_ms: i64,
    /// Whether messages between two people give signals of pairs.
    pub pairs: bool,
}

/// 16 KiB; 2009-01-01; 15 minutes; yes.
impl Default for Limits {
    fn default() -> Self {
        Self { max_event_bytes: 16 * 1024, earliest_ms: 1_230_768_000_000, overlap_ms: 15 * 60_000, pairs: true }
    }
}

/// What holds for one range; part of its plan, so that a replay decides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeContext {
    /// Events of this day and earlier are late. `None`: no window has closed yet.
    pub closed_through: Option<EpochId>,
    /// Who was there is kept for the hours after this one. `None`: for none.
    pub hours_after: Option<EpochId>,
    /// Events after this are [`Fault::TimeOutOfRange`], in milliseconds since 1970-01-01 UTC.
    pub latest_ms: i64,
    /// The latest event time of the partition before the range, in milliseconds since 1970-01-01 UTC. `None`: there was none.
    pub read_to_ms: Option<i64>,
}

/// Before a range is begun nothing is in time: fails closed (I8).
const NO_RANGE: RangeContext = RangeContext { closed_through: None, hours_after: None, latest_ms: i64::MIN, read_to_ms: None };

/// What a range became. Its `Debug` tells numbers of rows, never rows.
pub struct Minimized {
    /// Frames pushed; the sum of all `counts` (I1).
    pub events: u64,
    /// Rows of [`CLEAN_ROWS`](starling_schemas::rows::CLEAN_ROWS): one for each counted event, in their order.
    pub clean: RecordBatch,
    /// Rows of [`SIGNALS`](starling_schemas::rows::SIGNALS), in the events' order; behind them those of who made groups, in no event's order, and those of
    /// pairs.
    pub signals: RecordBatch,
    /// Rows of [`PRESENCE_ROWS`](starling_schemas::rows::PRESENCE_ROWS) by week and month: each person of the clean rows, at most once a day; and by
    /// hour where hours are kept. A window with nobody in it is not there, nor is one whose key is destroyed.
    pub present: Vec<(WindowId, RecordBatch)>,
    /// Events that people did, that were counted, and that came too late for their hour, by hour, none zero, in order.
    pub missed_hours: Vec<(EpochId, u64)>,
    /// Rows of [`BILLING`](starling_schemas::rows::BILLING): what the range's business messages are billed as, also those that are late or
    /// refused for statistics (P35).
    pub billing: RecordBatch,
    /// What the range's businesses said of themselves, each what it said last, in their order (P34). Also what came late.
    pub businesses: Vec<BusinessAccount>,
    /// Events by day and outcome, none zero, sorted. Quarantined ones have no day.
    pub counts: Vec<(Option<EpochId>, Outcome, u64)>,
    /// Offset, fault and length in bytes of each unreadable frame. Its bytes are kept nowhere.
    pub quarantined: Vec<(Offset, Fault, u64)>,
    /// Latest event time among the readable events, in milliseconds since 1970-01-01 UTC.
    pub max_event_time_ms: Option<i64>,
    /// The same events as in `counts`, by the hour of the latest event time that the partition had when they came, their own included: so it does not
    /// matter how ranges are cut. None zero, sorted; without those that came before there was any time.
    pub by_clock: Vec<(EpochId, Outcome, u64)>,
    /// Those of them that lay more than an hour behind it, by the same hours.
    pub behind: Vec<(EpochId, u64)>,
}

impl fmt::Debug for Minimized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minimized")
            .field("events", &self.events)
            .field("clean_rows", &self.clean.num_rows())
            .field("signal_rows", &self.signals.num_rows())
            .field("quarantined", &self.quarantined.len())
            .finish_non_exhaustive()
    }
}

/// Turns ranges of frames into clean rows and signals: [`begin`](Self::begin), [`push`](Self::push) each frame, [`finish`](Self::finish).
///
/// Deterministic: the same limits, context, lists, keys and frames give the same result. One minimizer serves one thread and many ranges;
/// what it learned of a range's size stays, its keys do not.
pub struct Minimizer {
    keys: Arc<dyn KeySource>,
    limits: Limits,
    context: RangeContext,
    analytics: OpenKeys<AnalyticsDay>,
    integrity: OpenKeys<Integrity>,
    clean: CleanColumns,
    present: Present,
    signals: SignalColumns,
    makers: Makers,
    pairs: Pairs,
    lists: Arc<GroupLists>,
    bills: Bills,
    accounts: Accounts,
    tally: Tally,
    quarantined: Vec<(Offset, Fault, u64)>,
    max_event_time_ms: Option<i64>,
    clock: PartitionClock,
}

impl Minimizer {
    /// A minimizer that is in no range yet.
    #[must_use]
    pub fn new(keys: Arc<dyn KeySource>, limits: Limits) -> Self {
        Self {
            keys,
            limits,
            context: NO_RANGE,
            analytics: OpenKeys::new(),
            integrity: OpenKeys::new(),
            clean: CleanColumns::default(),
            present: Present::default(),
            signals: SignalColumns::default(),
            makers: Makers::new(),
            pairs: Pairs::new(),
            lists: Arc::default(),
            bills: Bills::default(),
            accounts: Accounts::default(),
            tally: Tally::new(),
            quarantined: Vec::new(),
            max_event_time_ms: None,
            clock: PartitionClock::new(),
        }
    }

    /// Begins a range. What was pushed and not finished is dropped; every key is asked for anew, as it may have been destroyed.
    pub fn begin(&mut self, context: RangeContext) {
        self.reset();
        self.context = context;
        self.clock.begin(context.read_to_ms);
    }

    /// Holds the profiles of groups against these lists, until the range ends: those that its plan names, so that a replay finds the same. A range that was
    /// begun without is held against none.
    pub fn hold_against(&mut self, lists: Arc<GroupLists>) {
        self.lists = lists;
    }

    /// Takes one frame. `offset` is kept only if the frame cannot be read.
    ///
    /// # Errors
    /// [`MinimizeError::KeySource`] and [`MinimizeError::RangeTooLarge`]: the range must be begun again; it is never partly counted.
    pub fn push(&mut self, offset: Offset, frame: &[u8]) -> Result<(), MinimizeError> {
        let bounds = Bounds {
            max_event_bytes: self.limits.max_event_bytes,
            earliest_ms: self.limits.earliest_ms,
            latest_ms: self.context.latest_ms,
        };
        let mut event = Event::default();
        let readable = match read(frame, &bounds, &mut event) {
            Ok(readable) => readable,
            Err(fault) => {
                self.tally.quarantined(fault);
                self.clock.count(None, Outcome::Quarantined(fault));
                self.quarantined.push((offset, fault, u64::try_from(frame.len()).unwrap_or(u64::MAX)));
                return Ok(());
            }
        };
        if let Some(signal) = signal(&event, readable.actor.as_ref()) {
            let row = self.signal(event.time_ms, &signal)?;
            if let (Some(row), Some(sender), true) = (row, &readable.actor, self.limits.pairs)
                && let Some((recipient, to_new_account)) = recipient(&event, sender)
            {
                let told = Told {
                    sender,
                    recipient: &recipient,
                    time_ms: event.time_ms,
                    account_age_s: event.account_age_s,
                    cohort: event.cohort_of_young(),
                    to_new_account,
                    row,
                };
                self.pairs.push(self.keys.as_ref(), &told)?;
            }
        }
        if self.lists.hashes() > 0 {
            let lists = Arc::clone(&self.lists);
            for signal in on_lists(&event, &lists) {
                self.signal(event.time_ms, &signal)?;
            }
        }
        if let Some((person, is_new_account)) = maker(&event, readable.actor.as_ref()) {
            self.makers.push(self.keys.as_ref(), event.time_ms, person, is_new_account)?;
        }
        if let Some(bill) = bill(&event, readable.actor.as_ref()) {
            self.bills.add(bill);
        }
        if let Some(told) = account(&event) {
            self.accounts.add(told);
        }
        let outcome = self.count(&event, &readable)?;
        self.clock.count(Some(event.time_ms), outcome);
        self.max_event_time_ms = self.max_event_time_ms.max(Some(event.time_ms));
        Ok(())
    }

    /// Ends the range and hands out its result; the keys are closed.
    ///
    /// # Errors
    /// [`MinimizeError::Columns`] when the rows do not fit their schemas.
    pub fn finish(&mut self) -> Result<Minimized, MinimizeError> {
        self.analytics.settle(&mut self.clean.counted(&mut self.present));
        self.integrity.settle(&mut self.signals.person);
        let paired = self.makers.finish(&mut self.signals).and_then(|()| self.pairs.finish(&mut self.signals));
        let (clean, signals) = (self.clean.finish(), self.signals.finish());
        let (events, counts, max_event_time_ms) = (self.tally.events(), self.tally.counts(), self.max_event_time_ms);
        let (missed_hours, businesses) = (self.present.missed(), self.accounts.finish());
        let (by_clock, behind) = self.clock.counts();
        let (quarantined, billing, present) = (self.quarantined.clone(), self.bills.finish(), self.present.finish());
        self.reset();
        paired?;
        let (clean, signals, present, billing) = (clean?, signals?, present?, billing?);
        Ok(Minimized {
            events,
            clean,
            signals,
            present,
            missed_hours,
            billing,
            businesses,
            counts,
            quarantined,
            max_event_time_ms,
            by_clock,
            behind,
        })
    }

    fn reset(&mut self) {
        self.context = NO_RANGE;
        self.analytics.clear();
        self.integrity.clear();
        self.clean.begin();
        self.present.clear();
        self.signals.begin();
        self.makers.clear();
        self.pairs.clear();
        self.lists = Arc::default();
        self.bills.clear();
        self.accounts.clear();
        self.tally.clear();
        self.quarantined.clear();
        self.max_event_time_ms = None;
        self.clock.begin(None);
    }

    /// Counts a readable event for statistics: refused, late, or one clean row.
    #[inline]
    fn count(&mut self, event: &Event<'_>, readable: &Readable) -> Result<Outcome, MinimizeError> {
        let day = EpochId::of(event.time_ms);
        let happened = match gate(readable.purpose, readable.actor.is_some(), event.choices) {
            Ok(happened) => happened,
            Err(refusal) => {
                self.tally.refused(day, refusal);
                return Ok(Outcome::Refused(refusal));
            }
        };
        let key = match self.context.closed_through {
            Some(closed) if day <= closed => None,
            _ => self.analytics.get(self.keys.as_ref(), day, &mut self.clean.counted(&mut self.present))?,
        };
        // The gate lets nobody through without a subject; a missing one would be late, never counted for somebody else.
        let (Some(key), Some(actor)) = (key, &readable.actor) else {
            self.tally.late(day);
            return Ok(Outcome::Late);
        };
        self.present.ready(self.keys.as_ref(), day)?;
        if let Some(after) = self.context.hours_after.filter(|_| happened.activity.is_active()) {
            self.present.ready_hour(self.keys.as_ref(), EpochId::hour_of(event.time_ms), after)?;
        }
        self.clean.push(&CleanRow {
            day,
            seconds: happened.seconds,
            country: actor.country(),
            hour: hour(event.time_ms),
            platform: u8::try_from(event.platform).ok().and_then(PlatformCode::from_code).unwrap_or(PlatformCode::Unknown),
            activity: happened.activity,
            version: event.version,
            detail: happened.detail,
            account: AccountAge::of(event.account_age_s),
        });
        key.push_person(actor, &mut self.clean.counted(&mut self.present));
        self.tally.counted(day);
        Ok(Outcome::Counted)
    }

    /// Writes a signal under its day's key, and shortly after midnight a sender's also under the day before's. Gives the row of the first.
    #[inline]
    fn signal(&mut self, time_ms: i64, signal: &Signal<'_, '_>) -> Result<Option<usize>, MinimizeError> {
        let day = EpochId::of(time_ms);
        let row = self.signal_under(day, false, time_ms, signal)?;
        if signal.is_senders() && time_ms - day.start_ms() < self.limits.overlap_ms {
            self.signal_under(EpochId(day.0.saturating_sub(1)), true, time_ms, signal)?;
        }
        Ok(row)
    }

    /// Writes a signal under one day's key, unless that has been destroyed. Gives its row.
    #[inline]
    fn signal_under(
        &mut self,
        epoch: EpochId,
        overlap: bool,
        time_ms: i64,
        signal: &Signal<'_, '_>,
    ) -> Result<Option<usize>, MinimizeError> {
        let place = self.signals.rows();
        let people = &mut self.signals.person;
        let Some(key) = self.integrity.get(self.keys.as_ref(), epoch, people)? else { return Ok(None) };
        let person = match &signal.suspect {
            Suspect::None => None,
            Suspect::Actor(phone) => Some(*phone),
            Suspect::Accused(phone) => Some(phone),
        };
        if let Some(phone) = person {
            key.push_person(phone, people);
        }
        let group = signal.group.map(|group| key.group(group.written()));
        let voice = signal.voice.and_then(|voiced| {
            let cohort = voiced.cohort.written();
            let bucket = (!cohort.is_empty()).then(|| match signal.group {
                Some(group) => key.voice_in_group(group.written(), cohort),
                None => key.voice(signal.business.as_bytes(), cohort),
            });
            Voice { bucket, rate: voiced.rate }.code()
        });
        let row = SignalRow {
            kind: signal.kind,
            time_ms,
            epoch,
            overlap,
            group,
            business: signal.business,
            portfolio: signal.portfolio,
            category: signal.category,
            tier: signal.tier,
            conversation: signal.conversation,
            thread_is_new: signal.thread_is_new,
            count: signal.count,
            strangers: signal.strangers,
            account_age_s: signal.account_age_s,
            listed: signal.listed,
            voice,
            template: &signal.template,
        };
        self.signals.push(&row, person.is_some()).map(|()| Some(place))
    }
}

/// UTC hour of the day, 0-23.
fn hour(time_ms: i64) -> u8 {
    u8::try_from(time_ms.rem_euclid(DAY_MS) / HOUR_MS).unwrap_or_default()
}
