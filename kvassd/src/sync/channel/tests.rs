//! What a channel promises, and what it refuses.

use std::sync::mpsc;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::handshake::answer;
use super::*;
use crate::keys::SyncKey;
use crate::random::{self, Random};

fn key(byte: u8) -> SyncKey {
    SyncKey::new([byte; 32])
}

fn start(key: &SyncKey) -> (Initiator, Vec<u8>) {
    Initiator::start(key, &Random::system()).unwrap()
}

/// The two ends of a channel.
fn pair() -> (Channel, Channel) {
    let (initiator, first) = start(&key(1));
    let (reply, responder) =
        respond(&first, &Random::system(), |account| (account == key(1).account()).then(|| key(1))).unwrap();
    (initiator.finish(&reply).unwrap(), responder)
}

/// One direction of a channel, from the initiator.
fn direction() -> (Sealer, Opener) {
    let (initiator, responder) = pair();
    (initiator.split().0, responder.split().1)
}

fn flip(bytes: &[u8], bit: Index) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let bit = bit.index(8 * bytes.len());
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// Why there was no channel.
fn refused<T>(result: Result<T, ChannelError>) -> ChannelError {
    result.err().unwrap()
}

mod agreement {
    use super::*;

    #[test]
    fn both_sides_share_one_channel_and_no_other_has_its_binding() {
        let (initiator, responder) = pair();
        assert_eq!(initiator.binding(), responder.binding());
        assert_ne!(initiator.binding(), pair().0.binding());
        assert_eq!((initiator.versions(), responder.versions()), (&[1][..], &[1][..]));
    }

    #[test]
    fn the_highest_version_in_common_is_taken() {
        let common = |offered: &[u8], spoken: &[u8]| {
            let (initiator, first) = Initiator::offer(&key(1), offered, &Random::system()).unwrap();
            let (reply, responder) = answer(&first, spoken, &Random::system(), |_| Some(key(1)))?;
            let initiator = initiator.finish(&reply)?;
            assert_eq!(initiator.versions(), offered);
            assert_eq!(initiator.binding(), responder.binding());
            Ok(responder.versions().to_vec())
        };
        assert_eq!(common(&[1, 2, 3], &[2, 1]), Ok(vec![2]));
        assert_eq!(common(&[9, 2, 1], &[1, 2, 3]), Ok(vec![2]));
        assert_eq!(common(&[1], &[1, 2]), Ok(vec![1]));
        assert_eq!(common(&[3, 4], &[1, 2]), Err(ChannelError::NoCommonVersion(vec![3, 4])));
        assert_eq!(common(&[], &[1]), Err(ChannelError::NoCommonVersion(vec![])));
        let all: Vec<u8> = (0..=254).collect();
        assert_eq!(common(&all, &[1]), Ok(vec![1]));
    }

    #[test]
    fn the_longest_first_message_has_its_length() {
        let all: Vec<u8> = (0..=254).collect();
        let (_, first) = Initiator::offer(&key(1), &all, &Random::system()).unwrap();
        assert_eq!(first.len(), FIRST_MAX);
    }

    #[test]
    fn both_directions_work_at_once_on_threads_of_their_own() {
        let (initiator, responder) = pair();
        let ((to_responder, from_responder), (to_initiator, from_initiator)) = (initiator.split(), responder.split());
        let send = |mut sealer: Sealer, frames: mpsc::Sender<Vec<u8>>| {
            (0..500u32).for_each(|number| frames.send(sealer.seal(&number.to_be_bytes()).unwrap()).unwrap());
        };
        let receive = |mut opener: Opener, frames: mpsc::Receiver<Vec<u8>>| {
            frames.iter().map(|frame| u32::from_be_bytes(opener.open(&frame).unwrap().try_into().unwrap())).collect()
        };
        let ((a, b), (c, d)) = (mpsc::channel(), mpsc::channel());
        let received: [Vec<u32>; 2] = thread::scope(|scope| {
            scope.spawn(move || send(to_responder, a));
            scope.spawn(move || send(to_initiator, c));
            let threads =
                [scope.spawn(move || receive(from_initiator, b)), scope.spawn(move || receive(from_responder, d))];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(received, [(0..500).collect::<Vec<_>>(), (0..500).collect()]);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_whatever_the_other_direction_does(
            frames in vec((any::<bool>(), vec(any::<u8>(), 0..300)), 0..20)
        ) {
            let (initiator, responder) = pair();
            let (mut ours, mut theirs) = (initiator.split(), responder.split());
            for (outward, plaintext) in frames {
                let (sealer, opener) =
                    if outward { (&mut ours.0, &mut theirs.1) } else { (&mut theirs.0, &mut ours.1) };
                let frame = sealer.seal(&plaintext)?;
                prop_assert_eq!(frame.len(), plaintext.len() + TAG);
                prop_assert_eq!(opener.open(&frame), Ok(plaintext));
            }
        }
    }
}

mod refusal {
    use super::*;

    #[test]
    fn another_key_is_refused() {
        let (_, first) = start(&key(1));
        assert_eq!(
            refused(respond(&first, &Random::system(), |_| Some(key(2)))),
            ChannelError::WrongKey(key(1).account())
        );
    }

    #[test]
    fn an_unknown_account_is_refused_even_with_the_key_that_stands_in_for_it() {
        for byte in [0, 1] {
            let (_, first) = start(&key(byte));
            assert_eq!(
                refused(respond(&first, &Random::system(), |_| None)),
                ChannelError::UnknownAccount(key(byte).account())
            );
        }
    }

    #[test]
    fn a_first_message_is_of_its_account_alone() {
        let (_, mut first) = start(&key(1));
        first[3..19].copy_from_slice(&key(2).account().0);
        let other = ChannelError::WrongKey(key(2).account());
        assert_eq!(refused(respond(&first, &Random::system(), |_| Some(key(1)))), other);
        assert_eq!(refused(respond(&first, &Random::system(), |_| Some(key(2)))), other);
    }

    #[test]
    fn a_version_taken_out_on_the_way_is_noticed() {
        let (_, first) = Initiator::offer(&key(1), &[1, 2], &Random::system()).unwrap();
        let lesser = [&[first[0], 1, 1], &first[4..]].concat();
        let answered = answer(&lesser, &[1, 2], &Random::system(), |_| Some(key(1)));
        assert_eq!(refused(answered), ChannelError::WrongKey(key(1).account()));
    }

    #[test]
    fn a_refusal_gives_no_reason_and_is_permanent() {
        let (initiator, _) = start(&key(1));
        let error = refused(initiator.finish(REFUSAL));
        assert_eq!(error, ChannelError::Refused);
        assert!(error.is_permanent());
    }

    #[test]
    fn only_what_the_same_keys_and_programs_cannot_mend_is_permanent() {
        let account = key(1).account();
        for error in [ChannelError::NoCommonVersion(vec![2]), ChannelError::UnknownAccount(account)] {
            assert!(error.is_permanent(), "{error}");
        }
        assert!(ChannelError::WrongKey(account).is_permanent());
        for error in [ChannelError::Malformed, ChannelError::Reply, ChannelError::Frame, ChannelError::Exhausted] {
            assert!(!error.is_permanent(), "{error}");
        }
        assert!(!ChannelError::TooLong(1).is_permanent());
        assert!(!ChannelError::Random.is_permanent());
    }

    #[test]
    fn no_key_is_made_without_randomness() {
        let started = Initiator::offer(&key(1), &[1], &Random::new(|_| Err(random::Error::UNSUPPORTED)));
        assert_eq!(refused(started), ChannelError::Random);
        let (_, first) = start(&key(1));
        let answered = answer(&first, &[1], &Random::new(|_| Err(random::Error::UNSUPPORTED)), |_| Some(key(1)));
        assert_eq!(refused(answered), ChannelError::Random);
    }

    #[test]
    fn a_first_message_of_another_length_is_malformed() {
        let (_, first) = start(&key(1));
        let longer = [&first[..], &[0]].concat();
        let shorter = (0..first.len()).map(|length| &first[..length]);
        for message in shorter.chain([&longer[..]]) {
            let error = refused(respond(message, &Random::system(), |_| Some(key(1))));
            assert_eq!(error, ChannelError::Malformed, "{} bytes", message.len());
        }
    }

    #[test]
    fn a_reply_cut_short_or_prolonged_is_refused() {
        let reply = |first: &[u8]| respond(first, &Random::system(), |_| Some(key(1))).unwrap().0;
        for length in 0..50 {
            let (initiator, first) = start(&key(1));
            let mut reply = reply(&first);
            reply.resize(length, 0);
            assert_eq!(initiator.finish(&reply).is_ok(), length == 48, "{length}");
        }
    }

    #[test]
    fn a_first_message_sent_back_is_no_reply() {
        for cut in [0, 19] {
            let (initiator, first) = start(&key(1));
            assert_eq!(refused(initiator.finish(&first[cut..])), ChannelError::Reply);
        }
    }

    proptest! {
        #[test]
        fn a_bit_flipped_in_the_first_message_is_refused(bit in any::<Index>()) {
            let (_, first) = start(&key(1));
            prop_assert!(respond(&flip(&first, bit), &Random::system(), |_| Some(key(1))).is_err());
        }

        #[test]
        fn a_bit_flipped_in_the_reply_is_refused(bit in any::<Index>()) {
            let (initiator, first) = start(&key(1));
            let (reply, _) = respond(&first, &Random::system(), |_| Some(key(1)))?;
            prop_assert_eq!(refused(initiator.finish(&flip(&reply, bit))), ChannelError::Reply);
        }

        #[test]
        fn random_bytes_open_no_channel(message in vec(any::<u8>(), 0..400), tail in vec(any::<u8>(), 0..400)) {
            let shaped = [&b"k\x01\x01"[..], &key(1).account().0, &tail].concat();
            for bytes in [message, shaped] {
                prop_assert!(respond(&bytes, &Random::system(), |_| Some(key(1))).is_err());
                prop_assert!(respond(&bytes, &Random::system(), |_| None).is_err());
                prop_assert!(start(&key(1)).0.finish(&bytes).is_err());
            }
        }
    }
}

mod replay {
    use super::*;

    #[test]
    fn a_recorded_session_says_nothing_to_a_new_responder() {
        let (initiator, first) = start(&key(1));
        let (reply, _) = respond(&first, &Random::system(), |_| Some(key(1))).unwrap();
        let (mut sealer, _) = initiator.finish(&reply).unwrap().split();
        let frames = [sealer.seal(b"hello").unwrap(), sealer.seal(b"again").unwrap()];
        let (other_reply, responder) = respond(&first, &Random::system(), |_| Some(key(1))).unwrap();
        assert_ne!(reply, other_reply);
        let (_, mut opener) = responder.split();
        assert!(frames.iter().all(|frame| opener.open(frame) == Err(ChannelError::Frame)));
    }

    #[test]
    fn a_recorded_reply_is_not_one_to_a_new_initiator() {
        let (_, first) = start(&key(1));
        let (reply, _) = respond(&first, &Random::system(), |_| Some(key(1))).unwrap();
        assert_eq!(refused(start(&key(1)).0.finish(&reply)), ChannelError::Reply);
    }

    #[test]
    fn a_frame_sent_back_to_its_sender_does_not_open() {
        let (initiator, responder) = pair();
        for (mut sealer, mut opener) in [initiator.split(), responder.split()] {
            assert_eq!(opener.open(&sealer.seal(b"hello").unwrap()), Err(ChannelError::Frame));
        }
    }
}

mod frames {
    use super::*;

    /// Nothing opens after a failure: not the frame that would have been right, and not the one after it.
    fn ends(mut opener: Opener, wrong: &[u8], right: [&[u8]; 2]) {
        assert_eq!(opener.open(wrong), Err(ChannelError::Frame));
        assert!(right.iter().all(|frame| opener.open(frame) == Err(ChannelError::Frame)));
    }

    /// A receiver that has opened one frame, that frame, and the three after it.
    fn opened_one() -> (Opener, [Vec<u8>; 4]) {
        let (mut sealer, mut opener) = direction();
        let frames = [b"0", b"1", b"2", b"3"].map(|plaintext| sealer.seal(plaintext).unwrap());
        assert_eq!(opener.open(&frames[0]), Ok(b"0".to_vec()));
        (opener, frames)
    }

    #[test]
    fn a_frame_before_its_turn_or_after_a_lost_one_ends_the_channel() {
        for early in [2, 3] {
            let (opener, frames) = opened_one();
            ends(opener, &frames[early], [&frames[1], &frames[2]]);
        }
    }

    #[test]
    fn a_repeated_frame_ends_the_channel() {
        let (opener, frames) = opened_one();
        ends(opener, &frames[0], [&frames[1], &frames[2]]);
    }

    #[test]
    fn a_frame_of_another_channel_ends_this_one() {
        let (opener, frames) = opened_one();
        let (_, others) = opened_one();
        ends(opener, &others[1], [&frames[1], &frames[2]]);
    }

    #[test]
    fn a_frame_longer_than_allowed_is_not_sealed_and_not_opened() {
        let (mut sealer, mut opener) = direction();
        let longest = vec![7; FRAME_MAX];
        assert_eq!(sealer.seal(&[&longest[..], &[7]].concat()), Err(ChannelError::TooLong(FRAME_MAX + 1)));
        let frames = [(); 3].map(|()| sealer.seal(&longest).unwrap());
        assert_eq!(frames[0].len(), 65_535);
        assert_eq!(opener.open(&frames[0]), Ok(longest));
        ends(opener, &[&frames[1][..], &[0]].concat(), [&frames[1], &frames[2]]);
    }

    #[test]
    fn a_direction_ends_with_its_last_frame() {
        let (mut sealer, mut opener) = direction();
        (sealer.count, opener.count) = (FRAMES_MAX - 1, FRAMES_MAX - 1);
        let last = sealer.seal(b"last").unwrap();
        assert_eq!(sealer.seal(b"more"), Err(ChannelError::Exhausted));
        assert_eq!(opener.open(&last), Ok(b"last".to_vec()));
        assert_eq!(opener.open(&last), Err(ChannelError::Exhausted));
        assert_eq!(opener.open(&last), Err(ChannelError::Frame));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_ends_the_channel(plaintext in vec(any::<u8>(), 0..300), bit in any::<Index>()) {
            let (mut sealer, opener) = direction();
            let (frame, next) = (sealer.seal(&plaintext)?, sealer.seal(b"next")?);
            ends(opener, &flip(&frame, bit), [&frame, &next]);
        }

        #[test]
        fn a_frame_of_another_length_ends_the_channel(plaintext in vec(any::<u8>(), 0..300), length in any::<Index>()) {
            let (mut sealer, opener) = direction();
            let (frame, next) = (sealer.seal(&plaintext)?, sealer.seal(b"next")?);
            let mut other = frame.clone();
            other.resize(length.index(frame.len() + 20), 0);
            prop_assume!(other.len() != frame.len());
            ends(opener, &other, [&frame, &next]);
        }

        #[test]
        fn random_bytes_end_the_channel(frame in vec(any::<u8>(), 0..70_000)) {
            let (mut sealer, opener) = direction();
            ends(opener, &frame, [&sealer.seal(b"hello")?, &sealer.seal(b"next")?]);
        }
    }
}
