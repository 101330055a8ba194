//! What the server's port answers to those who are no devices: plain HTTP.

mod disposition;
mod links;
mod media;
mod page;
mod range;
mod stream;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tonic::body::Body;

pub use self::links::Links;
use crate::keys::Token;

/// The path of links.
pub const LINK: &str = "/get";

/// What of a query is the token of a link.
const TOKEN: &str = "q=";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The link with a token, behind what stands before links.
#[must_use]
pub fn link(base: &str, token: &Token) -> String {
    format!("{base}{LINK}?{TOKEN}{}", *token.to_text())
}

/// Answers a request for anything but a link; its body is not looked at.
pub fn answer<B>(request: &Request<B>) -> Response<Body> {
    match (request.uri().path(), request.method()) {
        ("/healthz", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "ok\n"),
        ("/healthz", _) => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, const { HeaderValue::from_static("GET, HEAD") });
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
    }
}

/// Answers a gRPC request that is not over HTTP/2, as from a proxy that passes on HTTP/1.1 alone.
pub fn too_old() -> Response<Body> {
    text(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n")
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::new(String::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// What of a key is a name of its own.
fn last_part(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
