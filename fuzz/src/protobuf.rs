//! All messages, as any bytes; the first one says which.

use std::any::type_name;
use std::fmt::Debug;

use kvass_proto::v1;
use prost::Message;

/// Reads a message, writes it, and reads it again.
pub fn protobuf(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    match which % 8 {
        0 => round::<v1::Request>(bytes),
        1 => round::<v1::Reply>(bytes),
        2 => round::<v1::SyncFrame>(bytes),
        3 => round::<v1::Header>(bytes),
        4 => round::<v1::Grant>(bytes),
        5 => round::<v1::Log>(bytes),
        6 => round::<v1::LogRecord>(bytes),
        _ => round::<v1::Status>(bytes),
    }
}

fn round<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let written = message.encode_to_vec();
    assert_eq!(written.len(), message.encoded_len());
    let again = M::decode(written.as_slice());
    assert_eq!(again.as_ref(), Ok(&message), "{}", type_name::<M>());
    // What must not be shown is not, and what is shown does not panic.
    let _ = format!("{message:?}");
}
