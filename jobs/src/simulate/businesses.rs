//! The businesses: many small shops, one sender of passcodes, one airline, one care bot.

use std::fmt::Write as _;

use starling_schemas::event::{BusinessCategory, BusinessTier};

use super::rng::mix2;

/// Of 1,000 people, how many hear from the airline a day.
const FLIGHTS_PER_1000: u64 = 20;
/// Of 1,000 people, how many talk to the care bot a day.
const CARE_PER_1000: u64 = 30;

/// On one day of so many a business moves, and says so.
const DAYS_AT_ONE_PLACE: u64 = 8;
/// Where shops are.
const PLACES: [&str; 8] = ["Harbour", "Old Town", "Riverside", "Station", "Garden", "Mill", "Castle", "Market"];
/// What shops sell.
const WARES: [&str; 10] =
    ["Bakery", "Books", "Flowers", "Bicycles", "Tea House", "Records", "Tailor", "Optician", "Florería", "Çay Evi"];

/// What a business does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trade {
    /// Reaches some fifty people a day.
    Shop,
    /// Passcodes: a fifth of all people a day (20,000 at 100,000 people), nobody answers, all of it wanted.
    Passcodes,
    /// News of flights.
    Airline,
    /// Answers who writes first.
    Care,
    /// Planted: a number that is new in a portfolio of shops.
    Added,
}

/// The businesses of a world: indices `0..shops`, then one of each other trade, then numbers that are added to the shops' portfolios.
#[derive(Debug, Clone, Copy)]
pub(super) struct Businesses {
    shops: u32,
    people: u64,
}

impl Businesses {
    /// One shop for 400 people, at least 20.
    pub(super) fn new(people: u64) -> Self {
        Self { shops: ((people / 400).clamp(20, 25_000)) as u32, people }
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u32 {
        self.shops + 3
    }

    /// How many shops there are.
    pub(super) const fn shops(&self) -> u32 {
        self.shops
    }

    /// Index of the passcode sender.
    pub(super) const fn passcodes(&self) -> u32 {
        self.shops
    }

    /// Index of the airline.
    pub(super) const fn airline(&self) -> u32 {
        self.shops + 1
    }

    /// Index of the care bot.
    pub(super) const fn care(&self) -> u32 {
        self.shops + 2
    }

    /// Index of the number that is added as the `nth`: to the portfolio of as many shops from the last back.
    pub(super) const fn added(&self, nth: u32) -> u32 {
        self.count() + nth
    }

    /// What the business does.
    pub(super) const fn trade(&self, business: u32) -> Trade {
        match business.checked_sub(self.shops) {
            None => Trade::Shop,
            Some(0) => Trade::Passcodes,
            Some(1) => Trade::Airline,
            Some(2) => Trade::Care,
            Some(_) => Trade::Added,
        }
    }

    /// Writes the business's identifier over what stands in `out`.
    pub(super) fn write_id(&self, business: u32, out: &mut String) {
        out.clear();
        // Writing to a String cannot fail.
        let _ = match self.trade(business) {
            Trade::Shop => write!(out, "shop-{business:06}"),
            Trade::Passcodes => write!(out, "passcode-sender"),
            Trade::Airline => write!(out, "airline"),
            Trade::Care => write!(out, "care-bot"),
            Trade::Added => write!(out, "added-{:06}", business - self.count()),
        };
    }

    /// Whether it moves on a day of the world, counted from 0. Follows from nothing that anything else is drawn from.
    pub(super) const fn moves_on(&self, business: u32, day: u32) -> bool {
        mix2(0x6d6f_7665, (day as u64) << 32 | business as u64).is_multiple_of(DAYS_AT_ONE_PLACE)
    }

    /// What it calls itself from a day of the world on, if it is a shop by the place that it is at.
    pub(super) fn name(&self, business: u32, day: u32) -> String {
        let of =
            |list: &[&'static str], number: u64| list.get((number % list.len() as u64) as usize).copied().unwrap_or_default();
        match self.trade(business) {
            Trade::Shop | Trade::Added => {
                let place = mix2(0x0070_6c61_6365, u64::from(day) << 32 | u64::from(business));
                format!("{} {} {business}", of(&PLACES, place), of(&WARES, u64::from(business)))
            }
            Trade::Passcodes => "Passcodes".to_owned(),
            Trade::Airline => "Starling Air".to_owned(),
            Trade::Care => "Care Bot".to_owned(),
        }
    }

    /// Writes the portfolio's identifier over what stands in `out`: two shops have one together.
    pub(super) fn write_portfolio(&self, business: u32, out: &mut String) {
        out.clear();
        let _ = match self.trade(business) {
            Trade::Shop => write!(out, "portfolio-{:06}", business / 2),
            Trade::Added => {
                let portfolios = self.shops.div_ceil(2);
                write!(out, "portfolio-{:06}", portfolios - 1 - (business - self.count()) % portfolios)
            }
            other => write!(out, "portfolio-{}", other as u8),
        };
    }

    /// Template category and name of one of its messages.
    pub(super) const fn template(&self, business: u32) -> (BusinessCategory, &'static str) {
        match self.trade(business) {
            // Planted shops have even numbers, and advertise.
            Trade::Shop if business.is_multiple_of(2) => (BusinessCategory::Marketing, "season_sale"),
            Trade::Shop => (BusinessCategory::Utility, "order_update"),
            Trade::Added => (BusinessCategory::Marketing, "grand_opening"),
            Trade::Passcodes => (BusinessCategory::Authentication, "login_code"),
            Trade::Airline => (BusinessCategory::Utility, "flight_news"),
            Trade::Care => (BusinessCategory::Service, "answer"),
        }
    }

    /// Category and name of a template by its number: 0 is its usual one, others are new, and advertise.
    pub(super) fn numbered_template(&self, business: u32, number: u16) -> (BusinessCategory, String) {
        match (self.template(business), number) {
            ((category, name), 0) => (category, name.to_owned()),
            (_, number) => (BusinessCategory::Marketing, format!("offer_{number}")),
        }
    }

    /// Messaging limit: the smallest that three times the usual reach fits in; 250 for shops.
    pub(super) const fn tier(&self, business: u32) -> BusinessTier {
        let per_1000 = match self.trade(business) {
            Trade::Shop => return BusinessTier::T250,
            Trade::Added => return BusinessTier::T2k,
            Trade::Passcodes => return BusinessTier::Unlimited,
            Trade::Airline => FLIGHTS_PER_1000,
            Trade::Care => CARE_PER_1000,
        };
        match self.people * per_1000 * 3 / 1000 {
            0..=2_000 => BusinessTier::T2k,
            2_001..=10_000 => BusinessTier::T10k,
            10_001..=100_000 => BusinessTier::T100k,
            _ => BusinessTier::Unlimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_business_has_its_own_identifier() {
        let all = Businesses::new(100_000);
        let mut seen = HashSet::new();
        for business in 0..all.count() + 9 {
            let mut id = String::new();
            all.write_id(business, &mut id);
            assert!(seen.insert(id));
        }
        let portfolio = |business| {
            let mut name = String::new();
            all.write_portfolio(business, &mut name);
            name
        };
        assert_eq!(portfolio(all.added(0)), portfolio(all.shops() - 1), "the last shop's");
        assert_eq!(portfolio(all.added(1)), portfolio(all.shops() - 3));
        assert_eq!((all.trade(all.added(0)), all.trade(all.care())), (Trade::Added, Trade::Care));
        assert_eq!(all.trade(all.care()), Trade::Care);
    }

    #[test]
    fn shops_move_now_and_then_and_keep_what_they_sell() {
        let all = Businesses::new(10_000_000);
        let days = |business: u32| (1..30).filter(|day| all.moves_on(business, *day)).collect::<Vec<_>>();
        let moves: usize = (0..1_000).map(|business| days(business).len()).sum();
        assert!((3_200..4_000).contains(&moves), "29 days of 1,000 shops, one of eight: {moves}");
        assert_ne!(days(0), days(1));
        let renamed = (0..1_000).filter(|business| all.name(*business, 0) != all.name(*business, 1)).count();
        assert!(renamed > 800, "{renamed}");
        for business in 0..all.count() {
            let name = all.name(business, 3);
            assert!(name.len() < 40 && name.chars().filter(char::is_ascii_digit).count() < 7, "{name}: no number to call");
            assert_eq!(name.rsplit(' ').next(), all.name(business, 0).rsplit(' ').next());
        }
    }

    #[test]
    fn tiers_leave_room_for_legitimate_reach() {
        for people in [1_000, 100_000, 10_000_000] {
            let all = Businesses::new(people);
            assert_eq!(all.tier(0), BusinessTier::T250);
            assert_eq!(all.tier(all.passcodes()), BusinessTier::Unlimited);
        }
        assert_eq!(Businesses::new(10_000_000).tier(Businesses::new(10_000_000).airline()), BusinessTier::Unlimited);
        assert_eq!(Businesses::new(1_000).tier(22), BusinessTier::T2k);
    }
}
