//! Counts allocations while frames are pushed.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use starling_minimize::{Limits, Minimizer};
use starling_schemas::event as proto;
use starling_schemas::event::event::Body;
use starling_schemas::ids::Offset;

use common::{BOB, DAY, TestKeys, business, encoded, event, message, open_context};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps `GlobalAlloc`'s contract. Counting touches a
// thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_event_allocates_once_the_buffers_have_grown() {
    let group = b"0123456789abcdef".to_vec();
    let at = |hours: i64, body| proto::Event {
        event_time_ms: DAY.start_ms() + hours * 3_600_000,
        client: Some(proto::Client { platform: 1, version: "26.4.1".into(), os: "android 16".into() }),
        ..event(body)
    };
    let mut frames: Vec<Vec<u8>> = vec![vec![], vec![0xff; 9]];
    for hours in [-1, 0, 1, 23] {
        for body in [
            message(),
            business(1),
            Body::CallEnded(proto::CallEnded { kind: 1, quality: 2, ..Default::default() }),
            Body::FeatureUsed(proto::FeatureUsed { feature: 3 }),
            Body::GroupCreated(proto::GroupCreated { group: group.clone(), size: 9 }),
            Body::UserBlocked(proto::UserBlocked { person: BOB.into(), ..Default::default() }),
            Body::GroupLeft(proto::GroupLeft { group: group.clone(), after_s: 1 }),
            Body::GroupLeft(proto::GroupLeft { group: vec![7; 500], after_s: 1 }),
            Body::ContactsUploaded(Default::default()),
        ] {
            frames.push(encoded(&at(hours, body)));
        }
    }
    let mut minimizer = Minimizer::new(Arc::new(TestKeys::default()), Limits::default());
    let mut range = |rounds: usize| {
        minimizer.begin(open_context());
        // Keys are opened and days are seen once a range: that may allocate.
        for frame in &frames {
            minimizer.push(Offset(0), frame).expect("keys are in order");
        }
        let before = ALLOCATIONS.get();
        for _ in 0..rounds {
            for frame in &frames {
                minimizer.push(Offset(0), frame).expect("keys are in order");
            }
        }
        let pushed = ALLOCATIONS.get() - before;
        let minimized = minimizer.finish().expect("columns fit");
        assert_eq!(minimized.events, ((rounds + 1) * frames.len()) as u64);
        pushed
    };
    assert!(range(200) > 0, "the first range grows the buffers, or the counter does not count");
    assert_eq!(range(200), 0);
    assert_eq!(range(50), 0);
}
