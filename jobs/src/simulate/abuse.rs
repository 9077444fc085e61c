//! Planted abusers, those who only look like one, and what they do, written down before the simulation begins.
//!
//! Planted accounts are extras: they do nothing but their script, so that what is claimed of them is exactly what the events show.
//! The planted businesses are ordinary shops, so that they have a baseline on the days before.

mod groups;
mod makers;
mod shops;
mod slow;
mod templates;

use starling_schemas::event::ReporterRate;
use starling_schemas::ids::DAY_MS;

use super::activity::{Item, Kind, PLANTED_GROUPS, flag};
use super::businesses::Businesses;
use super::countries::push_hex;
use super::encode::opaque;
use super::people::{COHORT, Extra, Lifecycle, People};
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

/// The same, where there are [`SLOW_DAYS`] at least: evidence against the first [`SLOW_KINDS`] of them takes that long. The others where there are
/// [`LONG_DAYS`].
const SLOW_ACTORS: [PlantedKind; 6] = [
    PlantedKind::SlowBulk,
    PlantedKind::Organiser,
    PlantedKind::BoughtReplies,
    PlantedKind::PatientBulk,
    PlantedKind::InviteHopping,
    PlantedKind::NewPhone,
];
const SLOW_KINDS: usize = 3;
const SLOW_DAYS: u32 = 5;
pub(super) const LONG_DAYS: u32 = 10;
/// Who makes groups, which groups are on a list, and which are reported, where there are [`LONG_DAYS`].
const MAKERS: [PlantedKind; 6] = [
    PlantedKind::GroupCreator,
    PlantedKind::ListedGroup,
    PlantedKind::SchoolSecretary,
    PlantedKind::CommonName,
    PlantedKind::GroupBrigade,
    PlantedKind::UnwantedGroup,
];
/// Accounts made for a brigade.
const BRIGADE_ACCOUNTS: u32 = 60;
/// First day on which numbers are added to portfolios, from 0.
const FRESH_FROM_DAY: u32 = 8;
/// New people they write to in a day.
const SLOW_A_DAY: i64 = 40;
/// The same of who has patience.
const PATIENT_A_DAY: i64 = 12;
/// People a day that shops may write to: what they send until then is within their limit.
const TIER_OF_SHOPS: u32 = 250;
/// New people in a day of who buys replies, and how many of them are accounts that are paid for.
const BUYER_A_DAY: i64 = 30;
const BOUGHT_A_DAY: i64 = 9;
/// One planted cohort for so many of each kind.
const COHORT_SHARE: u32 = 5;
/// Names of planted cohorts begin here.
const PLANTED_COHORTS: u32 = 0xc000_0000;
/// Innocents for each attacker, by cohort.
const DILUTION: [u32; 4] = [0, 2, 5, 10];

/// A planted cohort.
#[derive(Debug, Clone, Copy)]
struct Planned {
    attackers: u32,
    innocents: u32,
    /// First attack.
    begin: i64,
}

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
    /// One of each kind, and one more of each for every 300,000 person-days, at most 40; or as many as are asked for.
    pub(super) fn new(settings: &Settings) -> Self {
        let usual = ((settings.people * u64::from(settings.days) / 300_000).clamp(1, 40)) as u32;
        let each = settings.planted.unwrap_or(usual);
        let reach = (settings.people / 100).clamp(1_200, 12_000) as u32;
        Self {
            settings: *settings,
            each,
            // Each kind has shops of its own: four kinds those with odd numbers, three the others.
            businesses: settings.planted.unwrap_or(usual.min(8)).min(Businesses::new(settings.people).shops() / 8),
            reach,
            reach_extras: settings.people < 20 * u64::from(reach),
        }
    }

    /// What scripts say of the extras' registration.
    pub(super) fn extras(&self) -> Vec<Extra> {
        let mut out: Vec<Extra> = Vec::new();
        for kind in ACTORS {
            for nth in 0..self.each {
                let new = matches!(kind, PlantedKind::NewAccountBurst | PlantedKind::NearMissNewAccount);
                out.push(Extra { registered_ms: new.then(|| self.begin(kind, nth)), cohort: None });
            }
        }
        out.resize(self.actors() as usize, Extra::default());
        for (name, cohort) in (PLANTED_COHORTS..).zip(self.cohorts()) {
            for one in 0..cohort.attackers + cohort.innocents {
                // Within an hour, the day before the attack.
                let registered_ms = cohort.begin - DAY_MS - i64::from(one * 7 % 60) * MINUTE;
                out.push(Extra { registered_ms: Some(registered_ms), cohort: Some(name) });
            }
        }
        for nth in 0..self.buyers() {
            for one in 0..i64::from(self.settings.days) * BOUGHT_A_DAY {
                // The day before it is needed.
                let registered_ms = self.begin(PlantedKind::BoughtReplies, nth) + (one / BOUGHT_A_DAY - 1) * DAY_MS;
                out.push(Extra { registered_ms: Some(registered_ms), cohort: None });
            }
        }
        for nth in 0..self.brigades() {
            let registered_ms = Some(self.begin(PlantedKind::NewcomerBrigade, nth) - DAY_MS);
            out.resize(out.len() + BRIGADE_ACCOUNTS as usize, Extra { registered_ms, cohort: None });
        }
        if self.reach_extras {
            out.resize(out.len() + self.reach as usize, Extra::default());
        }
        // Behind all others, whose places decide who they are.
        for nth in 0..self.makers() {
            let is_new = nth % 3 == 0;
            let registered_ms = is_new.then(|| self.begin(PlantedKind::GroupCreator, nth) - DAY_MS);
            out.push(Extra { registered_ms, cohort: None });
        }
        out.resize(out.len() + self.makers() as usize, Extra::default());
        out
    }

    /// How many create groups by the dozen, and how many for a school.
    fn makers(&self) -> u32 {
        if self.settings.days < LONG_DAYS { 0 } else { self.each }
    }

    /// Place of such an account among the extras.
    fn maker(&self, kind: PlantedKind, nth: u32) -> u32 {
        let before = self.accounts() + if self.reach_extras { self.reach } else { 0 };
        before + nth + if kind == PlantedKind::SchoolSecretary { self.makers() } else { 0 }
    }

    /// How many brigades of new accounts.
    fn brigades(&self) -> u32 {
        if self.settings.days < LONG_DAYS { 0 } else { self.businesses }
    }

    /// Place among the extras of a brigade's first account.
    fn brigade(&self, nth: u32) -> u32 {
        self.members() + self.buyers() * self.settings.days * BOUGHT_A_DAY as u32 + nth * BRIGADE_ACCOUNTS
    }

    /// The planted cohorts.
    fn cohorts(&self) -> Vec<Planned> {
        let days = self.settings.days;
        if days < SLOW_DAYS {
            return Vec::new();
        }
        let planned = |nth: u32| {
            let hash = mix2(self.settings.seed ^ 0x0063_6f68_6f72_7473, nth.into());
            let attackers = 30 + (hash % 31) as u32;
            // In the morning, but for every third one, which goes on over midnight.
            let hour = if nth % 3 == 1 { 19 } else { 7 };
            let day = i64::from(2 + nth % (days - 3));
            let begin = self.settings.start.start_ms() + day * DAY_MS + hour * HOUR + ((hash >> 32) % 60) as i64 * MINUTE;
            Planned { attackers, innocents: attackers * DILUTION[nth as usize % DILUTION.len()], begin }
        };
        (0..self.each.div_ceil(COHORT_SHARE)).map(planned).collect()
    }

    /// Those of them that act in as many days.
    fn slow(&self) -> &'static [PlantedKind] {
        match self.settings.days {
            LONG_DAYS.. => &SLOW_ACTORS,
            SLOW_DAYS.. => &SLOW_ACTORS[..SLOW_KINDS],
            _ => &[],
        }
    }

    /// How many extras act alone.
    fn actors(&self) -> u32 {
        (ACTORS.len() + self.slow().len()) as u32 * self.each
    }

    /// How many extras act alone or together.
    fn members(&self) -> u32 {
        self.actors() + self.cohorts().iter().map(|c| c.attackers + c.innocents).sum::<u32>()
    }

    /// How many buy replies.
    fn buyers(&self) -> u32 {
        if self.slow().is_empty() { 0 } else { self.each }
    }

    /// How many extras are accounts that act.
    fn accounts(&self) -> u32 {
        self.brigade(self.brigades())
    }

    /// Place of an account among the extras.
    fn place(&self, kind: PlantedKind, nth: u32) -> u32 {
        ACTORS.iter().chain(self.slow()).position(|k| *k == kind).unwrap_or_default() as u32 * self.each + nth
    }

    /// When a script begins: spread over the days, the reaching businesses from the last day back.
    fn begin(&self, kind: PlantedKind, nth: u32) -> i64 {
        let days = self.settings.days;
        let hash = mix2(self.settings.seed ^ 0x0062_6567_696e, (kind as u64) << 32 | u64::from(nth));
        let (day, minutes) = match kind {
            PlantedKind::BusinessReach | PlantedKind::UnwantedBusiness | PlantedKind::Brigade => (days - 1 - nth % days, 8 * 60),
            // Over midnight, where there are two days: a rule must not lose the thread when keys change.
            PlantedKind::FastBulk if nth == 0 && days > 1 => return self.settings.start.end_ms() - 25 * SECOND,
            PlantedKind::SlowBulk | PlantedKind::Organiser | PlantedKind::BoughtReplies | PlantedKind::PatientBulk => {
                (0, 9 * 60 + (hash % 60) as i64)
            }
            PlantedKind::AirlineBadDay => (days / 2, 5 * 60),
            PlantedKind::NewcomerBrigade | PlantedKind::OptedInBrigade => (1 + nth % (days - 1).max(1), 8 * 60),
            // When the portfolio has been seen on enough days.
            PlantedKind::FreshNumber | PlantedKind::NewBranch => {
                (FRESH_FROM_DAY + nth % days.saturating_sub(FRESH_FROM_DAY).max(1), 7 * 60 + (hash % 120) as i64)
            }
            // When the shop has been seen for some days; by the afternoon, so that it is over with the day.
            PlantedKind::UnwantedTemplate | PlantedKind::NewTemplate => {
                (3 + (3 * nth + kind as u32) % days.saturating_sub(3).max(1), 8 * 60 + (hash % (8 * 60)) as i64)
            }
            PlantedKind::LongEvening => (nth % days, 17 * 60 + (hash % 60) as i64),
            _ => ((nth + kind as u32) % days, 6 * 60 + (hash % (14 * 60)) as i64),
        };
        self.settings.start.start_ms() + i64::from(day) * DAY_MS + minutes * MINUTE
    }

    /// Everything they do, in time order, and the truth about it.
    pub(super) fn scripts(&self, people: &People, businesses: &Businesses, seed: u64) -> Scripts {
        let mut scripts = Scripts { items: Vec::new(), planted: Vec::new() };
        for nth in 0..self.each {
            let shops = [PlantedKind::BusinessReach, PlantedKind::UnwantedBusiness, PlantedKind::Brigade];
            for kind in ACTORS.into_iter().chain(shops).chain(self.slow().iter().copied()) {
                let limit = if shops.contains(&kind) { self.businesses } else { self.each };
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
        if self.settings.days >= LONG_DAYS {
            let added = [
                PlantedKind::FreshNumber,
                PlantedKind::NewBranch,
                PlantedKind::NewcomerBrigade,
                PlantedKind::OptedInBrigade,
                PlantedKind::UnwantedTemplate,
                PlantedKind::NewTemplate,
            ];
            let added = (0..self.businesses).flat_map(|nth| added.map(|kind| (kind, nth)));
            for (kind, nth) in added.chain([(PlantedKind::AirlineBadDay, 0)]) {
                let draw = Draw::new(mix2(seed ^ 0x7363_7269_7074, (kind as u64) << 32 | u64::from(nth)));
                let (begin, items) = (self.begin(kind, nth), &mut scripts.items);
                let script = Script { cast: self, people, businesses, seed, kind, nth, actor: 0, begin, draw, items };
                scripts.planted.push(script.write());
            }
        }
        for nth in 0..self.makers() {
            for kind in MAKERS {
                let draw = Draw::new(mix2(seed ^ 0x7363_7269_7074, (kind as u64) << 32 | u64::from(nth)));
                let (begin, items) = (self.begin(kind, nth), &mut scripts.items);
                let actor = people.people + self.maker(kind, nth);
                let script = Script { cast: self, people, businesses, seed, kind, nth, actor, begin, draw, items };
                scripts.planted.push(script.write());
            }
        }
        let mut actor = people.people + self.actors();
        for cohort in self.cohorts() {
            for one in 0..cohort.attackers + cohort.innocents {
                let kind = if one < cohort.attackers { PlantedKind::Coordinated } else { PlantedKind::Newcomer };
                let draw = Draw::new(mix2(seed ^ 0x7363_7269_7074, (kind as u64) << 32 | u64::from(actor)));
                let (begin, items) = (cohort.begin, &mut scripts.items);
                let script = Script { cast: self, people, businesses, seed, kind, nth: one, actor, begin, draw, items };
                scripts.planted.push(script.write());
                actor += 1;
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
            PlantedKind::Brigade => self.brigade(),
            PlantedKind::GroupMassAdd => self.mass_add(),
            PlantedKind::WeddingHost => self.wedding(),
            PlantedKind::SchoolGroup | PlantedKind::PasscodeSender => self.school(),
            PlantedKind::LongEvening => self.long_evening(),
            PlantedKind::SlowBulk => self.slow_sender(Some("slow_bulk"), SLOW_A_DAY, 20),
            PlantedKind::Organiser => self.slow_sender(None, SLOW_A_DAY, 700),
            PlantedKind::PatientBulk => self.slow_sender(Some("slow_bulk"), PATIENT_A_DAY, 20),
            PlantedKind::InviteHopping => self.invite_hopping(),
            PlantedKind::NewPhone => self.new_phone(),
            PlantedKind::AirlineBadDay => self.airline_bad_day(),
            PlantedKind::FreshNumber => self.added_number(true),
            PlantedKind::NewBranch => self.added_number(false),
            PlantedKind::NewcomerBrigade => self.newcomer_brigade(),
            PlantedKind::OptedInBrigade => self.opted_in_brigade(),
            PlantedKind::GroupCreator => self.group_creator(),
            PlantedKind::ListedGroup => self.listed_group(),
            PlantedKind::SchoolSecretary => self.secretary(),
            PlantedKind::CommonName => self.common_name(),
            PlantedKind::UnwantedTemplate => self.new_template(true),
            PlantedKind::NewTemplate => self.new_template(false),
            PlantedKind::GroupBrigade => self.reported_group(true),
            PlantedKind::UnwantedGroup => self.reported_group(false),
            PlantedKind::BoughtReplies => self.buyer(),
            PlantedKind::Coordinated => self.member(true),
            PlantedKind::Newcomer => self.member(false),
        }
    }

    fn push(&mut self, time_ms: i64, actor: u32, kind: Kind, peer: u32, extra: u16, flags: u8) {
        self.items.push((time_ms, Item { offset_ms: 0, actor, peer, extra, kind, flags }));
    }

    /// Somebody ordinary whose account is there all the time.
    fn somebody(&mut self) -> u32 {
        loop {
            let person = self.draw.below(self.people.people);
            if self.is_settled(person) {
                return person;
            }
        }
    }

    /// Accounts of every age that object together, and what they say of how often they do: every other time those of two cohorts, else such as do nothing
    /// but object.
    fn objectors(&mut self) -> (Vec<u32>, u16) {
        if self.nth.is_multiple_of(2) {
            let cohorts = self.people.people / COHORT - 1;
            let first = self.draw.below(cohorts) * COHORT;
            ((first..first + 2 * COHORT).filter(|one| self.is_settled(*one)).collect(), 0)
        } else {
            ((0..60).map(|_| self.somebody()).collect(), ReporterRate::Many as u16)
        }
    }

    /// Whether an ordinary account is there all the time.
    fn is_settled(&self, person: u32) -> bool {
        self.people.lifecycle(person, self.people.hash(person)) == Lifecycle::Settled
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
