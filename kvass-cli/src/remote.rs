//! The address of a remote as people write it, made into a URL. Pure: asks no resolver and no network.

use std::net::{Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// What is wrong with an address.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum RemoteError {
    #[error("'{0}://' is no scheme for a remote: that is http:// or https://")]
    Scheme(String),
    #[error("a remote is a host and a port, without a user: '{0}@'")]
    User(String),
    #[error("a remote is a host and a port, without a path: '{0}'")]
    Path(String),
    #[error("a remote is a host and a port, without a query: '{0}'")]
    Query(String),
    #[error("a remote is a host and a port, without a fragment: '{0}'")]
    Fragment(String),
    #[error("'{0}' names no host")]
    NoHost(String),
    #[error("'{0}' is no host: that is a name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    #[error("an IPv6 address stands in brackets: [{0}]")]
    Brackets(Ipv6Addr),
    #[error("'{0}' is no IPv6 address")]
    Ipv6(String),
    #[error("'{0}' is no port: that is a number from 1 to 65535")]
    Port(String),
}

/// Reads `host`, `host:port`, `http://…` or `https://…` and returns `scheme://host:port`.
///
/// Without a port it is the scheme's own, without a scheme http. An empty text means no remote, and stays empty.
pub(crate) fn parse(text: &str) -> Result<String, RemoteError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".into(), text),
    };
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(RemoteError::Scheme(scheme)),
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if let Some((user, _)) = authority.rsplit_once('@') {
        // What may be a password is not shown.
        return Err(RemoteError::User(user.split(':').next().unwrap_or_default().into()));
    }
    let (host, port) = split(authority)?;
    let host = match host {
        Host::Ipv6(address) => format!("[{address}]"),
        Host::Name("") => return Err(RemoteError::NoHost(text.into())),
        Host::Name(name) => name_or_ipv4(name)?,
    };
    let port = port.map_or(Ok(default_port), parse_port)?;
    nothing_but_a_slash(behind)?;
    Ok(format!("{scheme}://{host}:{port}"))
}

enum Host<'a> {
    Name(&'a str),
    Ipv6(Ipv6Addr),
}

/// Splits the host from the port.
fn split(authority: &str) -> Result<(Host<'_>, Option<&str>), RemoteError> {
    if let Some(inside) = authority.strip_prefix('[') {
        let wrong = || RemoteError::Ipv6(authority.into());
        let (address, behind) = inside.split_once(']').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| RemoteError::Ipv6(address.into()))?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((Host::Ipv6(address), Some(port))),
            None if behind.is_empty() => Ok((Host::Ipv6(address), None)),
            None => Err(wrong()),
        };
    }
    if let Ok(address) = authority.parse() {
        return Err(RemoteError::Brackets(address));
    }
    Ok(match authority.split_once(':') {
        Some((name, port)) => (Host::Name(name), Some(port)),
        None => (Host::Name(authority), None),
    })
}

/// The name in lower case. One that ends in a number can only be an IPv4 address, as in the URL standard.
fn name_or_ipv4(name: &str) -> Result<String, RemoteError> {
    let wrong = || RemoteError::Host(name.into());
    let labels = || name.strip_suffix('.').unwrap_or(name).split('.');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !labels().all(|label| !label.is_empty() && !label.starts_with('-') && label.bytes().all(allowed)) {
        return Err(wrong());
    }
    let numeric = labels().next_back().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return Err(wrong());
    }
    Ok(name.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Result<u16, RemoteError> {
    // `parse` alone would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| RemoteError::Port(text.into()))
}

fn nothing_but_a_slash(behind: &str) -> Result<(), RemoteError> {
    let (path, behind) = behind.split_at(behind.find(['?', '#']).unwrap_or(behind.len()));
    match (path, behind.chars().next()) {
        ("" | "/", None) => Ok(()),
        ("" | "/", Some('?')) => Err(RemoteError::Query(behind.split('#').next().unwrap_or_default().into())),
        ("" | "/", Some(_)) => Err(RemoteError::Fragment(behind.into())),
        _ => Err(RemoteError::Path(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_url_with_a_port() {
        for (text, url) in [
            ("", ""),
            ("  ", ""),
            ("host", "http://host:80"),
            ("Host.Example.", "http://host.example.:80"),
            ("my_host-1:8000", "http://my_host-1:8000"),
            ("10.0.0.1", "http://10.0.0.1:80"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
            ("http://host", "http://host:80"),
            ("http://host/", "http://host:80"),
            ("HTTP://host:8000/", "http://host:8000"),
            ("https://host", "https://host:443"),
            ("https://host:80", "https://host:80"),
            ("[::1]", "http://[::1]:80"),
            ("[2001:DB8:0:0::1]:8000", "http://[2001:db8::1]:8000"),
            ("https://[::1]:65535/", "https://[::1]:65535"),
            ("host:00080", "http://host:80"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(url), "{text}");
            assert_eq!(parse(url).as_deref(), Ok(url), "{text}, once more");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_named() {
        use RemoteError::{Brackets, Fragment, Host, Ipv6, NoHost, Path, Port, Query, Scheme, User};
        for (text, error) in [
            ("ftp://host", Scheme("ftp".into())),
            ("://host", Scheme("".into())),
            ("me@host", User("me".into())),
            ("http://me:secret@host:1/x", User("me".into())),
            ("host/kvass", Path("/kvass".into())),
            ("host:8000/a/?b", Path("/a/".into())),
            ("host//", Path("//".into())),
            ("host?a=b#c", Query("?a=b".into())),
            ("host/#c", Fragment("#c".into())),
            (":8000", NoHost(":8000".into())),
            ("http://", NoHost("http://".into())),
            ("8000", Host("8000".into())),
            ("10.0.0.256", Host("10.0.0.256".into())),
            ("a..b", Host("a..b".into())),
            ("-a", Host("-a".into())),
            ("two words", Host("two words".into())),
            ("häuschen", Host("häuschen".into())),
            ("::1", Brackets(Ipv6Addr::LOCALHOST)),
            ("[::1", Ipv6("[::1".into())),
            ("[::1]x", Ipv6("[::1]x".into())),
            ("[host]:1", Ipv6("host".into())),
            ("[fe80::1%eth0]", Ipv6("fe80::1%eth0".into())),
            ("host:", Port("".into())),
            ("host:0", Port("0".into())),
            ("host:65536", Port("65536".into())),
            ("host:+1", Port("+1".into())),
            ("host:1:2", Port("1:2".into())),
            ("[::1]:x", Port("x".into())),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
