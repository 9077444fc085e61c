//! Sessions: what a cookie, or a bearer token made by a login, stands for: in memory, under the hash of what it holds.
//!
//! A session is made by a login and by nothing else, under 32 random bytes that nobody chose. It hangs on its user as the users file had it then: whoever is
//! removed, or gets another role, team or password, has none any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starling_query::Principal;

use super::users::Users;

/// The longest life of a session.
pub(crate) const LIFE: Duration = Duration::from_secs(12 * 3600);
/// The longest silence.
const SILENCE: Duration = Duration::from_secs(3600);
/// Sessions at one time, and of one user: beyond it the one that was silent longest ends.
const MOST: usize = 1_000;
const MOST_OF_ONE: usize = 16;

/// What a session is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(blake3::Hash);

impl Key {
    /// Of what the cookie or the token holds.
    pub(crate) fn of(secret: &str) -> Self {
        Self(blake3::hash(secret.as_bytes()))
    }
}

struct Session {
    who: Arc<Principal>,
    mark: blake3::Hash,
    made: Instant,
    seen: Instant,
}

impl Session {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.made) < LIFE && now.saturating_duration_since(self.seen) < SILENCE
    }
}

#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<Key, Session>>);

impl Sessions {
    /// Opens a session for somebody who has just logged in.
    pub(crate) fn open(&self, key: Key, who: Arc<Principal>, mark: blake3::Hash, now: Instant) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| session.lives(now));
        let mut own: Vec<(Instant, Key)> =
            open.iter().filter(|(_, session)| session.who.name == who.name).map(|(key, session)| (session.seen, *key)).collect();
        own.sort_by_key(|(seen, _)| *seen);
        for (_, key) in own.iter().take((own.len() + 1).saturating_sub(MOST_OF_ONE)) {
            open.remove(key);
        }
        if open.len() >= MOST
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.seen).map(|(key, _)| *key)
        {
            open.remove(&oldest);
        }
        open.insert(key, Session { who, mark, made: now, seen: now });
    }

    /// Whose session it is, if it lives and its user is as it was.
    pub(crate) fn find(&self, key: Key, users: &Users, now: Instant) -> Option<Arc<Principal>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get_mut(&key)?;
        if !session.lives(now) || users.mark(&session.who.name) != Some(session.mark) {
            open.remove(&key);
            return None;
        }
        session.seen = now;
        Some(Arc::clone(&session.who))
    }

    /// The same, for what goes on by itself: it does not count as a word from whoever has the session.
    pub(crate) fn lives(&self, key: Key, users: &Users, now: Instant) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&key).is_some_and(|session| session.lives(now) && users.mark(&session.who.name) == Some(session.mark))
    }

    /// Ends it.
    pub(crate) fn end(&self, key: Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use starling_query::Role;

    use super::*;

    fn users(names: &[&str], role: &str) -> Users {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("users.toml");
        let verifier = crate::doors::scram::Verifier::parse(&format!(
            "SCRAM-SHA-256$100000:{0}=={1}{2}=:{2}=",
            "A".repeat(22),
            "$",
            "A".repeat(43)
        ))
        .expect("a verifier")
        .text();
        let entry = |name: &&str| format!("[[user]]\nname = {name:?}\nrole = {role:?}\nteam = \"t\"\nverifier = {verifier:?}\n");
        let text: String = names.iter().map(entry).collect();
        let decoy = "0".repeat(64);
        std::fs::write(&path, format!("decoy = \"{decoy}\"\n{text}")).expect("writes");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        }
        Users::read(&path).expect("good")
    }

    fn open(sessions: &Sessions, users: &Users, name: &str, cookie: &str, now: Instant) -> Key {
        let who = Principal { name: name.to_owned(), role: Role::Product, team: "t".to_owned() };
        let key = Key::of(cookie);
        sessions.open(key, Arc::new(who), users.mark(name).expect("there"), now);
        key
    }

    #[test]
    fn a_session_ends_by_silence_by_age_by_logout_and_with_its_user() {
        let (sessions, users, start) = (Sessions::default(), self::users(&["ada", "bob"], "product"), Instant::now());
        let ada = open(&sessions, &users, "ada", "one", start);
        assert!(sessions.find(Key::of("two"), &users, start).is_none(), "a cookie nobody was given");
        let minute = Duration::from_secs(60);
        // Looked at every 59 minutes it lives, for twelve hours.
        let mut now = start;
        while now + 59 * minute < start + LIFE {
            now += 59 * minute;
            assert_eq!(sessions.find(ada, &users, now).map(|who| who.name.clone()), Some("ada".to_owned()));
        }
        assert!(sessions.find(ada, &users, start + LIFE).is_none());
        let ada = open(&sessions, &users, "ada", "three", start);
        assert!(sessions.find(ada, &users, start + SILENCE).is_none());
        assert!(sessions.find(ada, &users, start).is_none(), "ended is ended");
        let ada = open(&sessions, &users, "ada", "four", start);
        // A stream that goes on is no word from anybody.
        assert!(sessions.lives(ada, &users, start + 59 * minute) && !sessions.lives(ada, &users, start + 61 * minute));
        sessions.end(ada);
        assert!(sessions.find(ada, &users, start).is_none());
        for changed in [self::users(&["bob"], "product"), self::users(&["ada", "bob"], "auditor")] {
            let ada = open(&sessions, &users, "ada", "five", start);
            assert!(!sessions.lives(ada, &changed, start) && sessions.find(ada, &changed, start).is_none());
        }
    }

    #[test]
    fn one_user_cannot_push_out_another() {
        let (sessions, users, start) = (Sessions::default(), self::users(&["ada", "bob"], "product"), Instant::now());
        let bob = open(&sessions, &users, "bob", "bob", start);
        let keys: Vec<Key> =
            (0..2_000).map(|n| open(&sessions, &users, "ada", &format!("ada {n}"), start + Duration::from_millis(n))).collect();
        let later = start + Duration::from_secs(3);
        assert!(sessions.find(bob, &users, later).is_some());
        let living = keys.iter().filter(|key| sessions.find(**key, &users, later).is_some()).count();
        assert_eq!(living, MOST_OF_ONE);
        assert!(sessions.find(keys[1_999], &users, later).is_some(), "the newest are those that stay");
    }
}
