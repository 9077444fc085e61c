//! The console's files, as they are in this executable: public, with a mark that says whether they changed.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::told::{Answer, Refused};

/// Path below `/console/`, content type, bytes. The first is what `/` shows.
const FILES: &[(&str, &str, &[u8])] = &[
    ("index.html", "text/html; charset=utf-8", include_bytes!("../console/index.html")),
    ("console.css", "text/css; charset=utf-8", include_bytes!("../console/console.css")),
    ("starling.svg", "image/svg+xml", include_bytes!("../console/starling.svg")),
    ("alerts.js", JAVASCRIPT, include_bytes!("../console/alerts.js")),
    ("api.js", JAVASCRIPT, include_bytes!("../console/api.js")),
    ("budget.js", JAVASCRIPT, include_bytes!("../console/budget.js")),
    ("chart.js", JAVASCRIPT, include_bytes!("../console/chart.js")),
    ("dom.js", JAVASCRIPT, include_bytes!("../console/dom.js")),
    ("editor.js", JAVASCRIPT, include_bytes!("../console/editor.js")),
    ("health.js", JAVASCRIPT, include_bytes!("../console/health.js")),
    ("promises.js", JAVASCRIPT, include_bytes!("../console/promises.js")),
    ("shell.js", JAVASCRIPT, include_bytes!("../console/shell.js")),
    ("sql.js", JAVASCRIPT, include_bytes!("../console/sql.js")),
    ("statistics.js", JAVASCRIPT, include_bytes!("../console/statistics.js")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// `GET /`.
pub(super) async fn start(headers: HeaderMap) -> Answer {
    given("index.html", &headers)
}

/// `GET /console/PATH`: one of the list, by its whole name.
pub(super) async fn file(path: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Answer {
    given(path.as_ref().map_or("", |Path(path)| path), &headers)
}

fn given(path: &str, headers: &HeaderMap) -> Answer {
    let Some((_, kind, bytes)) = FILES.iter().find(|(known, ..)| *known == path) else {
        return Err(Refused::new("02000", "there is no such file", "GET / shows the console"));
    };
    let mark = format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|marks| marks.to_str().ok());
    let same = known.is_some_and(|marks| marks.split(',').any(|one| one.trim().trim_start_matches("W/") == mark));
    let mut answer: Response =
        if same { StatusCode::NOT_MODIFIED.into_response() } else { ([(header::CONTENT_TYPE, *kind)], *bytes).into_response() };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
    if let Ok(mark) = header::HeaderValue::from_str(&mark) {
        headers.insert(header::ETAG, mark);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_is_given_and_it_fits_the_policy() {
        for path in ["", ".", "..", "../Cargo.toml", "index.html/", "INDEX.HTML", "index.html\0", "/etc/passwd"] {
            assert!(given(path, &HeaderMap::new()).is_err(), "{path}");
        }
        for (path, kind, bytes) in FILES {
            assert!(given(path, &HeaderMap::new()).is_ok());
            if kind.starts_with("text/html") {
                let text = String::from_utf8_lossy(bytes);
                // The policy forbids both, so a page that has them would be broken.
                assert!(!text.contains("<script>") && !text.contains(" style=") && !text.contains("<style"), "{path}");
                assert!(!text.contains(" onclick=") && !text.contains("javascript:"), "{path}");
            }
        }
    }
}
