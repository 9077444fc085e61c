//! How a long-running process ends: asked once, it finishes what is in work, within ten seconds; asked twice, at once.
//!
//! Nothing is lost either way. What was planned and not committed is processed again by whoever takes the partition next, to the same rows
//! (I9); a close, a release or an alert that was cut off is taken up again. So the patience below is for being tidy, not for being right.
//!
//! ```text
//!  SIGTERM, SIGINT ──► stop = true ──► every loop ends after its turn         lanes: the range in work, at most 6 s
//!        │                                  │
//!        │                                  └─ after GRACE: what is left is abandoned, and told
//!        └─ again ──► the process ends at once, with 128 + the signal's number
//! ```

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

/// How long work may go on after the process was asked to stop. With what the runtime needs to end it stays below the promised ten seconds.
pub const GRACE: Duration = Duration::from_secs(8);
/// How long threads may take to end after that.
pub const THREADS_GRACE: Duration = Duration::from_secs(1);

/// A signal to stop, heard by all jobs of the process: SIGINT or SIGTERM. The second one ends the process.
#[must_use]
pub fn signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let mut signals = Signals::listen();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: what is in work is finished first; asked again, this process ends at once");
        let _ = sender.send(true);
        let code = signals.next().await;
        tracing::warn!("asked to stop again: ending at once; what was planned is taken up at the next start");
        std::process::exit(code);
    });
    receiver
}

/// Both ways to be asked. Listened to from one place and from the start, so that none is lost between two of them.
#[cfg(unix)]
struct Signals {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    /// Waits for one; gives the exit code that says by which a process ended.
    async fn next(&mut self) -> i32 {
        use tokio::signal::unix::SignalKind;
        async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
        let kind = tokio::select! {
            () = heard(&mut self.interrupt) => SignalKind::interrupt(),
            () = heard(&mut self.terminate) => SignalKind::terminate(),
        };
        128 + kind.as_raw_value()
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Self {
        Self
    }

    async fn next(&mut self) -> i32 {
        let _ = tokio::signal::ctrl_c().await;
        130
    }
}

/// Runs `job`, which listens to `stop` itself, but not for longer than [`GRACE`] after it. The job has a task of its own: one that blocks its
/// thread is left behind as well. `None`: it was left behind, which is no error; see the module's text.
///
/// # Errors
/// The job's own, or that it panicked.
pub async fn within_grace<T: Send + 'static>(
    name: &'static str,
    mut stop: watch::Receiver<bool>,
    job: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<Option<T>> {
    let mut task = tokio::spawn(job);
    let too_late = async {
        if stop.wait_for(|stopped| *stopped).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = &mut task => Ok(Some(result.with_context(|| format!("job `{name}` panicked"))??)),
        () = too_late => {
            tracing::warn!(job = name, "not done within {} s of being asked to stop; it is taken up at the next start", GRACE.as_secs());
            task.abort();
            Ok(None)
        }
    }
}
