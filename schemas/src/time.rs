//! Time and randomness are handed in, so that tests and replays decide them; only `jobs` knows the real ones.

use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// Starts at `now_ms`, milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock to `now_ms`.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// No randomness could be had. Nothing falls back to something weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the entropy source gave nothing: a key cannot be made; check the system's random device")]
pub struct NoEntropy;

/// Gives random bytes fit for keys.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with random bytes, or leaves it unused and fails.
    ///
    /// # Errors
    /// [`NoEntropy`] when the source gives nothing.
    fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy>;
}
