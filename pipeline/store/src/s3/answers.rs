//! What the server's answers mean, decided where they come in.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::TryStreamExt;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, RANGE};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    SpawnedReqwestConnector,
};
use tokio::runtime::Handle;

/// Why a request to the object store failed, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectFault {
    /// The server does not know the credentials, or they may not do this.
    #[error("the server refused the credentials, or they may not do this: look at the keys and at their rights on the bucket")]
    Refused,
    /// The clocks differ too much for a signature to hold.
    #[error("the server refused the time of the request: set this machine's clock")]
    Clock,
    /// No such bucket.
    #[error("there is no such bucket: look at `files.url`, or make it")]
    NoBucket,
    /// The bucket is somewhere else.
    #[error("the bucket lies in another region, or at another endpoint: set `files.region` and `files.endpoint`")]
    Elsewhere,
    /// Too many requests.
    #[error("the server asks for fewer requests: try again later")]
    Throttled,
    /// The server has a fault of its own.
    #[error("the server has a fault of its own: try again later, and look at its log")]
    Unavailable,
    /// No answer in time, or a broken connection.
    #[error("the server does not answer: is it running, and are `files.endpoint` and the network right? Try again")]
    Unreachable,
    /// Two requests met, again and again.
    #[error("the server found another request for the same object at work: try again")]
    Conflict,
    /// The server does not know this operation.
    #[error("the server does not know this operation: it speaks too little of S3 to be used")]
    Unsupported,
    /// The server replaces what was to be created once.
    #[error(
        "the server replaces an object that was to be created once: it ignores `If-None-Match`, so a statistic could be released twice \
         (I3); use a server that honours it"
    )]
    NotOnce,
    /// What was written is not what is read or listed.
    #[error("the server does not give back what was written: it cannot be used")]
    Inconsistent,
    /// The object ends before what was asked for.
    #[error("the object is shorter than what was asked of it")]
    NoSuchRange,
    /// An answer that is none of S3's.
    #[error("the answer is none that S3 gives: is `files.endpoint` an S3 server?")]
    Foreign,
    /// Another refusal.
    #[error("the server refused with status {0}")]
    Other(u16),
}

/// What an answer means, by its status and S3's error code. `None`: `object_store` understands it by itself.
fn judge(status: StatusCode, code: Option<&str>) -> Option<ObjectFault> {
    let by_code = match code {
        Some("NoSuchBucket") => Some(ObjectFault::NoBucket),
        Some("RequestTimeTooSkewed") => Some(ObjectFault::Clock),
        // The last is Versity's word for an unknown access key, told with status 404: it must not pass for a missing object.
        Some("ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "XAdminUserNotFound") => Some(ObjectFault::Refused),
        Some(
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
        ) => Some(ObjectFault::Elsewhere),
        Some("SlowDown" | "Throttling" | "RequestLimitExceeded") => Some(ObjectFault::Throttled),
        Some("ConditionalRequestConflict" | "OperationAborted") => Some(ObjectFault::Conflict),
        Some("NotImplemented" | "MethodNotAllowed") => Some(ObjectFault::Unsupported),
        _ => None,
    };
    let by_status = || match status.as_u16() {
        200..=299 | 304 | 409 | 412 => None,
        416 => Some(ObjectFault::NoSuchRange),
        404 if matches!(code, Some("NoSuchKey" | "NoSuchUpload")) => None,
        404 => Some(ObjectFault::Foreign),
        300..=399 => Some(ObjectFault::Elsewhere),
        401 | 403 => Some(ObjectFault::Refused),
        429 => Some(ObjectFault::Throttled),
        405 | 501 => Some(ObjectFault::Unsupported),
        408 | 500..=599 => Some(ObjectFault::Unavailable),
        other => Some(ObjectFault::Other(other)),
    };
    by_code.or_else(by_status)
}

impl ObjectFault {
    /// The fault in an error of `object_store`.
    pub(crate) fn of(error: &object_store::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut transport = None;
        while let Some(e) = cause {
            if let Some(fault) = e.downcast_ref::<Self>() {
                return *fault;
            }
            if e.is::<HttpError>() {
                transport = Some(Self::Unreachable);
            }
            cause = e.source();
        }
        transport.unwrap_or(match error {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => Self::Refused,
            object_store::Error::AlreadyExists { .. } => Self::Conflict,
            _ => Self::Foreign,
        })
    }

    /// How `object_store` is told: its retries go by the kind. What the server says it has not done may always be tried again. After a
    /// fault of its own it may have done it; that is no harm either: a write is the same again, and a creation then says that the object
    /// is there, which makes the caller read it.
    fn kind(self) -> HttpErrorKind {
        match self {
            Self::Throttled | Self::Unavailable | Self::Conflict => HttpErrorKind::Request,
            _ => HttpErrorKind::Unknown,
        }
    }
}

/// The code in an error's body. Nothing else of the body is looked at.
fn error_code(body: &str) -> Option<&str> {
    body.split_once("<Code>")?.1.split_once("</Code>").map(|(code, _)| code.trim())
}

/// Bytes of an error's body that are read.
const ERROR_BYTES: usize = 16 * 1024;

async fn error_body(response: HttpResponse) -> String {
    let mut stream = response.into_body().bytes_stream();
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = stream.try_next().await {
        body.extend_from_slice(bytes.get(..bytes.len().min(ERROR_BYTES - body.len())).unwrap_or_default());
        if body.len() == ERROR_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// Makes clients whose answers are judged and whose requests are counted.
#[derive(Debug, Default, Clone)]
pub(super) struct Connector {
    pub(super) requests: Arc<AtomicU64>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // A body that is read where something computes would have its socket looked at late, with those of all others that came by it.
        let inner = match Handle::try_current() {
            Ok(runtime) => SpawnedReqwestConnector::new(runtime).connect(options)?,
            Err(_) => ReqwestConnector::default().connect(options)?,
        };
        Ok(HttpClient::new(Answers { inner, requests: Arc::clone(&self.requests) }))
    }
}

/// Whether the request removes a list of objects. It is a POST, which `object_store` does not repeat when the answer got lost; but what was
/// removed may be removed again.
fn removes_objects(request: &HttpRequest) -> bool {
    request.method() == http::Method::POST && request.uri().query() == Some("delete")
}

/// What kind of failure a connection's is. One of no known kind, such as a request that was given up because its connection closed, may have
/// reached the server or not.
fn cut_off(kind: HttpErrorKind, removal: bool) -> HttpErrorKind {
    match kind {
        HttpErrorKind::Timeout | HttpErrorKind::Interrupted | HttpErrorKind::Unknown if removal => HttpErrorKind::Request,
        HttpErrorKind::Unknown => HttpErrorKind::Interrupted,
        other => other,
    }
}

#[derive(Debug)]
struct Answers {
    inner: HttpClient,
    requests: Arc<AtomicU64>,
}

#[async_trait]
impl HttpService for Answers {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let part_only = request.headers().contains_key(RANGE);
        let removal = removes_objects(&request);
        let response = match self.inner.execute(request).await {
            Err(e) => return Err(HttpError::new(cut_off(e.kind(), removal), e)),
            Ok(response) => response,
        };
        let status = response.status();
        // Of an empty object no part can be had. Some servers say so, some send nothing.
        if part_only && status == StatusCode::OK && response.headers().get(CONTENT_LENGTH).is_some_and(|n| n == "0") {
            return Err(HttpError::new(HttpErrorKind::Unknown, ObjectFault::NoSuchRange));
        }
        if status.is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = error_body(HttpResponse::from_parts(parts.clone(), body)).await;
        match judge(status, error_code(&body)) {
            Some(fault) => Err(HttpError::new(fault.kind(), fault)),
            // Without its body, which nobody needs and an error's text would repeat.
            None => Ok(HttpResponse::from_parts(parts, String::new().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, code: &str) -> Option<ObjectFault> {
        judge(StatusCode::from_u16(status).expect("a status"), (!code.is_empty()).then_some(code))
    }

    #[test]
    fn an_object_that_is_not_there_is_no_fault_and_a_bucket_that_is_not_there_is_one() {
        assert_eq!(verdict(404, "NoSuchKey"), None);
        assert_eq!(verdict(404, "NoSuchBucket"), Some(ObjectFault::NoBucket));
        assert_eq!(verdict(404, ""), Some(ObjectFault::Foreign), "a web server that knows no S3");
    }

    #[test]
    fn answers_mean_what_the_protocol_says() {
        for (status, code, fault) in [
            (403, "AccessDenied", ObjectFault::Refused),
            (403, "SignatureDoesNotMatch", ObjectFault::Refused),
            (404, "XAdminUserNotFound", ObjectFault::Refused),
            (403, "RequestTimeTooSkewed", ObjectFault::Clock),
            (400, "ExpiredToken", ObjectFault::Refused),
            (301, "PermanentRedirect", ObjectFault::Elsewhere),
            (400, "AuthorizationHeaderMalformed", ObjectFault::Elsewhere),
            (503, "SlowDown", ObjectFault::Throttled),
            (429, "", ObjectFault::Throttled),
            (500, "InternalError", ObjectFault::Unavailable),
            (502, "", ObjectFault::Unavailable),
            (409, "ConditionalRequestConflict", ObjectFault::Conflict),
            (501, "NotImplemented", ObjectFault::Unsupported),
            (416, "InvalidRange", ObjectFault::NoSuchRange),
            (418, "", ObjectFault::Other(418)),
        ] {
            assert_eq!(verdict(status, code), Some(fault), "{status} {code}");
        }
        for (status, code) in [(200, ""), (304, ""), (412, "PreconditionFailed"), (409, "")] {
            assert_eq!(verdict(status, code), None, "{status} {code}");
        }
    }

    #[test]
    fn only_what_may_help_is_tried_again() {
        for fault in [ObjectFault::Throttled, ObjectFault::Unavailable, ObjectFault::Conflict] {
            assert_eq!(fault.kind(), HttpErrorKind::Request);
        }
        for fault in [ObjectFault::Refused, ObjectFault::NoBucket, ObjectFault::Unsupported, ObjectFault::Foreign] {
            assert_eq!(fault.kind(), HttpErrorKind::Unknown);
        }
    }

    #[test]
    fn the_code_is_found_in_an_error_s_body() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>x</Message></Error>";
        assert_eq!(error_code(body), Some("NoSuchKey"));
        assert_eq!(error_code("<html>"), None);
        assert_eq!(error_code("<Code>cut"), None);
    }
}
