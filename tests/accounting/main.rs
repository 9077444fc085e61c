//! # The accountant against PyPI's `dp-accounting`, on a thousand random schedules
//!
//! A schedule is a list of charges in nano-ρ, each spent on a Gaussian or a Laplace. Ours adds them up as the ledger does and tells ε at δ with
//! [`starling_privacy::epsilon`]. Google's library is told the noise only, and answers in three ways that know nothing of zCDP: privacy loss
//! distributions (the truth, but for their grid), Rényi orders, and the Rényi divergences themselves.
//!
//! Ours is asserted to be no less than the truth, ever; equal to the Rényi answer where all noise is Gaussian; and rounded up, within a
//! billionth, from a minimum computed with 60 digits. Where noise is Laplace ρ = ε²/2 says more loss than there is, and how much more is told.
//!
//! Python and the packages come from `tests/accounting/python.sh`. Where they are not to be had these tests are reported as ignored, never as
//! passed. `STARLING_TEST_SEED` sets another seed.

#![allow(missing_docs, clippy::print_stdout)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Trial};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use starling_privacy::epsilon;
use starling_schemas::metrics::NanoRho;

const SCHEDULES: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Noise {
    Gaussian,
    Laplace,
}

#[derive(Debug, Clone)]
struct Schedule {
    charges: Vec<(Noise, NanoRho)>,
    delta: f64,
}

/// What the reference says of a schedule.
#[derive(Debug, Clone, Copy)]
struct Reference {
    pld: f64,
    rdp: f64,
    slope: f64,
    exact: f64,
}

impl Schedule {
    /// From 1 to 12 charges of 0.0001 to 0.3 each, δ from 10⁻¹⁰ to 10⁻³; a third of all schedules is Gaussian only.
    fn random(random: &mut ChaCha20Rng) -> Self {
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut between = |low: f64, high: f64| low + uniform() * (high - low);
        let count = between(1.0, 13.0) as usize;
        let gaussian_only = between(0.0, 3.0) < 1.0;
        let charges = (0..count)
            .map(|_| {
                let laplace = between(0.0, 2.0) < 1.0 && !gaussian_only;
                let cost = NanoRho((1e9 * 10_f64.powf(between(-4.0, -0.52))) as i64);
                (if laplace { Noise::Laplace } else { Noise::Gaussian }, cost)
            })
            .collect();
        Self { charges, delta: 10_f64.powf(between(-10.0, -3.0)) }
    }

    /// The sum, as the ledger keeps it.
    fn rho(&self) -> NanoRho {
        NanoRho(self.charges.iter().map(|(_, cost)| cost.0).sum())
    }

    fn gaussian_only(&self) -> bool {
        self.charges.iter().all(|(noise, _)| *noise == Noise::Gaussian)
    }

    /// For the reference: the noise a cost buys for a sensitivity of 1. ρ = 1/(2σ²), and ρ = ε²/2 with ε = 1/b: both are 1/√(2ρ).
    fn told(&self) -> Value {
        let charges = self.charges.iter().map(|(noise, cost)| {
            let name = if *noise == Noise::Gaussian { "gaussian" } else { "laplace" };
            json!([name, 1.0 / (2.0 * cost.rho()).sqrt()])
        });
        json!({ "charges": charges.collect::<Vec<_>>(), "rho": self.rho().rho(), "delta": self.delta })
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/accounting")
}

/// The Python to ask, or why there is none.
fn python() -> Result<PathBuf, String> {
    let output = Command::new("bash").arg(here().join("python.sh")).output().map_err(|_| "skipped: no bash".to_owned())?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(answer)),
        Some(77) => Err(answer),
        _ => Err(format!("skipped: tests/accounting/python.sh failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Schedules and what the reference says of them, asked once.
fn compared(python: &Path) -> &'static [(Schedule, Reference)] {
    static COMPARED: OnceLock<Vec<(Schedule, Reference)>> = OnceLock::new();
    COMPARED.get_or_init(|| {
        let seed = std::env::var("STARLING_TEST_SEED").map_or(1, |s| s.parse().expect("STARLING_TEST_SEED is a number"));
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let schedules: Vec<Schedule> = (0..SCHEDULES).map(|_| Schedule::random(&mut random)).collect();
        let told: Vec<Value> = schedules.iter().map(Schedule::told).collect();
        let mut child = Command::new(python)
            .args(["-B".as_ref(), here().join("reference.py").as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut input = child.stdin.take().expect("piped");
        serde_json::to_writer(&mut input, &told).expect("it reads");
        input.flush().expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "reference.py failed");
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answers.len(), schedules.len());
        let number = |answer: &Value, name: &str| {
            let value = &answer[name];
            let number = value.as_f64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
            number.filter(|n| n.is_finite()).unwrap_or_else(|| panic!("`{name}` is no number: {value}"))
        };
        let references = answers.iter().map(|a| Reference {
            pld: number(a, "pld"),
            rdp: number(a, "rdp"),
            slope: number(a, "slope"),
            exact: number(a, "exact"),
        });
        schedules.iter().cloned().zip(references.collect::<Vec<_>>()).collect()
    })
}

/// How often an accountant tells less than the truth.
fn tells_too_little(compared: &[(Schedule, Reference)], accountant: impl Fn(&Schedule) -> f64) -> usize {
    compared.iter().filter(|(schedule, reference)| accountant(schedule) < reference.pld).count()
}

fn ours(schedule: &Schedule) -> f64 {
    epsilon(schedule.rho(), schedule.delta)
}

/// Smallest, middle and largest of a ratio.
fn spread(ratios: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_unstable_by(f64::total_cmp);
    (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1])
}

fn i2_what_people_are_told_is_never_less_than_the_truth(compared: &[(Schedule, Reference)]) {
    for (schedule, reference) in compared {
        let ours = ours(schedule);
        assert!(ours >= reference.pld, "told {ours}: {reference:?} {schedule:?}");
    }
    for (name, gaussian_only) in [("Gaussian only", true), ("with Laplace", false)] {
        let some = compared.iter().filter(|(s, _)| s.gaussian_only() == gaussian_only);
        let (least, middle, most) = spread(some.map(|(s, r)| ours(s) / r.pld));
        println!("{name}: told / true ε is {least:.4} at least, {middle:.4} in the middle, {most:.4} at most");
    }
}

fn where_all_noise_is_gaussian_it_is_the_renyi_answer(compared: &[(Schedule, Reference)]) {
    let gaussian = compared.iter().filter(|(s, _)| s.gaussian_only());
    let (least, _, most) = spread(gaussian.clone().map(|(s, r)| ours(s) / r.rdp));
    println!("Gaussian only: told / Rényi ε is {least:.9} to {most:.9}, of {} schedules", gaussian.count());
    // The reference has a grid of orders, so ours is a little smaller; never larger.
    assert!(most <= 1.0 + 1e-9 && least >= 1.0 - 1e-4, "{least} {most}");
}

fn a_sum_of_charges_is_never_less_than_the_renyi_divergences_that_it_stands_for(compared: &[(Schedule, Reference)]) {
    for (schedule, reference) in compared {
        let rho = schedule.rho().rho();
        assert!(reference.slope <= rho * (1.0 + 1e-12), "{reference:?} {schedule:?}");
        assert!(!schedule.gaussian_only() || reference.slope >= rho * (1.0 - 1e-12), "{reference:?} {schedule:?}");
    }
}

fn epsilon_is_rounded_up_and_by_less_than_a_billionth(compared: &[(Schedule, Reference)]) {
    let (least, _, most) = spread(compared.iter().map(|(s, r)| ours(s) / r.exact));
    println!("told / exact minimum − 1 is {:e} to {:e}", least - 1.0, most - 1.0);
    assert!(least >= 1.0 && most <= 1.0 + 1e-9, "{least} {most}");
}

/// Accountants with a fault, each of which the comparison must notice.
fn i2_a_wrong_accountant_is_caught(compared: &[(Schedule, Reference)]) {
    let with = |rho: fn(&Schedule) -> f64| move |s: &Schedule| epsilon(NanoRho(rho(s) as i64), s.delta);
    let cost = |s: &Schedule, laplace: f64| {
        let costs = s.charges.iter().map(|(noise, c)| c.0 as f64 * if *noise == Noise::Laplace { laplace } else { 1.0 });
        costs.sum::<f64>()
    };
    assert_eq!(tells_too_little(compared, |s| epsilon(NanoRho(cost(s, 1.0) as i64), s.delta)), 0, "the right one");
    let caught = [
        ("a Laplace at ε²/8", tells_too_little(compared, |s| epsilon(NanoRho(cost(s, 0.25) as i64), s.delta))),
        (
            "the dearest charge alone",
            tells_too_little(compared, with(|s| s.charges.iter().map(|c| c.1.0 as f64).fold(0.0, f64::max))),
        ),
        (
            "the first charge forgotten",
            tells_too_little(compared, with(|s| s.charges.iter().skip(1).map(|c| c.1.0 as f64).sum())),
        ),
        ("four fifths of every charge", tells_too_little(compared, with(|s| 0.8 * s.rho().0 as f64))),
        ("δ ten times what was asked", tells_too_little(compared, |s| epsilon(s.rho(), (10.0 * s.delta).min(0.5)))),
        ("ε without its term of δ", tells_too_little(compared, |s| s.rho().rho() + (s.rho().rho() * -s.delta.ln()).sqrt())),
    ];
    println!("of {SCHEDULES} schedules: {caught:?}");
    assert!(caught.iter().all(|(_, times)| *times >= SCHEDULES / 20), "{caught:?}");
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing needs no Python.
    let python = if arguments.list { Err(String::new()) } else { python() };
    if let Err(why) = &python {
        eprintln!("{why}");
    }
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$({
                let python = python.clone();
                let missing = python.is_err();
                Trial::test(stringify!($name), move || Ok($name(compared(&python?)))).with_ignored_flag(missing)
            }),*]
        };
    }
    let trials = trials!(
        i2_what_people_are_told_is_never_less_than_the_truth,
        where_all_noise_is_gaussian_it_is_the_renyi_answer,
        a_sum_of_charges_is_never_less_than_the_renyi_divergences_that_it_stands_for,
        epsilon_is_rounded_up_and_by_less_than_a_billionth,
        i2_a_wrong_accountant_is_caught,
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
