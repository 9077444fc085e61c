//! Replays the text messages and calls of the Copenhagen Networks Study as events.
//!
//! Sapiezynski, Stopczynski, Lassen, Lehmann: "Interaction data from the Copenhagen Networks Study", Scientific Data 6, 2019; figshare
//! 7267433, CC BY 4.0. Messages: `timestamp,sender,recipient`; calls: `timestamp,sender,recipient,duration_s`, -1 for a missed call.
//! Times are seconds from the start of the study. Person n gets the number `+45` and n as eight digits, a range that is not assigned.

use std::collections::HashMap;
use std::io::{self, BufRead};

use prost::Message as _;
use starling_schemas::codes::{AccountAge, Activity, ClientVersion, Detail, PlatformCode};
use starling_schemas::event::event::Body;
use starling_schemas::event::{
    AgeBand, CallEnded, CallKind, CallQuality, Choices, Client, ConversationKind, Event, MediaKind, MessageSent, Platform,
    SizeClass,
};
use starling_schemas::ids::EpochId;

use super::rng::mix2;
use super::truth::{Counter, Observation, Truth};
use super::{GeneratedEvent, kinds};

/// Header of the file of messages.
const MESSAGES: &[&str] = &["timestamp", "sender", "recipient"];
/// Header of the file of calls.
const CALLS: &[&str] = &["timestamp", "sender", "recipient", "duration_s"];
/// Numbers have eight digits after the calling code, and the table of who was seen has a byte for each number up to the largest.
const LARGEST_PERSON: u32 = 9_999_999;
/// A hundred years.
const LARGEST_TIME_S: i64 = 3_155_760_000;

/// Why a trace cannot be replayed. No text holds a value of the trace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The file could not be read.
    #[error("{file}, line {line}: cannot be read: {source}")]
    Read {
        /// `messages` or `calls`.
        file: &'static str,
        /// Line from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// Another header than expected.
    #[error("{file}, line 1: the header must be `{expected}`")]
    Header {
        /// `messages` or `calls`.
        file: &'static str,
        /// The header as it should be.
        expected: String,
    },
    /// Too few or too many columns.
    #[error("{file}, line {line}: {expected} columns are needed, with commas between them")]
    Columns {
        /// `messages` or `calls`.
        file: &'static str,
        /// Line from 1.
        line: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A column is no number, or out of range.
    #[error("{file}, line {line}: {column} is no whole number within its range ({range})")]
    Value {
        /// `messages` or `calls`.
        file: &'static str,
        /// Line from 1.
        line: usize,
        /// Which column.
        column: &'static str,
        /// What is allowed.
        range: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
struct Row {
    time_s: i64,
    sender: u32,
    recipient: u32,
    /// Of calls: seconds, -1 for a missed one.
    call: Option<i64>,
}

/// A trace in memory, in the order of its times.
#[derive(Debug)]
pub(crate) struct Replay {
    rows: Vec<Row>,
    start_ms: i64,
}

impl Replay {
    /// Reads both files. Second 0 of the study becomes `start_ms`, milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`ReplayError`] with file and line.
    pub(crate) fn read(messages: impl BufRead, calls: impl BufRead, start_ms: i64) -> Result<Self, ReplayError> {
        let mut rows = Vec::new();
        read_file("messages", MESSAGES, messages, &mut rows)?;
        read_file("calls", CALLS, calls, &mut rows)?;
        // Stable: within a second the order of the files stands.
        rows.sort_by_key(|row| row.time_s);
        Ok(Self { rows, start_ms })
    }

    /// Events there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Milliseconds since the study began, sender, recipient, and whether it was a call; in the order of time.
    pub(super) fn contacts(&self) -> impl Iterator<Item = (i64, u32, u32, bool)> {
        self.rows.iter().map(|row| (row.time_s * 1000, row.sender, row.recipient, row.call.is_some()))
    }

    /// Hands every event to `sink`, in the order of time, and returns the true values.
    ///
    /// # Errors
    /// The first error of `sink`; nothing is handed out after it.
    pub(crate) fn for_each_event<E>(&self, sink: &mut dyn FnMut(GeneratedEvent<'_>) -> Result<(), E>) -> Result<Truth, E> {
        let largest = self.rows.iter().map(|row| row.sender).max().unwrap_or_default();
        let first = self.rows.first().map_or(self.start_ms, |row| self.time_ms(row));
        let mut counter = Counter::new(vec!["DK"], largest as usize + 1, EpochId::of(first));
        // Who wrote last, by pair with the smaller person first.
        let mut threads: HashMap<(u32, u32), u32> = HashMap::new();
        let mut senders = vec![false; largest as usize + 1];
        let mut bytes = Vec::with_capacity(256);
        for row in &self.rows {
            let time_ms = self.time_ms(row);
            let (body, kind, activity, seconds) = match row.call {
                Some(duration_s) => call(row, duration_s),
                None => message(row, threads.insert((row.sender.min(row.recipient), row.sender.max(row.recipient)), row.sender)),
            };
            let event = Event {
                event_time_ms: time_ms,
                actor: number(row.sender),
                client: Some(Client { platform: Platform::Android.into(), ..Client::default() }),
                region: "eu".to_owned(),
                choices: Some(Choices { analytics_consent: true, age_band: AgeBand::Adult.into(), ..Choices::default() }),
                // Nothing is known of the accounts but that they existed: a year.
                account_age_s: Some(31_536_000),
                cohort: Vec::new(),
                body: Some(body),
                ..Event::default()
            };
            let detail = event.body.as_ref().map_or(Detail::NONE, kinds::detail);
            bytes.clear();
            // A Vec grows: encoding into it cannot fail.
            let _ = event.encode(&mut bytes);
            let platform = PlatformCode::Android;
            counter.observe(
                time_ms,
                &Observation {
                    slot: row.sender,
                    country: 0,
                    platform,
                    version: ClientVersion::UNKNOWN,
                    account: AccountAge::of(event.account_age_s),
                    kind,
                    countable: Some(activity),
                    detail,
                    seconds,
                },
            );
            if let Some(sender) = senders.get_mut(row.sender as usize) {
                *sender = true;
            }
            sink(GeneratedEvent { time_ms, key: mix2(0, u64::from(row.sender)).to_be_bytes(), encoded: &bytes })?;
        }
        let mut truth = Truth { people: senders.iter().filter(|s| **s).count() as u64, ..Truth::default() };
        counter.finish(&mut truth);
        Ok(truth)
    }

    fn time_ms(&self, row: &Row) -> i64 {
        self.start_ms.saturating_add(row.time_s * 1000)
    }
}

/// The number of person `n` of the trace.
pub(crate) fn number(n: u32) -> String {
    format!("+45{n:08}")
}

fn message(row: &Row, wrote_last: Option<u32>) -> (Body, usize, Activity, u32) {
    let message = MessageSent {
        to_person: number(row.recipient),
        conversation: ConversationKind::Person.into(),
        media: MediaKind::Text.into(),
        size: SizeClass::UpTo1Kib.into(),
        thread_is_new: wrote_last.is_none(),
        is_reply: wrote_last.is_some_and(|last| last != row.sender),
        ..MessageSent::default()
    };
    (Body::MessageSent(message), 3, Activity::MessagePerson, 0)
}

fn call(row: &Row, duration_s: i64) -> (Body, usize, Activity, u32) {
    let seconds = u32::try_from(duration_s).unwrap_or(0);
    let call = CallEnded {
        peer: number(row.recipient),
        kind: CallKind::Voice.into(),
        duration_s: seconds,
        quality: CallQuality::Unspecified.into(),
        missed: duration_s < 0,
    };
    (Body::CallEnded(call), 4, Activity::CallVoice, seconds)
}

fn read_file(
    file: &'static str,
    header: &'static [&'static str],
    input: impl BufRead,
    rows: &mut Vec<Row>,
) -> Result<(), ReplayError> {
    let mut lines = input.lines().enumerate();
    let first = match lines.next() {
        Some((_, line)) => line.map_err(|source| ReplayError::Read { file, line: 1, source })?,
        // An empty file is a trace without such events.
        None => return Ok(()),
    };
    if !first.trim_end().split(',').eq(header.iter().copied()) {
        return Err(ReplayError::Header { file, expected: header.join(",") });
    }
    for (index, text) in lines {
        let line = index + 1;
        let text = text.map_err(|source| ReplayError::Read { file, line, source })?;
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        let fields: Vec<&str> = text.split(',').collect();
        if fields.len() != header.len() {
            return Err(ReplayError::Columns { file, line, expected: header.len() });
        }
        let value = |at: usize, min: i64, max: i64, range: &'static str| {
            let parsed = fields.get(at).and_then(|f| f.trim().parse::<i64>().ok()).filter(|v| (min..=max).contains(v));
            parsed.ok_or(ReplayError::Value { file, line, column: header.get(at).copied().unwrap_or_default(), range })
        };
        let person = |at| value(at, 0, LARGEST_PERSON.into(), "0 to 9999999").map(|n| u32::try_from(n).unwrap_or_default());
        rows.push(Row {
            time_s: value(0, 0, LARGEST_TIME_S, "seconds, from 0")?,
            sender: person(1)?,
            recipient: person(2)?,
            call: if header.len() > 3 { Some(value(3, -1, i64::from(u32::MAX), "-1 or seconds")?) } else { None },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_767_571_200_000;

    fn events(messages: &str, calls: &str) -> (Vec<Event>, Truth) {
        let replay = Replay::read(messages.as_bytes(), calls.as_bytes(), START).expect("a good trace");
        let mut out = Vec::new();
        let truth = replay
            .for_each_event(&mut |e| {
                out.push(Event::decode(e.encoded).expect("decodes"));
                Ok::<(), ()>(())
            })
            .expect("the sink never fails");
        assert_eq!(out.len(), replay.len());
        (out, truth)
    }

    #[test]
    fn messages_and_calls_come_in_the_order_of_time_with_their_history() {
        let (events, truth) = events(
            "timestamp,sender,recipient\n18,370,512\n37,512,370\n40,512,370\n90000,370,1\n",
            "timestamp,sender,recipient,duration_s\n20,300,301,121\n50,301,300,-1\n",
        );
        let times: Vec<i64> = events.iter().map(|e| (e.event_time_ms - START) / 1000).collect();
        assert_eq!(times, [18, 20, 37, 40, 50, 90_000]);
        let flags: Vec<(bool, bool)> = events
            .iter()
            .filter_map(|e| match &e.body {
                Some(Body::MessageSent(m)) => Some((m.thread_is_new, m.is_reply)),
                _ => None,
            })
            .collect();
        assert_eq!(flags, [(true, false), (false, true), (false, false), (true, false)]);
        assert_eq!(events[0].actor, "+4500000370");
        assert!(matches!(&events[4].body, Some(Body::CallEnded(c)) if c.missed && c.duration_s == 0));
        assert_eq!((truth.people, truth.events, truth.days.len()), (4, 6, 2));
        assert_eq!(truth.days[0].call_seconds[0].seconds, 121);
        assert_eq!(truth.days[0].messages[0].messages, 3);
    }

    #[test]
    fn faults_are_told_by_file_and_line_without_the_value() {
        let calls = "timestamp,sender,recipient,duration_s\n";
        let error = |messages: &str, calls: &str| {
            Replay::read(messages.as_bytes(), calls.as_bytes(), START).expect_err("a bad trace").to_string()
        };
        assert_eq!(error("a,b\n", calls), "messages, line 1: the header must be `timestamp,sender,recipient`");
        assert_eq!(Replay::read("".as_bytes(), "".as_bytes(), START).expect("nothing is fine").len(), 0);
        let good = "timestamp,sender,recipient\n1,2,3\n";
        assert_eq!(error(&format!("{good}1,2\n"), calls), "messages, line 3: 3 columns are needed, with commas between them");
        assert_eq!(
            error(&format!("{good}1,secret,3\n"), calls),
            "messages, line 3: sender is no whole number within its range (0 to 9999999)"
        );
        assert_eq!(
            error(good, &format!("{calls}1,2,3,-2\n")),
            "calls, line 2: duration_s is no whole number within its range (-1 or seconds)"
        );
    }
}
