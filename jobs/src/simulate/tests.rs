//! Whole worlds, decoded and counted again by other code than made them.

mod together;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use prost::Message as _;
use starling_schemas::codes::PlatformCode;
use starling_schemas::event::event::Body;
use starling_schemas::event::{AgeBand, BusinessStage, ConversationKind, Event};
use starling_schemas::ids::EpochId;

use super::countries::{push_hex, table};
use super::truth::{DayTruth, Planted, PlantedKind, Truth};
use super::{GeneratedEvent, Settings, SimulateError, World, replay};

const START: EpochId = EpochId(20_458);

fn run(settings: Settings, each: &mut dyn FnMut(GeneratedEvent<'_>)) -> Truth {
    let world = World::new(settings).expect("valid settings");
    let mut slices = 0;
    let truth = world
        .for_each_event(
            &mut |event| {
                each(event);
                Ok::<(), ()>(())
            },
            &mut |progress| {
                slices += 1;
                assert_eq!(progress.slices_done, slices);
            },
        )
        .expect("the sink never fails");
    assert_eq!(slices, world.slices());
    truth
}

fn decoded(settings: Settings) -> (Vec<Event>, Truth) {
    let mut events = Vec::new();
    let truth = run(settings, &mut |e| events.push(Event::decode(e.encoded).expect("decodes")));
    (events, truth)
}

fn fingerprint(settings: Settings) -> (u64, u64) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut frames = 0;
    run(settings, &mut |event| {
        for byte in event.key.iter().chain(event.encoded) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        frames += 1;
    });
    (hash, frames)
}

#[test]
fn equal_settings_give_equal_bytes_and_another_seed_gives_others() {
    let settings = Settings { bad_share: 0.01, ..Settings::new(1_000, 1, 7, START) };
    assert_eq!(fingerprint(settings), fingerprint(settings));
    assert_ne!(fingerprint(settings).0, fingerprint(Settings { seed: 8, ..settings }).0);
}

#[test]
fn events_come_in_the_order_of_time_within_the_days_asked_for() {
    let mut last = START.start_ms();
    let mut keys: HashMap<String, [u8; 8]> = HashMap::new();
    run(Settings::new(2_000, 2, 1, START), &mut |event| {
        let decoded = Event::decode(event.encoded).expect("decodes");
        assert_eq!(decoded.event_time_ms, event.time_ms);
        assert!(event.time_ms >= last && event.time_ms < EpochId(START.0 + 1).end_ms());
        last = event.time_ms;
        if !decoded.actor.is_empty() {
            assert_eq!(*keys.entry(decoded.actor).or_insert(event.key), event.key, "a person has one key");
        }
    });
}

/// Country of a number, by how the numbers of each country begin; no two begin alike.
struct Prefixes(Vec<(String, &'static str)>);

impl Prefixes {
    fn new() -> Self {
        Self(
            table()
                .expect("compiled in")
                .iter()
                .flat_map(|row| row.beginnings().map(|b| (b, row.name)).collect::<Vec<_>>())
                .collect(),
        )
    }

    fn of(&self, number: &str) -> &'static str {
        let mut found = self.0.iter().filter(|(prefix, _)| number.starts_with(prefix.as_str()));
        let (_, name) = found.next().expect("every number has a country");
        assert!(found.next().is_none(), "{number} could be of two countries");
        name
    }
}

#[derive(Default)]
struct Recount {
    served: HashMap<(&'static str, &'static str), HashSet<String>>,
    messages: BTreeMap<(&'static str, &'static str), u64>,
    seconds: BTreeMap<&'static str, u64>,
    activities: BTreeMap<(String, String, String), u64>,
    versions: BTreeMap<(String, String), HashSet<String>>,
    countable: u64,
    events: u64,
}

fn countable(event: &Event) -> bool {
    let Some(choices) = &event.choices else { return false };
    let of_age = match choices.age_band() {
        AgeBand::Adult => true,
        AgeBand::From13To17 => choices.guardian_consent,
        AgeBand::Under13 | AgeBand::Unspecified => false,
    };
    let for_analytics = !matches!(
        event.body,
        None | Some(
            Body::AccountDeleted(_)
                | Body::ConsentChanged(_)
                | Body::MembersAdded(_)
                | Body::GroupJoinedByLink(_)
                | Body::GroupLeft(_)
                | Body::GroupProfileChanged(_)
                | Body::GroupReported(_)
                | Body::UserBlocked(_)
                | Body::ReportFiled(_)
                | Body::BusinessInformation(_)
                | Body::ContactsUploaded(_)
        )
    );
    choices.analytics_consent && of_age && for_analytics && !event.actor.is_empty()
}

#[test]
fn the_truth_is_what_the_events_say_when_they_are_decoded_and_counted_again() {
    let (events, truth) = decoded(Settings::new(3_000, 2, 3, START));
    let prefixes = Prefixes::new();
    let mut countries: HashMap<String, &'static str> = HashMap::new();
    let mut days: BTreeMap<EpochId, Recount> = BTreeMap::new();
    for event in &events {
        let day = days.entry(EpochId::of(event.event_time_ms)).or_default();
        day.events += 1;
        if !countable(event) {
            continue;
        }
        day.countable += 1;
        let country = *countries.entry(event.actor.clone()).or_insert_with(|| prefixes.of(&event.actor));
        let platform = PlatformCode::from_code(event.client.as_ref().expect("a client").platform as u8).expect("listed").name();
        let active = match event.body.as_ref().expect("a body") {
            Body::BusinessMessage(message) => !matches!(message.stage(), BusinessStage::Sent | BusinessStage::Delivered),
            _ => true,
        };
        let kind = named(event);
        *day.activities.entry(kind).or_default() += 1;
        if active {
            let version = event.client.as_ref().expect("a client").version.rsplit_once('.').expect("a patch").0.to_owned();
            day.versions.entry((platform.to_owned(), version)).or_default().insert(event.actor.clone());
            day.served.entry((country, platform)).or_default().insert(event.actor.clone());
        }
        match event.body.as_ref().expect("a body") {
            Body::MessageSent(message) => {
                let kind = match message.conversation() {
                    ConversationKind::Person => "person",
                    ConversationKind::Group => "group",
                    ConversationKind::Business => "business",
                    ConversationKind::Channel => "channel",
                    ConversationKind::Unspecified => panic!("a message without a conversation kind"),
                };
                *day.messages.entry((country, kind)).or_default() += 1;
            }
            Body::CallEnded(call) if call.duration_s > 0 => {
                *day.seconds.entry(country).or_default() += u64::from(call.duration_s)
            }
            _ => {}
        }
    }
    assert_eq!(truth.events, events.len() as u64);
    assert_eq!(truth.frames, truth.events);
    assert_eq!(truth.events_by_kind.values().sum::<u64>(), truth.events);
    assert_eq!(truth.days.len(), days.len());
    for (told, (day, counted)) in truth.days.iter().zip(days) {
        assert_eq!(told.day, day.to_string());
        compare(told, &counted);
    }
}

/// Activity, detail and account of a countable event, by the names of `event.proto`'s own enums.
fn named(event: &Event) -> (String, String, String) {
    use starling_schemas::event::CallKind;
    let (activity, said) = match event.body.as_ref().expect("a body") {
        Body::AccountRegistered(_) => ("account_registered", ""),
        Body::MessageSent(b) => (
            match b.conversation() {
                ConversationKind::Person => "message_person",
                ConversationKind::Group => "message_group",
                ConversationKind::Business => "message_business",
                _ => "message_channel",
            },
            b.media().as_str_name(),
        ),
        Body::CallEnded(b) => (
            match b.kind() {
                CallKind::Voice => "call_voice",
                CallKind::Video => "call_video",
                CallKind::GroupVoice => "call_group_voice",
                _ => "call_group_video",
            },
            if b.missed { "_MISSED" } else { b.quality().as_str_name() },
        ),
        Body::StatusPosted(b) => ("status_posted", b.media().as_str_name()),
        Body::ChannelViewed(_) => ("channel_viewed", ""),
        Body::FeatureUsed(b) => ("feature_used", b.feature().as_str_name()),
        Body::AiInvoked(b) => ("ai_invoked", b.surface().as_str_name()),
        Body::AppCrashed(b) => ("app_crashed", b.site().as_str_name()),
        Body::GroupCreated(b) => (
            "group_created",
            match b.size {
                0..9 => "_UP_TO_8",
                9..33 => "_9_TO_32",
                33..129 => "_33_TO_128",
                _ => "larger than any here",
            },
        ),
        Body::BusinessMessage(b) => (
            match b.stage() {
                BusinessStage::Sent => "business_sent",
                BusinessStage::Delivered => "business_delivered",
                BusinessStage::Read => "business_read",
                _ => "business_replied",
            },
            b.category().as_str_name(),
        ),
        _ => panic!("not countable"),
    };
    let detail = match said {
        "" | "FEATURE_PAYMENT" | "FEATURE_CLICK_TO_CHAT" => "none".to_owned(),
        said => {
            let prefixes = ["MEDIA_KIND", "CALL_QUALITY", "FEATURE", "CRASH_SITE", "BUSINESS_CATEGORY", ""];
            let short = prefixes.iter().find_map(|prefix| said.strip_prefix(prefix)?.strip_prefix('_'));
            short.expect("a value of a known enum").to_lowercase()
        }
    };
    let young = event.account_age_s.is_some_and(|age| age < 604_800);
    (activity.to_owned(), detail, if young { "first_week" } else { "older" }.to_owned())
}

fn compare(told: &DayTruth, counted: &Recount) {
    assert_eq!((told.events, told.countable), (counted.events, counted.countable));
    let served: BTreeMap<(&str, &str), u64> =
        told.people_served.iter().map(|r| ((&*r.country, &*r.platform), r.people)).collect();
    let again: BTreeMap<(&str, &str), u64> = counted.served.iter().map(|((c, p), set)| ((*c, *p), set.len() as u64)).collect();
    assert_eq!(served, again);
    let messages: BTreeMap<(&str, &str), u64> =
        told.messages.iter().map(|r| ((&*r.country, &*r.conversation_kind), r.messages)).collect();
    assert_eq!(messages, counted.messages.clone().into_iter().collect());
    let activities: BTreeMap<_, u64> =
        told.activities.iter().map(|r| ((r.activity.clone(), r.detail.clone(), r.account.clone()), r.events)).collect();
    assert_eq!(activities, counted.activities);
    let versions: BTreeMap<_, u64> = told.versions.iter().map(|r| ((r.platform.clone(), r.version.clone()), r.people)).collect();
    let again = counted.versions.iter().map(|(key, people)| (key.clone(), people.len() as u64)).collect();
    assert_eq!(versions, again);
    let seconds: BTreeMap<&str, u64> = told.call_seconds.iter().map(|r| (&*r.country, r.seconds)).collect();
    assert_eq!(seconds, counted.seconds.clone().into_iter().collect());
}

#[test]
fn an_active_person_makes_twenty_to_twenty_five_events_a_day_and_some_make_many_more() {
    let (events, truth) = decoded(Settings::new(5_000, 1, 4, START));
    let mut by_person: HashMap<&str, u64> = HashMap::new();
    for event in events.iter().filter(|e| !e.actor.is_empty()) {
        *by_person.entry(&event.actor).or_default() += 1;
    }
    let planted: HashSet<&str> = truth.abusers.iter().chain(&truth.harmless).map(|p| &*p.subject).collect();
    let mut counts: Vec<u64> = by_person.iter().filter(|(person, _)| !planted.contains(*person)).map(|(_, n)| *n).collect();
    counts.retain(|n| *n > 2);
    counts.sort_unstable();
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    assert!((20.0..=25.0).contains(&mean), "{mean}");
    assert!(counts[counts.len() - 1] > 5 * mean as u64 && counts[counts.len() / 2] < mean as u64, "{:?}", counts.last());
    let kinds: HashSet<&str> = truth.events_by_kind.keys().map(String::as_str).collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
    let served = |iso: &str| truth.days[0].people_served.iter().filter(|r| r.country == iso).map(|r| r.people).sum::<u64>();
    let all: u64 = truth.days[0].people_served.iter().map(|r| r.people).sum();
    assert!((0.18..0.30).contains(&(served("IN") as f64 / all as f64)));
    assert!(served("BR") > served("DE") && served("DE") > served("NZ"));
    assert!(truth.days[0].people_served.iter().map(|r| &r.country).collect::<HashSet<_>>().len() > 60);
    let passcodes = truth.harmless.iter().find(|p| p.kind == PlantedKind::PasscodeSender).expect("planted");
    assert!((700..1_400).contains(&passcodes.count), "{}", passcodes.count);
}

#[test]
fn every_detail_happens_and_versions_have_uneven_shares() {
    let (_, truth) = decoded(Settings::new(20_000, 1, 4, START));
    let day = &truth.days[0];
    for activity in starling_schemas::codes::Activity::ALL {
        let seen = |detail: &str| day.activities.iter().any(|r| r.activity == activity.name() && r.detail == detail);
        let missing: Vec<&str> = activity.details().iter().map(|(_, name)| *name).filter(|name| !seen(name)).collect();
        let expected: &[&str] = match activity.name() {
            // Nobody answers a passcode, and no group begins so large.
            "business_replied" => &["authentication"],
            "group_created" => &["129_to_512", "over_512"],
            "status_posted" => &["document", "sticker", "poll", "contact_card"],
            "ai_invoked" => &["reaction", "poll_vote", "channel_follow", "backup", "linked_device"],
            // Few of them happen: rare kinds may be missing.
            "message_channel" | "message_business" | "call_group_video" => continue,
            _ => &[],
        };
        assert_eq!(missing, expected, "{activity}");
    }
    let young: u64 = day.activities.iter().filter(|r| r.account == "first_week").map(|r| r.events).sum();
    assert!((0.01..0.05).contains(&(young as f64 / day.countable as f64)), "{young}");
    let mut android: Vec<u64> = day.versions.iter().filter(|r| r.platform == "android").map(|r| r.people).collect();
    android.sort_unstable();
    assert!(android.len() >= 6 && android[android.len() - 1] > 5 * android[0], "{android:?}");
}

#[test]
fn p4_addresses_are_of_the_documentation_ranges() {
    let (events, _) = decoded(Settings::new(1_000, 1, 4, START));
    assert!(events.iter().all(|e| match &e.ip[..] {
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        long => long.len() == 16 && long.starts_with(&[0x20, 0x01, 0x0d, 0xb8]),
    }));
}

/// Most messages of the sender in any `window_ms`, ends included.
fn most_within(events: &[Event], sender: &str, window_ms: i64) -> usize {
    let mut recent = VecDeque::new();
    let mut most = 0;
    for event in events.iter().filter(|e| e.actor == sender && matches!(e.body, Some(Body::MessageSent(_)))) {
        recent.push_back(event.event_time_ms);
        while recent.front().is_some_and(|first| event.event_time_ms - first > window_ms) {
            recent.pop_front();
        }
        most = most.max(recent.len());
    }
    most
}

fn all_of(truth: &Truth, kind: PlantedKind) -> Vec<&Planted> {
    let found: Vec<&Planted> = truth.abusers.iter().chain(&truth.harmless).filter(|p| p.kind == kind).collect();
    assert!(!found.is_empty(), "{kind:?} is missing");
    found
}

fn group_of(event: &Event) -> Option<&[u8]> {
    match event.body.as_ref()? {
        Body::GroupCreated(b) => Some(&b.group),
        Body::MembersAdded(b) => Some(&b.group),
        Body::GroupJoinedByLink(b) => Some(&b.group),
        _ => None,
    }
}

#[test]
fn p22_who_is_planted_does_what_is_claimed_and_the_near_misses_stop_one_short() {
    for (people, days) in [(1_000, 1), (1_000, 2), (30_000, 1)] {
        let (events, truth) = decoded(Settings::new(people, days, 11, START));
        for bulk in all_of(&truth, PlantedKind::FastBulk) {
            let most = most_within(&events, &bulk.subject, 59_999);
            assert!((1_000..=1_500).contains(&most) && most as u64 == bulk.count, "{most}");
            if days > 1 {
                assert!(EpochId::of(bulk.start_ms) < EpochId::of(bulk.end_ms), "over midnight");
            }
        }
        for near in all_of(&truth, PlantedKind::NearMissBulk) {
            assert_eq!(most_within(&events, &near.subject, 60_000), 999);
            assert_eq!(near.expected_rule, None);
        }
        for (kind, range) in [(PlantedKind::NewAccountBurst, 100..=140), (PlantedKind::NearMissNewAccount, 99..=99)] {
            for burst in all_of(&truth, kind) {
                let most = most_within(&events, &burst.subject, 14_999);
                assert!(range.contains(&most) && most as u64 == burst.count);
                let own: Vec<&Event> = events.iter().filter(|e| e.actor == burst.subject).collect();
                assert!(matches!(own[0].body, Some(Body::AccountRegistered(_))));
                assert!(own.iter().all(|e| e.account_age_s.is_some_and(|age| age < 300)));
            }
        }
        for reach in all_of(&truth, PlantedKind::BusinessReach) {
            check_reach(&events, reach);
        }
        for unwanted in all_of(&truth, PlantedKind::UnwantedBusiness) {
            let mut complaints = 0;
            for event in &events {
                complaints += u64::from(match &event.body {
                    Some(Body::UserBlocked(blocked)) => blocked.business == unwanted.subject,
                    Some(Body::ReportFiled(report)) => report.business == unwanted.subject,
                    _ => false,
                });
            }
            assert!((40..60).contains(&complaints) && complaints >= unwanted.count, "{complaints}");
        }
        for add in all_of(&truth, PlantedKind::GroupMassAdd) {
            let (count, strangers, first, last) = added(&events, &add.subject);
            assert!((100..=200).contains(&strangers) && u64::from(strangers) == add.count && count >= strangers);
            assert!(last - first < 600_000);
        }
        for wedding in all_of(&truth, PlantedKind::WeddingHost) {
            let (count, strangers, first, last) = added(&events, &wedding.subject);
            assert!(count == 208 && strangers <= 2 && last - first < 3_600_000);
        }
        for school in all_of(&truth, PlantedKind::SchoolGroup) {
            let mut joined = 0;
            for event in events.iter().filter(|e| matches!(e.body, Some(Body::GroupJoinedByLink(_)))) {
                joined += u64::from(hex(group_of(event).unwrap_or_default()) == school.subject);
            }
            assert_eq!(joined, school.count);
        }
        for evening in all_of(&truth, PlantedKind::LongEvening) {
            assert_eq!(most_within(&events, &evening.subject, 5 * 3_600_000), 300);
        }
    }
}

#[test]
fn bad_frames_come_on_top_and_change_nothing_else() {
    let settings = Settings::new(1_000, 1, 5, START);
    let (clean, truth) = decoded(settings);
    let mut good = Vec::new();
    let mut undecodable = 0;
    let with_bad = run(Settings { bad_share: 0.05, ..settings }, &mut |e| match Event::decode(e.encoded) {
        Ok(event) if e.encoded.len() < 16_384 && event.body.is_some() && event.event_time_ms == e.time_ms => {
            if event.actor.is_empty()
                || (event.actor.starts_with('+') && (8..=16).contains(&event.actor.len()) && !event.actor.starts_with("+00"))
            {
                good.push(event);
            }
        }
        Ok(_) => {}
        Err(_) => undecodable += 1,
    });
    assert_eq!(good, clean);
    assert_eq!((with_bad.events, &with_bad.days), (truth.events, &truth.days));
    let bad: u64 = with_bad.bad_frames.values().sum();
    assert_eq!(with_bad.frames, with_bad.events + bad);
    assert!((0.03..0.07).contains(&(bad as f64 / with_bad.events as f64)));
    assert_eq!(with_bad.bad_frames.len(), 7, "{:?}", with_bad.bad_frames);
    let unreadable = with_bad.bad_frames["malformed"] + with_bad.bad_frames["wrong_wire_type"];
    assert_eq!(undecodable, unreadable);
}

#[test]
fn a_refusing_sink_ends_it() {
    let world = World::new(Settings::new(1_000, 1, 5, START)).expect("valid");
    let mut taken = 0;
    let result = world.for_each_event(
        &mut |_| {
            taken += 1;
            if taken == 10 { Err("full") } else { Ok(()) }
        },
        &mut |_| {},
    );
    assert_eq!((result, taken), (Err("full"), 10));
}

#[test]
fn the_truth_can_be_written_and_read() {
    let (_, truth) = decoded(Settings::new(1_000, 1, 5, START));
    let text = serde_json::to_string(&truth).expect("serialises");
    assert_eq!(serde_json::from_str::<Truth>(&text).expect("reads"), truth);
}

#[test]
fn consent_follows_its_change_and_nobody_acts_before_or_after_their_account() {
    let (events, _) = decoded(Settings::new(20_000, 1, 9, START));
    let mut consent: HashMap<&str, bool> = HashMap::new();
    let mut registered: HashMap<&str, i64> = HashMap::new();
    let mut first: HashMap<&str, i64> = HashMap::new();
    let mut deleted: HashSet<&str> = HashSet::new();
    let mut changes = 0;
    for event in events.iter().filter(|e| !e.actor.is_empty()) {
        first.entry(&event.actor).or_insert(event.event_time_ms);
        assert!(!deleted.contains(&*event.actor));
        let now = event.choices.as_ref().expect("choices").analytics_consent;
        match &event.body {
            Some(Body::ConsentChanged(changed)) => {
                assert_eq!(changed.analytics_consent, now);
                changes += 1;
            }
            Some(Body::AccountRegistered(_)) => {
                assert!(event.account_age_s.is_some_and(|age| age <= 1));
                registered.insert(&event.actor, event.event_time_ms);
            }
            Some(Body::AccountDeleted(_)) => {
                deleted.insert(&event.actor);
            }
            _ => assert!(consent.get(&*event.actor).is_none_or(|before| *before == now)),
        }
        consent.insert(&event.actor, now);
    }
    assert!(changes > 5 && registered.len() > 20 && !deleted.is_empty(), "{changes} {} {}", registered.len(), deleted.len());
    assert!(registered.iter().all(|(person, at)| first[person] == *at));
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    push_hex(bytes, &mut out);
    out
}

fn added(events: &[Event], group: &str) -> (u32, u32, i64, i64) {
    let mut out = (0, 0, i64::MAX, i64::MIN);
    for event in events {
        if let Some(Body::MembersAdded(added)) = &event.body
            && hex(&added.group) == group
        {
            out = (out.0 + added.count, out.1 + added.strangers, out.2.min(event.event_time_ms), out.3.max(event.event_time_ms));
        }
    }
    out
}

fn check_reach(events: &[Event], reach: &Planted) {
    let mut reached = HashSet::new();
    let mut others: HashMap<&str, HashSet<&str>> = HashMap::new();
    for event in events.iter().filter(|e| EpochId::of(e.event_time_ms) == EpochId::of(reach.start_ms)) {
        if let Some(Body::BusinessMessage(message)) = &event.body
            && message.stage() == BusinessStage::Sent
        {
            if message.business == reach.subject {
                reached.insert(&event.actor);
                assert_eq!(message.tier().as_str_name(), "BUSINESS_TIER_T250");
                assert_eq!(message.category().as_str_name(), "BUSINESS_CATEGORY_MARKETING");
            } else {
                others.entry(&message.business).or_default().insert(&event.actor);
            }
        }
    }
    assert!(reached.len() as u64 >= reach.count && reach.count >= 1_200, "{}", reached.len());
    let most = others.iter().filter(|(id, _)| id.starts_with("shop")).map(|(_, set)| set.len()).max();
    assert!(most.is_some_and(|n| n < 200), "shops stay below their limit: {most:?}");
}
