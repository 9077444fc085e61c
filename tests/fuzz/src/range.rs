//! Many frames through the minimizer: conservation, no event changes what becomes of another, and no number comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, AsArray as _, RecordBatch, UInt16Array};
use arrow::datatypes::{DataType, Date32Type, TimestampMillisecondType, UInt8Type, UInt32Type};
use starling_minimize::{
    GroupLists, KeySource, KeySourceError, Limits, MinimizeError, Minimized, Minimizer, RangeContext, Zeroizing,
};
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{AccountAge, Activity, Fault, Outcome, SignalKind};
use starling_schemas::ids::{EpochId, Offset, Purpose, Span, WindowId};
use starling_schemas::voice::Voice;

/// The day of most events in the corpus: 2026-01-05.
pub const DAY: EpochId = EpochId(20_458);
/// Most frames of one input that are looked at.
const FRAMES: usize = 24;
/// What a broken key source says.
const NO_KEYS: &str = "the key folder cannot be read";

/// The hash that the corpus has of everything, listed as a name and as a photo.
static LISTS: LazyLock<Arc<GroupLists>> = LazyLock::new(|| {
    let text = "30313233343536373839616263646566 name names\n30313233343536373839616263646566 photo photos\n";
    Arc::new(GroupLists::parse("lists", text).expect("two hashes"))
});

/// Keys as they are on a real day: yesterday's are destroyed, today's and tomorrow's are there.
struct Keys {
    salt: u8,
    broken: bool,
}

impl KeySource for Keys {
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
        if self.broken {
            return Err(KeySourceError(NO_KEYS.to_owned()));
        }
        let mut key = [self.salt + purpose as u8 + 1; 32];
        key[..4].copy_from_slice(&epoch.0.to_be_bytes());
        Ok((epoch != EpochId(DAY.0 - 1)).then(|| Zeroizing::new(key)))
    }
}

fn context() -> RangeContext {
    RangeContext {
        closed_through: Some(EpochId(DAY.0 - 3)),
        hours_after: Some(DAY.hour_at(3)),
        latest_ms: DAY.start_ms() + 2 * 86_400_000,
        read_to_ms: Some(DAY.start_ms()),
    }
}

/// Panics unless a trace of these bytes, taken as one range, keeps the promises of its room.
pub fn check(trace: &[u8]) {
    let frames = frames_of(trace);
    let mut minimizer = Minimizer::new(Arc::new(Keys { salt: 0, broken: false }), Limits::default());
    let whole = run(&mut minimizer, &frames);
    conserved(&whole, &frames);
    each_event_stands_alone(&mut minimizer, &whole, &frames);
    nothing_comes_out(&whole, &frames);
    dimensions_are_listed(&whole.clean);
    present_are_those_who_did_something(&whole);
}

/// P14: in a week or month is, once a day, and in an hour once, whoever has a clean row of something they did, and nobody else.
fn present_are_those_who_did_something(whole: &Minimized) {
    let clean = &whole.clean;
    let (people, days) = (clean["person"].as_fixed_size_binary(), clean["day"].as_primitive::<Date32Type>().values());
    let mut expected = BTreeMap::<WindowId, BTreeSet<&[u8]>>::new();
    let hours = clean["hour"].as_primitive::<UInt8Type>().values();
    let activities = clean["activity"].as_primitive::<UInt8Type>().values();
    for (((person, day), hour), activity) in people.iter().zip(days).zip(hours).zip(activities) {
        // Pseudonyms of two days are two: counted is each once a day.
        if Activity::from_code(*activity).is_some_and(Activity::is_active) {
            for span in Span::LONG {
                expected.entry(span.of(EpochId(*day))).or_default().insert(person.expect("never null"));
            }
            let hour = EpochId(*day).hour_at(*hour);
            if context().hours_after.is_some_and(|after| hour > after) {
                expected.entry(hour.into()).or_default().insert(person.expect("never null"));
            }
        }
    }
    let found: Vec<_> = whole.present.iter().map(|(window, rows)| (*window, rows.num_rows())).collect();
    assert_eq!(found, expected.iter().map(|(window, people)| (*window, people.len())).collect::<Vec<_>>());
    for person in whole.present.iter().flat_map(|(_, rows)| rows["person"].as_fixed_size_binary().iter().flatten()) {
        assert!(people.iter().flatten().all(|of_a_day| of_a_day != person), "a pseudonym of a day names a month's person");
    }
}

/// P19, P20: a clean row holds numbers of closed lists; of a version two of 8 bits, which is what its column has room for.
fn dimensions_are_listed(clean: &RecordBatch) {
    let column = |name: &str| clean[name].as_primitive::<UInt8Type>().values();
    for ((activity, detail), account) in column("activity").iter().zip(column("detail")).zip(column("account")) {
        let activity = Activity::from_code(*activity).expect("an activity of the list");
        assert!(*detail == 0 || activity.details().iter().any(|(code, _)| code == detail), "a detail that is not on the list");
        assert!(AccountAge::from_code(*account).is_some());
    }
    assert_eq!(*clean["version"].data_type(), DataType::UInt16);
}

fn run(minimizer: &mut Minimizer, frames: &[&[u8]]) -> Minimized {
    minimizer.begin(context());
    minimizer.hold_against(Arc::clone(&LISTS));
    for (offset, frame) in (0..).zip(frames) {
        minimizer.push(Offset(offset), frame).expect("keys are in order");
    }
    minimizer.finish().expect("columns fit")
}

/// I1.
fn conserved(whole: &Minimized, frames: &[&[u8]]) {
    assert_eq!(whole.events, frames.len() as u64);
    assert_eq!(whole.counts.iter().map(|(_, _, events)| events).sum::<u64>(), whole.events, "I1: events and counts differ");
    let of = |wanted: fn(&Outcome) -> bool| {
        whole.counts.iter().filter(|(_, outcome, _)| wanted(outcome)).map(|(_, _, events)| events).sum::<u64>()
    };
    assert_eq!(of(|outcome| *outcome == Outcome::Counted), whole.clean.num_rows() as u64);
    assert_eq!(of(|outcome| matches!(outcome, Outcome::Quarantined(_))), whole.quarantined.len() as u64);
    // At most one signal, and for a sender shortly after midnight one more under the day before's key; behind them of each message between two
    // people a contact, its copy and an answer.
    // Whoever makes a group is behind those too, and a profile may be on the list by name, description and photo.
    assert!(of_pairs(&whole.signals) <= 3 * frames.len() && whole.signals.num_rows() <= 5 * frames.len());
    for (offset, fault, length) in &whole.quarantined {
        let frame = usize::try_from(offset.0).ok().and_then(|at| frames.get(at)).expect("an offset of this range");
        assert_eq!(*length, frame.len() as u64);
        assert_eq!(*fault == Fault::Empty, frame.is_empty());
        assert_eq!(*fault == Fault::TooLarge, frame.len() > Limits::default().max_event_bytes);
    }
}

/// Where the rows of pairs begin, which stand behind all others.
fn of_pairs(signals: &RecordBatch) -> usize {
    let kinds = signals["kind"].as_primitive::<UInt8Type>().values();
    let is_pair = |kind: &u8| [SignalKind::Contact, SignalKind::Answered].map(SignalKind::code).contains(kind);
    let begin = kinds.iter().position(is_pair).unwrap_or(kinds.len());
    assert!(kinds.iter().skip(begin).all(is_pair), "another signal behind those of pairs");
    begin
}

/// Where the rows of those who made groups begin, which stand behind all others but those of pairs.
fn of_makers(signals: &RecordBatch) -> usize {
    let kinds = signals["kind"].as_primitive::<UInt8Type>().values();
    kinds.iter().position(|kind| *kind == SignalKind::GroupMade.code()).unwrap_or_else(|| of_pairs(signals))
}

/// The same rows, one by one.
fn makers(signals: &RecordBatch) -> Vec<RecordBatch> {
    let rows = of_makers(signals)..of_pairs(signals);
    let rows: Vec<_> = rows.map(|row| signals.slice(row, 1)).collect();
    let is_maker = |row: &RecordBatch| {
        let hour = row["time"].as_primitive::<TimestampMillisecondType>().value(0) % 3_600_000 == 0;
        hour && row["group"].null_count() == 1 && row["kind"].as_primitive::<UInt8Type>().value(0) == SignalKind::GroupMade.code()
    };
    assert!(rows.iter().all(is_maker), "a row of a maker has a group, or a time of its own");
    rows
}

/// A range is the sum of its events, without the contacts that a sender repeats: no other row, count or key of one depends on its neighbours or on what
/// the minimizer did before.
fn each_event_stands_alone(minimizer: &mut Minimizer, whole: &Minimized, frames: &[&[u8]]) {
    let (mut clean, mut signals, mut pairs) = (0, 0, of_pairs(&whole.signals));
    let mut counts = BTreeMap::new();
    let mut latest = None;
    let mut accounts = BTreeMap::<String, Vec<BusinessAccount>>::new();
    let mut made = makers(&whole.signals);
    for frame in frames {
        let alone = run(minimizer, &[frame]);
        for account in alone.businesses {
            assert!(is_shown(&account), "a name of more than one line, too long, or with a number");
            accounts.entry(account.business.clone()).or_default().push(account);
        }
        let rows = |batch: &RecordBatch, from: &mut usize, count| {
            *from += count;
            batch.slice(*from - count, count)
        };
        assert_eq!(rows(&whole.clean, &mut clean, alone.clean.num_rows()), alone.clean, "a neighbour changed a clean row");
        let others = of_makers(&alone.signals);
        assert_eq!(rows(&whole.signals, &mut signals, others), alone.signals.slice(0, others), "a neighbour changed a signal");
        for maker in makers(&alone.signals) {
            made.swap_remove(made.iter().position(|other| *other == maker).expect("a neighbour changed a maker"));
        }
        for row in of_pairs(&alone.signals)..alone.signals.num_rows() {
            if pairs < whole.signals.num_rows() && whole.signals.slice(pairs, 1) == alone.signals.slice(row, 1) {
                pairs += 1;
            } else {
                let kind = alone.signals["kind"].as_primitive::<UInt8Type>().value(row);
                assert_eq!(kind, SignalKind::Contact.code(), "a neighbour took a row of a pair that is no contact");
            }
        }
        for (day, outcome, events) in alone.counts {
            *counts.entry((day, outcome)).or_insert(0) += events;
        }
        latest = latest.max(alone.max_event_time_ms);
    }
    assert_eq!((clean, signals), (whole.clean.num_rows(), of_makers(&whole.signals)));
    assert!(made.is_empty(), "somebody made a group whom no event gives by itself");
    assert_eq!(pairs, whole.signals.num_rows(), "a row of a pair that no event gives by itself");
    let counts: Vec<_> = counts.into_iter().map(|((day, outcome), events)| (day, outcome, events)).collect();
    assert_eq!(whole.counts, counts, "a neighbour changed an outcome");
    assert_eq!(whole.max_event_time_ms, latest);
    let last = |said: &Vec<BusinessAccount>| said.iter().find(|one| !said.iter().any(|other| other.supersedes(one))).cloned();
    assert_eq!(whole.businesses, accounts.values().filter_map(last).collect::<Vec<_>>(), "another account than was told last");
    // I1: by the hours of the partition's clock they are the same events, and no more lay behind.
    let (mut of_days, mut of_hours) = (BTreeMap::new(), BTreeMap::new());
    counts.iter().for_each(|(_, outcome, events)| *of_days.entry(*outcome).or_insert(0) += events);
    whole.by_clock.iter().for_each(|(_, outcome, events)| *of_hours.entry(*outcome).or_insert(0) += events);
    assert_eq!(of_days, of_hours, "an event is in no hour, or in two");
    assert!(whole.behind.iter().map(|(_, events)| events).sum::<u64>() <= whole.events);
}

/// P34, I4: whether an account can be asked for, and its name be shown as it is.
fn is_shown(account: &BusinessAccount) -> bool {
    let signs = || [&account.business, &account.portfolio, &account.name].into_iter().flat_map(|text| text.chars());
    let length = |text: &str| text.len() <= 256;
    account.name.chars().filter(|sign| sign.is_numeric()).count() < 7
        && !account.business.is_empty()
        && !signs().any(char::is_control)
        && length(&account.business)
        && length(&account.portfolio)
        && length(&account.name)
}

/// I4: what is printed says numbers of rows and nothing else, an error names its purpose and day, and what is keyed is keyed: under other keys
/// it has nothing in common with what it was, so no byte of a frame went through. Everything else in a row is of a closed list, a number, or
/// a business's name, and does not know the keys, but for the bucket of who objects.
fn nothing_comes_out(whole: &Minimized, frames: &[&[u8]]) {
    let (clean, signals, quarantined) = (whole.clean.num_rows(), whole.signals.num_rows(), whole.quarantined.len());
    let (events, shown) = (whole.events, format!("{whole:?}"));
    assert_eq!(
        shown,
        format!("Minimized {{ events: {events}, clean_rows: {clean}, signal_rows: {signals}, quarantined: {quarantined}, .. }}")
    );

    let mut broken = Minimizer::new(Arc::new(Keys { salt: 0, broken: true }), Limits::default());
    broken.begin(context());
    for frame in frames {
        let Err(error) = broken.push(Offset(0), frame) else { continue };
        let MinimizeError::KeySource { purpose, epoch, source } = &error else { panic!("another error than the keys'") };
        let expected = format!(
            "the {purpose} pseudonym key of {epoch} could not be had: {source}; put the key source in order, the range is tried again"
        );
        assert_eq!((error.to_string(), source.0.as_str()), (expected, NO_KEYS));
    }

    let mut minimizer = Minimizer::new(Arc::new(Keys { salt: 128, broken: false }), Limits::default());
    let other = run(&mut minimizer, frames);
    assert_eq!((&whole.counts, &whole.quarantined), (&other.counts, &other.quarantined));
    assert_eq!(whole.businesses, other.businesses, "what a business says of itself depends on the keys");
    // Makers of groups stand in the order of their pseudonyms, so their rows are compared without it.
    let said = |row: &RecordBatch| {
        let time = row["time"].as_primitive::<TimestampMillisecondType>().value(0);
        (time, row["strangers"].as_primitive::<UInt32Type>().value(0))
    };
    let sorted = |signals: &RecordBatch| {
        let mut said: Vec<_> = makers(signals).iter().map(said).collect();
        said.sort_unstable();
        said
    };
    assert_eq!(sorted(&whole.signals), sorted(&other.signals), "what is said of makers depends on the keys");
    let without = |signals: &RecordBatch| {
        let (before, behind) = (of_makers(signals), of_pairs(signals));
        [signals.slice(0, before), signals.slice(behind, signals.num_rows() - behind)]
    };
    let people = |signals: &RecordBatch| -> Vec<Vec<u8>> {
        makers(signals).iter().map(|row| row["person"].as_fixed_size_binary().value(0).to_vec()).collect()
    };
    for (one, other) in people(&whole.signals).iter().flat_map(|one| people(&other.signals).into_iter().map(move |o| (one, o))) {
        assert!(differs((Some(one), Some(&other))), "I4: a maker's row holds bytes that no key made");
    }
    let [[others, pairs], [their_others, their_pairs]] = [without(&whole.signals), without(&other.signals)];
    for (one, other) in [(&whole.clean, &other.clean), (&others, &their_others), (&pairs, &their_pairs)] {
        assert_eq!(one.num_rows(), other.num_rows());
        for ((field, one), other) in one.schema_ref().fields().iter().zip(one.columns()).zip(other.columns()) {
            match one.as_fixed_size_binary_opt() {
                None if field.name() == "voice" => voices(one.as_primitive(), other.as_primitive()),
                None => assert_eq!(one, other, "{} depends on the keys", field.name()),
                Some(one) => {
                    let keyed = one.iter().zip(other.as_fixed_size_binary());
                    assert!(keyed.into_iter().all(|pair| differs(pair)), "I4: {} holds bytes that no key made", field.name());
                }
            }
        }
    }
}

/// Of whose a block or report is all but the bucket is said by the frame, and the bucket by the keys: by chance eight are alike once in 10¹⁹ times.
fn voices(one: &UInt16Array, other: &UInt16Array) {
    let voices = |of: &UInt16Array| of.iter().map(|code| code.map(Voice::from_code)).collect::<Vec<_>>();
    let (one, other) = (voices(one), voices(other));
    let without = |of: &[Option<Voice>]| of.iter().map(|v| v.map(|v| (v.rate, v.bucket.is_some()))).collect::<Vec<_>>();
    assert_eq!(without(&one), without(&other), "whose a report is depends on the keys");
    let buckets = |of: &[Option<Voice>]| of.iter().filter_map(|voice| voice.and_then(|v| v.bucket)).collect::<Vec<_>>();
    let (one, other) = (buckets(&one), buckets(&other));
    assert!(one.len() < 8 || one != other, "I4: buckets that no key made");
}

/// Whether two keyed values are as unlike as two random ones: by chance, more than half of 8 bytes are alike once in 10¹⁰ pairs.
fn differs(pair: (Option<&[u8]>, Option<&[u8]>)) -> bool {
    match pair {
        (None, None) => true,
        (Some(one), Some(other)) => one.iter().zip(other).filter(|(one, other)| one == other).count() <= one.len() / 2,
        _ => false,
    }
}

/// Frames behind their lengths, as in a trace file; what is left when a length is wrong is a frame as well.
fn frames_of(mut trace: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !trace.is_empty() && frames.len() < FRAMES {
        let mut rest = trace;
        let length = prost::encoding::decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
        let (frame, behind) = length.and_then(|length| rest.split_at_checked(length)).unwrap_or((trace, &[]));
        frames.push(frame);
        trace = behind;
    }
    frames
}
