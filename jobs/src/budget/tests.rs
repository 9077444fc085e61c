use starling_store::{Block, BlockCharge};

use super::*;

/// 2026-01-08 12:00 UTC.
const NOW_MS: i64 = 1_767_873_600_000;
const DAY: i32 = 20_458;

const DATASETS: &str = r#"
[person_day]
description = "One person's day."
privacy_unit = "one person for one day"
rho_limit = 0.0115
delta = 1e-9
threshold_delta_limit = 1e-10
releases_share = 0.65
[person_day.teams.growth]
rho_per_block = 0.002
rho_per_refill = 0.02
refill_days = 7
[person_day.teams.calls]
rho_per_block = 0.001
rho_per_refill = 0.004
refill_days = 1
[person_hour]
description = "One person's hour."
privacy_unit = "one person for one hour"
rho_limit = 0.001
delta = 1e-8
"#;

fn catalogue() -> Catalogue {
    Catalogue::parse(DATASETS, &[]).expect("good")
}

fn cost(rho: i64, delta: i64) -> Cost {
    Cost { rho: NanoRho(rho), delta: AttoDelta(delta) }
}

/// A block that releases and teams have paid for.
fn block(dataset: &str, day: i32, releases: i64, teams: Cost) -> BudgetRow {
    let limits = catalogue().datasets[dataset].limits();
    let charge = |question: &str, cost, team: Option<&str>| BlockCharge {
        question: question.into(),
        cost,
        team: team.map(Into::into),
        at_ms: NOW_MS,
    };
    let charges = vec![charge("metric:people_served_daily", cost(releases, 0), None), charge("q1", teams, Some("growth"))];
    let spent = cost(releases + teams.rho.0, teams.delta.0);
    let block = Block { dataset: dataset.into(), epoch: EpochId(day) };
    BudgetRow { block, limits, spent, teams_spent: teams.rho, charges }
}

fn books() -> Books {
    let days: BTreeSet<EpochId> = [EpochId(DAY), EpochId(DAY + 1), EpochId(DAY + 9)].into();
    let record = |question: &str, epochs: BTreeSet<EpochId>, cost, team: Option<&str>| ChargeRecord {
        dataset: "person_day".into(),
        question: question.into(),
        epochs,
        cost,
        team: team.map(Into::into),
        at_ms: NOW_MS,
    };
    let datasets = catalogue();
    let allotments = datasets.datasets["person_day"].allotments().map(|(team, allotment)| {
        (team.to_owned(), "person_day".to_owned(), allotment, NanoRho(if team == "growth" { 4_500_000 } else { 0 }))
    });
    Books {
        blocks: vec![
            block("person_day", DAY, 4_000_000, cost(1_500_000, 20_000_000)),
            block("person_day", DAY + 1, 4_000_000, cost(1_500_000, 20_000_000)),
            block("person_day", DAY + 9, 4_000_000, cost(1_500_000, 20_000_000)),
            block("person_hour", DAY + 1, 900_000, cost(0, 0)),
        ],
        charges: vec![
            record("metric:people_served_daily", [EpochId(DAY)].into(), cost(4_000_000, 0), None),
            record("q1", days, cost(1_500_000, 20_000_000), Some("growth")),
        ],
        allotments: allotments.collect(),
    }
}

#[test]
fn people_read_who_spent_what_and_what_one_person_can_have_lost() {
    let told = |asked: &Budget| {
        let books = of_interest(books(), &catalogue(), asked).expect("known");
        text(&report(&books, &catalogue(), NOW_MS), asked)
    };
    let all = told(&Budget::default());
    let team = told(&Budget { dataset: Some("person_day".into()), team: Some("growth".into()), json: false });
    let nothing = Books { blocks: Vec::new(), charges: Vec::new(), allotments: Vec::new() };
    let nothing = text(&report(&nothing, &catalogue(), NOW_MS), &Budget::default());
    crate::snapshots().bind(|| {
        insta::assert_snapshot!(
            "budget",
            format!("{all}\n======== --dataset person_day --team growth\n{team}\n======== nothing\n{nothing}")
        );
    });
}

#[test]
fn who_is_not_known_is_told_who_is() {
    let error = |asked: Budget| of_interest(books(), &catalogue(), &asked).err().expect("unknown").to_string();
    insta::assert_snapshot!(
        error(Budget { dataset: Some("person_week".into()), ..Budget::default() }),
        @"--dataset person_week: there is none of that name; known datasets: person_day, person_hour"
    );
    insta::assert_snapshot!(
        error(Budget { team: Some("grwth".into()), ..Budget::default() }),
        @"--team grwth: nobody of that name may spend here; known spenders: calls, growth, releases"
    );
}

#[test]
fn one_persons_loss_adds_up_over_days_and_datasets_and_is_told_for_the_dearest_stretch() {
    let blocks = books().blocks;
    // A day: both datasets of the second day. A week: the first two days. 30 days: everything.
    assert_eq!(dearest(&blocks, 1), Some((EpochId(DAY + 1), cost(6_400_000, 20_000_000))));
    assert_eq!(dearest(&blocks, 7), Some((EpochId(DAY), cost(11_900_000, 40_000_000))));
    assert_eq!(dearest(&blocks, 9).map(|(_, cost)| cost), Some(cost(11_900_000, 40_000_000)));
    assert_eq!(dearest(&blocks, 30), Some((EpochId(DAY), cost(17_400_000, 60_000_000))));
    assert_eq!(dearest(&[], 30), None);
    let report = report(&books(), &catalogue(), NOW_MS);
    let month = &report.one_person_at_most[2];
    assert_eq!((month.days, month.delta), (30, 1e-9), "the smallest delta gives the largest epsilon");
    assert_eq!(month.epsilon, epsilon(NanoRho(17_400_000), 1e-9));
    assert!((month.odds_to_one - month.epsilon.exp()).abs() < 1e-12 && month.epsilon > report.one_person_at_most[1].epsilon);
}

#[test]
fn odds_are_told_as_precisely_as_they_matter() {
    assert_eq!(odds(1.0833), "1.09 to 1");
    assert_eq!(odds(310.4), "311 to 1");
    assert_eq!(odds(1e9), "without a bound worth telling");
    assert_eq!(odds_in_words(3.0), "3.0 to 1, which is 75 % sure");
    assert_eq!(odds_in_words(1e5), "100000 to 1, which is more than 99 % sure");
    assert_eq!(odds_in_words(f64::INFINITY), "no promise any more");
}

#[test]
fn the_json_has_every_row_and_units_in_its_names() {
    let report = report(&books(), &catalogue(), NOW_MS);
    let value = serde_json::to_value(&report).expect("JSON");
    assert_eq!(value["blocks"].as_array().map(Vec::len), Some(4));
    assert_eq!(value["blocks"][0]["teams_left_rho"], 0.002_525);
    assert_eq!(value["charges"][1]["days"], serde_json::json!(["2026-01-05", "2026-01-06", "2026-01-14"]));
    assert_eq!(value["charges"][0]["who"], "releases");
    assert_eq!(value["allotments"][1]["left_rho"], 0.0155);
    assert_eq!(value["allotments"][1]["more_at_ms"], 1_768_435_200_000_i64);
    assert_eq!(value["one_person_at_most"][0]["days"], 1);
}
