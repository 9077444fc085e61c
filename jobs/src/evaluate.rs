//! `starling evaluate`: how good the rules are, on any trace whose truth is known.
//!
//! ```text
//!   trace ─► Minimizer (keys made here) ─► signals, one at a time ─► Engine ─► alert, and the event time at which it was raised
//!   truth ─► who was planted, under the same keys ────────────────────────────────────────┘
//!                                                                                          └─► report
//! ```
//!
//! **Comes in:** a trace file as `simulate` and `replay` write it, and a truth file that says who in it is an abuser and who only looks like
//! one. **Goes out:** per scenario how many were found, how soon and after how much was sent; false alerts per million user-days; precision;
//! alerts a day; of alerts with an e-value how many a false-discovery level chooses, and how many of those are false; each share with its exact 95 % interval
//! (Clopper & Pearson 1934); bytes an actor; signals a second.
//!
//! It is not tuned on what it judges: rules come from the files they always come from (those in shadow, of which nobody is told, are left out), and a trace that nobody tuned on is as good as a
//! simulated one. The way is that of the stream, without broker and metastore, and the same trace always gives the same report but for the
//! speed and the last bytes of hash tables. Signals are taken in singly, so the moment of an alert is the event time of the signal that raised it, to the millisecond.
//!
//! # Privacy
//! Keys are the same in every run, so that reports can be compared, and so hide nothing; but nothing that is keyed is written or told: the report has
//! scenarios, rules and counts. That a truth file names people is why there is one only for made or labelled traffic.
//!
//! # What it does not tell
//! Whether wall-clock time is kept (the metric `alert_delay_seconds` of a running job does), and what analysts would make of it. User-days are
//! pseudonyms that sent something, a day each; they are not people.

mod chosen;
mod recount;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{Date32Type, TimestampMillisecondType, UInt8Type};
use serde::Deserialize;
use starling_ingest::{FrameRead, TraceReader};
use starling_integrity::{Alert, Engine, Footprint, Rules, Stage, evidence};
use starling_minimize::{GroupLists, KeySource, KeySourceError, Limits, Minimizer, RangeContext, Zeroizing};
use starling_schemas::codes::SignalKind;
use starling_schemas::ids::{EpochId, Offset, PartitionId, Purpose, Sequence};
use starling_schemas::signals::SignalBatch;

use crate::cli::Evaluate;
use crate::config::Config;
use crate::group_lists;
use crate::keyed;
use crate::standing;
use recount::Recount;

/// Frames that are minimized at one time.
const FRAMES: usize = 8_192;
/// How often the engine forgets who is silent, in event time: as often as a running job does by the clock.
const SWEEP_EVERY_MS: i64 = 60_000;

/// What a truth file must say; it may say more.
#[derive(Debug, Deserialize)]
struct Truth {
    abusers: Vec<Planted>,
    #[serde(default)]
    harmless: Vec<Planted>,
    /// Lines of the lists that groups are held against where the settings name none.
    #[serde(default)]
    group_hashes: Vec<String>,
}

/// Somebody the truth knows.
#[derive(Debug, Clone, Deserialize)]
struct Planted {
    /// The scenario.
    kind: String,
    /// The rule that is meant to fire.
    #[serde(default)]
    expected_rule: Option<String>,
    /// `sender`, `business` or `group`.
    subject_kind: String,
    /// E.164 number, business identifier, or group identifier in hex.
    subject: String,
    /// First event, milliseconds since 1970-01-01 UTC.
    start_ms: i64,
    /// Last event.
    end_ms: i64,
}

/// An alert as it was first raised, with how it stood at the end.
struct Raised {
    alert: Alert,
    /// Event time of the signal that raised it.
    at_ms: i64,
    /// Whom it means: a place among abusers, or among harmless after them.
    place: Option<usize>,
    /// Signals of that one until then, under all its pseudonyms.
    sent_before: u64,
    /// The signal at which it was told in its present form, from 0.
    told_at: u64,
}

/// Everything the trace came to.
struct Outcome {
    raised: Vec<Raised>,
    /// Signals of each place over the whole trace.
    sent: Vec<u64>,
    user_days: u64,
    days: BTreeSet<i32>,
    signals: u64,
    frames: u64,
    largest: Footprint,
    recounted: recount::Recounted,
    /// The least false-discovery level at which an alert with an e-value is chosen, by fingerprint.
    levels: BTreeMap<String, f64>,
    /// How long the engine took over all signals when it took them as a job does, in batches.
    busy: Duration,
}

/// Keys that are the same in every run: a business's people are counted by a sketch of their keyed forms, and so the same trace gets the same
/// judgement. Nothing that is keyed leaves the process.
struct Keys;

impl Keys {
    fn key(purpose: Purpose, epoch: EpochId) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("starling evaluate: pseudonyms");
        hasher.update(&[purpose as u8]).update(&epoch.0.to_le_bytes());
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

impl KeySource for Keys {
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
        Ok(Some(Self::key(purpose, epoch)))
    }
}

/// Evaluates the rules on a trace and prints the report.
///
/// # Errors
/// When trace or truth cannot be read, or the truth names somebody who is no number, business or group.
pub fn run(config: &Config, asked: &Evaluate) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&asked.truth).with_context(|| format!("{}: cannot be read", asked.truth.display()))?;
    let truth: Truth = serde_json::from_str(&text).map_err(|error| {
        // The error's own text may quote a value.
        anyhow::anyhow!(
            "{}:{}:{}: this is no truth: `abusers` and `harmless` are lists with kind, subject_kind, subject, start_ms and end_ms",
            asked.truth.display(),
            error.line(),
            error.column()
        )
    })?;
    let lists = match group_lists::read(config)? {
        Some(lists) => lists,
        None => GroupLists::parse("the truth's group_hashes", &truth.group_hashes.join("\n"))?,
    };
    let outcome = take(&asked.trace, &truth, standing::rules(config)?, &Arc::new(lists))?;
    let report = report::of(&truth, &outcome);
    if asked.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

/// Takes the trace to its end.
fn take(trace: &Path, truth: &Truth, rules: Rules, lists: &Arc<GroupLists>) -> anyhow::Result<Outcome> {
    let subjects = Subjects::of(truth)?;
    let origin = PartitionId { source: "evaluated".to_owned(), partition: 0 };
    let mut watched = Watched::new(Engine::new(rules.clone()), origin.clone(), subjects);
    let mut timed = Engine::new(rules.clone());
    let mut busy = Duration::ZERO;
    let mut sequence = 0;
    let frames = each_range(trace, lists, |rows| {
        watched.take(&rows)?;
        let batch = SignalBatch { origin: origin.clone(), sequence: Sequence(sequence), chunk: 0, rows, cover: None };
        let begun = Instant::now();
        timed.apply(&batch)?;
        timed.take_alerts();
        timed.sweep();
        timed.take_vectors();
        busy += begun.elapsed();
        sequence += 1;
        Ok(())
    })?;
    let Watched { engine, raised, sent, user_days, signals, largest, subjects, .. } = watched;
    let levels =
        evidence::chosen(raised.iter().filter_map(|raised| evidence::found(&raised.alert)), |kind, day| engine.tested(kind, day));
    let mut recount = Recount::new(&raised, &subjects, &rules);
    each_range(trace, lists, |rows| recount.take(&rows, &in_time(&rows)?))?;
    let recounted = recount.judge();
    let days = user_days.iter().map(|(day, _)| *day).collect();
    Ok(Outcome { raised, sent, user_days: user_days.len() as u64, days, signals, frames, largest, recounted, levels, busy })
}

/// Hands the signals of a trace to `take`, a range at a time, and says how many events it has.
fn each_range(
    trace: &Path,
    lists: &Arc<GroupLists>,
    mut take: impl FnMut(RecordBatch) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut minimizer = Minimizer::new(Arc::new(Keys), Limits::default());
    let mut reader = TraceReader::open(trace)?;
    let mut frame = Vec::new();
    let mut frames = 0_u64;
    loop {
        // A recording lies in the past: nothing in it is too new.
        minimizer.begin(RangeContext { closed_through: None, latest_ms: i64::MAX, hours_after: None, read_to_ms: None });
        minimizer.hold_against(Arc::clone(lists));
        let mut taken = 0;
        while taken < FRAMES {
            match reader.next_frame(&mut frame)? {
                FrameRead::Frame => minimizer.push(Offset(i64::try_from(frames)?), &frame)?,
                FrameRead::TooLarge(_) => {}
                FrameRead::Truncated => anyhow::bail!("{}: the trace ends in the middle of frame {frames}", trace.display()),
                FrameRead::End => break,
            }
            frames += 1;
            taken += 1;
        }
        take(minimizer.finish()?.signals)?;
        if taken < FRAMES {
            break;
        }
    }
    anyhow::ensure!(frames > 0, "{}: there is nothing in this trace", trace.display());
    Ok(frames)
}

/// Rows in the order of their times. Those of pairs stand behind the others of their range: nobody has sent what is still to come. Those of makers of groups
/// have no time of their own, and come when their range is over, as in a running job.
fn in_time(rows: &RecordBatch) -> anyhow::Result<Vec<usize>> {
    let time = rows.column_by_name("time").context("signals have their columns")?.as_primitive::<TimestampMillisecondType>();
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    let kind = rows.column_by_name("kind").context("signals have their columns")?.as_primitive::<UInt8Type>();
    order.sort_by_key(|row| (kind.value(*row) == SignalKind::GroupMade.code(), time.value(*row)));
    Ok(order)
}

/// An engine that is looked at after each signal.
struct Watched {
    engine: Engine,
    origin: PartitionId,
    next: i64,
    swept_ms: i64,
    /// The latest time of a signal.
    now_ms: i64,
    /// Place in `raised` by fingerprint.
    known: HashMap<String, usize>,
    raised: Vec<Raised>,
    subjects: Subjects,
    sent: Vec<u64>,
    user_days: HashSet<(i32, [u8; 16])>,
    signals: u64,
    largest: Footprint,
}

impl Watched {
    fn new(engine: Engine, origin: PartitionId, subjects: Subjects) -> Self {
        Self {
            largest: engine.footprint(),
            engine,
            origin,
            next: 0,
            swept_ms: i64::MIN,
            now_ms: i64::MIN,
            known: HashMap::new(),
            raised: Vec::new(),
            sent: vec![0; subjects.places],
            subjects,
            user_days: HashSet::new(),
            signals: 0,
        }
    }

    fn take(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let column = |name: &str| rows.column_by_name(name).context("signals have their columns");
        let time = column("time")?.as_primitive::<TimestampMillisecondType>();
        let epoch = column("epoch")?.as_primitive::<Date32Type>();
        let overlap = column("overlap")?.as_boolean();
        let (person, group) = (column("person")?.as_fixed_size_binary(), column("group")?.as_fixed_size_binary());
        let business = column("business")?.as_string::<i32>();
        let pair = column("pair")?.as_fixed_size_binary();
        let kind = column("kind")?.as_primitive::<UInt8Type>();
        for row in in_time(rows)? {
            self.signals += 1;
            let keyed =
                |column: &FixedSizeBinaryArray| <[u8; 16]>::try_from(column.is_valid(row).then(|| column.value(row))?).ok();
            // A message to one person comes twice, once as a message and once as a contact.
            if !overlap.value(row) && pair.is_null(row) {
                let business = business.is_valid(row).then(|| business.value(row));
                if let Some(sent) = self.subjects.place(keyed(group), business, keyed(person)).and_then(|p| self.sent.get_mut(p))
                {
                    *sent += 1;
                }
                if let (Some(SignalKind::MessageSent), Some(who)) = (SignalKind::from_code(kind.value(row)), keyed(person)) {
                    self.user_days.insert((epoch.value(row), who));
                }
            }
            let batch = SignalBatch {
                origin: self.origin.clone(),
                sequence: Sequence(self.next),
                chunk: 0,
                rows: rows.slice(row, 1),
                cover: None,
            };
            self.next += 1;
            self.engine.apply(&batch)?;
            self.now_ms = self.now_ms.max(time.value(row));
            self.look(self.now_ms);
        }
        Ok(())
    }

    fn look(&mut self, now_ms: i64) {
        let told_at = self.signals - 1;
        let found = self.engine.take_alerts();
        let rules = self.engine.rules();
        // Of a rule in shadow nobody is told.
        let is_told = |alert: &Alert| rules.standing(&alert.rule).is_some_and(|standing| standing.stage != Stage::Shadow);
        for alert in found.into_iter().filter(is_told) {
            match self.known.get(&alert.fingerprint) {
                Some(place) => {
                    if let Some(raised) = self.raised.get_mut(*place) {
                        (raised.alert, raised.told_at) = (alert, told_at);
                    }
                }
                None => {
                    let place = self.subjects.by_name.get(&(alert.subject.kind.clone(), alert.subject.value.clone())).copied();
                    let sent_before = place.and_then(|place| self.sent.get(place)).copied().unwrap_or(0);
                    self.known.insert(alert.fingerprint.clone(), self.raised.len());
                    self.raised.push(Raised { alert, at_ms: now_ms, place, sent_before, told_at });
                }
            }
        }
        if now_ms >= self.swept_ms.saturating_add(SWEEP_EVERY_MS) {
            self.swept_ms = now_ms;
            let now = self.engine.footprint();
            if bytes(&now) > bytes(&self.largest) {
                self.largest = now;
            }
            self.engine.sweep();
            self.engine.take_vectors();
        }
    }
}

fn bytes(footprint: &Footprint) -> usize {
    footprint.sender_bytes + footprint.business_bytes + footprint.group_bytes + footprint.slow_bytes
}

/// Whom the truth knows, as alerts and signals name them: under each day's key from the day before they began.
#[derive(Default)]
struct Subjects {
    places: usize,
    /// By kind and value of an alert's subject.
    by_name: HashMap<(String, String), usize>,
    /// People and groups by their keyed form.
    keyed: HashMap<[u8; 16], usize>,
    businesses: HashMap<String, usize>,
}

impl Subjects {
    fn of(truth: &Truth) -> anyhow::Result<Self> {
        let mut found = Self { places: truth.abusers.len() + truth.harmless.len(), ..Self::default() };
        for (place, planted) in truth.abusers.iter().chain(&truth.harmless).enumerate() {
            for day in EpochId::of(planted.start_ms).0.saturating_sub(1)..=EpochId::of(planted.end_ms).0 {
                let epoch = EpochId(day);
                let key = Keys::key(Purpose::Integrity, epoch);
                let subject = keyed::subject(&planted.subject_kind, &planted.subject, &key, epoch).with_context(|| {
                    format!("the truth's entry {} is no sender with an E.164 number, no business, and no group with an identifier in hex", place + 1)
                })?;
                let known = match &subject.form {
                    Some(form) => found.keyed.get(form),
                    None => found.businesses.get(&subject.value),
                };
                anyhow::ensure!(
                    known.is_none_or(|other| *other == place),
                    "the truth's entry {} names somebody a second time",
                    place + 1
                );
                match &subject.form {
                    Some(form) => drop(found.keyed.insert(*form, place)),
                    None => drop(found.businesses.insert(subject.value.clone(), place)),
                }
                found.by_name.insert((subject.kind.to_owned(), subject.value), place);
            }
        }
        Ok(found)
    }

    /// Whose signal it is: a group's or business's before a person's.
    fn place(&self, group: Option<[u8; 16]>, business: Option<&str>, person: Option<[u8; 16]>) -> Option<usize> {
        match (group, business) {
            (Some(group), _) => self.keyed.get(&group).copied(),
            (None, Some(business)) => self.businesses.get(business).copied(),
            (None, None) => self.keyed.get(&person?).copied(),
        }
    }
}
