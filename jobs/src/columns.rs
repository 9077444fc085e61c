//! Columns for people: as wide as their widest cell, words to the left, numbers to the right.

use std::fmt::Write as _;

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Lays out a header and its rows. Lines do not end in spaces.
#[must_use]
pub fn lay_out(header: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let width = |column: usize, name: &str| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(name.chars().count())
    };
    let widths: Vec<usize> = header.iter().enumerate().map(|(i, (name, _))| width(i, name)).collect();
    let names: Vec<String> = header.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, side)), width) in row.iter().zip(header).zip(&widths) {
            let _ = match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// A length of time as people say it, to the second: `1h 4m 7s`.
#[must_use]
pub fn duration(ms: i64) -> String {
    format!("{:#}", jiff::SignedDuration::from_secs(ms / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_their_names() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "12345".to_owned()]];
        let text = lay_out(&[("name", Side::Left), ("n", Side::Right)], &rows);
        assert_eq!(text, "name        n\na           1\nlonger  12345\n");
    }

    #[test]
    fn durations_are_told_to_the_second() {
        assert_eq!(duration(999), "0s");
        assert_eq!(duration(61_500), "1m 1s");
        assert_eq!(duration(90_000_000), "25h");
    }
}
