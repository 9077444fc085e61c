//! What came of a principal's statements, for whoever watches over the doors.
//!
//! # Privacy
//! Told are who asked, the error's code, and two hashes of a private question: of its text, and of its text without literals. Neither leaves the
//! process that hears it; that two questions differ in literals alone is all that is to be learned from them. No text and no value is handed out
//! (I4).

use std::sync::Arc;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{
    CORRUPTED, INTERNAL, NOT_PERMITTED, OUT_OF_MEMORY, OVER_BUDGET, TIMED_OUT, TOO_COMPLEX, TOO_MUCH, UNKNOWN_COLUMN,
    UNKNOWN_FUNCTION, UNKNOWN_TABLE, UNREADABLE,
};
use crate::parameters::Value;

/// Why a statement was refused, as far as it says something of who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It may not be asked.
    Forbidden,
    /// It names what there is not.
    Unknown,
    /// The budget does not hold it.
    Budget,
    /// It met a limit of size, time or memory.
    Limits,
    /// It cannot be answered as it is written.
    Unfit,
}

impl Refused {
    /// Of an error's code. `None`: the fault is the server's.
    pub(crate) fn of(code: &str) -> Option<Self> {
        Some(match code {
            NOT_PERMITTED => Self::Forbidden,
            UNKNOWN_TABLE | UNKNOWN_COLUMN | UNKNOWN_FUNCTION => Self::Unknown,
            OVER_BUDGET => Self::Budget,
            TOO_MUCH | TOO_COMPLEX | OUT_OF_MEMORY | TIMED_OUT => Self::Limits,
            UNREADABLE | CORRUPTED | INTERNAL => return None,
            _ => Self::Unfit,
        })
    }
}

/// A private question by hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Of its words and signs, without literals and without values.
    pub shape: [u8; 16],
    /// Of all of it.
    pub whole: [u8; 16],
}

impl Form {
    pub(crate) fn of(sql: &str, values: &[Value]) -> Option<Self> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
        let (mut shape, mut whole) = (blake3::Hasher::new(), blake3::Hasher::new());
        for token in tokens {
            // What stands beside what is not looked at twice: a piece ends where the next begins.
            let mut both = |kind: u8, text: &str, literal: bool| {
                let kept = if literal { "" } else { text };
                for (hasher, text) in [(&mut shape, kept), (&mut whole, text)] {
                    hasher
                        .update(&[kind])
                        .update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes())
                        .update(text.as_bytes());
                }
            };
            match token {
                Token::Whitespace(_) | Token::EOF => {}
                Token::Word(word) if word.quote_style.is_none() => both(0, &word.value.to_ascii_lowercase(), false),
                Token::Word(word) => both(0, &word.value, false),
                // A sign before a number is the number's.
                Token::Minus | Token::Plus => both(2, &token.to_string(), true),
                Token::Number(text, _) => both(2, &text, true),
                Token::Placeholder(text) => both(2, &text, true),
                token if is_text(&token) => both(2, &token.to_string(), true),
                token => both(1, &token.to_string(), false),
            }
        }
        for value in values {
            // Values of parameters are literals that stand elsewhere.
            value.hash_into(whole.update(&[3]));
        }
        let half = |hasher: &blake3::Hasher| -> Option<[u8; 16]> { hasher.finalize().as_bytes()[..16].try_into().ok() };
        Some(Self { shape: half(&shape)?, whole: half(&whole)? })
    }
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// What came of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Who asked.
    pub name: String,
    /// Why it was refused, if whoever asked had a part in it.
    pub refused: Option<Refused>,
    /// Of a question over protected rows that was answered, or that the ledger was asked about.
    pub question: Option<Form>,
}

/// Is told of each statement of a principal that is over.
pub type Hearing = Arc<dyn Fn(Heard) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    fn form(sql: &str) -> Form {
        Form::of(sql, &[]).expect("has tokens")
    }

    #[test]
    fn two_questions_have_one_shape_where_they_differ_in_literals_alone() {
        let first = form("SELECT count(*) FROM private.activity WHERE country = 'DE' AND hour < 7");
        for same in [
            "select COUNT(*)  from private.activity where country = 'FR' and hour < 23",
            "SELECT count(*) /* again */ FROM private.activity WHERE country = 'it''s' AND hour < 1e3",
        ] {
            let other = form(same);
            assert!(first.shape == other.shape && first.whole != other.whole, "{same}");
        }
        for other in [
            "SELECT count(*) FROM private.activity WHERE country = 'DE'",
            "SELECT count(*) FROM private.activity WHERE country <> 'DE' AND hour < 7",
            "SELECT count(*) FROM private.activity WHERE \"Country\" = 'DE' AND hour < 7",
        ] {
            assert_ne!(first.shape, form(other).shape, "{other}");
        }
        let again = form("SELECT  count(*) FROM private.activity WHERE country = 'DE' AND hour < 7 -- again");
        assert_eq!(first, again, "the same question is the same");
        // Words that run into each other are not the same as others that do.
        assert_ne!(form("SELECT ab c").shape, form("SELECT a bc").shape);
    }

    #[test]
    fn values_of_parameters_are_literals_that_stand_elsewhere() {
        let sql = "SELECT count(*) FROM private.activity WHERE hour < $1";
        let of = |value: i64| Form::of(sql, &[Value::Whole(value)]).expect("has tokens");
        assert!(of(7).shape == of(8).shape && of(7).whole != of(8).whole && of(7) == of(7));
    }

    #[test]
    fn what_is_the_servers_fault_is_nobodys() {
        assert_eq!([UNREADABLE, CORRUPTED, INTERNAL].map(Refused::of), [None; 3]);
        let told = [NOT_PERMITTED, UNKNOWN_TABLE, OVER_BUDGET, TIMED_OUT, crate::error::SYNTAX].map(Refused::of);
        let kinds = [Refused::Forbidden, Refused::Unknown, Refused::Budget, Refused::Limits, Refused::Unfit];
        assert_eq!(told, kinds.map(Some));
    }
}
