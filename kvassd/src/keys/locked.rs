//! Memory for keys that live as long as the process: on a page of their own, which the system is asked to keep out of
//! swap, and wiped before it is given back.

use std::sync::{Arc, Once};

use region::LockGuard;
use zeroize::Zeroize;

/// Bytes of a key.
const KEY: usize = 32;

/// As large as a page, so that no unlock of other keys is one of these: locks are of pages, and do not add up. Where
/// pages are larger (some kernels for ARM have 64 KiB), a neighbour may lose its lock early.
const PAGE: usize = if cfg!(target_arch = "aarch64") { 16 << 10 } else { 4 << 10 };

/// `N` keys in memory that is locked where the system allows it; a cheap clone, the same bytes.
#[derive(Clone)]
pub(super) struct Locked<const N: usize>(Arc<Held<N>>);

struct Held<const N: usize> {
    /// Declared first, so that it goes first: an unlock after the page was given back could be that of its next owner.
    _guard: Option<LockGuard>,
    page: Box<Page>,
}

/// All of it is zeros and keys. What is left of a page beside a value is copied with it, from wherever it was made: of
/// a stack, with what lay there.
#[cfg_attr(not(target_arch = "aarch64"), repr(align(4096)))]
#[cfg_attr(target_arch = "aarch64", repr(align(16384)))]
struct Page([[u8; KEY]; PAGE / KEY]);

impl<const N: usize> Locked<N> {
    /// Makes keys by writing them to their place, so that no other place has them.
    pub(super) fn write(write: impl FnOnce(&mut [[u8; KEY]; N])) -> Self {
        let mut page = Box::new(Page([[0; KEY]; PAGE / KEY]));
        let guard = lock(&page);
        #[allow(clippy::expect_used, reason = "a page has room for more keys than there are")]
        write(page.0.first_chunk_mut().expect("room for the keys"));
        Self(Arc::new(Held { _guard: guard, page }))
    }

    /// The keys.
    pub(super) fn show(&self) -> &[[u8; KEY]; N] {
        #[allow(clippy::expect_used, reason = "they were written there")]
        self.0.page.0.first_chunk().expect("room for the keys")
    }
}

impl<const N: usize> Drop for Held<N> {
    fn drop(&mut self) {
        self.page.0.zeroize();
    }
}

/// Locks a page; a system that does not allow it (`RLIMIT_MEMLOCK`, a filter) is no reason not to go on.
fn lock(page: &Page) -> Option<LockGuard> {
    static SAID: Once = Once::new();
    let locked = region::lock(std::ptr::from_ref(page), size_of::<Page>());
    if let Err(error) = &locked {
        SAID.call_once(|| tracing::info!(%error, "the system does not let keys be kept out of swap"));
    }
    locked.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_clones_are_one_place_on_a_page_of_its_own() {
        let write = |byte| Locked::write(move |keys: &mut [[u8; KEY]; 2]| *keys = [[byte; KEY]; 2]);
        let (keys, other) = (write(7), write(8));
        let clone = keys.clone();
        assert_eq!((keys.show(), other.show()), (&[[7; KEY]; 2], &[[8; KEY]; 2]));
        assert!(std::ptr::eq(keys.show(), clone.show()));
        let place = |keys: &Locked<2>| std::ptr::from_ref(keys.show()).addr();
        assert!(place(&keys).is_multiple_of(PAGE) && place(&other).is_multiple_of(PAGE));
        drop(keys);
        assert_eq!(clone.show(), &[[7; KEY]; 2], "it is there as long as somebody has it");
    }
}
