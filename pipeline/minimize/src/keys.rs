//! Where keys come from, and the few that are held open while a range is worked on.

use starling_schemas::ids::{Domain, EpochId, Purpose};
use zeroize::Zeroizing;

use crate::MinimizeError;
use crate::keyed::EpochKey;
use crate::output::Place;

/// Hands out pseudonym keys. The keyring stands behind it; this crate does not know the keyring.
pub trait KeySource: Send + Sync {
    /// The 32-byte key of `purpose` for `epoch`, made if there was none yet. `Ok(None)`: it has been destroyed, its window is over.
    ///
    /// # Errors
    /// [`KeySourceError`] when it cannot be told; the range must then be tried again.
    fn pseudonym_key(&self, purpose: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError>;
}

/// Why a key could not be had. The text holds no key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySourceError(pub String);

/// Days of one purpose whose keys are open at once. Live traffic needs two; more would only keep more key material in memory.
const OPEN_DAYS: usize = 4;

/// What a key source said of one day.
struct Slot<D: Domain> {
    epoch: EpochId,
    /// `None`: destroyed.
    key: Option<EpochKey<D>>,
    last_use: u64,
}

/// The open keys of one purpose. Emptied, and so overwritten, at each range's begin and end.
pub(crate) struct OpenKeys<D: Domain> {
    slots: [Option<Slot<D>>; OPEN_DAYS],
    uses: u64,
}

impl<D: Domain> OpenKeys<D> {
    pub(crate) const fn new() -> Self {
        Self { slots: [const { None }; OPEN_DAYS], uses: 0 }
    }

    /// Forgets everything: keys may be destroyed before they are asked for again.
    pub(crate) fn clear(&mut self) {
        self.slots = [const { None }; OPEN_DAYS];
    }

    /// Hashes every number that waits under any of the keys into its place in `column`.
    pub(crate) fn settle(&mut self, column: &mut impl Place<D>) {
        self.slots.iter_mut().flatten().filter_map(|slot| slot.key.as_mut()).for_each(|key| key.settle(column));
    }

    /// The key of `epoch`, asked for once and held until four other days were used since; `None` when it was destroyed. Numbers that wait
    /// under the key that has to go are hashed into `column`.
    #[inline]
    pub(crate) fn get(
        &mut self,
        source: &dyn KeySource,
        epoch: EpochId,
        column: &mut impl Place<D>,
    ) -> Result<Option<&mut EpochKey<D>>, MinimizeError> {
        self.uses += 1;
        let place = match self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.epoch == epoch)) {
            Some(place) => place,
            None => self.open(source, epoch, column)?,
        };
        let uses = self.uses;
        Ok(self.slots.get_mut(place).and_then(Option::as_mut).and_then(|slot| {
            slot.last_use = uses;
            slot.key.as_mut()
        }))
    }

    /// Asks for a key and puts it where the one unused for longest was.
    #[cold]
    fn open(&mut self, source: &dyn KeySource, epoch: EpochId, column: &mut impl Place<D>) -> Result<usize, MinimizeError> {
        let key = source
            .pseudonym_key(D::PURPOSE, epoch)
            .map_err(|source| MinimizeError::KeySource { purpose: D::PURPOSE, epoch, source })?
            .map(|key| EpochKey::open(key, epoch));
        let last_use = |slot: &Option<Slot<D>>| slot.as_ref().map_or(0, |slot| slot.last_use);
        let oldest = (0..OPEN_DAYS).min_by_key(|place| self.slots.get(*place).map_or(0, last_use)).unwrap_or_default();
        if let Some(place) = self.slots.get_mut(oldest) {
            if let Some(leaving) = place.as_mut().and_then(|slot| slot.key.as_mut()) {
                leaving.settle(column);
            }
            *place = Some(Slot { epoch, key, last_use: self.uses });
        }
        Ok(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Person;
    use starling_schemas::ids::Integrity;
    use std::sync::Mutex;

    struct Asked(Mutex<Vec<i32>>);

    impl KeySource for Asked {
        fn pseudonym_key(&self, _: Purpose, epoch: EpochId) -> Result<Option<Zeroizing<[u8; 32]>>, KeySourceError> {
            self.0.lock().expect("no panic").push(epoch.0);
            match epoch.0 {
                99 => Err(KeySourceError("the disk is gone".to_owned())),
                98 => Ok(None),
                _ => Ok(Some(Zeroizing::new([1; 32]))),
            }
        }
    }

    #[test]
    fn a_key_is_asked_for_once_while_it_is_among_the_last_four_used() {
        let source = Asked(Mutex::default());
        let mut keys = OpenKeys::<Integrity>::new();
        for day in [1, 2, 1, 2, 3, 4, 1, 98, 98, 1, 2] {
            let key = keys.get(&source, EpochId(day), &mut Person::default()).expect("a source in order");
            assert_eq!(key.map(|k| k.epoch()), (day != 98).then_some(EpochId(day)));
        }
        assert_eq!(*source.0.lock().expect("no panic"), [1, 2, 3, 4, 98, 2]);
        keys.clear();
        assert!(keys.get(&source, EpochId(1), &mut Person::default()).expect("a source in order").is_some());
        assert_eq!(source.0.lock().expect("no panic").last(), Some(&1), "asked again after clear");
    }

    #[test]
    fn trouble_of_the_source_says_which_key_and_changes_nothing() {
        let source = Asked(Mutex::default());
        let mut keys = OpenKeys::<Integrity>::new();
        let error = keys.get(&source, EpochId(99), &mut Person::default()).map(|_| ()).expect_err("trouble");
        assert_eq!(
            error.to_string(),
            "the integrity pseudonym key of 1970-04-10 could not be had: the disk is gone; put the key source in order, the range is tried again"
        );
        assert!(keys.slots.iter().all(Option::is_none));
    }
}
