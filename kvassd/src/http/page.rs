//! Small pages that say what happened: HTML for browsers, a line of text for everybody else. Nothing of a request or of
//! a value is in them, so there is nothing in them that somebody else could have put there.

use std::borrow::Cow;

use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use tonic::body::Body;

use super::{NO_STORE, TEXT};

/// What a page may do: have its own style, and send its own form.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Something to say instead of a value.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    /// A line of it for people, without a full stop.
    pub(super) title: &'static str,
    /// More of it: sentences, or nothing.
    pub(super) more: Cow<'static, str>,
    /// The words of a button that asks for the value.
    pub(super) button: Option<&'static str>,
    /// What stands in the place of the button where there are none.
    pub(super) instead: &'static str,
}

impl Page {
    /// A page without a button.
    pub(super) const fn new(status: StatusCode, title: &'static str, more: &'static str) -> Self {
        Self { status, title, more: Cow::Borrowed(more), button: None, instead: "" }
    }

    /// The answer to a request with these headers.
    pub(super) fn answer(self, headers: &HeaderMap) -> Response<Body> {
        let is_html = wants_html(headers);
        let mut answer = Response::new(Body::new(if is_html { self.html() } else { self.text() }));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, if is_html { HTML } else { TEXT });
        headers.insert(CACHE_CONTROL, NO_STORE);
        harden(headers);
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        answer
    }

    fn text(&self) -> String {
        let paragraphs = [self.title, &self.more, self.instead];
        let mut text = paragraphs.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join("\n");
        text.push('\n');
        text
    }

    fn html(&self) -> String {
        let Self { title, more, .. } = self;
        // Without an action a form goes to the address of its page.
        let form = |words| format!("<form method=\"post\"><button>{words}</button></form>\n");
        let form = self.button.map(form).unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"robots\" content=\"noindex\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<main>\n<h1>{title}</h1>\n<p>{more}</p>\n{form}</main>\n"
        )
    }
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:32rem;padding:0 1rem}\
h1{font-size:1.5rem}button{font:inherit;padding:.5rem 1.5rem}:root{color-scheme:light dark}";

/// What every answer about a link says to browsers: guess no type, tell nobody where one came from, look up no name of a
/// document that nobody has clicked on.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    headers.insert(REFERRER_POLICY, const { HeaderValue::from_static("no-referrer") });
    headers.insert(ROBOTS, const { HeaderValue::from_static("noindex") });
    headers.insert(DNS_PREFETCH, const { HeaderValue::from_static("off") });
}

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
const DNS_PREFETCH: HeaderName = HeaderName::from_static("x-dns-prefetch-control");

/// Whether the one who asks shows HTML, as browsers say and curl does not.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
    headers.get_all(ACCEPT).iter().any(accepts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page {
        status: StatusCode::OK,
        title: "This link shows its value once",
        more: Cow::Borrowed("Nothing is counted until you ask for it."),
        button: Some("Show it"),
        instead: "curl -d '' URL",
    };

    fn asked(accept: &str) -> HeaderMap {
        [(ACCEPT, HeaderValue::from_str(accept).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_browser_gets_a_page_with_a_button_and_everybody_else_a_text() {
        let page = PAGE.html();
        assert!(page.contains("<form method=\"post\"><button>Show it</button></form>"), "{page}");
        assert!(!page.contains("script") && !page.contains("curl"), "{page}");
        assert_eq!(
            PAGE.text(),
            "This link shows its value once\nNothing is counted until you ask for it.\ncurl -d '' URL\n"
        );
        assert!(!Page { button: None, ..PAGE }.html().contains("form"));
        for (accept, media) in
            [("text/html,application/xhtml+xml,*/*;q=0.8", HTML), ("*/*", TEXT), ("image/png", TEXT), ("", TEXT)]
        {
            assert_eq!(PAGE.answer(&asked(accept)).headers()[CONTENT_TYPE], media, "{accept}");
        }
        assert_eq!(PAGE.answer(&HeaderMap::new()).headers()[CONTENT_TYPE], TEXT);
    }

    #[test]
    fn a_page_is_never_kept() {
        let answer = Page::new(StatusCode::GONE, "Gone", "").answer(&asked("text/html"));
        assert_eq!((answer.status(), &answer.headers()[CACHE_CONTROL]), (StatusCode::GONE, &NO_STORE));
    }
}
