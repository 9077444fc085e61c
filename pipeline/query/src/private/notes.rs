//! What is said beside the rows: what a statement's private answers cost, what they leave out, and how much the bounds cut off. One note for all
//! questions over a dataset: a ROLLUP is one statement to whoever asks, however many questions it takes. Made of prices and noisy numbers.

use starling_privacy::Z;
use starling_privacy::question::{Aggregate, Bias, BiasPlan};
use starling_schemas::metrics::NanoRho;

use super::ask::Paid;
use super::explain::{cost, name};
use super::price::Priced;
use super::vault::Vault;
use crate::error::QueryError;

/// The notes of a statement's questions, `paid` each.
///
/// # Errors
/// For a dataset that is gone.
pub(crate) fn notes(priced: &[Priced], paid: &[Paid], vault: &Vault) -> Result<Vec<String>, QueryError> {
    let mut datasets: Vec<&str> = Vec::new();
    for question in priced {
        let dataset = question.leaf.table.dataset.as_ref();
        if !datasets.contains(&dataset) {
            datasets.push(dataset);
        }
    }
    let mut notes = Vec::new();
    for dataset in datasets {
        let asked: Vec<(&Priced, &Paid)> =
            priced.iter().zip(paid).filter(|(question, _)| question.leaf.table.dataset.as_ref() == dataset).collect();
        let (known, _) = vault.dataset(dataset)?;
        let mut text = format!("private.{dataset}: {}", costs(&asked, known.delta));
        let incomplete = asked.iter().map(|(_, paid)| paid.incomplete).max().unwrap_or(0);
        if incomplete > 0 {
            text.push_str(&format!("; {incomplete} of the days closed before all their events had come"));
        }
        let found = || asked.iter().filter(|(question, _)| question.leaf.spec.discovered);
        if found().any(|(question, _)| question.plan.other.is_none()) {
            text.push_str("; groups with few people are left out");
        } else if found().next().is_some() {
            text.push_str("; groups with few people are pooled in a row whose keys are NULL, where dp_other() is true");
        }
        notes.push(text);
        let mut told: Vec<String> = Vec::new();
        for (question, paid) in asked {
            if let (Some(bias), Some(plan)) = (&paid.bias, &question.plan.bias) {
                told.push(format!("private.{dataset}: {}", cut_off(&question.leaf.spec.aggregates, bias, plan)));
            }
        }
        told.dedup();
        notes.extend(told);
    }
    Ok(notes)
}

pub(super) fn costs(asked: &[(&Priced, &Paid)], delta: f64) -> String {
    let rho = NanoRho(asked.iter().map(|(_, paid)| paid.rho.0).sum());
    let spent = asked.iter().map(|(_, paid)| paid.delta).sum();
    let free = asked.iter().filter(|(_, paid)| paid.rho.0 == 0).count();
    let blocks = asked.iter().map(|(_, paid)| paid.blocks).max().unwrap_or(0);
    let each = if blocks == 1 { String::new() } else { format!(", in each of {blocks} blocks") };
    match (asked.len(), free) {
        (1, 0) => format!("cost {}{each}", cost(rho, spent, delta)),
        (1, _) => "answered before, and free".to_owned(),
        (n, free) if free == n => format!("{n} questions, all answered before, and free"),
        (n, 0) => format!("{n} questions cost together {}{each}", cost(rho, spent, delta)),
        (n, free) => format!(
            "{n} questions cost together {}{each}; {free} of them were answered before, and free",
            cost(rho, spent, delta)
        ),
    }
}

/// A share with half of its 95 % interval; `None` where the noise drowns it. Both parts have noise of this standard deviation.
#[allow(clippy::cast_precision_loss)]
fn share(part: i64, rest: i64, stddev: f64) -> Option<(f64, f64)> {
    let (part, rest) = (part as f64, rest as f64);
    let all = part + rest;
    if all < 10.0 * stddev || all <= 0.0 {
        return None;
    }
    Some(((part / all).max(0.0), Z * stddev * part.hypot(rest) / (all * all)))
}

/// The same in percent, as text.
fn percent(part: i64, rest: i64, stddev: f64) -> Option<String> {
    let (share, half) = share(part, rest, stddev)?;
    let (share, half) = (100.0 * share, 100.0 * half);
    let digits = if half < 0.1 { 2 } else { 1 };
    Some(format!("{share:.digits$} % (± {:.digits$})", half.max(0.01)))
}

/// What the bounds cut off of the first sum, and of how many people they cut off anything, as shares; `None` where the noise drowns it, and for
/// a question that has no sum.
pub(crate) fn cut_shares(bias: &Bias, plan: &BiasPlan) -> [Option<f64>; 2] {
    let mut sums = bias.parts.iter().zip(&plan.parts).filter_map(|(parts, added)| parts.as_ref().zip(added.as_ref()));
    let of_sum = sums.next().and_then(|([kept, cut], added)| share(*cut, *kept, added.noise.stddev()));
    let [people, cut] = bias.people;
    let of_people = share(cut, people.saturating_sub(cut), plan.people.noise.stddev());
    [of_sum, of_people].map(|share| share.map(|(share, _)| share))
}

/// How much the bounds cut off, in words.
fn cut_off(aggregates: &[Aggregate], bias: &Bias, plan: &BiasPlan) -> String {
    let (mut told, mut drowned) = (Vec::new(), Vec::new());
    for ((aggregate, parts), added) in aggregates.iter().zip(&bias.parts).zip(&plan.parts) {
        let (Some([kept, cut]), Some(added)) = (parts, added) else { continue };
        match percent(*cut, *kept, added.noise.stddev()) {
            Some(share) => told.push(format!("{share} of {}", subject(aggregate))),
            None => drowned.push(subject(aggregate)),
        }
    }
    let [people, cut] = bias.people;
    match percent(cut, people.saturating_sub(cut), plan.people.noise.stddev()) {
        Some(share) => told.push(format!("something of {share} of the people")),
        None => drowned.push("how many people".to_owned()),
    }
    let told =
        if told.is_empty() { None } else { Some(format!("over all groups the bounds cut off, at least: {}", told.join("; "))) };
    let why = "the noise drowns it, for want of people or of budget";
    let drowned =
        (!drowned.is_empty()).then(|| format!("what the bounds cut off cannot be told of {}: {why}", drowned.join(", ")));
    told.into_iter().chain(drowned).collect::<Vec<_>>().join("; ")
}

fn subject(aggregate: &Aggregate) -> String {
    if *aggregate == Aggregate::PEOPLE { "distinct people by group".to_owned() } else { name(aggregate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_with_its_error_and_not_where_noise_drowns_it() {
        let told = |part, rest, stddev| percent(part, rest, stddev).unwrap_or_default();
        assert_eq!(told(4_100, 95_900, 100.0), "4.1 % (± 0.2)");
        assert_eq!(told(-30, 1_000_000, 100.0), "0.00 % (± 0.02)");
        assert_eq!(told(10, 500, 100.0), "");
        assert_eq!(told(-600, 500, 1.0), "");
    }
}
