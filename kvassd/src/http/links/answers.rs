//! What the answer with a value says about it.

use std::ops::Range;

use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
};
use hyper::{Response, StatusCode};
use tonic::body::Body;

use super::reason::Reason;
use crate::http::NO_STORE;
use crate::http::disposition::disposition;
use crate::http::media::{Media, Show};
use crate::http::page::{Page, harden};
use crate::http::stream::PIECE;
use crate::keys::encode_hex;
use crate::store::{Linked, Reads};

/// What a document may do that could do something: look as it was made to, with what is in itself. It has no scripts, no
/// forms, no network, and an origin that it shares with nothing, so that it reads no other link.
const SANDBOX: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; style-src 'unsafe-inline' data:; img-src data:; font-src data:; media-src data:",
);

/// A value that was found, and what was read of it to say what it is.
pub(super) struct Found {
    pub(super) linked: Linked,
    pub(super) beginning: Vec<u8>,
    content_type: String,
    show: Show,
}

impl Found {
    /// Reads the beginning of a value where that is needed.
    pub(super) fn read(mut linked: Linked) -> Result<Self, Reason> {
        linked.reader.limit_parts(PIECE);
        let by_key = Media::by_key(&linked.name);
        let mut beginning = Vec::new();
        if linked.reader.inline().is_some() || by_key.is_none_or(Media::is_text) {
            linked.reader.next(&mut beginning)?;
        }
        let is_whole = beginning.len() as u64 == linked.size;
        let media = Media::of(&linked.name, &beginning, is_whole);
        let content_type = media.header(&beginning, is_whole);
        // Browsers fetch what they play once more by a GET, which would get the page in place of the value.
        let show = if linked.reads.is_some() && media.is_played() { Show::Save } else { media.show() };
        Ok(Self { linked, beginning, content_type, show })
    }
}

/// The page of a link that may be read a number of times.
pub(super) fn limited(reads: Reads) -> Page {
    let left = reads.allowed.saturating_sub(reads.used);
    let times = if left == 1 { "once more".into() } else { format!("{left} more times") };
    Page {
        status: StatusCode::OK,
        title: "This link can be opened only so often",
        more: format!("It can be opened {times}. Looking at this page does not count.").into(),
        button: Some("Open it"),
        instead: "To open it, send a POST to the same URL: curl -d '' URL",
    }
}

/// The entity tag of a version of a value.
pub(super) fn tag(linked: &Linked) -> String {
    format!("\"{}\"", encode_hex(&linked.tag[..16]))
}

/// Says what a value, or a part of it, is; the body is still to come.
pub(super) fn value(found: &Found, part: Option<&Range<u64>>) -> Response<Body> {
    let Found { linked, content_type, show, .. } = found;
    let mut answer = Response::new(Body::empty());
    let length = part.map_or(linked.size, |part| part.end - part.start);
    if part.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, text(content_type));
    headers.insert(CONTENT_DISPOSITION, text(&disposition(*show != Show::Save, &linked.name)));
    headers.insert(CONTENT_LENGTH, length.into());
    if let Some(part) = part {
        headers.insert(CONTENT_RANGE, text(&format!("bytes {}-{}/{}", part.start, part.end - 1, linked.size)));
    }
    if *show != Show::Viewer {
        headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    }
    harden(headers);
    answer
}

/// The answer to who has this version already.
pub(super) fn unchanged(tag: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    let_keep(answer.headers_mut(), tag);
    harden(answer.headers_mut());
    answer
}

/// Lets the one who asks keep the value, and ask each time whether it is still the same.
pub(super) fn let_keep(headers: &mut HeaderMap, tag: &str) {
    headers.insert(ETAG, text(tag));
    headers.insert(ACCEPT_RANGES, const { HeaderValue::from_static("bytes") });
    headers.insert(CACHE_CONTROL, const { HeaderValue::from_static("private, no-cache") });
}

/// Lets nobody keep the value, or take it in parts.
pub(super) fn forbid_keeping(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_RANGES, const { HeaderValue::from_static("none") });
    headers.insert(CACHE_CONTROL, NO_STORE);
}

fn text(value: &str) -> HeaderValue {
    #[allow(clippy::expect_used, reason = "all that comes here is visible ASCII; the properties of each show it")]
    HeaderValue::from_str(value).expect("visible ASCII")
}
