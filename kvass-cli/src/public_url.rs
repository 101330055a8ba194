//! What stands before the path of a link, as people write it. Pure.

use thiserror::Error;

use crate::remote::{self, RemoteError};

/// What is wrong with a public URL.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum PublicUrlError {
    #[error("'{0}' is no public URL: that begins with http:// or https://")]
    Scheme(String),
    #[error("'{0}' cannot be in a public URL: that is a scheme, a host, perhaps a port and a path")]
    Path(String),
    #[error(transparent)]
    Address(#[from] RemoteError),
}

/// Reads a URL and returns it without what says nothing: the scheme's own port, a slash at the end.
///
/// An empty text means none, and stays empty.
pub(crate) fn parse(text: &str) -> Result<String, PublicUrlError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let wrong = || PublicUrlError::Scheme(text.into());
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return Err(wrong()),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let url = remote::parse(&format!("{scheme}://{authority}"))?;
    let url = url.strip_suffix(default_port).unwrap_or(&url);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
    match path.bytes().all(allowed) {
        true => Ok(format!("{url}{}", path.trim_end_matches('/'))),
        false => Err(PublicUrlError::Path(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_as_short_as_can_be() {
        for (text, url) in [
            ("", ""),
            (" ", ""),
            ("https://Kvass.Example.org/", "https://kvass.example.org"),
            ("HTTPS://kvass.example.org:443", "https://kvass.example.org"),
            ("http://kvass.example.org:80", "http://kvass.example.org"),
            ("https://kvass.example.org:80", "https://kvass.example.org:80"),
            ("http://[2001:DB8::1]:8000", "http://[2001:db8::1]:8000"),
            ("http://[::1]:80/", "http://[::1]"),
            ("https://example.org/~me/Kvass//", "https://example.org/~me/Kvass"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(url), "{text}");
            assert_eq!(parse(url).as_deref(), Ok(url), "{text}, once more");
        }
    }

    #[test]
    fn what_is_wrong_with_a_public_url_is_named() {
        for (text, error) in [
            ("kvass.example.org", PublicUrlError::Scheme("kvass.example.org".into())),
            ("localhost:8000", PublicUrlError::Scheme("localhost:8000".into())),
            ("ftp://host", PublicUrlError::Scheme("ftp://host".into())),
            ("https://host/a b", PublicUrlError::Path("/a b".into())),
            ("https://host/get?q=", PublicUrlError::Path("/get?q=".into())),
            ("https://host#x", PublicUrlError::Path("#x".into())),
            ("https://host/ä", PublicUrlError::Path("/ä".into())),
            ("https://", RemoteError::NoHost("https://".into()).into()),
            ("https://me:secret@host", RemoteError::User("me".into()).into()),
            ("https://host:0", RemoteError::Port("0".into()).into()),
            ("https://::1", RemoteError::Brackets(std::net::Ipv6Addr::LOCALHOST).into()),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
