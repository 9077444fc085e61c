//! How deep a statement nests, told from its tokens: before the parser, because the parser itself is what deep nesting hurts.
//!
//! Two things happen in the parser (sqlparser 0.62). Parentheses and queries inside each other use stack; its own limit of 50 bounds that. And
//! where a word such as `CASE`, `CAST (` or `NOT (` begins an expression that turns out to be wrong, it reads the expression again as a name or a
//! function: twice for each level, three times for `POSITION (`. Thirty of them inside each other with a fault in the innermost take hours, in
//! which nothing can stop it. So words of the language before a bracket, and `CASE` up to its `END`, may nest only [`WORDS_DEEP`] times.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{QueryError, TOO_COMPLEX};
use crate::limits::Limits;

/// So many words that the parser may read twice may stand inside each other. 3^6 readings of a short text are milliseconds.
const WORDS_DEEP: usize = 6;

/// What is open at a place in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A bracket. `word`: it belongs to a word that may be read twice.
    Bracket { word: bool },
    /// A `CASE` without its `END` so far.
    Case,
}

/// Checks how deep brackets and words nest.
///
/// # Errors
/// [`TOO_COMPLEX`].
pub(crate) fn check(tokens: &[TokenWithSpan], limits: &Limits) -> Result<(), QueryError> {
    let mut open: Vec<Open> = Vec::new();
    let mut words = 0_usize;
    let mut before = &Token::EOF;
    for token in tokens.iter().map(|token| &token.token).filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let word = begins_twice(before);
                words += usize::from(word);
                open.push(Open::Bracket { word });
            }
            // A bracket that closes takes with it what was left open inside.
            Token::RParen | Token::RBracket | Token::RBrace => {
                if let Some(place) = open.iter().rposition(|frame| matches!(frame, Open::Bracket { .. })) {
                    words -= open.drain(place..).filter(|frame| *frame != Open::Bracket { word: false }).count();
                }
            }
            Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::CASE => {
                words += 1;
                open.push(Open::Case);
            }
            // Only where an operand has ended: elsewhere the parser could take the word for a name, and go deeper.
            Token::Word(word)
                if word.quote_style.is_none()
                    && word.keyword == Keyword::END
                    && open.last() == Some(&Open::Case)
                    && ends_operand(before) =>
            {
                open.pop();
                words -= 1;
            }
            _ => {}
        }
        if is_interval(before) && !matches!(token, Token::SingleQuotedString(_) | Token::Number(..) | Token::LParen) {
            return Err(QueryError::new(
                TOO_COMPLEX,
                "INTERVAL stands before something that is no text",
                "write the length in quotes, as in INTERVAL '7 days'",
            ));
        }
        if words > WORDS_DEEP {
            return Err(QueryError::new(
                TOO_COMPLEX,
                format!("CASE, CAST, NOT (…) and the like nest deeper than {WORDS_DEEP}"),
                "name an inner query under WITH and compute a part there",
            ));
        }
        if open.len() > limits.depth {
            return Err(QueryError::new(
                TOO_COMPLEX,
                format!("brackets nest deeper than {}", limits.depth),
                "name the inner queries under WITH",
            ));
        }
        before = token;
    }
    Ok(())
}

fn is_interval(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::INTERVAL)
}

/// Whether a bracket after this word may be read twice: after any word of the language but those that only join or introduce.
fn begins_twice(before: &Token) -> bool {
    let Token::Word(word) = before else { return false };
    word.quote_style.is_none()
        && !matches!(
            word.keyword,
            Keyword::NoKeyword
                | Keyword::ALL
                | Keyword::AND
                | Keyword::ANY
                | Keyword::AS
                | Keyword::BETWEEN
                | Keyword::BY
                | Keyword::DISTINCT
                | Keyword::ELSE
                | Keyword::EXCEPT
                | Keyword::EXISTS
                | Keyword::FILTER
                | Keyword::FROM
                | Keyword::HAVING
                | Keyword::ILIKE
                | Keyword::IN
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::LATERAL
                | Keyword::LIKE
                | Keyword::LIMIT
                | Keyword::OFFSET
                | Keyword::ON
                | Keyword::OR
                | Keyword::OVER
                | Keyword::SELECT
                | Keyword::SETS
                | Keyword::THEN
                | Keyword::UNION
                | Keyword::USING
                | Keyword::VALUES
                | Keyword::WHEN
                | Keyword::WHERE
                | Keyword::WITH
        )
}

/// Whether an operand can end with this token. Of the words of the language only a few that are names of columns here.
fn ends_operand(before: &Token) -> bool {
    match before {
        Token::Word(word) => {
            word.quote_style.is_some()
                || matches!(
                    word.keyword,
                    Keyword::NoKeyword
                        | Keyword::DAY
                        | Keyword::END
                        | Keyword::FALSE
                        | Keyword::MONTH
                        | Keyword::NAME
                        | Keyword::NULL
                        | Keyword::ROWS
                        | Keyword::STATUS
                        | Keyword::TRUE
                        | Keyword::VALUE
                        | Keyword::YEAR
                )
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen | Token::RBracket => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn fits(sql: &str) -> bool {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().expect("tokens");
        check(&tokens, &Limits::default()).is_ok()
    }

    #[test]
    fn what_the_parser_would_read_again_and_again_may_not_nest() {
        for open in [
            "CASE WHEN true THEN ",
            "CASE ",
            "CASE WHEN end THEN ",
            "CASE WHEN (SELECT 1 end) = 1 THEN ",
            "CASE WHEN 1 COLLATE end THEN ",
            "CAST(",
            "TRY_CAST (",
            "POSITION /* a comment */ (",
            "SUBSTRING(",
            "NOT (",
            "CURRENT_DATE(",
            "ARRAY[",
            "INTERVAL(",
            "INTERVAL ",
            "INTERVAL - ",
        ] {
            assert!(!fits(&format!("SELECT {}", open.repeat(7))), "{open}");
        }
    }

    #[test]
    fn what_stands_side_by_side_does_not_nest() {
        for part in [
            "CASE WHEN a THEN 1 ELSE 2 END, ",
            "CASE WHEN a THEN day END, ",
            "CASE a WHEN 'x' THEN b END + ",
            "CAST(a AS INT) + ",
            "NOT (a) AND ",
            "(CASE WHEN a THEN 1 END), ",
            "INTERVAL '1 day' + ",
            "((((a)))) + ",
        ] {
            assert!(fits(&format!("SELECT {}1", part.repeat(100))), "{part}");
        }
        assert!(fits("SELECT f(f(f(f(f(f(f(f(f(f(a AND (b OR (c AND (d OR (e AND (f OR (g AND (h))))))))))))))))))"));
    }
}
