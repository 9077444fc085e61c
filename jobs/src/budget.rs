//! `starling budget`: what is spent and left, by whom and for what, and what one person can have lost at the most, in plain words.
//!
//! # Privacy
//! Nothing here is about a person: blocks, questions and what they cost. The worst case of one person is that of somebody who was there on
//! every day and in every dataset: their ρ add up over days and over datasets, also where keys differ, since it is the same person who loses
//! (Bun & Steinke 2016, lemma 1.7). A question over n blocks is one draw for all of them, and somebody who is in all of them changes its answer n times as
//! much as its noise is made for: he loses n² times what a block was charged, and not n times (proposition 1.9, there). Only a question that gives each
//! block a number of its own costs n times; the books do not tell them apart, so the square is told. Of hours every number is of one hour.
//! A week's or month's block counts whole for every stretch that has a day of it, and all 24 hours of a day count for
//! every stretch that has the day. Of all stretches of so many days the dearest is told. The delta of thresholds is told for the unit, added up:
//! somebody who is alone in a rare group on many days of one question can be seen in it with more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use starling_privacy::epsilon;
use starling_schemas::cost::{Allotment, AttoDelta, Cost, NanoRho, RELEASES};
use starling_schemas::ids::{EpochId, Span, WindowId};
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
    let books = of_interest(books(home, now_ms).await?, &home.catalogue, asked)?;
    let report = report(&books, &home.catalogue, now_ms);
    Ok(if asked.json { format!("{}\n", serde_json::to_string(&report)?) } else { text(&report, asked) })
}

/// The same as JSON: of everybody, or of one team and the scheduled releases, whether the team may spend anything or not.
///
/// # Errors
/// When the metastore cannot be read.
pub async fn told(home: &Home, team: Option<&str>) -> anyhow::Result<serde_json::Value> {
    let now_ms = home.clock.now_ms();
    let mut books = books(home, now_ms).await?;
    if let Some(team) = team {
        books.charges.retain(|charge| charge.team.as_deref().is_none_or(|name| name == team));
        books.allotments.retain(|(name, ..)| name == team);
    }
    Ok(serde_json::to_value(report(&books, &home.catalogue, now_ms))?)
}

async fn books(home: &Home, now_ms: i64) -> anyhow::Result<Books> {
    let mut allotments = Vec::new();
    for (dataset, definition) in &home.catalogue.datasets {
        for (team, allotment) in definition.allotments() {
            let (from_ms, to_ms) = allotment.period(now_ms);
            let spent = home.metastore.team_spent(dataset, team, from_ms, to_ms).await?;
            allotments.push((team.to_owned(), dataset.clone(), allotment, spent));
        }
    }
    Ok(Books { blocks: home.metastore.budget().await?, charges: home.metastore.charges().await?, allotments })
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
        let (first, cost) = dearest(&books.blocks, catalogue, days)?;
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

/// First and last day of a block.
type Days = (i32, i32);

fn days_of(row: &BudgetRow, catalogue: &Catalogue) -> Days {
    // An hour says by itself that it is one, also where hours are not kept any more.
    let span = catalogue.datasets.get(&row.block.dataset).map_or(Span::Day, |dataset| dataset.window);
    let epoch = row.block.epoch;
    let window = if epoch.is_hour() { epoch.into() } else { WindowId { span, epoch } };
    (window.epoch.day().0, window.last().day().0)
}

/// The stretch of so many days whose blocks, of all datasets together, cost one person most: its first day, and what they cost. A block is of a stretch if
/// they share a day.
fn dearest(blocks: &[BudgetRow], catalogue: &Catalogue, days: i32) -> Option<(EpochId, Cost)> {
    // What blocks of these first and last days have spent, and what questions over several blocks were charged in each.
    let mut by_days: BTreeMap<Days, Cost> = BTreeMap::new();
    let mut wide: BTreeMap<(&str, &str), Vec<(Days, i64)>> = BTreeMap::new();
    let both = |a: Cost, b: Cost| Cost {
        rho: NanoRho(a.rho.0.saturating_add(b.rho.0)),
        delta: AttoDelta(a.delta.0.saturating_add(b.delta.0)),
    };
    for row in blocks {
        let within = days_of(row, catalogue);
        let block = by_days.entry(within).or_default();
        *block = both(*block, row.spent);
        for charge in row.charges.iter().filter(|charge| charge.team.is_some() && !row.block.epoch.is_hour()) {
            wide.entry((&row.block.dataset, &charge.question)).or_default().push((within, charge.cost.rho.0));
        }
    }
    wide.retain(|_, blocks| blocks.len() > 1);
    // The dearest one may as well be moved on until a block would leave it: it begins with the last day of one.
    let firsts: BTreeSet<i32> = by_days.keys().map(|(_, last)| *last).collect();
    let stretches = firsts.into_iter().map(|first| {
        let end = first.saturating_add(days);
        let is_within = |(from, to): &Days| *from < end && *to >= first;
        let within = by_days.iter().filter(|(days, _)| is_within(days));
        let mut cost = within.fold(Cost::default(), |sum, (_, cost)| both(sum, *cost));
        for blocks in wide.values() {
            let charged: Vec<i64> = blocks.iter().filter(|(days, _)| is_within(days)).map(|(_, rho)| *rho).collect();
            let n = i64::try_from(charged.len()).unwrap_or(i64::MAX);
            let beyond = n.saturating_mul(n.saturating_sub(1)).saturating_mul(charged.into_iter().max().unwrap_or(0));
            cost.rho = NanoRho(cost.rho.0.saturating_add(beyond));
        }
        (EpochId(first), cost)
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

/// The day of an hour that is written as `2026-01-05T13`; `None` for a day.
fn day_of_hour(text: &str) -> Option<&str> {
    text.split_once('T').map(|(day, _)| day)
}

/// Blocks with the name of their window, by it and by dataset. The hours of a day, of which there are many, are one: the dearest stands for them.
fn by_window(blocks: &[BlockRow]) -> Vec<(String, &BlockRow)> {
    let mut windows: BTreeMap<(&str, &str), (usize, &BlockRow)> = BTreeMap::new();
    for block in blocks {
        let day = day_of_hour(&block.day).unwrap_or(&block.day);
        let (hours, dearest) = windows.entry((day, &block.dataset)).or_insert((0, block));
        *hours += 1;
        if block.spent_rho > dearest.spent_rho {
            *dearest = block;
        }
    }
    let name = |day: &str, hours: usize, block: &BlockRow| match day_of_hour(&block.day) {
        Some(_) if hours > 1 => format!("{day}, {hours} hours, one of them"),
        _ => block.day.clone(),
    };
    windows.into_iter().map(|((day, _), (hours, block))| (name(day, hours, block), block)).collect()
}

fn blocks(out: &mut String, blocks: &[BlockRow]) {
    let sorted = by_window(blocks);
    let (shown, hidden) = newest(&sorted);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|(window, b)| {
            vec![
                b.dataset.clone(),
                window.clone(),
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
    out.push_str("SPENT AND LEFT, each dataset and window by its first day\n");
    out.push_str(&lay_out(&header, &rows));
    more(out, hidden, "ones");
}

/// Charges, each with the windows it was for. Of the hours of a day that were charged the same one after another, as releases are, the last stands
/// for all.
fn by_day(charges: &[ChargeRow]) -> Vec<(String, &ChargeRow)> {
    let hour = |c: &ChargeRow| match c.days.as_slice() {
        [only] => day_of_hour(only).map(str::to_owned),
        _ => None,
    };
    let same = |a: &ChargeRow, b: &ChargeRow| {
        let key = |c: &ChargeRow| (hour(c), c.who.clone(), c.question.clone(), c.dataset.clone(), c.rho_per_day.to_bits());
        hour(a).is_some() && key(a) == key(b)
    };
    let windows = |c: &ChargeRow| match c.days.as_slice() {
        [only] => only.clone(),
        [first, .., last] => {
            let what = if day_of_hour(first).is_some() { "hours" } else { "days" };
            format!("{} {what}, {first} to {last}", c.days.len())
        }
        [] => String::new(),
    };
    let told = |same: &'_ [ChargeRow]| match (same.len(), same.last().and_then(hour)) {
        (n, Some(day)) if n > 1 => format!("{day}, {n} hours, each"),
        _ => same.last().map_or(String::new(), windows),
    };
    charges.chunk_by(same).filter_map(|same| Some((told(same), same.last()?))).collect()
}

fn charges(out: &mut String, charges: &[ChargeRow]) {
    let charges = by_day(charges);
    let (shown, hidden) = newest(&charges);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|(days, c)| {
            let days = days.clone();
            vec![c.who.clone(), c.question.clone(), c.dataset.clone(), days, rho(c.rho_per_day), timestamp(c.charged_ms)]
        })
        .collect();
    let (left, right) = (Side::Left, Side::Right);
    let header =
        [("who", left), ("for what", left), ("of", left), ("days", left), ("rho a block", right), ("charged (UTC)", left)];
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
        ("most in one block", right),
    ];
    out.push_str("ALLOTMENTS, in rho, summed over the blocks a question touches\n");
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
        "\nA question over several days at once costs whoever was there on all of them the square of their number.\n\
         The odds: whoever sees all that was released, knows everything about everybody else, and holds something about this person for as\n\
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
