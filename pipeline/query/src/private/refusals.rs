//! The texts of what is refused below the noise.

use crate::error::{NOT_PERMITTED, QueryError};

/// `what` ends in its verb: "a window function is".
pub(crate) fn below(what: &str, hint: &str) -> QueryError {
    QueryError::new(NOT_PERMITTED, format!("{what} not possible over protected rows"), hint)
}
