//! # benches: what each room costs, beside what it cannot do without
//!
//! ```text
//!  rooms.rs     minimize per event beside its two keyed hashes · fold per row · merge per row · release per cell · SQL on released tables
//!  ceiling.rs   what each stage costs an event on one core: decode, hash, fold, encode, encrypt, fsync, commit
//!  people.rs    closing a day of 1, 10 and 100 million people: time, peak memory, bytes a person
//!  journey.sh   a Kafka topic → durable committed person rows, beside a bare drain of the same topic by the same library
//!  restart.sh   from a kill -9 in the middle of a backlog to the next commit
//!  doors.sh     a released statistic over the PostgreSQL door, 50 clients, beside PostgreSQL itself with the same rows
//!  results/     dated: machine, load, command, figures
//! ```
//!
//! `cargo bench --workspace --bench rooms` runs the first; `benches/journey.sh` the second. Timings on a shared machine are noisy: compare ratios of one run.
//!
//! ## The ceiling
//!
//! On one core of the machine of `results/2026-11-25-*`, nanoseconds an event: reading with librdkafka 200 (its thread and ours), the copy into the
//! arena 3, decoding 44, two hashes in lanes with a clean row and a signal row 55, folding 13, encoding 12, encrypting below 1, signals 12,
//! writing and syncing 19, plan and commit 12: 370 together. The whole, on one core and a topic of 400,000 people, takes 590: a range there has
//! three times as many person rows to sort and encode as in this bench, caches are cold, and the kernel copies and clears pages.
//!
//! To go further one would have to give up: librdkafka's object a message, half of the sum (a client of our own that hands out fetched batches
//! whole); the allowlist's walk over every field (a fixed layout from producers); or short ranges (at 1,000,000 events a range, sync and commit
//! shrink to a tenth, and a crash replays more).
//!
//! Tried and left: mimalloc instead of the system's allocator. In one run with it and without it ingest was no faster (48 and 60 % of the batch drain
//! with it, 67 and 63 % without), and the demo's memory peaked at 1,050 MiB instead of 400.
//!
//! This library holds what the benches share.

use std::sync::Arc;

use prost::Message as _;
use starling_minimize::{KeySource, KeySourceError};
use starling_schemas::event::event::Body;
use starling_schemas::event::{CallEnded, Choices, Client, Event, MessageSent};
use starling_schemas::ids::{EpochId, Purpose};
use zeroize::Zeroizing;

/// 2026-01-05 12:00 UTC.
pub const NOON_MS: i64 = 1_767_614_400_000;

/// Keys that are made up: nothing measured here is kept.
pub struct BenchKeys;

impl KeySource for BenchKeys {
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
        let mut key = [0; 32];
        key[0] = purpose as u8 + 1;
        key[1..5].copy_from_slice(&epoch.0.to_le_bytes());
        Ok(Some(Zeroizing::new(key)))
    }
}

/// The keys, as `minimize` takes them.
#[must_use]
pub fn keys() -> Arc<dyn KeySource> {
    Arc::new(BenchKeys)
}

/// `n` events of `people` people: seven messages to one call, all with consent, in order of time.
#[must_use]
pub fn frames(n: usize, people: u64) -> Vec<Vec<u8>> {
    (0..n)
        .map(|i| {
            // A multiplicative walk visits people in no particular order.
            let person = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % people;
            let peer = format!("+4915{:09}", (person * 7 + 1) % 1_000_000_000);
            let body = if i % 8 == 7 {
                Body::CallEnded(CallEnded { peer, kind: 1, duration_s: 90, quality: 1, missed: false })
            } else {
                Body::MessageSent(MessageSent { to_person: peer, conversation: 1, media: 1, size: 1, ..MessageSent::default() })
            };
            Event {
                event_time_ms: NOON_MS + (i as i64) / 10,
                actor: format!("+4915{person:09}"),
                ip: vec![203, 0, 113, 7],
                client: Some(Client { platform: 1, version: "2.26.4".into(), os: "android 15".into() }),
                region: "EU".into(),
                choices: Some(Choices { analytics_consent: true, age_band: 3, ..Choices::default() }),
                account_age_s: Some(40_000_000),
                cohort: Vec::new(),
                body: Some(body),
            }
            .encode_to_vec()
        })
        .collect()
}
