//! Groups made by the dozen, or for a school; and groups that have something which is on a list.

use super::super::activity::{Kind, MADE_GROUPS};
use super::super::truth::{Planted, PlantedKind};
use super::{HOUR, MINUTE, SECOND, Script};

/// Most groups of one account.
const MOST: u32 = 100;
/// Bits of a profile that is on a list.
const NAME: u16 = 1;
const PHOTO: u16 = 4;

impl Script<'_, '_> {
    /// Creates so many groups within `span_ms`, and adds people to each. Returns the last one's time.
    fn make(&mut self, groups: u32, span_ms: i64, are_strangers: bool) -> i64 {
        let first = MADE_GROUPS + ((self.kind as u32) * 1000 + self.nth) * MOST;
        let mut last = self.begin;
        for nth in 0..groups {
            let step = span_ms / i64::from(groups);
            let at = self.begin + step * i64::from(nth) + i64::from(self.draw.below(step.max(2) as u32 - 1));
            self.push(at, self.actor, Kind::GroupCreated, first + nth, 3, 0);
            let people = 8 + self.draw.below(20) as u16;
            let strangers = if are_strangers { people - self.draw.below(4) as u16 } else { self.draw.below(2) as u16 };
            self.push(at + 9 * SECOND, self.actor, Kind::MembersAdded, first + nth, people << 8 | strangers, 0);
            last = at;
        }
        last
    }

    pub(super) fn group_creator(&mut self) -> Planted {
        let groups = 15 + self.draw.below(46);
        let span_ms = HOUR + i64::from(self.draw.below(3 * HOUR as u32));
        let end = self.make(groups, span_ms, true);
        self.sender(Some("group_creation_burst"), self.begin, end, groups.into())
    }

    pub(super) fn secretary(&mut self) -> Planted {
        let groups = 6 + self.draw.below(4);
        let end = self.make(groups, 50 * MINUTE, false);
        self.sender(None, self.begin, end, groups.into())
    }

    /// Sets a group's profile; how often.
    fn profile(&mut self, on_list: u16) -> Planted {
        let (group, hex) = self.group();
        let (person, times) = (self.somebody(), 1 + self.draw.below(3));
        let mut at = self.begin;
        for _ in 0..times {
            at += MINUTE + i64::from(self.draw.below(20 * MINUTE as u32));
            self.push(at, person, Kind::GroupProfile, group, on_list, 0);
        }
        let rule = (self.kind == PlantedKind::ListedGroup).then_some("group_listed");
        self.planted(rule, "group", hex, self.begin, at, times.into())
    }

    pub(super) fn listed_group(&mut self) -> Planted {
        let on_list = match self.draw.below(3) {
            0 => PHOTO,
            1 => PHOTO | NAME,
            _ => NAME,
        };
        self.profile(on_list)
    }

    pub(super) fn common_name(&mut self) -> Planted {
        self.profile(NAME)
    }
}
