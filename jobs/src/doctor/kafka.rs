//! Brokers, topics and rights.

use std::collections::BTreeMap;
use std::path::Path;

use starling_ingest::{Fault, IngestError, examine, partitions, topic_settings};

use crate::columns::duration;
use crate::config::{Config, Transport};

/// The longest that personal data may be kept (P42).
const LONGEST_KEPT_MS: i64 = 30 * 24 * 3600 * 1000;
/// What Kafka has for `segment.ms` where nobody set it.
const SEGMENT_MS: i64 = 7 * 24 * 3600 * 1000;

/// Looks at the brokers with the settings that jobs would use.
pub(super) fn look(config: &Config, file: Option<&Path>, say: &mut impl FnMut(bool, String)) {
    let settings = &config.kafka;
    for file in settings.readable_by_all(file) {
        say(false, format!("kafka: {file} holds a secret and everybody on this machine may read it; run `chmod o-r` on it"));
    }
    let properties = match settings.client_properties() {
        Ok(properties) => properties,
        Err(error) => return say(false, format!("{error:#}")),
    };
    let spoken = properties.get("security.protocol").map_or("plaintext".to_owned(), |protocol| protocol.to_ascii_lowercase());
    // Anything else is refused below, and not repeated: it may be a password in the wrong place.
    match spoken.as_str() {
        "ssl" | "sasl_ssl" => say(true, "kafka: connections are encrypted (`security.protocol`)".to_owned()),
        "plaintext" | "sasl_plaintext" => say(true, "kafka: connections are not encrypted (`security.protocol`)".to_owned()),
        _ => {}
    }
    // Those that are written only are looked at without reading: whether they may be written cannot be tried without writing.
    let mut topics = vec![(&settings.topic, Some(settings.group.as_str())), (&config.alerts.topic, None)];
    if config.signals.transport == Transport::Kafka {
        topics.push((&config.signals.topic, None));
    }
    let mut events_are_there = false;
    for (topic, group) in topics {
        let written_only = topic == &config.alerts.topic;
        let found = tokio::task::block_in_place(|| match written_only {
            true => partitions(&settings.brokers, topic, &properties),
            false => examine(&settings.brokers, topic, group, &properties),
        });
        match found {
            Ok(found) => {
                events_are_there |= topic == &settings.topic;
                let may = if written_only { "is there" } else { "may be read" };
                say(true, format!("kafka: topic `{topic}` {may}; it has {} partitions", found.len()));
                let wanted = usize::try_from(config.signals.partitions).unwrap_or(usize::MAX);
                if topic == &config.signals.topic && found.len() < wanted {
                    say(
                        false,
                        format!(
                            "kafka: topic `{topic}` has {} partitions and signals.partitions is {wanted}: signals for the others have nowhere to \
                             go; add partitions, or lower the setting before the first signal is written",
                            found.len()
                        ),
                    );
                }
            }
            Err(error) => {
                say(false, format!("kafka: {}, topic `{topic}`: {error}", settings.brokers));
                // What keeps us from the brokers keeps us from every topic.
                if !matches!(error, IngestError::NoTopic { .. } | IngestError::Refused(Fault::Topic | Fault::Group)) {
                    return;
                }
                // It was found before its group was asked for.
                events_are_there |= topic == &settings.topic && matches!(error, IngestError::Refused(Fault::Group));
            }
        }
    }
    // Of what is not there, or may not be read, nothing can be said but that, which was said above.
    if !events_are_there {
        return;
    }
    match tokio::task::block_in_place(|| topic_settings(&settings.brokers, &settings.topic, &properties)) {
        Ok(Some(found)) => {
            for (good, what) in kept(&found, config.window.allowed_lateness_s) {
                say(good, format!("kafka: topic `{}` {what}", settings.topic));
            }
        }
        // A right of its own, which no job needs.
        Ok(None) => {
            say(
                true,
                format!("kafka: how long topic `{}` is kept is not for this user to know (`DescribeConfigs`)", settings.topic),
            );
        }
        Err(error) => say(false, format!("kafka: how long topic `{}` is kept cannot be seen: {error}", settings.topic)),
    }
}

/// What a topic's settings mean for events: whether those that still count are kept, and for how long numbers are.
///
/// Kafka deletes whole segments, each `retention.ms` after its newest record. A segment that little is written to stays open for
/// `segment.ms`, so its oldest record is there for the sum of the two: a promise on numbers is held against that sum, and what
/// late events need against `retention.ms` alone.
fn kept(settings: &BTreeMap<String, String>, lateness_s: i64) -> Vec<(bool, String)> {
    let mut out = Vec::new();
    if settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        out.push((
            false,
            "is compacted (`cleanup.policy`): events with the same key replace one another before they are counted, and the last one stays; set \
             it to delete"
                .to_owned(),
        ));
    }
    let Some(retention_ms) = settings.get("retention.ms").and_then(|text| text.parse::<i64>().ok()) else { return out };
    let segment_ms = settings.get("segment.ms").and_then(|text| text.parse::<i64>().ok()).unwrap_or(SEGMENT_MS);
    let longest_ms = retention_ms.saturating_add(segment_ms);
    out.push(if retention_ms < 0 || longest_ms > LONGEST_KEPT_MS {
        let how_long = if retention_ms < 0 {
            "for ever (`retention.ms`)".to_owned()
        } else {
            format!("up to {} (`retention.ms` and `segment.ms`, since whole segments are deleted)", duration(longest_ms))
        };
        (
            false,
            format!(
                "is kept {how_long}: it is the only place where a phone number is, and 30 days is the most that is promised \
                 (P42); a day is enough to catch up after a fault"
            ),
        )
    } else if retention_ms < lateness_s.saturating_mul(1000) {
        (
            false,
            format!(
                "is kept {} (`retention.ms`), and late events count for {} (window.allowed_lateness_s): what ingest could not read in time is \
                 gone before it stops counting; a day is usual",
                duration(retention_ms),
                duration(lateness_s.saturating_mul(1000))
            ),
        )
    } else {
        (
            true,
            format!(
                "is kept {}, and where little is written up to {} (`segment.ms`); numbers are gone after that",
                duration(retention_ms),
                duration(longest_ms)
            ),
        )
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_as_long_as_they_count_and_no_longer_than_is_promised() {
        let with = |retention: &str, segment: &str, policy: &str| {
            let settings = [("retention.ms", retention), ("segment.ms", segment), ("cleanup.policy", policy)];
            kept(&settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), 3600)
        };
        let week = "604800000";
        for (retention, segment, policy, good, words) in [
            ("86400000", "3600000", "delete", true, "is kept 24h, and where little is written up to 25h"),
            ("86400000", week, "delete", true, "is kept 24h, and where little is written up to 192h"),
            ("3600000", week, "delete", true, "is kept 1h, and"),
            ("3599999", week, "delete", false, "late events count for 1h"),
            ("-1", week, "delete", false, "is kept for ever"),
            ("1987200000", week, "delete", true, "is kept 552h, and where little is written up to 720h"),
            ("1987200001", week, "delete", false, "30 days is the most"),
            ("2592000000", "3600000", "delete", false, "is kept up to 721h (`retention.ms` and `segment.ms`"),
            ("86400000", "9223372036854775807", "delete", false, "30 days is the most"),
            ("9223372036854775807", week, "delete", false, "30 days is the most"),
            ("86400000", "3600000", "compact,delete", false, "is compacted"),
        ] {
            let told = with(retention, segment, policy);
            assert_eq!(told.iter().all(|(good, _)| *good), good, "{retention} {segment} {policy}: {told:?}");
            assert!(told.iter().any(|(_, what)| what.contains(words)), "{retention} {segment} {policy}: {told:?}");
        }
        let alone = kept(&[("retention.ms".to_owned(), "86400000".to_owned())].into(), 3600);
        assert!(alone[0].0 && alone[0].1.contains("up to 192h"), "{alone:?}");
        assert_eq!(kept(&BTreeMap::new(), 3600), [], "nothing is said of what is not known");
    }
}
