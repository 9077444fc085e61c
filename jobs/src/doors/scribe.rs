//! Audit entries of a door's statements, written before anything is served (I6), many statements to an entry where many come at once.
//!
//! An entry is a durable transaction of some milliseconds, and the chain has one at a time. So statements that arrive while one is being
//! written wait together for the next, which names them all: who, in which role, for which team, how many. Nobody goes on before theirs is
//! in the log; if it cannot be written, nobody does. What was asked is not in it: a statement's text may hold anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use starling_query::Principal;
use tokio::sync::{mpsc, oneshot};

use super::Refusal;
use crate::home::Home;
use crate::metrics::Work;

/// Statements of one entry at the most, and that may wait for one.
const TOGETHER: usize = 128;

struct Note {
    who: Arc<Principal>,
    written: oneshot::Sender<bool>,
}

/// Writes down who reads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scribe(mpsc::Sender<Note>);

impl Scribe {
    /// A scribe of this door, and its work, which ends when all clones are gone.
    pub(crate) fn new(home: Home, door: &'static str) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, notes) = mpsc::channel(TOGETHER);
        (Self(sender), work(home, door, notes))
    }

    /// Waits until a statement of `who` is in the log.
    ///
    /// # Errors
    /// 58030 when it cannot be written; then nothing may be served.
    pub(crate) async fn write(&self, who: &Arc<Principal>) -> Result<(), Refusal> {
        let (written, done) = oneshot::channel();
        let sent = self.0.send(Note { who: Arc::clone(who), written }).await.is_ok();
        if sent && done.await == Ok(true) { Ok(()) } else { Err(unwritten()) }
    }
}

/// What is said when the log cannot be written.
pub(crate) fn unwritten() -> Refusal {
    Refusal::new("58030", "the audit log cannot be written, so nothing is served", "see the log of `starling serve`")
}

async fn work(home: Home, door: &'static str, mut notes: mpsc::Receiver<Note>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while notes.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut reads: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for Note { who, .. } in &batch {
            *reads.entry((&who.name, who.role.name(), &who.team)).or_default() += 1;
        }
        let reads: Vec<_> = reads
            .into_iter()
            .map(|((user, role, team), statements)| json!({ "user": user, "role": role, "team": team, "statements": statements }))
            .collect();
        let detail = json!({ "door": door, "reads": reads });
        let written = home.metastore.append_audit("sql_read", detail, home.clock.now_ms()).await;
        if let Err(error) = &written {
            home.metrics.failed(Work::Audit);
            tracing::error!(%error, "the audit log cannot be written: statements are refused");
        }
        for note in batch.drain(..) {
            // Whoever has gone meanwhile does not hear it.
            let _ = note.written.send(written.is_ok());
        }
    }
}
