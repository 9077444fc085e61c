//! The closed lists that label values come from. There is no other way to make one.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use starling_ingest::events::Step;
use starling_integrity::{BUILT_IN, Kept};
use starling_schemas::codes::{self, Fault, Refusal};
use starling_schemas::ids::Purpose;
use starling_store::{KeyKind, WindowState};

macro_rules! closed {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$vdoc:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The whole list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label's value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        }
    };
}
pub(super) use closed;

closed! {
    /// What a range goes through.
    pub Stage {
        /// Taking its messages out of the client, or out of a trace file.
        Read "read",
        /// Planning it in the metastore.
        Plan "plan",
        /// Decoding, consent, pseudonyms, coarse dimensions.
        Minimize "minimize",
        /// Folding clean rows into person rows, and sorting them.
        Fold "fold",
        /// Encoding and encrypting segments.
        Encode "encode",
        /// Writing segments, with fsync.
        Write "write",
        /// Writing signals, with fsync or the brokers' acknowledgement.
        Signals "signals",
        /// Committing it in the metastore, with fsync.
        Commit "commit",
    }
}

closed! {
    /// A step of a range that is tried again.
    pub(super) Retry {
        Take "take",
        Plan "plan",
        Process "process",
        Commit "commit",
    }
}

impl From<Step> for Retry {
    fn from(step: Step) -> Self {
        match step {
            Step::Take => Self::Take,
            Step::Plan => Self::Plan,
            Step::Process => Self::Process,
            Step::Commit => Self::Commit,
        }
    }
}

closed! {
    /// Work beside ingest that fails and is tried again.
    pub Work {
        /// Closing windows.
        Close "close",
        /// Releasing statistics.
        Release "release",
        /// Sending alerts to their topic.
        PublishAlerts "publish_alerts",
        /// Sending alerts to Alertmanager and webhooks.
        SendAlerts "send_alerts",
        /// Looking whether somebody attacks the pipeline itself.
        OnUs "on_us",
        /// Writing an entry of the audit log before something is shown.
        Audit "audit",
        /// Reading the metastore or the keyring for a scrape.
        Scrape "scrape",
    }
}

closed! {
    /// A kind of receiver of alerts. Which one it was, the log says.
    pub Receiver {
        /// An Alertmanager: one request with many alerts.
        Alertmanager "alertmanager",
        /// A signed webhook: one alert.
        Webhook "webhook",
    }
}

closed! {
    /// How an attempt to deliver ended.
    pub Delivered {
        /// It is there.
        Arrived "delivered",
        /// It is tried again.
        Failed "failed",
        /// It was given up.
        Dead "dead",
    }
}

closed! {
    /// What became of an event (I1).
    pub(super) OutcomeName {
        Counted "counted",
        Late "late",
        Refused "refused",
        Quarantined "quarantined",
    }
}

closed! {
    pub(super) Change {
        Assigned "assigned",
        Revoked "revoked",
    }
}

closed! {
    pub(super) KeyLife {
        Alive "alive",
        Destroyed "destroyed",
    }
}

/// A topic's name as a label: the one of the settings, `trace` for any recording (a file's name is nobody's label), or `other` for what an
/// earlier topic left in the metastore.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Topic(Arc<str>);

impl Topic {
    pub(super) fn configured(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The label of a partition's source.
    pub(super) fn of(&self, source: &str) -> Self {
        if *self.0 == *source {
            self.clone()
        } else if source.starts_with("trace:") {
            Self(Arc::from("trace"))
        } else {
            Self(Arc::from("other"))
        }
    }

    pub(super) fn is(&self, source: &str) -> bool {
        *self.0 == *source
    }
}

impl EncodeLabelValue for Topic {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

/// A name out of one of the lists in `schemas`, `store` and `integrity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Listed(&'static str);

impl Listed {
    pub(super) fn fault(fault: Fault) -> Self {
        Self(fault.name())
    }

    pub(super) fn window(state: WindowState) -> Self {
        Self(state.name())
    }

    /// A rule of this build, or `written` for those that staff write.
    fn rule(name: &str) -> Self {
        Self(BUILT_IN.iter().find(|rule| **rule == name).copied().unwrap_or("written"))
    }
}

impl EncodeLabelValue for Listed {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TopicLabel {
    pub(super) topic: Topic,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabel {
    pub(super) topic: Topic,
    pub(super) partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    topic: Topic,
    outcome: OutcomeName,
}

impl Outcome {
    pub(super) fn of(topic: &Topic, outcome: codes::Outcome) -> Self {
        let outcome = match outcome {
            codes::Outcome::Counted => OutcomeName::Counted,
            codes::Outcome::Late => OutcomeName::Late,
            codes::Outcome::Refused(_) => OutcomeName::Refused,
            codes::Outcome::Quarantined(_) => OutcomeName::Quarantined,
        };
        Self { topic: topic.clone(), outcome }
    }

    pub(super) fn all(topic: &Topic) -> impl Iterator<Item = Self> {
        OutcomeName::ALL.iter().map(|outcome| Self { topic: topic.clone(), outcome: *outcome })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    topic: Topic,
    reason: Listed,
}

impl Reason {
    pub(super) fn of(topic: &Topic, reason: Refusal) -> Self {
        Self { topic: topic.clone(), reason: Listed(reason.name()) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Class {
    topic: Topic,
    class: Listed,
}

impl Class {
    pub(super) fn of(topic: &Topic, class: Fault) -> Self {
        Self { topic: topic.clone(), class: Listed::fault(class) }
    }
}

/// A class of quarantined events over all topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClassLabel {
    pub(super) class: Listed,
}

/// A rule, and why what it finds is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct KeptLabel {
    rule: Listed,
    reason: Listed,
}

impl KeptLabel {
    /// `None` for a reason that is none.
    pub(super) fn of(rule: &str, kept_for: &str) -> Option<Self> {
        let reason = Kept::ALL.into_iter().find(|kept| kept.name() == kept_for)?;
        Some(Self { rule: Listed::rule(rule), reason: Listed(reason.name()) })
    }

    /// Every combination there is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let rules = BUILT_IN.into_iter().chain(["written"]).map(Listed::rule);
        rules.flat_map(|rule| Kept::ALL.into_iter().map(move |kept| Self { rule, reason: Listed(kept.name()) }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabel {
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StepLabel {
    pub(super) step: Retry,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WorkLabel {
    pub(super) work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeliveryLabel {
    pub(super) receiver: Receiver,
    pub(super) outcome: Delivered,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Direction {
    change: Change,
}

impl Direction {
    pub(super) fn of(assigned: bool) -> Self {
        Self { change: if assigned { Change::Assigned } else { Change::Revoked } }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        Change::ALL.iter().map(|change| Self { change: *change })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WindowLabel {
    pub(super) state: Listed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct KeyLabel {
    purpose: Listed,
    kind: Listed,
    state: Listed,
}

impl KeyLabel {
    pub(super) fn of(purpose: Purpose, kind: KeyKind, alive: bool) -> Self {
        Self::in_life(purpose, kind, if alive { KeyLife::Alive } else { KeyLife::Destroyed })
    }

    fn in_life(purpose: Purpose, kind: KeyKind, life: KeyLife) -> Self {
        Self { purpose: Listed(purpose.name()), kind: Listed(kind.name()), state: Listed(life.name()) }
    }

    /// Every combination there is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let kinds = |purpose| KeyKind::ALL.into_iter().map(move |kind| (purpose, kind));
        let lives = |(purpose, kind)| KeyLife::ALL.iter().map(move |life| Self::in_life(purpose, kind, *life));
        Purpose::ALL.into_iter().flat_map(kinds).flat_map(lives)
    }
}
