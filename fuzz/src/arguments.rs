//! Command lines and environments of both programs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The variables that the daemon reads.
const VARIABLES: [&str; 12] = [
    "KVASS_DB",
    "KVASS_SOCKET",
    "KVASS_LOG",
    "KVASS_VALUE_MAX",
    "KVASS_RESERVE",
    "KVASS_KEY_FILE",
    "KVASS_SERVER",
    "KVASS_BIND",
    "KVASS_TLS_CERT",
    "KVASS_TLS_KEY",
    "KVASS_CONNECTIONS",
    "KVASS_PROXY",
];

/// Reads words, each on a line. The first byte says for which program they are; of the daemon's words those that begin
/// with `@` and a letter are variables.
pub fn arguments(bytes: &[u8]) {
    let Some((&program, rest)) = bytes.split_first() else { return };
    let words = rest.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).to_owned());
    if program % 2 == 0 {
        let words: Vec<OsString> = std::iter::once("kvass".into()).chain(words).collect();
        kvass_cli::fuzz::arguments(&words);
        return;
    }
    let (mut arguments, mut variables) = (vec![OsString::from("kvassd")], Vec::new());
    for word in words {
        match word.as_bytes() {
            [b'@', which, value @ ..] => {
                let name = VARIABLES[usize::from(*which) % VARIABLES.len()];
                variables.push((name, OsStr::from_bytes(value).to_owned()));
            }
            _ => arguments.push(word),
        }
    }
    let environment = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone());
    kvassd::fuzz::arguments(arguments, &environment);
}
