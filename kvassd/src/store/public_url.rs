//! What stands before the path of links: what was set here, or what the remote says of itself.

use tokio::sync::watch;
use tokio::time::Instant;

use super::commit::{Committer, Job};
use super::index;
use super::settings::Settings;
use super::{Store, WriteError};

/// The longest public URL, in bytes.
const LONGEST: usize = 512;

/// What is known of public URLs; each is empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicUrl {
    /// The one that was set here.
    pub own: String,
    /// The one that the remote says.
    pub remote: String,
}

impl PublicUrl {
    /// The one that counts.
    #[must_use]
    pub fn in_force(&self) -> &str {
        if self.own.is_empty() { &self.remote } else { &self.own }
    }
}

impl Store {
    /// Watches the public URLs.
    #[must_use]
    pub fn public_url(&self) -> watch::Receiver<PublicUrl> {
        self.shared.public_url.subscribe()
    }

    /// Sets what stands before links; empty: what the remote says, or its address.
    ///
    /// # Errors
    /// A text that is no http or https URL of a host and perhaps a path, or too long, or a full disk.
    pub fn set_public_url(&self, url: &str) -> Result<(), WriteError> {
        if url.len() > LONGEST {
            return Err(WriteError::Refused(format!("a public URL has at most {LONGEST} bytes")));
        }
        let own = match url.is_empty() {
            true => String::new(),
            false => parse(url).ok_or_else(|| {
                WriteError::Refused("a public URL is http:// or https://, a host, and perhaps a port and a path".into())
            })?,
        };
        self.ask(|answer| Job::SetPublicUrl { own: Some(own), remote: None, answer })
    }

    /// Notes what the remote says to stand before links; what is no URL counts as none, and so does one that a shell
    /// would not take as it stands.
    ///
    /// # Errors
    /// A full disk or a damaged store.
    pub fn meet_public_url(&self, url: &str) -> Result<(), WriteError> {
        let remote = parse(url).filter(|url| is_plain(url)).unwrap_or_default();
        if remote.is_empty() && !url.is_empty() && self.shared.seldom.is_new(url, Instant::now()) {
            tracing::warn!("the remote's public URL is none, or has characters that a shell could run; it is ignored");
        }
        if self.public_url_now().remote == remote {
            return Ok(());
        }
        self.ask(|answer| Job::SetPublicUrl { own: None, remote: Some(remote), answer })
    }

    /// What stands before the path of links: the public URL, or else the remote; `None` without either.
    #[must_use]
    pub fn base_url(&self) -> Option<String> {
        let public = self.public_url_now();
        let remote = self.shared.remote.borrow().clone();
        let url = if public.in_force().is_empty() { remote } else { public.in_force().to_owned() };
        (!url.is_empty()).then(|| without_own_port(&url).to_owned())
    }

    fn public_url_now(&self) -> PublicUrl {
        self.shared.public_url.borrow().clone()
    }
}

impl Committer {
    /// Sets one of both, or both; `None`: it stays.
    pub(super) fn set_public_url(&mut self, own: Option<String>, remote: Option<String>) -> Result<(), WriteError> {
        let now = self.shared.public_url.borrow().clone();
        let url = PublicUrl { own: own.unwrap_or(now.own), remote: remote.unwrap_or(now.remote) };
        let settings = Settings { public_url: url.own.clone(), ..self.shared.settings() };
        self.write_settings(&settings, |meta, _| {
            meta.insert(index::meta::PUBLIC_URL, url.own.as_bytes());
            meta.insert(index::meta::REMOTE_PUBLIC_URL, url.remote.as_bytes());
        })?;
        self.shared.public_url.send_replace(url);
        Ok(())
    }

    /// What the remote said is not so of another one; the row goes with the commit that sets it.
    pub(super) fn forget_remote_public_url(&self) {
        self.shared.public_url.send_modify(|url| url.remote.clear());
    }
}

/// Reads a URL, and leaves out what says nothing: the scheme's own port, slashes at the end. `None` for what could not
/// stand before a path and a query.
pub(crate) fn parse(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    if text.len() > LONGEST || !["http", "https"].contains(&scheme.as_str()) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
    if !is_authority(authority) || !path.bytes().all(in_path) {
        return None;
    }
    let url = format!("{scheme}://{authority}");
    Some(format!("{}{}", without_own_port(&url), path.trim_end_matches('/')))
}

/// Whether nothing in a URL means something to a shell: links are pasted behind `curl`.
fn is_plain(url: &str) -> bool {
    url.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~%:[]-".contains(&byte))
}

/// A host, and perhaps a port; an IPv6 address in brackets.
fn is_authority(text: &str) -> bool {
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => return is_behind_host(rest, is_port),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    !host.is_empty() && host.bytes().all(in_host) && is_behind_host(port, is_port)
}

/// Nothing, or a colon and a port.
fn is_behind_host(text: &str, is_port: impl Fn(&str) -> bool) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port)
}

/// A URL without the port that stands for none.
fn without_own_port(url: &str) -> &str {
    let strip = |scheme, port| url.strip_suffix(port).filter(|_| url.starts_with(scheme));
    strip("http://", ":80").or_else(|| strip("https://", ":443")).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_public_url_is_as_short_as_can_be() {
        for (text, url) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://example.org/", "https://example.org"),
            ("https://example.org:443//", "https://example.org"),
            ("http://example.org:80/kv/", "http://example.org/kv"),
            ("http://example.org:443", "http://example.org:443"),
            ("http://[::1]:8000/a/b", "http://[::1]:8000/a/b"),
            ("http://10.0.0.1:8000", "http://10.0.0.1:8000"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(url), "{text}");
            assert_eq!(parse(url).as_deref(), Some(url));
        }
    }

    #[test]
    fn what_could_not_stand_before_a_link_is_refused() {
        let long = format!("http://{}", "a".repeat(LONGEST));
        for text in [
            "",
            "example.org",
            "ftp://example.org",
            "http://",
            "http:///a",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:",
            "http://user@a",
            "http://a?q",
            "http://a/?q",
            "http://a/#f",
            "http://a b",
            "http://a/\"",
            "http://a/\n",
            "http://[::1",
            "http://[x]",
            "http://[::1]x",
            "http://ä",
            &long,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_that_a_shell_would_run_is_not_plain() {
        for plain in ["https://a.example:8000/b-c/~d_e%20", "http://[::1]:8000/kv"] {
            assert!(is_plain(plain), "{plain}");
        }
        for byte in "$&'()*;!`|<>\"\\ #?{}".chars() {
            assert!(!is_plain(&format!("http://a/{byte}")), "{byte}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_none(text in "(https?://)?[ -~]{0,40}") {
            if let Some(url) = parse(&text) {
                prop_assert_eq!(parse(&url), Some(url.clone()));
                prop_assert!(!url.ends_with('/') && !url.contains(['?', '#', ' ', '"', '<']));
            }
        }
    }
}
