//! Threads of the engine's own. A statement keeps a thread for as long as a batch takes, which may be a second: were it a door's thread, a few long
//! statements would keep everybody else from logging in, from being answered, and from hanging up.
//!
//! There are more of them than processors, so that the operating system, which interrupts a thread where this process cannot, gives a short statement
//! its turn beside long ones. Sockets of databases and stores stay with the threads they were opened on: what waits here for a row waits for those.

use std::future::Future;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::error::{INTERNAL, QueryError};

/// Threads for each processor.
const PER_PROCESSOR: usize = 4;
/// After so many turns of tasks a thread looks at clocks. By default it is 61, which long batches would make half a minute.
const EVENT_INTERVAL: u32 = 2;

/// The threads. Dropping them waits for nobody.
pub(crate) struct Workers(Option<Runtime>);

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// When the machine gives none.
    pub(crate) fn start() -> Result<Self, QueryError> {
        let processors = available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(processors.saturating_mul(PER_PROCESSOR))
            .thread_name("statements")
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build()
            .map_err(|_| QueryError::new(INTERNAL, "no threads can be started", "look at how many this process may have"))?;
        Ok(Self(Some(runtime)))
    }

    /// Does work on them, as the one task of the set. Dropping the set ends it where it next gives its thread back.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
        let mut task = JoinSet::new();
        match &self.0 {
            Some(runtime) => task.spawn_on(work, runtime.handle()),
            None => task.spawn(work),
        };
        task
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
