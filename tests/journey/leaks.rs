//! I4, I5: canaries in every slot an event has, also in slots it has not, then a search of everything that is left.
//!
//! Searched: every file under the data directory (sealed and compressed ones as they lie and, where a key is alive, opened), all output and
//! logs at trace level. In each of the encodings below. A planted leak must be found by the same search.

use std::path::{Path, PathBuf};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::DataType;
use futures::TryStreamExt as _;
use prost::Message as _;
use starling_schemas::event::event::Body;
use starling_schemas::event::*;
use starling_schemas::ids::Purpose;
use starling_schemas::rows::PSEUDONYM_BYTES;
use starling_schemas::signals::SignalBatch;
use starling_store::{KeyId, KeyKind, KeyState, read_table, unseal};

use crate::support::{NOON_MS, envelope, files_below, frame, open, runtime, starling, told, write_trace};

/// Numbers that stand nowhere else: each slot has its own, so that a leak names its slot.
pub(crate) const NUMBERS: [(&str, &str); 9] = [
    ("actor", "+4915730917261"),
    ("to_person", "+4915730917262"),
    ("peer", "+4915730917263"),
    ("blocked", "+4915730917264"),
    ("reported", "+4915730917265"),
    ("unknown_field", "+4915730917266"),
    ("version", "+4915730917267"),
    ("name", "+4915730917268"),
    ("template", "+4915730917269"),
];
/// What a business calls itself, which is in the metastore and in `business.accounts`, and nowhere else.
const NAME: &str = "Otterberg Quilts";
/// What a business calls a template, which is in signals and in the alert on it.
const TEMPLATE: &str = "quilt_offer";
const CONTENT: &str = "zebra-lantern-4471 meet me at the harbour";
const ADDRESS: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0x9a, 0x3c, 0x77, 0x51, 0x1f, 0xe2, 0x63, 0xb4, 0x0d, 0x95, 0x48, 0xc7];

/// A canary in the forms it could hide in.
fn encodings(number: &str) -> Vec<(&'static str, Vec<u8>)> {
    let digits = number.trim_start_matches('+').to_owned();
    let national = digits[2..].to_owned();
    let value: u64 = digits.parse().expect("digits");
    let mut varint = Vec::new();
    prost::encoding::encode_varint(value, &mut varint);
    let bcd = |swap: bool| -> Vec<u8> {
        let padded = if digits.len() % 2 == 1 { format!("{digits}f") } else { digits.clone() };
        let nibble = |c: u8| (c as char).to_digit(16).expect("hex") as u8;
        padded
            .as_bytes()
            .chunks(2)
            .map(|p| if swap { nibble(p[1]) << 4 | nibble(p[0]) } else { nibble(p[0]) << 4 | nibble(p[1]) })
            .collect()
    };
    let mut out = vec![
        ("plain digits", digits.clone().into_bytes()),
        ("national", national.into_bytes()),
        ("utf-16 little", digits.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("utf-16 big", digits.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("hex of the digits", hex(digits.as_bytes()).into_bytes()),
        ("percent", digits.bytes().map(|b| format!("%{b:02X}")).collect::<String>().into_bytes()),
        ("bcd", bcd(false)),
        ("bcd, nibbles swapped", bcd(true)),
        ("u64 little", value.to_le_bytes()[..6].to_vec()),
        ("u64 big", value.to_be_bytes()[2..].to_vec()),
        ("hex of the number", format!("{value:x}").into_bytes()),
        ("varint", varint),
        ("reversed", digits.bytes().rev().collect()),
        ("blake3 of digits", blake3::hash(digits.as_bytes()).as_bytes()[..12].to_vec()),
        ("blake3 of E.164", blake3::hash(number.as_bytes()).as_bytes()[..12].to_vec()),
        ("blake3 hex", blake3::hash(digits.as_bytes()).to_hex()[..24].as_bytes().to_vec()),
    ];
    for name in ["sha-256 of digits", "sha-256 of E.164"] {
        let text = if name.ends_with("digits") { digits.as_str() } else { number };
        let sum = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        out.push((name, sum.as_ref()[..12].to_vec()));
        out.push(("sha-256 hex", hex(&sum.as_ref()[..12]).into_bytes()));
    }
    out.extend(base64_alignments(digits.as_bytes()).map(|b| ("base64", b)));
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The characters of base64 that depend on the needle alone, for each of the three ways it can lie in its text.
pub(crate) fn base64_alignments(needle: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let needle = needle.to_vec();
    (0..3).map(move |shift| {
        let padded: Vec<u8> = std::iter::repeat_n(0, shift).chain(needle.iter().copied()).collect();
        let text: Vec<u8> = padded
            .chunks_exact(3)
            .flat_map(|c| {
                let n = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
                [18, 12, 6, 0].map(|s| ALPHABET[(n >> s & 63) as usize])
            })
            .collect();
        text[if shift == 0 { 0 } else { 4 }..].to_vec()
    })
}

/// All canaries in all encodings.
pub(crate) fn needles() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (slot, number) in NUMBERS {
        out.extend(encodings(number).into_iter().map(|(name, bytes)| (format!("{slot} as {name}"), bytes)));
    }
    out.push(("content".into(), CONTENT.as_bytes()[..18].to_vec()));
    out.push(("content in utf-16".into(), CONTENT[..18].encode_utf16().flat_map(u16::to_le_bytes).collect()));
    out.extend(base64_alignments(&CONTENT.as_bytes()[..18]).map(|b| ("content in base64".into(), b)));
    out.push(("content in hex".into(), hex(&CONTENT.as_bytes()[..18]).into_bytes()));
    out.push(("address".into(), ADDRESS.to_vec()));
    out.push(("address in text".into(), b"2001:db8:9a3c:7751".to_vec()));
    out.push(("address in hex".into(), hex(&ADDRESS).into_bytes()));
    assert!(out.iter().all(|(_, n)| n.len() >= 5), "a needle too short to mean anything");
    out
}

pub(crate) fn find(haystack: &[u8], needles: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, needle) in needles {
        if haystack.windows(needle.len()).any(|w| w == needle) {
            found.push(name.clone());
        }
    }
    found
}

/// One event of every kind with canaries wherever something can be put.
pub(crate) fn canary_events() -> Vec<Vec<u8>> {
    let number = |slot: &str| NUMBERS.iter().find(|(name, _)| *name == slot).expect("slot").1.to_owned();
    let bodies = vec![
        Body::MessageSent(MessageSent { to_person: number("to_person"), conversation: 1, ..MessageSent::default() }),
        Body::MessageSent(MessageSent { to_group: vec![9; 16], conversation: 2, ..MessageSent::default() }),
        Body::CallEnded(CallEnded { peer: number("peer"), kind: 1, duration_s: 60, quality: 1, missed: false }),
        Body::UserBlocked(UserBlocked { person: number("blocked"), ..UserBlocked::default() }),
        Body::ReportFiled(ReportFiled {
            person: number("reported"),
            reason: 1,
            after_delivery: Some(true),
            ..ReportFiled::default()
        }),
        // Of a business: the cohort that is in the envelope leaves as a bucket.
        Body::UserBlocked(UserBlocked { business: "shop-1".into(), rate: 2, ..UserBlocked::default() }),
        Body::ReportFiled(ReportFiled { business: "shop-1".into(), rate: 4, ..ReportFiled::default() }),
        Body::GroupReported(GroupReported { group: vec![9; 16], rate: 4, ..GroupReported::default() }),
        Body::StatusPosted(StatusPosted { media: 2 }),
        Body::AppCrashed(AppCrashed { site: 1 }),
        Body::MembersAdded(MembersAdded { group: vec![9; 16], count: 150, strangers: 150 }),
        Body::GroupCreated(GroupCreated { group: vec![9; 16], size: 3 }),
        Body::GroupProfileChanged(GroupProfileChanged {
            group: vec![9; 16],
            name_hash: CONTENT.as_bytes().to_vec(),
            ..GroupProfileChanged::default()
        }),
        Body::BusinessMessage(BusinessMessage {
            stage: 1,
            business: "shop-1".into(),
            portfolio: "p-1".into(),
            template: format!("{TEMPLATE} {}", number("template")),
            category: 1,
            tier: 1,
        }),
        Body::BusinessInformation(BusinessInformation {
            business: "shop-1".into(),
            portfolio: "p-1".into(),
            name: format!("{NAME} {}", number("name")),
            ..BusinessInformation::default()
        }),
        Body::ConsentChanged(ConsentChanged { analytics_consent: false }),
        Body::AccountDeleted(AccountDeleted {}),
        Body::ContactsUploaded(ContactsUploaded {}),
    ];
    // What is no version, what begins like one, and what a number would be as one.
    let digits = number("version")[1..].to_owned();
    let versions =
        [CONTENT.to_owned(), number("version"), digits.clone(), format!("26.4 {digits}"), format!("{digits}.{digits}")];
    let mut frames = Vec::new();
    for (i, body) in bodies.into_iter().enumerate() {
        let event = Event {
            ip: ADDRESS.to_vec(),
            client: Some(Client { platform: 1, version: versions[i % versions.len()].clone(), os: CONTENT.into() }),
            region: CONTENT.into(),
            cohort: CONTENT.as_bytes().to_vec(),
            body: Some(body),
            ..envelope(&number("actor"), NOON_MS + i as i64)
        };
        let mut bytes = frame(&event);
        // Unknown fields, at the end of the envelope: text, a number in text, a number in digits.
        for (field, payload) in [(900_u64, CONTENT.as_bytes().to_vec()), (901, number("unknown_field").into_bytes())] {
            prost::encoding::encode_varint(field << 3 | 2, &mut bytes);
            prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
            bytes.extend(payload);
        }
        prost::encoding::encode_varint(902 << 3, &mut bytes);
        prost::encoding::encode_varint(4_915_730_917_266, &mut bytes);
        frames.push(bytes.clone());
        // The same cut short, and with a wrong wire type in front.
        frames.push(bytes[..bytes.len() - 9].to_vec());
        frames.push([vec![0x10, 0x01], bytes].concat());
    }
    // 120 messages in a moment by a fresh account, so that an alert names this very actor's keyed form.
    for i in 0..120 {
        let body = Body::MessageSent(MessageSent { to_person: number("to_person"), conversation: 1, ..MessageSent::default() });
        frames.push(frame(&Event {
            account_age_s: Some(60),
            cohort: CONTENT.as_bytes().to_vec(),
            body: Some(body),
            ..envelope(&number("actor"), NOON_MS + 100_000 + i)
        }));
    }
    frames.extend(canary_template(&number("actor"), &format!("{TEMPLATE} {}", number("template"))));
    // Numbers that are no numbers.
    frames.push(frame(&envelope(&format!("{}x", number("actor")), NOON_MS)));
    frames.push(frame(&Event { actor: CONTENT.into(), ..envelope("", NOON_MS) }));
    frames
}

/// A business that sent something on the day before, and a hundred messages of a new template that each third one blocks, so that an alert names it.
fn canary_template(actor: &str, template: &str) -> Vec<Vec<u8>> {
    let sent = |template: &str| {
        Body::BusinessMessage(BusinessMessage {
            stage: 1,
            business: "shop-2".into(),
            template: template.into(),
            category: 1,
            ..BusinessMessage::default()
        })
    };
    let of = |time_ms, body| frame(&Event { body: Some(body), ..envelope(actor, time_ms) });
    let mut frames = vec![of(NOON_MS - 86_400_000, sent("usual"))];
    for i in 0..100 {
        frames.push(of(NOON_MS + 200_000 + i, sent(template)));
        if i % 3 == 0 {
            let blocked = UserBlocked { business: "shop-2".into(), template: template.into(), ..UserBlocked::default() };
            frames.push(of(NOON_MS + 300_000 + i, Body::UserBlocked(blocked)));
        }
    }
    frames
}

/// What can be read of a data directory with the keys that are alive: opened person tables, segments and signals, as bytes.
fn opened(data: &Path) -> Vec<(String, Vec<u8>, usize)> {
    runtime().block_on(async {
        let (_, files, keyring) = open(data).await;
        let keys = keyring.list().expect("keys");
        let mut out = Vec::new();
        for path in files.list("").await.expect("files") {
            if path.ends_with(".parquet") {
                for (id, state) in &keys {
                    if *state != KeyState::Alive || id.kind != KeyKind::Data {
                        continue;
                    }
                    let key = keyring.get(*id).expect("keyring").expect("alive");
                    let Ok(stream) = read_table(&files, &key, &path).await else { continue };
                    let Ok(batches) = stream.try_collect::<Vec<_>>().await else { continue };
                    out.extend(batches.iter().map(|b| (path.clone(), raw_bytes(b), people_columns(b))));
                }
            } else if path.starts_with("signals/") {
                let day =
                    starling_schemas::ids::EpochId::parse(&path[path.len() - 17..path.len() - 7]).expect("a day in the name");
                let id = KeyId { kind: KeyKind::Data, purpose: Purpose::Integrity, epoch: day };
                let key = keyring.get(id).expect("keyring").expect("alive");
                let sealed = files.get(&path).await.expect("file").expect("there");
                let plain = unseal(&key, &path, &sealed).expect("opens");
                let columns = people_columns(&SignalBatch::decode(&plain).expect("signals").rows);
                out.push((path, plain, columns));
            }
        }
        out
    })
}

fn raw_bytes(batch: &arrow::array::RecordBatch) -> Vec<u8> {
    batch
        .columns()
        .iter()
        .flat_map(|c| c.to_data().buffers().iter().map(|b| b.as_slice().to_vec()).collect::<Vec<_>>())
        .flatten()
        .collect()
}

/// How many columns of a batch hold people.
fn people_columns(batch: &arrow::array::RecordBatch) -> usize {
    batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(f, c)| {
            f.name() != "group"
                && matches!(f.data_type(), DataType::FixedSizeBinary(PSEUDONYM_BYTES))
                && c.as_fixed_size_binary().len() > c.null_count()
        })
        .count()
}

struct Remains {
    files: Vec<PathBuf>,
    opened: Vec<(String, Vec<u8>, usize)>,
    told: Vec<u8>,
    /// The same of who asks for businesses' names: what is answered, and what is logged.
    named: (Vec<u8>, Vec<u8>),
}

/// Runs the canaries through everything, logging at trace level, first killed with segments and signals on disk, then to the end.
fn run_canaries(dir: &Path) -> (Remains, Remains) {
    let (trace, data) = (dir.join("input").join("canary.pb"), dir.join("data"));
    std::fs::create_dir_all(dir.join("input")).expect("folder");
    write_trace(&trace, &canary_events());
    // What a group is called is on a list, so that its hash is compared and told of.
    let (settings, lists) = (dir.join("input").join("starling.toml"), dir.join("input").join("lists.txt"));
    std::fs::write(&lists, format!("{} name scam-names\n", hex(CONTENT.as_bytes()))).expect("lists");
    std::fs::write(&settings, format!("[integrity]\ngroup_hashes = {lists:?}\n")).expect("settings");
    let run = |kill: Option<&str>| {
        let mut command = starling();
        command.args(["--log", "trace", "run", "--trace"]).arg(&trace).arg("--data-dir").arg(&data);
        command.arg("--config").arg(&settings);
        if let Some(point) = kill {
            command.env("STARLING_KILL_AT", point);
        }
        command.env("RUST_BACKTRACE", "full").output().expect("starling starts")
    };
    let killed = run(Some("after_process"));
    assert!(killed.status.code().is_none(), "{}", told(&killed));
    let midway =
        Remains { files: files_below(&data), opened: opened(&data), told: told(&killed).into_bytes(), named: Default::default() };
    let mut all_told = Vec::new();
    let finished = run(None);
    assert!(finished.status.success(), "{}", told(&finished));
    all_told.extend(told(&finished).into_bytes());
    for arguments in [
        &["sql", "SELECT * FROM stats.people_served_daily"][..],
        &["sql", "--format", "csv", "SELECT * FROM stats.messages_daily"],
        &["sql", "SELECT * FROM stats.call_minutes_daily"],
        &["sql", "SELECT CAST(country AS INT) FROM stats.people_served_daily"],
        &["sql", "SELECT * FROM private.person_day"],
        &["alerts"],
        &["alerts", "--json"],
        &["billing"],
        &["status"],
        &["audit", "tail", "--lines", "1000"],
        &["doctor"],
        &["integrity", "lists"],
    ] {
        let output = starling()
            .args(["--log", "trace"])
            .args(arguments)
            .arg("--data-dir")
            .arg(&data)
            .arg("--config")
            .arg(&settings)
            .output();
        let output = output.expect("starling starts");
        all_told.extend(told(&output).into_bytes());
    }
    let mut asks = starling();
    asks.args(["--log", "trace", "sql", "--data-dir"]).arg(&data).arg("SELECT * FROM business.accounts");
    let asked = asks.output().expect("starling starts");
    assert!(asked.status.success(), "{}", told(&asked));
    let at_end =
        Remains { files: files_below(&data), opened: opened(&data), told: all_told, named: (asked.stdout, asked.stderr) };
    (midway, at_end)
}

#[test]
fn i4_no_canary_is_left_anywhere_and_i5_no_row_joins_two_people() {
    let dir = tempfile::tempdir().expect("dir");
    let needles = needles();
    let (midway, at_end) = run_canaries(dir.path());
    assert!(midway.opened.iter().any(|(p, ..)| p.starts_with("segments/")), "segments were searched");
    assert!(midway.opened.iter().any(|(p, ..)| p.starts_with("signals/")), "signals were searched");
    assert!(at_end.opened.iter().any(|(p, ..)| p.starts_with("people/")), "person tables were searched");
    assert!(String::from_utf8_lossy(&at_end.told).contains("the name is on the list scam-names"), "a hit was searched");
    assert!(
        String::from_utf8_lossy(&at_end.told).contains("new_account_burst"),
        "an alert on the canary's own actor was searched"
    );
    let masked = format!("{TEMPLATE} +{}", "#".repeat(13));
    assert!(String::from_utf8_lossy(&at_end.told).contains(&masked), "an alert on the canary's template was searched");
    let mut leaks = Vec::new();
    for remains in [&midway, &at_end] {
        for file in &remains.files {
            let bytes = std::fs::read(file).unwrap_or_default();
            leaks.extend(find(&bytes, &needles).into_iter().map(|n| format!("{} holds {n}", file.display())));
        }
        for (path, bytes, people) in &remains.opened {
            leaks.extend(find(bytes, &needles).into_iter().map(|n| format!("{path}, opened, holds {n}")));
            assert!(*people <= 1, "I5: {path} has {people} columns of people");
        }
        for told in [&remains.told, &remains.named.0, &remains.named.1] {
            leaks.extend(find(told, &needles).into_iter().map(|n| format!("output or log holds {n}")));
        }
    }
    // A name is no secret of a person; it is where it is asked for all the same, and nowhere else.
    let name = [("a business's name".to_owned(), NAME.as_bytes().to_vec())];
    let is_metastore = |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("metastore.db"));
    let (kept, elsewhere): (Vec<_>, Vec<_>) = at_end.files.iter().chain(&midway.files).partition(|file| is_metastore(file));
    let holds = |file: &&PathBuf| !find(&std::fs::read(file).unwrap_or_default(), &name).is_empty();
    assert!(kept.iter().any(holds), "the metastore has it");
    leaks.extend(elsewhere.iter().filter(|file| holds(file)).map(|file| format!("{} holds a business's name", file.display())));
    for (path, bytes, _) in at_end.opened.iter().chain(&midway.opened) {
        leaks.extend(find(bytes, &name).into_iter().map(|n| format!("{path}, opened, holds {n}")));
    }
    for told in [&midway.told, &at_end.told, &at_end.named.1] {
        leaks.extend(find(told, &name).into_iter().map(|n| format!("output or log holds {n}")));
    }
    let answered = String::from_utf8_lossy(&at_end.named.0);
    assert!(answered.contains(&format!("{NAME} +{}", "#".repeat(13))), "{answered}");
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_planted_leak_is_found_in_every_encoding() {
    let dir = tempfile::tempdir().expect("dir");
    let needles = needles();
    for (name, needle) in &needles {
        let file = dir.path().join("planted");
        let mut bytes = b"some bytes before ".to_vec();
        bytes.extend_from_slice(needle);
        bytes.extend_from_slice(b" and after");
        std::fs::write(&file, bytes).expect("planted");
        let found = find(&std::fs::read(&file).expect("read"), &needles);
        assert!(found.contains(name), "{name}");
    }
    // Base64 of a text with the number inside, however it lies.
    for before in ["", "a", "ab"] {
        let text = format!("{before}{} ...", &NUMBERS[0].1[1..]);
        let whole: Vec<u8> = base64_alignments(text.as_bytes()).next().expect("aligned");
        assert!(!find(&whole, &needles).is_empty(), "shifted by {}", before.len());
    }
}

#[test]
fn the_input_itself_is_full_of_canaries() {
    let dir = tempfile::tempdir().expect("dir");
    let trace = dir.path().join("canary.pb");
    write_trace(&trace, &canary_events());
    let found = find(&std::fs::read(&trace).expect("trace"), &needles());
    for (slot, _) in NUMBERS {
        assert!(found.iter().any(|f| f.starts_with(slot)), "{slot} is not in the input: the search would prove nothing");
    }
    assert!(Event::decode(canary_events()[0].as_slice()).is_ok());
}
