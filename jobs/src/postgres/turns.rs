//! Whose turn it is: so many statements of one user are in work at one time, over all his sessions, and more wait. A tool that opens
//! many sessions is not refused as it would be over HTTP, where a client can be told to come again; and nobody else waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// The turns of all users who have a session.
pub(super) struct Turns {
    of_one: usize,
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Turns {
    /// So many at one time for each.
    pub(super) fn new(of_one: usize) -> Self {
        Self { of_one, users: Mutex::default() }
    }

    /// Those of this user, the same for all his sessions.
    pub(super) fn of(&self, name: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = users.get(name).and_then(Weak::upgrade) {
            return own;
        }
        // Whoever has no session any more takes no room.
        users.retain(|_, turns| turns.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_one));
        users.insert(name.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_user_share_turns_and_others_have_their_own() {
        let turns = Turns::new(2);
        let (ada, too, joe) = (turns.of("ada"), turns.of("ada"), turns.of("joe"));
        let held = (ada.try_acquire().expect("free"), too.try_acquire().expect("free"));
        assert!(ada.try_acquire().is_err() && turns.of("ada").try_acquire().is_err() && joe.try_acquire().is_ok());
        drop(held);
        assert!(too.try_acquire().is_ok());
        drop((ada, too));
        let _kim = turns.of("kim");
        assert_eq!(turns.users.lock().expect("nobody panicked").len(), 2);
    }
}
