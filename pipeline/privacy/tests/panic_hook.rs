//! OpenDP's arithmetic must not take the process's panic hook away. Alone in its executable, because the hook is the process's.

#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};

use starling_privacy::epsilon;
use starling_schemas::metrics::NanoRho;

static TOLD: AtomicUsize = AtomicUsize::new(0);

#[test]
fn i4_threads_that_ask_for_epsilon_at_once_leave_the_panic_hook_as_it_was() {
    std::panic::set_hook(Box::new(|_| {
        TOLD.fetch_add(1, Ordering::SeqCst);
    }));
    let threads = (0..4).map(|_| std::thread::spawn(|| (1..200).map(|i| epsilon(NanoRho(1_000_000 * i), 1e-6)).sum::<f64>()));
    for thread in threads.collect::<Vec<_>>() {
        assert!(thread.join().is_ok_and(f64::is_finite));
    }
    let before = TOLD.load(Ordering::SeqCst);
    assert!(std::panic::catch_unwind(|| panic!("a text that only our hook hears")).is_err());
    assert_eq!(TOLD.load(Ordering::SeqCst), before + 1, "the hook is not ours any more");
}
