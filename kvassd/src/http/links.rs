//! Links: a value for whoever has the token of one.
//!
//! A plain link is answered like a file. One that may be read a number of times shows a page with a button instead, and
//! only what the button sends, a `POST`, counts: what looks at links before people do (previews, scanners, prefetch)
//! sends none. Nothing of a request, and no name, is logged.

mod answers;
mod places;
mod reason;

use std::ops::Range;
use std::sync::Arc;

use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, Uri, Version};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;
use tonic::body::Body;

use self::answers::Found;
pub(super) use self::places::Place;
use self::places::Places;
use self::reason::{Reason, Unread};
use super::TOKEN;
use super::range::Wanted;
use super::stream::Stream;
use crate::accept::{Client, Download, Guest, STALL, STAY};
use crate::keys::Token;
use crate::logs::Seldom;
use crate::store::{Linked, Store};

/// Looks into the store at once, and as many reads of values on their way.
const CALLS: usize = 16;

/// Answers links from a store; a cheap clone.
#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    store: Store,
    calls: Semaphore,
    /// Reads that are counted, each of which waits for a commit.
    counts: Semaphore,
    reads: Arc<Semaphore>,
    places: Places,
    seldom: Seldom,
}

impl Links {
    /// Answers from this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            calls: Semaphore::new(CALLS),
            counts: Semaphore::new(CALLS),
            reads: Arc::new(Semaphore::new(CALLS)),
            places: Places::default(),
            seldom: Seldom::default(),
        }))
    }

    /// Answers a request for a link. A value admits the connection for as long as it is on its way.
    pub async fn answer(&self, request: &Parts, guest: &Guest) -> Response<Body> {
        // HTTP/2 may still hold a little of an answer that is over, and says nothing about it.
        let stay = if request.version == Version::HTTP_2 { STALL } else { STAY };
        let admit = || guest.admit_download(stay);
        let answered = match request.method {
            Method::GET | Method::HEAD => self.look(request, admit).await,
            Method::POST => self.open(request, admit).await,
            _ => Err(Reason::Method("GET, HEAD, POST")),
        };
        let mut answer = answered.unwrap_or_else(|reason| {
            self.note(&reason);
            reason.counted(request).answer(&request.headers)
        });
        if request.method == Method::HEAD {
            drop_body(&mut answer);
        }
        answer
    }

    /// Says in the log, seldom, that a value cannot be read: strangers may ask as often as they like.
    fn note(&self, reason: &Reason) {
        if let Reason::Read(Unread { what, .. }) = reason
            && self.0.seldom.is_new(what, Instant::now())
        {
            tracing::warn!(what, "a value that a link leads to cannot be read");
        }
    }

    /// The value; of a link with a number of reads the page that asks whether to take one.
    async fn look(&self, request: &Parts, admit: impl Fn() -> Download) -> Result<Response<Body>, Reason> {
        let token = token(&request.uri);
        let found = {
            let _permit = self.0.calls.acquire().await;
            block_in_place(|| Found::read(self.0.store.open_share(&token)?))?
        };
        if let Some(reads) = found.linked.reads {
            return Ok(answers::limited(reads).answer(&request.headers));
        }
        let (tag, size) = (answers::tag(&found.linked), found.linked.size);
        let part = match Wanted::of(&request.headers, request.method == Method::GET, &tag, size) {
            Wanted::Whole => None,
            Wanted::Part(part) => Some(part),
            Wanted::Beyond => return Err(Reason::Range(size)),
            Wanted::Changed => return Err(Reason::Precondition),
            Wanted::Unchanged => return Ok(answers::unchanged(&tag)),
        };
        let mut answer = answers::value(&found, part.as_ref());
        answers::let_keep(answer.headers_mut(), &tag);
        if request.method == Method::GET {
            let place = self.place(request, &found.linked)?;
            *answer.body_mut() = self.body(found, part.unwrap_or(0..size), admit(), place);
        }
        Ok(answer)
    }

    /// The value of a link with a number of reads, of which one is taken before.
    async fn open(&self, request: &Parts, admit: impl Fn() -> Download) -> Result<Response<Body>, Reason> {
        let token = token(&request.uri);
        let looked = {
            let _permit = self.0.calls.acquire().await;
            block_in_place(|| self.0.store.open_share(&token))?
        };
        if looked.reads.is_none() {
            return Err(Reason::Method("GET, HEAD"));
        }
        // Both before the count, so that no read is lost to a server that has no room or no patience.
        let (place, download) = (self.place(request, &looked)?, admit());
        let found = {
            let _permit = self.0.counts.acquire().await;
            block_in_place(|| Found::read(self.0.store.count_read(&token)?))?
        };
        let (mut answer, size) = (answers::value(&found, None), found.linked.size);
        answers::forbid_keeping(answer.headers_mut());
        *answer.body_mut() = self.body(found, 0..size, download, place);
        Ok(answer)
    }

    /// A place among the large values that are on their way; short ones need none.
    fn place(&self, request: &Parts, linked: &Linked) -> Result<Option<Place>, Reason> {
        if linked.reader.inline().is_some() {
            return Ok(None);
        }
        let subnet = request.extensions.get::<Client>().map(Client::subnet);
        self.0.places.take(subnet).map(Some).ok_or(Reason::Crowded)
    }

    fn body(
        &self,
        Found { linked, beginning, .. }: Found,
        part: Range<u64>,
        download: Download,
        place: Option<Place>,
    ) -> Body {
        let reads = PollSemaphore::new(self.0.reads.clone());
        let seldom = self.0.seldom.clone();
        Body::new(Stream::new(linked.reader, beginning, part, reads, download, place, seldom))
    }
}

/// The token of a request. What is none becomes one that nobody was given, so that both cost the same.
fn token(uri: &Uri) -> Token {
    #[allow(clippy::expect_used, reason = "it has 16 bytes")]
    let nobodys = || Token::from_bytes(&[0; 16]).expect("a token");
    let value = |part: &str| part.strip_prefix(TOKEN).and_then(Token::from_text);
    let query = uri.query().unwrap_or_default();
    query.split('&').find_map(value).unwrap_or_else(nobodys)
}

/// Leaves the length of a body and nothing else of it.
fn drop_body(answer: &mut Response<Body>) {
    let length = hyper::body::Body::size_hint(answer.body()).exact().map(HeaderValue::from);
    if let Some(length) = length {
        answer.headers_mut().entry(CONTENT_LENGTH).or_insert(length);
    }
    *answer.body_mut() = Body::empty();
}
