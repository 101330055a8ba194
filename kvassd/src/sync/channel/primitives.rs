//! The primitives of the channel, by the crates that seal records and values too.
//!
//! snow is the Noise state machine and nothing else: with its own resolver it would bring a second, slower AES-GCM, a
//! second SHA-256, and BLAKE2.

use sha2::{Digest, Sha256};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{self, Cipher, Dh, Hash};
use x25519_dalek::{PublicKey, StaticSecret};

use super::TAG;
use crate::aes::Aes;
use crate::random::Random;

/// Gives snow the primitives of `Noise_NNpsk0_25519_AESGCM_SHA256`, and no other.
pub(super) struct Primitives(pub(super) Random);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn types::Random>> {
        Some(Box::new(Source(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::new([0; 32])) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Hasher(Sha256::new())) as _)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as _)
    }
}

struct Source(Random);

impl types::Random for Source {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes).map_err(|_| Error::Rng)
    }
}

/// A key pair of X25519 (RFC 7748). The secret is zeroized when it is dropped.
struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn new(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        Self { public: PublicKey::from(&secret), secret }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        #[allow(clippy::expect_used, reason = "snow passes as many bytes as priv_len says")]
        let secret = secret.try_into().expect("32 bytes");
        *self = Self::new(secret);
    }

    fn generate(&mut self, random: &mut dyn types::Random) -> Result<(), Error> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        random.try_fill_bytes(secret.as_mut_slice())?;
        *self = Self::new(*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// Refuses a public key that would make the result the same for every secret (RFC 7748, section 6.1).
    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), Error> {
        let public = *public.first_chunk::<32>().ok_or(Error::Dh)?;
        let secret = self.secret.diffie_hellman(&PublicKey::from(public));
        if !secret.was_contributory() {
            return Err(Error::Dh);
        }
        shared[..32].copy_from_slice(secret.as_bytes());
        Ok(())
    }
}

struct Hasher(Sha256);

impl Hash for Hasher {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        Digest::reset(&mut self.0);
    }

    fn input(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn result(&mut self, hash: &mut [u8]) {
        hash[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

/// AES-256-GCM with Noise's nonces: four zero bytes and the number of the message, big endian.
struct AesGcm(Option<Aes>);

impl AesGcm {
    fn keyed(&self) -> &Aes {
        #[allow(clippy::expect_used, reason = "snow refuses to use a cipher before it has set a key")]
        self.0.as_ref().expect("a key")
    }
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Some(Aes::new(key));
    }

    fn encrypt(&self, number: u64, associated: &[u8], plaintext: &[u8], sealed: &mut [u8]) -> usize {
        let (body, rest) = sealed.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = self.keyed().seal(nonce(number), associated, body);
        rest[..TAG].copy_from_slice(&tag);
        plaintext.len() + TAG
    }

    fn decrypt(&self, number: u64, associated: &[u8], sealed: &[u8], opened: &mut [u8]) -> Result<usize, Error> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let opened = opened.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        opened.copy_from_slice(body);
        self.keyed().open(nonce(number), associated, opened, *tag).map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_that_fixes_the_result_is_refused() {
        let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        let mut public = [0; 32];
        let own = X25519::new([7; 32]);
        assert_eq!(own.dh(&public, &mut [0; 32]), Err(Error::Dh));
        assert!(crate::keys::decode_hex(order_8, &mut public));
        assert_eq!(own.dh(&public, &mut [0; 32]), Err(Error::Dh));
        assert_eq!(own.dh(&public[..31], &mut [0; 32]), Err(Error::Dh));
        assert_eq!(own.dh(X25519::new([8; 32]).pubkey(), &mut [0; 32]), Ok(()));
    }

    #[test]
    fn other_primitives_are_not_there() {
        let primitives = Primitives(Random::system());
        assert!(primitives.resolve_dh(&DHChoice::Curve448).is_none());
        assert!(primitives.resolve_hash(&HashChoice::SHA512).is_none());
        assert!(primitives.resolve_hash(&HashChoice::Blake2s).is_none());
        assert!(primitives.resolve_cipher(&CipherChoice::ChaChaPoly).is_none());
    }
}
