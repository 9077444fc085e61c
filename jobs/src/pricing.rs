//! `starling metrics`: what is released, what it costs, and how good it will be, told before it runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use starling_privacy::epsilon;
use starling_query::{MetricPrice, prices};
use starling_schemas::cost::{AttoDelta, Cost};
use starling_schemas::ids::EpochId;
use starling_schemas::metrics::{Catalogue, Metric, NanoRho};
use starling_store::BudgetRow;

use crate::config::Config;
use crate::home::Home;
use crate::summary::grouped;

/// Of which budget metrics are paid.
#[derive(Debug, Clone, PartialEq)]
struct Purse {
    /// What a block may spend.
    limit: Cost,
    /// What is left of it for metrics: of a block that was charged, all; of a whole one, what questions cannot take.
    left: Cost,
    /// What the teams' questions may spend.
    teams: NanoRho,
    /// How much of that is not in `left`.
    kept: NanoRho,
    /// Questions that were charged already.
    charged: Vec<String>,
}

/// A metric, and whether it can be paid.
struct Line<'a> {
    metric: &'a Metric,
    price: &'a MetricPrice,
    /// What is left when its turn comes.
    left: Cost,
    fits: bool,
    /// Charged already: its turn costs nothing.
    charged: bool,
}

/// `starling metrics list`.
pub async fn list(config: &Config, json: bool) -> anyhow::Result<String> {
    let catalogue = config.definitions()?;
    let mut out = String::new();
    for (metric, price) in catalogue.metrics.iter().zip(prices(&catalogue).await?) {
        let price = price.map_err(|(name, error)| anyhow::anyhow!("metric {name}: {error}"))?;
        if json {
            let _ = writeln!(out, "{}", told(metric, &price));
        } else {
            let cost = format!("epsilon {:.3} at delta {:e}", price.epsilon, price.delta);
            let _ = writeln!(
                out,
                "stats.{}\n  {}, in {}; {}; {cost}\n  {}",
                metric.name,
                metric.title,
                metric.unit,
                groups(&price),
                metric.description
            );
        }
    }
    Ok(out)
}

/// `starling metrics check`. Prints, and fails where something does not fit.
pub async fn check(config: Config, files: &[PathBuf], day: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        texts.push((path.display().to_string(), text));
    }
    let more: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let catalogue = config.window.of_kept(Catalogue::builtin_and(&more)?);
    let epoch = day
        .map(|day| EpochId::parse_day(day).with_context(|| "--day: no day of the calendar; write it as 2026-01-05"))
        .transpose()?;
    let budget = match epoch {
        Some(_) => Home::open_existing(config).await?.metastore.budget().await?,
        None => Vec::new(),
    };
    let (text, faults) = report(&catalogue, &prices(&catalogue).await?, &budget, epoch, json);
    print!("{text}");
    anyhow::ensure!(
        faults == 0,
        "{faults} of {} metrics cannot be released as they stand: lower budget.rho in their text, or have rho_limit reviewed; see \
         `starling metrics check --help`",
        catalogue.metrics.len()
    );
    Ok(())
}

type Priced = Result<MetricPrice, (String, starling_query::QueryError)>;

/// The prices as text or JSON, and how many metrics do not fit or cannot be planned.
fn report(catalogue: &Catalogue, priced: &[Priced], budget: &[BudgetRow], day: Option<EpochId>, json: bool) -> (String, usize) {
    let mut purses: BTreeMap<&str, Purse> = catalogue
        .datasets
        .iter()
        .map(|(name, dataset)| {
            // The block of the week or month that the day is in.
            let epoch = day.map(|day| dataset.window.of(day).epoch);
            let row = budget.iter().find(|row| row.block.dataset == *name && Some(row.block.epoch) == epoch);
            let limits = row.map_or(dataset.limits(), |row| row.limits);
            let kept = row.map_or(limits.teams_rho, |_| NanoRho(0));
            let left = row.map_or(limits.total.without(Cost::noise(kept)), BudgetRow::left);
            let teams = row.map_or(limits.teams_rho, BudgetRow::left_for_teams);
            let charged = row.map_or(Vec::new(), |row| row.charges.iter().map(|charge| charge.question.clone()).collect());
            (name.as_str(), Purse { limit: limits.total, left, teams, kept, charged })
        })
        .collect();
    let whole = purses.clone();
    let (mut lines, mut wrong) = (Vec::new(), String::new());
    let mut faults = 0;
    for (metric, price) in catalogue.metrics.iter().zip(priced) {
        match (price, purses.get_mut(metric.dataset.as_str())) {
            (Ok(price), Some(purse)) => {
                let charged = purse.charged.contains(&metric.question());
                let needed = Cost { rho: price.rho, delta: AttoDelta::stated(price.threshold_delta) };
                let fits = charged || (needed.rho <= purse.left.rho && needed.delta <= purse.left.delta);
                lines.push(Line { metric, price, left: purse.left, fits, charged });
                faults += usize::from(!fits);
                if fits && !charged {
                    purse.left = purse.left.without(needed);
                }
            }
            (Err((name, error)), _) => {
                faults += 1;
                let _ = writeln!(wrong, "{name}: {error}");
            }
            (Ok(_), None) => faults += 1,
        }
    }
    let text = if json { as_json(&lines, priced) } else { as_text(catalogue, &lines, &whole, &purses, day, &wrong) };
    (text, faults)
}

fn as_json(lines: &[Line<'_>], priced: &[Priced]) -> String {
    let mut out = String::new();
    for line in lines {
        let mut told = told(line.metric, line.price);
        if let Some(told) = told.as_object_mut() {
            told.insert("fits".to_owned(), json!(line.fits));
            told.insert("charged".to_owned(), json!(line.charged));
            told.insert("left_rho".to_owned(), json!(line.left.rho.rho()));
        }
        let _ = writeln!(out, "{told}");
    }
    for (name, error) in priced.iter().filter_map(|price| price.as_ref().err()) {
        let _ = writeln!(out, "{}", json!({ "name": name, "fits": false, "fault": error.reason, "hint": error.hint }));
    }
    out
}

fn told(metric: &Metric, price: &MetricPrice) -> serde_json::Value {
    let errors: serde_json::Map<String, serde_json::Value> =
        price.errors.iter().map(|(people, error)| (people.to_string(), json!(error))).collect();
    json!({
        "name": metric.name, "title": metric.title, "description": metric.description, "dataset": metric.dataset, "unit": metric.unit,
        "query": metric.query, "rho": price.rho.rho(), "epsilon": price.epsilon, "delta": price.delta,
        "threshold_delta": price.threshold_delta, "groups": price.groups, "threshold": price.threshold,
        "groups_per_person": price.groups_per_person, "bounds": price.parts, "relative_error_by_people": errors,
    })
}

fn groups(price: &MetricPrice) -> String {
    match (price.groups, price.threshold) {
        (Some(1), _) => "1 group".to_owned(),
        (Some(groups), _) => format!("{} groups", grouped(groups as u64)),
        (None, Some(threshold)) => format!("found, from {threshold} people"),
        (None, None) => "found".to_owned(),
    }
}

fn as_text(
    catalogue: &Catalogue,
    lines: &[Line<'_>],
    whole: &BTreeMap<&str, Purse>,
    rest: &BTreeMap<&str, Purse>,
    day: Option<EpochId>,
    wrong: &str,
) -> String {
    let mut out = String::new();
    let cost = |rho: NanoRho, delta: f64| format!("rho {}, epsilon {:.3} at delta {delta:e}", rho.rho(), epsilon(rho, delta));
    for (name, dataset) in &catalogue.datasets {
        let own: Vec<&Line<'_>> = lines.iter().filter(|line| line.metric.dataset == *name).collect();
        let (Some(before), Some(after), false) = (whole.get(name.as_str()), rest.get(name.as_str()), own.is_empty()) else {
            continue;
        };
        let _ = writeln!(out, "private.{name}: {}", dataset.privacy_unit);
        let block = day.map_or("a block".to_owned(), |day| format!("the block of {}", dataset.window.of(day)));
        let _ = writeln!(out, "  {block} may spend {}", cost(before.limit.rho, dataset.delta));
        if before.left != before.limit {
            let _ = writeln!(out, "  metrics have {}", cost(before.left.rho, dataset.delta));
        }
        let sizes: Vec<String> = own
            .first()
            .map(|line| line.price.errors.iter().map(|(people, _)| format!("{:>9}", grouped(*people))).collect())
            .unwrap_or_default();
        let _ = writeln!(out, "\n  {:<30} {:>8} {:>8}  {:<22} error in a group of so many people", "", "rho", "epsilon", "");
        let _ = writeln!(out, "  {:<30} {:>8} {:>8}  {:<22} {}", "metric", "", "", "groups", sizes.concat());
        for line in own {
            let price = line.price;
            let _ = writeln!(
                out,
                "  {:<30} {:>8} {:>8.3}  {:<22} {}{}",
                price.name,
                price.rho.rho(),
                price.epsilon,
                groups(price),
                price.errors.iter().map(|(_, error)| format!("{:>9}", share(*error))).collect::<String>(),
                match (line.fits, line.charged) {
                    (false, _) if price.rho > line.left.rho => format!("  DOES NOT FIT: rho {} is left", line.left.rho.rho()),
                    (false, _) => format!("  DOES NOT FIT: a delta of {:e} is left for finding groups", line.left.delta.delta()),
                    (true, true) => "  charged already".to_owned(),
                    (true, false) => String::new(),
                }
            );
        }
        let spent = before.left.without(after.left);
        let found = if spent.delta.0 > 0 {
            format!(", and delta {:e} for groups that are found", spent.delta.delta())
        } else {
            String::new()
        };
        let _ = writeln!(out, "\n  together {}{found}", cost(spent.rho, dataset.delta));
        let _ = writeln!(
            out,
            "  left for questions {}\n",
            cost(before.teams.min(NanoRho(after.left.rho.0 + after.kept.0)), dataset.delta)
        );
    }
    if !wrong.is_empty() {
        let _ = writeln!(out, "Not to be planned\n  {}\n", wrong.trim_end().replace('\n', "\n  "));
    }
    out.push_str(
        "The error is one standard deviation of the noise as a share of the value, each person bringing a tenth of what may count of one; of a quantile,\n\
         the share of ranks it may be off. From 25 % on a value is suppressed. A day's epsilon holds for one person; days add up.\n",
    );
    out
}

/// A share with two digits that count.
fn share(error: Option<f64>) -> String {
    match error {
        None => "none".to_owned(),
        Some(error) if error >= 10.0 => "> 1000 %".to_owned(),
        Some(error) => {
            let percent = error * 100.0;
            let digits = if percent >= 10.0 {
                0
            } else if percent >= 1.0 {
                1
            } else {
                2
            };
            format!("{percent:.digits$} %")
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_store::Block;

    use starling_schemas::cost::Cost;
    use starling_schemas::ids::Span;
    use starling_store::BlockCharge;

    use super::*;

    #[tokio::test]
    async fn prices_are_told_with_what_they_are_worth() {
        let catalogue = Catalogue::builtin().expect("reviewed");
        let (text, faults) = report(&catalogue, &prices(&catalogue).await.expect("sets up"), &[], None, false);
        assert_eq!(faults, 0, "{text}");
        crate::snapshots().bind(|| insta::assert_snapshot!("metrics_check", text));
    }

    #[tokio::test]
    async fn a_block_that_is_nearly_spent_holds_the_first_metrics_and_what_was_charged() {
        let catalogue = Catalogue::builtin().expect("reviewed");
        let day = EpochId(20_458);
        let dataset = &catalogue.datasets["person_day"];
        let of_a_day: Vec<_> = catalogue.metrics_of(Span::Day).collect();
        let [first, .., last] = of_a_day.as_slice() else { panic!("there are more") };
        let spent = NanoRho(dataset.limit().0 - first.rho.0);
        let charge = |question, rho| BlockCharge { question, cost: Cost::noise(rho), team: None, at_ms: 1 };
        let row = BudgetRow {
            block: Block { dataset: "person_day".to_owned(), epoch: day },
            limits: dataset.limits(),
            spent: Cost::noise(spent),
            teams_spent: NanoRho(0),
            charges: vec![charge("sql:1".to_owned(), NanoRho(spent.0 - last.rho.0)), charge(last.question(), last.rho)],
        };
        let priced = prices(&catalogue).await.expect("sets up");
        let (text, faults) = report(&catalogue, &priced, &[row], Some(day), false);
        assert_eq!(faults, of_a_day.len() - 2, "{text}");
        assert_eq!(text.matches("DOES NOT FIT").count(), faults);
        assert_eq!(text.matches("charged already").count(), 1);
    }

    #[tokio::test]
    async fn a_metric_that_is_too_dear_or_no_metric_is_named() {
        let wrong = "name = \"loudest\"\ntitle = \"x\"\ndescription = \"y\"\ndataset = \"person_day\"\nunit = \"events\"\n\
                     query = \"SELECT country, MAX(events) AS value FROM private.person_day GROUP BY country\"\n[budget]\nrho = 0.00001\n";
        let mut catalogue = Catalogue::builtin_and(&[("wrong.toml", wrong)]).expect("good as text");
        // A text this dear is not even read; a limit that was lowered since makes one.
        let mut dear = catalogue.metrics.first().expect("there are some").clone();
        (dear.name, dear.rho) = ("dear".to_owned(), NanoRho(14_000_000));
        catalogue.metrics.push(dear);
        let priced = prices(&catalogue).await.expect("sets up");
        let (text, faults) = report(&catalogue, &priced, &[], None, false);
        assert_eq!(faults, 2, "{text}");
        let told: Vec<&str> = text.lines().filter(|line| line.contains("dear") || line.contains("loudest")).collect();
        crate::snapshots().bind(|| insta::assert_snapshot!("metrics_check_faults", told.join("\n")));
        let (json, _) = report(&catalogue, &priced, &[], None, true);
        let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), catalogue.metrics.len());
        assert_eq!(lines.iter().filter(|line| line["fits"] == false).count(), 2);
    }
}
