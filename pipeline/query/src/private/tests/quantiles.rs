//! Intervals of quantiles: drawn where they are asked for and nowhere else, at no other price, and carried through what stands above.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use starling_privacy::question::{Aggregate, Blur};
use starling_schemas::codes::{Activity, PlatformCode};

use super::house::{DAY, House, Row, pseudonym, town, visits};
use super::{engine, refusal};
use crate::private::{Priced, Split, price, replace_bars, split};
use crate::{Answer, Engine, gate};

/// 1,001 people who called 0, 3, 6, … 3,000 seconds: the median is 1,500.
fn callers() -> Vec<Row> {
    let row = |n: u32| Row {
        day: DAY,
        person: pseudonym(n.into(), DAY),
        country: "DE",
        platform: PlatformCode::ALL[0],
        activity: Activity::ALL[0],
        events: 1,
        seconds: 3 * n,
    };
    (0..=1_000).map(row).collect()
}

async fn asked(engine: &Engine, sql: &str) -> Answer {
    engine.query(sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"))
}

fn numbers(answer: &Answer, name: &str) -> Vec<Option<f64>> {
    let of = |column: &ArrayRef| {
        let column = cast(column, &DataType::Float64).expect("numbers");
        column.as_primitive::<Float64Type>().iter().collect::<Vec<_>>()
    };
    answer.batches.iter().flat_map(|batch| of(batch.column_by_name(name).expect("a column"))).collect()
}

fn one(answer: &Answer, name: &str) -> f64 {
    numbers(answer, name)[0].expect("a number")
}

/// As far as the price, as [`Engine::query`] does.
async fn priced(engine: &Engine, sql: &str) -> Vec<Priced> {
    let inner = &engine.inner;
    let admitted = gate::admit(sql, &[], &inner.known, &inner.limits).expect("admitted");
    let plan = inner.state.statement_to_plan(admitted.statement).await.expect("a plan");
    let settings = admitted.settings.unwrap_or_default();
    let Split { plan, mut leaves, families } = split(plan, &settings).expect("split");
    replace_bars(plan, &mut leaves, &families).expect("bars");
    price(leaves, &settings, inner.shelf.vault.as_ref().expect("a vault"), &inner.reading, &admitted.literals)
        .await
        .expect("a price")
}

/// By quantile of all questions: whether its interval is drawn.
fn drawn(questions: &[Priced]) -> Vec<bool> {
    let quantiles = questions.iter().flat_map(|question| question.leaf.spec.aggregates.iter().zip(&question.plan.blurs));
    let of = |(aggregate, blur): (&Aggregate, &Blur)| match (aggregate, blur) {
        (Aggregate::Quantile { interval, .. }, Blur::Quantile { interval: planned, .. }) => {
            assert_eq!(*interval, planned.is_some());
            Some(*interval)
        }
        _ => None,
    };
    quantiles.filter_map(of).collect()
}

const MEDIAN: &str =
    "SELECT MEDIAN(seconds) AS m, dp_low(MEDIAN(seconds)) AS low, dp_high(MEDIAN(seconds)) AS high FROM private.person_day";

#[tokio::test(flavor = "multi_thread")]
async fn a_quantile_lies_between_its_ends_and_so_does_the_truth_at_the_price_it_has_without() {
    let house = House::rich(&callers(), &[]).await;
    let engine = engine(&house).await;
    let answer = asked(&engine, &format!("{MEDIAN} SETTINGS rho = 2, values_per_person = 1")).await;
    let (low, value, high) = (one(&answer, "low"), one(&answer, "m"), one(&answer, "high"));
    assert!(low <= value && value <= high, "{low} {value} {high}");
    // Some five ranks to either side, of three seconds each; the probability of ten times that is below a billionth, and so is
    // that of an interval that holds nothing within fifty seconds of the truth. The truth itself it may miss once in twenty.
    assert!(low < 1_550.0 && 1_450.0 < high, "{low} {value} {high}");
    assert!(low > 1_350.0 && high < 1_650.0 && low < high, "{low} {value} {high}");
    let again = asked(&engine, &format!("{MEDIAN} SETTINGS rho = 2, values_per_person = 1")).await;
    assert_eq!(again.batches, answer.batches);
    assert!(again.notes[0].contains("free"), "{:?}", again.notes);

    let with = priced(&engine, MEDIAN).await;
    let without = priced(&engine, "SELECT MEDIAN(seconds) AS m FROM private.person_day").await;
    assert_eq!((with[0].plan.rho, drawn(&with), drawn(&without)), (without[0].plan.rho, vec![true], vec![false]));
    assert_ne!(with[0].id, without[0].id, "another question");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_drawn_of_what_they_are_asked_of_and_of_nothing_else() {
    let house = House::rich(&callers(), &visits(20, 2)).await;
    let engine = engine(&house).await;
    let two = "MEDIAN(seconds) AS m, PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) AS p, COUNT(*) AS n";
    for (sql, wanted) in [
        (format!("SELECT m, dp_low(p) FROM (SELECT {two} FROM private.person_day) x"), vec![false, true]),
        (format!("SELECT m, p FROM (SELECT {two} FROM private.person_day) x WHERE dp_high(m) < 9000"), vec![true, false]),
        (format!("SELECT m, p, dp_low(n) FROM (SELECT {two} FROM private.person_day) x"), vec![false, false]),
        (format!("SELECT dp_low(CASE k WHEN 'm' THEN m ELSE p END) FROM (SELECT {two} FROM private.person_day) x CROSS JOIN (VALUES ('m'), ('p')) AS ks (k)"), vec![true, true]),
        ("SELECT platform, dp_low(MEDIAN(seconds)) FROM private.person_day GROUP BY ROLLUP (platform)".to_owned(), vec![true, true]),
        (
            "SELECT a.m, dp_high(b.m) FROM (SELECT MEDIAN(seconds) AS m FROM private.person_day) a, (SELECT MEDIAN(gain) AS m FROM private.visits) b"
                .to_owned(),
            vec![false, true],
        ),
    ] {
        assert_eq!(drawn(&priced(&engine, &sql).await), wanted, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_stretches_or_turns_a_quantile_does_so_to_its_ends() {
    let house = House::rich(&callers(), &[]).await;
    let engine = engine(&house).await;
    // The same question each time, so that the ends are the same.
    let plain = asked(&engine, &format!("{MEDIAN} SETTINGS rho = 2")).await;
    let (low, value, high) = (one(&plain, "low"), one(&plain, "m"), one(&plain, "high"));
    assert!(low < value && value < high, "{low} {value} {high}");
    for (of, ends) in [
        ("m / 60.0", [low / 60.0, high / 60.0]),
        ("2 * m + 5", [2.0 * low + 5.0, 2.0 * high + 5.0]),
        ("m / -2.0", [high / -2.0, low / -2.0]),
        ("100 - CAST(m AS DOUBLE)", [100.0 - high, 100.0 - low]),
        ("-m", [-high, -low]),
        ("CAST(m / 60.0 AS BIGINT)", [(low / 60.0).floor(), (high / 60.0).ceil()]),
        ("-CAST(m / 60.0 AS BIGINT)", [-(high / 60.0).ceil(), -(low / 60.0).floor()]),
        ("CASE WHEN m > -5 THEN m END", [low, high]),
        ("(CASE WHEN true THEN m / 10.0 END) - 1", [low / 10.0 - 1.0, high / 10.0 - 1.0]),
    ] {
        let sql = format!(
            "WITH x AS (SELECT MEDIAN(seconds) AS m FROM private.person_day), y AS (SELECT {of} AS v FROM x) \
             SELECT v, dp_low(v) AS low, dp_high(v) AS high FROM y SETTINGS rho = 2"
        );
        let answer = asked(&engine, &sql).await;
        let found = [one(&answer, "low"), one(&answer, "high")];
        assert!(found.iter().zip(ends).all(|(found, wanted)| (found - wanted).abs() < 1e-9), "{of}: {found:?} {ends:?}");
        assert!((found[0]..=found[1]).contains(&one(&answer, "v")), "{of}");
        assert!(answer.notes[0].contains("free"), "{of}: {:?}", answer.notes);
    }
    // Whole numbers leave something off when they are divided: the value is inside all the same.
    let sql = MEDIAN.replace("MEDIAN(seconds)", "MEDIAN(seconds) / 1000");
    let whole = asked(&engine, &format!("{sql} SETTINGS rho = 2")).await;
    assert!((one(&whole, "low")..=one(&whole, "high")).contains(&one(&whole, "m")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_has_the_bars_of_what_it_takes_unless_noise_decides_what_that_is() {
    let house = House::rich(&callers(), &[]).await;
    let engine = engine(&house).await;
    let from = "FROM (SELECT COUNT(*) AS n, SUM(seconds) AS s, MEDIAN(seconds) AS m, PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) AS p \
                FROM private.person_day) x CROSS JOIN (VALUES ('n'), ('s')) AS ks (k)";
    let sql = format!(
        "SELECT k, dp_stddev(n) AS of_n, dp_stddev(s) AS of_s, dp_stddev(CASE k WHEN 'n' THEN n ELSE s END) AS taken, \
         dp_low(CASE WHEN n > 1000000 THEN m END) AS none, dp_high(CASE WHEN n > -1000000 THEN m END) AS some {from} ORDER BY k SETTINGS rho = 1"
    );
    let answer = asked(&engine, &sql).await;
    let [taken, of_n, of_s] = ["taken", "of_n", "of_s"].map(|name| numbers(&answer, name));
    assert_eq!((taken[0], taken[1]), (of_n[0], of_s[1]));
    assert!(of_n[0] != of_s[0]);
    assert!(numbers(&answer, "none").iter().all(Option::is_none) && numbers(&answer, "some").iter().all(Option::is_some));

    for of in [
        "CASE WHEN n > 5 THEN m ELSE p END",
        "CASE WHEN m > p THEN m ELSE p END",
        "CASE WHEN n > 5 THEN n ELSE s END",
        "CASE WHEN k = 'n' THEN m ELSE 0 END",
        "CASE WHEN (SELECT COUNT(*) FROM private.person_day) > 5 THEN m ELSE p END",
        "CASE WHEN abs(n) > 5 THEN m ELSE p END",
        "m / n",
        "m - p",
        "m * m",
        "m / 0.0",
        "sqrt(m)",
    ] {
        let refused = refusal(&engine, &format!("SELECT dp_low({of}) {from}")).await;
        assert!(refused.to_string().contains("no error bars"), "{of}: {refused}");
    }
    // Through a column that has no bars of its own but depends on noise.
    let hidden = "SELECT dp_low(CASE WHEN r = 1 THEN m ELSE p END) FROM (SELECT m, p, rank() OVER (ORDER BY n) AS r FROM (SELECT COUNT(*) AS n, \
                  MEDIAN(seconds) AS m, PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) AS p FROM private.person_day) x) y";
    assert!(refusal(&engine, hidden).await.to_string().contains("no error bars"));
    let spent = refusal(&engine, "SELECT dp_stddev(MEDIAN(seconds)) FROM private.person_day").await;
    assert!(spent.to_string().contains("dp_low and dp_high"), "{spent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_groups_that_are_left_out_has_no_ends() {
    let house = House::rich(&town(60, 1), &[]).await;
    let engine = engine(&house).await;
    let sql = "SELECT version, dp_other() AS rest, MEDIAN(seconds) AS m, dp_low(MEDIAN(seconds)) AS low FROM private.person_day GROUP BY version \
               SETTINGS rho = 0.5, other = true";
    let answer = asked(&engine, sql).await;
    let rest: Vec<bool> = answer
        .batches
        .iter()
        .flat_map(|batch| batch.column_by_name("rest").expect("a column").as_boolean().values().iter().collect::<Vec<_>>())
        .collect();
    assert!(rest.contains(&true));
    for (is_rest, low) in rest.iter().zip(numbers(&answer, "low")) {
        assert_eq!(*is_rest, low.is_none());
    }
}
