//! The table of countries, and the numbers their people get.

use std::fmt::Write as _;

use starling_schemas::codes::Country;

use super::rng::mix2;
use super::settings::SimulateError;

/// One line of `countries.tsv`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CountryRow {
    /// ISO 3166-1 letters, as in [`starling_schemas::codes::COUNTRIES`].
    pub(super) name: &'static str,
    /// Calling code, without `+`.
    calling: &'static str,
    /// What a national number begins with; area codes where the calling code is 1.
    prefixes: Vec<&'static str>,
    /// Digits after the prefix (and after exchange 555).
    digits: u32,
    /// Minutes east of UTC.
    pub(super) utc_offset_min: i32,
    /// Share of the people, relative to the others.
    pub(super) weight: f64,
    /// Percent of people on an iPhone.
    pub(super) iphone_percent: u32,
    /// Percent of people on KaiOS.
    pub(super) kaios_percent: u32,
    /// Region of residence in events.
    pub(super) region: &'static str,
}

impl CountryRow {
    /// How many different numbers there are.
    pub(super) fn capacity(&self) -> u64 {
        self.prefixes.len() as u64 * 10u64.pow(self.digits)
    }

    /// How its numbers begin, with `+`.
    #[cfg(test)]
    pub(super) fn beginnings(&self) -> impl Iterator<Item = String> {
        self.prefixes.iter().map(|prefix| format!("+{}{prefix}", self.calling))
    }

    /// Writes the number of the `rank`-th person, E.164 with `+`. Different ranks below [`Self::capacity`] have different numbers.
    pub(super) fn write_number(&self, rank: u64, seed: u64, out: &mut String) {
        // 982,451,653 is prime, so it permutes the residues of any power of ten.
        const STEP: u64 = 982_451_653;
        out.push('+');
        out.push_str(self.calling);
        let modulus = 10u64.pow(self.digits);
        let prefixes = self.prefixes.len().max(1) as u64;
        let prefix = self.prefixes.get((rank % prefixes) as usize).copied().unwrap_or_default();
        out.push_str(prefix);
        let nth = rank / prefixes;
        let subscriber = if self.calling == "1" {
            out.push_str("555");
            // 0100 to 0199 first, then the rest of the exchange.
            match nth {
                0..100 => 100 + nth,
                100..200 => nth - 100,
                _ => nth % modulus,
            }
        } else {
            (nth.wrapping_mul(STEP) + mix2(seed, u64::from(self.digits)) % modulus) % modulus
        };
        push_padded(subscriber, self.digits, out);
    }
}

/// Appends `value` with leading zeros, `digits` wide.
pub(super) fn push_padded(value: u64, digits: u32, out: &mut String) {
    let mut divisor = 10u64.pow(digits.saturating_sub(1));
    for _ in 0..digits {
        out.push(char::from(b'0' + ((value / divisor) % 10) as u8));
        divisor = (divisor / 10).max(1);
    }
}

/// Appends bytes as lower-case hex.
pub(super) fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// Reads the table this executable carries.
pub(super) fn table() -> Result<Vec<CountryRow>, SimulateError> {
    parse(include_str!("countries.tsv"))
}

fn parse(text: &'static str) -> Result<Vec<CountryRow>, SimulateError> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let wrong = |what| SimulateError::Countries { line: index + 1, what };
        let fields: Vec<&'static str> = line.split('\t').collect();
        let &[name, calling, prefixes, digits, offset, weight, iphone, kaios, region] = fields.as_slice() else {
            return Err(wrong("write nine fields with tabs between them"));
        };
        if Country::parse(name).is_none() {
            return Err(wrong("the first field is no country of the closed list"));
        }
        let row = CountryRow {
            name,
            calling,
            prefixes: prefixes.split(',').collect(),
            digits: digits.parse().ok().filter(|d| (1..=9).contains(d)).ok_or_else(|| wrong("digits: 1 to 9"))?,
            utc_offset_min: offset.parse().ok().filter(|m| (-720..=840).contains(m)).ok_or_else(|| wrong("offset: minutes"))?,
            weight: weight.parse().ok().filter(|w| *w > 0.0).ok_or_else(|| wrong("weight: a number above 0"))?,
            iphone_percent: iphone.parse().map_err(|_| wrong("iphone: percent"))?,
            kaios_percent: kaios.parse().map_err(|_| wrong("kaios: percent"))?,
            region,
        };
        if row.iphone_percent + row.kaios_percent > 100 {
            return Err(wrong("more than 100 percent"));
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_has_many_countries_each_once() {
        let rows = table().expect("compiled in");
        assert!(rows.len() >= 60, "{}", rows.len());
        assert_eq!(rows.iter().map(|r| r.name).collect::<HashSet<_>>().len(), rows.len());
        let total: f64 = rows.iter().map(|r| r.weight).sum();
        let india = rows.iter().find(|r| r.name == "IN").expect("listed");
        assert!((0.2..0.3).contains(&(india.weight / total)));
    }

    #[test]
    fn numbers_of_a_country_are_different_and_shaped_like_e164() {
        for row in table().expect("compiled in") {
            let mut seen = HashSet::new();
            for rank in 0..20_000.min(row.capacity()) {
                let mut number = String::new();
                row.write_number(rank, 3, &mut number);
                let digits = number.strip_prefix('+').expect("a plus sign");
                assert!((7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()), "{}", row.name);
                assert!(seen.insert(number), "{} repeats at {rank}", row.name);
            }
        }
    }

    #[test]
    fn north_americans_get_the_fictional_numbers_first() {
        let rows = table().expect("compiled in");
        let jamaica = rows.iter().find(|r| r.name == "JM").expect("listed");
        let numbers: Vec<String> = (0..200)
            .map(|rank| {
                let mut number = String::new();
                jamaica.write_number(rank, 3, &mut number);
                number
            })
            .collect();
        assert_eq!(numbers[..3], ["+18765550100", "+16585550100", "+18765550101"]);
        assert_eq!(numbers[199], "+16585550199");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = parse("# comment\nDE\t49\tx").expect_err("three fields");
        assert_eq!(error.to_string(), "countries.tsv, line 2: write nine fields with tabs between them");
    }
}
