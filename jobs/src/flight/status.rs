//! Refusals as gRPC says them: the code by the refusal's kind, the text as `starling sql` prints it.

use tonic::{Code, Status};

use crate::doors::{Class, Refusal};

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.class() {
            Class::Nobody => Code::Unauthenticated,
            Class::Forbidden => Code::PermissionDenied,
            Class::Missing => Code::NotFound,
            Class::Conflict => Code::Aborted,
            Class::Ended => Code::DeadlineExceeded,
            Class::Full => Code::ResourceExhausted,
            Class::Unsupported => Code::Unimplemented,
            Class::Unavailable => Code::Unavailable,
            Class::Fault => Code::Internal,
            Class::Wrong => Code::InvalidArgument,
        };
        let Refusal { code: state, reason, hint, .. } = refusal;
        Self::new(code, format!("[{state}] {reason}. Hint: {hint}"))
    }
}

/// Something that this door does not do.
pub(super) fn not_here(what: &str, instead: &str) -> Refusal {
    Refusal::new("0A000", format!("{what}: that is not done here"), instead)
}

/// A message that cannot be read. What stands in it is not repeated.
pub(super) fn unreadable(what: &str) -> Refusal {
    Refusal::new("08P01", format!("{what} cannot be read"), "this is a fault of the client's driver")
}

/// An answer that could not be put into Arrow's words.
pub(super) fn unmade() -> Refusal {
    Refusal::new("XX000", "the answer could not be made", "report this")
}

/// A statement that was ended on its client's word.
pub(super) fn cancelled() -> Status {
    let hint = "a charge that was made stands: asked again it is paid for";
    let told: Status = Refusal::new("57014", "the statement was cancelled by its client", hint).into();
    Status::new(Code::Cancelled, told.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_that_was_agreed_on() {
        for (state, code) in [
            ("42601", Code::InvalidArgument),
            ("54000", Code::InvalidArgument),
            ("0A000", Code::Unimplemented),
            ("28000", Code::Unauthenticated),
            ("28P01", Code::Unauthenticated),
            ("42501", Code::PermissionDenied),
            ("57014", Code::DeadlineExceeded),
            ("53400", Code::ResourceExhausted),
            ("53300", Code::ResourceExhausted),
            ("58030", Code::Unavailable),
            ("57P01", Code::Unavailable),
            ("XX000", Code::Internal),
        ] {
            let status: Status = Refusal::new(state, "reason", "hint").into();
            assert_eq!((status.code(), status.message()), (code, format!("[{state}] reason. Hint: hint").as_str()));
        }
        assert_eq!(cancelled().code(), Code::Cancelled);
    }
}
