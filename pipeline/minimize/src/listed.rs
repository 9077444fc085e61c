//! The operator's lists of hashes: whether a group's name, description or photo is on one (P7).
//!
//! ```text
//!   a file: a line `HASH FIELD LABEL` ──► parse ──► GroupLists ──► to_text ──► kept beside the plans that name it ──► from_text
//!                                                       │
//!   GroupProfileChanged ── each hash that is there ─────┴──► label and field, or nothing
//! ```
//!
//! **Which hash** the edge computes is the operator's: of a file or of what a picture looks like, of a name as it is written or spelt alike. Here bytes are
//! compared with bytes, whole: near copies are found only where their hashes are the same, and a list made with another function finds nothing, which
//! nothing here can tell. A hash has 8 to 64 bytes.
//!
//! # Privacy
//! A hash that is on no list leaves no trace: it is compared inside [`Minimizer::push`](crate::Minimizer::push), from the borrowed frame. Of one that is, the
//! list's label and the field leave, never the hash. A list in memory and at rest has no hash either, but 16 bytes of BLAKE3 over field and hash; who has the
//! text can try candidates all the same, as with any list of hashes.
//!
//! # Failure
//! A hash that is on no list passes for one that is: chance below 2⁻⁷⁷ in ten billion hashes held against a list of 100,000.

use std::collections::BTreeMap;
use std::fmt;

use starling_schemas::codes::ProfileField;

/// Most hashes of all lists together.
pub const MOST_HASHES: usize = 100_000;
/// Most lists, so that an event gives few signals.
pub(crate) const MOST_LISTS: usize = 16;
/// Longest label of a list, in bytes.
pub(crate) const LABEL_BYTES: usize = 32;
/// Bytes of a hash.
const HASH_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// Faults that are told of one text.
const MOST_FAULTS: usize = 20;

/// A text that is no list. Nothing that stands in it is repeated: what was meant to be a hash may be anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Lines that cannot be used, with what to do, at most 20 of them.
    #[error("{}", .0.join("\n"))]
    Lines(Vec<String>),
    /// What was kept is not what was written.
    #[error("the lists that were kept with a plan are damaged: restore the metastore from a backup")]
    Damaged,
}

/// One hash on one list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    field: ProfileField,
    digest: [u8; 16],
    /// Place in the labels.
    list: u8,
}

/// Lists of hashes. Its `Debug` tells numbers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct GroupLists {
    /// In order, none twice.
    labels: Vec<String>,
    /// The same.
    entries: Vec<Entry>,
}

impl fmt::Debug for GroupLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLists").field("lists", &self.labels.len()).field("hashes", &self.entries.len()).finish()
    }
}

impl GroupLists {
    /// Reads an operator's text: a line `HASH FIELD LABEL` for each hash, in hex; empty lines and those that begin with `#` say nothing. `name`: what the
    /// text is called in errors.
    ///
    /// # Errors
    /// [`ListError::Lines`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ListError> {
        let mut faults = Vec::new();
        let mut found = Vec::new();
        let mut labels = BTreeMap::<&str, ()>::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = match entry(line) {
                Ok(_) if found.len() == MOST_HASHES => Err("the hashes end here: a file holds 100000 at most"),
                Ok((_, _, label)) if labels.len() == MOST_LISTS && !labels.contains_key(label) => {
                    Err("one list too many: give it the label of another, there are 16 at most")
                }
                other => other,
            };
            match parsed {
                Ok((digest, field, label)) => {
                    labels.insert(label, ());
                    found.push((digest, field, label));
                }
                Err(what) => faults.push(format!("{name}:{number}: {what}")),
            }
            if faults.len() == MOST_FAULTS {
                break;
            }
        }
        if !faults.is_empty() {
            return Err(ListError::Lines(faults));
        }
        Ok(Self::of(labels.into_keys().map(ToOwned::to_owned).collect(), &found))
    }

    /// `labels` are in order.
    fn of(labels: Vec<String>, found: &[([u8; 16], ProfileField, &str)]) -> Self {
        let place = |label: &str| labels.binary_search_by(|known| known.as_str().cmp(label)).ok();
        let entries = found.iter().filter_map(|(digest, field, label)| {
            let list = place(label).and_then(|place| u8::try_from(place).ok())?;
            Some(Entry { field: *field, digest: *digest, list })
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable();
        entries.dedup();
        Self { labels, entries }
    }

    /// The lists as text, for keeping: equal lists give equal texts.
    #[must_use]
    pub fn to_text(&self) -> String {
        use fmt::Write as _;
        let mut out = String::with_capacity(self.entries.len() * 64);
        for entry in &self.entries {
            for byte in entry.digest {
                let _ = write!(out, "{byte:02x}");
            }
            let _ = writeln!(out, " {} {}", entry.field, self.label(entry.list));
        }
        out
    }

    /// Reads what [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// [`ListError::Damaged`].
    pub fn from_text(text: &str) -> Result<Self, ListError> {
        let read = |line| {
            let (digest, field, label) = words(line).map_err(|_| ListError::Damaged)?;
            let digest = unhex(digest).and_then(|bytes| bytes.try_into().ok()).ok_or(ListError::Damaged)?;
            Ok((digest, field, label))
        };
        let found = text.lines().map(read).collect::<Result<Vec<_>, _>>()?;
        let labels: BTreeMap<&str, ()> = found.iter().map(|(_, _, label)| (*label, ())).collect();
        if found.len() > MOST_HASHES || labels.len() > MOST_LISTS {
            return Err(ListError::Damaged);
        }
        Ok(Self::of(labels.into_keys().map(ToOwned::to_owned).collect(), &found))
    }

    /// Labels of the lists, in order.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How many hashes there are.
    #[must_use]
    pub fn hashes(&self) -> usize {
        self.entries.len()
    }

    /// Labels of the lists on which a hash of a field stands, in order.
    pub(crate) fn find(&self, field: ProfileField, hash: &[u8]) -> impl Iterator<Item = &str> {
        let digest = (!self.entries.is_empty() && HASH_BYTES.contains(&hash.len())).then(|| digest(field, hash));
        let first = digest.map_or(self.entries.len(), |digest| {
            self.entries.partition_point(|entry| (entry.field, entry.digest) < (field, digest))
        });
        let on = self.entries.iter().skip(first).take_while(move |entry| entry.field == field && Some(entry.digest) == digest);
        on.map(|entry| self.label(entry.list))
    }

    fn label(&self, place: u8) -> &str {
        self.labels.get(usize::from(place)).map_or("", String::as_str)
    }
}

/// What is kept of a hash.
fn digest(field: ProfileField, hash: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("starling 2026 group lists: hash of a group's profile");
    hasher.update(&[field.code()]).update(hash);
    let mut out = [0; 16];
    out.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    out
}

/// One line of an operator's text, or what to do about it.
fn entry(line: &str) -> Result<([u8; 16], ProfileField, &str), &'static str> {
    let (hash, field, label) = words(line)?;
    let hash = unhex(hash).ok_or("the hash must be in hex, two digits a byte, without 0x or colons")?;
    if !HASH_BYTES.contains(&hash.len()) {
        return Err("the hash must have 8 to 64 bytes: 16 to 128 digits");
    }
    Ok((digest(field, &hash), field, label))
}

/// The three words of a line.
fn words(line: &str) -> Result<(&str, ProfileField, &str), &'static str> {
    let mut words = line.split_ascii_whitespace();
    let (Some(hash), Some(field), Some(label), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("write three words: the hash in hex, `name`, `description` or `photo`, and the label of the list");
    };
    let field = ProfileField::parse(field).ok_or("the second word says what is hashed: `name`, `description` or `photo`")?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = label.len() <= LABEL_BYTES && label.bytes().all(fits) && label.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_label {
        return Err("the label has small letters, digits and `-`, begins with a letter, and has 32 at most");
    }
    Ok((hash, field, label))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * HASH_BYTES.end() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks_exact(2).map(|two| Some(digit(*two.first()?)? << 4 | digit(*two.last()?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &str = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";

    fn found(lists: &GroupLists, field: ProfileField, hash: &str) -> Vec<String> {
        lists.find(field, &unhex(hash).expect("hex")).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_hash_is_found_on_every_list_it_is_on_and_for_no_other_field() {
        let text = format!(
            "# Made on Monday.\n\n{PHOTO} photo known-abuse\n  {}\tphoto   second\n0011223344556677 name scam-names\n{PHOTO} photo known-abuse\n",
            PHOTO.to_uppercase()
        );
        let lists = GroupLists::parse("lists.txt", &text).expect("good");
        assert_eq!((lists.labels().join(" "), lists.hashes()), ("known-abuse scam-names second".to_owned(), 3));
        assert_eq!(found(&lists, ProfileField::Photo, PHOTO), ["known-abuse", "second"]);
        assert_eq!(found(&lists, ProfileField::Name, PHOTO), Vec::<String>::new());
        assert_eq!(found(&lists, ProfileField::Name, "0011223344556677"), ["scam-names"]);
        for other in ["0011223344556678", "00112233445566", "001122334455667700", ""] {
            assert_eq!(found(&lists, ProfileField::Name, other), Vec::<String>::new(), "{other}");
        }
        assert_eq!(found(&GroupLists::default(), ProfileField::Photo, PHOTO), Vec::<String>::new());
    }

    #[test]
    fn i4_what_is_kept_has_no_hash_and_leads_back() {
        let text = format!("{PHOTO} photo known-abuse\n0011223344556677 name scam-names\n");
        let lists = GroupLists::parse("lists.txt", &text).expect("good");
        let kept = lists.to_text();
        assert_eq!(GroupLists::from_text(&kept).expect("as written"), lists);
        assert!(kept.lines().count() == 2 && !kept.contains(&PHOTO[..8]) && !kept.contains("00112233"), "{kept}");
        assert_eq!(format!("{lists:?}"), "GroupLists { lists: 2, hashes: 2 }");
        for damaged in [&kept[1..], &kept[..kept.len() - 12], "x\n"] {
            assert_eq!(GroupLists::from_text(damaged), Err(ListError::Damaged));
        }
        assert_eq!(GroupLists::from_text("").expect("none"), GroupLists::default());
    }

    #[test]
    fn i4_a_fault_names_its_line_and_what_to_do_and_repeats_nothing() {
        for (line, told) in [
            ("+4915112345678", "write three words"),
            ("+4915112345678 name scam", "must be in hex"),
            ("001122334455667 name scam", "must be in hex"),
            ("00112233445566 name scam", "8 to 64 bytes"),
            (&format!("{} name scam", "00".repeat(65)), "must be in hex"),
            ("0011223344556677 icon scam", "the second word says what is hashed"),
            ("0011223344556677 name Scam", "small letters"),
            ("0011223344556677 name 4915112345678", "begins with a letter"),
            (&format!("0011223344556677 name {}", "a".repeat(33)), "32 at most"),
            ("0011223344556677 name scam # why", "write three words"),
        ] {
            let error = GroupLists::parse("lists.txt", &format!("# first\n{line}\n")).expect_err(line).to_string();
            assert!(error.starts_with("lists.txt:2: ") && error.contains(told), "{error}");
            assert!(!error.contains("49151") && !error.contains("0011"), "{error}");
        }
        let many = "x\n".repeat(50);
        assert_eq!(GroupLists::parse("l", &many).expect_err("many").to_string().lines().count(), MOST_FAULTS);
        let lists: String = (0..17).map(|n| format!("00112233445566{n:02} name list-{}\n", char::from(b'a' + n))).collect();
        let error = GroupLists::parse("l", &lists).expect_err("too many").to_string();
        assert!(error.starts_with("l:17: one list too many"), "{error}");
    }
}
