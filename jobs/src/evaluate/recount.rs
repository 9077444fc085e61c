//! Whether what alerts say is so: the trace once more, without detectors.
//!
//! Each alert tells a window, a number that was observed in it, what it is held against and by what factor. A second look at the signals, which
//! shares nothing with the detectors but the trace, counts them for the subject and the window that the alert names, up to the signal at which it was
//! told in its present form.
//!
//! | rule | what is counted | must be |
//! |---|---|---|
//! | `bulk_per_minute`, `new_account_burst` | messages of the sender in the window, of a young account only | as many; as many or more where the alert says that not all were kept |
//! | `business_reach`, `business_fresh_number` | different people written to that day, but for passcodes and notices; messages | at least as many; as many |
//! | `business_blocks` | blocks and founded reports by older accounts, as their voices count, and by those of their first week, up to their share | as many |
//! | `business_template` | blocks and founded reports of one template by older accounts, and by those of their first week, up to their share, from the hour of its first message on; its messages | as many, or the least that is told where they are fewer than ten; as many |
//! | `report_brigade` | unfounded reports, and blocks and reports by accounts of their first week; or these and voices that are together or heard all the time | as many |
//! | `group_mass_add`, `group_link_joins` | members added; joined by link | as many |
//! | `group_reports` | reports, as they count | as many, and where not every bucket was kept up to as many as there were |
//! | `group_report_brigade` | reports by accounts that are together, or that weigh less, whichever are more | as many, and where not every bucket was kept up to as many reports as there were |
//! | `group_listed` | hits; different lists and fields | as many; as many |
//! | `group_creation_burst` | groups that the account made, by the hour | as many |
//! | `group_churn` | who came and left; who left | as many; as many or more |
//! | `slow_bulk`, `coordinated_senders` | different people written to, each day's apart, by a subject that the truth knows | at least as many contacts as it is told of |
//!
//! Beside that, of every alert: observed reaches the threshold, unless it says that it does not hold any more, and the factor is observed over the baseline
//! or, where there is none, over the threshold. What other rules say is judged by that alone, and counted apart.

mod voices;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context as _;
use arrow::array::{Array as _, AsArray as _, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use starling_integrity::{Alert, Rules, VoiceWeights, template_fingerprint};
use starling_schemas::codes::{Category, ReporterRate, SignalKind};
use starling_schemas::ids::EpochId;
use starling_schemas::voice::Voice;

use super::{Raised, Subjects};
use voices::Together;

/// An hour: evidence of the reply test is dated by its contacts, and those of one who is known go by other names on other days.
const HOUR_MS: i64 = 3_600_000;

/// What was counted for one alert.
#[derive(Debug, Default)]
struct Counted {
    main: u64,
    beside: u64,
    people: HashSet<[u8; 16]>,
    pairs: HashSet<[u8; 8]>,
    messages: u64,
    lists: HashSet<(u8, String)>,
    together: Together,
}

/// One signal, as far as it is counted.
struct Signal {
    kind: SignalKind,
    time_ms: i64,
    is_copy: bool,
    count: u64,
    /// Of a block or report, also of a group: by an account of its first week.
    by_newcomer: bool,
    category: Option<Category>,
    age_s: Option<u64>,
    person: Option<[u8; 16]>,
    pair: Option<[u8; 8]>,
    listed: Option<(u8, String)>,
    voice: Voice,
    template: Option<String>,
}

/// The second look.
pub(super) struct Recount<'a> {
    raised: &'a [Raised],
    subjects: &'a Subjects,
    young_s: u64,
    young_share: f64,
    weights: VoiceWeights,
    /// Of fewer than ten blocks and reports of a template this many are told.
    least_feedback: u64,
    /// What a report of a group weighs at least, in quarters.
    lightest: u64,
    /// Places in `raised` by whom they are about.
    of_keyed: HashMap<[u8; 16], Vec<usize>>,
    of_place: HashMap<usize, Vec<usize>>,
    of_business: HashMap<&'a str, Vec<usize>>,
    counted: Vec<Counted>,
    next: u64,
}

/// What it came to, by rule: alerts whose numbers are right, and all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recounted {
    pub(super) by_rule: BTreeMap<String, (u64, u64)>,
    /// Alerts of rules that are not known here, whose arithmetic alone was looked at.
    pub(super) arithmetic_only: u64,
}

impl<'a> Recount<'a> {
    pub(super) fn new(raised: &'a [Raised], subjects: &'a Subjects, rules: &Rules) -> Self {
        let mut new = Self {
            raised,
            subjects,
            young_s: rules.new_account_burst.account_age_s,
            young_share: rules.business_blocks.young_share,
            weights: rules.business_blocks.voices.clone(),
            least_feedback: rules.business_template.feedback.into(),
            lightest: rules.business_blocks.voices.many.into(),
            of_keyed: HashMap::new(),
            of_place: HashMap::new(),
            of_business: HashMap::new(),
            counted: raised.iter().map(|_| Counted::default()).collect(),
            next: 0,
        };
        for (nth, one) in raised.iter().enumerate() {
            let subject = &one.alert.subject;
            match (subject.kind.as_str(), one.place, over_days(&one.alert)) {
                ("business", ..) => new.of_business.entry(&subject.value).or_default().push(nth),
                (_, Some(place), true) => new.of_place.entry(place).or_default().push(nth),
                _ => {
                    if let Some(form) = unhex(&subject.value) {
                        new.of_keyed.entry(form).or_default().push(nth);
                    }
                }
            }
        }
        new
    }

    /// Counts a range of the trace, in the order in which it was taken before.
    pub(super) fn take(&mut self, rows: &RecordBatch, order: &[usize]) -> anyhow::Result<()> {
        let column = |name: &str| rows.column_by_name(name).context("signals have their columns");
        let time = column("time")?.as_primitive::<TimestampMillisecondType>();
        let overlap = column("overlap")?.as_boolean();
        let (person, group) = (column("person")?.as_fixed_size_binary(), column("group")?.as_fixed_size_binary());
        let pair = column("pair")?.as_fixed_size_binary();
        let business = column("business")?.as_string::<i32>();
        let (kind, category) = (column("kind")?.as_primitive::<UInt8Type>(), column("category")?.as_primitive::<UInt8Type>());
        let count = column("count")?.as_primitive::<UInt32Type>();
        let strangers = column("strangers")?.as_primitive::<UInt32Type>();
        let age = column("account_age_s")?.as_primitive::<UInt64Type>();
        let (list, listed) = (column("list")?.as_string::<i32>(), column("listed")?.as_primitive::<UInt8Type>());
        let voice = column("voice")?.as_primitive::<UInt16Type>();
        let template = column("template")?.as_string::<i32>();
        for &row in order {
            let nth = self.next;
            self.next += 1;
            let Some(kind) = SignalKind::from_code(kind.value(row)) else { continue };
            let person = bytes::<16>(person, row);
            let signal = Signal {
                kind,
                time_ms: time.value(row),
                is_copy: overlap.value(row),
                count: if count.is_valid(row) { count.value(row).into() } else { 0 },
                by_newcomer: strangers.value(row) > 0,
                category: Category::from_code(category.value(row)),
                age_s: age.is_valid(row).then(|| age.value(row)),
                person,
                pair: bytes::<8>(pair, row),
                listed: listed.is_valid(row).then(|| (listed.value(row), list.value(row).to_owned())),
                voice: if voice.is_valid(row) { Voice::from_code(voice.value(row)) } else { Voice::default() },
                template: template.is_valid(row).then(|| template.value(row).to_owned()),
            };
            let is_contact = kind == SignalKind::Contact;
            let group = if is_contact { None } else { bytes::<16>(group, row) };
            if let Some(business) = business.is_valid(row).then(|| business.value(row)) {
                for place in self.of_business.get(business).cloned().unwrap_or_default() {
                    self.count(place, nth, &signal);
                }
                continue;
            }
            let Some(form) = group.or(person) else { continue };
            for place in self.of_keyed.get(&form).cloned().unwrap_or_default() {
                self.count(place, nth, &signal);
            }
            if is_contact && let Some(known) = self.subjects.keyed.get(&form) {
                for place in self.of_place.get(known).cloned().unwrap_or_default() {
                    self.count(place, nth, &signal);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, place: usize, nth: u64, signal: &Signal) {
        let (Some(raised), Some(counted)) = (self.raised.get(place), self.counted.get_mut(place)) else { return };
        if nth > raised.told_at {
            return;
        }
        let alert = &raised.alert;
        let (window, time_ms) = (&alert.window, signal.time_ms);
        let closed = (window.start_ms..=window.end_ms).contains(&time_ms);
        let open = (window.start_ms..window.end_ms).contains(&time_ms);
        let from_its_hour = (window.start_ms - window.start_ms.rem_euclid(HOUR_MS)..=window.end_ms).contains(&time_ms);
        let same_day = EpochId::of(time_ms) == EpochId::of(window.start_ms);
        let is_young = signal.age_s.is_some_and(|age| age <= self.young_s);
        let is_founded = signal.kind == SignalKind::Blocked || signal.count > 0;
        let (main, beside) = (&mut counted.main, &mut counted.beside);
        match (alert.rule.as_str(), signal.kind) {
            ("bulk_per_minute", SignalKind::MessageSent) if closed => *main += 1,
            ("new_account_burst", SignalKind::MessageSent) if closed && is_young => *main += 1,
            // Copies are for windows of senders alone.
            (rule, SignalKind::Contact) if over_days_rule(rule) && !signal.is_copy => {
                let around = window.start_ms.saturating_sub(HOUR_MS)..=window.end_ms.saturating_add(HOUR_MS);
                counted.pairs.extend(signal.pair.filter(|_| around.contains(&time_ms)));
            }
            _ if signal.is_copy => {}
            ("business_reach" | "business_fresh_number", SignalKind::BusinessSent) if same_day => {
                *beside += 1;
                let counts = !matches!(signal.category, Some(Category::Authentication | Category::Utility));
                counted.people.extend(signal.person.filter(|_| counts));
            }
            ("business_blocks", SignalKind::Blocked | SignalKind::Reported) if same_day && is_founded => {
                if signal.by_newcomer {
                    *beside += 1;
                } else {
                    counted.together.take(signal.voice, &self.weights);
                }
            }
            ("business_template", SignalKind::BusinessSent) if closed && is_of_template(alert, signal) => counted.messages += 1,
            ("business_template", SignalKind::Blocked | SignalKind::Reported)
                if is_founded && from_its_hour && is_of_template(alert, signal) =>
            {
                *(if signal.by_newcomer { beside } else { main }) += 1;
            }
            ("report_brigade", SignalKind::Blocked | SignalKind::Reported) if same_day && (!is_founded || signal.by_newcomer) => {
                *main += 1;
            }
            ("report_brigade", SignalKind::Blocked | SignalKind::Reported) if same_day => {
                counted.together.take(signal.voice, &self.weights);
            }
            ("group_mass_add", SignalKind::MembersAdded) if open => *main += signal.count,
            ("group_link_joins", SignalKind::GroupJoined) if open => *main += 1,
            ("group_reports" | "group_report_brigade", SignalKind::GroupReported) if open => {
                *main += 1;
                let rate = if signal.by_newcomer { ReporterRate::Many } else { signal.voice.rate };
                counted.together.take(Voice { rate, ..signal.voice }, &self.weights);
            }
            ("group_listed", SignalKind::GroupListed) if closed => {
                *main += 1;
                counted.lists.extend(signal.listed.clone());
            }
            ("group_creation_burst", SignalKind::GroupMade) if open => *main += signal.count,
            ("group_churn", SignalKind::MembersAdded) if open => *main += signal.count,
            ("group_churn", SignalKind::GroupJoined) if open => *main += 1,
            ("group_churn", SignalKind::GroupLeft) if open => (*main, *beside) = (*main + 1, *beside + 1),
            _ => {}
        }
    }

    /// Compares.
    pub(super) fn judge(self) -> Recounted {
        let mut told = Recounted::default();
        for (raised, counted) in self.raised.iter().zip(&self.counted) {
            let alert = &raised.alert;
            let by_count = counts(alert, counted, raised.place.is_some(), (self.young_share, self.least_feedback, self.lightest));
            told.arithmetic_only += u64::from(by_count.is_none());
            let (right, all) = told.by_rule.entry(alert.rule.clone()).or_default();
            *right += u64::from(by_count.unwrap_or(true) && arithmetic(alert));
            *all += 1;
        }
        told
    }
}

/// Whether the counts are those of the alert; `None` where nothing here can say.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn counts(
    alert: &Alert,
    counted: &Counted,
    is_known: bool,
    (young_share, least_feedback, lightest): (f64, u64, u64),
) -> Option<bool> {
    let (main, beside) = (counted.main, counted.beside);
    let objections = main + beside.min((main as f64 * young_share) as u64);
    Some(match alert.rule.as_str() {
        "bulk_per_minute" | "new_account_burst" if !alert.data_gaps.is_empty() => main >= alert.observed,
        "business_blocks" => {
            let older = counted.together.counted();
            older + beside.min((older as f64 * young_share) as u64) == alert.observed
        }
        "business_template" => {
            let told = match objections.min(counted.messages) {
                many @ 10.. => many,
                few if few >= least_feedback => least_feedback,
                _ => 0,
            };
            told == alert.observed && counted.messages == alert.evidence
        }
        // Less than ten are told as none where it does not hold any more.
        "report_brigade" => {
            let told = |n: u64| alert.observed == n || (n < 10 && alert.observed == 0);
            told(main) || told(main + counted.together.arranged())
        }
        "bulk_per_minute" | "new_account_burst" => main == alert.observed,
        "group_mass_add" | "group_link_joins" => main == alert.observed,
        "group_reports" => (counted.together.counted()..=main).contains(&alert.observed),
        // Less than ten are told as none where it does not hold any more.
        "group_report_brigade" => {
            let exact = counted.together.arranged_in_group(lightest);
            alert.observed == exact
                || (exact < 10 && alert.observed == 0)
                || (counted.together.is_of_many_buckets() && alert.observed <= main)
        }
        "business_reach" | "business_fresh_number" => counted.people.len() as u64 >= alert.observed && beside == alert.evidence,
        "group_listed" => main == alert.evidence && counted.lists.len() as u64 == alert.observed,
        "group_creation_burst" => main == alert.observed,
        "group_churn" => main == alert.evidence && beside >= alert.observed,
        "slow_bulk" if is_known => counted.pairs.len() as u64 >= alert.observed,
        // Its number is of its cohort, which nothing here knows; of its own contacts there must be some.
        "coordinated_senders" if is_known => !counted.pairs.is_empty(),
        _ => return None,
    })
}

/// Whether a signal names the template that an alert is about.
fn is_of_template(alert: &Alert, signal: &Signal) -> bool {
    let of = |name: &String| template_fingerprint(&alert.subject.value, name, EpochId::of(alert.first_ms).0);
    signal.template.as_ref().is_some_and(|name| of(name) == alert.fingerprint)
}

/// Whether what is told of the numbers follows from them.
#[allow(clippy::cast_precision_loss)]
fn arithmetic(alert: &Alert) -> bool {
    let base = alert.baseline.value.unwrap_or(alert.threshold as f64);
    let factor = match alert.rule.as_str() {
        // Counts of the cohort, where chance may make less than one.
        "coordinated_senders" => alert.factor,
        _ => alert.observed as f64 / base,
    };
    let says_undone = alert.explanation.starts_with("No longer holds");
    (alert.stands() != says_undone) && alert.factor.is_finite() && (factor - alert.factor).abs() <= 0.006 + 1e-3 * factor
}

fn over_days(alert: &Alert) -> bool {
    over_days_rule(&alert.rule)
}

fn over_days_rule(rule: &str) -> bool {
    matches!(rule, "slow_bulk" | "coordinated_senders")
}

fn bytes<const N: usize>(column: &FixedSizeBinaryArray, row: usize) -> Option<[u8; N]> {
    if column.is_valid(row) { column.value(row).try_into().ok() } else { None }
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut out = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (nth, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * nth..2 * nth + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, FixedSizeBinaryArray, StringArray, TimestampMillisecondArray, UInt8Array, UInt16Array,
        UInt32Array, UInt64Array,
    };
    use arrow::datatypes::{Field, Schema};
    use starling_integrity::{Baseline, SeenWindow, Subject};

    use super::*;

    const START: i64 = 1_767_600_000_000;
    /// Blocks and reports of these and above are by accounts of their first week.
    const NEWCOMER: u8 = 0xf0;

    /// Signals with a second between them: kind, business, count, and who is at the other end.
    fn signals(rows: &[(SignalKind, &str, u32, u8)]) -> RecordBatch {
        let none = |len: usize, width: i32| {
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(vec![None::<&[u8]>; len].into_iter(), width).expect("none"),
            ) as ArrayRef
        };
        let people: Vec<[u8; 16]> = rows.iter().map(|row| [row.3; 16]).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("time", Arc::new(TimestampMillisecondArray::from_iter_values((0..rows.len() as i64).map(|n| START + n * 1000)))),
            ("overlap", Arc::new(BooleanArray::from(vec![false; rows.len()]))),
            ("person", Arc::new(FixedSizeBinaryArray::try_from_iter(people.iter()).expect("sixteen"))),
            ("group", none(rows.len(), 16)),
            ("pair", none(rows.len(), 8)),
            ("business", Arc::new(StringArray::from_iter(rows.iter().map(|r| (!r.1.is_empty()).then_some(r.1))))),
            ("kind", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| r.0.code())))),
            ("category", Arc::new(UInt8Array::from_iter_values(rows.iter().map(|_| Category::Marketing.code())))),
            ("count", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| r.2)))),
            // Who is at the other end says in these tests whether it is a newcomer.
            ("strangers", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| u32::from(r.3 >= NEWCOMER))))),
            ("account_age_s", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|_| 60)))),
            // Of a listed group whom it is about says which of two lists it is on.
            ("list", Arc::new(StringArray::from_iter(rows.iter().map(|r| (r.0 == SignalKind::GroupListed).then_some("a"))))),
            // Templates are named by whom they are about, too.
            ("template", Arc::new(StringArray::from_iter(rows.iter().map(|r| (!r.1.is_empty()).then(|| format!("t-{}", r.2)))))),
            (
                "listed",
                Arc::new(UInt8Array::from_iter(rows.iter().map(|r| (r.0 == SignalKind::GroupListed).then_some(r.2 as u8)))),
            ),
            // And whom it is about out of which cohort.
            (
                "voice",
                Arc::new(UInt16Array::from_iter(rows.iter().map(|r| {
                    let is_said = matches!(r.0, SignalKind::Blocked | SignalKind::GroupReported) && r.2 == 7;
                    is_said.then(|| Voice { bucket: Some(r.3), ..Voice::default() }.code()).flatten()
                }))),
            ),
        ];
        let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
            .expect("columns")
    }

    fn alert(rule: &str, (kind, subject): (&str, &str), observed: u64, evidence: u64) -> Raised {
        Raised {
            alert: Alert {
                fingerprint: String::new(),
                rule: rule.to_owned(),
                rule_version: 1,
                severity: "low".to_owned(),
                subject: Subject { kind: kind.to_owned(), value: subject.to_owned(), epoch: None },
                window: SeenWindow { start_ms: START, end_ms: START + 60_000 },
                observed,
                threshold: 2,
                baseline: Baseline { kind: "rule".to_owned(), value: None },
                factor: observed as f64 / 2.0,
                evidence,
                counter_evidence: Vec::new(),
                explanation: String::new(),
                data_gaps: Vec::new(),
                first_ms: START,
                last_ms: START,
                revision: 1,
                // Fields that a rule of another kind may add.
                ..no_alert()
            },
            at_ms: START,
            place: None,
            sent_before: 0,
            told_at: 100,
        }
    }

    fn no_alert() -> Alert {
        serde_json::from_value(serde_json::json!({
            "fingerprint": "", "rule": "", "rule_version": 1, "severity": "low", "subject": {"kind": "", "value": "", "epoch": null},
            "window": {"start_ms": 0, "end_ms": 0}, "observed": 0, "threshold": 0, "baseline": {"kind": "rule", "value": null}, "factor": 0.0,
            "evidence": 0, "counter_evidence": [], "explanation": "", "data_gaps": [], "first_ms": 0, "last_ms": 0, "revision": 0
        }))
        .expect("an alert")
    }

    fn right(raised: Raised, rows: &RecordBatch) -> bool {
        let (raised, subjects) = (vec![raised], Subjects::default());
        let mut recount = Recount::new(&raised, &subjects, &Rules::builtin().expect("reviewed text"));
        recount.take(rows, &(0..rows.num_rows()).collect::<Vec<_>>()).expect("counts");
        let told = recount.judge();
        assert_eq!(told.arithmetic_only, 0);
        told.by_rule.values().all(|(right, all)| (*right, *all) == (1, 1))
    }

    #[test]
    fn an_alert_that_tells_one_more_or_less_than_there_was_is_not_recounted() {
        use SignalKind::{Blocked, BusinessSent, GroupListed, GroupMade, MessageSent, Reported};
        let rows = signals(&[
            (BusinessSent, "b", 1, 1),
            (BusinessSent, "b", 1, 1),
            (BusinessSent, "b", 1, 2),
            (BusinessSent, "b", 1, 3),
            (BusinessSent, "other", 1, 4),
            (Blocked, "b", 1, 1),
            (Reported, "b", 1, 2),
            (Blocked, "b", 1, 3),
            (Reported, "b", 0, 5),
            (Reported, "b", 0, 6),
            (MessageSent, "", 1, 0xab),
            (MessageSent, "", 1, 0xab),
            (MessageSent, "", 1, 0xcd),
            (GroupMade, "", 4, 0xab),
            (GroupMade, "", 3, 0xab),
            (GroupMade, "", 9, 0xcd),
            (GroupListed, "", 1, 0xab),
            (GroupListed, "", 3, 0xab),
            (GroupListed, "", 3, 0xab),
        ]);
        let person = "abababababababababababababababab";
        let cases = [
            (("business_blocks", ("business", "b")), 3, 0, [2, 4]),
            (("report_brigade", ("business", "b")), 2, 0, [1, 3]),
            (("bulk_per_minute", ("person", person)), 2, 0, [1, 3]),
            (("new_account_burst", ("person", person)), 2, 0, [1, 3]),
            (("group_creation_burst", ("person", person)), 7, 0, [6, 16]),
            (("group_listed", ("group", person)), 2, 3, [1, 3]),
        ];
        for ((rule, subject), observed, evidence, wrong) in cases {
            assert!(right(alert(rule, subject, observed, evidence), &rows), "{rule}");
            for wrong in wrong {
                assert!(!right(alert(rule, subject, wrong, evidence), &rows), "{rule}: {wrong}");
            }
        }
        // Of four older ones and three newcomers five count, and the newcomers are a brigade.
        let young = signals(&[
            (Blocked, "b", 1, 1),
            (Blocked, "b", 1, 2),
            (Reported, "b", 1, 3),
            (Blocked, "b", 1, 4),
            (Blocked, "b", 1, NEWCOMER),
            (Reported, "b", 1, NEWCOMER),
            (Reported, "b", 1, NEWCOMER + 1),
        ]);
        for (rule, right_one) in [("business_blocks", 5), ("report_brigade", 3)] {
            for observed in 3..8 {
                assert_eq!(
                    right(alert(rule, ("business", "b"), observed, 0), &young),
                    observed == right_one,
                    "{rule}: {observed}"
                );
            }
        }
        // Twelve that were registered together count as three, beside two others, and are a brigade.
        let together: Vec<_> =
            (0..12).map(|_| (Blocked, "b", 7, 9)).chain([(Reported, "b", 1, 1), (Blocked, "b", 7, 8)]).collect();
        let together = signals(&together);
        for (rule, right_one) in [("business_blocks", 5), ("report_brigade", 12)] {
            for observed in 3..16 {
                assert_eq!(
                    right(alert(rule, ("business", "b"), observed, 0), &together),
                    observed == right_one,
                    "{rule}: {observed}"
                );
            }
        }
        // Of a group: fourteen reports out of one cohort beside three; or by newcomers, who weigh a quarter.
        for who in [9, NEWCOMER] {
            let reports: Vec<_> =
                [vec![7; 14], vec![1; 3]].concat().into_iter().map(|of| (SignalKind::GroupReported, "", of, who)).collect();
            let (reports, group) = (signals(&reports), format!("{who:02x}").repeat(16));
            let right_one = if who == 9 { 14 } else { 17 };
            for observed in 10..20 {
                assert_eq!(
                    right(alert("group_report_brigade", ("group", &group), observed, 0), &reports),
                    observed == right_one,
                    "{who}: {observed}"
                );
            }
        }
        // Of people a lower bound may be told, of messages nothing but how many there were.
        let reach = |observed, evidence| right(alert("business_reach", ("business", "b"), observed, evidence), &rows);
        assert!(reach(3, 4) && reach(2, 4) && !reach(4, 4) && !reach(3, 3) && !reach(3, 5));
        let fresh = |observed| right(alert("business_fresh_number", ("business", "b"), observed, 4), &rows);
        assert!(fresh(3) && fresh(2) && !fresh(4));
    }

    #[test]
    fn of_a_template_its_own_messages_and_objections_are_counted_and_few_are_told_as_the_least_there_can_be() {
        use SignalKind::{Blocked, BusinessSent, Reported};
        let many = |kind, template, n| vec![(kind, "b", template, 1); n];
        let rows = [
            many(BusinessSent, 1, 12),
            many(Blocked, 1, 10),
            many(Reported, 1, 1),
            many(BusinessSent, 2, 9),
            many(Blocked, 2, 9),
        ];
        let rows = signals(&rows.concat());
        let told = |name: &str, observed, evidence| {
            let mut raised = alert("business_template", ("business", "b"), observed, evidence);
            raised.alert.fingerprint = template_fingerprint("b", name, EpochId::of(START).0);
            right(raised, &rows)
        };
        assert!(told("t-1", 11, 12) && !told("t-1", 10, 12) && !told("t-1", 12, 12) && !told("t-1", 11, 21));
        assert!(told("t-2", 8, 9) && !told("t-2", 9, 9) && !told("t-2", 8, 12) && !told("t-3", 8, 9));
    }

    #[test]
    fn what_is_told_must_follow_from_its_own_numbers() {
        let rows =
            signals(&[(SignalKind::Blocked, "b", 1, 1), (SignalKind::Blocked, "b", 1, 2), (SignalKind::Blocked, "b", 1, 3)]);
        let told = |change: &dyn Fn(&mut Alert)| {
            let mut raised = alert("report_brigade", ("business", "b"), 0, 0);
            raised.alert.rule = "group_reports".to_owned();
            change(&mut raised.alert);
            right(raised, &rows)
        };
        assert!(!told(&|_| {}), "it does not reach its threshold");
        assert!(told(&|alert| alert.explanation = "No longer holds, by signals that came late.".to_owned()));
        assert!(told(&|alert| (alert.threshold, alert.factor, alert.baseline.value) = (0, 0.0, Some(7.0))));
        assert!(!told(&|alert| (alert.threshold, alert.factor, alert.baseline.value) = (0, 1.0, Some(7.0))));
    }

    #[test]
    fn what_came_after_an_alert_was_told_is_not_counted_for_it() {
        let rows =
            signals(&[(SignalKind::Blocked, "b", 1, 1), (SignalKind::Blocked, "b", 1, 2), (SignalKind::Blocked, "b", 1, 3)]);
        let told_at = |nth| right(Raised { told_at: nth, ..alert("business_blocks", ("business", "b"), 2, 0) }, &rows);
        assert!(told_at(1) && !told_at(0) && !told_at(2));
    }
}
