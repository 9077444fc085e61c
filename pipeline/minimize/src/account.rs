//! What businesses say of themselves (P34): of each one, what was said last.
//!
//! It is a purpose of its own and knows no person: the event's actor is not read for it, so a business's own number is not in it. What is said is
//! kept as it is said, but for three things.
//!
//! - An identifier that is empty, longer than [`IDENTIFIER_BYTES`], or holds control characters names nothing that could be asked for: nothing is
//!   kept of such an event. It is not cut or mended, since two businesses could become one.
//! - A name is written as one line, however it was sent: white space and control characters become single spaces, and characters that are not seen
//!   and turn or hide what stands beside them (marks of direction, soft hyphens, tags) are left out. Joiners stay: some scripts are not written
//!   without them.
//! - A name may hold a number to call. Where it has seven digits or more, of any script and whatever stands between them, each becomes `#` (I4): in no
//!   answer of this system is there a phone number, not even one that is painted on a shop. Letters between digits save none of them, since some are
//!   written as dashes or seen as blanks.
//!
//! The names of templates that come with messages, blocks and reports are written by the same rules: see [`one_line`].
//!
//! Of one range and business one thing is left, whatever the order of the events (I9): see [`BusinessAccount::supersedes`].

use std::borrow::Cow;
use std::collections::HashMap;

use starling_schemas::business::{BusinessAccount, IDENTIFIER_BYTES, NAME_BYTES};
use starling_schemas::codes::{Category, Tier};

/// Digits a phone number has at least.
const NUMBER_DIGITS: usize = 7;

/// What one event says of a business, as it stands in the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) business: &'a str,
    pub(crate) portfolio: &'a str,
    pub(crate) name: &'a str,
    pub(crate) category: Category,
    pub(crate) tier: Tier,
    pub(crate) told_ms: i64,
}

impl<'a> Told<'a> {
    /// The same, if it names a business that can be asked for.
    pub(crate) fn of_somebody(self) -> Option<Self> {
        let is_name = |text: &str| text.len() <= IDENTIFIER_BYTES && !text.chars().any(char::is_control);
        (!self.business.is_empty() && is_name(self.business) && is_name(self.portfolio)).then_some(self)
    }
}

/// What the businesses of one range said last.
#[derive(Default)]
pub(crate) struct Accounts(HashMap<String, BusinessAccount>);

impl Accounts {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes what was said, unless something said later is there.
    pub(crate) fn add(&mut self, told: Told<'_>) {
        if self.0.get(told.business).is_some_and(|known| known.told_ms > told.told_ms) {
            return;
        }
        let account = BusinessAccount {
            business: told.business.to_owned(),
            portfolio: told.portfolio.to_owned(),
            name: line(told.name),
            category: told.category,
            tier: told.tier,
            told_ms: told.told_ms,
        };
        if self.0.get(told.business).is_none_or(|known| account.supersedes(known)) {
            self.0.insert(account.business.clone(), account);
        }
    }

    /// One account a business, in their order: the same for every replay.
    pub(crate) fn finish(&mut self) -> Vec<BusinessAccount> {
        let mut accounts: Vec<_> = self.0.drain().map(|(_, account)| account).collect();
        accounts.sort_unstable_by(|one, other| one.business.cmp(&other.business));
        accounts
    }
}

/// A name as one line of at most [`NAME_BYTES`], without a phone number.
fn line(name: &str) -> String {
    let mut words = String::with_capacity(name.len().min(NAME_BYTES));
    for sign in name.chars().filter(|sign| !is_unseen(*sign)) {
        match sign.is_whitespace() || sign.is_control() {
            true if words.is_empty() || words.ends_with(' ') => {}
            true => words.push(' '),
            false => words.push(sign),
        }
    }
    cut(without_numbers(words.trim_end()))
}

/// The name of a template, as a business's own name is written. Nothing is copied of one that is ASCII without spaces, of at most [`NAME_BYTES`] and without
/// digits enough for a number, as nearly all are.
#[inline]
pub(crate) fn one_line(name: &str) -> Cow<'_, str> {
    let is_plain = name.len() <= NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && name.bytes().filter(u8::is_ascii_digit).count() < NUMBER_DIGITS {
        return Cow::Borrowed(name);
    }
    Cow::Owned(line(name))
}

/// Characters that are not seen, and turn, hide or break what stands beside them.
const fn is_unseen(sign: char) -> bool {
    matches!(
        sign,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The text, with `#` for each digit where there are enough for a number.
fn without_numbers(text: &str) -> String {
    let may_be_one = text.chars().filter(|sign| sign.is_numeric()).count() >= NUMBER_DIGITS;
    text.chars().map(|sign| if may_be_one && sign.is_numeric() { '#' } else { sign }).collect()
}

fn cut(mut text: String) -> String {
    if text.len() > NAME_BYTES {
        let end = (0..=NAME_BYTES - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told<'a>(business: &'a str, name: &'a str, told_ms: i64) -> Told<'a> {
        Told { business, portfolio: "p-1", name, category: Category::Utility, tier: Tier::T2k, told_ms }
    }

    #[test]
    fn a_name_is_one_line_that_says_what_is_seen() {
        for (sent, kept) in [
            ("Bakery Nørrebro", "Bakery Nørrebro"),
            ("  two\r\n\tlines\0 ", "two lines"),
            ("pay\u{202e}lap\u{2066}!\u{e0041}", "paylap!"),
            ("\u{200f}\u{feff}", ""),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("👩\u{200d}🍳 kitchen", "👩\u{200d}🍳 kitchen"),
            ("\u{2028}\u{85}x", "x"),
        ] {
            assert_eq!(line(sent), kept, "{sent:?}");
        }
        assert_eq!(line(&"ä".repeat(128)), "ä".repeat(128));
        assert_eq!(line(&"ä".repeat(129)), format!("{}…", "ä".repeat(126)));
        assert!(line(&"\u{1f469}".repeat(5_000)).len() <= NAME_BYTES);
    }

    #[test]
    fn i4_what_may_be_a_number_is_in_no_name() {
        for (sent, kept) in [
            ("Taxi +49 30 1234567", "Taxi +## ## #######"),
            ("Taxi (030)\u{200b}12-34\n5", "Taxi (###)##-## #"),
            ("Taxi ٠٣٠١٢٣٤٥", "Taxi ########"),
            ("1\u{fe0f}\u{20e3}2\u{fe0f}\u{20e3}34567", "#\u{fe0f}\u{20e3}#\u{fe0f}\u{20e3}#####"),
            ("call 0123456, or 789", "call #######, or ###"),
            ("TEL 03ー1234ー5678", "TEL ##ー####ー####"),
            ("0176\u{3164}123\u{3164}45678", "####\u{3164}###\u{3164}#####"),
            ("o1o2o3o4o5o6o7", "o#o#o#o#o#o#o#"),
            ("Studio 54, 24/7, 2026", "Studio ##, ##/#, ####"),
            ("Kiosk 24/7 since 99", "Kiosk 24/7 since 99"),
            ("123456", "123456"),
        ] {
            assert_eq!(line(sent), kept, "{sent:?}");
        }
        // Whatever is cut off, no half of a number is left.
        let long = format!("{}{}", "1".repeat(5), "a".repeat(500));
        assert!(line(&long).starts_with("11111a"));
        assert!(!line(&format!("{} 4915112345678", "a".repeat(NAME_BYTES - 8))).contains("491"));
    }

    #[test]
    fn what_names_nobody_is_not_kept() {
        let of = |business: &str, portfolio: &str| Told { portfolio, ..told(business, "", 1) }.of_somebody().is_some();
        let longest = "b".repeat(IDENTIFIER_BYTES);
        assert!(of("b", "") && of(&longest, &longest) && of("مخبز 7", "p"));
        for (business, portfolio) in
            [("", "p"), (&*format!("{longest}b"), "p"), ("b", &*format!("{longest}b")), ("b\0", "p"), ("b", "p\n")]
        {
            assert!(!of(business, portfolio), "{business:?} {portfolio:?}");
        }
    }

    #[test]
    fn i4_a_template_is_named_as_a_business_is_and_mostly_without_a_copy() {
        for (sent, kept, is_copied) in [
            ("order_update_v2", "order_update_v2", false),
            ("", "", false),
            ("call_4915112345678", "call_#############", true),
            ("sale_123456", "sale_123456", false),
            ("sale 12\n34567", "sale ## #####", true),
            ("été\u{202e}", "été", true),
        ] {
            let named = one_line(sent);
            assert_eq!((&*named, matches!(named, Cow::Owned(_))), (kept, is_copied), "{sent:?}");
        }
        assert!(one_line(&"t".repeat(NAME_BYTES + 1)).len() <= NAME_BYTES);
    }

    proptest! {
        #[test]
        fn what_is_not_copied_is_what_a_copy_would_be(name in "[ -~]{0,20}|\\PC{0,20}|[0-9a-z]{0,12}") {
            prop_assert_eq!(one_line(&name), line(&name));
        }

        /// I9: as if each had come alone and the greatest were picked; and nothing that may be a number is left.
        #[test]
        fn i9_of_each_business_what_was_said_last_is_left_in_any_order(
            said in prop::collection::vec((0..3_u8, 0..4_i64, "\\PC{0,6}[0-9 +()]{0,12}"), 0..20),
            turn in any::<prop::sample::Index>(),
        ) {
            let of = |said: &[(u8, i64, String)]| {
                let mut accounts = Accounts::default();
                for (business, told_ms, name) in said {
                    accounts.add(told(&format!("b-{business}"), name, *told_ms));
                }
                accounts.finish()
            };
            let forwards = of(&said);
            let mut turned = said.clone();
            turned.rotate_left(if said.is_empty() { 0 } else { turn.index(said.len()) });
            turned.reverse();
            prop_assert_eq!(&of(&turned), &forwards);
            for account in &forwards {
                let of_it = said.iter().filter(|(business, ..)| format!("b-{business}") == account.business);
                let last = of_it.map(|(_, told_ms, name)| (*told_ms, line(name))).max();
                prop_assert_eq!(Some((account.told_ms, account.name.clone())), last);
                prop_assert!(account.name.chars().filter(|c| c.is_numeric()).count() < NUMBER_DIGITS);
            }
        }
    }
}
