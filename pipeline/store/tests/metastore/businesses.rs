//! What businesses say of themselves (P34): exactly once, what was said last, in any order; and gone when they are silent.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use starling_schemas::business::BusinessAccount;
use starling_schemas::codes::{Category, Outcome, Tier};
use starling_schemas::ids::Offset;
use starling_store::{Metastore, RangeOutcome, StoreError};

use crate::support::{DAY, Place, partition};

fn account(business: &str, name: &str, told_ms: i64) -> BusinessAccount {
    BusinessAccount {
        business: business.to_owned(),
        portfolio: "p-1".to_owned(),
        name: name.to_owned(),
        category: Category::Utility,
        tier: Tier::T2k,
        told_ms,
    }
}

/// A range of one event whose businesses said this, committed at `now_ms`; `commits`: or processed and lost.
async fn say(
    metastore: &Metastore,
    number: i32,
    businesses: Vec<BusinessAccount>,
    now_ms: i64,
    commits: bool,
) -> Result<(), StoreError> {
    let own = metastore.take_ownership(&partition(number), "test", 1).await?;
    let from = own.next_offset.unwrap_or_default();
    let plan = match own.open_plan {
        Some(plan) => plan,
        None => metastore.plan(&partition(number), own.generation, from, Offset(from.0 + 1), 2).await?,
    };
    if commits {
        let counts = vec![(Some(DAY), Outcome::Late, 1)];
        metastore.commit(&plan, &RangeOutcome { events: 1, counts, businesses, ..RangeOutcome::default() }, now_ms).await?;
    }
    Ok(())
}

async fn all(metastore: &Metastore) -> Vec<BusinessAccount> {
    let mut all: Vec<BusinessAccount> = Vec::new();
    loop {
        let page = metastore.businesses_after(all.last().map(|last| last.business.as_str()), 2).await.expect("reads");
        if page.is_empty() {
            all.sort_by(|one, other| one.business.cmp(&other.business));
            return all;
        }
        all.extend(page);
    }
}

pub(crate) async fn i9_an_account_is_there_when_its_range_is_committed_and_what_was_said_last_stands(place: Place) {
    let metastore = place.open().await;
    assert_eq!(all(&metastore).await, []);
    let two = vec![account("b-2", "Bakery", 5), account("b-1", "Cakes", 7)];
    say(&metastore, 0, two.clone(), 10, false).await.expect("plans");
    assert_eq!(all(&metastore).await, [], "planned and processed, and not committed");
    say(&metastore, 0, two.clone(), 10, true).await.expect("commits");
    assert_eq!(all(&metastore).await, [two[1].clone(), two[0].clone()]);
    // Another partition was behind: what it says is older for one and newer for the other. Twice in one range.
    let late = vec![account("b-1", "Old cakes", 6), account("b-2", "New bakery", 9), account("b-2", "Zwieback", 8)];
    say(&metastore, 1, late, 11, true).await.expect("commits");
    assert_eq!(all(&metastore).await, [account("b-1", "Cakes", 7), account("b-2", "New bakery", 9)]);
    // A name that is asked for, one that is not known, and what is no statement.
    let asked = ["b-2", "b-3", "b-1' OR '1' = '1", ""].map(str::to_owned);
    assert_eq!(metastore.businesses(&asked).await.expect("reads"), [account("b-2", "New bakery", 9)]);
    assert_eq!(place.open().await.businesses(&asked).await.expect("reads").len(), 1, "another process sees it");
}

pub(crate) async fn i9_any_order_of_ranges_over_any_partitions_leaves_the_same_accounts(place: Place) {
    // Of one moment too, where the greater stands by its bytes and not by the order of a language.
    let one = (0..3_u8, 0..3_i64, prop::sample::select(vec!["", "a", "B", "ä", "a b", "\u{1f35e}"]), 0..6_u8);
    let ranges = prop::collection::vec(prop::collection::vec(one, 0..4), 1..8);
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let ranges = ranges.new_tree(&mut runner).expect("a tree").current();
        let ranges: Vec<Vec<BusinessAccount>> = ranges
            .into_iter()
            .map(|range| {
                let of = |(business, told_ms, name, tier): (u8, i64, &str, u8)| BusinessAccount {
                    tier: Tier::from_code(tier).expect("a tier"),
                    ..account(&format!("b-{business}"), name, told_ms)
                };
                range.into_iter().map(of).collect()
            })
            .collect();
        let said: Vec<_> = ranges.iter().flatten().collect();
        let stands = |one: &&&BusinessAccount| !said.iter().any(|other| other.business == one.business && other.supersedes(one));
        let mut expected: Vec<BusinessAccount> = said.iter().filter(stands).map(|one| (*one).clone()).collect();
        expected.sort_by(|one, other| one.business.cmp(&other.business));
        expected.dedup();
        for turn in 0..ranges.len().min(3) {
            let another = place.another();
            let metastore = another.open().await;
            let mut turned = ranges.clone();
            turned.rotate_left(turn);
            if turn == 1 {
                turned.reverse();
            }
            for (number, range) in (0..).zip(&turned) {
                // Some are lost once before they are committed.
                say(&metastore, number % 3, range.clone(), 3, number % 2 == 0).await.expect("commits");
                say(&metastore, number % 3, if number % 2 == 0 { vec![] } else { range.clone() }, 3, true)
                    .await
                    .expect("commits");
            }
            assert_eq!(all(&metastore).await, expected);
        }
    }
}

pub(crate) async fn of_two_names_of_one_moment_the_greater_by_its_bytes_stands(place: Place) {
    let metastore = place.open().await;
    // A dictionary has Z behind a, and ä beside it.
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for (business, lesser, greater) in [("b", "Z", "a"), ("B", "a", "ä"), ("ä", "Z", "ä"), ("a b", "", " ")] {
        one.extend([account(business, lesser, 5), account(&format!("{business}-2"), greater, 5)]);
        other.extend([account(business, greater, 5), account(&format!("{business}-2"), lesser, 5)]);
    }
    say(&metastore, 0, one, 3, true).await.expect("commits");
    say(&metastore, 1, other, 3, true).await.expect("commits");
    let names: Vec<_> = all(&metastore).await.into_iter().map(|account| account.name).collect();
    assert_eq!(names, ["ä", "ä", " ", " ", "a", "a", "ä", "ä"], "each once, whatever the order of the pages is");
}

pub(crate) async fn i9_an_account_that_was_closed_is_shown_no_more_and_nothing_said_earlier_brings_it_back(place: Place) {
    let metastore = place.open().await;
    let closed = |told_ms| BusinessAccount {
        portfolio: String::new(),
        category: Category::Unknown,
        tier: Tier::Unknown,
        ..account("b-1", "", told_ms)
    };
    say(&metastore, 0, vec![account("b-1", "Cakes", 5), account("b-0", "Tea", 1), account("b-2", "", 1)], 10, true)
        .await
        .expect("commits");
    say(&metastore, 1, vec![closed(7)], 20, true).await.expect("commits");
    // The partition that was behind.
    say(&metastore, 0, vec![account("b-1", "Old cakes", 6)], 30, true).await.expect("commits");
    assert_eq!(all(&metastore).await, [account("b-0", "Tea", 1), account("b-2", "", 1)], "a nameless one has an account");
    assert_eq!(metastore.businesses(&["b-1".to_owned()]).await.expect("reads"), []);
    assert_eq!(metastore.erase_businesses(20, 40).await.expect("erases"), 2, "it stays for as long as it would have");
    assert_eq!(metastore.erase_businesses(21, 40).await.expect("erases"), 1);
    // A business that comes back says so later.
    say(&metastore, 0, vec![closed(7), account("b-1", "Cakes again", 8)], 50, true).await.expect("commits");
    assert_eq!(all(&metastore).await, [account("b-1", "Cakes again", 8)]);
}

pub(crate) async fn partitions_that_hear_of_one_business_at_once_all_commit(place: Place) {
    let metastore = place.open().await;
    let range = |number: i32| -> Vec<BusinessAccount> {
        let mut range: Vec<_> = (0..2_500).map(|n| account(&format!("b-{n:04}"), "Bakery", i64::from(number))).collect();
        range.rotate_left(usize::try_from(number).expect("small") * 300);
        range
    };
    let ranges = (0..4).map(|number| say(&metastore, number, range(number), 3, true));
    for committed in futures::future::join_all(ranges).await {
        committed.expect("commits");
    }
    let all = metastore.businesses_after(None, 9_999).await.expect("reads");
    assert_eq!(all.len(), 2_500);
    assert!(all.iter().all(|account| account.told_ms == 3), "what was said last stands in each");
}

pub(crate) async fn i7_who_is_silent_is_gone_after_some_time_with_an_entry_in_the_log(place: Place) {
    let metastore = place.open().await;
    say(&metastore, 0, vec![account("b-1", "Cakes", 1), account("b-2", "Bakery", 5), account("b-3", "Tea", 1)], 100, true)
        .await
        .expect("commits");
    // One renews, one says something older than what is known.
    say(&metastore, 1, vec![account("b-1", "Cakes", 2), account("b-2", "Old bakery", 4)], 200, true).await.expect("commits");
    assert_eq!(metastore.erase_businesses(100, 300).await.expect("erases"), 0, "it is not over yet");
    assert!(metastore.audit_after(0, 99).await.expect("reads").is_empty(), "nothing happened, nothing is told");
    assert_eq!(metastore.erase_businesses(101, 300).await.expect("erases"), 2);
    assert_eq!(all(&metastore).await, [account("b-1", "Cakes", 2)]);
    assert_eq!(metastore.erase_businesses(101, 301).await.expect("erases"), 0);
    let log = metastore.audit_after(0, 99).await.expect("reads");
    assert_eq!(log.iter().map(|entry| (entry.kind.as_str(), entry.at_ms)).collect::<Vec<_>>(), [("businesses_erased", 300)]);
    assert!(log[0].detail["count"] == 2 && !log[0].detail.to_string().contains("b-2"), "{}", log[0].detail);
    metastore.verify_audit().await.expect("the chain holds");
    // Who speaks again is there again.
    say(&metastore, 0, vec![account("b-2", "Bakery", 6)], 400, true).await.expect("commits");
    assert_eq!(all(&metastore).await.len(), 2);
}
