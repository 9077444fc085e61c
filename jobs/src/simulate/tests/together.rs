//! Senders who take days, alone and together.

use starling_schemas::event::ReporterRate;

use super::*;

#[test]
fn slow_senders_write_to_forty_new_people_every_day_and_are_answered_as_claimed() {
    let (events, truth) = decoded(Settings::new(1_000, 5, 11, START));
    for (kind, rule, shares) in [(PlantedKind::SlowBulk, Some("slow_bulk"), 0.0..0.06), (PlantedKind::Organiser, None, 0.6..0.8)]
    {
        for slow in all_of(&truth, kind) {
            let mut days: BTreeMap<EpochId, HashSet<&str>> = BTreeMap::new();
            let mut answered = HashSet::new();
            for event in &events {
                let Some(Body::MessageSent(message)) = &event.body else { continue };
                if event.actor == slow.subject {
                    days.entry(EpochId::of(event.event_time_ms)).or_default().insert(&message.to_person);
                } else if message.to_person == slow.subject {
                    answered.insert(&*event.actor);
                }
            }
            let people: HashSet<&str> = days.values().flatten().copied().collect();
            assert!(days.len() == 5 && days.values().all(|p| p.len() > 30), "{kind:?}");
            assert_eq!((slow.count, slow.expected_rule.as_deref()), (200, rule));
            assert!(answered.is_subset(&people) && shares.contains(&(answered.len() as f64 / people.len() as f64)), "{kind:?}");
        }
    }
    let few = decoded(Settings::new(1_000, 4, 11, START)).1;
    assert!(few.abusers.iter().all(|p| p.kind != PlantedKind::SlowBulk), "four days are no evidence");
}

#[test]
fn who_is_registered_together_has_one_cohort_for_a_month_and_its_members_are_answered_as_claimed() {
    let (events, truth) = decoded(Settings { planted: Some(10), ..Settings::new(1_000, 7, 11, START) });
    let mut cohorts: BTreeMap<&str, HashSet<&[u8]>> = BTreeMap::new();
    for event in events.iter().filter(|e| !e.actor.is_empty()) {
        let is_young = event.account_age_s.is_some_and(|age| age < 30 * 86_400);
        let objects = match &event.body {
            Some(Body::UserBlocked(blocked)) => !blocked.business.is_empty(),
            Some(Body::ReportFiled(report)) => !report.business.is_empty(),
            Some(Body::GroupReported(_)) => true,
            _ => false,
        };
        assert_eq!(
            is_young || objects,
            !event.cohort.is_empty(),
            "the platform says it of accounts of their first month alone, but for who objects"
        );
        if is_young {
            cohorts.entry(&event.actor).or_default().insert(&event.cohort);
        }
    }
    assert!(cohorts.values().all(|names| names.len() == 1), "for good");
    let members = |kind| all_of(&truth, kind).iter().map(|p| p.subject.clone()).collect::<Vec<_>>();
    let (attackers, newcomers) = (members(PlantedKind::Coordinated), members(PlantedKind::Newcomer));
    let names: BTreeMap<&[u8], usize> =
        attackers.iter().filter_map(|a| cohorts.get(a.as_str())?.iter().next()).fold(BTreeMap::new(), |mut names, name| {
            *names.entry(*name).or_default() += 1;
            names
        });
    assert!(names.len() == 2 && names.values().all(|n| (30..=60).contains(n)), "two cohorts: {:?}", names.values());
    let with_them = newcomers.iter().filter(|n| cohorts.get(n.as_str()).is_some_and(|c| c.iter().all(|c| names.contains_key(c))));
    assert!(with_them.count() * 10 >= newcomers.len() * 7, "some write to nobody");
    for (people, shares) in [(&attackers, 0.0..0.06), (&newcomers, 0.4..0.6)] {
        let people: HashSet<&str> = people.iter().map(String::as_str).collect();
        let (mut sent, mut answered) = (HashSet::new(), HashSet::new());
        for event in &events {
            let Some(Body::MessageSent(message)) = &event.body else { continue };
            if people.contains(event.actor.as_str()) {
                sent.insert((event.actor.as_str(), message.to_person.as_str()));
            } else if people.contains(message.to_person.as_str()) {
                answered.insert((message.to_person.as_str(), event.actor.as_str()));
            }
        }
        assert!(answered.is_subset(&sent) && shares.contains(&(answered.len() as f64 / sent.len() as f64)));
    }
}

#[test]
fn who_buys_replies_is_answered_by_new_accounts_as_claimed() {
    let (events, truth) = decoded(Settings::new(1_000, 6, 11, START));
    for buyer in all_of(&truth, PlantedKind::BoughtReplies) {
        let (mut sent, mut to_new, mut answered, mut bought) = (0.0, 0.0, 0.0, 0.0);
        for event in &events {
            let Some(Body::MessageSent(message)) = &event.body else { continue };
            if event.actor == buyer.subject {
                (sent, to_new) = (sent + 1.0, to_new + f64::from(u8::from(message.to_new_account == Some(true))));
            } else if message.to_person == buyer.subject {
                let is_new = event.account_age_s.is_some_and(|age| age < 7 * 86_400);
                (answered, bought) = (answered + 1.0, bought + f64::from(u8::from(is_new)));
            }
        }
        assert_eq!((buyer.count, buyer.expected_rule.as_deref(), sent as u64), (180, Some("slow_bulk"), 180));
        assert!((0.29..0.45).contains(&(to_new / sent)), "three in ten, and who happens to be new: {to_new}");
        assert!((0.28..0.4).contains(&(answered / sent)) && bought / answered > 0.85, "{answered} {bought}");
    }
}

#[test]
fn a_simulation_of_ten_days_has_the_patient_who_hands_links_round_and_who_only_looks_like_it() {
    let (events, truth) = decoded(Settings { planted: Some(2), ..Settings::new(1_000, 10, 11, START) });
    let all = |kind| -> Vec<&Planted> { truth.abusers.iter().chain(&truth.harmless).filter(|p| p.kind == kind).collect() };
    let written_to = |subject: &str| {
        let mut days: BTreeMap<EpochId, HashSet<&str>> = BTreeMap::new();
        for event in events.iter().filter(|e| e.actor == subject) {
            if let Some(Body::MessageSent(message)) = &event.body {
                days.entry(EpochId::of(event.event_time_ms)).or_default().insert(&message.to_person);
            }
        }
        days.values().map(HashSet::len).collect::<Vec<_>>()
    };
    let (patient, phones) = (all(PlantedKind::PatientBulk), all(PlantedKind::NewPhone));
    assert_eq!((patient.len(), phones.len(), all(PlantedKind::AirlineBadDay).len()), (2, 2, 1));
    for one in patient {
        let days = written_to(&one.subject);
        assert!(days.len() == 10 && days.iter().all(|people| (9..=12).contains(people)), "{days:?}");
        assert_eq!((one.count, one.expected_rule.as_deref()), (120, Some("slow_bulk")));
    }
    for one in phones {
        assert!(written_to(&one.subject).iter().sum::<usize>() > 50 && one.expected_rule.is_none());
    }
    for hopping in all(PlantedKind::InviteHopping) {
        let of_group = |event: &&Event| {
            matches!(event.body, Some(Body::GroupJoinedByLink(_))) && hex(group_of(event).unwrap_or_default()) == hopping.subject
        };
        let times: Vec<i64> = events.iter().filter(of_group).map(|e| e.event_time_ms).collect();
        assert!((150..=400).contains(&hopping.count) && times.len() as u64 == hopping.count);
        assert!(times.iter().max().zip(times.iter().min()).is_some_and(|(last, first)| last - first < 21 * 60_000));
    }
    for (kind, rule, people) in
        [(PlantedKind::FreshNumber, Some("business_fresh_number"), 700..=1_000), (PlantedKind::NewBranch, None, 150..=400)]
    {
        assert_eq!(all(kind).len(), 2);
        for number in all(kind) {
            let sent: Vec<_> = events
                .iter()
                .filter_map(|event| match &event.body {
                    Some(Body::BusinessMessage(message)) if message.business == number.subject => Some((event, message)),
                    _ => None,
                })
                .filter(|(_, message)| message.stage() == BusinessStage::Sent)
                .collect();
            let reached: HashSet<&str> = sent.iter().map(|(event, _)| event.actor.as_str()).collect();
            assert!(people.contains(&number.count) && reached.len() as u64 == number.count && sent.len() == reached.len());
            assert_eq!(number.expected_rule.as_deref(), rule);
            // Its portfolio is one in which shops have written to people on every day before.
            let portfolio = &sent[0].1.portfolio;
            let days: HashSet<EpochId> = events
                .iter()
                .filter(|event| event.event_time_ms < number.start_ms)
                .filter(|event| matches!(&event.body, Some(Body::BusinessMessage(m)) if m.portfolio == *portfolio))
                .map(|event| EpochId::of(event.event_time_ms))
                .collect();
            assert!(days.len() >= 7 && number.start_ms >= START.start_ms() + 8 * 86_400_000, "{}", days.len());
        }
    }
    for brigade in all(PlantedKind::NewcomerBrigade) {
        let against = |event: &&Event| match &event.body {
            Some(Body::UserBlocked(blocked)) => blocked.business == brigade.subject,
            Some(Body::ReportFiled(report)) => report.business == brigade.subject && report.after_delivery == Some(true),
            _ => false,
        };
        let young = events.iter().filter(against).filter(|e| e.account_age_s.is_some_and(|age| age < 7 * 86_400));
        let accounts: HashSet<&str> = young.map(|event| event.actor.as_str()).collect();
        assert!(brigade.count == 60 && accounts.len() >= 60 && accounts.len() < 65, "{}", accounts.len());
    }
    let mut named = HashSet::new();
    for planted in truth.abusers.iter().chain(&truth.harmless) {
        assert!(named.insert((&planted.subject_kind, &planted.subject)), "two scripts of {}", planted.subject);
    }
    check_opted_in(&events, &truth);
    check_templates(&events, &truth);
    check_makers(&events, &truth);
    check_reported_groups(&events, &truth);
    let fewer = decoded(Settings { planted: Some(2), ..Settings::new(1_000, 9, 11, START) }).1;
    let is_long = |p: &Planted| [PlantedKind::PatientBulk, PlantedKind::GroupCreator, PlantedKind::CommonName].contains(&p.kind);
    assert!(!fewer.abusers.iter().chain(&fewer.harmless).any(is_long), "nine days are too few for it");
    assert_eq!(fewer.group_hashes, [] as [String; 0]);
}

/// Older accounts that a business had written to, of two cohorts or such as object all the time, and what ordinary people's objections say.
fn check_opted_in(events: &[Event], truth: &Truth) {
    let said = |event: &Event, subject: Option<&str>| match &event.body {
        Some(Body::UserBlocked(b)) if !b.business.is_empty() && subject.is_none_or(|s| s == b.business) => Some(b.rate()),
        Some(Body::ReportFiled(r)) if !r.business.is_empty() && subject.is_none_or(|s| s == r.business) => Some(r.rate()),
        _ => None,
    };
    let brigades = all_of(truth, PlantedKind::OptedInBrigade);
    assert_eq!(brigades.len(), 2);
    for (nth, brigade) in brigades.into_iter().enumerate() {
        let in_time = |event: &&Event| (brigade.start_ms..=brigade.end_ms).contains(&event.event_time_ms);
        let against: Vec<_> =
            events.iter().filter(in_time).filter(|event| said(event, Some(&brigade.subject)).is_some()).collect();
        let accounts: HashSet<&str> = against.iter().map(|event| event.actor.as_str()).collect();
        assert!(
            (40..=80).contains(&brigade.count) && against.len() as u64 >= brigade.count && against.len() < 90,
            "{}",
            against.len()
        );
        assert_eq!(brigade.expected_rule.as_deref(), Some("report_brigade"));
        let written: HashSet<&str> = events
            .iter()
            .filter(in_time)
            .filter(|e| matches!(&e.body, Some(Body::BusinessMessage(m)) if m.business == brigade.subject))
            .map(|event| event.actor.as_str())
            .collect();
        assert!(accounts.iter().filter(|account| written.contains(*account)).count() as u64 >= brigade.count * 9 / 10);
        let old = against.iter().filter(|event| event.account_age_s.is_some_and(|age| age >= 7 * 86_400)).count();
        assert!(old * 10 >= against.len() * 9, "{old} of {}", against.len());
        let cohorts: HashSet<&[u8]> = against.iter().map(|event| &event.cohort[..]).collect();
        let many = against.iter().filter(|event| said(event, None) == Some(ReporterRate::Many)).count();
        match nth {
            0 => assert!(cohorts.len() < 6 && many * 20 < against.len(), "{} {many}", cohorts.len()),
            _ => assert!(cohorts.len() > 12 && many * 10 > against.len() * 9, "{} {many}", cohorts.len()),
        }
    }
    let scripted = |event: &&Event| truth.abusers.iter().any(|planted| said(event, Some(&planted.subject)).is_some());
    let mut rates = BTreeMap::new();
    for event in events.iter().filter(|event| !scripted(event)) {
        if let Some(rate) = said(event, None) {
            assert!(!event.cohort.is_empty(), "whatever the account's age");
            *rates.entry(rate as i32).or_insert(0_usize) += 1;
        }
    }
    let all: usize = rates.values().sum();
    let share = |rate: ReporterRate| rates.get(&(rate as i32)).copied().unwrap_or_default() as f64 / all as f64;
    assert!(
        share(ReporterRate::Never) > 0.6 && share(ReporterRate::Many) < 0.1 && share(ReporterRate::Unspecified) == 0.0,
        "{rates:?}"
    );
}

/// New templates of shops that were there on the days before, and who objects to them.
fn check_templates(events: &[Event], truth: &Truth) {
    for (kind, rule, permille) in
        [(PlantedKind::UnwantedTemplate, Some("business_template"), 60..=350), (PlantedKind::NewTemplate, None, 0..=50)]
    {
        let all = all_of(truth, kind);
        assert_eq!(all.len(), 2);
        for shop in all {
            let sent = events.iter().filter_map(|event| match &event.body {
                Some(Body::BusinessMessage(m)) if m.business == shop.subject && m.stage() == BusinessStage::Sent => {
                    Some((event, m))
                }
                _ => None,
            });
            let (usual, new): (Vec<_>, Vec<_>) = sent.partition(|(_, message)| message.template == "order_update");
            assert!(usual.iter().any(|(event, _)| event.event_time_ms < shop.start_ms - 2 * 86_400_000), "known for days");
            assert!((100..=180).contains(&new.len()) && new.iter().all(|(_, message)| message.template == "offer_1"));
            let (first, last) = (new[0].0.event_time_ms, new[new.len() - 1].0.event_time_ms);
            assert!(first == shop.start_ms && last - first <= 90 * 60_000);
            let objects = |event: &&Event| match &event.body {
                Some(Body::UserBlocked(blocked)) => (&*blocked.business, &*blocked.template) == (&*shop.subject, "offer_1"),
                Some(Body::ReportFiled(report)) => (&*report.business, &*report.template) == (&*shop.subject, "offer_1"),
                _ => false,
            };
            let objections = events.iter().filter(objects).count();
            assert!(permille.contains(&(1000 * objections / new.len())), "{kind:?}: {objections} of {}", new.len());
            assert_eq!(shop.expected_rule.as_deref(), rule);
        }
    }
}

/// Who makes groups by the dozen and who only looks like it, and groups that are on the lists and those that only have a name in common.
fn check_makers(events: &[Event], truth: &Truth) {
    for (kind, rule, range, longest_ms) in [
        (PlantedKind::GroupCreator, Some("group_creation_burst"), 15..=60, 4 * 3_600_000),
        (PlantedKind::SchoolSecretary, None, 6..=9, 3_600_000),
    ] {
        for maker in all_of(truth, kind) {
            let made = events.iter().filter(|e| e.actor == maker.subject && matches!(e.body, Some(Body::GroupCreated(_))));
            let groups: BTreeMap<&[u8], i64> = made.map(|e| (group_of(e).unwrap_or_default(), e.event_time_ms)).collect();
            assert!(range.contains(&maker.count) && groups.len() as u64 == maker.count, "{kind:?}: {}", groups.len());
            let (first, last) = (groups.values().min().expect("some"), groups.values().max().expect("some"));
            assert!(last - first < longest_ms && (*first >= maker.start_ms && *last == maker.end_ms), "{kind:?}");
            assert_eq!(maker.expected_rule.as_deref(), rule);
        }
    }
    assert_eq!(truth.group_hashes.len(), 60);
    let on_list =
        |field: &str, hash: &[u8]| truth.group_hashes.iter().any(|line| line.starts_with(&format!("{} {field} ", hex(hash))));
    let hits = |group: &str| {
        let mut hits = (0, 0);
        for event in events {
            let Some(Body::GroupProfileChanged(changed)) = &event.body else { continue };
            if hex(&changed.group) == group {
                hits.0 += u64::from(on_list("name", &changed.name_hash));
                hits.1 += u64::from(on_list("photo", &changed.photo_hash));
                assert!(!on_list("description", &changed.description_hash));
            }
        }
        hits
    };
    for listed in all_of(truth, PlantedKind::ListedGroup) {
        let (names, photos) = hits(&listed.subject);
        assert!(names.max(photos) == listed.count && names.min(photos) % listed.count == 0, "{names} {photos}");
        assert_eq!(listed.expected_rule.as_deref(), Some("group_listed"));
    }
    for harmless in all_of(truth, PlantedKind::CommonName) {
        assert_eq!((hits(&harmless.subject), &harmless.expected_rule), ((harmless.count, 0), &None));
    }
    let profiles = events.iter().filter(|e| matches!(e.body, Some(Body::GroupProfileChanged(_)))).count() as u64;
    let planted: u64 =
        [PlantedKind::ListedGroup, PlantedKind::CommonName].iter().flat_map(|k| all_of(truth, *k)).map(|p| p.count).sum();
    assert!(profiles > 3 * planted, "ordinary groups change theirs, and are on no list");
}

/// Groups that are reported by arrangement, and one that ordinary people report.
fn check_reported_groups(events: &[Event], truth: &Truth) {
    for (kind, rule, counts, longest_ms) in [
        (PlantedKind::GroupBrigade, "group_report_brigade", 40..=80, 90 * 60_000),
        (PlantedKind::UnwantedGroup, "group_reports", 60..=100, 50 * 60_000),
    ] {
        let all = all_of(truth, kind);
        assert_eq!(all.len(), 2);
        for (nth, group) in all.into_iter().enumerate() {
            let reports: Vec<_> = events
                .iter()
                .filter_map(|event| match &event.body {
                    Some(Body::GroupReported(report)) if hex(&report.group) == group.subject => Some((event, report.rate())),
                    _ => None,
                })
                .collect();
            let accounts: HashSet<&str> = reports.iter().map(|(event, _)| event.actor.as_str()).collect();
            assert!(counts.contains(&group.count) && reports.len() as u64 == group.count, "{kind:?}: {}", reports.len());
            assert!(accounts.len() * 10 >= reports.len() * 9 && group.end_ms - group.start_ms < longest_ms, "{kind:?}");
            assert_eq!(group.expected_rule.as_deref(), Some(rule));
            let cohorts: HashSet<&[u8]> = reports.iter().map(|(event, _)| &event.cohort[..]).collect();
            let many = reports.iter().filter(|(_, rate)| *rate == ReporterRate::Many).count();
            match (kind, nth) {
                (PlantedKind::GroupBrigade, 0) => assert!(cohorts.len() < 4 && many * 10 < reports.len(), "{}", cohorts.len()),
                (PlantedKind::GroupBrigade, _) => assert!(cohorts.len() > 12 && many == reports.len(), "{many}"),
                _ => assert!(cohorts.len() > 12 && many * 5 < reports.len(), "{many}"),
            }
        }
    }
}

#[test]
fn on_a_recorded_log_people_write_to_each_other_as_its_people_did_and_who_is_planted_is_planted() {
    let (sms, calls) =
        ("timestamp,sender,recipient\n3600,7,9\n7200,9,7\n90000,7,9\n", "timestamp,sender,recipient,duration_s\n4000,9,5,60\n");
    let log = replay::Replay::read(sms.as_bytes(), calls.as_bytes(), 0).expect("a log");
    let settings = Settings::new(1_000, 2, 11, START);
    let world = World::new(settings).expect("settings").on(&log, 40).expect("fits");
    let (mut sent, mut spoken) = (BTreeMap::<(String, String), Vec<(i64, bool, bool)>>::new(), 0);
    let truth = world
        .for_each_event(
            &mut |event| {
                let (time_ms, event) = (event.time_ms, Event::decode(event.encoded).expect("decodes"));
                match event.body {
                    Some(Body::MessageSent(m)) if !m.to_person.is_empty() => {
                        let of_two = sent.entry((event.actor, m.to_person)).or_default();
                        of_two.push((time_ms - START.start_ms(), m.thread_is_new, m.is_reply));
                    }
                    Some(Body::CallEnded(_)) => spoken += 1,
                    _ => {}
                }
                Ok::<(), ()>(())
            },
            &mut |_| {},
        )
        .expect("the sink never fails");
    let planted: HashSet<&str> = truth.abusers.iter().chain(&truth.harmless).map(|p| &*p.subject).collect();
    sent.retain(|(from, to), _| !planted.contains(from.as_str()) && !planted.contains(to.as_str()));
    // 7 to 9 and 9 to 7, of each copy.
    assert_eq!((sent.len(), spoken, sent.values().map(Vec::len).sum::<usize>()), (80, 40, 120));
    let hour = |h: i64| h * 3_600_000;
    // A copy that was moved by a day begins with what was the log's last message.
    let of = |is_reply: bool| sent.values().filter(|m| **m == [(hour(1), true, false), (hour(25), false, is_reply)]).count();
    let (as_it_was, a_day_later) = (of(true), of(false));
    assert!(as_it_was > 5 && a_day_later > 5 && as_it_was + a_day_later == 40, "{as_it_was} and {a_day_later}");
    assert!(matches!(World::new(settings).expect("settings").on(&log, 400), Err(SimulateError::FewAccounts { needed: 1_200 })));
    assert!(matches!(World::new(settings).expect("settings").on(&log, 0), Err(SimulateError::Copies)));
}
