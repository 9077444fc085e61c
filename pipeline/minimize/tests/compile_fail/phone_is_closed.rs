//! A phone number cannot be printed, copied, taken apart or kept beside its key.

use starling_minimize::{EpochKey, Phone};
use starling_schemas::ids::Integrity;

fn shows<T: std::fmt::Debug>(_: &T) {}
fn displays<T: std::fmt::Display>(_: &T) {}
fn clones<T: Clone>(_: &T) {}
fn compares<T: PartialEq>(_: &T) {}

fn leak(phone: Phone, key: EpochKey<Integrity>) {
    shows(&phone);
    displays(&phone);
    clones(&phone);
    compares(&phone);
    let _ = phone.digits;
    shows(&key);
    clones(&key);
    let _ = key.key;
}

fn main() {}
