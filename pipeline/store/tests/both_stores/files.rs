//! Files as bytes.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use starling_store::{StoreError, seal, unseal};

use crate::places::{OsEntropy, Place, key};

pub(crate) async fn a_file_is_replaced_read_listed_and_removed(place: Place) {
    let files = &place.files;
    files.put("b/c/2.bin", Bytes::from_static(b"one")).await.expect("puts");
    files.put("b/c/2.bin", Bytes::from_static(b"two")).await.expect("puts");
    files.put("a.bin", Bytes::new()).await.expect("puts");
    assert_eq!(files.get("b/c/2.bin").await.expect("gets").as_deref(), Some(b"two".as_slice()));
    assert_eq!(files.get("a.bin").await.expect("gets").as_deref(), Some(b"".as_slice()));
    assert_eq!(files.list("").await.expect("lists"), ["a.bin", "b/c/2.bin"]);
    assert_eq!(files.list("b/").await.expect("lists"), ["b/c/2.bin"]);
    assert!(files.list("nothing").await.expect("lists").is_empty());
    files.delete("b/c/2.bin").await.expect("deletes");
    files.delete("b/c/2.bin").await.expect("deletes again");
    files.delete("never/there").await.expect("deletes nothing");
    assert_eq!(files.get("b/c/2.bin").await.expect("gets"), None);
    assert_eq!(files.list("").await.expect("lists"), ["a.bin"]);
}

pub(crate) async fn a_folder_of_fifteen_hundred_files_goes_and_nothing_else(place: Place) {
    let files = &place.files;
    files.put("daylight", Bytes::from_static(b"2")).await.expect("puts");
    files.put("d", Bytes::from_static(b"3")).await.expect("puts");
    futures::stream::iter(0..1500)
        .map(|i| async move { files.put(&format!("day/{:02}/file-{i}", i % 7), Bytes::from_static(b"1")).await })
        .buffer_unordered(32)
        .try_collect::<()>()
        .await
        .expect("puts");
    assert_eq!(files.list("day").await.expect("lists").len(), 1500);
    let before = files.requests();
    for _ in 0..2 {
        files.delete_folder("day").await.expect("deletes, also what is gone");
    }
    if place.is_s3 {
        assert!(files.requests() - before < 20, "in bulk, not one by one: {}", files.requests() - before);
    }
    assert_eq!(files.list("").await.expect("lists"), ["d", "daylight"]);
}

pub(crate) async fn i3_of_eight_who_create_a_file_one_wins_and_its_bytes_stay(place: Place) {
    for round in 0..10 {
        let path = format!("stats/one-{round}");
        let puts = (0..8_u8).map(|i| {
            let (files, path) = (place.files.clone(), path.clone());
            tokio::spawn(async move { files.put_new(&path, Bytes::from(vec![i; 1000])).await.expect("puts") })
        });
        let placed: Vec<bool> = futures::future::join_all(puts).await.into_iter().map(|r| r.expect("joins")).collect();
        assert_eq!(placed.iter().filter(|p| **p).count(), 1);
        let winner = u8::try_from(placed.iter().position(|p| *p).expect("one")).expect("small");
        assert_eq!(place.files.get(&path).await.expect("gets").expect("there").as_ref(), [winner; 1000]);
        assert!(!place.files.put_new(&path, Bytes::new()).await.expect("puts not"));
        assert_eq!(place.files.get(&path).await.expect("gets").expect("there").len(), 1000);
    }
    assert_eq!(place.files.list("").await.expect("lists").len(), 10, "and nothing beside them");
}

pub(crate) async fn a_path_that_leads_elsewhere_is_refused(place: Place) {
    let files = &place.files;
    for path in ["", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "x#12", "."] {
        assert!(matches!(files.put(path, Bytes::new()).await, Err(StoreError::PathRefused)), "{path}");
        assert!(matches!(files.put_new(path, Bytes::new()).await, Err(StoreError::PathRefused)), "{path}");
        assert!(matches!(files.get(path).await, Err(StoreError::PathRefused)), "{path}");
        assert!(matches!(files.delete(path).await, Err(StoreError::PathRefused)), "{path}");
        if path != "a/" {
            assert!(matches!(files.delete_folder(path).await, Err(StoreError::PathRefused)), "{path}");
        }
    }
}

pub(crate) async fn the_check_finds_a_good_store_good_and_leaves_nothing(place: Place) {
    for _ in 0..2 {
        place.files.check().await.expect("nothing is wrong");
    }
    assert!(place.files.list("").await.expect("lists").is_empty());
}

pub(crate) async fn a_sealed_file_opens_in_its_place_only(place: Place) {
    let (files, key) = (&place.files, key());
    for path in ["integrity/one.sealed", "integrity/two.sealed"] {
        files.put(path, seal(&key, &OsEntropy, path, b"CANARY state").expect("seals").into()).await.expect("puts");
    }
    let sealed = files.get("integrity/one.sealed").await.expect("gets").expect("there");
    assert!(!sealed.windows(6).any(|w| w == b"CANARY"));
    assert_eq!(unseal(&key, "integrity/one.sealed", &sealed).expect("opens"), b"CANARY state");
    let other = files.get("integrity/two.sealed").await.expect("gets").expect("there");
    files.put("integrity/one.sealed", other).await.expect("puts");
    let moved = files.get("integrity/one.sealed").await.expect("gets").expect("there");
    assert!(matches!(unseal(&key, "integrity/one.sealed", &moved), Err(StoreError::SealBroken)));
}

pub(crate) async fn a_file_of_many_megabytes_comes_back_whole(place: Place) {
    let bytes: Bytes = (0..20_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    place.files.put("large", bytes.clone()).await.expect("puts");
    assert!(place.files.get("large").await.expect("gets").expect("there") == bytes);
}
