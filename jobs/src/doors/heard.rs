//! What is refused to whom at the doors, counted in memory and handed in every few seconds: for alerts on whoever tries them (P28,
//! `starling_integrity::on_us`).
//!
//! ```text
//!   Engine: each principal's statement ─┐
//!   logins, way_in: who is nobody ──────┼─► counts of this hour ── alerts.look_every_s ──► accounts and one entry in the log
//!   alerts: opened one by one ──────────┘        └ what was there before in this hour, by hashes: shapes of questions, names, alerts
//! ```
//!
//! A flood is so many lots an hour as calm is: numbers grow, entries do not. Handed in are numbers, and of names those of users and doors alone: a
//! name that is no user's may be a password. What is remembered to tell whether something is new is bounded, in this process's memory, and gone with
//! the hour. At an orderly stop what is left is handed in when the doors have closed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use starling_integrity::on_us::deeds;
use starling_query::{Form, Refused};
use starling_schemas::ids::EpochId;
use starling_store::DoorHour;
use tokio::sync::watch;

use crate::home::Home;
use crate::metrics::Work;

/// Most that is remembered of an hour, of each kind. What comes beyond is counted as if it had been there before.
const MOST: usize = 20_000;

/// Most lots that are handed in, or tried, when the doors have closed, the pause after one that failed, and how long all of it may take.
const LAST_TRIES: u32 = 8;
const LAST_PAUSE: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(5);

/// Whose count it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Door(&'static str),
    Principal(String),
}

type Counts = BTreeMap<(EpochId, Whose, &'static str), u64>;

/// Counts since they were handed in last, and what was there in this hour. One a process.
#[derive(Default)]
pub(crate) struct Heard(Mutex<State>);

#[derive(Default)]
struct State {
    counts: Counts,
    /// What is being handed in, until it is known to have arrived: under one name, so that it is added once.
    lot: Option<(String, Counts)>,
    lots: u64,
    hour: EpochId,
    /// Hashes of questions by their shape and who asked.
    questions: HashMap<u64, HashSet<[u8; 16]>>,
    questions_kept: usize,
    /// Hashes of names at a door, and of alerts that somebody opened.
    seen: HashSet<u64>,
    /// Differs in each process.
    hasher: RandomState,
}

impl State {
    fn at(&mut self, now_ms: i64) -> &mut Self {
        let hour = EpochId::hour_of(now_ms);
        if hour != self.hour {
            (self.hour, self.questions_kept) = (hour, 0);
            self.questions.clear();
            self.seen.clear();
        }
        self
    }

    fn add(&mut self, whose: Whose, what: &'static str) {
        let count = self.counts.entry((self.hour, whose, what)).or_default();
        *count = count.saturating_add(1);
    }

    /// Whether it was not there before in this hour.
    fn is_new(&mut self, what: (&str, &str, &str)) -> bool {
        let hash = self.hasher.hash_one(what);
        self.seen.len() < MOST && self.seen.insert(hash)
    }

    /// Whether it is new and an earlier question of the same principal was this one but for its literals.
    fn is_variant(&mut self, name: &str, form: Form) -> bool {
        if self.questions_kept >= MOST {
            return false;
        }
        let of_shape = self.questions.entry(self.hasher.hash_one((name, form.shape))).or_default();
        let is_first = of_shape.is_empty();
        let is_new = of_shape.insert(form.whole);
        self.questions_kept += usize::from(is_new);
        is_new && !is_first
    }
}

const fn word(refused: Refused) -> &'static str {
    match refused {
        Refused::Forbidden => deeds::FORBIDDEN,
        Refused::Unknown => deeds::UNKNOWN,
        Refused::Budget => deeds::BUDGET,
        Refused::Limits => deeds::LIMITS,
        Refused::Unfit => deeds::UNFIT,
    }
}

impl Heard {
    fn with<T>(&self, now_ms: i64, work: impl FnOnce(&mut State) -> T) -> T {
        work(self.0.lock().unwrap_or_else(PoisonError::into_inner).at(now_ms))
    }

    /// A statement of a principal is over.
    pub(crate) fn statement(&self, heard: &starling_query::Heard, now_ms: i64) {
        if heard.refused.is_none() && heard.question.is_none() {
            return;
        }
        self.with(now_ms, |state| {
            let whose = || Whose::Principal(heard.name.clone());
            if let Some(refused) = heard.refused {
                state.add(whose(), word(refused));
            }
            if heard.question.is_some_and(|form| state.is_variant(&heard.name, form)) {
                state.add(whose(), deeds::VARIANT);
            }
        });
    }

    /// A principal may not enter a room.
    pub(crate) fn forbidden(&self, name: &str, now_ms: i64) {
        self.with(now_ms, |state| state.add(Whose::Principal(name.to_owned()), deeds::FORBIDDEN));
    }

    /// A principal opened an alert or worked on it, or asked for one that is not there.
    pub(crate) fn alert(&self, name: &str, alert: &str, is_there: bool, now_ms: i64) {
        self.with(now_ms, |state| {
            if !is_there {
                state.add(Whose::Principal(name.to_owned()), deeds::MISSING);
            } else if state.is_new(("alert", name, alert)) {
                state.add(Whose::Principal(name.to_owned()), deeds::LOOKUP);
            }
        });
    }

    /// Somebody was refused a log-in under a name, which may be anything. `is_user`: there is such a user.
    pub(crate) fn login(&self, door: &'static str, name: &str, is_user: bool, now_ms: i64) {
        self.with(now_ms, |state| {
            state.add(Whose::Door(door), deeds::LOGIN);
            if state.is_new(("name", door, name)) {
                state.add(Whose::Door(door), deeds::NAME);
            }
            if is_user {
                state.add(Whose::Principal(name.to_owned()), deeds::LOGIN);
            }
        });
    }

    /// Somebody showed a token that is nobody's.
    pub(crate) fn token(&self, door: &'static str, now_ms: i64) {
        self.with(now_ms, |state| state.add(Whose::Door(door), deeds::TOKEN));
    }

    /// What is to be handed in, under its name: what was before and did not arrive, or all that was counted since.
    fn lot(&self) -> Option<(String, Vec<DoorHour>)> {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lot.is_none() && !state.counts.is_empty() {
            state.lots += 1;
            let name = format!("{:016x}-{}", state.hasher.hash_one("lots of this process"), state.lots);
            state.lot = Some((name, std::mem::take(&mut state.counts)));
        }
        state.lot.as_ref().map(|(name, counts)| (name.clone(), rows(counts)))
    }

    /// The lot has arrived.
    fn arrived(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lot = None;
    }
}

fn rows(counts: &Counts) -> Vec<DoorHour> {
    let row = |((hour, whose, what), times): (&(EpochId, Whose, &'static str), &u64)| {
        let (is_principal, name) = match whose {
            Whose::Door(door) => (false, (*door).to_owned()),
            Whose::Principal(name) => (true, name.clone()),
        };
        DoorHour { hour: *hour, is_principal, name, what: (*what).to_owned(), times: *times }
    };
    counts.iter().map(row).collect()
}

/// Hands in what was counted. What cannot be written is handed in again at the next time. Says whether it has arrived; `None`: there was nothing.
async fn hand_in_once(home: &Home) -> Option<bool> {
    let (name, counted) = home.heard.lot()?;
    match home.metastore.add_door_hours(&name, &counted, home.clock.now_ms()).await {
        Ok(()) => {
            home.heard.arrived();
            Some(true)
        }
        Err(error) => {
            home.metrics.failed(Work::Audit);
            tracing::warn!(%error, "what was refused at the doors could not be written down; it is tried again");
            Some(false)
        }
    }
}

/// Hands in what is left when all doors have closed: what did not arrive before, and what came since.
pub(crate) async fn hand_in_rest(home: &Home) {
    let rest = async {
        for _ in 0..LAST_TRIES {
            match hand_in_once(home).await {
                None => return true,
                Some(true) => {}
                Some(false) => tokio::time::sleep(LAST_PAUSE).await,
            }
        }
        false
    };
    if !matches!(tokio::time::timeout(LAST, rest).await, Ok(true)) {
        tracing::warn!("what was refused at the doors last could not be written down: it is missing in their accounts");
    }
}

/// Hands in what was counted, every few seconds, and when it is told to stop. What comes after that is for [`hand_in_rest`].
pub(crate) async fn hand_in(home: Home, mut stop: watch::Receiver<bool>) {
    let pause = Duration::from_secs(home.config.alerts.look_every_s);
    while !*stop.borrow() {
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let _ = hand_in_once(&home).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn form(shape: u8, whole: u8) -> Form {
        Form { shape: [shape; 16], whole: [whole; 16] }
    }

    fn counted(heard: &Heard) -> Vec<(i64, bool, String, String, u64)> {
        let told = |row: DoorHour| (row.hour.start_ms() / HOUR, row.is_principal, row.name, row.what, row.times);
        let rows = heard.lot().map(|(_, rows)| rows).unwrap_or_default();
        heard.arrived();
        rows.into_iter().map(told).collect()
    }

    #[test]
    fn a_variant_is_a_new_question_whose_shape_was_there_before() {
        let heard = Heard::default();
        let ask = |name: &str, question, now_ms| {
            heard.statement(&starling_query::Heard { name: name.to_owned(), refused: None, question }, now_ms);
        };
        for whole in [1, 2, 3, 2, 1, 3] {
            ask("ana", Some(form(1, whole)), 5);
        }
        // Another shape, another person, nothing private, and another hour.
        ask("ana", Some(form(2, 4)), 5);
        ask("ben", Some(form(1, 5)), 5);
        ask("ana", None, 5);
        ask("ana", Some(form(1, 9)), HOUR);
        let variants = |times| (0, true, "ana".to_owned(), deeds::VARIANT.to_owned(), times);
        assert_eq!(counted(&heard), [variants(2)]);
    }

    #[test]
    fn names_that_are_nobodys_are_numbers_and_no_more() {
        let heard = Heard::default();
        for name in ["correct horse", "battery", "correct horse", "ana"] {
            heard.login("http", name, name == "ana", 5);
        }
        heard.login("postgres", "battery", false, 5);
        heard.token("http", 5);
        let row = |is_principal, name: &str, what: &str, times| (0, is_principal, name.to_owned(), what.to_owned(), times);
        assert_eq!(
            counted(&heard),
            [
                row(false, "http", deeds::LOGIN, 4),
                row(false, "http", deeds::NAME, 3),
                row(false, "http", deeds::TOKEN, 1),
                row(false, "postgres", deeds::LOGIN, 1),
                row(false, "postgres", deeds::NAME, 1),
                row(true, "ana", deeds::LOGIN, 1),
            ]
        );
        assert!(counted(&heard).is_empty(), "it was handed in");
    }

    #[test]
    fn an_alert_counts_once_an_hour_and_what_did_not_arrive_is_handed_in_again_as_it_was() {
        let heard = Heard::default();
        for (alert, is_there, now_ms) in
            [("a", true, 5), ("a", true, 6), ("b", true, 7), ("c", false, 8), ("c", false, 9), ("a", true, HOUR)]
        {
            heard.alert("ana", alert, is_there, now_ms);
        }
        let first = heard.lot().expect("something");
        heard.alert("ana", "c", false, HOUR);
        assert_eq!(heard.lot().expect("the same"), first);
        let row = |hour, what: &str, times| (hour, true, "ana".to_owned(), what.to_owned(), times);
        assert_eq!(counted(&heard), [row(0, deeds::LOOKUP, 2), row(0, deeds::MISSING, 2), row(1, deeds::LOOKUP, 1)]);
        assert_ne!(heard.lot().expect("the next").0, first.0);
        assert_eq!(counted(&heard), [row(1, deeds::MISSING, 1)]);
    }

    #[test]
    fn what_is_remembered_of_an_hour_is_bounded() {
        let heard = Heard::default();
        for n in 0..MOST + 100 {
            heard.login("http", &n.to_string(), false, 5);
            heard.statement(
                &starling_query::Heard {
                    name: "ana".to_owned(),
                    refused: Some(Refused::Budget),
                    question: Some(Form { shape: [1; 16], whole: u128::try_from(n).expect("fits").to_le_bytes() }),
                },
                5,
            );
        }
        let counted = counted(&heard);
        let times = |what: &str| counted.iter().find(|(.., counted, _)| counted == what).map(|(.., times)| *times);
        let most = u64::try_from(MOST).expect("fits");
        assert_eq!((times(deeds::NAME), times(deeds::LOGIN)), (Some(most), Some(most + 100)));
        assert_eq!((times(deeds::VARIANT), times(deeds::BUDGET)), (Some(most - 1), Some(most + 100)));
    }
}
