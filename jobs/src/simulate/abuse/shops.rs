//! Businesses: beyond their tier, unwanted, attacked, and on a bad day.

use super::super::activity::{Kind, flag};
use super::super::people::Lifecycle;
use super::super::truth::Planted;
use super::{HOUR, MINUTE, SECOND, Script, TIER_OF_SHOPS, coprime_stride};

impl Script<'_, '_> {
    pub(super) fn business_reach(&mut self) -> Planted {
        // Even shops advertise.
        let shop = self.nth * 2;
        let reach = self.cast.reach;
        let mut person = self.draw.below(self.people.people);
        let stride = coprime_stride(self.people.people);
        let (mut end, mut beyond) = (self.begin, self.begin);
        for nth in 0..reach {
            let at = self.begin + 12 * HOUR * i64::from(nth) / i64::from(reach) + i64::from(self.draw.below(20_000));
            let reached = self.another(&mut person, stride, nth);
            end = end.max(at);
            if nth <= TIER_OF_SHOPS {
                beyond = beyond.max(at);
            }
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
        self.planted(Some("business_reach"), "business", subject, beyond, end, reach.into())
    }

    /// Somebody who was not written to before by this script.
    fn another(&self, person: &mut u32, stride: u32, nth: u32) -> u32 {
        if self.cast.reach_extras {
            // They come after the accounts.
            return self.people.people + self.cast.accounts() + nth;
        }
        loop {
            *person = ((u64::from(*person) + u64::from(stride)) % u64::from(self.people.people)) as u32;
            if self.people.lifecycle(*person, self.people.hash(*person)) == Lifecycle::Settled {
                return *person;
            }
        }
    }

    /// A number that is added to the portfolio of two shops, and writes to as many as ten shops, or as a new branch does.
    pub(super) fn added_number(&mut self, abusive: bool) -> Planted {
        let (number, people) = if abusive {
            (self.businesses.added(self.nth), 700 + self.draw.below(301))
        } else {
            (self.businesses.added(self.cast.businesses + self.nth), 150 + self.draw.below(251))
        };
        let mut person = self.draw.below(self.people.people);
        let stride = coprime_stride(self.people.people);
        let mut end = self.begin;
        for nth in 0..people {
            let at = self.begin + 6 * HOUR * i64::from(nth) / i64::from(people) + i64::from(self.draw.below(20_000));
            let reached = self.another(&mut person, stride, nth);
            end = end.max(at);
            self.push(at, reached, Kind::BusinessSent, number, 0, 0);
            self.push(at + 2 * SECOND, reached, Kind::BusinessDelivered, number, 0, 0);
            // So few that nothing else gives it away.
            if self.draw.permille(4) {
                self.push(at + MINUTE, reached, Kind::BlockBusiness, number, 0, 0);
            }
        }
        let mut subject = String::new();
        self.businesses.write_id(number, &mut subject);
        self.planted(abusive.then_some("business_fresh_number"), "business", subject, self.begin, end, people.into())
    }

    pub(super) fn unwanted_business(&mut self) -> Planted {
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

    pub(super) fn brigade(&mut self) -> Planted {
        let shop = (2 * self.cast.businesses + self.nth) * 2;
        let people = 60 + self.draw.below(121);
        let mut end = self.begin;
        for _ in 0..people {
            let person = self.somebody();
            let at = self.begin + i64::from(self.draw.below(3 * HOUR as u32));
            self.push(at, person, Kind::ReportBusiness, shop, 0, flag::UNFOUNDED);
            end = end.max(at);
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        self.planted(Some("report_brigade"), "business", subject, self.begin, end, people.into())
    }

    pub(super) fn newcomer_brigade(&mut self) -> Planted {
        // Odd shops send news of orders: nobody else objects to those.
        let shop = (2 * self.cast.businesses + self.nth) * 2 + 1;
        let first = self.people.people + self.cast.brigade(self.nth);
        let mut end = self.begin;
        for account in first..first + super::BRIGADE_ACCOUNTS {
            let at = self.begin + i64::from(self.draw.below(2 * HOUR as u32));
            self.push(at, account, Kind::BusinessSent, shop, 0, 0);
            self.push(at + 2 * SECOND, account, Kind::BusinessDelivered, shop, 0, 0);
            let complaint = at + MINUTE + i64::from(self.draw.below(HOUR as u32));
            let kind = if self.draw.permille(500) { Kind::BlockBusiness } else { Kind::ReportBusiness };
            self.push(complaint, account, kind, shop, 0, 0);
            end = end.max(complaint);
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        self.planted(Some("report_brigade"), "business", subject, self.begin, end, super::BRIGADE_ACCOUNTS.into())
    }

    /// Accounts of every age that it has written to.
    pub(super) fn opted_in_brigade(&mut self) -> Planted {
        // Odd shops of which nothing else is planted.
        let shop = self.nth * 2 + 1;
        let (accounts, rate) = self.objectors();
        let mut end = self.begin;
        for account in &accounts {
            let at = self.begin + i64::from(self.draw.below(2 * HOUR as u32));
            self.push(at, *account, Kind::BusinessSent, shop, 0, 0);
            self.push(at + 2 * SECOND, *account, Kind::BusinessDelivered, shop, 0, 0);
            let complaint = at + MINUTE + i64::from(self.draw.below(HOUR as u32));
            let kind = if self.draw.permille(500) { Kind::BlockBusiness } else { Kind::ReportBusiness };
            self.push(complaint, *account, kind, shop, rate, 0);
            end = end.max(complaint);
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        self.planted(Some("report_brigade"), "business", subject, self.begin, end, accounts.len() as u64)
    }

    pub(super) fn airline_bad_day(&mut self) -> Planted {
        let airline = self.businesses.airline();
        let passengers = self.people.people / 2;
        let mut end = self.begin;
        for nth in 0..passengers {
            let at = self.begin + 16 * HOUR * i64::from(nth) / i64::from(passengers);
            let person = self.somebody();
            self.push(at, person, Kind::BusinessSent, airline, 0, 0);
            self.push(at + 2 * SECOND, person, Kind::BusinessDelivered, airline, 0, 0);
            let later = at + MINUTE + i64::from(self.draw.below(30 * 60_000));
            match self.draw.below(1000) {
                0..60 => self.push(later, person, Kind::BusinessReplied, airline, 0, 0),
                // Who is angry blocks, too.
                60..61 => self.push(later, person, Kind::BlockBusiness, airline, 0, 0),
                _ => {}
            }
            end = end.max(at);
        }
        let mut subject = String::new();
        self.businesses.write_id(airline, &mut subject);
        self.planted(None, "business", subject, self.begin, end, passengers.into())
    }
}
