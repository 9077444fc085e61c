//! What is told of whose voices a business's day of blocks and reports, or a group's hour of reports, is made of.

use starling_schemas::ids::EpochId;

use crate::alert::small;
use crate::businesses::Day;
use crate::hours::Figures;
use crate::rules::{ReportBrigade, Rules};
use crate::voices::{Crowd, WHOLE};

/// Blocks and reports of older accounts, of what had been delivered.
fn of_older(day: &Day) -> u32 {
    day.objections.saturating_sub(day.young)
}

/// What was left out of `counted`, where it is ten or more.
pub(super) fn left_out(day: &Day, counted: u32) -> Vec<String> {
    let voices = &day.voices;
    let mut told = Vec::new();
    let young = day.young.saturating_sub(counted.saturating_sub(voices.counted()));
    if young >= 10 {
        told.push(format!("{young} more by accounts of their first week were not counted"));
    }
    told.extend(together(voices.crowd()));
    let often = voices.several.saturating_add(voices.many);
    let lighter = of_older(day).saturating_sub(voices.quarters.div_ceil(WHOLE.into()));
    if lighter >= 10 {
        told.push(format!("{often} were by accounts that object often, and weighed as {}", small(often.saturating_sub(lighter))));
    }
    told
}

/// What was left out of those whose accounts were registered together, where it is ten or more.
pub(super) fn together(crowd: Crowd) -> Option<String> {
    let whole = u32::from(WHOLE);
    (crowd.quarters.saturating_sub(crowd.counted) >= 10 * whole).then(|| {
        let counted = small(crowd.counted / whole);
        format!("{} were by accounts that were registered together, and counted as {counted}", crowd.voices)
    })
}

/// What is not known of whose they are.
pub(super) fn not_known(voices: u32) -> Option<String> {
    (voices > 0)
        .then(|| format!("of {} it is not known with whom their accounts were registered: they are not capped", small(voices)))
}

/// What of a group's hour of reports seems to be by arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArrangedInGroup {
    suspicious: u32,
    others: u32,
    crowd: u32,
    lighter: u32,
}

impl ArrangedInGroup {
    /// Those that are together, or as many of the lightest as would be weighed off as much, whichever are more: one voice may be both.
    pub(super) fn of(rules: &Rules, seen: &Figures) -> Self {
        let off = u32::from(WHOLE.saturating_sub(rules.business_blocks.voices.many));
        let (crowd, lighter) = (seen.crowd.voices, seen.lighter.checked_div(off).unwrap_or(0));
        let suspicious = crowd.max(lighter);
        Self { suspicious, others: seen.reported.saturating_sub(suspicious), crowd, lighter }
    }

    fn share(&self) -> f64 {
        f64::from(self.suspicious) / f64::from(self.suspicious.saturating_add(self.others).max(1))
    }

    /// The number as it is told: what falls below ten is none.
    pub(super) const fn told(&self) -> u32 {
        if self.suspicious < 10 { 0 } else { self.suspicious }
    }

    /// Where others report as well, no number is a brigade.
    pub(super) fn threshold(&self, rules: &Rules) -> u32 {
        let rule = &rules.group_report_brigade;
        if self.share() >= rule.share { rule.reports } else { self.suspicious.saturating_add(1).max(rule.reports) }
    }

    /// From where, and how many of all they are. No kind's number is told: one under ten could be computed.
    pub(super) fn explanation(&self) -> String {
        let kinds = [
            (self.crowd, "from accounts that were registered together"),
            (self.lighter, "from accounts of their first week or such as object often"),
        ];
        let known: Vec<&str> = kinds.iter().filter(|(n, _)| *n >= 10).map(|(_, kind)| *kind).collect();
        let whose = if known.is_empty() { kinds.map(|(_, kind)| kind).join(" or ") } else { known.join(" or ") };
        let of_all = if self.others < 10 { "nearly all".to_owned() } else { format!("{:.0} %", self.share() * 100.0) };
        format!("came {whose}, {of_all} of all: it seems to be reported by arrangement. group_reports counts few of them.")
    }

    pub(super) fn counter_evidence(&self) -> Vec<String> {
        let mut told = vec![format!("{} reports came from others", small(self.others))];
        if self.crowd >= 10 {
            told.push("people who were registered together, as those of one company are, may report for one reason".to_owned());
        }
        if self.lighter >= 10 {
            told.push("a group of newcomers is reported by newcomers".to_owned());
        }
        told
    }
}

/// What of a day seems to be by arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arranged {
    pub(super) suspicious: u32,
    /// What is held against that.
    pub(super) others: u32,
    /// Of the suspicious ones, those of older accounts that it had written to: registered together, or objecting all the time, whichever are more.
    pub(super) voices: u32,
    crowd: Crowd,
}

impl Arranged {
    /// Reports by people to whom nothing was delivered, and what accounts of their first week say, against reports by others: if they are enough. Else these
    /// and whose voices are together, or heard all the time, against everything else of the day.
    pub(super) fn of(rule: &ReportBrigade, day: &Day) -> Self {
        // Blocks ask for no delivery, and those of older accounts say nothing of it.
        let strangers = day.unfounded.saturating_add(day.young);
        let others = day.reported.saturating_sub(day.young_reported);
        let crowd = day.voices.crowd();
        let by_strangers = Self { suspicious: strangers, others, voices: 0, crowd };
        // One voice may be both.
        let voices = crowd.voices.max(day.voices.many);
        if voices == 0 || by_strangers.holds(rule) {
            return by_strangers;
        }
        Self { suspicious: strangers.saturating_add(voices), others: of_older(day).saturating_sub(voices), voices, crowd }
    }

    /// Of all that is looked at.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.suspicious) / f64::from(self.suspicious.saturating_add(self.others).max(1))
    }

    pub(super) fn holds(&self, rule: &ReportBrigade) -> bool {
        self.suspicious >= rule.reports && self.share() >= rule.share
    }

    /// Where others object as well, no number is a brigade.
    pub(super) fn threshold(&self, rule: &ReportBrigade) -> u32 {
        if self.share() >= rule.share { rule.reports } else { self.suspicious.saturating_add(1).max(rule.reports) }
    }

    /// The number as it is told: what falls below ten is none.
    pub(super) const fn told(&self) -> u32 {
        if self.suspicious < 10 { 0 } else { self.suspicious }
    }

    /// Whose they are, by the kinds of which there are ten or more. No kind's number is told: one under ten could be computed.
    fn whose(&self, day: &Day) -> String {
        let kinds = [
            (day.unfounded, "from people to whom it had delivered nothing"),
            (day.young, "from accounts of their first week"),
            (self.crowd.voices, "from accounts that were registered together"),
            (day.voices.many, "from accounts that object all the time"),
        ];
        let known: Vec<&str> = kinds.iter().filter(|(n, _)| *n >= 10).map(|(_, kind)| *kind).collect();
        if known.is_empty() { kinds.map(|(_, kind)| kind).join(" or ") } else { known.join(" or ") }
    }

    pub(super) fn explanation(&self, day: &Day) -> String {
        let on = EpochId(day.day);
        let of_all = if self.others < 10 { "nearly all".to_owned() } else { format!("{:.0} %", self.share() * 100.0) };
        if self.voices > 0 {
            return format!(
                "{} blocks and reports of a business on {on} came {}, {of_all} of all that day: it seems to be objected to by arrangement. business_blocks counts few of them.",
                small(self.suspicious),
                self.whose(day)
            );
        }
        // Neither a split nor a share is told from which a number under ten could be computed.
        let split = match (day.unfounded, day.young) {
            (10.., 10..) => format!(" ({} and {})", day.unfounded, day.young),
            _ => String::new(),
        };
        format!(
            "{} blocks and reports of a business on {on} came from people to whom it had delivered nothing or from accounts of their first week{split}, {of_all} of them and the reports of others that day: it seems to be reported by arrangement. business_blocks counts none of the former, and few of the latter.",
            small(self.suspicious)
        )
    }

    pub(super) fn counter_evidence(&self) -> Vec<String> {
        if self.voices == 0 {
            return vec![
                format!("{} reports came from older accounts that it had written to", small(self.others)),
                "a business that writes to newcomers is objected to by newcomers".to_owned(),
            ];
        }
        let mut told = vec![format!("{} blocks and reports came from other accounts that it had written to", small(self.others))];
        if self.crowd.voices >= 10 {
            told.push("people who were registered together, as those of one company are, may object for one reason".to_owned());
        }
        told
    }
}
