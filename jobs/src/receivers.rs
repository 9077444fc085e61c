//! # Alerts to receivers outside: Alertmanager, and signed webhooks
//!
//! ```text
//!                    feed (metastore)
//!            ┌────────────┴─────────────┐
//!   webhook, one task a receiver   alertmanager, one task an address
//!   queue + place + log entry      what is open, told again every resend_s with an end of its own;
//!   in one transaction             what was closed, dismissed or undone, told as resolved
//!            │                          │
//!   POST, signed; again with       POST /api/v2/alerts
//!   growing pauses; dead letters        │
//!            └───────── wire ───────────┘   https, no redirect, no proxy, 10 s
//! ```
//!
//! **Comes in:** the feed, with the work on it, as `starling alerts --json` shows it. **Goes out:** the same to whom the settings name, and
//! nothing that the feed does not show: no recipient, no reporter, counts under ten as the feed tells them (I4, P25).
//!
//! ## Who may try what
//!
//! - **Who reads the traffic** sees addresses and sizes: https is needed beyond this machine, unless the settings say `allow_http`. He cannot
//!   make us speak plainly, as redirects are not followed.
//! - **Who sends to a receiver in our name** has no key: a body is signed with its id and the moment of sending (HMAC-SHA256, as Standard
//!   Webhooks has it). Keys come from files, are read anew for every round (so they can be changed while a job runs), and are shown nowhere.
//! - **Who replays** what he recorded sends an old `webhook-timestamp` under a `webhook-id` that was seen: the receiver refuses the one and drops
//!   the other. Alertmanager's protocol has neither; what a replay does there lasts until our next round.
//! - **Who owns the receiver** sees what he is sent, as long as the settings name him; each alert queued for a webhook and each round for an
//!   Alertmanager has its entry in the hash-chained log (I6, P41). What he answers is not read beyond its status, and never logged: he can make us try
//!   again, no more. Slow or dead, he holds up himself alone.
//!
//! ## How it holds together
//!
//! **State is in the metastore** (`store`, `metastore/deliveries.rs`), beside the feed it depends on: the queue, the receiver's place and the log
//! entry are one transaction there, on SQLite and PostgreSQL alike, whichever machine the next sender runs on. A file beside it could be
//! ahead or behind after a crash.
//!
//! **One process sends.** The jobs that detect (`integrity`, `run`) also send; `serve` does not. Each takes the next generation when it starts,
//! which fences the one before it at its next write: that one stands by, and takes over again when nobody was heard of for 30 s.
//!
//! **At least once.** A webhook's delivery has the same id and body at every attempt, `FINGERPRINT-POSITION`; an answer of 2xx removes it. Pauses
//! double from a second to an hour, each cut by chance to between a half and the whole, so that receivers are not met by all at once. After
//! `tries` attempts, or at once on 410, it is a dead letter: listed, sent again on demand, forgotten after 30 days (P42). Order is not
//! promised: `position` and `revision` tell which is newer.
//!
//! **A receiver that is new** hears of what is open, and from then on of every change.
//!
//! **An Alertmanager** gets state, not messages, so one that was away is told all that is open when it is back. Should we fall silent, each
//! alert ends by itself after four rounds. What was resolved is told until it was heard once; after a crash, from the place kept.
//!
//! ## What can go wrong
//!
//! The metastore or the log cannot be written: nothing is sent, it is tried again, and `starling_job_failures_total{work="send_alerts"}` counts.
//! A key's file is gone: no attempt is made and none is used up. An alert whose severity changes while the process is down leaves its older
//! form in Alertmanager until that ends by itself.

pub mod alertmanager;
pub mod command;
pub mod settings;
pub mod signature;
pub mod webhook;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use starling_schemas::ids::Generation;
use starling_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::home::Home;
use crate::integrity_job::owner;
use crate::metrics::{Beat, Loop, Work};

pub use self::wire::{Fault, Wire};

use self::alertmanager::Alertmanager;
use self::webhook::Webhook;

/// How often the sender says that it is there, and one that stands by looks whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A sender that was not heard of for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// Pause after something failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What every task of the sender has.
#[derive(Clone)]
struct Post {
    home: Home,
    wire: Wire,
    generation: Generation,
}

/// Whom the settings name.
#[derive(Clone)]
pub struct Receivers {
    wire: Wire,
    alertmanagers: Vec<Arc<Alertmanager>>,
    webhooks: Vec<Arc<Webhook>>,
}

impl Receivers {
    /// Reads the settings, and each key once, so that a job does not start with one that is missing.
    ///
    /// # Errors
    /// An address, a name or a key that cannot be used: which, and what to do. No key is in the text.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let settings = &config.alerts;
        let mut webhooks = Vec::new();
        for (name, hook) in &settings.webhooks {
            webhooks.push(Arc::new(Webhook::open(name, hook)?));
        }
        let mut alertmanagers = Vec::new();
        for url in &settings.alertmanager.urls {
            alertmanagers.push(Arc::new(Alertmanager::open(url, settings)?));
        }
        Ok(Self { wire: Wire::new()?, alertmanagers, webhooks })
    }

    /// Whether each receiver answers, without sending it an alert.
    pub async fn knock(&self) -> Vec<(String, Result<(), Fault>)> {
        let mut knocked = Vec::new();
        for to in &self.alertmanagers {
            let answer = self.wire.ask(&to.ready_url).await;
            knocked.push((format!("Alertmanager {}", to.base), answer));
        }
        for hook in &self.webhooks {
            knocked.push((format!("webhook `{}`", hook.name), self.wire.knock(&hook.url).await));
        }
        knocked
    }

    fn is_empty(&self) -> bool {
        self.alertmanagers.is_empty() && self.webhooks.is_empty()
    }

    /// Sends alerts until `stop` says so, whenever this is the process that does.
    ///
    /// # Errors
    /// A task that panicked. What fails otherwise is tried again.
    pub async fn run(self, home: Home, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        if self.is_empty() {
            let _ = stop.wait_for(|stopped| *stopped).await;
            return Ok(());
        }
        let beat = Beat::start(&home.metrics, Loop::Receivers);
        while !*stop.borrow() {
            beat.turned();
            match home.metastore.take_sending(&owner(), home.clock.now_ms()).await {
                Ok(generation) => {
                    tracing::info!("this process sends alerts to their receivers");
                    self.send(&home, generation, &beat, &mut stop).await?;
                }
                Err(error) => {
                    failed(&home, &error.into());
                    rest(&mut stop, AFTER_FAILURE).await;
                    continue;
                }
            }
            self.stand_by(&home, &beat, &mut stop).await;
        }
        Ok(())
    }

    /// Sends until `stop` or until another process has taken over.
    async fn send(
        &self,
        home: &Home,
        generation: Generation,
        beat: &Beat,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (end, ending) = watch::channel(false);
        let post = Post { home: home.clone(), wire: self.wire.clone(), generation };
        let mut tasks = JoinSet::new();
        for hook in &self.webhooks {
            tasks.spawn(webhook::run(Arc::clone(hook), post.clone(), ending.clone()));
        }
        for alertmanager in &self.alertmanagers {
            tasks.spawn(alertmanager::run(Arc::clone(alertmanager), post.clone(), ending.clone()));
        }
        while !*stop.borrow() {
            beat.turned();
            match home.metastore.keep_sending(generation, home.clock.now_ms()).await {
                Ok(()) => {}
                Err(StoreError::Fenced) => {
                    tracing::info!("another process has taken the sending of alerts over; this one stands by");
                    break;
                }
                Err(error) => failed(home, &error.into()),
            }
            tokio::select! {
                _ = stop.changed() => {}
                // A task ends before it is told only when it is fenced, or by a panic.
                Some(done) = tasks.join_next() => done.context("a task that sends alerts panicked")?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let _ = end.send(true);
        while let Some(done) = tasks.join_next().await {
            done.context("a task that sends alerts panicked")?;
        }
        Ok(())
    }

    /// Waits until the sender has not been heard of for a while.
    async fn stand_by(&self, home: &Home, beat: &Beat, stop: &mut watch::Receiver<bool>) {
        while !*stop.borrow() {
            rest(stop, LOOK_EVERY).await;
            beat.turned();
            match home.metastore.sender().await {
                Ok(sender) if is_gone(sender.seen_ms, home.clock.now_ms()) => return,
                Ok(_) => {}
                Err(error) => failed(home, &error.into()),
            }
        }
    }
}

/// Whether a sender that was last heard of at `seen_ms` is gone. One from the future is not: clocks of two machines differ.
fn is_gone(seen_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(seen_ms) > i64::try_from(GONE_AFTER.as_millis()).unwrap_or(i64::MAX)
}

/// Waits, or until the job is to stop.
async fn rest(stop: &mut watch::Receiver<bool>, pause: Duration) {
    if *stop.borrow() {
        return;
    }
    tokio::select! {
        _ = stop.changed() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

fn failed(home: &Home, error: &anyhow::Error) {
    home.metrics.failed(Work::SendAlerts);
    tracing::warn!(error = format!("{error:#}"), "alerts could not be sent to their receivers; it is tried again");
}

fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Fenced))
}

#[cfg(test)]
mod tests {
    use super::is_gone;

    #[test]
    fn a_sender_is_gone_when_it_was_silent_for_longer_than_it_may_be() {
        assert!(!is_gone(1_000, 31_000));
        assert!(is_gone(1_000, 31_001));
        assert!(!is_gone(90_000, 1_000), "its clock is ahead");
    }
}
