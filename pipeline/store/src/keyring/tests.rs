use std::sync::Barrier;

use starling_schemas::ids::{EpochId, Purpose};

use super::*;
use crate::testing::{BrokenEntropy, OsEntropy};

fn id(epoch: i32) -> KeyId {
    KeyId { kind: KeyKind::Pseudonym, purpose: Purpose::AnalyticsDay, epoch: EpochId(epoch) }
}

fn open(dir: &Path) -> Keyring {
    Keyring::open(dir, Arc::new(OsEntropy)).expect("opens")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_key_is_made_once_and_read_ever_after() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(&dir.path().join("keyring"));
    assert!(keyring.get(id(1)).expect("reads").is_none());
    let made = keyring.get_or_create(id(1)).expect("makes");
    let again = open(&dir.path().join("keyring")).get(id(1)).expect("reads").expect("there");
    let other = keyring.get_or_create(id(2)).expect("makes");
    assert!(made.expose() == again.expose());
    assert!(made.expose() != other.expose());
    assert!(made.expose() != &[0; 32]);
    assert_eq!(keyring.list().expect("lists"), vec![(id(1), KeyState::Alive), (id(2), KeyState::Alive)]);
    assert_eq!(keyring.alive().expect("lists"), [id(1), id(2)]);
}

#[test]
fn the_folder_is_0700_and_every_file_0600_even_where_the_folder_was_open_before() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("keyring");
    std::fs::create_dir(&folder).expect("creates");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("sets");
    let keyring = open(&folder);
    keyring.get_or_create(id(1)).expect("makes");
    keyring.destroy(id(2), 7).expect("destroys");
    assert_eq!(mode(&folder), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("lists") {
        assert_eq!(mode(&entry.expect("entry").path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 2, "no temporary file is left");
    assert_eq!(mode(&open(&dir.path().join("deep/er")).folder), 0o700);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    keyring.get_or_create(id(1)).expect("makes");
    std::fs::set_permissions(keyring.key_path(id(1)), std::fs::Permissions::from_mode(0o640)).expect("sets");
    assert!(matches!(keyring.get(id(1)), Err(KeyringError::NotPrivate(_))));
}

#[test]
fn a_damaged_key_is_refused_and_not_replaced() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    keyring.get_or_create(id(1)).expect("makes");
    std::fs::write(keyring.key_path(id(1)), b"short").expect("writes");
    assert!(matches!(keyring.get(id(1)), Err(KeyringError::Damaged(_))));
    assert!(matches!(keyring.get_or_create(id(1)), Err(KeyringError::Damaged(_))));
}

#[test]
fn without_entropy_there_is_no_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = Keyring::open(dir.path(), Arc::new(BrokenEntropy)).expect("opens");
    assert!(matches!(keyring.get_or_create(id(1)), Err(KeyringError::NoEntropy(_))));
    assert!(keyring.list().expect("lists").is_empty());
}

#[test]
fn of_many_threads_that_make_a_key_at_once_all_get_the_same() {
    let dir = tempfile::tempdir().expect("tempdir");
    for epoch in 0..20 {
        let barrier = Barrier::new(8);
        let keys: Vec<SecretKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let keyring = open(dir.path());
                        barrier.wait();
                        keyring.get_or_create(id(epoch)).expect("makes or reads")
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("joins")).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0].expose() == pair[1].expose()));
    }
}

#[test]
fn i7_a_destroyed_key_never_comes_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    keyring.get_or_create(id(1)).expect("makes");
    let first = keyring.destroy(id(1), 70).expect("destroys");
    assert_eq!(first, Destruction { id: id(1), at_ms: 70, first: true });
    assert!(!keyring.key_path(id(1)).exists());
    for keyring in [&keyring, &open(dir.path())] {
        assert!(matches!(keyring.get(id(1)), Err(KeyringError::Destroyed(_))));
        assert!(matches!(keyring.get_or_create(id(1)), Err(KeyringError::Destroyed(_))));
        assert_eq!(keyring.list().expect("lists"), vec![(id(1), KeyState::Destroyed { at_ms: 70 })]);
        assert_eq!(keyring.alive().expect("lists"), []);
    }
    let again = keyring.destroy(id(1), 90).expect("destroys");
    assert_eq!(again, Destruction { id: id(1), at_ms: 70, first: false });
}

#[test]
fn a_key_destroyed_before_it_was_made_is_never_made() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    keyring.destroy(id(1), 70).expect("destroys");
    assert!(matches!(keyring.get_or_create(id(1)), Err(KeyringError::Destroyed(_))));
}

#[test]
fn the_bytes_of_a_destroyed_key_are_in_no_file_even_where_a_crash_left_a_second_name() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    let key = keyring.get_or_create(id(1)).expect("makes");
    let left = dir.path().join(format!("{}00{TEMPORARY_ENDING}", temporary_prefix(id(1))));
    std::fs::write(&left, key.expose()).expect("writes");
    keyring.destroy(id(1), 70).expect("destroys");
    for entry in std::fs::read_dir(dir.path()).expect("lists") {
        let bytes = std::fs::read(entry.expect("entry").path()).expect("reads");
        assert!(!bytes.windows(32).any(|w| w == key.expose()));
    }
    assert!(!left.exists());
}

#[test]
fn a_destruction_that_a_crash_interrupted_after_the_tombstone_is_finished_by_open() {
    let dir = tempfile::tempdir().expect("tempdir");
    let keyring = open(dir.path());
    keyring.get_or_create(id(1)).expect("makes");
    std::fs::write(keyring.tombstone_path(id(1)), "70").expect("writes");
    assert!(matches!(keyring.get(id(1)), Err(KeyringError::Destroyed(_))));
    assert!(keyring.key_path(id(1)).exists());
    let keyring = open(dir.path());
    assert!(!keyring.key_path(id(1)).exists());
}

#[test]
fn making_and_destroying_at_once_never_leaves_a_living_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    for epoch in 0..40 {
        let barrier = Barrier::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let keyring = open(dir.path());
                    barrier.wait();
                    match keyring.get_or_create(id(epoch)) {
                        Ok(key) => assert!(key.expose() != &[0; 32], "an overwritten key was handed out"),
                        Err(KeyringError::Destroyed(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                });
            }
            scope.spawn(|| {
                let keyring = open(dir.path());
                barrier.wait();
                keyring.destroy(id(epoch), 1).expect("destroys");
            });
        });
        let keyring = open(dir.path());
        assert!(matches!(keyring.get(id(epoch)), Err(KeyringError::Destroyed(_))));
        assert!(!keyring.key_path(id(epoch)).exists());
    }
}

#[test]
fn what_a_crash_left_of_a_key_being_made_goes_when_it_has_served_or_nobody_can_be_waiting_for_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("keyring");
    let key = open(&folder).get_or_create(id(1)).expect("makes");
    let left = |name: &str| folder.join(format!("{}{name}{TEMPORARY_ENDING}", temporary_prefix(id(1))));
    std::fs::hard_link(folder.join(id(1).stem() + KEY_ENDING), left("served")).expect("links");
    for name in ["old", "fresh"] {
        std::fs::write(left(name), [7; KEY_BYTES]).expect("writes");
    }
    let long_ago = std::time::SystemTime::now() - ABANDONED_AFTER;
    File::options().write(true).open(left("old")).and_then(|f| f.set_modified(long_ago)).expect("sets its time");
    let again = open(&folder);
    assert_eq!(["served", "old", "fresh"].map(|name| left(name).exists()), [false, false, true]);
    assert!(again.get(id(1)).expect("reads").expect("there").expose() == key.expose(), "the key itself is whole");
}
