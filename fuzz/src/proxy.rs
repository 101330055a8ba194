//! `X-Forwarded-For`, and the ranges of proxies that are believed in it.

use std::net::{IpAddr, Ipv6Addr};

/// Reads a line of ranges, then lines of the header.
pub fn proxy(bytes: &[u8]) {
    let Some((peer, rest)) = bytes.split_first_chunk::<4>() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let proxies = lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let lines: Vec<_> = lines.collect();
    let mapped = std::net::Ipv4Addr::from(*peer).to_ipv6_mapped();
    for peer in [IpAddr::from(*peer), mapped.into(), Ipv6Addr::from_bits(u32::from_be_bytes(*peer).into()).into()] {
        kvassd::fuzz::origin(proxies, peer, &lines);
    }
}
