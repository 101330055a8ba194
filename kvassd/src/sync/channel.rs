//! The encrypted channel of sync: `Noise_NNpsk0_25519_AESGCM_SHA256` (Noise Protocol Framework, revision 34).
//!
//! Pure: bytes in, bytes out. One message each way opens a channel between two ends that hold the account's sync key;
//! then each side seals frames for the other, which open only in the order in which they were sealed. What passes by is
//! of no use to somebody without the key, nor to somebody who gets the key later. docs/protocol.md has the bytes.

mod handshake;
mod primitives;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::sync::Arc;

use snow::{HandshakeState, StatelessTransportState};

pub use self::handshake::{FIRST_MAX, Initiator, REFUSAL, respond};
use crate::keys::AccountId;

/// Bytes by which a sealed frame is longer.
pub const TAG: usize = 16;

/// Bytes of the longest frame before sealing: a Noise message has at most 65,535.
pub const FRAME_MAX: usize = 65_535 - TAG;

/// Frames that one direction of a channel carries, 256 GiB at most: the more AES-GCM seals under one key, the smaller
/// its margin, and this keeps within what TLS allows (RFC 8446, section 5.5). A new channel has new keys.
pub const FRAMES_MAX: u64 = 1 << 22;

/// Why there is no channel, or no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The responder: this is not a first message.
    #[error("the peer's first message is not one of kvass")]
    Malformed,
    /// The responder: these versions were offered.
    #[error("no protocol version in common: the peer offers {0:?}")]
    NoCommonVersion(Vec<u8>),
    /// The responder has no such account.
    #[error("no account {} here", .0.fingerprint())]
    UnknownAccount(AccountId),
    /// The responder: a first message that the account's key does not open.
    #[error("the peer does not hold the key of account {}, or its message was changed on the way", .0.fingerprint())]
    WrongKey(AccountId),
    /// The initiator: the responder does not say which of these it is.
    #[error("the remote refuses: it has another key, or no protocol version in common")]
    Refused,
    /// The initiator: a reply that does not open.
    #[error("the remote's reply does not open: it is not a kvassd, or its message was changed on the way")]
    Reply,
    /// A frame that was changed, left out, repeated, moved, or is of another channel.
    #[error("a frame does not open")]
    Frame,
    /// More bytes than a frame holds.
    #[error("a frame of {0} bytes is longer than {FRAME_MAX}")]
    TooLong(usize),
    /// The channel has carried what it may.
    #[error("the channel has carried {FRAMES_MAX} frames")]
    Exhausted,
    /// No key could be made.
    #[error("the system has no randomness to give")]
    Random,
}

impl ChannelError {
    /// Whether the same two programs with the same keys would fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoCommonVersion(_) | Self::UnknownAccount(_) | Self::WrongKey(_) | Self::Refused => true,
            Self::Malformed | Self::Reply | Self::Frame | Self::TooLong(_) | Self::Exhausted | Self::Random => false,
        }
    }
}

/// An open channel.
pub struct Channel {
    noise: StatelessTransportState,
    binding: [u8; 32],
    versions: Vec<u8>,
    account: AccountId,
}

impl Channel {
    fn new(noise: HandshakeState, versions: Vec<u8>, account: AccountId) -> Self {
        let mut binding = [0; 32];
        binding.copy_from_slice(noise.get_handshake_hash());
        #[allow(clippy::expect_used, reason = "called after the last message of the pattern")]
        let noise = noise.into_stateless_transport_mode().expect("a finished handshake");
        Self { noise, binding, versions, account }
    }

    /// The versions that the peer may use. A responder has chosen the highest in common, and this is it alone; an
    /// initiator knows only what it offered, until the responder names the chosen one in the channel.
    #[must_use]
    pub fn versions(&self) -> &[u8] {
        &self.versions
    }

    /// The account whose key both ends have shown to hold.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// A value that the two ends of this channel share, and no other channel has. Not secret.
    #[must_use]
    pub fn binding(&self) -> &[u8; 32] {
        &self.binding
    }

    /// The two directions, which two tasks may use without waiting for each other.
    #[must_use]
    pub fn split(self) -> (Sealer, Opener) {
        let noise = Arc::new(self.noise);
        (Sealer { noise: Arc::clone(&noise), count: 0 }, Opener { noise, count: 0, failed: false })
    }
}

/// The sending direction of a channel.
pub struct Sealer {
    noise: Arc<StatelessTransportState>,
    count: u64,
}

impl Sealer {
    /// Seals the next frame. What it gives must reach the peer whole, once, and in this order.
    ///
    /// # Errors
    /// More than [`FRAME_MAX`] bytes, after which the next frame may follow; or the end of the channel.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, ChannelError> {
        if plaintext.len() > FRAME_MAX {
            return Err(ChannelError::TooLong(plaintext.len()));
        }
        let number = next(&mut self.count)?;
        let mut frame = vec![0; plaintext.len() + TAG];
        self.noise.write_message(number, plaintext, &mut frame).map_err(|_| ChannelError::Exhausted)?;
        Ok(frame)
    }
}

/// The receiving direction of a channel.
pub struct Opener {
    noise: Arc<StatelessTransportState>,
    count: u64,
    failed: bool,
}

impl Opener {
    /// Opens the next frame.
    ///
    /// # Errors
    /// A frame that is not the next one of the peer, or the end of the channel. Nothing opens after an error.
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, ChannelError> {
        if self.failed {
            return Err(ChannelError::Frame);
        }
        let opened = self.open_next(frame);
        self.failed = opened.is_err();
        opened
    }

    fn open_next(&mut self, frame: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let number = next(&mut self.count)?;
        let mut plaintext = vec![0; frame.len().min(FRAME_MAX + TAG).saturating_sub(TAG)];
        self.noise.read_message(number, frame, &mut plaintext).map_err(|_| ChannelError::Frame)?;
        Ok(plaintext)
    }
}

fn next(count: &mut u64) -> Result<u64, ChannelError> {
    let number = *count;
    if number == FRAMES_MAX {
        return Err(ChannelError::Exhausted);
    }
    *count += 1;
    Ok(number)
}
