//! Who asks, by address, and how often an address has asked for what is not there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Unknown things that an address may ask for at once.
pub const UNKNOWN: u32 = 30;

/// How long it takes until it may ask for one more.
pub const UNKNOWN_EACH: Duration = Duration::from_secs(2);

/// Addresses that are remembered. One that is not has asked for nothing yet.
const REMEMBERED: usize = 4_096;

/// Who sent a request; in the extensions of each. A cheap clone.
#[derive(Clone, Debug)]
pub struct Client {
    /// Behind a proxy that is trusted with it, the one that the proxy has seen.
    address: IpAddr,
    unknown: Unknown,
}

impl Client {
    pub(super) fn new(address: IpAddr, unknown: Unknown) -> Self {
        Self { address, unknown }
    }

    /// Where the request comes from.
    pub(crate) fn subnet(&self) -> Subnet {
        Subnet::of(self.address)
    }

    /// Notes that the request is for something that is not there, as a token that nobody gave out. Returns how long the
    /// address has to wait before it asks again, where it has asked for too much of that: it is told so, and nothing
    /// else. What is there is not held back from it: others may share the address.
    #[must_use]
    pub fn note_unknown(&self) -> Option<Duration> {
        self.unknown.note(self.subnet(), Instant::now())
    }
}

/// What one person or machine can have at will: an IPv4 address, or a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subnet(IpAddr);

impl Subnet {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            address => Self(address),
        }
    }
}

/// When each address will have nothing against it any more. A cheap clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Unknown(Arc<Mutex<HashMap<Subnet, Instant>>>);

impl Unknown {
    /// A bucket of [`UNKNOWN`] that fills up by one each [`UNKNOWN_EACH`]: all of it is in the time when it is full.
    fn note(&self, subnet: Subnet, now: Instant) -> Option<Duration> {
        let mut full = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = full.get(&subnet).map_or(now, |full| now.max(*full)) + UNKNOWN_EACH;
        let wait = (after - now).checked_sub(UNKNOWN * UNKNOWN_EACH).filter(|wait| !wait.is_zero());
        if wait.is_some() {
            return wait;
        }
        if full.len() >= REMEMBERED {
            make_room(&mut full, now);
        }
        full.insert(subnet, after);
        None
    }
}

/// Forgets those with nothing against them, or else the one with least.
fn make_room(full: &mut HashMap<Subnet, Instant>, now: Instant) {
    full.retain(|_, full| *full > now);
    if full.len() >= REMEMBERED
        && let Some(least) = full.iter().min_by_key(|(_, full)| **full).map(|(subnet, _)| *subnet)
    {
        full.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::of(text.parse().unwrap())
    }

    #[test]
    fn an_address_that_asks_for_too_much_waits_until_there_is_something_left_and_others_do_not() {
        let (unknown, start) = (Unknown::default(), Instant::now());
        let (one, other) = (subnet("192.0.2.1"), subnet("192.0.2.2"));
        for _ in 0..UNKNOWN {
            assert_eq!(unknown.note(one, start), None);
        }
        let half = UNKNOWN_EACH / 2;
        assert_eq!(unknown.note(one, start), Some(UNKNOWN_EACH));
        // To ask again and again makes it no longer.
        assert_eq!(unknown.note(one, start + half), Some(half));
        assert_eq!(unknown.note(other, start), None);
        assert_eq!(unknown.note(one, start + UNKNOWN_EACH), None);
        assert_eq!(unknown.note(one, start + UNKNOWN_EACH), Some(UNKNOWN_EACH));
        let later = start + (UNKNOWN + 1) * UNKNOWN_EACH;
        assert_eq!((0..2 * UNKNOWN).filter(|_| unknown.note(one, later).is_none()).count(), UNKNOWN as usize);
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_and_a_mapped_address_is_what_it_maps() {
        assert_eq!(subnet("2001:db8::1"), subnet("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(subnet("2001:db8::1"), subnet("2001:db8:0:1::1"));
        assert_eq!(subnet("::ffff:192.0.2.1"), subnet("192.0.2.1"));
        assert_ne!(subnet("192.0.2.1"), subnet("192.0.2.2"));
    }

    #[test]
    fn addresses_without_end_take_no_more_than_their_place_and_hide_no_one_who_asks_much() {
        let (unknown, now) = (Unknown::default(), Instant::now());
        let greedy = subnet("192.0.2.1");
        while unknown.note(greedy, now).is_none() {}
        for number in 0..2 * REMEMBERED as u32 {
            assert_eq!(unknown.note(Subnet(IpAddr::from(number.to_be_bytes())), now), None);
        }
        assert_eq!(unknown.0.lock().unwrap().len(), REMEMBERED);
        assert!(unknown.note(greedy, now).is_some());
    }
}
