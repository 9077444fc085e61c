//! Answers and refusals, in one shape each.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use starling_integrity::work::NotAllowed;
use starling_store::StoreError;

use crate::doors::{Class, Refusal};

/// What a handler comes to.
pub(super) type Answer = Result<Response, Refused>;

/// A refusal with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) refusal: Refusal,
}

impl Refused {
    pub(super) fn new(code: &'static str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(code, reason, hint).into()
    }

    pub(super) fn with(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { status: status_of(refusal.class()), refusal }
    }
}

impl From<starling_query::QueryError> for Refused {
    fn from(error: starling_query::QueryError) -> Self {
        Refusal::from(error).into()
    }
}

const fn status_of(class: Class) -> StatusCode {
    match class {
        Class::Nobody => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::Missing => StatusCode::NOT_FOUND,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Ended => StatusCode::REQUEST_TIMEOUT,
        Class::Full => StatusCode::TOO_MANY_REQUESTS,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Fault => StatusCode::INTERNAL_SERVER_ERROR,
        Class::Unsupported | Class::Wrong => StatusCode::BAD_REQUEST,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, refusal } = self;
        let mut body = json!({ "code": refusal.code, "reason": refusal.reason, "hint": refusal.hint });
        if let Some((line, column)) = position(&refusal.reason) {
            body["position"] = json!({ "line": line, "column": column });
        }
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Where in the statement it is, if the gate says so: "… at Line: 1, Column: 8", "… at line 1, column 8".
fn position(reason: &str) -> Option<(u64, u64)> {
    let lower = reason.to_ascii_lowercase().replace(':', "");
    let (_, place) = lower.rsplit_once(" at line ")?;
    let (line, rest) = place.split_once(", column ")?;
    let column: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((line.trim().parse().ok()?, column.parse().ok()?))
}

/// 200 with JSON.
pub(super) fn json_of(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => Ok(json_text(&text)),
        Err(_) => Err(Refused::new("XX000", "the answer could not be made", "report this")),
    }
}

/// The same of what is JSON already.
pub(super) fn json_text(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{text}\n")).into_response()
}

/// The audit log cannot be written (I6).
pub(super) fn unlogged() -> Refused {
    crate::doors::scribe::unwritten().into()
}

/// The metastore cannot be read. What it says is for the log.
pub(super) fn unread(error: &anyhow::Error) -> Refused {
    tracing::error!(error = format!("{error:#}"), "an HTTP request could not be answered");
    Refused::new("57P03", "the metastore does not answer", "try again; see the log of `starling serve`")
}

/// A body that is not what the route takes. What stands in it is not repeated.
pub(super) fn no_body(what: &str, such_as: &str) -> Refused {
    Refused::new("22032", format!("the body is no {what}"), format!("send application/json such as {such_as}"))
}

/// Parameters of the address that cannot be used.
pub(super) fn no_parameters(such_as: &str) -> Refused {
    Refused::new("22023", "the address has a parameter that cannot be used", format!("write it as in {such_as}"))
}

/// Why the desk did not do what it was asked.
pub(super) fn undone(error: &anyhow::Error) -> Refused {
    if let Some(refused) = error.downcast_ref::<NotAllowed>() {
        return Refused::new("22023", refused.to_string(), "see GET /v1/alerts/ALERT for where it stands")
            .with(StatusCode::UNPROCESSABLE_ENTITY);
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::StepTaken) => Refused::new("40001", StoreError::StepTaken.to_string(), "GET the alert again"),
        Some(_) => unread(error),
        None => Refused::new("02000", error.to_string(), "see GET /v1/alerts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_told_where_the_gate_tells_it() {
        assert_eq!(position("syntax: Expected: an expression, found: FROM at Line: 1, Column: 8"), Some((1, 8)));
        assert_eq!(position("syntax error at line 12, column 40"), Some((12, 40)));
        for other in ["there is no column \"at line 5\"", "at Line: x, Column: 8", "a at line 1, column ", ""] {
            assert_eq!(position(other), None, "{other}");
        }
    }

    #[test]
    fn every_code_has_the_status_that_was_agreed_on() {
        for (code, status) in [
            ("42601", 400),
            ("0A000", 400),
            ("54000", 400),
            ("53200", 400),
            ("28P01", 401),
            ("42501", 403),
            ("57014", 408),
            ("53400", 429),
            ("53300", 429),
            ("58030", 503),
            ("XX000", 500),
        ] {
            assert_eq!(Refused::new(code, "", "").status.as_u16(), status, "{code}");
        }
    }
}
