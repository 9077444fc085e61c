//! The ledger among many (I2): tasks over several handles, and processes of their own that are killed or lose the answer to a commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};

use starling_schemas::cost::{BlockLimits, NanoRho};
use starling_schemas::ids::{DAY_MS, EpochId};
use starling_store::{ChargeOutcome, ChargeRecord, ChargeRequest, Metastore, Spender, StoreError};

use crate::ledger::{DATASET, assert_balanced, cost, team};
use crate::support::{DAY, Place};

/// Names the metastore that a process started by a test is to ask.
const URL: &str = "STARLING_TEST_LEDGER_URL";
/// Its seed.
const SEED: &str = "STARLING_TEST_LEDGER_SEED";
/// How many questions it asks.
const QUESTIONS: usize = 60;

/// The same numbers for the same seed (Knuth's linear congruential generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A question out of two hundred, so that clients often ask the same. What it costs and touches follows from its number; who asks does not.
fn request(dice: &mut Dice) -> ChargeRequest {
    let number = i32::try_from(dice.below(200)).expect("small");
    let who = usize::try_from(dice.below(4)).expect("small");
    let first = DAY.0 + number % 5;
    ChargeRequest {
        dataset: DATASET.into(),
        epochs: (first..=first + number % 4).map(EpochId).collect(),
        question: format!("question {number}"),
        cost: cost(i64::from(1 + number % 9), i64::from(number % 3 / 2)),
        limits: BlockLimits { total: cost(150, 9), teams_rho: NanoRho(100) },
        spender: if who == 3 { Spender::Releases } else { team(who) },
        now_ms: 100 * DAY_MS + i64::try_from(dice.below(4)).expect("small") * DAY_MS / 2,
    }
}

type Key = (String, BTreeSet<EpochId>);

/// All that must hold of the books, whoever asked what in which order.
async fn assert_within_all_limits(metastore: &Metastore) -> BTreeMap<Key, ChargeRecord> {
    let budget = metastore.budget().await.expect("reads");
    assert_balanced(&budget);
    assert!(budget.iter().all(|b| b.limits.total == cost(150, 9) && b.limits.teams_rho == NanoRho(100)), "{budget:?}");
    let charges = metastore.charges().await.expect("reads");
    for number in 0..3 {
        let Spender::Team { name, allotment } = team(number) else { unreachable!("a team") };
        for block in &budget {
            let mine = block.charges.iter().filter(|c| c.team.as_ref() == Some(&name)).map(|c| c.cost.rho.0).sum();
            assert!(NanoRho(mine) <= allotment.rho_per_block, "I2: {name} spent {mine} of {:?}", block.block);
        }
        let mut periods: BTreeMap<i64, i64> = BTreeMap::new();
        for charge in charges.iter().filter(|c| c.team.as_ref() == Some(&name)) {
            let whole = charge.cost.rho.0 * i64::try_from(charge.epochs.len()).expect("few");
            *periods.entry(allotment.period(charge.at_ms).0).or_default() += whole;
        }
        assert!(periods.values().all(|spent| NanoRho(*spent) <= allotment.rho_per_refill), "I2: {name} spent {periods:?}");
    }
    let spent: i64 = budget.iter().map(|b| b.spent.rho.0).sum();
    let charged: i64 = charges.iter().map(|c| c.cost.rho.0 * i64::try_from(c.epochs.len()).expect("few")).sum();
    assert_eq!(spent, charged, "I2: the sum of charges is what is spent");
    assert!(budget.iter().any(|b| b.left().rho.0 < 9), "the limits were reached, or the test shows too little: {budget:?}");
    let count = charges.len();
    let by_key: BTreeMap<_, _> = charges.into_iter().map(|c| ((c.question.clone(), c.epochs.clone()), c)).collect();
    assert_eq!(by_key.len(), count, "no question is charged twice");
    by_key
}

pub(crate) async fn i2_many_clients_of_many_teams_never_charge_beyond_any_limit(place: Place) {
    let handles = [place.open().await, place.open().await, place.open().await];
    let clients = (0..24_u64).map(|seed| {
        let handle = handles[usize::try_from(seed).expect("small") % 3].clone();
        tokio::spawn(async move {
            let (mut dice, mut charged) = (Dice(seed), Vec::new());
            for _ in 0..25 {
                let asked = request(&mut dice);
                if handle.charge(&asked).await.expect("answers") == ChargeOutcome::Charged {
                    charged.push((asked.question, asked.epochs));
                }
            }
            charged
        })
    });
    let clients = futures::future::join_all(clients).await;
    let told: Vec<Key> = clients.into_iter().flat_map(|client| client.expect("no panic")).collect();
    let charges = assert_within_all_limits(&handles[0]).await;
    assert_eq!(told.iter().collect::<BTreeSet<_>>(), charges.keys().collect(), "each charge was told to somebody");
    assert_eq!(told.len(), charges.len(), "and to nobody else: one may draw");
}

/// What a process that was started by a test does: it asks, and tells each answer in a line. `None`: this is no such process.
pub(crate) fn job() -> Option<ExitCode> {
    let url = std::env::var(URL).ok()?;
    let seed = std::env::var(SEED).ok()?.parse().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let metastore = Metastore::open(&url).await.expect("opens");
        let mut dice = Dice(seed);
        for number in 0..QUESTIONS {
            let asked = request(&mut dice);
            // An answer that was lost is asked for again, as a client would.
            let mut lost = 0;
            let outcome = loop {
                match metastore.charge(&asked).await {
                    Ok(outcome) => break outcome,
                    Err(StoreError::Database { .. }) if lost < 3 => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            };
            let word = match outcome {
                ChargeOutcome::Charged => "charged",
                ChargeOutcome::AlreadyCharged { .. } if lost > 0 => "paid",
                ChargeOutcome::AlreadyCharged { .. } => "free",
                ChargeOutcome::Refused(_) => "refused",
            };
            let days: Vec<String> = asked.epochs.iter().map(ToString::to_string).collect();
            writeln!(std::io::stdout(), "{word}\t{number}\t{}\t{}", asked.question, days.join(" ")).expect("somebody listens");
        }
    });
    Some(ExitCode::SUCCESS)
}

fn start(url: &str, seed: u64, fault: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this executable"));
    command.env(URL, url).env(SEED, seed.to_string()).env_remove("STARLING_FAIL_AT");
    if let Some(fault) = fault {
        command.env("STARLING_FAIL_AT", fault);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// (word, question and days) of each line.
fn told(lines: impl Iterator<Item = String>) -> Vec<(String, Key)> {
    let read = |line: String| {
        let mut parts = line.split('\t');
        let (word, question) = (parts.next()?.to_owned(), parts.nth(1)?.to_owned());
        let days = parts.next()?.split(' ').map(EpochId::parse).collect::<Option<BTreeSet<_>>>()?;
        Some((word, (question, days)))
    };
    lines.filter_map(read).collect()
}

pub(crate) async fn i2_processes_that_are_killed_or_lose_the_answer_have_paid_once(place: Place) {
    // The tables are there before the processes fight over them.
    let metastore = place.open().await;
    let faults = [None, Some("committed charging a budget:4:2=EIO"), Some("commit charging a budget:3:2=EIO")];
    let url = place.url.clone();
    let lines = tokio::task::spawn_blocking(move || {
        // One asks first, while nothing is spent: its question is sure to be charged, and the answer is sure to be lost.
        let mut first = start(&url, 3, Some("committed charging a budget:1=EIO"));
        let mut answers = BufReader::new(first.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut seen = told(answers.by_ref().take(1));
        let running: Vec<Child> = (0..).zip(faults).map(|(seed, fault)| start(&url, seed, fault)).collect();
        // Another is killed as soon as it has told eight answers, wherever it is then, and started again with the same questions.
        let mut killed = start(&url, 99, None);
        let eight = told(BufReader::new(killed.stdout.take().expect("piped")).lines().map_while(Result::ok).take(8));
        killed.kill().expect("killed");
        killed.wait().expect("gone");
        assert_eq!(eight.len(), 8, "it was killed in the middle");
        seen.extend(eight);
        let again = start(&url, 99, None);
        for child in running.into_iter().chain([again]) {
            let output = child.wait_with_output().expect("ends");
            assert!(output.status.success(), "{}", output.status);
            let lines = String::from_utf8(output.stdout).expect("text");
            let lines = told(lines.lines().map(ToOwned::to_owned));
            assert_eq!(lines.len(), QUESTIONS);
            seen.extend(lines);
        }
        seen.extend(told(answers));
        assert!(first.wait().expect("ends").success());
        seen
    })
    .await
    .expect("no panic");
    let charges = assert_within_all_limits(&metastore).await;
    let charged: Vec<&Key> = lines.iter().filter(|(word, _)| word == "charged").map(|(_, key)| key).collect();
    assert_eq!(charged.len(), charged.iter().collect::<BTreeSet<_>>().len(), "a question is charged once");
    assert!(charged.iter().all(|key| charges.contains_key(*key)), "and stays charged");
    assert_eq!(lines[0].0, "paid", "an answer was lost after the commit, and the question was found paid for");
    // The killed process may have gone on until it was dead, and charged some whose answers nobody read: of its questions, those
    // behind its eighth.
    let mut dice = Dice(99);
    let unread: BTreeSet<Key> =
        (0..QUESTIONS).map(|_| request(&mut dice)).skip(8).map(|asked| (asked.question, asked.epochs)).collect();
    let known: BTreeSet<&Key> =
        lines.iter().filter(|(word, _)| word == "charged" || word == "paid").map(|(_, key)| key).collect();
    let untold: Vec<&Key> = charges.keys().filter(|key| !known.contains(key)).collect();
    assert!(untold.iter().all(|key| unread.contains(*key)), "charged, and told to nobody: {untold:?}");
    for (word, key) in lines.iter().filter(|(word, _)| word == "free" || word == "paid") {
        assert!(charges.contains_key(key), "{word}: {key:?}");
    }
}
