//! Who the people are: nothing is stored of a person, everything follows from the seed and an index.
//!
//! Indices `0..people` are accounts, in blocks by country; above them come the extras: planted senders, and consumers that only a planted
//! business writes to. 10 million people cost this file a few kilobytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution as _, LogNormal};
use starling_schemas::event::{AgeBand, Platform, ReporterRate};
use starling_schemas::ids::DAY_MS;

use super::countries::{CountryRow, table};
use super::rng::{Draw, mix, mix2};
use super::settings::{Settings, SimulateError};

/// Steps in the table of how active people are.
const LEVELS: usize = 1024;

/// What does not change about a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Profile {
    /// Index into [`People::rows`].
    pub(super) country: u8,
    pub(super) platform: Platform,
    /// A second client, used now and then.
    pub(super) companion: Option<Platform>,
    pub(super) age_band: AgeBand,
    pub(super) guardian_consent: bool,
    pub(super) linked: bool,
    /// Disappearing messages are on by default.
    pub(super) disappearing: bool,
    /// Consent before any change in [`Lifecycle::FlipsConsent`].
    consent: bool,
    /// When the account was registered.
    pub(super) registered_ms: i64,
    /// Decides when new versions are taken up.
    pub(super) taste: u64,
}

/// What happens to a few accounts while the simulation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifecycle {
    /// Nothing.
    Settled,
    /// The account is registered at this time, and silent before.
    Registers(i64),
    /// The account is deleted at this time, and silent after.
    Deletes(i64),
    /// Consent to analytics is turned around at this time.
    FlipsConsent(i64),
}

/// Somebody who only does what a script says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    /// Registration, where the script says so.
    pub(super) registered_ms: Option<i64>,
    /// Cohort of the registration, where the script says so.
    pub(super) cohort: Option<u32>,
}

/// Accounts of one ordinary cohort, of any age.
pub(super) const COHORT: u32 = 40;
/// Until this age the platform says an account's cohort.
const COHORT_DAYS: i64 = 30;

/// All people.
#[derive(Debug)]
pub(super) struct People {
    pub(super) rows: Vec<CountryRow>,
    /// First index of each country's block; one more at the end.
    starts: Vec<u32>,
    /// Countries that extras come from: large blocks of numbers.
    extra_countries: Vec<u8>,
    /// Extras, by index above [`Self::people`].
    extras: Vec<Extra>,
    /// How active, as 16.16 fixed point with mean 1, in rising order.
    levels: Vec<u32>,
    pub(super) people: u32,
    seed: u64,
    start_ms: i64,
    end_ms: i64,
    /// Of 65,536 people, how many have a lifecycle.
    lively: u64,
}

impl People {
    /// Everybody.
    pub(super) fn new(settings: &Settings, extras: Vec<Extra>) -> Result<Self, SimulateError> {
        let rows = table()?;
        let people = u32::try_from(settings.people).map_err(|_| SimulateError::People)?;
        let counts = apportion(&rows, people);
        let mut starts = vec![0u32];
        let mut next = 0;
        for count in &counts {
            next += count;
            starts.push(next);
        }
        let heaviest = rows.iter().map(|r| r.weight).fold(0.0, f64::max);
        let extra_countries: Vec<u8> = rows
            .iter()
            .enumerate()
            .filter(|(_, r)| r.weight > heaviest / 20.0 && r.capacity() >= 1_000_000)
            .map(|(i, _)| i as u8)
            .collect();
        for (index, (row, count)) in rows.iter().zip(&counts).enumerate() {
            let others = if extra_countries.contains(&(index as u8)) { extras.len() as u64 } else { 0 };
            if u64::from(*count) + others > row.capacity() {
                return Err(SimulateError::TooFewNumbers { country: row.name });
            }
        }
        let start_ms = settings.start.start_ms();
        Ok(Self {
            rows,
            starts,
            extra_countries,
            extras,
            levels: levels(),
            people,
            seed: mix2(settings.seed, 0x7065_6f70_6c65),
            start_ms,
            end_ms: start_ms + i64::from(settings.days) * DAY_MS,
            lively: (65_536 * u64::from(settings.days) * 6 / 1000).min(16_384),
        })
    }

    /// People and extras.
    pub(super) fn slots(&self) -> u32 {
        self.people + self.extras.len() as u32
    }

    /// The indices of a country's people.
    pub(super) fn block(&self, country: usize) -> std::ops::Range<u32> {
        match (self.starts.get(country), self.starts.get(country + 1)) {
            (Some(from), Some(to)) => *from..*to,
            _ => 0..0,
        }
    }

    /// 64 bits that decide all about a person.
    #[inline]
    pub(super) fn hash(&self, person: u32) -> u64 {
        mix2(self.seed, u64::from(person))
    }

    /// How active the person with this hash is, 16.16 fixed point with mean 1.
    #[inline]
    pub(super) fn level(&self, hash: u64) -> u32 {
        self.levels.get((hash & (LEVELS as u64 - 1)) as usize).copied().unwrap_or(1 << 16)
    }

    /// Whether the person with this hash does anything on this day by themselves: 72 in 100.
    #[inline]
    pub(super) fn is_active(hash: u64, day: i32) -> bool {
        mix2(hash, day as u64) & 0xffff < 47_186
    }

    /// Index into [`Self::rows`].
    pub(super) fn country(&self, person: u32) -> u8 {
        if person < self.people {
            (self.starts.partition_point(|start| *start <= person).saturating_sub(1)) as u8
        } else {
            let pick = mix2(self.hash(person), 11) % self.extra_countries.len().max(1) as u64;
            self.extra_countries.get(pick as usize).copied().unwrap_or_default()
        }
    }

    /// Writes the person's E.164 number over what stands in `out`.
    pub(super) fn write_number(&self, person: u32, out: &mut String) {
        out.clear();
        let country = usize::from(self.country(person));
        let block = self.block(country);
        let rank = if person < self.people { person - block.start } else { block.len() as u32 + (person - self.people) };
        if let Some(row) = self.rows.get(country) {
            row.write_number(u64::from(rank), self.seed, out);
        }
    }

    /// What does not change about the person.
    pub(super) fn profile(&self, person: u32) -> Profile {
        let hash = self.hash(person);
        let country = self.country(person);
        let (iphone, kaios) = self.rows.get(usize::from(country)).map_or((30, 0), |r| (r.iphone_percent, r.kaios_percent));
        let mut draw = Draw::new(mix(hash ^ 0x0070_726f_6669_6c65));
        let platform = match draw.below(100) {
            n if n < iphone => Platform::Iphone,
            n if n < iphone + kaios => Platform::Kaios,
            _ => Platform::Android,
        };
        let companion = match draw.below(100) {
            0..12 if platform != Platform::Kaios => Some(Platform::Web),
            12..19 if platform != Platform::Kaios => Some(Platform::Desktop),
            _ => None,
        };
        let consent = draw.permille(920);
        let extra = person.checked_sub(self.people);
        let age_band = match draw.below(1000) {
            // Who is planted is of age, so that the truth about them does not hang on a refusal.
            _ if extra.is_some() => AgeBand::Adult,
            0..3 => AgeBand::Under13,
            3..19 => AgeBand::From13To17,
            19..38 => AgeBand::Unspecified,
            _ => AgeBand::Adult,
        };
        let guardian_consent = age_band == AgeBand::From13To17 && draw.below(2) == 0;
        let linked = draw.permille(110);
        let disappearing = draw.permille(130);
        // Half of all accounts are older than four years; as many are in their first week as register in seven days.
        let age_days = if draw.permille(25) { draw.below(7) } else { 7 + draw.below(3813) };
        let age_ms = i64::from(age_days) * DAY_MS + i64::from(draw.below(DAY_MS as u32));
        let mut registered_ms = self.start_ms - age_ms;
        if let Some(at) = extra.and_then(|e| self.extras.get(e as usize)?.registered_ms) {
            registered_ms = at;
        } else if let Lifecycle::Registers(at) = self.lifecycle(person, hash) {
            registered_ms = at;
        }
        Profile {
            country,
            platform,
            companion,
            age_band,
            guardian_consent,
            linked,
            disappearing,
            consent,
            registered_ms,
            taste: draw.bits(),
        }
    }

    /// The cohort an account was registered in, as long as the platform says it.
    pub(super) fn cohort(&self, person: u32, registered_ms: i64, time_ms: i64) -> Option<u32> {
        (time_ms - registered_ms < COHORT_DAYS * DAY_MS).then(|| self.cohort_of_any_age(person))
    }

    /// The cohort an account was registered in.
    pub(super) fn cohort_of_any_age(&self, person: u32) -> u32 {
        let planted = person.checked_sub(self.people).and_then(|e| self.extras.get(e as usize)?.cohort);
        planted.unwrap_or(person / COHORT)
    }

    /// How often the person objects: as a script has it, or, where that is 0, as people do.
    pub(super) fn reporter_rate(&self, person: u32, scripted: u16) -> ReporterRate {
        match (scripted, mix2(self.hash(person), 0x7265_706f_7274) % 1000) {
            (1.., _) => ReporterRate::try_from(i32::from(scripted)).unwrap_or(ReporterRate::Unspecified),
            (_, 0..780) => ReporterRate::Never,
            (_, 780..965) => ReporterRate::Few,
            (_, 965..995) => ReporterRate::Several,
            _ => ReporterRate::Many,
        }
    }

    /// Day of a time, counted from the first of the simulation.
    pub(super) fn day(&self, time_ms: i64) -> i32 {
        ((time_ms - self.start_ms).div_euclid(DAY_MS)) as i32
    }

    /// Whether the person consents to analytics at a time.
    pub(super) fn consents(&self, person: u32, profile: &Profile, time_ms: i64) -> bool {
        match self.lifecycle(person, self.hash(person)) {
            Lifecycle::FlipsConsent(at) if time_ms >= at => !profile.consent,
            _ => profile.consent,
        }
    }

    /// What happens to the account during the simulation.
    #[inline]
    pub(super) fn lifecycle(&self, person: u32, hash: u64) -> Lifecycle {
        if (hash >> 16) & 0xffff >= self.lively || person >= self.people {
            return Lifecycle::Settled;
        }
        let mut draw = Draw::new(mix2(hash, 0x6c69_6665));
        let at = self.start_ms + (draw.unit() * (self.end_ms - self.start_ms) as f64) as i64;
        match draw.below(10) {
            0..6 => Lifecycle::Registers(at),
            6 => Lifecycle::Deletes(at),
            _ => Lifecycle::FlipsConsent(at),
        }
    }

    /// Whether the account exists from `from_ms` to `to_ms`.
    #[inline]
    pub(super) fn exists(&self, person: u32, hash: u64, from_ms: i64, to_ms: i64) -> bool {
        match self.lifecycle(person, hash) {
            Lifecycle::Registers(at) => at < from_ms,
            Lifecycle::Deletes(at) => at >= to_ms,
            Lifecycle::Settled | Lifecycle::FlipsConsent(_) => true,
        }
    }

    /// Somebody the person writes with: mostly the same few, mostly of the same country, never themselves.
    pub(super) fn contact(&self, person: u32, hash: u64, draw: &mut Draw) -> u32 {
        let known = 6 + ((hash >> 40) % 50) as u32;
        let unit = draw.unit();
        let nth = (unit * unit * f64::from(known)) as u64;
        let pick = mix2(hash, 1000 + nth);
        let block = self.block(usize::from(self.country(person)));
        let range = if pick & 0xff < 236 && block.len() > 1 { block } else { 0..self.people };
        let length = (range.end - range.start).max(1);
        let mut other = range.start + ((pick >> 8) % u64::from(length)) as u32;
        if other == person {
            other = if other + 1 < range.end { other + 1 } else { range.start };
        }
        other
    }
}

/// Splits people by weight, largest remainders first, so that the counts add up.
fn apportion(rows: &[CountryRow], people: u32) -> Vec<u32> {
    let total: f64 = rows.iter().map(|r| r.weight).sum();
    let exact: Vec<f64> = rows.iter().map(|r| r.weight / total * f64::from(people)).collect();
    let mut counts: Vec<u32> = exact.iter().map(|e| *e as u32).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    let left = people.saturating_sub(counts.iter().sum());
    for index in order.into_iter().cycle().take(left as usize) {
        counts[index] += 1;
    }
    counts
}

/// Log-normal activity: a median person does less than two thirds of the mean, one in a hundred six times the mean; cut at twelve.
fn levels() -> Vec<u32> {
    const SAMPLES: usize = 64;
    let mut rng = ChaCha8Rng::seed_from_u64(0x6c65_7665_6c73);
    let mut drawn: Vec<f64> = match LogNormal::new(-0.5, 1.0) {
        Ok(distribution) => (0..LEVELS * SAMPLES).map(|_| f64::min(distribution.sample(&mut rng), 12.0)).collect(),
        Err(_) => vec![1.0; LEVELS * SAMPLES],
    };
    drawn.sort_by(f64::total_cmp);
    let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
    drawn.chunks(SAMPLES).map(|part| (part.iter().sum::<f64>() / part.len() as f64 / mean * 65_536.0) as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use starling_schemas::ids::EpochId;

    use super::*;

    fn people(count: u64) -> People {
        People::new(&Settings::new(count, 2, 5, EpochId(20_458)), vec![Extra::default(); 2_000]).expect("valid")
    }

    #[test]
    fn ten_million_people_have_numbers_enough() {
        let world = people(10_000_000);
        assert_eq!(world.starts.last(), Some(&10_000_000));
        let mut number = String::new();
        let india = world.rows.iter().position(|r| r.name == "IN").expect("listed");
        world.write_number(world.block(india).end - 1, &mut number);
        assert!(number.starts_with("+91"));
    }

    #[test]
    fn no_two_people_share_a_number() {
        let world = people(30_000);
        let mut seen = HashSet::new();
        for person in 0..world.slots() {
            let mut number = String::new();
            world.write_number(person, &mut number);
            assert!(seen.insert(number), "person {person}");
        }
    }

    #[test]
    fn shares_follow_the_table_and_choices_the_promised_rates() {
        let world = people(50_000);
        let india = world.rows.iter().position(|r| r.name == "IN").expect("listed");
        assert!((0.22..0.26).contains(&(f64::from(world.block(india).len() as u32) / 50_000.0)));
        let profiles: Vec<Profile> = (0..50_000).map(|p| world.profile(p)).collect();
        let share = |f: &dyn Fn(&Profile) -> bool| profiles.iter().filter(|p| f(p)).count() as f64 / 50_000.0;
        assert!((0.91..0.93).contains(&share(&|p| p.consent)));
        assert!((0.94..0.98).contains(&share(&|p| p.age_band == AgeBand::Adult)));
        assert!((0.15..0.21).contains(&share(&|p| p.companion.is_some())));
        assert!(share(&|p| p.platform == Platform::Kaios) > 0.005);
        assert!((0.02..0.04).contains(&share(&|p| world.start_ms - p.registered_ms < 7 * DAY_MS)));
    }

    #[test]
    fn activity_is_heavy_tailed_with_mean_one() {
        let levels = levels();
        let mean = levels.iter().map(|l| f64::from(*l)).sum::<f64>() / LEVELS as f64 / 65_536.0;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!(levels[LEVELS / 2] < 44_000 && levels[LEVELS - 1] > 6 * 65_536);
    }

    #[test]
    fn nobody_is_their_own_contact() {
        let world = people(1_000);
        let mut draw = Draw::new(1);
        for person in 0..1_000 {
            for _ in 0..20 {
                assert_ne!(world.contact(person, world.hash(person), &mut draw), person);
            }
        }
    }
}
