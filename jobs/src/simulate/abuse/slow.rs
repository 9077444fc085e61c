//! Senders who take days: alone, together, and with replies that they pay for.

use starling_schemas::ids::DAY_MS;

use super::super::activity::{Kind, flag};
use super::super::truth::Planted;
use super::{BOUGHT_A_DAY, BUYER_A_DAY, HOUR, MINUTE, Script};

impl Script<'_, '_> {
    /// New people every day, over ten hours; three in ten of them are paid for and answer, of the others one in fifty.
    pub(super) fn buyer(mut self) -> Planted {
        let days = i64::from(self.cast.settings.days);
        let first = self.people.people + self.cast.members() + self.nth * (days * BOUGHT_A_DAY) as u32;
        let (mut at, mut count) = (self.begin, 0);
        for nth in 0..days * BUYER_A_DAY {
            let (day, of_day) = (nth / BUYER_A_DAY, nth % BUYER_A_DAY);
            at = self.begin + day * DAY_MS + of_day * 10 * HOUR / BUYER_A_DAY + i64::from(self.draw.below(600_000));
            let is_bought = of_day * BOUGHT_A_DAY / BUYER_A_DAY != (of_day + 1) * BOUGHT_A_DAY / BUYER_A_DAY;
            let person = if is_bought {
                first + (day * BOUGHT_A_DAY + of_day * BOUGHT_A_DAY / BUYER_A_DAY) as u32
            } else {
                self.somebody()
            };
            self.push(at, self.actor, Kind::ToPerson, person, 0, flag::NEW_THREAD);
            count += 1;
            if is_bought || self.draw.permille(20) {
                let answered = at + MINUTE + i64::from(self.draw.below(4 * HOUR as u32));
                self.push(answered, person, Kind::ToPerson, self.actor, 0, flag::REPLY);
            }
        }
        self.sender(Some("slow_bulk"), self.begin, at, count)
    }

    /// Of a cohort: ten strangers a day for three days, or a newcomer's few.
    pub(super) fn member(mut self, abusive: bool) -> Planted {
        let (mut first, mut last, mut count) = (i64::MAX, self.begin, 0);
        // One newcomer in ten writes to eight new people a day, the others to none to four.
        let usual = if self.draw.below(10) == 0 { 8 } else { i64::from(self.draw.below(5)) };
        for day in 0..3 {
            let a_day = if abusive { 8 + i64::from(self.draw.below(5)) } else { usual };
            for nth in 0..a_day {
                let jitter = i64::from(self.draw.below(45 * MINUTE as u32));
                let at = self.begin + day * DAY_MS + nth * 10 * HOUR / a_day + jitter;
                let person = self.somebody();
                self.push(at, self.actor, Kind::ToPerson, person, 0, flag::NEW_THREAD);
                (first, last, count) = (first.min(at), last.max(at), count + 1);
                if self.draw.permille(if abusive { 20 } else { 500 }) {
                    let within = if self.draw.below(2) == 0 { 50 * MINUTE } else { 8 * HOUR };
                    let answered = at + MINUTE + i64::from(self.draw.below(within as u32));
                    self.push(answered, person, Kind::ToPerson, self.actor, 0, flag::REPLY);
                }
            }
        }
        let rule = abusive.then_some("coordinated_senders");
        self.sender(rule, first.min(last), last, count)
    }

    /// New people every day, over ten hours. `answers`: of 1,000 of them, within hours.
    pub(super) fn slow_sender(mut self, rule: Option<&str>, a_day: i64, answers: u32) -> Planted {
        let days = i64::from(self.cast.settings.days);
        let (mut at, mut count) = (self.begin, 0);
        for nth in 0..days * a_day {
            let (day, of_day) = (nth / a_day, nth % a_day);
            at = self.begin + day * DAY_MS + of_day * 10 * HOUR / a_day + i64::from(self.draw.below(600_000));
            let person = self.somebody();
            self.push(at, self.actor, Kind::ToPerson, person, 0, flag::NEW_THREAD);
            count += 1;
            if self.draw.permille(answers) {
                let answered = at + MINUTE + i64::from(self.draw.below(4 * HOUR as u32));
                self.push(answered, person, Kind::ToPerson, self.actor, 0, flag::REPLY);
            }
        }
        self.sender(rule, self.begin, at, count)
    }
    /// Everybody one knows, written to anew within three hours; seven in ten answer.
    pub(super) fn new_phone(mut self) -> Planted {
        const PEOPLE: i64 = 60;
        let mut at = self.begin;
        for nth in 0..PEOPLE {
            at = self.begin + nth * 3 * HOUR / PEOPLE + i64::from(self.draw.below(120_000));
            let person = self.somebody();
            self.push(at, self.actor, Kind::ToPerson, person, 0, flag::NEW_THREAD);
            if self.draw.permille(700) {
                let answered = at + MINUTE + i64::from(self.draw.below(3 * HOUR as u32));
                self.push(answered, person, Kind::ToPerson, self.actor, 0, flag::REPLY);
            }
        }
        self.sender(None, self.begin, at, PEOPLE as u64)
    }
}
