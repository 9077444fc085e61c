//! Logging in with a name and a password that are said here once, under TLS or on this machine, and compared with the same
//! verifier as SCRAM's.
//!
//! Every refused login waits half a second, in which all that are refused come together to one entry in the log: how many, and
//! never which names.
//!
//! ```text
//!   handler ─► a place ─► a task that owns it: PBKDF2 ─► refused: entry, half a second │ right: entry ─► the place is free
//!      └──── awaits what it comes to; dropped when the client goes, and the task is not ────────┘
//! ```
//!
//! So whoever hangs up keeps its place as long as whoever waits, and is counted among those refused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use starling_query::Principal;
use tokio::sync::{Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use super::users::Users;
use super::{Named, PENANCE, Refusal, scribe};
use crate::home::Home;
use crate::metrics::Work;

/// Logins under way.
const LOGINS: usize = 32;
/// Longest name and password that are looked at.
const NAME_BYTES: usize = 63;
const PASSWORD_BYTES: usize = 1_024;

/// Logins under way, and who writes down those that are refused. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Logins {
    home: Home,
    door: Named,
    places: Arc<Semaphore>,
    refused: mpsc::Sender<oneshot::Sender<bool>>,
}

/// Somebody whose password was right and whose login is in the log. There is no session yet.
pub(crate) struct Admitted {
    pub(crate) who: Principal,
    /// What the session hangs on.
    pub(crate) mark: blake3::Hash,
    /// The secret that the session is to be found by: 32 random bytes.
    pub(crate) secret: Zeroizing<String>,
}

impl Logins {
    /// With its work, which ends when all clones are gone.
    pub(crate) fn new(home: Home, door: Named) -> (Self, impl Future<Output = ()> + Send) {
        let (refused, heard) = mpsc::channel(LOGINS);
        let noting = note(home.clone(), door, heard);
        (Self { home, door, places: Arc::new(Semaphore::new(LOGINS)), refused }, noting)
    }

    /// Looks at a login; see the module's text.
    ///
    /// # Errors
    /// 28P01 in the same words for whatever does not fit; 53300 where too many log in; 58030 where the log cannot be written.
    pub(crate) async fn admit(&self, users: Arc<Users>, name: String, password: Zeroizing<String>) -> Result<Admitted, Refusal> {
        let own = self.clone();
        in_a_place(&self.places, async move { own.look(users, name, password).await }).await?
    }

    async fn look(&self, users: Arc<Users>, name: String, password: Zeroizing<String>) -> Result<Admitted, Refusal> {
        let fits = name.len() <= NAME_BYTES && password.len() <= PASSWORD_BYTES;
        let (verifier, who) = users.find(if fits { &name } else { "" });
        // The same work for a name that is not there.
        let right = tokio::task::spawn_blocking(move || verifier.fits(&password)).await;
        let is_user = who.is_some();
        let (true, Ok(true), Some(who)) = (fits, right, who) else { return Err(self.refuse(&name, is_user).await) };
        let Some(mark) = users.mark(&who.name) else { return Err(self.refuse(&name, is_user).await) };
        let mut bytes = Zeroizing::new([0; 32]);
        if self.home.entropy.fill(&mut *bytes).is_err() {
            return Err(Refusal::new("58000", "there is no randomness", "see the log of `starling serve`"));
        }
        let detail = json!({ "door": self.door.word, "user": who.name, "role": who.role.name(), "team": who.team });
        let kind = format!("{}_login", self.door.word);
        if self.home.metastore.append_audit(&kind, detail, self.home.clock.now_ms()).await.is_err() {
            self.home.metrics.failed(Work::Audit);
            return Err(scribe::unwritten());
        }
        Ok(Admitted { who, mark, secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)) })
    }

    /// Waits as long as everybody who is refused, until it is in the log.
    async fn refuse(&self, name: &str, is_user: bool) -> Refusal {
        self.home.heard.login(self.door.word, name, is_user, self.home.clock.now_ms());
        let (written, done) = oneshot::channel();
        if self.refused.send(written).await.is_err() || done.await != Ok(true) {
            return scribe::unwritten();
        }
        Refusal::new("28P01", "name and password do not fit", "ask whoever runs `starling users`")
    }
}

/// Takes a place, does a login's work and gives the place back, whether or not anybody waits for what it comes to.
async fn in_a_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return Err(Refusal::new("53300", "too many log in at this moment", "try again in a second"));
    };
    let working = tokio::spawn(async move {
        let done = work.await;
        drop(place);
        done
    });
    working.await.map_err(|_| Refusal::new("XX000", "the login could not be looked at", "report this"))
}

async fn note(home: Home, door: Named, mut heard: mpsc::Receiver<oneshot::Sender<bool>>) {
    while let Some(first) = heard.recv().await {
        let mut together = vec![first];
        // Whoever comes while these wait is in the next entry, so that nobody waits less than they.
        while let Ok(another) = heard.try_recv() {
            together.push(another);
        }
        tokio::time::sleep(PENANCE).await;
        let detail = json!({ "door": door.word, "logins": together.len() });
        let kind = format!("{}_login_refused", door.word);
        let written = home.metastore.append_audit(&kind, detail, home.clock.now_ms()).await;
        if let Err(error) = &written {
            home.metrics.failed(Work::Audit);
            tracing::error!(%error, "the audit log cannot be written: nobody logs in");
        } else {
            tracing::warn!(logins = together.len(), "logins over {} were refused", door.over);
        }
        for one in together {
            // Whoever has gone meanwhile does not hear it.
            let _ = one.send(written.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Class;
    use super::*;

    #[tokio::test]
    async fn who_hangs_up_keeps_its_place_until_its_login_is_through() {
        let places = Arc::new(Semaphore::new(1));
        let (go_on, held) = oneshot::channel::<()>();
        let (tell, through) = oneshot::channel();
        let login = in_a_place(&places, async move {
            let _ = held.await;
            let _ = tell.send(());
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), login).await.is_err(), "nobody waits for it any more");
        assert_eq!(in_a_place(&places, async {}).await.err().map(|refusal| refusal.class()), Some(Class::Full));
        go_on.send(()).expect("it goes on");
        through.await.expect("to its end");
        while places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(in_a_place(&places, async { 7 }).await, Ok(7));
    }
}
