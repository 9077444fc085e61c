//! Keys, events and small readers shared by the tests.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use prost::Message as _;
use starling_minimize::{KeySource, KeySourceError, Limits, Minimized, Minimizer, RangeContext, Zeroizing};
use starling_schemas::event::{self as proto, event::Body};
use starling_schemas::ids::{EpochId, Offset, Purpose};

pub(crate) const DAY: EpochId = EpochId(20_458);
pub(crate) const ALICE: &str = "+4915112345678";
pub(crate) const BOB: &str = "+12025550143";

/// Noon of [`DAY`].
pub(crate) const NOON_MS: i64 = 20_458 * 86_400_000 + 43_200_000;

/// Gives a fixed key for each purpose and day, unless it was destroyed or the source is broken.
#[derive(Default)]
pub(crate) struct TestKeys {
    pub(crate) destroyed: Mutex<BTreeSet<(Purpose, EpochId)>>,
    pub(crate) broken: Mutex<bool>,
}

impl TestKeys {
    pub(crate) fn destroy(&self, purpose: Purpose, epoch: EpochId) {
        self.destroyed.lock().expect("no panic").insert((purpose, epoch));
    }
}

pub(crate) fn key(purpose: Purpose, epoch: EpochId) -> [u8; 32] {
    let mut key = [purpose as u8 + 1; 32];
    key[..4].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

impl KeySource for TestKeys {
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
        if *self.broken.lock().expect("no panic") {
            return Err(KeySourceError("the key folder cannot be read".to_owned()));
        }
        let destroyed = self.destroyed.lock().expect("no panic").contains(&(purpose, epoch));
        Ok((!destroyed).then(|| Zeroizing::new(key(purpose, epoch))))
    }
}

pub(crate) fn open_context() -> RangeContext {
    RangeContext { closed_through: None, hours_after: None, latest_ms: NOON_MS + 3 * 86_400_000, read_to_ms: None }
}

/// A willing adult's event at noon.
pub(crate) fn event(body: Body) -> proto::Event {
    proto::Event {
        event_time_ms: NOON_MS,
        actor: ALICE.to_owned(),
        client: Some(proto::Client { platform: 1, ..Default::default() }),
        choices: Some(proto::Choices { analytics_consent: true, age_band: 3, ..Default::default() }),
        account_age_s: Some(1_000),
        body: Some(body),
        ..Default::default()
    }
}

pub(crate) fn message() -> Body {
    Body::MessageSent(proto::MessageSent {
        to_person: BOB.to_owned(),
        conversation: 1,
        thread_is_new: true,
        ..Default::default()
    })
}

pub(crate) fn business(stage: i32) -> Body {
    Body::BusinessMessage(proto::BusinessMessage {
        stage,
        business: "b-1".to_owned(),
        portfolio: "p-1".to_owned(),
        template: "t".to_owned(),
        category: 1,
        tier: 3,
    })
}

/// One range of these frames, offsets from 0.
pub(crate) fn run_with(keys: Arc<TestKeys>, context: RangeContext, frames: &[Vec<u8>]) -> Minimized {
    let mut minimizer = Minimizer::new(keys, Limits::default());
    minimizer.begin(context);
    for (offset, frame) in frames.iter().enumerate() {
        minimizer.push(Offset(offset as i64), frame).expect("keys are in order");
    }
    minimizer.finish().expect("columns fit")
}

pub(crate) fn run(events: &[proto::Event]) -> Minimized {
    let frames: Vec<_> = events.iter().map(prost::Message::encode_to_vec).collect();
    run_with(Arc::default(), open_context(), &frames)
}

pub(crate) fn encoded(event: &proto::Event) -> Vec<u8> {
    event.encode_to_vec()
}
