//! AES-256-GCM (NIST SP 800-38D) by the crate ring: what seals the chunks of values and the frames of the channel.
//!
//! Pure. ring leaves the schedule of a key in memory when it is dropped, so an [`Aes`] puts another one in its place.

use std::hint::black_box;

use aead_stream::aead::array::typenum::{U12, U16};
use aead_stream::aead::inout::InOutBuf;
use aead_stream::aead::{self, AeadCore, AeadInOut, TagPosition};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a tag.
pub(crate) const TAG: usize = 16;

/// A key of AES-256-GCM, ready for use. Boxed, so that a move leaves no copy.
pub(crate) struct Aes(Box<LessSafeKey>);

/// What was sealed does not open: it was changed, or belongs to another key or nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not open")]
pub(crate) struct Forged;

impl Aes {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(schedule(key)))
    }

    /// Seals in place. A nonce may be used once with a key.
    pub(crate) fn seal(&self, nonce: [u8; 12], associated: &[u8], body: &mut [u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        #[allow(clippy::expect_used, reason = "what is sealed is far shorter than 64 GiB")]
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), body).expect("a short message");
        #[allow(clippy::expect_used, reason = "a tag of this cipher has 16 bytes")]
        tag.as_ref().try_into().expect("16 bytes")
    }

    /// Opens in place.
    ///
    /// # Errors
    /// It does not open; what stands in `body` then is of no use.
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        body: &mut [u8],
        tag: [u8; TAG],
    ) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(associated), tag.into(), body, 0..);
        opened.map(drop).map_err(|_| Forged)
    }
}

fn schedule(key: &[u8; 32]) -> LessSafeKey {
    #[allow(clippy::expect_used, reason = "such a key has 32 bytes")]
    let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes");
    LessSafeKey::new(key)
}

impl Drop for Aes {
    fn drop(&mut self) {
        *self.0 = schedule(&[0; 32]);
        // What is written only to be freed could be left out.
        black_box(&mut self.0);
    }
}

impl AeadCore for Aes {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl AeadInOut for Aes {
    fn encrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
    ) -> aead::Result<aead::Tag<Self>> {
        Ok(self.seal((*nonce).into(), associated, buffer.into_out_with_copied_in()).into())
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &aead::Tag<Self>,
    ) -> aead::Result<()> {
        let opened = self.open((*nonce).into(), associated, buffer.into_out_with_copied_in(), (*tag).into());
        opened.map_err(|Forged| aead::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::decode_hex;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(decode_hex(hex, &mut bytes));
        bytes
    }

    /// Test case 16 of «The Galois/Counter Mode of Operation (GCM)», McGrew and Viega.
    #[test]
    fn the_published_case_comes_out() {
        let key = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let associated: [u8; 20] = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain: [u8; 60] = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0d\
             e657ba637b39",
        );
        let (aes, nonce) = (Aes::new(&key), bytes("cafebabefacedbaddecaf888"));
        let mut body = plain;
        let tag = aes.seal(nonce, &associated, &mut body);
        let sealed: [u8; 60] = bytes(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba\
             7a0abcc9f662",
        );
        assert_eq!((body, tag), (sealed, bytes("76fc6ece0f4e1768cddf8853bb2d551b")));
        assert_eq!(aes.open(nonce, &associated, &mut body, tag), Ok(()));
        assert_eq!(body, plain);
        assert_eq!(aes.open(nonce, &associated, &mut body, [0; TAG]), Err(Forged));
    }

    /// How often a key, given with all its bits turned, lies in this process's memory other than the stack in use.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn occurrences(turned: &[u8; 32]) -> usize {
        use std::os::unix::fs::FileExt;

        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut piece = [0; 1 << 16];
        let own = piece.as_ptr() as u64;
        let is_key = |window: &[u8]| window.iter().zip(turned).all(|(byte, turned)| *byte == !turned);
        let mut found = 0;
        for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let (start, rest) = line.split_once('-').unwrap();
            let (end, rest) = rest.split_once(' ').unwrap();
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
            if !rest.starts_with("rw") || (start..end).contains(&own) {
                continue;
            }
            // Pieces overlap by as much as a key needs to begin in one and end in the next, at multiples of eight bytes.
            for at in (start..end).step_by(piece.len() - 24) {
                let length = piece.len().min((end - at) as usize);
                if memory.read_exact_at(&mut piece[..length], at).is_ok() {
                    found += piece[..length].windows(32).step_by(8).filter(|window| is_key(window)).count();
                }
            }
        }
        found
    }

    /// The schedule of a key begins with the key where the processor has instructions for AES.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn a_dropped_key_is_not_left_on_the_heap() {
        let turned: [u8; 32] = crate::random::Random::system().bytes().unwrap();
        let aes = Aes::new(&zeroize::Zeroizing::new(turned.map(|byte| !byte)));
        assert_eq!(occurrences(&turned), 1, "where it is in use");
        drop(aes);
        assert_eq!(occurrences(&turned), 0);
    }
}
