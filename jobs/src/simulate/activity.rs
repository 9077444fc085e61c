//! What ordinary people do in one slice of time.
//!
//! A person does something in a slice with a probability of their own (how active they are) times the hour of their country's day. What
//! they do then is a *session*: a conversation with its answers, a business's message on its way from sent to read, some views. A session
//! ends with its slice, so that slices do not need each other.

use std::ops::Range;

use super::businesses::Businesses;
use super::people::{Lifecycle, People};
use super::rng::{Draw, mix2};
use super::settings::{SLICE_MS, SLICES_PER_DAY};
use super::versions::release;

/// What happens; more than one kind may lead to one event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    Registered,
    Deleted,
    ConsentChanged,
    ToPerson,
    ToGroup,
    ToBusiness,
    ToChannel,
    Call,
    Status,
    ChannelView,
    Feature,
    Ai,
    Crash,
    GroupCreated,
    MembersAdded,
    GroupJoined,
    GroupLeft,
    GroupProfile,
    GroupReported,
    BusinessSent,
    BusinessDelivered,
    BusinessRead,
    BusinessReplied,
    BlockPerson,
    BlockBusiness,
    ReportPerson,
    ReportBusiness,
    BusinessInformation,
    Contacts,
}

/// Bits of [`Item::flags`].
pub(super) mod flag {
    /// First message between the two.
    pub(in super::super) const NEW_THREAD: u8 = 1;
    /// An answer.
    pub(in super::super) const REPLY: u8 = 2;
    /// Nobody's: no actor is written.
    pub(in super::super) const GUEST: u8 = 4;
    /// A report by somebody to whom nothing was delivered.
    pub(in super::super) const UNFOUNDED: u8 = 8;
}

/// One event to come, in 16 bytes. The order of fields is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// Milliseconds since the slice began.
    pub(super) offset_ms: u32,
    /// Who did it.
    pub(super) actor: u32,
    /// To whom or what: a person, group, channel or business, by kind.
    pub(super) peer: u32,
    /// Size of a group; members added × 256 + strangers; minutes in a group; of a planted profile what is on a list, a bit each; of a business, the day on
    /// which it says who it is, from 0; of a message of a business the number of its template, 0 for its usual one; of a planted objection to a business that
    /// number × 256 + how often its account objects.
    pub(super) extra: u16,
    pub(super) kind: Kind,
    pub(super) flags: u8,
}

/// Groups made by ordinary people begin here, planted ones at [`PLANTED_GROUPS`].
const NEW_GROUPS: u32 = 0x8000_0000;
/// Planted groups.
pub(super) const PLANTED_GROUPS: u32 = 0xc000_0000;
/// Groups that planted accounts make by the dozen.
pub(super) const MADE_GROUPS: u32 = 0xd000_0000;
/// Channels there are.
const CHANNELS: f64 = 2_000.0;
/// Sessions of a person of mean activity on a day they are active on, so that 20 to 25 events come out.
const SESSIONS_PER_DAY: f64 = 6.6;

/// Of 1,000 sessions.
const SESSION_WEIGHTS: [(Session, u32); 15] = [
    (Session::Chat, 428),
    (Session::Group, 160),
    (Session::ChannelViews, 120),
    (Session::Call, 70),
    (Session::Feature, 55),
    (Session::Status, 45),
    (Session::Passcode, 42),
    (Session::Shop, 27),
    (Session::Ai, 20),
    (Session::GroupAdmin, 8),
    (Session::Care, 6),
    (Session::Flight, 4),
    (Session::Crash, 5),
    (Session::Contacts, 5),
    (Session::Rare, 5),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Chat,
    Group,
    ChannelViews,
    Call,
    Feature,
    Status,
    Passcode,
    Shop,
    Ai,
    GroupAdmin,
    Care,
    Flight,
    Crash,
    Contacts,
    Rare,
}

/// How busy each local hour is, with mean about 1.
const HOURS: [f64; 24] = [
    0.38, 0.22, 0.12, 0.08, 0.08, 0.16, 0.42, 0.84, 1.10, 1.20, 1.22, 1.26, 1.36, 1.32, 1.22, 1.20, 1.24, 1.34, 1.45, 1.60, 1.74,
    1.68, 1.30, 0.78,
];

/// How busy a slice of the local day is, with mean 1.
fn rhythm(local_slice: u32) -> f64 {
    let per_hour = SLICES_PER_DAY / 24;
    let hour = (local_slice / per_hour) as usize % 24;
    let part = f64::from(local_slice % per_hour) / f64::from(per_hour);
    let (from, to) = (HOURS[hour], HOURS[(hour + 1) % 24]);
    (from + (to - from) * part) * 24.0 / HOURS.iter().sum::<f64>()
}

/// Makes the items of a slice.
pub(super) struct Planner<'a> {
    pub(super) people: &'a People,
    pub(super) businesses: &'a Businesses,
    pub(super) seed: u64,
    /// Small groups of neighbours; above them groups across the country and the world.
    pub(super) groups: u32,
}

impl Planner<'_> {
    /// Appends what ordinary people do in slice number `slice` of the world, which begins at `from_ms`. Unordered.
    pub(super) fn plan(&self, slice: u32, from_ms: i64, day: i32, out: &mut Vec<Item>) {
        let to_ms = from_ms + SLICE_MS;
        let slice_seed = mix2(self.seed, u64::from(slice));
        let slice_of_day = (slice % SLICES_PER_DAY) as i32;
        for (country, row) in self.people.rows.iter().enumerate() {
            let shift = row.utc_offset_min / (SLICE_MS / 60_000) as i32;
            let local = (slice_of_day + shift).rem_euclid(SLICES_PER_DAY as i32) as u32;
            // Chance of a session of a person of mean activity, of 2^32.
            let chance = (SESSIONS_PER_DAY / f64::from(SLICES_PER_DAY) * rhythm(local) * f64::from(u32::MAX)) as u64;
            for person in self.people.block(country) {
                let hash = self.people.hash(person);
                let lifecycle = self.people.lifecycle(person, hash);
                if lifecycle != Lifecycle::Settled {
                    self.turn_of_life(person, lifecycle, from_ms, to_ms, out);
                }
                let drawn = mix2(slice_seed, hash);
                if (drawn >> 32) >= (chance * u64::from(self.people.level(hash))) >> 16 {
                    continue;
                }
                if People::is_active(hash, day) && self.people.exists(person, hash, from_ms, to_ms) {
                    let mut session =
                        Sitting { planner: self, draw: Draw::new(drawn), person, hash, slice: from_ms..to_ms, day, out };
                    session.run();
                }
            }
        }
    }

    fn turn_of_life(&self, person: u32, lifecycle: Lifecycle, from_ms: i64, to_ms: i64, out: &mut Vec<Item>) {
        let (at, kind) = match lifecycle {
            Lifecycle::Settled => return,
            Lifecycle::Registers(at) => (at, Kind::Registered),
            Lifecycle::Deletes(at) => (at, Kind::Deleted),
            Lifecycle::FlipsConsent(at) => (at, Kind::ConsentChanged),
        };
        if (from_ms..to_ms).contains(&at) {
            out.push(Item { offset_ms: (at - from_ms) as u32, actor: person, peer: 0, extra: 0, kind, flags: 0 });
        }
    }

    /// A group the person is in: mostly that of their neighbours.
    fn group(&self, person: u32, hash: u64, draw: &mut Draw) -> u32 {
        match draw.below(5) {
            0 | 1 => person / 12,
            nth => self.groups + (mix2(hash, u64::from(nth)) % u64::from(self.groups.max(1))) as u32,
        }
    }
}

/// One session being written down.
struct Sitting<'a, 'b> {
    planner: &'a Planner<'a>,
    draw: Draw,
    person: u32,
    hash: u64,
    slice: Range<i64>,
    day: i32,
    out: &'b mut Vec<Item>,
}

impl Sitting<'_, '_> {
    fn run(&mut self) {
        let mut left = self.draw.below(1000);
        let kind = SESSION_WEIGHTS.iter().find(|(_, weight)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        let businesses = self.planner.businesses;
        match kind.map_or(Session::Rare, |(session, _)| *session) {
            Session::Chat => self.chat(),
            Session::Group => {
                let group = self.planner.group(self.person, self.hash, &mut self.draw);
                self.repeat(Kind::ToGroup, group, 2.2, 20_000.0);
            }
            Session::ChannelViews => {
                let channel = self.channel();
                self.repeat(Kind::ChannelView, channel, 1.6, 9_000.0);
            }
            Session::Call => {
                let peer = self.planner.people.contact(self.person, self.hash, &mut self.draw);
                self.once(Kind::Call, peer);
            }
            Session::Feature => self.repeat(Kind::Feature, 0, 0.5, 15_000.0),
            Session::Status => self.repeat(Kind::Status, 0, 0.6, 30_000.0),
            Session::Ai => self.repeat(Kind::Ai, 0, 1.4, 25_000.0),
            Session::Passcode => self.business(businesses.passcodes(), 930, 0),
            Session::Flight => self.business(businesses.airline(), 850, 5),
            Session::Shop => {
                // Three shops one deals with.
                let nth = u64::from(self.draw.below(3));
                let shop = (mix2(self.hash, 500 + nth) % u64::from(businesses.shops().max(1))) as u32;
                self.business(shop, 620, 60);
            }
            Session::Care => {
                for _ in 0..=self.draw.below(3) {
                    self.once(Kind::ToBusiness, businesses.care());
                    self.business(businesses.care(), 950, 300);
                }
            }
            Session::GroupAdmin => self.group_admin(),
            Session::Crash => self.crash(),
            Session::Contacts => self.once(Kind::Contacts, 0),
            Session::Rare => self.rare(),
        }
    }

    fn start(&mut self) -> u32 {
        self.draw.below(SLICE_MS as u32)
    }

    fn channel(&mut self) -> u32 {
        let unit = self.draw.unit();
        (unit * unit * unit * CHANNELS) as u32
    }

    fn push(&mut self, offset_ms: u32, actor: u32, kind: Kind, peer: u32, extra: u16, flags: u8) {
        self.out.push(Item { offset_ms: offset_ms.min(SLICE_MS as u32 - 1), actor, peer, extra, kind, flags });
    }

    fn once(&mut self, kind: Kind, peer: u32) {
        let at = self.start();
        self.push(at, self.person, kind, peer, 0, 0);
    }

    /// A few of the same, `more` beyond the first on average.
    fn repeat(&mut self, kind: Kind, peer: u32, more: f64, gap_ms: f64) {
        let count = 1 + self.draw.exponential(more + 0.5).min(60);
        let mut at = self.start();
        for left in (0..count).rev() {
            self.push(at, self.person, kind, peer, 0, 0);
            at = self.later(at, gap_ms, left);
        }
    }

    /// A moment after `at`, before the slice ends, leaving room for `left` more.
    fn later(&mut self, at: u32, gap_ms: f64, left: u32) -> u32 {
        let room = (SLICE_MS as u32 - 1).saturating_sub(at) / left.max(1);
        at + (200 + self.draw.exponential(gap_ms)).min(room)
    }

    fn chat(&mut self) {
        let people = self.planner.people;
        let peer = people.contact(self.person, self.hash, &mut self.draw);
        let peer_hash = people.hash(peer);
        let answers = super::people::People::is_active(peer_hash, self.day)
            && people.exists(peer, peer_hash, self.slice.start, self.slice.end);
        let count = 1 + self.draw.exponential(4.5).min(60);
        let new = self.draw.permille(30);
        let mut at = self.start();
        let mut peer_wrote = false;
        for nth in 0..count {
            let peer_writes = nth > 0 && answers && self.draw.below(2) == 0;
            let mut flags = if nth == 0 && new { flag::NEW_THREAD } else { 0 };
            if nth > 0 && peer_writes != peer_wrote {
                flags |= flag::REPLY;
            }
            peer_wrote = peer_writes;
            let (actor, other) = if peer_writes { (peer, self.person) } else { (self.person, peer) };
            self.push(at, actor, Kind::ToPerson, other, 0, flags);
            at = self.later(at, 16_000.0, count - nth - 1);
        }
    }

    /// A bad release crashes again and again.
    fn crash(&mut self) {
        let people = self.planner.people;
        let profile = people.profile(self.person);
        match release(profile.platform, profile.taste, people.day(self.slice.start)).weak {
            Some(_) => self.repeat(Kind::Crash, 0, 2.5, 25_000.0),
            None => self.once(Kind::Crash, 0),
        }
    }

    /// A business's message on its way. `read` and `replied`: of 1,000.
    fn business(&mut self, business: u32, read: u32, replied: u32) {
        let mut at = self.start();
        self.push(at, self.person, Kind::BusinessSent, business, 0, 0);
        at = self.later(at, 900.0, 3);
        self.push(at, self.person, Kind::BusinessDelivered, business, 0, 0);
        if self.draw.permille(read) {
            at = self.later(at, 25_000.0, 2);
            self.push(at, self.person, Kind::BusinessRead, business, 0, 0);
            if self.draw.permille(replied) {
                at = self.later(at, 20_000.0, 1);
                self.push(at, self.person, Kind::BusinessReplied, business, 0, 0);
                self.push(at, self.person, Kind::ToBusiness, business, 0, flag::REPLY);
            }
        }
    }

    fn group_admin(&mut self) {
        let new = NEW_GROUPS | (self.draw.bits() as u32 & 0x3fff_ffff);
        let own = self.planner.group(self.person, self.hash, &mut self.draw);
        let at = self.start();
        let (kind, group, extra) = match self.draw.below(100) {
            0..20 => (Kind::GroupCreated, new, 3 + self.draw.exponential(7.0).min(60) as u16),
            20..50 => {
                let count = 1 + self.draw.exponential(1.5).min(8) as u16;
                (Kind::MembersAdded, own, (count << 8) | u16::from(self.draw.permille(60)))
            }
            50..70 => (Kind::GroupJoined, own, 0),
            70..88 => (Kind::GroupLeft, own, self.draw.exponential(20_000.0).min(65_000) as u16),
            88..97 => (Kind::GroupProfile, own, 0),
            _ => (Kind::GroupReported, own, 0),
        };
        self.push(at, self.person, kind, group, extra, 0);
    }

    fn rare(&mut self) {
        let people = self.planner.people;
        let at = self.start();
        let somebody = self.draw.below(people.people);
        let shop = self.draw.below(self.planner.businesses.shops());
        let (kind, peer, flags) = match self.draw.below(100) {
            0..15 => (Kind::BlockPerson, somebody, 0),
            15..22 => (Kind::BlockBusiness, shop, 0),
            22..30 => (Kind::ReportPerson, somebody, 0),
            30..33 => (Kind::ReportBusiness, shop, 0),
            33..55 => (Kind::ToChannel, self.channel(), 0),
            55..85 => (Kind::ChannelView, self.channel(), flag::GUEST),
            _ => (Kind::Feature, 0, flag::GUEST),
        };
        self.push(at, self.person, kind, peer, 0, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_and_the_day_has_mean_one() {
        let shared: u32 = SESSION_WEIGHTS.iter().map(|(_, w)| w).sum();
        assert_eq!(shared, 1000);
        let mean = (0..SLICES_PER_DAY).map(rhythm).sum::<f64>() / f64::from(SLICES_PER_DAY);
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!(rhythm(20 * SLICES_PER_DAY / 24) > 10.0 * rhythm(3 * SLICES_PER_DAY / 24));
    }

    #[test]
    fn an_item_stays_small() {
        assert_eq!(size_of::<Item>(), 16);
    }
}
