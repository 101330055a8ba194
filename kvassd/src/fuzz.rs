//! What fuzzing reaches of the daemon beyond what tests do: readers of outside bytes that nothing else has to see.
//!
//! Exists only where the compiler is told `--cfg fuzzing`. Each of these ends by a panic where a law does not hold.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::accept::Proxies;
use crate::config::Config;
use crate::keys::{AccountId, Token};
use crate::local::connection;
use crate::local::state::{Identity, Serving, Shared, State};
use crate::network::Connect;
use crate::record::{Clear, Record, RecordId};
use crate::store::row::{self, RecordRow};
use crate::store::{Seq, Store, public_url};
use crate::sync::remote::Remote;
use crate::value;

/// Resolves a command line and an environment.
pub fn arguments(arguments: Vec<OsString>, environment: &dyn Fn(&str) -> Option<OsString>) {
    match Config::resolve(arguments, environment, None) {
        Ok(config) => {
            assert!(config.directory.is_absolute() && config.socket.is_absolute());
            assert!(config.options.value_max > 0);
        }
        Err(error) => {
            assert!(matches!(error.exit(), 0 | 2 | 3), "{error}");
            assert!(!error.to_string().is_empty() && !error.hint().contains('\n'));
        }
    }
}

/// Who asks, by the lines of `X-Forwarded-For`: an address that is trusted only where all are that are named behind it.
pub fn origin(proxies: &str, peer: IpAddr, lines: &[&[u8]]) {
    let Ok(proxies) = proxies.parse::<Proxies>() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append("x-forwarded-for", line);
    }
    let origin = proxies.origin(peer, &headers);
    assert!(origin == peer.to_canonical() || proxies != Proxies::default());
}

/// Reads a row of the index, as a repair does at each mark that it finds. What is read is written with the same bytes.
pub fn row(bytes: &[u8], account: AccountId) {
    if let Some((row, rest)) = RecordRow::decode_prefix(bytes) {
        let (own, sum) = (&bytes[..bytes.len() - rest.len()], 8);
        assert_eq!(row.encode(account)[..own.len() - sum], own[..own.len() - sum]);
        assert!(row.length() == own.len() && row.clear() == Clear::parse(&row.record.clear));
    }
    if let Some((hash, sealed)) = row::decode_value(bytes) {
        assert!(bytes.starts_with(&row::encode_value(hash, sealed)));
    }
    if let Some((id, count)) = row::decode_reads(bytes, account) {
        assert!(bytes.starts_with(&row::encode_reads(id, count, account)));
    }
    if let Some((id, via)) = row::decode_log(bytes) {
        assert_eq!(row::encode_log(id, via), bytes);
    }
    if let Some(state) = row::State::decode(bytes) {
        assert_eq!(state.encode(), bytes);
    }
    if let Some(tally) = row::Tally::decode(bytes) {
        assert_eq!(tally.encode(), bytes);
    }
}

/// A row of the index with the sum that it must have.
#[must_use]
pub fn record_row(record: Record, seq: u64, account: AccountId) -> Vec<u8> {
    RecordRow { seq: Seq(seq), record }.encode(account)
}

/// Seals any bytes in the place of a grant, as somebody could who has the token.
#[must_use]
pub fn grant(token: &Token, account: AccountId, plain: &[u8]) -> Vec<u8> {
    value::seal_short(&token.grant_key(account), plain)
}

/// Reads a public URL as a server says it.
pub fn public_url(text: &str) {
    let Some(url) = public_url::parse(text) else { return };
    assert_eq!(public_url::parse(&url).as_ref(), Some(&url));
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains(['?', '#']), "{url}");
}

/// Answers one client of the local socket from a store, as the daemon does. Remotes are looked for in `network`.
///
/// Needs a runtime of several threads.
pub async fn local(stream: UnixStream, store: Store, directory: PathBuf, network: Arc<dyn Connect>) {
    let stop = CancellationToken::new();
    let identity = Identity { directory, on_demand: false, arguments: Vec::new() };
    let shared = Arc::new(Shared::new(identity, stop.clone()));
    let remote = Remote::over(network, store.clone());
    shared.enter(State::Serving(Serving { store, remote, bind: String::new() }));
    let answered = connection(stream, Arc::clone(&shared));
    let stopped = async {
        stop.cancelled().await;
        // Nothing else is open.
        shared.enter(State::Stopped);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answered => {}
        () = stopped => {}
    }
}

/// A row that counts how often a link was read.
#[must_use]
pub fn reads_row(id: [u8; 16], count: u64, account: AccountId) -> Vec<u8> {
    row::encode_reads(RecordId(id), count, account)
}
