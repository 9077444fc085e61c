//! Places for statements: so many of one user are in work or on their way, whichever way it asks, and so many of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Named, Refusal};

/// Statements of all users that are in work or on their way.
const ALL_PLACES: usize = 64;

/// Who has how many statements in work or on their way.
pub(crate) struct Places {
    door: Named,
    of_one: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One of them; given back when it is dropped.
pub(crate) struct Place {
    name: String,
    places: Arc<Places>,
    in_work: bool,
}

impl Place {
    /// The statement has ended by itself; its answer is still to be sent.
    pub(crate) fn has_ended(&mut self) {
        self.in_work = false;
    }
}

impl Places {
    pub(crate) fn new(door: Named, of_one: usize) -> Arc<Self> {
        Arc::new(Self { door, of_one, taken: Mutex::default() })
    }

    /// A place for a statement of this user.
    ///
    /// # Errors
    /// 53300 where there is none.
    pub(crate) fn take(self: &Arc<Self>, name: &str) -> Result<Place, Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(name).copied().unwrap_or(0);
        if own >= self.of_one {
            let reason = format!("{own} of your statements are in work or on their way already");
            return Err(Refusal::new("53300", reason, "wait for one to end, or close its connection"));
        }
        if taken.values().sum::<usize>() >= ALL_PLACES {
            return Err(Refusal::new("53300", "too many statements are in work", "try again in a while"));
        }
        taken.insert(name.to_owned(), own + 1);
        Ok(Place { name: name.to_owned(), places: Arc::clone(self), in_work: true })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.in_work {
            let over = self.places.door.over;
            tracing::info!("a statement over {over} was cancelled: its client has gone, or the server stops");
        }
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.name) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                taken.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, HTTP};
    use super::*;

    #[test]
    fn a_user_has_so_many_places_and_takes_none_of_anothers() {
        let places = Places::new(HTTP, 2);
        let first = places.take("ada").expect("free");
        let _second = places.take("ada").expect("free");
        assert_eq!(places.take("ada").err().map(|refusal| refusal.class()), Some(Class::Full));
        assert!(places.take("bob").is_ok(), "and gives it back at once");
        drop(first);
        let _third = places.take("ada").expect("free again");
        let many: Vec<_> = (0..ALL_PLACES).map(|n| places.take(&format!("user {n}"))).collect();
        assert_eq!(many.iter().filter(|place| place.is_ok()).count(), ALL_PLACES - 2);
        drop(many);
        assert_eq!(places.taken.lock().expect("whole").len(), 1, "what is given back is forgotten");
    }
}
