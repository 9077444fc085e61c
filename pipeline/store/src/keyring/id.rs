//! How keys are named, in receipts and as files.

use std::fmt;

use starling_schemas::ids::{EpochId, Purpose};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Makes pseudonyms. Dies when its window has closed.
    Pseudonym,
    /// Encrypts rows and state at rest. Its death is their expiry.
    Data,
}

impl KeyKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Pseudonym, Self::Data];

    /// The name in receipts and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pseudonym => "pseudonym",
            Self::Data => "data",
        }
    }
}

/// Which key. Shown as `analytics_day/2026-01-05/pseudonym`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// What it does.
    pub kind: KeyKind,
    /// What it is for.
    pub purpose: Purpose,
    /// Its day, or its hour.
    pub epoch: EpochId,
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.purpose, self.epoch, self.kind.name())
    }
}

impl KeyId {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_parts(text.split('/'))
    }

    /// The file name without its ending: `analytics_day.2026-01-05.pseudonym`.
    pub(super) fn stem(self) -> String {
        format!("{}.{}.{}", self.purpose, self.epoch, self.kind.name())
    }

    /// Reads a file name without its ending.
    pub(super) fn from_stem(stem: &str) -> Option<Self> {
        Self::from_parts(stem.split('.'))
    }

    fn from_parts<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let purpose = parts.next()?;
        let purpose = Purpose::ALL.into_iter().find(|p| p.name() == purpose)?;
        let epoch = EpochId::parse(parts.next()?)?;
        let kind = parts.next()?;
        let kind = KeyKind::ALL.into_iter().find(|k| k.name() == kind)?;
        parts.next().is_none().then_some(Self { kind, purpose, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_purpose_day_and_kind_and_the_name_leads_back() {
        let id = KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsDay, epoch: EpochId(20_458) };
        assert_eq!(id.to_string(), "analytics_day/2026-01-05/pseudonym");
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_eq!(KeyId::from_stem(&id.stem()), Some(id));
        assert_eq!(KeyId::parse("analytics_day/2026-01-05/pseudonym/x"), None);
        let of_an_hour = KeyId { purpose: Purpose::AnalyticsHour, epoch: id.epoch.hour_at(7), ..id };
        assert_eq!(of_an_hour.to_string(), "analytics_hour/2026-01-05T07/pseudonym");
        assert_eq!(
            (KeyId::parse(&of_an_hour.to_string()), KeyId::from_stem(&of_an_hour.stem())),
            (Some(of_an_hour), Some(of_an_hour))
        );
    }
}
