//! Proxies that are believed when they say for whom they ask.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::HeaderMap;

/// The header in which each proxy names who asked it, behind what was there before.
const FORWARDED: &str = "x-forwarded-for";

/// The addresses of proxies that are trusted with the addresses of others; by default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Range>);

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    address: IpAddr,
    bits: u8,
}

/// Why a text names no proxies.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no address of a proxy: it is an IP address, or a range as 10.0.0.0/8")]
pub struct ProxyError(String);

impl Proxies {
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.has(address))
    }

    /// Who asks: `peer`, unless that is a proxy; then the last one that proxies have seen and that is none itself.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut origin = peer.to_canonical();
        let lines = headers.get_all(FORWARDED).iter().rev();
        let mut named = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        while self.trust(origin) {
            // What is before something that cannot be read may come from anybody.
            let Some(before) = named.next().and_then(|text| address(text.trim())) else { break };
            origin = before;
        }
        origin
    }
}

impl FromStr for Proxies {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(|text| Range::parse(text).ok_or_else(|| ProxyError(text.into()))).collect::<Result<_, _>>().map(Self)
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
        (bits <= all).then_some(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(self.bits)
    }
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(proxies: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        proxies.parse::<Proxies>().unwrap().origin(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_proxy_that_is_trusted_says_who_asks() {
        assert_eq!(origin("", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(origin("192.0.2.2", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(origin("192.0.2.1", "192.0.2.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(origin("192.0.2.1", "192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(origin("192.0.2.1", "::ffff:192.0.2.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn the_last_that_is_no_proxy_counts_whatever_stands_before_it() {
        let proxies = "10.0.0.0/8, 2001:db8::/32";
        assert_eq!(origin(proxies, "10.1.1.1", &["1.1.1.1, 198.51.100.7, 10.2.2.2"]), "198.51.100.7");
        assert_eq!(origin(proxies, "10.1.1.1", &["1.1.1.1", "198.51.100.7,2001:db8::5"]), "198.51.100.7");
        assert_eq!(origin(proxies, "10.1.1.1", &["198.51.100.7", "nonsense, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(origin(proxies, "10.1.1.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
        assert_eq!(origin(proxies, "2001:db8::1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(origin(proxies, "2001:db8::1", &["[2001:dead::1]:4711"]), "2001:dead::1");
        assert_eq!(origin(proxies, "2001:db8::1", &["[2001:dead::1]"]), "2001:dead::1");
    }

    #[test]
    fn a_range_has_what_begins_with_its_bits() {
        for (range, address, has) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/9", "10.128.0.1", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ] {
            assert_eq!(range.parse::<Proxies>().unwrap().trust(address.parse().unwrap()), has, "{range} {address}");
        }
        for wrong in ["localhost", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0.1 10.0.0.2", "10.0.0.1:80"] {
            assert!(wrong.parse::<Proxies>().is_err(), "{wrong}");
        }
    }
}
