//! `EXPLAIN PRIVACY`: what a statement would cost and how good its answer would be. Touches no data, spends nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use starling_privacy::epsilon;
use starling_privacy::question::{Aggregate, Blur, Interval, Source, Spec};
use starling_schemas::metrics::NanoRho;
use starling_schemas::rows::column;

use super::price::Priced;
use super::vault::Vault;
use crate::answer::Answer;
use crate::catalogue::unreadable;
use crate::error::{INTERNAL, QueryError};

/// Group sizes for which the error is told, in people or rows.
pub(crate) const SIZES: [f64; 4] = [100.0, 1_000.0, 10_000.0, 100_000.0];

/// The price of a statement as rows: question, what, value.
pub(crate) async fn explain(priced: &[Priced], vault: &Vault) -> Result<Answer, QueryError> {
    let mut rows: Vec<(i64, String, String)> = Vec::new();
    let budget = vault.metastore.budget().await.map_err(|error| unreadable(&error))?;
    for (number, question) in (1..).zip(priced) {
        let mut say = |what: &str, value: String| rows.push((number, what.to_owned(), value));
        let (dataset, _) = vault.dataset(&question.leaf.table.dataset)?;
        let spec = &question.leaf.spec;
        say("dataset", format!("private.{}: {}", question.leaf.table.dataset, dataset.privacy_unit));
        say("blocks", days(question));
        let known = vault.files.get(&format!("answers/{}.parquet", question.id)).await.map_err(|error| unreadable(&error))?;
        say(
            "answer",
            if known.is_some() {
                "stored: this question was answered before, and asking again costs nothing".to_owned()
            } else {
                "new: it is charged when it is asked".to_owned()
            },
        );
        say("bounds", bounds(question));
        say(
            "groups",
            match (&question.listed, spec.keys) {
                (_, 0) => "one".to_owned(),
                (Some(columns), _) => {
                    format!("{} listed, those with nobody in them too", columns.first().map_or(0, |column| column.len()))
                }
                (None, _) => format!(
                    "discovered: shown where the noisy number of people is {} or more, so that a person alone in a group is seen with probability {:e} \
                     at most; others are left out, which does not mean that nobody is in them",
                    question.plan.threshold.unwrap_or_default(),
                    question.plan.delta
                ),
            },
        );
        for (aggregate, blur) in spec.aggregates.iter().zip(&question.plan.blurs) {
            say("noise", noise(aggregate, blur));
            if let Blur::Quantile { interval: Some(interval), .. } = blur {
                say("interval", ends(aggregate, interval));
            }
            if let Blur::Noise { noise, .. } = blur {
                let at: Vec<String> =
                    SIZES.iter().map(|size| format!("{:.2} % at {size}", 100.0 * noise.stddev() / size)).collect();
                say("relative error (one standard deviation)", format!("{}: {}", name(aggregate), at.join(", ")));
            }
        }
        for (aggregate, added) in spec.aggregates.iter().zip(question.plan.other.iter().flatten()) {
            let told = match added {
                Some(added) => format!(
                    "{}: one total more over all groups that are left out, a person's part within {}, with noise of standard deviation {:.1}, for rho {}",
                    name(aggregate),
                    together(spec, aggregate),
                    added.noise.stddev(),
                    added.rho.rho()
                ),
                None => format!("{}: NULL, as there is no quantile over groups that are left out", name(aggregate)),
            };
            say("other row", told);
        }
        if let Some(bias) = &question.plan.bias {
            let parts =
                spec.aggregates.iter().zip(&bias.parts).filter_map(|(aggregate, added)| Some((aggregate, added.as_ref()?)));
            for (aggregate, added) in parts {
                say(
                    "bias",
                    format!(
                        "{}: what was kept of all people and what was cut off are told with noise of standard deviation {:.1}, of one person {} at most, for \
                         rho {}",
                        name(aggregate),
                        added.noise.stddev(),
                        u64::from(spec.groups_at_most()) * aggregate.step(),
                        added.rho.rho()
                    ),
                );
            }
            say(
                "bias",
                format!(
                    "people of whom anything was cut off: with noise of standard deviation {:.1}, for rho {}",
                    bias.people.noise.stddev(),
                    bias.people.rho.rho()
                ),
            );
        }
        say("cost", cost(question.plan.rho, question.plan.delta, dataset.delta));
        let limits = dataset.limits();
        let left = question
            .blocks
            .iter()
            .map(|block| {
                let row =
                    budget.iter().find(|row| row.block.epoch == block.epoch && row.block.dataset == *question.leaf.table.dataset);
                row.map_or(limits.teams_rho.min(limits.total.rho).0, |row| row.left_for_teams().0.min(row.left().rho.0))
            })
            .min()
            .unwrap_or(0);
        let after = left - if known.is_some() { 0 } else { question.plan.rho.0 };
        say(
            "left after it",
            if after < 0 {
                format!("not enough: the fullest block holds rho {} more", NanoRho(left).rho())
            } else {
                format!(
                    "rho {} in the fullest block, epsilon {:.3} at delta {:e}",
                    NanoRho(after).rho(),
                    epsilon(NanoRho(after), dataset.delta),
                    dataset.delta
                )
            },
        );
    }
    let schema = explained();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
        .map_err(|_| QueryError::new(INTERNAL, "the engine failed", "report this"))?;
    Ok(Answer { schema, batches: vec![batch], notes: Vec::new(), questions: Vec::new() })
}

/// The columns of what is told.
pub(crate) fn explained() -> SchemaRef {
    Arc::new(Schema::new(vec![
        column("question", DataType::Int64, false, "number of the private part within the statement"),
        column("what", DataType::Utf8, false, "what is told"),
        column("value", DataType::Utf8, false, "and how it is"),
    ]))
}

fn days(question: &Priced) -> String {
    match question.blocks.as_slice() {
        _ if question.leaf.table.questions.source.is_some() => "the whole file".to_owned(),
        [] => "none".to_owned(),
        [one] => one.epoch.to_string(),
        [first, .., last] => {
            let what = if first.epoch.is_hour() { "hours" } else { "days" };
            format!("{} {what}, {} to {}, each charged the whole cost", question.blocks.len(), first.epoch, last.epoch)
        }
    }
}

fn bounds(question: &Priced) -> String {
    let spec = &question.leaf.spec;
    if spec.keys == 0 {
        return "one group".to_owned();
    }
    let groups = if spec.groups_per_person == 1 { "1 group".to_owned() } else { format!("{} groups", spec.groups_per_person) };
    let mut told = Vec::new();
    if spec.aggregates.iter().any(|aggregate| matches!(aggregate, Aggregate::Sum { .. }) && !aggregate.is_one_vector()) {
        told.push(format!("a person is counted in {groups} at most, chosen by lot"));
    }
    if spec.aggregates.iter().any(Aggregate::is_one_vector) {
        told.push(format!(
            "a person's parts of a sum are scaled down together, over all groups, to what the bound in each of {groups} comes to; whoever is in fewer may \
             have more in each"
        ));
    }
    if spec.aggregates.iter().any(|aggregate| matches!(aggregate, Aggregate::Quantile { .. })) {
        told.push("of a person's values as many stay in each group as the bound allows over all of them".to_owned());
    }
    format!("{}; what is beyond is not in the answer", told.join("; "))
}

/// The aggregate as it is bounded.
pub(crate) fn name(aggregate: &Aggregate) -> String {
    match aggregate {
        Aggregate::Sum { of: Source::Rows, low: 0, high: 1 } => "distinct people".to_owned(),
        Aggregate::Sum { of: Source::Rows, high, .. } => format!("rows, at most {high} of a person in a group"),
        Aggregate::Sum { low, high, .. } => format!("sum, a person's part in a group within {low}..{high}"),
        Aggregate::Quantile { rank, per_person, .. } => {
            format!("quantile {}/{}, of at most {per_person} values of a person", rank.numerator(), rank.denominator())
        }
    }
}

/// The most one person adds to a total beside the groups.
fn together(spec: &Spec, aggregate: &Aggregate) -> u64 {
    if aggregate.is_one_vector() { u64::from(spec.groups_at_most()) * aggregate.step() } else { 1 }
}

fn noise(aggregate: &Aggregate, blur: &Blur) -> String {
    match blur {
        Blur::Noise { noise, rho } => format!(
            "{}: {} of standard deviation {:.1}, for rho {}",
            name(aggregate),
            noise.name().replace('_', " "),
            noise.stddev(),
            rho.rho()
        ),
        Blur::Quantile { per_score, rho, interval, .. } => {
            // The score is how many values the rank is off, times the rank's denominator.
            let Aggregate::Quantile { rank, .. } = aggregate else { return String::new() };
            format!(
                "{}: exponential mechanism, off by about {:.0} ranks, for rho {}",
                name(aggregate),
                1.0 / (per_score * f64::from(rank.denominator())),
                NanoRho(rho.0 - interval.map_or(0, |interval| interval.rho.0)).rho()
            )
        }
    }
}

fn ends(aggregate: &Aggregate, interval: &Interval) -> String {
    format!(
        "{}: each end is drawn {:.0} ranks beside it, to be on its wrong side with probability 0.05 at most, for rho {}; where fewer values are beyond the \
         quantile, the end is the measure's own",
        name(aggregate),
        interval.ranks,
        interval.rho.rho()
    )
}

/// A cost as people are told.
pub(crate) fn cost(rho: NanoRho, delta: f64, told_at: f64) -> String {
    let thresholds = if delta > 0.0 { format!(", and delta {delta:e} for the groups that are found") } else { String::new() };
    format!("rho {}: epsilon {:.3} at delta {told_at:e}{thresholds}", rho.rho(), epsilon(rho, told_at))
}
