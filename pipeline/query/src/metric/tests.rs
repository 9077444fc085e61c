use std::fmt::Write as _;

use starling_privacy::question::Aggregate;
use starling_schemas::metrics::NanoRho;

use super::price::imagined;
use super::*;

const TEXT: &str = "SELECT country, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country";

fn metric(query: &str) -> Metric {
    let catalogue = Catalogue::builtin().expect("reviewed");
    let metric = catalogue.metrics.into_iter().next().expect("listed");
    Metric { query: query.to_owned(), rho: NanoRho(1_000_000), ..metric }
}

async fn planned(metric: &Metric) -> Result<Planned, QueryError> {
    Planner::over(&Catalogue::builtin().expect("reviewed")).expect("sets up").plan(metric).await
}

#[tokio::test]
async fn every_metric_of_this_build_can_be_planned_and_is_priced_as_it_says() {
    let catalogue = Catalogue::builtin().expect("reviewed");
    for (metric, price) in catalogue.metrics.iter().zip(prices(&catalogue).await.expect("sets up")) {
        let price = price.unwrap_or_else(|(name, error)| panic!("{name}: {error}"));
        assert_eq!((&price.name, price.rho, price.threshold_delta), (&metric.name, metric.rho, metric.threshold_delta));
        assert!(
            price.errors.iter().any(|(_, error)| error.is_some_and(|e| e < 0.5)),
            "{}: useless: {:?}",
            price.name,
            price.errors
        );
    }
}

#[tokio::test]
async fn what_stands_above_the_noise_gives_a_table_whatever_the_noise_is() {
    let catalogue = Catalogue::builtin().expect("reviewed");
    let planner = Planner::over(&catalogue).expect("sets up");
    for metric in &catalogue.metrics {
        for number in [0, -1, 1, -1_000_000_000, 1_000_000_000_000] {
            let planned = planner.plan(metric).await.expect("plans");
            let measured = planner.price(planned, metric, &catalogue.datasets["person_day"], None).await.expect("prices");
            let made = imagined(&planner, measured, |_: &Aggregate| number).await;
            assert!(made.is_ok(), "{} where all numbers are {number}: {:?}", metric.name, made.err());
        }
    }
}

#[tokio::test]
async fn a_query_that_is_no_metric_is_refused_and_says_what_to_write() {
    let mut text = String::new();
    for query in [
        "SELECT country, COUNT(DISTINCT person) FROM private.person_day GROUP BY country",
        "SELECT COUNT(DISTINCT person) AS value, country FROM private.person_day GROUP BY country",
        "SELECT day, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY day",
        "SELECT country, COUNT(DISTINCT person) AS value FROM private.person_day WHERE day > DATE '2026-01-01' GROUP BY country",
        "SELECT country AS status, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country",
        "SELECT country AS \"Land\", COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country",
        "SELECT country, country, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country",
        "SELECT events, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY events",
        "SELECT country, COUNT(DISTINCT person) AS value FROM private.person_week GROUP BY country",
        "SELECT 'all' AS country, 1 AS value",
        "SELECT country, value FROM stats.messages_daily",
        "SELECT country, person AS value FROM private.person_day",
        "SELECT country, SUM(value) AS value FROM (SELECT country, COUNT(*) AS value FROM private.person_day GROUP BY country UNION ALL SELECT country, \
         COUNT(*) AS value FROM private.person_day GROUP BY country) AS both_of_them GROUP BY country",
        "SELECT country, COUNT(*) AS value FROM (SELECT country FROM private.person_day UNION ALL SELECT country FROM private.person_day) AS twice \
         GROUP BY country",
        "SELECT country, COUNT(*) AS value FROM private.person_day GROUP BY ROLLUP (country)",
        "SELECT country, SQRT(COUNT(*)) AS value FROM private.person_day GROUP BY country",
        "SELECT country, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country SETTINGS epsilon = 5",
        "EXPLAIN PRIVACY SELECT country, COUNT(DISTINCT person) AS value FROM private.person_day GROUP BY country",
        "DROP TABLE private.person_day",
    ] {
        let error = planned(&metric(query)).await.expect_err(query);
        let _ = writeln!(text, "{query}\n  {error}\n");
    }
    insta::assert_snapshot!("no_metric", text);
}

#[tokio::test]
async fn text_bounds_and_budget_are_what_is_planned() {
    let catalogue = Catalogue::builtin().expect("reviewed");
    let planner = Planner::over(&catalogue).expect("sets up");
    let one = Metric { groups_per_person: Some(1), ..metric(TEXT) };
    let measured = planner.plan(&one).await.expect("plans");
    let measured = planner.price(measured, &one, &catalogue.datasets["person_day"], None).await.expect("prices");
    assert_eq!(measured.priced.leaf.spec.groups_per_person, 1);
    assert!(measured.priced.listed.is_some() && measured.priced.plan.threshold.is_none());
    assert_eq!((measured.priced.plan.rho, measured.priced.plan.delta), (NanoRho(1_000_000), 0.0));

    let found = Metric { threshold_delta: 1e-10, ..metric(TEXT) };
    let measured = planner.plan(&found).await.expect("plans");
    let measured = planner.price(measured, &found, &catalogue.datasets["person_day"], None).await.expect("prices");
    assert!(measured.priced.listed.is_none() && measured.priced.plan.threshold.is_some());
    assert_eq!(measured.priced.plan.delta, 1e-10);
}
