//! Statements in work or on their way, by the seal of the ticket that they were asked with, so that whoever has the ticket can
//! end them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// All of them. There are no more than places.
#[derive(Default)]
pub(super) struct Running(Mutex<Vec<Entry>>);

struct Entry {
    ticket: blake3::Hash,
    end: watch::Sender<bool>,
}

/// One of them; it is forgotten when this is dropped.
pub(super) struct Run {
    running: Arc<Running>,
    ended: watch::Receiver<bool>,
}

impl Running {
    pub(super) fn enter(self: &Arc<Self>, ticket: blake3::Hash) -> Run {
        let (end, ended) = watch::channel(false);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { ticket, end });
        Run { running: Arc::clone(self), ended }
    }

    /// Ends all that were asked with this ticket. Whether there were any.
    pub(super) fn end(&self, ticket: blake3::Hash) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = running.iter().filter(|entry| entry.ticket == ticket).peekable();
        let any = own.peek().is_some();
        own.for_each(|entry| {
            entry.end.send_replace(true);
        });
        any
    }
}

impl Run {
    /// Whether it was ended.
    pub(super) fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until it is ended.
    pub(super) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|entry| !self.ended.same_channel(&entry.end.subscribe()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_the_ticket_ends_what_was_asked_with_it_and_nothing_else() {
        let running: Arc<Running> = Arc::default();
        let (ours, theirs) = (blake3::hash(b"ours"), blake3::hash(b"theirs"));
        let (mut one, two, other) = (running.enter(ours), running.enter(ours), running.enter(theirs));
        assert!(!one.is_ended() && running.end(ours));
        one.ended().await;
        assert!(one.is_ended() && two.is_ended() && !other.is_ended());
        drop((one, two));
        assert!(!running.end(ours) && running.end(theirs) && other.is_ended());
        drop(other);
        assert!(running.0.lock().expect("whole").is_empty());
    }
}
