//! New templates of businesses that are known.

use super::super::activity::Kind;
use super::super::truth::Planted;
use super::{MINUTE, SECOND, Script};

/// Number of the new template.
const NEW: u16 = 1;

impl Script<'_, '_> {
    /// A shop's first batch of a template that it did not send before.
    pub(super) fn new_template(&mut self, abusive: bool) -> Planted {
        // Odd shops that no other script has anything to do with.
        let shop = (self.nth + self.cast.businesses * if abusive { 3 } else { 1 }) * 2 + 1;
        let (people, span_ms) = (100 + self.draw.below(81), (20 + i64::from(self.draw.below(71))) * MINUTE);
        let objecting_permille = if abusive { 100 + self.draw.below(201) } else { 1 + self.draw.below(6) };
        let answer_ms = f64::from(5 + self.draw.below(36)) * MINUTE as f64;
        let (mut end, mut objections) = (self.begin, 0);
        for nth in 0..people {
            let person = self.somebody();
            let at = self.begin + span_ms * i64::from(nth) / i64::from(people);
            self.push(at, person, Kind::BusinessSent, shop, NEW, 0);
            self.push(at + 2 * SECOND, person, Kind::BusinessDelivered, shop, NEW, 0);
            end = end.max(at);
            if !self.draw.permille(objecting_permille) {
                continue;
            }
            let later = at + MINUTE + i64::from(self.draw.exponential(answer_ms));
            let kind = if self.draw.permille(750) { Kind::BlockBusiness } else { Kind::ReportBusiness };
            self.push(later, person, kind, shop, NEW << 8, 0);
            (end, objections) = (end.max(later), objections + 1);
        }
        let mut subject = String::new();
        self.businesses.write_id(shop, &mut subject);
        let (rule, count) = if abusive { (Some("business_template"), objections) } else { (None, u64::from(people)) };
        self.planted(rule, "business", subject, self.begin, end, count)
    }
}
