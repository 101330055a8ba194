//! Bytes that other programs made: a channel of another program is the same one.

use snow::Builder;

use super::handshake::answer;
use super::primitives::Primitives;
use super::*;
use crate::keys::{AccountId, EncryptionKey, Keys, decode_hex, encode_hex};
use crate::random::{self, Random};

fn bytes(digits: &str) -> Vec<u8> {
    let mut bytes = vec![0; digits.len() / 2];
    assert!(decode_hex(digits, &mut bytes));
    bytes
}

/// The two ends of a channel, which say what a vector has.
struct Ends {
    initiator: (Sealer, Opener),
    responder: (Sealer, Opener),
}

impl Ends {
    fn initiator_says(&mut self, plaintext: &[u8], frame: &str) {
        assert_eq!(encode_hex(&self.initiator.0.seal(plaintext).unwrap()), frame);
        assert_eq!(self.responder.1.open(&bytes(frame)), Ok(plaintext.to_vec()));
    }

    fn responder_says(&mut self, plaintext: &[u8], frame: &str) {
        assert_eq!(encode_hex(&self.responder.0.seal(plaintext).unwrap()), frame);
        assert_eq!(self.initiator.1.open(&bytes(frame)), Ok(plaintext.to_vec()));
    }
}

/// The public vector for this pattern by cacophony, an implementation in Haskell. Its prologue and payloads are not
/// those of kvass, so it shows that the primitives are right.
#[test]
fn the_pattern_gives_the_bytes_of_its_public_vector() {
    let psk = *b"This is my Austrian perspective!";
    let secrets = [
        bytes("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
        bytes("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
    ];
    let noise = |secret| {
        let pattern = "Noise_NNpsk0_25519_AESGCM_SHA256".parse().unwrap();
        let builder = Builder::with_resolver(pattern, Box::new(Primitives(Random::system())));
        let builder = builder.psk(0, &psk).unwrap().prologue(b"John Galt").unwrap();
        builder.fixed_ephemeral_key_for_testing_only(secret)
    };
    let mut initiator = noise(&secrets[0]).build_initiator().unwrap();
    let mut responder = noise(&secrets[1]).build_responder().unwrap();
    let messages = [
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
         7c37a89fc17813788d30df2d59501d6066f5f8aecc3406bbd9829f2d24a531b1",
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843\
         2f29d79368ef9de4e1ae7a362fb05bf0ad668e026bf5714554497b3a720461",
    ];
    pass(&mut initiator, &mut responder, b"Ludwig von Mises", messages[0]);
    pass(&mut responder, &mut initiator, b"Murray Rothbard", messages[1]);
    let [initiator, responder] = [initiator, responder].map(|noise| Channel::new(noise, vec![1], AccountId([0; 16])));
    let hash = "9f3b1f9afd7767767b5b9d1069844a6154fdbdcc36dfb3e31c0fffc5c973d530";
    assert_eq!(encode_hex(initiator.binding()), hash);
    assert_eq!(encode_hex(responder.binding()), hash);
    let mut ends = Ends { initiator: initiator.split(), responder: responder.split() };
    ends.initiator_says(b"F. A. Hayek", "7c01e898a6201f36aecee532e29cd0b7f8ffa29d3366ad0dce39a6");
    ends.responder_says(b"Carl Menger", "a9ff535aace3db6a1da1a7fb00fe2de2622bb373abad9fb42c00e0");
    ends.initiator_says(b"Jean-Baptiste Say", "6cfc49a3e65472edc2d0152abe5ce950170a8a47c959f30bd48b5f0aacf29adbfd");
    ends.responder_says(
        b"Eugen B\xf6hm von Bawerk",
        "9bc86e6d974ed21ba04604a94aa68de21677eb409ead070c0cd569b069ee19ba142aa4c1a9",
    );
}

fn pass(from: &mut HandshakeState, to: &mut HandshakeState, payload: &[u8], message: &str) {
    let (mut written, mut read) = (vec![0; message.len() / 2], vec![0; payload.len()]);
    assert_eq!(from.write_message(payload, &mut written), Ok(written.len()));
    assert_eq!(encode_hex(&written), message);
    assert_eq!(to.read_message(&written, &mut read), Ok(read.len()));
    assert_eq!(read, payload);
}

/// A whole channel of kvass, its clear part and prologue too: the vector of docs/protocol.md. Its bytes were made by two
/// other implementations, noiseprotocol 0.3 and dissononce 0.34 in Python, which agreed.
#[test]
fn a_channel_has_the_bytes_of_the_protocol() {
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let key = Keys::derive(&EncryptionKey::new(key)).sync_key().clone();
    let (initiator, first) = Initiator::offer(&key, &[1], &Random::new(|secret| count_from(0x20, secret))).unwrap();
    assert_eq!(
        encode_hex(&first),
        "6b010116f44ecd609764ec71a40848dc1e1017\
         358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd16625473bebc935a97921af29cb2049641112b"
    );
    let account = key.account();
    let answered = answer(&first, &[1], &Random::new(|secret| count_from(0x40, secret)), |asked| {
        (asked == account).then_some(key)
    });
    let (reply, responder) = answered.unwrap();
    assert_eq!(
        encode_hex(&reply),
        "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a4025b8c00dad50cb90f7e05b3636e51b"
    );
    let initiator = initiator.finish(&reply).unwrap();
    let binding = "eef82a3b96730f1b2dcdebe09998bc6b3ef55d3dcaa057a012e1044f19078f60";
    assert_eq!(encode_hex(initiator.binding()), binding);
    assert_eq!(encode_hex(responder.binding()), binding);
    let mut ends = Ends { initiator: initiator.split(), responder: responder.split() };
    ends.initiator_says(b"", "7d9d465c04be2983208ca7e956abd08d");
    ends.initiator_says(b"hello", "9f8cf64d31d03bb05c18054d109121a40f078abecd");
    ends.responder_says(b"kvass", "66211ab1585dbd766dee10532907aa623f44822cda");
    ends.responder_says(
        &std::array::from_fn::<u8, 40, _>(|at| at as u8),
        "e5fd1a340c4219236007d4de782a1fcd2192d74cc24c34a9\
         5321157d2f7519d5e846ed3776e93065d658a8ea2a87d9ec41cc71213e704125",
    );
    ends.initiator_says(b"again", "d38a05ccfa2c6f810f0140be123cb3bc4b10d95ab4");
}

fn count_from(first: u8, secret: &mut [u8]) -> Result<(), random::Error> {
    secret.iter_mut().zip(first..).for_each(|(byte, number)| *byte = number);
    Ok(())
}
