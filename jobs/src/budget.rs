//! `starling budget`: what is spent and left, by whom and for what, and what one person can have lost at the most, in plain words.
//!
//! # Privacy
//! Nothing here is about a person: blocks, questions and what they cost. The worst case of one person is that of somebody who was there on
//! every day and in every dataset: their ρ add up over days and over datasets, also where keys differ, since it is the same person who loses
//! (Bun & Steinke 2016, lemma 1.7). Of all stretches of so many days the dearest is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use starling_privacy::epsilon;
use starling_schemas::cost::{Allotment, AttoDelta, Cost, NanoRho, RELEASES};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::Catalogue;
use starling_store::{BudgetRow, ChargeRecord};

use crate::cli::Budget;
use crate::columns::{Side, lay_out};
use crate::home::Home;
use crate::status::timestamp;

/// Stretches of days that the worst case is told for.
const STRETCHES: [i32; 3] = [1, 7, 30];
/// Rows of a table for people; `--json` has all.
const SHOWN: usize = 14;
/// δ that ε is told at where no dataset names one any more.
const DELTA: f64 = 1e-9;
/// From these odds on there is nothing left to promise.
const NO_PROMISE: f64 = 1e6;

/// Everything that is told, as `--json` tells it.
#[derive(Debug, Serialize)]
struct Report {
    now_ms: i64,
    blocks: Vec<BlockRow>,
    charges: Vec<ChargeRow>,
    allotments: Vec<AllotmentRow>,
    one_person_at_most: Vec<Stretch>,
}

#[derive(Debug, Serialize)]
struct BlockRow {
    dataset: String,
    day: String,
    limit_rho: f64,
    spent_rho: f64,
    left_rho: f64,
    releases_spent_rho: f64,
    teams_limit_rho: f64,
    teams_spent_rho: f64,
    teams_left_rho: f64,
    spent_epsilon: f64,
    limit_epsilon: f64,
    delta: f64,
    threshold_delta_spent: f64,
    threshold_delta_limit: f64,
}

#[derive(Debug, Serialize)]
struct ChargeRow {
    who: String,
    dataset: String,
    question: String,
    days: Vec<String>,
    rho_per_day: f64,
    threshold_delta_per_day: f64,
    charged_ms: i64,
}

#[derive(Debug, Serialize)]
struct AllotmentRow {
    team: String,
    dataset: String,
    rho_per_block: f64,
    rho_per_refill: f64,
    refill_days: u32,
    spent_rho: f64,
    left_rho: f64,
    more_at_ms: i64,
}

/// The dearest stretch of so many days.
#[derive(Debug, Serialize)]
struct Stretch {
    days: i32,
    first_day: String,
    rho: f64,
    epsilon: f64,
    delta: f64,
    threshold_delta: f64,
    /// e^ε: what odds of 1 to 1 can become.
    odds_to_one: f64,
}

/// What a report is made from.
struct Books {
    blocks: Vec<BudgetRow>,
    charges: Vec<ChargeRecord>,
    /// Team, dataset, its allotment, spent in this refill period.
    allotments: Vec<(String, String, Allotment, NanoRho)>,
}

/// Answers `starling budget`.
///
/// # Errors
/// For a dataset or team that is not known, and when the metastore cannot be read.
pub async fn tell(home: &Home, asked: &Budget) -> anyhow::Result<String> {
    let now_ms = home.clock.now_ms();
    let mut allotments = Vec::new();
    for (dataset, definition) in &home.catalogue.datasets {
        for (team, allotment) in definition.allotments() {
            let (from_ms, to_ms) = allotment.period(now_ms);
            let spent = home.metastore.team_spent(dataset, team, from_ms, to_ms).await?;
            allotments.push((team.to_owned(), dataset.clone(), allotment, spent));
        }
    }
    let books = Books { blocks: home.metastore.budget().await?, charges: home.metastore.charges().await?, allotments };
    let books = of_interest(books, &home.catalogue, asked)?;
    let report = report(&books, &home.catalogue, now_ms);
    Ok(if asked.json { format!("{}\n", serde_json::to_string(&report)?) } else { text(&report, asked) })
}

/// What belongs to the dataset and the team that were asked for. Blocks are everybody's: a team sees them whole.
fn of_interest(mut books: Books, catalogue: &Catalogue, asked: &Budget) -> anyhow::Result<Books> {
    if let Some(dataset) = &asked.dataset {
        let mut known: BTreeSet<&str> = catalogue.datasets.keys().map(String::as_str).collect();
        known.extend(books.blocks.iter().map(|row| row.block.dataset.as_str()));
        anyhow::ensure!(
            known.contains(dataset.as_str()),
            "--dataset {dataset}: there is none of that name; {}",
            list(&known, "datasets")
        );
        books.blocks.retain(|row| row.block.dataset == *dataset);
        books.charges.retain(|charge| charge.dataset == *dataset);
        books.allotments.retain(|(_, of, ..)| of == dataset);
    }
    if let Some(team) = &asked.team {
        let known: BTreeSet<&str> = books
            .allotments
            .iter()
            .map(|(name, ..)| name.as_str())
            .chain(books.charges.iter().map(|charge| charge.team.as_deref().unwrap_or(RELEASES)))
            .chain([RELEASES])
            .collect();
        anyhow::ensure!(
            known.contains(team.as_str()),
            "--team {team}: nobody of that name may spend here; {}",
            list(&known, "spenders")
        );
        books.charges.retain(|charge| charge.team.as_deref().unwrap_or(RELEASES) == team);
        books.allotments.retain(|(name, ..)| name == team);
    }
    Ok(books)
}

fn list(known: &BTreeSet<&str>, what: &str) -> String {
    format!("known {what}: {}", known.iter().copied().collect::<Vec<_>>().join(", "))
}

fn report(books: &Books, catalogue: &Catalogue, now_ms: i64) -> Report {
    let delta_of = |dataset: &str| catalogue.datasets.get(dataset).map_or(DELTA, |dataset| dataset.delta);
    let block = |row: &BudgetRow| {
        let delta = delta_of(&row.block.dataset);
        BlockRow {
            dataset: row.block.dataset.clone(),
            day: row.block.epoch.to_string(),
            limit_rho: row.limits.total.rho.rho(),
            spent_rho: row.spent.rho.rho(),
            left_rho: row.left().rho.rho(),
            releases_spent_rho: NanoRho(row.spent.rho.0.saturating_sub(row.teams_spent.0)).rho(),
            teams_limit_rho: row.limits.teams_rho.rho(),
            teams_spent_rho: row.teams_spent.rho(),
            teams_left_rho: row.left_for_teams().rho(),
            spent_epsilon: epsilon(row.spent.rho, delta),
            limit_epsilon: epsilon(row.limits.total.rho, delta),
            delta,
            threshold_delta_spent: row.spent.delta.delta(),
            threshold_delta_limit: row.limits.total.delta.delta(),
        }
    };
    let charge = |charge: &ChargeRecord| ChargeRow {
        who: charge.team.as_deref().unwrap_or(RELEASES).to_owned(),
        dataset: charge.dataset.clone(),
        question: charge.question.clone(),
        days: charge.epochs.iter().map(ToString::to_string).collect(),
        rho_per_day: charge.cost.rho.rho(),
        threshold_delta_per_day: charge.cost.delta.delta(),
        charged_ms: charge.at_ms,
    };
    let allotment = |(team, dataset, allotment, spent): &(String, String, Allotment, NanoRho)| AllotmentRow {
        team: team.clone(),
        dataset: dataset.clone(),
        rho_per_block: allotment.rho_per_block.rho(),
        rho_per_refill: allotment.rho_per_refill.rho(),
        refill_days: allotment.refill_days,
        spent_rho: spent.rho(),
        left_rho: NanoRho(allotment.rho_per_refill.0.saturating_sub(spent.0).max(0)).rho(),
        more_at_ms: allotment.period(now_ms).1,
    };
    // The smallest δ gives the largest ε: what is told is never too good.
    let delta = books.blocks.iter().map(|row| delta_of(&row.block.dataset)).fold(f64::INFINITY, f64::min);
    let stretch = |days: i32| {
        let (first, cost) = dearest(&books.blocks, days)?;
        let told = epsilon(cost.rho, delta);
        Some(Stretch {
            days,
            first_day: first.to_string(),
            rho: cost.rho.rho(),
            epsilon: told,
            delta,
            threshold_delta: cost.delta.delta(),
            odds_to_one: told.exp(),
        })
    };
    Report {
        now_ms,
        blocks: books.blocks.iter().map(block).collect(),
        charges: books.charges.iter().map(charge).collect(),
        allotments: books.allotments.iter().map(allotment).collect(),
        one_person_at_most: STRETCHES.into_iter().filter_map(stretch).collect(),
    }
}

/// The stretch of so many days whose blocks, of all datasets together, have spent most: its first day that was charged, and what was spent.
fn dearest(blocks: &[BudgetRow], days: i32) -> Option<(EpochId, Cost)> {
    let mut by_day: BTreeMap<i32, Cost> = BTreeMap::new();
    let both = |a: Cost, b: Cost| Cost {
        rho: NanoRho(a.rho.0.saturating_add(b.rho.0)),
        delta: AttoDelta(a.delta.0.saturating_add(b.delta.0)),
    };
    for row in blocks {
        let day = by_day.entry(row.block.epoch.0).or_default();
        *day = both(*day, row.spent);
    }
    let stretches = by_day.keys().map(|first| {
        let end = first.saturating_add(days);
        (EpochId(*first), by_day.range(*first..end).fold(Cost::default(), |sum, (_, cost)| both(sum, *cost)))
    });
    // Of equals the latest.
    stretches.max_by_key(|(_, cost)| (cost.rho, cost.delta))
}

fn text(report: &Report, asked: &Budget) -> String {
    let mut out = String::new();
    if report.blocks.is_empty() {
        out.push_str("Nothing has been charged yet: budget is spent when a day has closed and its statistics are released.\n");
    } else {
        blocks(&mut out, &report.blocks);
        charges(&mut out, &report.charges);
    }
    allotments(&mut out, &report.allotments);
    one_person(&mut out, report, asked);
    out
}

/// The newest rows, and how many there are before them.
fn newest<T>(rows: &[T]) -> (&[T], usize) {
    let hidden = rows.len().saturating_sub(SHOWN);
    (rows.get(hidden..).unwrap_or(rows), hidden)
}

fn rho(value: f64) -> String {
    format!("{value:.6}")
}

fn more(out: &mut String, hidden: usize, what: &str) {
    if hidden > 0 {
        let _ = writeln!(out, "and {hidden} earlier {what}: `--json` has all");
    }
    out.push('\n');
}

fn blocks(out: &mut String, blocks: &[BlockRow]) {
    let mut sorted: Vec<&BlockRow> = blocks.iter().collect();
    sorted.sort_by(|a, b| (&a.day, &a.dataset).cmp(&(&b.day, &b.dataset)));
    let (shown, hidden) = newest(&sorted);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|b| {
            vec![
                b.dataset.clone(),
                b.day.clone(),
                rho(b.spent_rho),
                rho(b.limit_rho),
                rho(b.left_rho),
                rho(b.releases_spent_rho),
                rho(b.teams_spent_rho),
                rho(b.teams_left_rho),
                format!("{:.2}", b.spent_epsilon),
                format!("{:.2}", b.limit_epsilon),
                format!("{:e}", b.delta),
                if b.threshold_delta_spent > 0.0 { format!("{:e}", b.threshold_delta_spent) } else { "0".to_owned() },
            ]
        })
        .collect();
    let (left, right) = (Side::Left, Side::Right);
    let header = [
        ("dataset", left),
        ("day", left),
        ("spent rho", right),
        ("of limit", right),
        ("left", right),
        ("by releases", right),
        ("by teams", right),
        ("left for teams", right),
        ("spent epsilon", right),
        ("of limit", right),
        ("at delta", right),
        ("thresholds' delta", right),
    ];
    out.push_str("SPENT AND LEFT, each dataset and day\n");
    out.push_str(&lay_out(&header, &rows));
    more(out, hidden, "ones");
}

fn charges(out: &mut String, charges: &[ChargeRow]) {
    let (shown, hidden) = newest(charges);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|c| {
            let days = match c.days.as_slice() {
                [only] => only.clone(),
                [first, .., last] => format!("{} days, {first} to {last}", c.days.len()),
                [] => String::new(),
            };
            vec![c.who.clone(), c.question.clone(), c.dataset.clone(), days, rho(c.rho_per_day), timestamp(c.charged_ms)]
        })
        .collect();
    let (left, right) = (Side::Left, Side::Right);
    let header = [("who", left), ("for what", left), ("of", left), ("days", left), ("rho a day", right), ("charged (UTC)", left)];
    out.push_str("BY WHOM AND FOR WHAT\n");
    out.push_str(&lay_out(&header, &rows));
    more(out, hidden, "charges");
}

fn allotments(out: &mut String, allotments: &[AllotmentRow]) {
    if allotments.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = allotments
        .iter()
        .map(|a| {
            vec![
                a.team.clone(),
                a.dataset.clone(),
                rho(a.left_rho),
                rho(a.rho_per_refill),
                if a.refill_days == 1 { "every day".to_owned() } else { format!("every {} days", a.refill_days) },
                timestamp(a.more_at_ms),
                rho(a.rho_per_block),
            ]
        })
        .collect();
    let (left, right) = (Side::Left, Side::Right);
    let header = [
        ("team", left),
        ("of", left),
        ("left now", right),
        ("of refill", right),
        ("refilled", left),
        ("next (UTC)", left),
        ("most in one day", right),
    ];
    out.push_str("ALLOTMENTS, in rho, summed over the days a question touches\n");
    out.push_str(&lay_out(&header, &rows));
    out.push('\n');
}

fn one_person(out: &mut String, report: &Report, asked: &Budget) {
    let Some(last) = report.one_person_at_most.last() else { return };
    let of = asked.dataset.as_ref().map_or("all datasets together".to_owned(), |dataset| format!("{dataset} alone"));
    let _ = writeln!(out, "ONE PERSON, at the worst: somebody who was there every day, in the dearest days, {of}");
    for s in &report.one_person_at_most {
        let name = match s.days {
            1 => "in a day".to_owned(),
            7 => "in a week".to_owned(),
            days => format!("in {days} days"),
        };
        let _ = writeln!(
            out,
            "  {name:<11} from {}  rho {}  epsilon {:.2} at delta {:e}{}  odds {}",
            s.first_day,
            rho(s.rho),
            s.epsilon,
            s.delta,
            if s.threshold_delta > 0.0 { format!(" + {:e} of thresholds", s.threshold_delta) } else { String::new() },
            odds(s.odds_to_one)
        );
    }
    let _ = writeln!(
        out,
        "\nThe odds: whoever sees all that was released, knows everything about everybody else, and holds something about this person for as\n\
         likely as not (1 to 1), can afterwards hold it for likely by these odds and no better. After {} days that is {}.\n\
         This holds but for a chance of delta. What was spent is never given back.",
        last.days,
        odds_in_words(last.odds_to_one)
    );
}

fn odds(to_one: f64) -> String {
    if to_one >= NO_PROMISE { "without a bound worth telling".to_owned() } else { format!("{} to 1", plain(to_one)) }
}

/// As precise as matters, and never less than it is: 1.09, 2.5, 311.
fn plain(number: f64) -> String {
    match number {
        n if n < 2.0 => format!("{:.2}", (n * 100.0).ceil() / 100.0),
        n if n < 10.0 => format!("{:.1}", (n * 10.0).ceil() / 10.0),
        n => format!("{:.0}", n.ceil()),
    }
}

fn odds_in_words(to_one: f64) -> String {
    if to_one >= NO_PROMISE {
        return "no promise any more".to_owned();
    }
    let sure = 100.0 * to_one / (1.0 + to_one);
    format!(
        "{} to 1, which is {}",
        plain(to_one),
        if sure > 99.0 { "more than 99 % sure".to_owned() } else { format!("{:.0} % sure", sure.ceil()) }
    )
}

#[cfg(test)]
mod tests;
