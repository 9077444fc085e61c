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
[person_week]
description = "Who was there in a week."
window = "week"
privacy_unit = "one person for one week"
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
    let charges =
        vec![charge("metric:people_served_daily", cost(releases, 0), None), charge(&format!("q{day}"), teams, Some("growth"))];
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
        error(Budget { dataset: Some("person_year".into()), ..Budget::default() }),
        @"--dataset person_year: there is none of that name; known datasets: person_day, person_hour, person_week"
    );
    insta::assert_snapshot!(
        error(Budget { team: Some("grwth".into()), ..Budget::default() }),
        @"--team grwth: nobody of that name may spend here; known spenders: calls, growth, releases"
    );
}

#[test]
fn one_persons_loss_adds_up_over_days_and_datasets_and_is_told_for_the_dearest_stretch() {
    let (blocks, datasets) = (books().blocks, catalogue());
    // A day: both datasets of the second day. A week: the first two days. 30 days: everything.
    assert_eq!(dearest(&blocks, &datasets, 1), Some((EpochId(DAY + 1), cost(6_400_000, 20_000_000))));
    assert_eq!(dearest(&blocks, &datasets, 7), Some((EpochId(DAY), cost(11_900_000, 40_000_000))));
    assert_eq!(dearest(&blocks, &datasets, 9).map(|(_, cost)| cost), Some(cost(11_900_000, 40_000_000)));
    assert_eq!(dearest(&blocks, &datasets, 30), Some((EpochId(DAY), cost(17_400_000, 60_000_000))));
    assert_eq!(dearest(&[], &datasets, 30), None);
    let report = report(&books(), &catalogue(), NOW_MS);
    let month = &report.one_person_at_most[2];
    assert_eq!((month.days, month.delta), (30, 1e-9), "the smallest delta gives the largest epsilon");
    assert_eq!(month.epsilon, epsilon(NanoRho(17_400_000), 1e-9));
    assert!((month.odds_to_one - month.epsilon.exp()).abs() < 1e-12 && month.epsilon > report.one_person_at_most[1].epsilon);
}

#[test]
fn a_weeks_block_counts_whole_for_every_stretch_that_has_a_day_of_it() {
    let datasets = catalogue();
    let monday = Span::Week.of(EpochId(DAY)).epoch.0;
    let week = |first| block("person_week", first, 1_000, cost(0, 0));
    let blocks = [week(monday), week(monday + 7), week(monday + 14), block("person_day", monday + 6, 10_000, cost(0, 0))];
    let found = |days| dearest(&blocks, &datasets, days).expect("blocks");
    // The day and its week; with the next day the next week; nine days from a Sunday have three weeks.
    assert_eq!(found(1), (EpochId(monday + 6), cost(11_000, 0)));
    assert_eq!(found(2), (EpochId(monday + 6), cost(12_000, 0)));
    assert_eq!(found(8), (EpochId(monday + 6), cost(12_000, 0)));
    assert_eq!(found(9), (EpochId(monday + 6), cost(13_000, 0)));
    // Whatever stretch is looked at by hand costs no more.
    for days in [1, 2, 5, 7, 8, 9, 14, 15, 22] {
        for first in monday - 30..monday + 40 {
            let spent = |row: &BudgetRow| {
                let (from, length) = (row.block.epoch.0, if row.block.dataset == "person_week" { 7 } else { 1 });
                if from < first + days && from + length > first { row.spent.rho.0 } else { 0 }
            };
            assert!(blocks.iter().map(spent).sum::<i64>() <= found(days).1.rho.0, "{days} days from {first}");
        }
    }
}

#[test]
fn all_hours_of_a_day_count_for_every_stretch_that_has_it_also_when_hours_are_kept_no_more() {
    let datasets = catalogue();
    let hour = |day: i32, hour: u8| {
        let row = block("person_day", 0, 100, cost(0, 0));
        let block = Block { dataset: "people_by_the_hour".into(), epoch: EpochId(day).hour_at(hour) };
        BudgetRow { block, ..row }
    };
    assert!(!datasets.datasets.contains_key("people_by_the_hour"));
    let mut blocks: Vec<BudgetRow> = (0..24).map(|n| hour(DAY, n)).collect();
    blocks.extend([hour(DAY + 1, 0), block("person_day", DAY, 10_000, cost(0, 0)), block("person_day", DAY + 6, 5, cost(0, 0))]);
    assert_eq!(dearest(&blocks, &datasets, 1), Some((EpochId(DAY), cost(12_400, 0))));
    assert_eq!(dearest(&blocks, &datasets, 2), Some((EpochId(DAY), cost(12_500, 0))));
    assert_eq!(dearest(&blocks, &datasets, 7), Some((EpochId(DAY), cost(12_505, 0))));
    let books = Books { blocks, charges: Vec::new(), allotments: Vec::new() };
    let told = text(&report(&books, &datasets, NOW_MS), &Budget::default());
    let rows: Vec<_> = told.lines().filter(|line| line.starts_with("people_by_the_hour")).collect();
    assert!(
        rows.len() == 2 && rows[0].contains("2026-01-05, 24 hours, one of them") && rows[1].contains("2026-01-06T00"),
        "{told}"
    );
    // What a person who is there in all of them can lose at the most is what the text says.
    let builtin = Catalogue::builtin().expect("reviewed");
    let (hours, day) = (&builtin.datasets["person_hour"], &builtin.datasets["person_day"]);
    assert!(hours.privacy_unit.contains("24 times") && hours.limit().0 * 24 <= day.limit().0 / 6);
    assert!(epsilon(NanoRho(hours.limit().0 * 24 + day.limit().0), 1e-9) < 1.1);
    assert!((0.37..0.39).contains(&epsilon(NanoRho(hours.limit().0 * 24), 1e-9)));
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

#[test]
fn i2_a_question_over_several_days_costs_whoever_was_there_on_all_of_them_the_square() {
    let datasets = catalogue();
    let row = |dataset: &str, epoch: i32, question: &str, team: Option<&str>| {
        let mut row = block(dataset, epoch, 0, cost(0, 0));
        row.charges =
            vec![BlockCharge { question: question.into(), cost: cost(100, 0), team: team.map(Into::into), at_ms: NOW_MS }];
        row.spent = cost(100, 0);
        row
    };
    let over = |days: i32, question: &dyn Fn(i32) -> String, team: Option<&str>| {
        (0..days).map(|n| row("person_day", DAY + n, &question(n), team)).collect::<Vec<_>>()
    };
    let found = |blocks: &[BudgetRow], days| dearest(blocks, &datasets, days).expect("blocks").1.rho.0;
    let one = over(10, &|_| "q".to_owned(), Some("growth"));
    assert_eq!((found(&one, 1), found(&one, 7), found(&one, 30)), (100, 4_900, 10_000), "one draw over ten days");
    let each = over(10, &|n| format!("q{n}"), Some("growth"));
    assert_eq!((found(&each, 7), found(&each, 30)), (700, 1_000), "ten draws");
    let released = over(10, &|_| "metric:people_served_daily".to_owned(), None);
    assert_eq!(found(&released, 30), 1_000, "a metric is drawn anew for each day");
    let hours: Vec<_> = (0..24).map(|n| row("person_hour", EpochId(DAY).hour_at(n).0, "q", Some("growth"))).collect();
    assert_eq!(found(&hours, 1), 2_400, "every number is of one hour");
    // Noise for one, moved by ten: the loss of a Gaussian is in proportion to the square.
    let told =
        text(&report(&Books { blocks: one, charges: Vec::new(), allotments: Vec::new() }, &datasets, NOW_MS), &Budget::default());
    assert!(told.contains("the square of their number"), "{told}");
}
