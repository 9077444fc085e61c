use proptest::prelude::*;

use super::*;

fn walk(steps: &[(Step, &str)]) -> Result<Standing, NotAllowed> {
    steps.iter().try_fold(Standing::default(), |standing, (step, by)| standing.after(step, by, 100))
}

fn take(who: &str) -> Step {
    Step::Take { assignee: who.to_owned() }
}

const CONFIRM: Step = Step::Confirm { reason: Reason::Spam };
const DISMISS: Step = Step::Dismiss { reason: Reason::LegitimateUse };
const BAN: Step = Step::Act { enforcement: Enforcement::Banned };

fn appeal() -> Step {
    Step::Appeal { text: "we are a school".to_owned() }
}

fn answer(granted: bool) -> Step {
    Step::Answer { granted, text: "we looked again".to_owned() }
}

#[test]
fn an_alert_goes_from_new_to_closed() {
    let closed = walk(&[(take("ana"), "ana"), (CONFIRM, "ana"), (BAN, "ben"), (Step::Close, "ben")]).expect("allowed");
    assert_eq!((closed.state, closed.abuse, closed.enforcement), (State::Closed, Some(true), Some(Enforcement::Banned)));
    assert_eq!((closed.decided_by.as_deref(), closed.acted_by.as_deref()), (Some("ana"), Some("ben")));
}

#[test]
fn p29_an_appeal_is_answered_by_another_reviewer_in_writing_and_clears_the_flags() {
    let before = [(take("ana"), "ana"), (CONFIRM, "ana"), (BAN, "ben"), (appeal(), "desk")];
    let appealed = walk(&before).expect("allowed");
    for same in ["ana", "ben"] {
        assert_eq!(appealed.after(&answer(true), same, 100), Err(NotAllowed::SameReviewer), "{same}");
    }
    let unwritten = Step::Answer { granted: true, text: "  ".to_owned() };
    assert!(matches!(appealed.after(&unwritten, "cleo", 100), Err(NotAllowed::Length { .. })));
    let granted = appealed.after(&answer(true), "cleo", 100).expect("allowed");
    assert_eq!((granted.state, granted.abuse, granted.cleared), (State::Closed, Some(false), true));
    let refused = appealed.after(&answer(false), "cleo", 100).expect("allowed");
    assert_eq!((refused.state, refused.abuse, refused.cleared), (State::Closed, Some(true), false));
    assert!(refused.after(&appeal(), "desk", 100).is_ok(), "it may be contested again");
}

#[test]
fn what_is_not_confirmed_is_neither_acted_on_nor_appealed() {
    for before in [vec![], vec![(take("ana"), "ana")], vec![(take("ana"), "ana"), (DISMISS, "ana")]] {
        let standing = walk(&before).expect("allowed");
        assert!(standing.after(&BAN, "ben", 100).is_err(), "{before:?}");
        assert!(standing.after(&appeal(), "desk", 100).is_err(), "{before:?}");
    }
}

#[test]
fn a_reason_fits_its_judgement() {
    let triaged = walk(&[(take("ana"), "ana")]).expect("allowed");
    assert_eq!(triaged.after(&Step::Confirm { reason: Reason::Brigade }, "ana", 1), Err(NotAllowed::Reason));
    assert_eq!(triaged.after(&Step::Dismiss { reason: Reason::Spam }, "ana", 1), Err(NotAllowed::Reason));
}

#[test]
fn what_was_dismissed_asks_again_at_four_times_the_evidence() {
    let dismissed = walk(&[(take("ana"), "ana"), (DISMISS, "ana")]).expect("allowed");
    assert!(!dismissed.wants_attention(399, None, 0));
    assert!(dismissed.wants_attention(400, None, 0));
    let again = |evidence| dismissed.after(&take("ben"), "ben", evidence).expect("allowed").state;
    assert_eq!((again(399), again(400)), (State::False, State::Triaged));
}

#[test]
fn a_silence_hides_until_it_ends_or_the_evidence_is_fourfold_and_never_an_appeal() {
    let silence = Silence {
        rule: "business_reach".into(),
        subject_kind: "business".into(),
        subject: "acme".into(),
        owner: "ana".into(),
        text: "a known campaign".into(),
        evidence: 50,
        until_ms: 3_600_000,
    };
    assert_eq!(silence.check(0), Ok(()));
    assert_eq!(silence.check(3_600_000 - 59_999), Err(NotAllowed::Silence));
    assert_eq!(Silence { until_ms: LONGEST_SILENCE_MS + 1, ..silence.clone() }.check(0), Err(NotAllowed::Silence));
    let new = Standing::default();
    assert!(!new.wants_attention(199, Some(&silence), 0));
    assert!(new.wants_attention(200, Some(&silence), 0), "four times");
    assert!(new.wants_attention(60, Some(&silence), 3_600_000), "it has ended");
    let appealed = walk(&[(take("ana"), "ana"), (CONFIRM, "ana"), (appeal(), "desk")]).expect("allowed");
    assert!(appealed.wants_attention(60, Some(&silence), 0));
}

#[test]
fn i4_no_text_and_no_name_can_hold_a_phone_number() {
    for text in ["call +49 170 123-4567", "1.2.3.4.5.6.7", "(030) 12 34 56 7", "٠١٢٣٤٥٦٧٨"] {
        assert_eq!(check_text("a note", text), Err(NotAllowed::Number), "{text}");
    }
    assert_eq!(check_text("a note", "1000 messages in 60 s, seen 3 times since 2026"), Ok(()));
    for name in ["", "4917012345", "a b", "49-170-12345", &"x".repeat(65)] {
        assert!(check_name("the case", name).is_err(), "{name}");
    }
    assert_eq!(check_name("the case", "bulk-2026.11"), Ok(()));
}

#[test]
fn a_rules_precision_has_an_exact_interval() {
    assert_eq!(Verdicts::default().precision(), None);
    // SciPy: binomtest(19, 20).proportion_ci(method="exact") is (0.75126716, 0.99873492).
    let (share, low, high) = Verdicts { confirmed: 19, dismissed: 1 }.precision().expect("judged");
    assert!((share - 0.95).abs() < 1e-12 && (low - 0.751_267_16).abs() < 1e-6 && (high - 0.998_734_92).abs() < 1e-6);
    let (_, low, high) = Verdicts { confirmed: 0, dismissed: 3 }.precision().expect("judged");
    assert!(low == 0.0 && (high - 0.707_597).abs() < 1e-5);
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(take("ana")),
        Just(Step::Note { text: "seen".to_owned() }),
        Just(Step::Case { case: "c-1".to_owned() }),
        Just(CONFIRM),
        Just(DISMISS),
        Just(BAN),
        Just(appeal()),
        any::<bool>().prop_map(answer),
        Just(Step::Close),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_nobody_reviews_himself_and_nothing_is_enforced_unconfirmed(
        steps in prop::collection::vec((any_step(), prop::sample::select(vec!["ana", "ben", "cleo"])), 0..40),
    ) {
        let mut standing = Standing::default();
        for (step, by) in steps {
            let Ok(next) = standing.after(&step, by, 100) else { continue };
            if let Step::Answer { .. } = step {
                prop_assert!(standing.decided_by.as_deref() != Some(by) && standing.acted_by.as_deref() != Some(by));
            }
            if let Step::Act { .. } = step {
                prop_assert_eq!(standing.abuse, Some(true));
            }
            prop_assert!(next.state != State::New || standing.state == State::New, "nothing becomes new again");
            prop_assert_eq!(next.abuse.is_some(), next.decided_by.is_some());
            let text = serde_json::to_string(&next).expect("writes");
            prop_assert_eq!(serde_json::from_str::<Standing>(&text).expect("reads"), next.clone());
            standing = next;
        }
    }
}
