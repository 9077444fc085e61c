//! A pseudonym of one purpose is no pseudonym of another, and analytics cannot key a group.

use starling_minimize::{EpochKey, Phone};
use starling_schemas::ids::{AnalyticsDay, Integrity, Pseudonym};

fn wants_integrity(_: Pseudonym<Integrity>) {}

fn mix(analytics: EpochKey<AnalyticsDay>, integrity: EpochKey<Integrity>, phone: Phone) {
    wants_integrity(integrity.person(&phone));
    wants_integrity(analytics.person(&phone));
    let _ = analytics.person(&phone) == integrity.person(&phone);
    let _ = analytics.group(b"group");
}

fn main() {}
