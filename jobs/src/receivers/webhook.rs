//! One webhook: the feed is queued for it, what is due is signed and posted, and what fails waits, longer each time, or is given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use starling_integrity::cloud_event;
use starling_schemas::time::Entropy;
use starling_store::{Delivery, DeliveryEnd, DeliveryRecord};
use tokio::sync::watch;

use super::settings::{WebhookSettings, address};
use super::signature::Keys;
use super::{Fault, Post, failed, is_fenced, rest};
use crate::alerts;
use crate::desk::{self, Entry};
use crate::metrics::{Delivered, Receiver};

/// Most alerts queued in one step.
const PAGE: u32 = 100;
/// Most deliveries read at once.
const AT_ONCE: u32 = 16;
/// How often is looked for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause after the first failure; it doubles up to the last.
const FIRST_PAUSE_MS: i64 = 1_000;
const LAST_PAUSE_MS: i64 = 3_600_000;

/// A webhook of the settings.
pub struct Webhook {
    /// What the settings call it.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// Where its key is.
    pub secret_file: PathBuf,
    tries: i64,
}

impl Webhook {
    /// Reads its settings, and its key once.
    ///
    /// # Errors
    /// When either cannot be used.
    pub fn open(name: &str, settings: &WebhookSettings) -> anyhow::Result<Self> {
        let url = address(&settings.url, settings.allow_http);
        let url = url.map_err(|fault| anyhow::anyhow!("alerts.webhooks.{name}.url: {fault}"))?;
        let hook =
            Self { name: name.to_owned(), url, secret_file: PathBuf::from(&settings.secret_file), tries: settings.tries.into() };
        hook.keys()?;
        Ok(hook)
    }

    /// Its keys as they are now.
    ///
    /// # Errors
    /// When the file cannot be read or is no key's.
    pub fn keys(&self) -> anyhow::Result<Keys> {
        Keys::read(&self.secret_file).with_context(|| format!("alerts.webhooks.{}.secret_file", self.name))
    }

    /// What the metastore and the log call it.
    #[must_use]
    pub fn receiver(&self) -> String {
        format!("webhook/{}", self.name)
    }
}

/// Queues and sends until `stop` says so, or another process has taken over.
pub(super) async fn run(hook: Arc<Webhook>, post: Post, mut stop: watch::Receiver<bool>) {
    let receiver = hook.receiver();
    while !*stop.borrow() {
        let turned = match queue(&post, &receiver).await {
            Ok(queued) => send(&hook, &receiver, &post, &stop).await.map(|sent| queued || sent),
            Err(error) => Err(error),
        };
        match turned {
            Ok(true) => {}
            Ok(false) => rest(&mut stop, LOOK_EVERY).await,
            Err(error) if is_fenced(&error) => return,
            Err(error) => {
                failed(&post.home, &error.context(receiver.clone()));
                rest(&mut stop, super::AFTER_FAILURE).await;
            }
        }
    }
}

/// Queues what of the feed is new to the receiver; says whether there was something.
async fn queue(post: &Post, receiver: &str) -> anyhow::Result<bool> {
    let (home, metastore) = (&post.home, &post.home.metastore);
    let Some(known) = metastore.receiver(receiver).await? else {
        metastore.queue_deliveries(post.generation, receiver, 0, &[], home.clock.now_ms()).await?;
        return Ok(true);
    };
    let entries = desk::page(home, known.position, PAGE).await?;
    let Some(last) = entries.last() else { return Ok(false) };
    let mut deliveries = Vec::new();
    for entry in &entries {
        // A new receiver hears of what is open, and not of what was dealt with long ago.
        if entry.record.position > known.began_at || entry.wants_attention() {
            deliveries.push(delivery(entry)?);
        }
    }
    let position = last.record.position;
    metastore.queue_deliveries(post.generation, receiver, position, &deliveries, home.clock.now_ms()).await?;
    Ok(true)
}

/// The alert as the feed shows it, in a CloudEvents 1.0 envelope whose id is that of the delivery.
fn delivery(entry: &Entry) -> anyhow::Result<Delivery> {
    let id = format!("{}-{}", entry.record.fingerprint, entry.record.position);
    let mut event = cloud_event(&entry.alert);
    event["id"] = id.as_str().into();
    event["data"] = alerts::json_value(entry)?;
    Ok(Delivery { id, body: event.to_string() })
}

/// Sends what is due; says whether there was something.
async fn send(hook: &Webhook, receiver: &str, post: &Post, stop: &watch::Receiver<bool>) -> anyhow::Result<bool> {
    let home = &post.home;
    let due = home.metastore.due_deliveries(receiver, home.clock.now_ms(), AT_ONCE).await?;
    if due.is_empty() {
        return Ok(false);
    }
    let keys = hook.keys()?;
    let mut stop = stop.clone();
    for delivery in &due {
        let sent = tokio::select! {
            // What was on its way is sent again by the next sender, under the same id.
            _ = stop.wait_for(|stopped| *stopped) => return Ok(true),
            sent = post.wire.post(&hook.url, headers(&keys, delivery, home.clock.now_ms())?, delivery.body.clone()) => sent,
        };
        let (end, counted) = match sent {
            Ok(()) => (DeliveryEnd::Done, Delivered::Arrived),
            Err(fault) => after(fault, delivery.attempts, hook.tries, home.clock.now_ms(), home.entropy.as_ref()),
        };
        home.metastore.note_delivery(post.generation, receiver, &delivery.id, &end).await?;
        home.metrics.delivery(Receiver::Webhook, counted);
        match (&end, sent) {
            (DeliveryEnd::Dead { .. }, Err(fault)) => {
                tracing::error!(receiver, id = delivery.id, %fault, "an alert was not delivered and is given up; see `starling alerts deliveries --dead`");
            }
            (_, Err(fault)) => {
                tracing::warn!(receiver, id = delivery.id, %fault, "an alert was not delivered; it is tried again")
            }
            (_, Ok(())) => {}
        }
    }
    Ok(true)
}

fn headers(keys: &Keys, delivery: &DeliveryRecord, now_ms: i64) -> anyhow::Result<HeaderMap> {
    let timestamp_s = now_ms.div_euclid(1_000);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
    headers.insert("webhook-id", HeaderValue::from_str(&delivery.id)?);
    headers.insert("webhook-timestamp", HeaderValue::from(timestamp_s));
    headers.insert("webhook-signature", HeaderValue::from_str(&keys.sign(&delivery.id, timestamp_s, &delivery.body))?);
    Ok(headers)
}

/// What becomes of a delivery that failed, after `attempts` before this one.
fn after(fault: Fault, attempts: i64, tries: i64, now_ms: i64, entropy: &dyn Entropy) -> (DeliveryEnd, Delivered) {
    let attempts = attempts.saturating_add(1);
    let told = fault.to_string();
    if fault.is_final() || attempts >= tries {
        return (DeliveryEnd::Dead { fault: told }, Delivered::Dead);
    }
    // Without entropy the whole pause is kept: jitter spares the receiver, it protects nobody.
    let mut byte = [u8::MAX];
    let _ = entropy.fill(&mut byte);
    (DeliveryEnd::Again { next_ms: now_ms.saturating_add(pause_ms(attempts, byte[0])), fault: told }, Delivered::Failed)
}

/// The pause after so many attempts: doubling from a second to an hour, cut by `chance` to between a half and the whole.
fn pause_ms(attempts: i64, chance: u8) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 30)).unwrap_or(30);
    let whole = FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(LAST_PAUSE_MS);
    whole / 2 + whole / 2 * i64::from(chance) / i64::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use starling_schemas::time::NoEntropy;

    use super::*;

    struct None;

    impl Entropy for None {
        fn fill(&self, _: &mut [u8]) -> Result<(), NoEntropy> {
            Err(NoEntropy)
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_an_hour_and_chance_cuts_them_by_half_at_most() {
        let whole: Vec<_> = (1..=13).map(|n| pause_ms(n, u8::MAX)).collect();
        assert_eq!(&whole[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(&whole[11..], [2_048_000, 3_600_000]);
        assert_eq!(pause_ms(i64::MAX, u8::MAX), LAST_PAUSE_MS);
        assert_eq!((pause_ms(1, 0), pause_ms(99, 0)), (500, LAST_PAUSE_MS / 2));
        assert!((500..1_000).contains(&pause_ms(1, 128)));
    }

    #[test]
    fn the_last_try_and_a_receiver_that_is_gone_for_good_make_a_dead_letter() {
        let end = |fault, before| after(fault, before, 3, 10_000, &None);
        let again = |next_ms, fault: &str| (DeliveryEnd::Again { next_ms, fault: fault.to_owned() }, Delivered::Failed);
        assert_eq!(end(Fault::Status(500), 0), again(11_000, "HTTP 500"));
        assert_eq!(end(Fault::Unreachable, 1), again(12_000, "cannot be reached"));
        assert_eq!(end(Fault::Timeout, 2).1, Delivered::Dead);
        assert_eq!(end(Fault::Status(410), 0), (DeliveryEnd::Dead { fault: "HTTP 410".to_owned() }, Delivered::Dead));
    }
}
