//! How many tests of one executable run at one time.

use libtest_mimic::Arguments;

/// The arguments, with as many threads as `RUST_TEST_THREADS` says where no argument says it: as the harness of Rust itself does.
pub(crate) fn arguments() -> Arguments {
    let mut arguments = Arguments::from_args();
    let named = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    arguments.test_threads = arguments.test_threads.or(named);
    arguments
}
