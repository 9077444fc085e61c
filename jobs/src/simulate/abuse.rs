//! Planted abusers, those who only look like one, and what they do, written down before the simulation begins.
//!
//! Planted accounts are extras: they do nothing but their script, so that what is claimed of them is exactly what the events show.
//! The planted businesses are ordinary shops, so that they have a baseline on the days before.

use starling_schemas::ids::DAY_MS;

use super::activity::{Item, Kind, PLANTED_GROUPS, flag};
use super::businesses::Businesses;
use super::countries::push_hex;
use super::encode::opaque;
use super::people::{Lifecycle, People};
use super::rng::{Draw, mix2};
use super::settings::Settings;
use super::truth::{Planted, PlantedKind};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Kinds that need an account of their own.
const ACTORS: [PlantedKind; 8] = [
    PlantedKind::FastBulk,
    PlantedKind::NewAccountBurst,
    PlantedKind::GroupMassAdd,
    PlantedKind::NearMissBulk,
    PlantedKind::NearMissNewAccount,
    PlantedKind::WeddingHost,
    PlantedKind::SchoolGroup,
    PlantedKind::LongEvening,
];

/// Who is planted, how often, and when it begins.
#[derive(Debug)]
pub(super) struct Cast {
    settings: Settings,
    /// Of each kind with an account.
    each: u32,
    /// Reaching businesses, and as many unwanted ones.
    businesses: u32,
    /// Unique people each of them reaches.
    reach: u32,
    /// Whether those are extras, because there are not enough people.
    reach_extras: bool,
}

impl Cast {
    /// One of each kind, and one more of each for every 300,000 person-days, at most 40.
    pub(super) fn new(settings: &Settings) -> Self {
        let each = ((settings.people * u64::from(settings.days) / 300_000).clamp(1, 40)) as u32;
        let reach = (settings.people / 100).clamp(1_200, 12_000) as u32;
        Self {
            settings: *settings,
            each,
            businesses: each.min(8).min(Businesses::new(settings.people).shops() / 5),
            reach,
            reach_extras: settings.people < 20 * u64::from(reach),
        }
    }

    /// Registration times of the extras, where a script sets them.
    pub(super) fn extras(&self) -> Vec<Option<i64>> {
        let mut out: Vec<Option<i64>> = Vec::new();
        for kind in ACTORS {
            for nth in 0..self.each {
                let new = matches!(kind, PlantedKind::NewAccountBurst | PlantedKind::NearMissNewAccount);
                out.push(new.then(|| self.begin(kind, nth)));
            }
        }
        if self.reach_extras {
            out.resize(out.len() + self.reach as usize, None);
        }
        out
    }

    /// Place of an account among the extras.
    fn place(&self, kind: PlantedKind, nth: u32) -> u32 {
        ACTORS.iter().position(|k| *k == kind).unwrap_or_default() as u32 * self.each + nth
    }

    /// When a script begins: spread over the days, the reaching businesses from the last day back.
    fn begin(&self, kind: PlantedKind, nth: u32) -> i64 {
        let days = self.settings.days;
        let hash = mix2(self.settings.seed ^ 0x0062_6567_696e, (kind as u64) << 32 | u64::from(nth));
        let (day, minutes) = match kind {
            PlantedKind::BusinessReach | PlantedKind::UnwantedBusiness => (days - 1 - nth % days, 8 * 60),
            // Over midnight, where there are two days: a rule must not lose the thread when keys change.
            PlantedKind::FastBulk if nth == 0 && days > 1 => return self.settings.start.end_ms() - 25 * SECOND,
            PlantedKind::LongEvening => (nth % days, 17 * 60 + (hash % 60) as i64),
            _ => ((nth + kind as u32) % days, 6 * 60 + (hash % (14 * 60)) as i64),
        };
        self.settings.start.start_ms() + i64::from(day) * DAY_MS + minutes * MINUTE
    }

    /// Everything they do, in time order, and the truth about it.
    pub(super) fn scripts(&self, people: &People, businesses: &Businesses, seed: u64) -> Scripts {
        let mut scripts = Scripts { items: Vec::new(), planted: Vec::new() };
        for nth in 0..self.each {
            for kind in ACTORS.into_iter().chain([PlantedKind::BusinessReach, PlantedKind::UnwantedBusiness]) {
                let limit = if ACTORS.contains(&kind) { self.each } else { self.businesses };
                if nth >= limit {
                    continue;
                }
                let script = Script {
                    cast: self,
                    people,
                    businesses,
                    seed,
                    kind,
                    nth,
                    actor: people.people + self.place(kind, nth),
                    begin: self.begin(kind, nth),
                    draw: Draw::new(mix2(seed ^ 0x7363_7269_7074, (kind as u64) << 32 | u64::from(nth))),
                    items: &mut scripts.items,
                };
                scripts.planted.push(script.write());
            }
        }
        let end_ms = self.settings.start.start_ms() + i64::from(self.settings.days) * DAY_MS;
        scripts.items.retain(|(time_ms, _)| *time_ms < end_ms);
        scripts.items.sort_unstable();
        scripts
    }
}

/// What is planted.
#[derive(Debug)]
pub(super) struct Scripts {
    /// Time and item, in order; offsets are not set.
    items: Vec<(i64, Item)>,
    /// What is claimed of it.
    pub(super) planted: Vec<Planted>,
}

impl Scripts {
    /// Appends what happens in `from_ms..to_ms`.
    pub(super) fn plan(&self, from_ms: i64, to_ms: i64, out: &mut Vec<Item>) {
        let first = self.items.partition_point(|(time_ms, _)| *time_ms < from_ms);
        for (time_ms, item) in self.items.iter().skip(first).take_while(|(time_ms, _)| *time_ms < to_ms) {
            out.push(Item { offset_ms: (time_ms - from_ms) as u32, ..*item });
        }
    }
}

struct Script<'a, 'b> {
    cast: &'a Cast,
    people: &'a People,
    businesses: &'a Businesses,
    seed: u64,
    kind: PlantedKind,
    nth: u32,
    actor: u32,
    begin: i64,
    draw: Draw,
    items: &'b mut Vec<(i64, Item)>,
}

impl Script<'_, '_> {
    fn write(mut self) -> Planted {
        match self.kind {
            PlantedKind::FastBulk => self.fast_bulk(),
            PlantedKind::NewAccountBurst => self.new_account(true),
            PlantedKind::NearMissNewAccount => self.new_account(false),
            PlantedKind::NearMissBulk => self.near_miss(),
            PlantedKind::BusinessReach => self.business_reach(),
            PlantedKind::UnwantedBusiness => self.unwanted_business(),
            PlantedKind::GroupMassAdd => self.mass_add(),
            PlantedKind::WeddingHost => self.wedding(),
            PlantedKind::SchoolGroup | PlantedKind::PasscodeSender => self.school(),
            PlantedKind::LongEvening => self.long_evening(),
        }
    }

    fn push(&mut self, time_ms: i64, actor: u32, kind: Kind, peer: u32, extra: u16, flags: u8) {
        self.items.push((time_ms, Item { offset_ms: 0, actor, peer, extra, kind, flags }));
    }

    /// Somebody ordinary whose account is there all the time.
    fn somebody(&mut self) -> u32 {
        loop {
            let person = self.draw.below(self.people.people);
            if self.people.lifecycle(person, self.people.hash(person)) == Lifecycle::Settled {
                return person;
            }
        }
    }

    fn sender(&self, rule: Option<&str>, start_ms: i64, end_ms: i64, count: u64) -> Planted {
        let mut subject = String::new();
        self.people.write_number(self.actor, &mut subject);
        self.planted(rule, "sender", subject, start_ms, end_ms, count)
    }

    fn planted(
        &self,
        rule: Option<&str>,
        subject_kind: &str,
        subject: String,
        start_ms: i64,
        end_ms: i64,
        count: u64,
    ) -> Planted {
        Planted {
            kind: self.kind,
            expected_rule: rule.map(ToOwned::to_owned),
            subject_kind: subject_kind.to_owned(),
            subject,
            start_ms,
            end_ms,
            count,
        }
    }

    fn group(&self) -> (u32, String) {
        let index = PLANTED_GROUPS + (self.kind as u32) * 1000 + self.nth;
        let mut hex = String::new();
        push_hex(&opaque(self.seed, 1, index), &mut hex);
        (index, hex)
    }

    /// `count` messages evenly over `span_ms`; returns the last one's time.
    fn burst(&mut self, begin: i64, count: u32, span_ms: i64, to: impl Fn(&mut Self, u32) -> (Kind, u32, u8)) -> i64 {
        let mut at = begin;
        for nth in 0..count {
            at = begin + span_ms * i64::from(nth) / i64::from(count.max(2) - 1);
            let (kind, peer, flags) = to(self, nth);
            self.push(at, self.actor, kind, peer, 0, flags);
        }
        at
    }

    /// Some of those it happened to block or report it in the minutes after.
    fn complaints(&mut self, at: i64, peer: u32, person: u32) {
        let later = at + 20 * SECOND + i64::from(self.draw.exponential(6.0 * MINUTE as f64));
        match self.draw.below(1000) {
            0..20 => self.push(later, person, Kind::BlockPerson, peer, 0, 0),
            20..32 => self.push(later, person, Kind::ReportPerson, peer, 0, 0),
            _ => {}
        }
    }

    fn to_strangers(script: &mut Self, _: u32) -> (Kind, u32, u8) {
        let person = script.somebody();
        (Kind::ToPerson, person, if script.draw.permille(960) { flag::NEW_THREAD } else { 0 })
    }

    fn fast_bulk(&mut self) -> Planted {
        let count = 1_000 + self.draw.below(501);
        let span = 45_000 + i64::from(self.draw.below(13_000));
        let first = self.items.len();
        let end = self.burst(self.begin, count, span, Self::to_strangers);
        let sent: Vec<(i64, u32)> = self.items.iter().skip(first).map(|(at, item)| (*at, item.peer)).collect();
        for (at, person) in sent {
            self.complaints(at, self.actor, person);
        }
        self.sender(Some("bulk_per_minute"), self.begin, end, count.into())
    }

    /// Registered at `begin`; messages follow within five minutes. Strangers and too many, or one's own groups and one too few.
    fn new_account(&mut self, abusive: bool) -> Planted {
        self.push(self.begin, self.actor, Kind::Registered, 0, 0, 0);
        let first = self.begin + 60 * SECOND + i64::from(self.draw.below(150_000));
        if abusive {
            let count = 100 + self.draw.below(41);
            let end = self.burst(first, count, 14 * SECOND, Self::to_strangers);
            self.sender(Some("new_account_burst"), first, end, count.into())
        } else {
            let (group, _) = self.group();
            let end = self.burst(first, 99, 14 * SECOND, |_, nth| (Kind::ToGroup, group + 100 * (nth % 4), 0));
            self.sender(None, first, end, 99)
        }
    }

    fn near_miss(&mut self) -> Planted {
        let (group, _) = self.group();
        let end = self.burst(self.begin, 999, 59 * SECOND, |_, nth| (Kind::ToGroup, group + 100 * (nth % 8), 0));
        self.sender(None, self.begin, end, 999)
    }

    fn business_reach(&mut self) -> Planted {
        // Even shops advertise.
        let shop = self.nth * 2;
        let reach = self.cast.reach;
        let mut person = self.draw.below(self.people.people);
        let stride = coprime_stride(self.people.people);
        let mut end = self.begin;
        for nth in 0..reach {
            let at = self.begin + 12 * HOUR * i64::from(nth) / i64::from(reach) + i64::from(self.draw.below(20_000));
            let reached = if self.cast.reach_extras {
                // They come after the accounts.
                self.people.people + ACTORS.len() as u32 * self.cast.each + nth
            } else {
                loop {
                    person = ((u64::from(person) + u64::from(stride)) % u64::from(self.people.people)) as u32;
                    if self.people.lifecycle(person, self.people.hash(person)) == Lifecycle::Settled {
                        break person;
                    }
                }
            };
            end = end.max(at);
            self.push(at, reached, Kind::BusinessSent, shop, 0, 0);
            let delivered = at + 700 + i64::from(self.draw.below(4_000));
            self.push(delivered, reached, Kind::BusinessDelivered, shop, 0, 0);
            let read = at + 10 * SECOND + i64::from(self.draw.exponential(20.0 * MINUTE as f64));
            if self.draw.permille(250) {
                self.push(read, reached, Kind::BusinessRead, shop, 0, 0);
            }
            match self.draw.below(1000) {
                0..5 => self.push(read + 9 * SECOND, reached, Kind::BusinessReplied, shop, 0, 0),
                // So few that it is the reach alone that gives it away.
                5..10 => self.push(read + 9 * SECOND, reached, Kind::BlockBusiness, shop, 0, 0),
                10..13 => self.push(read + 9 * SECOND, reached, Kind::ReportBusiness, shop, 0, 0),
                _ => {}
            }
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        self.planted(Some("business_reach"), "business", subject, self.begin, end, reach.into())
    }

    fn unwanted_business(&mut self) -> Planted {
        const PEOPLE: u32 = 120;
        let shop = (self.cast.businesses + self.nth) * 2;
        let mut end = self.begin;
        for nth in 0..PEOPLE {
            let person = self.somebody();
            let at = self.begin + 8 * HOUR * i64::from(nth) / i64::from(PEOPLE);
            self.push(at, person, Kind::BusinessSent, shop, 0, 0);
            self.push(at + 2 * SECOND, person, Kind::BusinessDelivered, shop, 0, 0);
            let complaint = at + MINUTE + i64::from(self.draw.below(30 * 60_000));
            match nth % 9 {
                0 | 4 => self.push(complaint, person, Kind::BlockBusiness, shop, 0, 0),
                7 => self.push(complaint, person, Kind::ReportBusiness, shop, 0, 0),
                _ => continue,
            }
            end = end.max(complaint);
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        self.planted(Some("business_blocks"), "business", subject, self.begin, end, 40)
    }

    fn mass_add(&mut self) -> Planted {
        const BATCHES: u32 = 8;
        let (group, hex) = self.group();
        self.push(self.begin, self.actor, Kind::GroupCreated, group, 2, 0);
        let strangers = 100 + self.draw.below(101);
        let mut at = self.begin;
        for batch in 0..BATCHES {
            at = self.begin + 20 * SECOND + i64::from(batch) * 62 * SECOND;
            let here = strangers * (batch + 1) / BATCHES - strangers * batch / BATCHES;
            let known = self.draw.below(3);
            self.push(at, self.actor, Kind::MembersAdded, group, ((here + known) << 8 | here) as u16, 0);
            self.push(at + 5 * SECOND, self.actor, Kind::ToGroup, group, 0, 0);
            for _ in 0..here {
                let person = self.somebody();
                let after = 20 * SECOND + i64::from(self.draw.exponential(15.0 * MINUTE as f64));
                match self.draw.below(100) {
                    0..35 => self.push(at + after, person, Kind::GroupLeft, group, (after / MINUTE).min(60_000) as u16, 0),
                    35..41 => self.push(at + after, person, Kind::GroupReported, group, 0, 0),
                    _ => {}
                }
            }
        }
        self.planted(Some("group_mass_add"), "group", hex, self.begin + 20 * SECOND, at, strangers.into())
    }

    fn wedding(&mut self) -> Planted {
        let (group, hex) = self.group();
        self.push(self.begin, self.actor, Kind::GroupCreated, group, 4, 0);
        let mut at = self.begin;
        for batch in 0..16 {
            at = self.begin + 2 * MINUTE + batch * 3 * MINUTE + i64::from(self.draw.below(90_000));
            let strangers = u16::from(batch == 9);
            self.push(at, self.actor, Kind::MembersAdded, group, (5 << 8) | strangers, 0);
            self.push(at + 20 * SECOND, self.actor, Kind::ToGroup, group, 0, 0);
        }
        self.planted(None, "group", hex, self.begin + 2 * MINUTE, at, 80)
    }

    fn school(&mut self) -> Planted {
        let (group, hex) = self.group();
        self.push(self.begin, self.actor, Kind::GroupCreated, group, 2, 0);
        let mut at = self.begin;
        for _ in 0..26 {
            let person = self.somebody();
            at += 30 * SECOND + i64::from(self.draw.below(10 * 60_000));
            self.push(at, person, Kind::GroupJoined, group, 0, 0);
            for nth in 1..=i64::from(self.draw.below(4)) {
                self.push(at + nth * 40 * SECOND, person, Kind::ToGroup, group, 0, 0);
            }
        }
        self.planted(None, "group", hex, self.begin, at, 26)
    }

    fn long_evening(&mut self) -> Planted {
        let friends: Vec<u32> = (0..12).map(|_| self.somebody()).collect();
        let mut at = self.begin;
        for nth in 0..300 {
            at = self.begin + 4 * HOUR * nth / 300 + i64::from(self.draw.below(30_000));
            let friend = friends.get(self.draw.below(12) as usize).copied().unwrap_or_default();
            let reply = if nth > 12 { flag::REPLY } else { 0 };
            self.push(at, self.actor, Kind::ToPerson, friend, 0, reply);
            if self.draw.permille(850) {
                let answered = at + 7 * SECOND + i64::from(self.draw.below(9_000));
                self.push(answered, friend, Kind::ToPerson, self.actor, 0, flag::REPLY);
            }
        }
        self.sender(None, self.begin, at, 300)
    }
}

/// A step that visits everybody before it comes back.
fn coprime_stride(people: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (people / 3 + 1..people).find(|step| gcd(*step, people) == 1).unwrap_or(1)
}
