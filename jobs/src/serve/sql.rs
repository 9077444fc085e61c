//! `POST /v1/sql`: one statement, answered as JSON, CSV or an Arrow stream.
//!
//! ```text
//!   a place of its own ─► audit entry (I6) ─► Engine::query_as ─► what is left ─► bytes, made beside the other requests ─► sent in pieces
//!        └─ 429 beyond        └─ 503                └─ dropped when the client goes                  the place is given back ─┘
//! ```
//!
//! The place is kept until the last piece was taken: so a client that takes its answers slowly has fewer statements, and nobody else has.

use std::io::{self, Write};
use std::time::Instant;

use axum::Extension;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures::stream;
use serde::Deserialize;

use super::Door;
use super::rows;
use super::told::{Answer, Refused, no_body};
use super::way_in::Caller;
use crate::doors::connections::ANSWER_TIME;
use crate::doors::places::Place;
use crate::doors::{Refusal, STOPPING, left, stopped};
use crate::output::{self, Format};

/// Bytes of an answer as CSV or Arrow, as many as it may have in memory. JSON has a limit of its own, in `rows`.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What is sent at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of notices in a header; more are in the JSON only.
const NOTICE_BYTES: usize = 4 * 1024;
const NOTICES: HeaderName = HeaderName::from_static("x-starling-notices");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    sql: String,
}

/// What an answer is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Csv,
    Arrow,
}

impl Shape {
    /// The first of those that `Accept` names; weights are not looked at.
    fn wanted(headers: &HeaderMap) -> Result<Self, Refused> {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect::<Vec<_>>().join(",");
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let shape = |kind: String| match kind.as_str() {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/csv" | "text/*" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        };
        let hint = "accept application/json, text/csv or application/vnd.apache.arrow.stream";
        kinds.filter_map(shape).next().ok_or_else(|| {
            Refused::new("22023", "an answer is not written in that way", hint).with(axum::http::StatusCode::NOT_ACCEPTABLE)
        })
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Answers a statement.
pub(super) async fn ask(
    State(door): State<Door>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Json<Asked>, JsonRejection>,
) -> Answer {
    let began = Instant::now();
    let Ok(Json(Asked { sql })) = body else {
        return Err(no_body("statement", "{\"sql\":\"SELECT * FROM meta.metrics\"}"));
    };
    let shape = Shape::wanted(&headers)?;
    let mut place = door.places.take(&caller.who.name)?;
    // The place is the future's: it is free when the work has ended, and not before.
    let asking = async {
        door.scribe.write(&caller.who).await?;
        let mut answer = door.engine.query_as(&caller.who, &sql).await.map_err(Refusal::from)?;
        if !answer.notes.is_empty() {
            let left = left(&door.engine, &caller.who, &answer.notes).await;
            answer.notes.extend(left);
        }
        Ok::<_, Refusal>(answer)
    };
    let asking = async move {
        let answer = asking.await;
        place.has_ended();
        (answer, place)
    };
    let mut stop = door.stop.clone();
    let stopping = async {
        stopped(&mut stop).await;
        tokio::time::sleep(STOPPING).await;
    };
    let (answer, place) = tokio::select! {
        (answer, place) = asking => (answer?, place),
        () = stopping => return Err(Refusal::stopping().into()),
    };
    let written = tokio::task::spawn_blocking(move || {
        let mut answer = answer;
        let text = match shape {
            Shape::Json => rows::json(&mut answer, began)?.into_bytes(),
            Shape::Csv => within(MOST_BYTES, &answer, Format::Csv)?,
            Shape::Arrow => within(MOST_BYTES, &answer, Format::Arrow)?,
        };
        Ok::<_, Refused>((Bytes::from(text), answer.notes))
    });
    let (bytes, notes) = written.await.map_err(|_| unmade())??;
    let mut response = Response::new(in_pieces(bytes, place));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(shape.content_type()));
    if let Some(notices) = notices(&notes) {
        headers.insert(NOTICES, notices);
    }
    Ok(response)
}

fn unmade() -> Refused {
    Refused::new("XX000", "the answer could not be made", "report this")
}

/// Bytes that are no more than so many.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.is_full |= piece.len() > self.most.saturating_sub(self.bytes.len());
        if self.is_full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer in one of the formats that are whole or are none: half a CSV file does not say that it is one.
fn within(most: usize, answer: &starling_query::Answer, format: Format) -> Result<Vec<u8>, Refused> {
    let mut out = Bounded { bytes: Vec::new(), most, is_full: false };
    let written = output::write(answer, format, &mut out);
    if out.is_full {
        let reason = format!("the answer has more than {most} bytes in this format");
        return Err(Refused::new("54000", reason, "select fewer columns, aggregate, or add a LIMIT"));
    }
    // What a writer says of a value that it cannot write would quote it.
    written.map_err(|_| {
        Refused::new("0A000", "a column has a type that is not written in this way", "CAST it to text, or ask for JSON")
    })?;
    Ok(out.bytes)
}

/// The answer in pieces; the place is given back with the last one, or when the client has gone.
fn in_pieces(bytes: Bytes, place: Place) -> Body {
    let until = Instant::now() + ANSWER_TIME;
    Body::from_stream(stream::unfold((bytes, place), move |(mut rest, place)| async move {
        if rest.is_empty() {
            return None;
        }
        if Instant::now() > until {
            let slow = io::Error::from(io::ErrorKind::TimedOut);
            return Some((Err(slow), (Bytes::new(), place)));
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        Some((Ok(piece), (rest, place)))
    }))
}

/// Notices as a header: a JSON array in ASCII, as many of them as there is room for.
fn notices(notes: &[String]) -> Option<HeaderValue> {
    let mut text = String::from("[");
    for note in notes {
        let quoted = serde_json::to_string(note).ok()?;
        let mut plain = String::new();
        for unit in quoted.encode_utf16() {
            match char::from_u32(unit.into()).filter(|c| c.is_ascii() && !c.is_ascii_control()) {
                Some(c) => plain.push(c),
                None => plain.push_str(&format!("\\u{unit:04x}")),
            }
        }
        if text.len() + plain.len() > NOTICE_BYTES {
            break;
        }
        text.push_str(if text.len() > 1 { "," } else { "" });
        text.push_str(&plain);
    }
    text.push(']');
    (text.len() > 2).then(|| HeaderValue::from_str(&text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_answer_is_whole_or_refused_where_it_is_too_long() {
        let values: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["0123456789"; 50]));
        let batch = arrow::array::RecordBatch::try_from_iter([("c", values)]).expect("fits");
        let (schema, batches) = (batch.schema(), vec![batch.clone(), batch]);
        let answer = starling_query::Answer { schema, batches, notes: Vec::new(), questions: Vec::new() };
        for format in [Format::Csv, Format::Arrow] {
            let whole = within(MOST_BYTES, &answer, format).expect("fits");
            assert!(whole.len() > 1_000, "{}", whole.len());
            assert_eq!(within(whole.len(), &answer, format).as_deref(), Ok(&whole[..]), "to the last byte");
            for most in [0, 500, whole.len() - 1] {
                let refused = within(most, &answer, format).expect_err("too long");
                assert_eq!((refused.refusal.code, refused.status.as_u16()), ("54000", 400));
                assert!(refused.refusal.hint.contains("LIMIT") && !refused.refusal.reason.contains("0123"), "{refused:?}");
            }
        }
    }

    #[test]
    fn the_first_shape_that_is_known_is_taken() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a value"));
            Shape::wanted(&headers).ok()
        };
        assert_eq!(Shape::wanted(&HeaderMap::new()).ok(), Some(Shape::Json));
        for (accept, shape) in [
            ("*/*", Some(Shape::Json)),
            ("text/html, Text/CSV;q=0.5", Some(Shape::Csv)),
            ("application/vnd.apache.arrow.stream, application/json", Some(Shape::Arrow)),
            ("text/html,application/xhtml+xml", None),
        ] {
            assert_eq!(of(accept), shape, "{accept}");
        }
    }

    #[test]
    fn notices_are_json_in_ascii_and_end_where_there_is_no_room() {
        let header = notices(&["ε = 0,1 \"ca.\"\n".to_owned(), "😀".to_owned()]).expect("some");
        let text = header.to_str().expect("ASCII");
        let read: Vec<String> = serde_json::from_str(text).expect("JSON");
        assert_eq!(read, ["ε = 0,1 \"ca.\"\n", "😀"]);
        assert!(notices(&[]).is_none());
        let long = notices(&["short".to_owned(), "x".repeat(5_000)]).expect("one of them");
        assert_eq!(long.to_str().expect("ASCII"), "[\"short\"]");
    }
}
