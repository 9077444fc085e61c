//! Which version of the client somebody has: releases come out over time, and everybody takes them up in their own time, at midnight UTC.
//!
//! So the shares of versions are uneven, differ between platforms, and move while the simulation runs.

use starling_schemas::codes::ClientVersion;
use starling_schemas::event::{CrashSite, Platform};

/// A version of one platform's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    major: u32,
    minor: u32,
    patch: u32,
    /// First day it could be had, counted from the first day of the simulation.
    day: i32,
    /// Where it crashes again and again, if it is a bad one.
    pub(super) weak: Option<CrashSite>,
}

impl Release {
    /// What statistics see of it.
    pub(super) const fn version(&self) -> ClientVersion {
        ClientVersion::new(self.major, self.minor)
    }

    /// Writes it over what stands in `out`, as a client says it.
    pub(super) fn write(&self, out: &mut String) {
        use std::fmt::Write as _;
        out.clear();
        // Writing to a String cannot fail.
        let _ = write!(out, "{}.{}.{}", self.major, self.minor, self.patch);
    }
}

const fn sound(major: u32, minor: u32, patch: u32, day: i32) -> Release {
    Release { major, minor, patch, day, weak: None }
}

const fn bad(release: Release, weak: CrashSite) -> Release {
    Release { weak: Some(weak), ..release }
}

/// Oldest first.
const ANDROID: [Release; 9] = [
    sound(25, 36, 12, -160),
    sound(25, 40, 6, -110),
    sound(25, 44, 71, -75),
    sound(26, 1, 70, -45),
    sound(26, 2, 74, -27),
    sound(26, 3, 9, -12),
    bad(sound(26, 4, 31, -4), CrashSite::Call),
    sound(26, 5, 8, 1),
    sound(26, 6, 3, 5),
];
const IPHONE: [Release; 7] = [
    sound(25, 41, 80, -150),
    bad(sound(25, 46, 73, -90), CrashSite::Startup),
    sound(26, 1, 74, -47),
    sound(26, 2, 70, -30),
    sound(26, 3, 75, -13),
    sound(26, 4, 72, -3),
    sound(26, 5, 70, 3),
];
const WEB: [Release; 5] =
    [sound(2, 41, 1031, -60), sound(2, 42, 1032, -21), sound(2, 43, 4, -6), sound(2, 44, 1, -1), sound(2, 45, 1, 2)];
const DESKTOP: [Release; 4] = [sound(2, 38, 3, -100), sound(2, 39, 100, -40), sound(2, 40, 101, -9), sound(2, 41, 2, 2)];
const KAIOS: [Release; 2] = [sound(2, 18, 10, -400), sound(2, 19, 2, -70)];

/// How many of 1,000 have taken up a release so many days after it came out. Nobody is later than the last.
const TAKEN_UP: [(u64, i32); 5] = [(0, 0), (420, 2), (800, 9), (940, 40), (1_000, 300)];

/// The newest release of a platform that the person with these random bits has on a day, counted from the first of the simulation.
pub(super) fn release(platform: Platform, bits: u64, day: i32) -> &'static Release {
    // A person may be quick on one platform and slow on another; a browser is no slower than the page is loaded anew.
    let (releases, bits, part): (&[Release], u64, i32) = match platform {
        Platform::Iphone => (&IPHONE, bits, 1),
        Platform::Web => (&WEB, bits >> 10, 4),
        Platform::Desktop => (&DESKTOP, bits >> 20, 1),
        Platform::Kaios => (&KAIOS, bits, 1),
        _ => (&ANDROID, bits, 1),
    };
    let delay = delay_days(bits % 1_000) / part;
    let taken = releases.iter().rev().find(|release| release.day + delay <= day);
    taken.or(releases.first()).unwrap_or(&ANDROID[0])
}

/// After how many days somebody of this rank of 1,000 takes up a release.
fn delay_days(rank: u64) -> i32 {
    let place = TAKEN_UP.partition_point(|(taken, _)| *taken <= rank);
    let (Some((low, from)), Some((high, to))) = (TAKEN_UP.get(place - 1), TAKEN_UP.get(place)) else { return 0 };
    from + ((rank - low) * (to - from) as u64 / (high - low)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(platform: Platform, version: ClientVersion, day: i32) -> f64 {
        (0..1_000).filter(|rank| release(platform, *rank, day).version() == version).count() as f64 / 1_000.0
    }

    #[test]
    fn people_take_up_a_release_sooner_or_later_and_never_go_back() {
        let new = ClientVersion::new(26, 5);
        let shares: Vec<f64> = (0..5).map(|day| share(Platform::Android, new, day)).collect();
        assert_eq!(shares[0], 0.0, "it is not out yet");
        assert!(shares.is_sorted() && shares[2] > 0.1 && shares[4] > 0.4 && shares[4] < 0.8, "{shares:?}");
        for platform in [Platform::Android, Platform::Iphone, Platform::Web, Platform::Desktop, Platform::Kaios] {
            for rank in 0..1_000 {
                let bits = rank | rank << 10 | rank << 20;
                let versions: Vec<_> = (0..30).map(|day| release(platform, bits, day).version()).collect();
                assert!(versions.is_sorted());
            }
            let all: std::collections::HashSet<_> =
                (0..1 << 30).step_by(7_919_111).map(|b| release(platform, b, 0).version()).collect();
            assert!(all.len() >= 2, "{platform:?} {all:?}");
        }
    }

    #[test]
    fn a_release_is_written_as_what_statistics_see_and_more() {
        let mut out = String::new();
        for release in ANDROID.iter().chain(&IPHONE).chain(&WEB).chain(&DESKTOP).chain(&KAIOS) {
            release.write(&mut out);
            assert!(out.starts_with(&format!("{}.", release.version())), "{out}: within what a version can hold");
        }
    }
}
