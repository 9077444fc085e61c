//! # simulate: traffic that never happened
//!
//! Makes the events of a messaging platform with 1,000 to 10 million people, for the demo, for tests and for benches; or replays a real,
//! openly licensed trace ([`replay`]). Nothing here is read by the pipeline: it sees encoded events only.
//!
//! ```text
//!  Settings ─► World ──┬─ countries   who lives where, and which numbers they have        countries.tsv
//!                      ├─ people      all of a person follows from (seed, index)          nothing is stored
//!                      ├─ versions    releases of the client, taken up sooner or later
//!                      ├─ activity    sessions of ordinary people in a slice of 5 minutes ┐
//!                      ├─ background  or what people of a recorded log wrote and said     │
//!                      ├─ businesses  shops, passcodes, an airline, a care bot            ├─► items, sorted by time
//!                      ├─ abuse       planted abusers and those who only look like one    ┘        │
//!                      └─ truth       what really happened, exactly ◄── encode (prost) ◄───────────┘──► GeneratedEvent
//! ```
//!
//! **Comes in:** people, days, seed, first day. **Goes out:** encoded `Event`s in the order of their times, and the [`Truth`].
//!
//! **Kept here.** Equal settings give equal bytes. Memory does not grow with days, and with people by a byte each, plus one slice's items
//! (16 bytes each). Any slice can be made without the ones before. The truth is counted from the events as they are handed out, never from
//! intentions; a test decodes them all and counts again.
//!
//! **Numbers.** Every number is an E.164 number by length and calling code, and leads to the person's country; no two people have the same.
//! In North America they are in exchange 555, elsewhere in blocks that the public numbering plans leave unused where they leave one
//! (`countries.tsv` says where not). Nobody is ever called; addresses are of the documentation ranges.
//!
//! **What it is not.** The rates are plausible, not measured. Sessions end with their slice, groups do not grow, and a country has one time
//! zone. Do not tune a detector on it.

mod abuse;
mod activity;
mod background;
mod businesses;
mod countries;
mod encode;
mod kinds;
mod mangle;
mod people;
pub(crate) mod replay;
mod rng;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod truth;
mod versions;

use starling_schemas::ids::EpochId;

use abuse::{Cast, Scripts};
use activity::{Item, Kind, Planner};
use background::Background;
use businesses::Businesses;
use encode::Encoder;
use people::People;
use rng::{Draw, mix2};
use settings::{SLICE_MS, SLICES_PER_DAY};
pub(crate) use settings::{Settings, SimulateError};
pub(crate) use truth::Truth;
use truth::{Counter, Planted, PlantedKind};

/// One event as a producer would send it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeneratedEvent<'a> {
    /// When it happens, milliseconds since 1970-01-01 UTC; never before the event handed out before it. A bad frame has the time of the
    /// event it was made from, whatever it says itself.
    pub(crate) time_ms: i64,
    /// What a producer may choose the partition by: opaque, the same for all events of a person.
    pub(crate) key: [u8; 8],
    /// Protobuf.
    pub(crate) encoded: &'a [u8],
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Slices done.
    pub(crate) slices_done: u32,
    /// Frames handed out.
    pub(crate) frames: u64,
}

/// People, businesses and plans, ready to act.
#[derive(Debug)]
pub(crate) struct World {
    settings: Settings,
    people: People,
    businesses: Businesses,
    scripts: Scripts,
    background: Option<Background>,
    seed: u64,
}

impl World {
    /// Sets everything up.
    ///
    /// # Errors
    /// [`SimulateError`]: a setting is out of range.
    pub(crate) fn new(settings: Settings) -> Result<Self, SimulateError> {
        settings.check()?;
        let seed = mix2(settings.seed, 0x77_6f72_6c64);
        let cast = Cast::new(&settings);
        let people = People::new(&settings, cast.extras())?;
        let businesses = Businesses::new(settings.people);
        let scripts = cast.scripts(&people, &businesses, seed);
        Ok(Self { settings, people, businesses, scripts, background: None, seed })
    }

    /// Takes what ordinary people write and say to each other from so many copies of a log, 1 to 1,000.
    ///
    /// # Errors
    /// [`SimulateError`]: copies out of range, or fewer accounts than they need.
    pub(crate) fn on(self, log: &replay::Replay, copies: u32) -> Result<Self, SimulateError> {
        if !(1..=1_000).contains(&copies) {
            return Err(SimulateError::Copies);
        }
        let background = Some(Background::new(log, copies, &self.settings, &self.people)?);
        Ok(Self { background, ..self })
    }

    /// Slices of time there are.
    pub(crate) const fn slices(&self) -> u32 {
        self.settings.days * SLICES_PER_DAY
    }

    /// Hands every frame to `sink`, in the order of time, and returns what really happened. `progress` is called after each slice.
    ///
    /// # Errors
    /// The first error of `sink`; nothing is handed out after it.
    pub(crate) fn for_each_event<E>(
        &self,
        sink: &mut dyn FnMut(GeneratedEvent<'_>) -> Result<(), E>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Truth, E> {
        let countries = self.people.rows.iter().map(|row| row.name).collect();
        let mut run = Run {
            encoder: Encoder::new(&self.people, &self.businesses, self.seed),
            items: Vec::new(),
            bad: Vec::new(),
            counter: Counter::new(countries, self.people.slots() as usize, self.settings.start),
            truth: Truth { people: self.settings.people, seed: Some(self.settings.seed), ..Truth::default() },
            frames: 0,
            passcodes: 0,
        };
        for slice in 0..self.slices() {
            self.slice(slice, &mut run, sink)?;
            progress(Progress { slices_done: slice + 1, frames: run.frames });
        }
        let Run { counter, mut truth, passcodes, .. } = run;
        counter.finish(&mut truth);
        (truth.abusers, truth.harmless) = self.scripts.planted.iter().cloned().partition(|p| p.expected_rule.is_some());
        truth.harmless.push(self.passcode_sender(passcodes));
        if self.settings.days >= abuse::LONG_DAYS {
            truth.group_hashes = encode::lists(self.seed);
        }
        Ok(truth)
    }

    fn slice_begin(&self, slice: u32) -> i64 {
        self.settings.start.start_ms() + i64::from(slice) * SLICE_MS
    }

    fn slice<E>(
        &self,
        slice: u32,
        run: &mut Run<'_>,
        sink: &mut dyn FnMut(GeneratedEvent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.slice_begin(slice);
        self.plan(slice, begin, &mut run.items);
        let mut bad_draw = Draw::new(mix2(self.seed ^ 0x62_6164, u64::from(slice)));
        for item in &run.items {
            let time_ms = begin + i64::from(item.offset_ms);
            let observation = run.encoder.encode(item, time_ms);
            run.counter.observe(time_ms, &observation);
            if item.kind == Kind::BusinessSent && item.peer == self.businesses.passcodes() {
                run.passcodes += 1;
            }
            run.frames += 1;
            let key = mix2(self.seed ^ 0x6b_6579, u64::from(item.actor)).to_be_bytes();
            sink(GeneratedEvent { time_ms, key, encoded: run.encoder.bytes() })?;
            if self.settings.bad_share > 0.0 && bad_draw.unit() < self.settings.bad_share {
                let fault = mangle::mangle(run.encoder.event(), run.encoder.bytes(), &mut bad_draw, &mut run.bad);
                *run.truth.bad_frames.entry(fault.name().to_owned()).or_default() += 1;
                run.frames += 1;
                sink(GeneratedEvent { time_ms, key, encoded: &run.bad })?;
            }
        }
        Ok(())
    }

    /// What happens in a slice, in order.
    fn plan(&self, slice: u32, begin: i64, items: &mut Vec<Item>) {
        items.clear();
        let planner = Planner {
            people: &self.people,
            businesses: &self.businesses,
            seed: mix2(self.seed, 0x0070_6c61_6e6e_6572),
            groups: self.people.people / 12 + 1,
        };
        planner.plan(slice, begin, EpochId::of(begin).0, items);
        if let Some(background) = &self.background {
            background.replace(begin, begin + SLICE_MS, items);
        }
        self.scripts.plan(begin, begin + SLICE_MS, items);
        self.announce(slice, items);
        items.sort_unstable();
    }

    /// Businesses say who they are: each on the first day, and again on a day on which it moves.
    fn announce(&self, slice: u32, items: &mut Vec<Item>) {
        let day = slice / SLICES_PER_DAY;
        let mut business = slice % SLICES_PER_DAY;
        while business < self.businesses.count() {
            if day == 0 || self.businesses.moves_on(business, day) {
                let offset_ms = (mix2(self.seed, u64::from(business)) % SLICE_MS as u64) as u32;
                // No person acts; the key spreads over partitions by business.
                let (actor, extra) = (u32::MAX - business, u16::try_from(day).unwrap_or(u16::MAX));
                items.push(Item { offset_ms, actor, peer: business, extra, kind: Kind::BusinessInformation, flags: 0 });
            }
            business += SLICES_PER_DAY;
        }
    }

    fn passcode_sender(&self, count: u64) -> Planted {
        let mut subject = String::new();
        self.businesses.write_id(self.businesses.passcodes(), &mut subject);
        Planted {
            kind: PlantedKind::PasscodeSender,
            expected_rule: None,
            subject_kind: "business".to_owned(),
            subject,
            start_ms: self.slice_begin(0),
            end_ms: self.slice_begin(self.slices()) - 1,
            count,
        }
    }
}

/// What lasts while events are handed out.
struct Run<'a> {
    encoder: Encoder<'a>,
    items: Vec<Item>,
    bad: Vec<u8>,
    counter: Counter,
    truth: Truth,
    frames: u64,
    passcodes: u64,
}
