//! See the crate's essay. `tests/fuzz/run.sh` builds and runs it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| starling_fuzz::canonical::check(bytes));
