//! How far a private question is, for somebody who waits for it.
//!
//! # Privacy
//! Told are numbers of questions and of blocks: how many there are is public before anything is read (`EXPLAIN PRIVACY` says it). When a step is told
//! depends on how long the block before took, as the time of the whole answer does; whoever asks of each day by itself sees the same. Rows, bytes and people are
//! not told.

use std::sync::Arc;

/// A step of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which of the statement's private questions is in work, from 1.
    pub question: usize,
    /// How many there are.
    pub questions: usize,
    /// Blocks whose rows were read for it, so far.
    pub read: usize,
    /// How many there are. Where rows of several blocks are read at once they count as read together.
    pub blocks: usize,
}

/// Is told of each step.
pub type Watch = Arc<dyn Fn(Progress) + Send + Sync>;
