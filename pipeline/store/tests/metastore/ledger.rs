//! The ledger (I2): the database against a plain list of charges, step by step; what was charged before; answers (I3).

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use starling_schemas::cost::{Allotment, AttoDelta, BlockLimits, Cost, NanoRho};
use starling_schemas::ids::{DAY_MS, EpochId};
use starling_store::{
    AnswerRecord, BudgetRow, ChargeOutcome, ChargeRecord, ChargeRequest, Metastore, Reason, Refusal, Spender, StoreError,
};

use crate::support::{DAY, Place, release};

pub(crate) const DATASET: &str = "people_day";

pub(crate) fn cost(rho: i64, delta: i64) -> Cost {
    Cost { rho: NanoRho(rho), delta: AttoDelta(delta) }
}

/// Teams of the tests: each may spend a little less than it could need.
pub(crate) fn team(number: usize) -> Spender {
    let (block, refill, days) = [(30, 70, 2), (45, 200, 3), (20, 60, 1)][number];
    let allotment = Allotment { rho_per_block: NanoRho(block), rho_per_refill: NanoRho(refill), refill_days: days };
    Spender::Team { name: format!("team-{number}"), allotment }
}

/// The days of a request with their sums, kept as nobody would keep a ledger: a list that is added up anew each time.
#[derive(Default)]
struct Reference {
    charges: Vec<ChargeRequest>,
}

/// Question and days; cost, team and time.
type Records = BTreeMap<(String, BTreeSet<EpochId>), (Cost, Option<String>, i64)>;

#[derive(Debug, PartialEq)]
enum Expected {
    Charged,
    Already(Cost),
    /// Each limit in the way: reason, day, what is left under it.
    Refused(Vec<(Reason, Option<EpochId>, NanoRho, AttoDelta)>),
    Other,
}

impl Reference {
    fn expect(&self, asked: &ChargeRequest) -> Expected {
        let same: Vec<_> = self.charges.iter().filter(|c| c.question == asked.question).collect();
        let releases_only = asked.spender == Spender::Releases && same.iter().all(|c| c.spender == Spender::Releases);
        match same.iter().find(|c| c.epochs == asked.epochs) {
            Some(earlier) if earlier.cost == asked.cost || releases_only => return Expected::Already(earlier.cost),
            Some(_) => return Expected::Other,
            None if same.is_empty() || releases_only => {}
            None => return Expected::Other,
        }
        let mut in_the_way = Vec::new();
        for day in &asked.epochs {
            let there: Vec<_> = self.charges.iter().filter(|c| c.epochs.contains(day)).collect();
            let smallest = |of: fn(&BlockLimits) -> i64| there.iter().map(|c| of(&c.limits)).chain([of(&asked.limits)]).min();
            let (rho, delta) = (smallest(|l| l.total.rho.0).unwrap_or(0), smallest(|l| l.total.delta.0).unwrap_or(0));
            let teams = smallest(|l| l.teams_rho.0).unwrap_or(0);
            let spent = |who: &dyn Fn(&ChargeRequest) -> bool| there.iter().filter(|c| who(c)).map(|c| c.cost.rho.0).sum::<i64>();
            let spent_delta = there.iter().map(|c| c.cost.delta.0).sum::<i64>();
            let delta_left = AttoDelta((delta - spent_delta).max(0));
            let mut limit = |reason, limit: i64, spent: i64| {
                if spent + asked.cost.rho.0 > limit {
                    in_the_way.push((reason, Some(*day), NanoRho((limit - spent).max(0)), delta_left));
                }
            };
            limit(Reason::Block, rho, spent(&|_| true));
            if let Spender::Team { allotment, .. } = &asked.spender {
                limit(Reason::TeamsShare, teams, spent(&|c| c.spender != Spender::Releases));
                limit(Reason::TeamBlock, allotment.rho_per_block.0, spent(&|c| c.spender == asked.spender));
            }
            if asked.cost.delta.0 > 0 && spent_delta + asked.cost.delta.0 > delta {
                in_the_way.push((Reason::Thresholds, Some(*day), NanoRho((rho - spent(&|_| true)).max(0)), delta_left));
            }
        }
        if let Spender::Team { allotment, .. } = &asked.spender {
            let period = |ms: i64| ms.div_euclid(DAY_MS).div_euclid(i64::from(allotment.refill_days));
            let mine = self.charges.iter().filter(|c| c.spender == asked.spender && period(c.now_ms) == period(asked.now_ms));
            let whole = |c: &ChargeRequest| c.cost.rho.0 * i64::try_from(c.epochs.len()).expect("few");
            let spent: i64 = mine.map(whole).sum();
            if spent + whole(asked) > allotment.rho_per_refill.0 {
                let left = NanoRho((allotment.rho_per_refill.0 - spent).max(0));
                in_the_way.push((Reason::TeamRefill, None, left, AttoDelta(0)));
            }
        }
        if in_the_way.is_empty() { Expected::Charged } else { Expected::Refused(in_the_way) }
    }

    fn records(&self) -> Records {
        let value = |c: &ChargeRequest| (c.cost, c.spender.team().map(ToOwned::to_owned), c.now_ms);
        self.charges.iter().map(|c| ((c.question.clone(), c.epochs.clone()), value(c))).collect()
    }
}

#[derive(Debug, Clone)]
struct Step {
    handle: usize,
    /// Releases, or a team.
    who: usize,
    /// What question 1 costs and touches follows from its number, unless it is `twisted`.
    question: usize,
    twisted: Option<(i32, i32, i64)>,
    limits: usize,
    /// By so many hours the clock goes on.
    hours: i64,
    /// The client dies after the future was polled so often.
    dies: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let twisted = prop::option::weighted(0.15, (0..4_i32, 1..4_i32, 1..40_i64));
    let dies = prop::option::weighted(0.4, 0..14_usize);
    (0..2_usize, 0..4_usize, 0..14_usize, twisted, 0..6_usize, 0..30_i64, dies).prop_map(
        |(handle, who, question, twisted, limits, hours, dies)| Step { handle, who, question, twisted, limits, hours, dies },
    )
}

impl Step {
    fn request(&self, now_ms: i64) -> ChargeRequest {
        let number = i32::try_from(self.question).expect("small");
        let (first, length, rho) = self.twisted.unwrap_or((number % 4, 1 + number % 3, i64::from(7 + number * 2)));
        let total = [cost(100, 9), cost(100, 9), cost(100, 9), cost(140, 4), cost(80, 9), cost(100, 0)][self.limits];
        let teams_rho = NanoRho([60, 60, 60, 90, 30, 60][self.limits]);
        ChargeRequest {
            dataset: DATASET.into(),
            epochs: (first..first + length).map(|day| EpochId(DAY.0 + day)).collect(),
            question: format!("question {}", self.question),
            cost: cost(rho, i64::from(number % 3)),
            limits: BlockLimits { total, teams_rho },
            spender: if self.who == 3 { Spender::Releases } else { team(self.who) },
            now_ms,
        }
    }
}

/// Polls a future so often, and drops it if it is not done by then, as the end of its process would.
async fn until_death<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

fn matches(found: &Result<ChargeOutcome, StoreError>, expected: &Expected, asked: &ChargeRequest) -> bool {
    match (found, expected) {
        (Ok(ChargeOutcome::Charged), Expected::Charged) => true,
        (Ok(ChargeOutcome::AlreadyCharged { cost }), Expected::Already(then)) => cost == then,
        (Err(StoreError::OtherCharge), Expected::Other) => true,
        (Ok(ChargeOutcome::Refused(Refusal { reason, epoch, left, more_at_ms })), Expected::Refused(in_the_way)) => {
            let told = in_the_way.iter().find(|(r, e, ..)| r == reason && e == epoch);
            let refill = matches!(&asked.spender, Spender::Team { allotment, .. } if {
                let days = i64::from(allotment.refill_days) * DAY_MS;
                let whole = asked.cost.rho.0 * i64::try_from(asked.epochs.len()).expect("few");
                let next = (asked.now_ms.div_euclid(days) + 1) * days;
                *more_at_ms == (whole <= allotment.rho_per_refill.0).then_some(next)
            });
            told.is_some_and(|(.., rho, delta)| (left.rho, left.delta) == (*rho, *delta))
                && if *reason == Reason::TeamRefill { refill } else { more_at_ms.is_none() }
        }
        _ => false,
    }
}

/// Drives the database through two handles, and the plain list beside it, through the same steps; they must agree at each.
async fn agree(handles: [Metastore; 2], steps: Vec<Step>) {
    let mut reference = Reference::default();
    let mut now_ms = 100 * DAY_MS;
    for step in steps {
        now_ms += step.hours * DAY_MS / 24;
        let (handle, other) = (&handles[step.handle], &handles[1 - step.handle]);
        let asked = step.request(now_ms);
        let expected = reference.expect(&asked);
        let found = match step.dies {
            None => Some(handle.charge(&asked).await),
            Some(polls) => until_death(polls, handle.charge(&asked)).await,
        };
        let happened = match &found {
            Some(found) => {
                assert!(matches(found, &expected, &asked), "{asked:?}\nfound {found:?}\nexpected {expected:?}");
                expected == Expected::Charged
            }
            // It died. Whoever comes after it waits until its transaction has ended, one way or the other.
            None => {
                let after = other.charge(&release("never fits", EpochId(1), 0, 1)).await.expect("answers");
                assert!(matches!(after, ChargeOutcome::Refused(_)));
                let known = reference.records().contains_key(&(asked.question.clone(), asked.epochs.clone()));
                let is_same = |c: &ChargeRecord| c.question == asked.question && c.epochs == asked.epochs;
                let happened = !known && other.charges().await.expect("reads").iter().any(is_same);
                assert!(!happened || expected == Expected::Charged, "{asked:?} was charged, but should be {expected:?}");
                happened
            }
        };
        if happened {
            reference.charges.push(asked.clone());
            // Nobody is given anything back for having died, or for asking again.
            let again = other.charge(&ChargeRequest { now_ms: now_ms + 1, ..asked.clone() }).await.expect("answers");
            assert_eq!(again, ChargeOutcome::AlreadyCharged { cost: asked.cost });
        }
        let records: Records = other
            .charges()
            .await
            .expect("reads")
            .into_iter()
            .map(|c| ((c.question, c.epochs), (c.cost, c.team, c.at_ms)))
            .collect();
        assert_eq!(records, reference.records());
    }
    assert_balanced(&handles[0].budget().await.expect("reads"));
    for number in 0..3 {
        let Spender::Team { name, allotment } = team(number) else { unreachable!("a team") };
        let (from_ms, to_ms) = allotment.period(now_ms);
        let told = handles[1].team_spent(DATASET, &name, from_ms, to_ms).await.expect("reads");
        let of = |c: &&ChargeRequest| c.spender.team() == Some(&name) && (from_ms..to_ms).contains(&c.now_ms);
        let mine = reference.charges.iter().filter(of).map(|c| c.cost.rho.0 * i64::try_from(c.epochs.len()).expect("few"));
        assert_eq!(told, NanoRho(mine.sum()));
    }
}

/// I2: every block's spent budget is the sum of its charges, and within its limits.
pub(crate) fn assert_balanced(budget: &[BudgetRow]) {
    for row in budget {
        let sum = row.charges.iter().try_fold(Cost::default(), |sum, charge| sum.checked_add(charge.cost));
        assert_eq!(sum, Some(row.spent), "I2: {row:?}");
        let teams: i64 = row.charges.iter().filter(|c| c.team.is_some()).map(|c| c.cost.rho.0).sum();
        assert_eq!(NanoRho(teams), row.teams_spent, "I2: {row:?}");
        assert!(row.spent.rho <= row.limits.total.rho && row.spent.delta <= row.limits.total.delta, "I2: {row:?}");
        assert!(row.teams_spent <= row.limits.teams_rho, "I2: {row:?}");
    }
}

fn drive(cases: u32, place: impl Fn() -> Option<Place>) {
    let runtime = tokio::runtime::Handle::current();
    let persistence = Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")) as Box<_>);
    let config = Config { cases, failure_persistence: persistence, source_file: Some(file!()), ..Config::default() };
    tokio::task::block_in_place(|| {
        TestRunner::new(config)
            .run(&prop::collection::vec(step(), 1..60), |steps| {
                runtime.block_on(async {
                    let place = place();
                    let handles = match &place {
                        Some(place) => [place.open().await, place.open().await],
                        None => {
                            let only = Metastore::open("sqlite::memory:").await.expect("opens");
                            [only.clone(), only]
                        }
                    };
                    agree(handles, steps).await;
                });
                Ok(())
            })
            .expect("the database charges as the list does");
    });
}

pub(crate) async fn i2_the_database_charges_as_a_plain_list_does_under_any_order_of_clients_crashes_and_repeated_questions(
    place: Place,
) {
    drive(16, || Some(place.another()));
}

pub(crate) async fn i2_the_same_a_thousand_times_in_memory() {
    drive(1000, || None);
}

pub(crate) async fn a_client_that_dies_at_any_moment_has_paid_or_not_and_holds_nothing(place: Place) {
    let handles = [place.open().await, place.open().await];
    let (mut before, mut after, mut answered) = (0, 0, 0);
    // How far a client is after so many polls depends on the machine: until each moment was met, and three rounds in any case.
    for (number, polls) in (0..200).flat_map(|_| 0..40_usize).enumerate() {
        if number >= 3 * 40 && before > 0 && after > 0 && answered > 0 {
            break;
        }
        let asked = release(&format!("question {number}"), DAY, 10_000, 1);
        let wide = Allotment { rho_per_block: NanoRho(10_000), rho_per_refill: NanoRho(10_000), refill_days: 1 };
        let spender = Spender::Team { name: "growth".into(), allotment: wide };
        let limits = BlockLimits { teams_rho: NanoRho(10_000), ..asked.limits };
        let asked = ChargeRequest { spender, limits, ..asked };
        let told = until_death(polls, handles[number % 2].charge(&asked)).await;
        // The other one waits for no lock of the dead: PostgreSQL would refuse it after ten seconds.
        match (told, handles[1 - number % 2].charge(&asked).await.expect("answers")) {
            (Some(told), ChargeOutcome::AlreadyCharged { .. }) => {
                assert_eq!(told.expect("answers"), ChargeOutcome::Charged);
                answered += 1;
            }
            (None, ChargeOutcome::Charged) => before += 1,
            (None, ChargeOutcome::AlreadyCharged { .. }) => after += 1,
            other => panic!("{other:?}"),
        }
    }
    let budget = handles[0].budget().await.expect("reads");
    assert_balanced(&budget);
    assert_eq!(budget[0].spent, cost(before + after + answered, 0), "each has paid once");
    assert!(
        before > 0 && after > 0 && answered > 0,
        "{before} died before, {after} after, {answered} lived: the test shows too little"
    );
}

/// Undoes what the third migration did, by hand, so that the next opening does it again.
const BEFORE: [&str; 11] = [
    "DROP TABLE answers",
    "DROP TABLE charged_days",
    "DROP TABLE charges",
    "DROP TABLE budget_blocks",
    "CREATE TABLE budget_blocks (dataset TEXT NOT NULL, epoch BIGINT NOT NULL, limit_nano_rho BIGINT NOT NULL, spent_nano_rho BIGINT \
     NOT NULL, PRIMARY KEY (dataset, epoch), CHECK (spent_nano_rho >= 0 AND spent_nano_rho <= limit_nano_rho))",
    "CREATE TABLE budget_charges (dataset TEXT NOT NULL, epoch BIGINT NOT NULL, question TEXT NOT NULL, cost_nano_rho BIGINT NOT \
     NULL CHECK (cost_nano_rho > 0), at_ms BIGINT NOT NULL, PRIMARY KEY (dataset, epoch, question))",
    "INSERT INTO budget_blocks VALUES ('people_day', 20458, 100, 70), ('people_day', 20459, 100, 40)",
    "INSERT INTO budget_charges VALUES ('people_day', 20458, 'metric:a', 40, 7)",
    "INSERT INTO budget_charges VALUES ('people_day', 20458, 'metric:b', 30, 8)",
    "INSERT INTO budget_charges VALUES ('people_day', 20459, 'metric:a', 40, 9)",
    "DELETE FROM _sqlx_migrations WHERE version = 3",
];

pub(crate) async fn i2_charges_made_before_teams_and_thresholds_keep_their_meaning(place: Place) {
    drop(place.open().await);
    for statement in BEFORE {
        place.execute(statement).await;
    }
    let metastore = place.open().await;
    let budget = metastore.budget().await.expect("reads");
    assert_balanced(&budget);
    let blocks: Vec<_> = budget.iter().map(|b| (b.block.epoch.0, b.limits.total, b.spent, b.charges.len())).collect();
    assert_eq!(blocks, [(20_458, cost(100, 0), cost(70, 0), 2), (20_459, cost(100, 0), cost(40, 0), 1)]);
    assert!(budget.iter().all(|b| b.charges.iter().all(|c| c.team.is_none())));
    let charge = async |request: ChargeRequest| metastore.charge(&request).await.expect("answers");
    // As the releases of this version ask, also after the metric's text has changed.
    for price in [40, 55] {
        let again = charge(release("metric:a", DAY, 100, price)).await;
        assert_eq!(again, ChargeOutcome::AlreadyCharged { cost: cost(40, 0) });
    }
    assert!(matches!(charge(release("metric:c", DAY, 1000, 31)).await, ChargeOutcome::Refused(r) if r.left == cost(30, 0)));
    assert_eq!(charge(release("metric:c", DAY, 1000, 30)).await, ChargeOutcome::Charged);
    assert_eq!(charge(release("metric:a", EpochId(20_460), 100, 40)).await, ChargeOutcome::Charged);
    // Days that were charged when nothing was for questions give nothing to questions.
    let wide = BlockLimits { total: cost(100, 9), teams_rho: NanoRho(100) };
    let asked = ChargeRequest { limits: wide, spender: team(0), ..release("q", EpochId(20_459), 0, 5) };
    assert!(matches!(charge(asked).await, ChargeOutcome::Refused(r) if r.reason == Reason::TeamsShare && r.left == cost(0, 0)));
    assert_balanced(&metastore.budget().await.expect("reads"));
}

pub(crate) async fn i3_a_question_has_one_answer_and_only_after_it_was_charged(place: Place) {
    let metastore = place.open().await;
    let answer = |question: &str, path: &str, answered_ms| AnswerRecord {
        question: question.into(),
        path: path.into(),
        blake3: "00".into(),
        answered_ms,
    };
    let early = metastore.record_answer(&answer("q", "answers/q", 5)).await;
    assert!(matches!(early, Err(StoreError::AnswerWithoutCharge)), "I2");
    assert_eq!(metastore.answer("q").await.expect("reads"), None);
    for question in ["q", "p"] {
        metastore.charge(&release(question, DAY, 100, 10)).await.expect("charges");
    }
    let first = metastore.record_answer(&answer("q", "answers/q", 5)).await.expect("records");
    let tasks = (0..8).map(|i| {
        let (metastore, late) = (metastore.clone(), answer("q", &format!("answers/other {i}"), 9));
        tokio::spawn(async move { metastore.record_answer(&late).await })
    });
    for stands in futures::future::join_all(tasks).await {
        assert_eq!(stands.expect("joins").expect("answers"), first, "the first one stands");
    }
    metastore.record_answer(&answer("p", "answers/p", 5)).await.expect("records");
    assert_eq!(metastore.answer("q").await.expect("reads"), Some(first.clone()));
    assert_eq!(metastore.answers().await.expect("reads"), [answer("p", "answers/p", 5), first]);
}

pub(crate) async fn charges_over_thousands_of_days_are_all_or_none(place: Place) {
    let metastore = place.open().await;
    let days: BTreeSet<EpochId> = (0..2_500).map(|day| EpochId(DAY.0 + day)).collect();
    let full = EpochId(DAY.0 + 2_499);
    metastore.charge(&release("before", full, 100, 95)).await.expect("charges");
    let asked = ChargeRequest { epochs: days, ..release("long", DAY, 100, 6) };
    let refused = metastore.charge(&asked).await.expect("answers");
    assert!(matches!(refused, ChargeOutcome::Refused(r) if r.epoch == Some(full) && r.left == cost(5, 0)), "{refused:?}");
    assert_eq!(metastore.budget().await.expect("reads").len(), 1, "none");
    let cheaper = ChargeRequest { cost: cost(5, 0), ..asked };
    assert_eq!(metastore.charge(&cheaper).await.expect("answers"), ChargeOutcome::Charged);
    let budget = metastore.budget().await.expect("reads");
    assert_balanced(&budget);
    assert_eq!(budget.iter().map(|b| b.spent.rho.0).sum::<i64>(), 95 + 5 * 2_500, "all");
    assert_eq!(metastore.charges().await.expect("reads").iter().map(|c| c.epochs.len()).collect::<Vec<_>>(), [1, 2_500]);
}
