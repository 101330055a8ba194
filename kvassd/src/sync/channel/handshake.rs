//! The two messages that open a channel.

use snow::{Builder, HandshakeState};

use super::primitives::Primitives;
use super::{Channel, ChannelError};
use crate::keys::{AccountId, SyncKey};
use crate::random::Random;

/// What a responder sends in place of its message when it refuses, whatever the reason. A stranger must not learn from
/// it whether an account exists.
pub const REFUSAL: &[u8] = &[0];

/// Bytes of the longest first message that parses; a longer one need not be read.
pub const FIRST_MAX: usize = 2 + u8::MAX as usize + ACCOUNT + NOISE;

/// The protocol versions that this program speaks.
const VERSIONS: &[u8] = &[1];

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// The first byte of a first message. Another one means another layout.
const FORMAT: u8 = b'k';

/// Bytes of an account id.
const ACCOUNT: usize = 16;

/// Bytes of either Noise message: an ephemeral key, and the tag of an empty payload.
const NOISE: usize = 32 + super::TAG;

/// The end that opens a channel, between its message and the reply.
pub struct Initiator {
    noise: HandshakeState,
    account: AccountId,
    versions: Vec<u8>,
}

impl Initiator {
    /// Begins a handshake: the second value is the first message.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn start(key: &SyncKey, random: &Random) -> Result<(Self, Vec<u8>), ChannelError> {
        Self::offer(key, VERSIONS, random)
    }

    pub(super) fn offer(key: &SyncKey, versions: &[u8], random: &Random) -> Result<(Self, Vec<u8>), ChannelError> {
        let account = key.account();
        let mut message = clear(versions, account);
        let length = message.len();
        message.resize(length + NOISE, 0);
        let mut noise = noise(Builder::build_initiator, key, &prologue(versions, account), random);
        noise.write_message(&[], &mut message[length..]).map_err(|_| ChannelError::Random)?;
        Ok((Self { noise, account, versions: versions.to_vec() }, message))
    }

    /// Ends the handshake with the responder's reply.
    ///
    /// # Errors
    /// A refusal, or a reply that nobody with the key made for this handshake.
    pub fn finish(mut self, reply: &[u8]) -> Result<Channel, ChannelError> {
        if reply == REFUSAL {
            return Err(ChannelError::Refused);
        }
        self.noise.read_message(reply, &mut []).map_err(|_| ChannelError::Reply)?;
        Ok(Channel::new(self.noise, self.versions, self.account))
    }
}

/// Answers a first message: gives the reply to send and the channel. On an error, [`REFUSAL`] is what to send.
///
/// `lookup` finds the key of an account, `None` where there is no such account. That case costs as much as a wrong key.
/// A first message can be a recording: the peer has shown that it holds the key once its first frame opens, and until
/// then nothing may be changed that is stored, and no other session ended.
///
/// # Errors
/// What was wrong, for the log only.
pub fn respond(
    message: &[u8],
    random: &Random,
    lookup: impl FnOnce(AccountId) -> Option<SyncKey>,
) -> Result<(Vec<u8>, Channel), ChannelError> {
    answer(message, VERSIONS, random, lookup)
}

pub(super) fn answer(
    message: &[u8],
    versions: &[u8],
    random: &Random,
    lookup: impl FnOnce(AccountId) -> Option<SyncKey>,
) -> Result<(Vec<u8>, Channel), ChannelError> {
    let first = First::parse(message).ok_or(ChannelError::Malformed)?;
    let version = first.highest_in_common(versions)?;
    let found = lookup(first.account);
    let stranger = found.is_none();
    // The same work for an account that is not there, so that the time of a refusal does not tell.
    let key = found.unwrap_or_else(|| SyncKey::new([0; 32]));
    let mut noise = noise(Builder::build_responder, &key, &prologue(first.versions, first.account), random);
    let opened = noise.read_message(first.noise, &mut []);
    if stranger {
        return Err(ChannelError::UnknownAccount(first.account));
    }
    opened.map_err(|_| ChannelError::WrongKey(first.account))?;
    let mut reply = vec![0; NOISE];
    noise.write_message(&[], &mut reply).map_err(|error| match error {
        snow::Error::Rng => ChannelError::Random,
        _ => ChannelError::Malformed,
    })?;
    Ok((reply, Channel::new(noise, vec![version], first.account)))
}

/// A first message in its parts.
struct First<'a> {
    versions: &'a [u8],
    account: AccountId,
    noise: &'a [u8; NOISE],
}

impl<'a> First<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let (&[format, count], rest) = message.split_first_chunk()?;
        let (versions, rest) = rest.split_at_checked(count.into())?;
        let (account, noise) = rest.split_first_chunk::<ACCOUNT>()?;
        let noise = noise.try_into().ok()?;
        (format == FORMAT).then_some(Self { versions, account: AccountId(*account), noise })
    }

    fn highest_in_common(&self, versions: &[u8]) -> Result<u8, ChannelError> {
        let common = self.versions.iter().filter(|version| versions.contains(version)).max();
        common.copied().ok_or_else(|| ChannelError::NoCommonVersion(self.versions.to_vec()))
    }
}

/// The part of a first message that everybody can read.
fn clear(versions: &[u8], account: AccountId) -> Vec<u8> {
    let count = versions.len() as u8;
    [&[FORMAT, count], versions, &account.0].concat()
}

/// Binds the clear part to the handshake: a label and the parts, each behind its length, so that bytes cannot move from
/// one part to the next.
fn prologue(versions: &[u8], account: AccountId) -> Vec<u8> {
    let parts: [&[u8]; 4] = [b"kvass v1 channel", &[FORMAT], versions, &account.0];
    parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes(), *part].concat()).collect()
}

fn noise<'a>(
    build: fn(Builder<'a>) -> Result<HandshakeState, snow::Error>,
    key: &'a SyncKey,
    prologue: &'a [u8],
    random: &Random,
) -> HandshakeState {
    let built = PATTERN.parse().and_then(|pattern| {
        let builder = Builder::with_resolver(pattern, Box::new(Primitives(random.clone())));
        build(builder.psk(0, key.as_bytes())?.prologue(prologue)?)
    });
    #[allow(clippy::expect_used, reason = "the pattern is constant, and all that it needs is given")]
    built.expect("a pattern with its primitives and its key")
}
