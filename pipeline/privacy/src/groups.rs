//! Public groups: the list of groups of a statistic is known before anybody looks at the data.
//!
//! A group that appeared only because somebody is in it would tell that somebody is in it. So every combination of the dimensions' public
//! lists is a group, is summed (to zero, if nobody is there) and gets noise.

use starling_schemas::codes::{COUNTRIES, Conversation, Country, PlatformCode};
use starling_schemas::metrics::{Dimension, Metric};

use crate::PrivacyError;

/// More groups than this are refused: each costs a draw, and a table of mostly noise helps nobody.
const MOST_GROUPS: usize = 1 << 20;

/// Marks an activity that the metric does not count.
const NOT_COUNTED: u32 = u32::MAX;

/// The cross product of a metric's dimensions, and which group a person row belongs to. A group is its position in that product, the
/// last dimension running fastest.
///
/// # Privacy
/// Made from the metric's text and from the closed lists of `starling_schemas::codes` alone.
pub struct PublicGroups {
    dimensions: Vec<Dimension>,
    count: usize,
    /// By packed country: what it adds to the position.
    by_country: Vec<u32>,
    by_platform: [u32; 256],
    by_activity: [u32; 256],
}

/// The values of a dimension, in the order of its public list.
fn values(dimension: Dimension) -> Vec<&'static str> {
    match dimension {
        Dimension::Country => COUNTRIES.to_vec(),
        Dimension::Platform => PlatformCode::ALL.iter().map(|p| p.name()).collect(),
        Dimension::ConversationKind => Conversation::ALL.iter().map(|c| c.name()).collect(),
    }
}

impl PublicGroups {
    /// Lists the groups of `metric`.
    ///
    /// # Errors
    /// [`PrivacyError::Definition`] for a dimension named twice, an activity that has no value of a dimension, or too many groups.
    pub fn of(metric: &Metric) -> Result<Self, PrivacyError> {
        let wrong = |what: String| PrivacyError::Definition { metric: metric.name.clone(), what };
        let mut count = 1_usize;
        let (mut country_stride, mut platform_stride, mut conversation_stride) = (0_u32, 0_u32, 0_u32);
        for dimension in metric.dimensions.iter().rev() {
            let stride = match dimension {
                Dimension::Country => &mut country_stride,
                Dimension::Platform => &mut platform_stride,
                Dimension::ConversationKind => &mut conversation_stride,
            };
            if *stride != 0 {
                return Err(wrong(format!("dimensions: `{}` is named twice", dimension.name())));
            }
            *stride = u32::try_from(count).unwrap_or(u32::MAX);
            count = count.saturating_mul(values(*dimension).len());
            if count > MOST_GROUPS {
                return Err(wrong(format!("dimensions: more than {MOST_GROUPS} groups; leave one dimension out")));
            }
        }

        let unknown = position(COUNTRIES.binary_search(&Country::UNKNOWN.name()).unwrap_or(COUNTRIES.len() - 1));
        let mut by_country = vec![unknown * country_stride; usize::from(u16::MAX) + 1];
        for (at, name) in COUNTRIES.iter().enumerate() {
            let packed = Country::parse(name).unwrap_or(Country::UNKNOWN).code();
            if let Some(slot) = by_country.get_mut(usize::from(packed)) {
                *slot = position(at) * country_stride;
            }
        }
        let mut by_platform = [0; 256];
        for (code, slot) in (0..=u8::MAX).zip(&mut by_platform) {
            let platform = PlatformCode::from_code(code).unwrap_or(PlatformCode::Unknown);
            *slot = position(PlatformCode::ALL.iter().position(|p| *p == platform).unwrap_or(0)) * platform_stride;
        }
        let mut by_activity = [NOT_COUNTED; 256];
        for activity in &metric.activities {
            let slot = &mut by_activity[usize::from(activity.code())];
            *slot = if conversation_stride == 0 {
                0
            } else {
                let kind = activity.conversation().and_then(|kind| Conversation::ALL.iter().position(|c| *c == kind));
                let kind =
                    kind.ok_or_else(|| wrong(format!("`{activity}` has no conversation kind; leave out one of the two")))?;
                position(kind) * conversation_stride
            };
        }
        Ok(Self { dimensions: metric.dimensions.clone(), count, by_country, by_platform, by_activity })
    }

    /// How many groups there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The dimensions, in the metric's order.
    #[must_use]
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// The values of the `index`-th dimension, one per group, in group order. Empty if there is no such dimension.
    #[must_use]
    pub fn labels(&self, index: usize) -> Vec<&'static str> {
        let Some(dimension) = self.dimensions.get(index) else { return Vec::new() };
        let own = values(*dimension);
        let stride: usize = self.dimensions.iter().skip(index + 1).map(|d| values(*d).len()).product();
        let once = own.into_iter().flat_map(|v| std::iter::repeat_n(v, stride));
        once.collect::<Vec<_>>().into_iter().cycle().take(self.count).collect()
    }

    /// The group of a person row; `None` if its activity does not count. Codes outside the lists are the lists' "unknown".
    #[inline]
    #[must_use]
    pub fn of_row(&self, country: u16, platform: u8, activity: u8) -> Option<u32> {
        let activity = self.by_activity[usize::from(activity)];
        let country = self.by_country.get(usize::from(country)).copied().unwrap_or_default();
        (activity != NOT_COUNTED).then(|| country + self.by_platform[usize::from(platform)] + activity)
    }
}

/// Positions in the closed lists are small.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use starling_schemas::codes::Activity;
    use starling_schemas::metrics::Catalogue;

    use super::*;

    fn metric(name: &str) -> Metric {
        Catalogue::builtin().expect("reviewed").metrics.into_iter().find(|m| m.name == name).expect("listed")
    }

    #[test]
    fn every_combination_of_the_public_lists_is_a_group_once() {
        let groups = PublicGroups::of(&metric("messages_daily")).expect("sound");
        assert_eq!(groups.count(), COUNTRIES.len() * Conversation::ALL.len());
        let pairs: std::collections::BTreeSet<_> = groups.labels(0).into_iter().zip(groups.labels(1)).collect();
        assert_eq!(pairs.len(), groups.count());
        assert_eq!(groups.labels(2), Vec::<&str>::new());
    }

    #[test]
    fn a_row_falls_into_the_group_with_its_own_labels() {
        let groups = PublicGroups::of(&metric("people_served_daily")).expect("sound");
        let (countries, platforms) = (groups.labels(0), groups.labels(1));
        for country in COUNTRIES {
            for platform in PlatformCode::ALL {
                let packed = Country::parse(country).expect("listed").code();
                let group = groups.of_row(packed, platform.code(), Activity::CallVoice.code()).expect("active");
                let at = usize::try_from(group).expect("small");
                assert_eq!((countries[at], platforms[at]), (*country, platform.name()));
            }
        }
        let messages = PublicGroups::of(&metric("messages_daily")).expect("sound");
        let packed = Country::parse("DE").expect("listed").code();
        let group = messages.of_row(packed, 1, Activity::MessageBusiness.code()).expect("a message");
        let at = usize::try_from(group).expect("small");
        assert_eq!((messages.labels(0)[at], messages.labels(1)[at]), ("DE", "business"));
    }

    #[test]
    fn what_does_not_count_has_no_group_and_what_is_unlisted_is_unknown() {
        let groups = PublicGroups::of(&metric("people_served_daily")).expect("sound");
        assert_eq!(groups.of_row(0, 1, Activity::BusinessDelivered.code()), None, "done to the person, not by them");
        assert_eq!(groups.of_row(0, 1, 0), None);
        let unlisted = groups.of_row(0, 250, Activity::CallVoice.code()).expect("counted");
        assert_eq!(Some(unlisted), groups.of_row(Country::UNKNOWN.code(), 0, Activity::CallVoice.code()));
    }

    #[test]
    fn a_metric_without_dimensions_has_one_group() {
        let mut total = metric("call_minutes_daily");
        total.dimensions.clear();
        let groups = PublicGroups::of(&total).expect("sound");
        assert_eq!(groups.count(), 1);
        assert_eq!(groups.of_row(7, 7, Activity::CallVideo.code()), Some(0));
    }

    #[test]
    fn a_definition_that_cannot_be_grouped_says_why() {
        let mut twice = metric("call_minutes_daily");
        twice.dimensions.push(Dimension::Country);
        let text = PublicGroups::of(&twice).err().expect("refused").to_string();
        assert_eq!(text, "metric call_minutes_daily: dimensions: `country` is named twice");
        let mut calls = metric("call_minutes_daily");
        calls.dimensions.push(Dimension::ConversationKind);
        let text = PublicGroups::of(&calls).err().expect("refused").to_string();
        assert_eq!(text, "metric call_minutes_daily: `call_voice` has no conversation kind; leave out one of the two");
    }
}
