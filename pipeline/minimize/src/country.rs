//! From a number's leading digits to its country (P4), by the longest prefix in `country_table.tsv`.
//!
//! The table is made from the numbering plans that the `phonenumber` crate carries (Google's libphonenumber metadata) by
//! `tests/country_table.rs`, which also fails when it is stale. Where a calling code is shared, the table goes as deep as the plans
//! are told apart by leading digits; what they share (a Channel Islands mobile range in both plans, say) goes to the code's main
//! country. Under `+1`, an area code that no plan claims has no country.

use std::sync::LazyLock;

use starling_schemas::codes::Country;

const TABLE: &str = include_str!("country_table.tsv");

/// Set in a cell that leads to another node; without it a cell is a place in the list of countries.
const DEEPER: u16 = 0x8000;

static TRIE: LazyLock<Trie> = LazyLock::new(|| Trie::build(TABLE));

/// The country of a canonical number's ASCII digits.
#[inline]
pub(crate) fn of_digits(digits: &[u8]) -> Country {
    TRIE.find(digits)
}

/// One node for every known prefix that something longer extends.
struct Trie {
    nodes: Vec<Node>,
    /// The first one is [`Country::UNKNOWN`].
    countries: Vec<Country>,
}

/// Where each next digit leads. A node is filled with the answer of the prefix above it, so the walk ends at the first cell that is no
/// node.
struct Node {
    cells: [u16; 10],
    /// The answer for digits that end here.
    otherwise: u16,
}

impl Node {
    const fn filled(place: u16) -> Self {
        Self { cells: [place; 10], otherwise: place }
    }
}

impl Trie {
    fn build(table: &str) -> Self {
        let mut rows: Vec<(&str, Country)> = table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(prefix, country)| Some((prefix, Country::parse(country)?)))
            .collect();
        // Shorter prefixes first, so that longer ones inherit from them.
        rows.sort_by_key(|(prefix, _)| prefix.len());
        let mut trie = Self { nodes: vec![Node::filled(0)], countries: vec![Country::UNKNOWN] };
        for (prefix, country) in rows {
            trie.insert(prefix.as_bytes(), country);
        }
        trie
    }

    fn insert(&mut self, prefix: &[u8], country: Country) {
        let Some((last, above)) = prefix.split_last() else { return };
        let place = self.countries.iter().position(|c| *c == country).unwrap_or_else(|| {
            self.countries.push(country);
            self.countries.len() - 1
        });
        let Ok(place) = u16::try_from(place) else { return };
        let mut node = 0;
        for digit in above {
            let fresh = self.nodes.len();
            let Some(cell) = self.cell(node, *digit) else { return };
            if *cell & DEEPER == 0 {
                let Ok(index) = u16::try_from(fresh) else { return };
                let inherited = std::mem::replace(cell, DEEPER | index);
                self.nodes.push(Node::filled(inherited));
                node = fresh;
            } else {
                node = usize::from(*cell & !DEEPER);
            }
        }
        if let Some(cell) = self.cell(node, *last) {
            *cell = place;
        }
    }

    fn cell(&mut self, node: usize, digit: u8) -> Option<&mut u16> {
        self.nodes.get_mut(node)?.cells.get_mut(usize::from(digit.wrapping_sub(b'0')))
    }

    #[inline]
    fn find(&self, digits: &[u8]) -> Country {
        let mut digits = digits.iter();
        let mut at = DEEPER;
        while at & DEEPER != 0 {
            let Some(node) = self.nodes.get(usize::from(at & !DEEPER)) else { return Country::UNKNOWN };
            at = digits
                .next()
                .and_then(|digit| node.cells.get(usize::from(digit.wrapping_sub(b'0'))))
                .copied()
                .unwrap_or(node.otherwise);
        }
        self.countries.get(usize::from(at)).copied().unwrap_or(Country::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let trie = Trie::build("# comment\n1242\tBS\n44\tGB\n441481\tGG\n4415\tJE\n44153\tIM\n");
        let of = |digits: &str| trie.find(digits.as_bytes()).name();
        assert_eq!(of("441481111111"), "GG");
        assert_eq!(of("441482111111"), "GB");
        assert_eq!(of("441520000000"), "JE");
        assert_eq!(of("441530000000"), "IM");
        assert_eq!(of("12421234567"), "BS");
        assert_eq!(of("12431234567"), "ZZ");
        assert_eq!(of("9991234567"), "ZZ");
        assert_eq!(of("4414"), "GB", "digits that end inside a prefix tell what was known by then");
        assert_eq!(of("12"), "ZZ");
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        let good = TABLE
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter(|(prefix, country)| prefix.bytes().all(|b| b.is_ascii_digit()) && Country::parse(country).is_some())
            .count();
        assert_eq!(rows, good);
        assert!(rows > 500, "{rows} rows");
        assert!(TRIE.nodes.len() < usize::from(DEEPER));
    }

    #[test]
    fn p4_shared_calling_codes_lead_to_the_right_country() {
        let known = [
            ("4915112345678", "DE"),
            ("12025550143", "US"),
            ("14165550143", "CA"),
            ("18765550143", "JM"),
            ("16585550143", "JM"),
            ("18095550143", "DO"),
            ("18295550143", "DO"),
            ("17875550143", "PR"),
            ("12425550143", "BS"),
            ("18685550143", "TT"),
            ("14415550143", "BM"),
            ("16715550143", "GU"),
            ("17215550143", "SX"),
            ("79161234567", "RU"),
            ("77012345678", "KZ"),
            ("447400123456", "GB"),
            ("447911123456", "GG"),
            ("447781123456", "GG"),
            ("447797123456", "JE"),
            ("447624123456", "IM"),
            ("441481123456", "GG"),
            ("441534123456", "JE"),
            ("4740612345", "NO"),
            ("4779123456", "SJ"),
            ("390612345678", "IT"),
            ("390669812345", "VA"),
            ("61412345678", "AU"),
            ("61891621234", "CC"),
            ("61891641234", "CX"),
            ("212650123456", "MA"),
            ("262692123456", "RE"),
            ("262639123456", "YT"),
            ("29022158", "SH"),
            ("2908999", "TA"),
            ("358412345678", "FI"),
            ("3581812345678", "AX"),
            ("590590201234", "GP"),
            ("59995181234", "CW"),
            ("5993181234", "BQ"),
            ("38343201234", "XK"),
            ("2474012345", "AC"),
            ("80012345678", "ZZ"),
            ("8816123456789", "ZZ"),
        ];
        for (digits, country) in known {
            assert_eq!(of_digits(digits.as_bytes()).name(), country, "{digits}");
        }
    }
}
