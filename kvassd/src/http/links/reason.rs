//! Why there is no value to be had, and what is said then.

use std::time::Duration;

use hyper::header::{ACCEPT_RANGES, ALLOW, CONTENT_RANGE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tonic::body::Body;

use crate::accept::Client;
use crate::http::page::Page;
use crate::http::stream::without_name;
use crate::store::{Gone, ReadError, ShareError};

/// Why there is no value to be had.
pub(super) enum Reason {
    Unknown,
    /// The one who asks has asked for too many that are not there, and has to wait so long.
    Often(Duration),
    Gone(Gone),
    /// It cannot be read now.
    Read(Unread),
    /// Too many values are on their way.
    Crowded,
    /// These methods are the ones that are taken.
    Method(&'static str),
    /// The value has so many bytes, and none of those that are asked for.
    Range(u64),
    /// It is not the version that is asked for.
    Precondition,
}

/// Why a value cannot be read.
pub(super) struct Unread {
    /// What is wrong, without a name.
    pub(super) what: String,
    /// Whether there is a link.
    is_linked: bool,
}

impl From<ShareError> for Reason {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Unknown => Self::Unknown,
            ShareError::Gone(gone) => Self::Gone(gone),
            ShareError::Unseen(error) => Self::Read(Unread { what: without_name(&error), is_linked: false }),
            ShareError::Read(error) => error.into(),
        }
    }
}

impl From<ReadError> for Reason {
    fn from(error: ReadError) -> Self {
        Self::Read(Unread { what: without_name(&error), is_linked: true })
    }
}

impl Reason {
    /// The same, where the one who asks has not asked for too much that is not there.
    pub(super) fn counted(self, request: &Parts) -> Self {
        if !matches!(self, Self::Unknown | Self::Read(Unread { is_linked: false, .. })) {
            return self;
        }
        let wait = request.extensions.get::<Client>().and_then(Client::note_unknown);
        wait.map_or(self, Self::Often)
    }

    /// The answer to a request with these headers.
    pub(super) fn answer(self, headers: &HeaderMap) -> Response<Body> {
        let mut answer = self.page().answer(headers);
        let said = answer.headers_mut();
        match self {
            Self::Read(_) | Self::Crowded => said.insert(RETRY_AFTER, const { HeaderValue::from_static("30") }),
            Self::Often(wait) => said.insert(RETRY_AFTER, wait.as_secs().max(1).into()),
            Self::Method(methods) => said.insert(ALLOW, HeaderValue::from_static(methods)),
            Self::Range(size) => {
                said.insert(ACCEPT_RANGES, const { HeaderValue::from_static("bytes") });
                #[allow(clippy::expect_used, reason = "digits and a few letters")]
                said.insert(CONTENT_RANGE, format!("bytes */{size}").parse().expect("visible ASCII"))
            }
            Self::Unknown | Self::Gone(_) | Self::Precondition => None,
        };
        answer
    }

    fn page(&self) -> Page {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::Unknown => Page::new(
                StatusCode::NOT_FOUND,
                "There is no such link",
                "It may be mistyped, or the device that made it has not been connected since.",
            ),
            Self::Often(_) => {
                Page::new(StatusCode::TOO_MANY_REQUESTS, "Too many links that are not there", "Wait a little.")
            }
            Self::Gone(gone) => Page::new(StatusCode::GONE, title(gone), ""),
            Self::Read(_) => Page::new(unavailable, "The value cannot be read at the moment", "Try again later."),
            Self::Crowded => Page::new(unavailable, "Too many values are on their way", "Try again in a while."),
            Self::Method(_) => Page::new(StatusCode::METHOD_NOT_ALLOWED, "A link is only read", ""),
            Self::Range(_) => Page::new(StatusCode::RANGE_NOT_SATISFIABLE, "The value has no such part", ""),
            Self::Precondition => Page::new(StatusCode::PRECONDITION_FAILED, "The value is another one by now", ""),
        }
    }
}

fn title(gone: &Gone) -> &'static str {
    match gone {
        Gone::Revoked => "This link was revoked",
        Gone::Expired => "This link has expired",
        Gone::UsedUp => "This link was opened as often as it could be",
        Gone::Removed => "What this link led to was removed",
        Gone::Replaced => "What this link led to was replaced",
    }
}
