//! Groups that fill: with strangers at once, by a link that is handed round, and as groups do.

use super::super::activity::Kind;
use super::super::truth::Planted;
use super::{MINUTE, SECOND, Script};

impl Script<'_, '_> {
    pub(super) fn mass_add(&mut self) -> Planted {
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

    pub(super) fn wedding(&mut self) -> Planted {
        let (group, hex) = self.group();
        self.push(self.begin, self.actor, Kind::GroupCreated, group, 4, 0);
        let mut at = self.begin;
        for batch in 0..16 {
            at = self.begin + 2 * MINUTE + batch * 3 * MINUTE + i64::from(self.draw.below(90_000));
            let strangers = u16::from(batch == 9);
            self.push(at, self.actor, Kind::MembersAdded, group, (13 << 8) | strangers, 0);
            self.push(at + 20 * SECOND, self.actor, Kind::ToGroup, group, 0, 0);
        }
        self.planted(None, "group", hex, self.begin + 2 * MINUTE, at, 208)
    }

    /// A group that is reported: by arrangement, or by people who know nothing of each other.
    pub(super) fn reported_group(&mut self, arranged: bool) -> Planted {
        let (group, hex) = self.group();
        let owner = self.somebody();
        self.push(self.begin - 30 * MINUTE, owner, Kind::ToGroup, group, 0, 0);
        let (people, rate, within) = if arranged {
            let (people, rate) = self.objectors();
            (people, rate, 90 * MINUTE)
        } else {
            let people = 60 + self.draw.below(41);
            ((0..people).map(|_| self.somebody()).collect(), 0, 50 * MINUTE)
        };
        let mut end = self.begin;
        for person in &people {
            let at = self.begin + i64::from(self.draw.below(within as u32));
            self.push(at, *person, Kind::GroupReported, group, rate, 0);
            end = end.max(at);
        }
        let rule = if arranged { "group_report_brigade" } else { "group_reports" };
        self.planted(Some(rule), "group", hex, self.begin, end, people.len() as u64)
    }

    pub(super) fn invite_hopping(&mut self) -> Planted {
        let (group, hex) = self.group();
        let joins = 150 + self.draw.below(251);
        let mut end = self.begin;
        for nth in 0..joins {
            let at = self.begin + 20 * MINUTE * i64::from(nth) / i64::from(joins) + i64::from(self.draw.below(5_000));
            let person = self.somebody();
            self.push(at, person, Kind::GroupJoined, group, 0, 0);
            end = end.max(at);
            // Many look, post once, and go.
            let after = 30 * SECOND + i64::from(self.draw.exponential(10.0 * MINUTE as f64));
            match self.draw.below(100) {
                0..30 => self.push(at + after, person, Kind::ToGroup, group, 0, 0),
                30..60 => self.push(at + after, person, Kind::GroupLeft, group, (after / MINUTE).min(60_000) as u16, 0),
                _ => {}
            }
        }
        self.planted(Some("group_link_joins"), "group", hex, self.begin, end, joins.into())
    }

    pub(super) fn school(&mut self) -> Planted {
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
}
