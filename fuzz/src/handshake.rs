//! What a stranger, or somebody on the way, can send before and after a channel is open.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use kvassd::keys::SyncKey;
use kvassd::random::Random;
use kvassd::sync::channel::{Channel, ChannelError, FRAME_MAX, Initiator, REFUSAL, TAG, respond};

use crate::{flip, key};

/// What becomes of bytes on the way.
#[derive(Arbitrary, Debug)]
enum Way {
    Unchanged,
    Flip(u16),
    Cut(u8),
    Append(Vec<u8>),
    Replace(Vec<u8>),
    /// Others of the same kind: from another channel, or an earlier or later frame.
    Other(u8),
}

#[derive(Arbitrary, Debug)]
struct Meeting {
    first: Way,
    is_stranger: bool,
    reply: Way,
    /// Frames of either side: whose, their contents, and what becomes of them.
    frames: Vec<(bool, Vec<u8>, Way)>,
}

/// A random source that gives the same bytes each time.
fn random(seed: u8) -> Random {
    Random::new(move |bytes| {
        bytes.fill(seed);
        Ok(())
    })
}

static KEY: LazyLock<SyncKey> = LazyLock::new(|| SyncKey::derive(&key()));

/// A first message and a reply of other channels, which are valid elsewhere.
static ELSEWHERE: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (_, first) = Initiator::start(&KEY, &random(9)).expect("randomness");
    let (reply, _) = respond(&first, &random(8), |_| Some(KEY.clone())).expect("a first message");
    (first, reply)
});

/// A handshake that is meddled with, then frames that are.
pub fn handshake(bytes: &[u8]) {
    let Ok(meeting) = Meeting::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let (initiator, first) = Initiator::start(&KEY, &random(1)).expect("randomness");
    let arrived = carried(&first, &meeting.first, &ELSEWHERE.0);
    let lookup = |account| (account == KEY.account() && !meeting.is_stranger).then(|| KEY.clone());
    match respond(&arrived, &random(2), lookup) {
        Ok((reply, responder)) => {
            let is_replay = arrived == ELSEWHERE.0;
            assert!(arrived == first || is_replay, "a first message that nobody with the key made");
            assert!(!meeting.is_stranger);
            assert_eq!(responder.versions(), [1]);
            let arrived = carried(&reply, &meeting.reply, &ELSEWHERE.1);
            match initiator.finish(&arrived) {
                Ok(channel) => {
                    assert!(arrived == reply && !is_replay, "a reply to another message");
                    assert_eq!(channel.binding(), responder.binding());
                    exchange(channel, responder, meeting.frames);
                }
                Err(error) => assert!(arrived != reply || is_replay, "{error}"),
            }
        }
        Err(error) => {
            assert!(arrived != first || meeting.is_stranger, "{error}");
            assert!(matches!(initiator.finish(REFUSAL), Err(ChannelError::Refused)));
        }
    }
}

/// In each direction frames open until the first that is not the next one, and none after it.
fn exchange(initiator: Channel, responder: Channel, frames: Vec<(bool, Vec<u8>, Way)>) {
    let ((mut to_responder, mut at_initiator), (mut to_initiator, mut at_responder)) =
        (initiator.split(), responder.split());
    let mut failed = [false; 2];
    let mut before = vec![0; TAG];
    for (is_back, plain, way) in frames {
        let (sealer, opener) =
            if is_back { (&mut to_initiator, &mut at_initiator) } else { (&mut to_responder, &mut at_responder) };
        let Ok(sealed) = sealer.seal(&plain) else {
            assert!(plain.len() > FRAME_MAX);
            continue;
        };
        let arrived = carried(&sealed, &way, &before);
        let failed = &mut failed[usize::from(is_back)];
        match opener.open(&arrived) {
            Ok(opened) => {
                assert!(!*failed, "a frame opens after one that did not");
                assert!(arrived == sealed && opened == plain, "a frame that was not sealed");
            }
            Err(_) => {
                assert!(*failed || arrived != sealed, "a frame does not open");
                *failed = true;
            }
        }
        before = sealed;
    }
}

fn carried(bytes: &[u8], way: &Way, other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match way {
        Way::Unchanged => {}
        Way::Flip(bit) => flip(&mut bytes, (*bit).into()),
        Way::Cut(length) => bytes.truncate(bytes.len().saturating_sub(1 + usize::from(*length))),
        Way::Append(more) => bytes.extend_from_slice(more),
        Way::Replace(others) => bytes.clone_from(others),
        Way::Other(from) => {
            let from = usize::from(*from) % bytes.len();
            let end = bytes.len().min(other.len()).max(from);
            bytes.truncate(from);
            bytes.extend_from_slice(other.get(from..end).unwrap_or_default());
        }
    }
    bytes
}
