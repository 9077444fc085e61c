//! Blocks and reports: whose they are is not in them, but for what tells a brigade from people who are angry, and what they are of.

use super::*;

#[test]
fn p23_of_who_blocks_or_reports_a_business_a_signal_says_whether_it_is_a_new_account() {
    let week_s = 7 * 86_400;
    let report = |business: &str, person: &str| {
        Body::ReportFiled(proto::ReportFiled { business: business.into(), person: person.into(), ..Default::default() })
    };
    let block = |business: &str, person: &str| {
        Body::UserBlocked(proto::UserBlocked { business: business.into(), person: person.into(), ..Default::default() })
    };
    for (body, age_s, expected) in [
        (report("b-1", ""), Some(0), 1),
        (report("b-1", ""), Some(week_s - 1), 1),
        (block("b-1", ""), Some(week_s - 1), 1),
        (report("b-1", ""), Some(week_s), 0),
        (block("b-1", ""), Some(week_s), 0),
        (report("b-1", ""), None, 0),
        // Nothing asks it of a person.
        (report("", BOB), Some(1), 0),
        (block("", BOB), Some(1), 0),
        (report("b-1", BOB), Some(1), 0),
        // And of who reports a group.
        (Body::GroupReported(proto::GroupReported { group: group(), reason: 1, rate: 0 }), Some(week_s - 1), 1),
        (Body::GroupReported(proto::GroupReported { group: group(), reason: 1, rate: 0 }), Some(week_s), 0),
    ] {
        let minimized = run(&[proto::Event { account_age_s: age_s, ..event(body.clone()) }]);
        let rows = &minimized.signals;
        assert_eq!(rows.num_rows(), 1);
        assert_eq!(rows["strangers"].as_primitive::<UInt32Type>().values(), &[expected], "{body:?} {age_s:?}");
        assert_eq!(rows["account_age_s"].null_count(), 1, "its age is not said");
    }
}

#[test]
fn i5_p23_of_a_cohort_that_objects_to_a_business_one_of_256_buckets_is_left_and_beside_a_person_nothing() {
    let batch = |n: u32| format!("cohort-canary-{n}").into_bytes();
    let report = |business: &str, person: &str, rate| {
        Body::ReportFiled(proto::ReportFiled { business: business.into(), person: person.into(), rate, ..Default::default() })
    };
    let block = |business: &str, person: &str, rate| {
        Body::UserBlocked(proto::UserBlocked { business: business.into(), person: person.into(), rate, ..Default::default() })
    };
    // Accounts of any age: brigades are made of old ones, too.
    let said = |body, cohort, age_s| proto::Event { cohort, account_age_s: age_s, ..event(body) };
    let old = Some(400 * 86_400);
    let day = key(Purpose::Integrity, DAY);
    let opened = EpochKey::<Integrity>::open(Zeroizing::new(day), DAY);
    let bucket = |business: &str, n: u32| opened.voice(business.as_bytes(), &batch(n));
    let voice = |bucket, rate| Voice { bucket, rate }.code();
    for (event, expected) in [
        (said(report("b-1", "", 1), batch(1), old), voice(Some(bucket("b-1", 1)), ReporterRate::Never)),
        (said(block("b-1", "", 4), batch(1), Some(60)), voice(Some(bucket("b-1", 1)), ReporterRate::Many)),
        (said(block("b-2", "", 3), batch(2), None), voice(Some(bucket("b-2", 2)), ReporterRate::Several)),
        (said(block("b-1", "", 2), Vec::new(), old), voice(None, ReporterRate::Few)),
        (said(report("b-1", "", 0), batch(3), old), voice(Some(bucket("b-1", 3)), ReporterRate::Unknown)),
        // Of an old edge, and of a new one whose words are not known yet.
        (said(report("b-1", "", 0), Vec::new(), old), None),
        (said(report("b-1", "", 5), Vec::new(), old), None),
        (said(report("b-1", "", -1), Vec::new(), old), None),
        // Of people nothing is said: a bucket beside somebody accused would join two.
        (said(report("", BOB, 4), batch(1), Some(60)), None),
        (said(block("", BOB, 4), batch(1), Some(60)), None),
        (said(report("b-1", BOB, 4), batch(1), Some(60)), None),
        (said(business(1), batch(1), Some(60)), None),
        (
            said(Body::GroupReported(proto::GroupReported { group: group(), reason: 1, rate: 2 }), batch(1), old),
            voice(Some(opened.voice_in_group(b"group-1", &batch(1))), ReporterRate::Few),
        ),
    ] {
        let minimized = run(std::slice::from_ref(&event));
        let rows = &minimized.signals;
        assert_eq!(rows.num_rows(), 1);
        let told = rows["voice"].as_primitive::<UInt16Type>();
        assert_eq!(told.is_valid(0).then(|| told.value(0)), expected, "{:?}", event.body);
        let is_of_group = matches!(event.body, Some(Body::GroupReported(_)));
        assert_eq!(rows["group"].null_count(), usize::from(!is_of_group), "its cohort's keyed form is not said");
        let buffers = rows.columns().iter().flat_map(|column| column.to_data().buffers().to_vec());
        let bytes: Vec<u8> = buffers.flat_map(|buffer| buffer.as_slice().to_vec()).collect();
        for needle in [b"cohort-canary".to_vec(), keyed_cohort(&event.cohort, &day, DAY)[..4].to_vec()] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{:?}", event.body);
        }
    }
    // Behind and before it are rows without.
    let minimized = run(&[event(message()), said(report("b-1", "", 4), Vec::new(), old), event(message())]);
    let valid: Vec<bool> = (0..minimized.signals.num_rows()).map(|row| minimized.signals["voice"].is_valid(row)).collect();
    assert_eq!(valid.iter().filter(|is| **is).count(), 1);
    assert_eq!(
        minimized.signals["kind"].as_primitive::<UInt8Type>().value(valid.iter().position(|is| *is).expect("one")),
        SignalKind::Reported.code()
    );
}

#[test]
fn i5_p23_a_signal_holds_one_person_and_the_right_one() {
    let alice = Some(person(ALICE, Purpose::Integrity, DAY));
    let alice_before = Some(person(ALICE, Purpose::Integrity, EpochId(DAY.0 - 1)));
    let bob = Some(person(BOB, Purpose::Integrity, DAY));
    let keyed = Some(keyed_group(b"group-1", &key(Purpose::Integrity, DAY), DAY));
    let minimized = run(&[
        event(message()),
        event(business(1)),
        proto::Event { actor: String::new(), ..event(business(1)) },
        event(Body::UserBlocked(proto::UserBlocked { person: "+1 (202) 555-0143".into(), ..Default::default() })),
        event(Body::ReportFiled(proto::ReportFiled {
            person: BOB.into(),
            business: "b-1".into(),
            reason: 2,
            after_delivery: Some(true),
            rate: 4,
            ..Default::default()
        })),
        // Nothing had been delivered; nothing is said of it.
        event(Body::ReportFiled(proto::ReportFiled {
            business: "b-1".into(),
            after_delivery: Some(false),
            ..Default::default()
        })),
        event(Body::ReportFiled(proto::ReportFiled { business: "b-1".into(), ..Default::default() })),
        event(Body::MembersAdded(proto::MembersAdded { group: group(), count: 5, strangers: 4 })),
        event(Body::MessageSent(proto::MessageSent { conversation: 2, to_group: group(), ..Default::default() })),
    ]);
    let row = |kind, person, group, business: Option<&str>, count, account_age_s| Row {
        kind,
        epoch: DAY,
        overlap: false,
        person,
        group,
        business: business.map(str::to_owned),
        count,
        account_age_s,
    };
    assert_eq!(
        signals(&minimized),
        [
            row(SignalKind::MessageSent, alice, None, None, 1, Some(1_000)),
            row(SignalKind::BusinessSent, alice, None, Some("b-1"), 1, None),
            row(SignalKind::BusinessSent, None, None, Some("b-1"), 1, None),
            row(SignalKind::Blocked, bob, None, None, 1, None),
            row(SignalKind::Reported, bob, None, Some("b-1"), 1, None),
            row(SignalKind::Reported, None, None, Some("b-1"), 0, None),
            row(SignalKind::Reported, None, None, Some("b-1"), 1, None),
            row(SignalKind::MembersAdded, None, keyed, None, 5, None),
            row(SignalKind::MessageSent, alice, None, None, 1, Some(1_000)),
            Row {
                epoch: EpochId(DAY.0 - 1),
                overlap: true,
                ..row(SignalKind::Contact, alice_before, None, None, 1, Some(1_000))
            },
            row(SignalKind::Contact, alice, None, None, 1, Some(1_000)),
            row(SignalKind::Answered, None, None, None, 1, None),
        ]
    );
    let rows = &minimized.signals;
    assert_eq!(rows.schema(), *starling_schemas::rows::SIGNALS);
    assert_eq!(rows["time"].as_primitive::<TimestampMillisecondType>().value(0), NOON_MS);
    assert!(rows["thread_is_new"].as_boolean().value(0));
    assert_eq!(rows["strangers"].as_primitive::<UInt32Type>().value(7), 4);
    assert_eq!(rows["portfolio"].as_string::<i32>().value(1), "p-1");
    assert_eq!(
        (rows["category"].as_primitive::<UInt8Type>().value(1), rows["tier"].as_primitive::<UInt8Type>().value(1)),
        (1, 3)
    );
    assert_eq!(rows["conversation"].as_primitive::<UInt8Type>().values(), &[1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0]);
}

#[test]
fn i4_a_template_is_in_the_rows_of_messages_sent_and_of_who_objects_to_a_business_and_never_with_a_number() {
    let message = |stage, template: &str| {
        let Body::BusinessMessage(message) = business(stage) else { panic!("a business's message") };
        event(Body::BusinessMessage(proto::BusinessMessage { template: template.into(), ..message }))
    };
    let blocked = |business: &str, person: &str, template: &str| {
        event(Body::UserBlocked(proto::UserBlocked {
            business: business.into(),
            person: person.into(),
            template: template.into(),
            rate: 0,
        }))
    };
    let reported = |template: &str| {
        let after_delivery = Some(true);
        event(Body::ReportFiled(proto::ReportFiled {
            business: "b-1".into(),
            template: template.into(),
            after_delivery,
            ..Default::default()
        }))
    };
    let minimized = run(&[
        message(1, "season_sale"),
        message(4, "season_sale"),
        message(1, ""),
        message(1, " call  +49 151 12345678\n now "),
        blocked("b-1", "", "season_sale"),
        blocked("b-1", BOB, "season_sale"),
        blocked("", BOB, "season_sale"),
        reported("call_4915112345678"),
        reported(&"x".repeat(400)),
        event(Body::MessageSent(proto::MessageSent { conversation: 1, to_person: BOB.into(), ..Default::default() })),
    ]);
    let (kinds, templates) =
        (minimized.signals["kind"].as_primitive::<UInt8Type>(), minimized.signals["template"].as_string::<i32>());
    let cut = format!("{}…", "x".repeat(253));
    let expected = [
        (SignalKind::BusinessSent, Some("season_sale")),
        // Of an answer nobody asks what it was to.
        (SignalKind::BusinessReplied, None),
        (SignalKind::BusinessSent, None),
        (SignalKind::BusinessSent, Some("call +## ### ######## now")),
        (SignalKind::Blocked, Some("season_sale")),
        // A person is blocked whatever a business wrote.
        (SignalKind::Blocked, None),
        (SignalKind::Blocked, None),
        (SignalKind::Reported, Some("call_#############")),
        (SignalKind::Reported, Some(&*cut)),
        (SignalKind::MessageSent, None),
    ];
    let rows: Vec<_> = kinds.values().iter().zip(templates).take(expected.len()).map(|(kind, name)| (*kind, name)).collect();
    assert_eq!(rows, expected.map(|(kind, name)| (kind.code(), name)));
    assert_eq!(templates.len(), minimized.signals.num_rows(), "rows of pairs have the column, too");
}
