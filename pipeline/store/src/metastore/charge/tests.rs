use proptest::prelude::*;

use super::*;

const DAY: EpochId = EpochId(20_458);
const DAY_MS: i64 = 86_400_000;

fn cost(rho: i64, delta: i64) -> Cost {
    Cost { rho: NanoRho(rho), delta: AttoDelta(delta) }
}

fn limits(rho: i64, delta: i64, teams: i64) -> BlockLimits {
    BlockLimits { total: cost(rho, delta), teams_rho: NanoRho(teams) }
}

fn request(cost: Cost, limits: BlockLimits, spender: Spender) -> ChargeRequest {
    let (dataset, question) = ("d".to_owned(), "q".to_owned());
    ChargeRequest { dataset, epochs: [DAY].into(), question, cost, limits, spender, now_ms: 10 * DAY_MS }
}

fn team(per_block: i64, per_refill: i64) -> Spender {
    let allotment = Allotment { rho_per_block: NanoRho(per_block), rho_per_refill: NanoRho(per_refill), refill_days: 7 };
    Spender::Team { name: "growth".to_owned(), allotment }
}

fn facts(stored: Option<BlockState>, team_spent: i64, period_spent: i64) -> Facts {
    let block = Observed { epoch: DAY, stored, team_spent: NanoRho(team_spent) };
    Facts { earlier: Vec::new(), blocks: vec![block], team_period_spent: NanoRho(period_spent) }
}

fn refusal(request: &ChargeRequest, facts: &Facts) -> Refusal {
    match decide(request, facts).expect("valid") {
        Verdict::Answer(ChargeOutcome::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn days_have_one_form() {
    let of = |list: &[i32]| days(&list.iter().copied().map(EpochId).collect());
    assert_eq!(of(&[20_458]), "20458");
    assert_eq!(of(&[3, 1, 2, 7, 9, 10]), "1-3,7,9-10");
    assert_eq!(of(&[-2, -1, 0, i32::MAX, i32::MIN]), "-2147483648,-2-0,2147483647");
}

proptest! {
    #[test]
    fn i2_whatever_is_asked_under_whatever_limits_spent_never_falls_and_never_exceeds_the_smallest_limit(
        charges in prop::collection::vec((0..200_i64, 1..60_i64, 0..9_i64, 0..4_i64, 0..150_i64, any::<bool>()), 1..60)
    ) {
        let mut stored: Option<BlockState> = None;
        for (limit, rho, delta_limit, delta, teams, is_team) in charges {
            let before = stored.map_or(Cost::default(), |s| s.spent);
            let teams_before = stored.map_or(0, |s| s.teams_spent.0);
            let spender = if is_team { team(40, 1000) } else { Spender::Releases };
            let asked = request(cost(rho, delta), limits(limit, delta_limit, teams), spender);
            match decide(&asked, &facts(stored, 0, 0)).expect("valid") {
                Verdict::Charge(after) => {
                    let state = after[0].1;
                    prop_assert_eq!(Some(state.spent), before.checked_add(cost(rho, delta)));
                    prop_assert_eq!(state.teams_spent.0, teams_before + if is_team { rho } else { 0 });
                    prop_assert!(state.spent.rho <= state.limits.total.rho && state.limits.total.rho.0 <= limit);
                    prop_assert!(state.spent.delta <= state.limits.total.delta && (delta == 0 || state.limits.total.delta.0 <= delta_limit));
                    prop_assert!(state.teams_spent <= state.limits.teams_rho);
                    prop_assert!(!is_team || state.limits.teams_rho.0 <= teams);
                    prop_assert!(stored.is_none_or(|earlier| state.limits == smaller(earlier.limits, state.limits)), "limits never rise");
                    stored = Some(state);
                }
                Verdict::Answer(ChargeOutcome::Refused(refusal)) => {
                    let short = match refusal.reason {
                        Reason::Thresholds => refusal.left.delta.0 < delta,
                        _ => refusal.left.rho.0 < rho,
                    };
                    prop_assert!(short && refusal.epoch == Some(DAY), "{:?}", refusal);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn a_cost_of_nothing_or_less_no_day_and_a_sum_beyond_all_numbers_are_refused() {
    let wide = limits(i64::MAX, i64::MAX, i64::MAX);
    for wrong in [cost(0, 0), cost(0, 5), cost(-1, 0), cost(i64::MIN, 0), cost(1, -1)] {
        let asked = request(wrong, wide, Spender::Releases);
        assert!(matches!(decide(&asked, &facts(None, 0, 0)), Err(StoreError::InvalidCharge)), "{wrong:?}");
    }
    let nowhere = ChargeRequest { epochs: BTreeSet::new(), ..request(cost(1, 0), wide, Spender::Releases) };
    assert!(matches!(decide(&nowhere, &Facts::default()), Err(StoreError::InvalidCharge)));
    let negative = request(cost(1, 0), limits(5, -1, 0), Spender::Releases);
    assert!(matches!(decide(&negative, &facts(None, 0, 0)), Err(StoreError::InvalidCharge)));
    let full = BlockState { limits: wide, spent: cost(i64::MAX - 1, i64::MAX - 1), teams_spent: NanoRho(i64::MAX - 1) };
    let huge = request(cost(i64::MAX, 0), wide, Spender::Releases);
    assert_eq!(refusal(&huge, &facts(Some(full), 0, 0)).left, cost(1, 1));
    let asked = request(cost(i64::MAX, 0), wide, team(i64::MAX, i64::MAX));
    assert_eq!(refusal(&asked, &facts(None, 0, i64::MAX)).reason, Reason::TeamRefill);
}

#[test]
fn each_limit_is_told_with_what_is_left_under_it_and_when_more_arrives() {
    let kept = limits(100, 10, 60);
    let stored = |rho, delta, teams| Some(BlockState { limits: kept, spent: cost(rho, delta), teams_spent: NanoRho(teams) });
    let ask = |rho, delta, spender| request(cost(rho, delta), kept, spender);
    let mut told = String::new();
    for (asked, found, reason) in [
        (ask(30, 0, Spender::Releases), facts(stored(71, 0, 0), 0, 0), Reason::Block),
        (ask(30, 4, Spender::Releases), facts(stored(70, 7, 0), 0, 0), Reason::Thresholds),
        (ask(30, 0, team(50, 500)), facts(stored(50, 0, 31), 0, 0), Reason::TeamsShare),
        (ask(30, 0, team(50, 500)), facts(stored(50, 0, 30), 21, 0), Reason::TeamBlock),
        (ask(30, 0, team(50, 500)), facts(stored(50, 0, 30), 20, 471), Reason::TeamRefill),
        (ask(30, 0, team(50, 29)), facts(stored(50, 0, 30), 20, 0), Reason::TeamRefill),
    ] {
        let refusal = refusal(&asked, &found);
        assert_eq!(refusal.reason, reason);
        told += &format!("{refusal}\n");
    }
    assert!(matches!(decide(&ask(30, 0, team(50, 500)), &facts(stored(50, 0, 30), 20, 470)).expect("valid"), Verdict::Charge(_)));
    assert_eq!(
        told,
        "2026-01-05: rho 0.000000029 of the day's budget is left, and no more will ever come\n\
         2026-01-05: delta 3e-18 for thresholds is left that day, and no more will ever come\n\
         2026-01-05: rho 0.000000029 is left for questions that day; the rest is kept for scheduled releases, and no more will ever come\n\
         2026-01-05: rho 0.000000029 of what the team may spend in one day is left\n\
         rho 0.000000029 of the team's allotment is left; more arrives on 1970-01-15\n\
         rho 0.000000029 of the team's allotment is left; the question costs more than a whole refill\n"
    );
}

#[test]
fn of_several_days_all_or_none_are_charged_and_the_one_with_least_left_is_told() {
    let kept = limits(100, 0, 0);
    let block = |day, spent| Observed {
        epoch: EpochId(day),
        stored: Some(BlockState { limits: kept, spent: cost(spent, 0), teams_spent: NanoRho(0) }),
        team_spent: NanoRho(0),
    };
    let asked = ChargeRequest { epochs: (1..=4).map(EpochId).collect(), ..request(cost(30, 0), kept, Spender::Releases) };
    let found = Facts { blocks: vec![block(1, 0), block(2, 80), block(3, 95), block(4, 70)], ..Facts::default() };
    let refusal = refusal(&asked, &found);
    assert_eq!((refusal.epoch, refusal.left.rho), (Some(EpochId(3)), NanoRho(5)));
}

#[test]
fn the_same_question_is_free_for_the_same_days_and_never_a_discount_for_others() {
    let (kept, price) = (limits(100, 9, 100), cost(30, 1));
    let earlier = |days: &str, cost, team: Option<&str>| Facts {
        earlier: vec![Earlier { days: days.to_owned(), cost, team: team.map(ToOwned::to_owned) }],
        ..facts(None, 0, 0)
    };
    let asked = |spender| request(price, kept, spender);
    let free = |cost| Verdict::Answer(ChargeOutcome::AlreadyCharged { cost });
    let growth = || team(100, 100);
    for who in [None, Some("growth"), Some("another team")] {
        assert_eq!(decide(&asked(growth()), &earlier("20458", price, who)).expect("valid"), free(price));
        assert_eq!(decide(&asked(Spender::Releases), &earlier("20458", price, who)).expect("valid"), free(price));
        for (days, cost) in [("20458", cost(31, 1)), ("20458", cost(30, 0)), ("20457-20458", price), ("20457", price)] {
            let found = decide(&asked(growth()), &earlier(days, cost, who));
            assert!(matches!(found, Err(StoreError::OtherCharge)), "{days} {cost:?} {who:?}");
        }
    }
    // A metric: charged anew for each window, and drawn at the cost of then.
    assert!(matches!(decide(&asked(Spender::Releases), &earlier("20457", price, None)).expect("valid"), Verdict::Charge(_)));
    assert!(matches!(
        decide(&asked(Spender::Releases), &earlier("20457-20458", price, None)).expect("valid"),
        Verdict::Charge(_)
    ));
    assert_eq!(decide(&asked(Spender::Releases), &earlier("20458", cost(5, 0), None)).expect("valid"), free(cost(5, 0)));
    let mixed = decide(&asked(Spender::Releases), &earlier("20457", price, Some("growth")));
    assert!(matches!(mixed, Err(StoreError::OtherCharge)));
}
