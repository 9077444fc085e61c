//! `SUGGEST SELECT …`: which bounds would fit a question, found in the data with noise. Charged, written into the audit log and stored as any question is.
//!
//! For a tenth of what the question costs. A suggestion below the present bound can be written into the statement (SETTINGS, `dp_clip`); one above it
//! can only be followed as far as the dataset's own text allows. How values are chosen stands in `starling_privacy::question`, with why it is private.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use starling_privacy::question::{self, Aggregate, Blur, Bound, Plan, Probe, Source, Spec};
use starling_schemas::rows::column;

use super::ask::{Asking, obtain};
use super::explain::{cost, name};
use super::notes::costs;
use super::price::Priced;
use super::refusals::below;
use crate::answer::Answer;
use crate::error::{INTERNAL, QueryError};

/// People in a group, where the statement does not say.
const GROUP_SIZE: u32 = 1_000;

/// A row of the answer.
struct Told {
    question: i64,
    bound: String,
    now: i64,
    suggested: Option<i64>,
    noise: [Option<f64>; 2],
    beyond: f64,
    write: Option<String>,
}

fn internal() -> QueryError {
    QueryError::new(INTERNAL, "the engine failed on this statement", "write it in another way, and report this")
}

/// Finds bounds for a statement's questions; with `only_price` it is told which and at what cost, and nothing is read.
///
/// # Errors
/// [`crate::error::NOT_PERMITTED`] where there is no bound to find, and those of any question.
pub(crate) async fn suggest(
    priced: Vec<Priced>,
    group_size: Option<u32>,
    asking: Asking<'_>,
    only_price: bool,
) -> Result<Answer, QueryError> {
    let (mut told, mut notes) = (Vec::new(), Vec::new());
    let questions = priced.len();
    for (at, mut question) in priced.into_iter().enumerate() {
        let number = i64::try_from(at + 1).unwrap_or(i64::MAX);
        let answered = question.plan;
        question.plan = question::suggest(&question.leaf.spec, &answered, group_size.unwrap_or(GROUP_SIZE))
            .map_err(|error| below("finding bounds for this question is", &error.to_string()))?;
        // Another question than the one it is about, over the same rows.
        let named = format!("suggestion 1\n{}\n{:?}", question.id, question.plan);
        question.id = blake3::hash(named.as_bytes()).to_hex().chars().take(32).collect();
        let dataset = &question.leaf.table.dataset;
        let delta = asking.vault.dataset(dataset)?.0.delta;
        let found = if only_price {
            notes.push(format!("private.{dataset}: would cost {}; nothing was read", cost(question.plan.rho, 0.0, delta)));
            None
        } else {
            let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]));
            let table = |drawn: &question::Answer| {
                let values = drawn.values.iter().flatten().copied();
                RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from_iter_values(values))])
                    .map_err(|_| internal())
            };
            let (rows, paid) = obtain(&question, asking.at(at + 1, questions), &schema, table).await?;
            notes.push(format!("private.{dataset}: {}", costs(&[(&question, &paid)], delta)));
            Some(rows)
        };
        let values = found.as_ref().map(|rows| rows.column(0).as_primitive::<Int64Type>());
        for (place, probe) in question.plan.probes.iter().enumerate() {
            let value = values.filter(|values| place < values.len()).map(|values| values.value(place));
            told.push(tell(number, &question.leaf.spec, &answered, probe, value));
        }
    }
    notes.dedup();
    let answer = rows(&told)?;
    Ok(Answer { notes, ..answer })
}

#[allow(clippy::cast_precision_loss)]
fn tell(question: i64, spec: &Spec, answered: &Plan, probe: &Probe, suggested: Option<i64>) -> Told {
    let stddev = |at: usize| match answered.blurs.get(at) {
        Some(Blur::Noise { noise, .. }) => Some(noise.stddev()),
        _ => None,
    };
    let now = i64::try_from(probe.now).unwrap_or(i64::MAX);
    let grows = suggested.map(|suggested| suggested as f64 / now as f64);
    let (bound, noise, write) = match probe.bound {
        Bound::Groups => {
            let first = (0..answered.blurs.len()).find_map(stddev);
            let then = first.zip(grows).map(|(stddev, grows)| stddev * grows.sqrt());
            ("groups of a person".to_owned(), [first, then], suggested.map(|k| format!("SETTINGS groups_per_person = {k}")))
        }
        Bound::Part(at) => {
            let then = stddev(at).zip(grows).map(|(stddev, grows)| stddev * grows);
            let aggregate = spec.aggregates.get(at);
            let write = suggested.zip(aggregate).map(|(high, aggregate)| written(spec, aggregate, high));
            (aggregate.map_or_else(String::new, name), [stddev(at), then], write)
        }
    };
    let write = match suggested {
        Some(suggested) if suggested >= now => {
            Some("nothing lower fits better; more is for the dataset's text to allow".to_owned())
        }
        _ => write,
    };
    let rank = f64::from(probe.rank.numerator()) / f64::from(probe.rank.denominator());
    Told { question, bound, now, suggested, noise, beyond: 1.0 - rank, write }
}

/// How a part is clipped at `high` in a statement.
fn written(spec: &Spec, aggregate: &Aggregate, high: i64) -> String {
    let Aggregate::Sum { of, low, .. } = aggregate else { return String::new() };
    let is_count = match of {
        Source::Rows => true,
        Source::Column(at) => spec.inputs.get(*at).is_some_and(|input| (input.low, input.high) == (0, 1)),
    };
    if is_count { format!("SETTINGS rows_per_group = {high}") } else { format!("dp_clip(…, {}, {high})", (-high).max(*low)) }
}

/// The columns of what is suggested.
pub(crate) fn suggested() -> SchemaRef {
    let number = |name: &str, kind: DataType, comment: &str| column(name, kind, true, comment);
    Arc::new(Schema::new(vec![
        number("question", DataType::Int64, "number of the private part within the statement"),
        number("bound", DataType::Utf8, "which bound"),
        number("now", DataType::Int64, "what it is"),
        number("suggested", DataType::Int64, "what fits the data, with noise; NULL where only the price was asked"),
        number("noise_now", DataType::Float64, "standard deviation of the noise it causes; for groups, of the first aggregate"),
        number("noise_then", DataType::Float64, "the same with the suggested bound"),
        number("beyond", DataType::Float64, "share of people who have more than the suggested bound and are cut to it, about"),
        number("write", DataType::Utf8, "what to write for it"),
    ]))
}

fn rows(told: &[Told]) -> Result<Answer, QueryError> {
    let schema = suggested();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(told.iter().map(|row| Some(row.question)).collect::<Int64Array>()),
        Arc::new(told.iter().map(|row| Some(row.bound.clone())).collect::<StringArray>()),
        Arc::new(told.iter().map(|row| Some(row.now)).collect::<Int64Array>()),
        Arc::new(told.iter().map(|row| row.suggested).collect::<Int64Array>()),
        Arc::new(told.iter().map(|row| row.noise[0]).collect::<Float64Array>()),
        Arc::new(told.iter().map(|row| row.noise[1]).collect::<Float64Array>()),
        Arc::new(told.iter().map(|row| Some((row.beyond * 1000.0).round() / 1000.0)).collect::<Float64Array>()),
        Arc::new(told.iter().map(|row| row.write.clone()).collect::<StringArray>()),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|_| internal())?;
    Ok(Answer { schema, batches: vec![batch], notes: Vec::new(), questions: Vec::new() })
}
