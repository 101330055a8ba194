//! What stands at the address of a remote, whatever that is.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use kvassd::keys::SyncKey;
use kvassd::sync::connect::{self, RemoteError, Trust, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::key;
use crate::place::random;
use crate::wire::{Frame, Towards};

/// How long anything may take, in simulated time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Arbitrary, Debug)]
struct Remote {
    url: Url,
    /// Whether it begins as a server of HTTP/2 does.
    has_settings: bool,
    says: Vec<Say>,
    stays: bool,
}

#[derive(Arbitrary, Debug)]
enum Url {
    Plain,
    Secure,
    Other(String),
}

#[derive(Arbitrary, Debug)]
enum Say {
    Frame(Frame),
    Bytes(Vec<u8>),
}

/// Connects to what says these bytes: nobody without the key is taken for a remote.
pub fn remote(bytes: &[u8]) {
    let Ok(remote) = Remote::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let mut said = Vec::new();
    if remote.has_settings {
        said.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    }
    for say in &remote.says {
        match say {
            Say::Frame(frame) => frame.write(&mut said),
            Say::Bytes(bytes) => said.extend_from_slice(bytes),
        }
    }
    let url = match &remote.url {
        Url::Plain => "http://server:8000",
        Url::Secure => "https://server:8000",
        Url::Other(url) => url,
    };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let (near, far) = duplex(1 << 16);
        tokio::spawn(stand(far, said, remote.stays));
        // No authorities: those of the system would be read each time.
        let way =
            Way { network: Arc::new(Towards(Mutex::new(Some(near)))), trust: Trust { file: Some("/dev/null".into()) } };
        let key = SyncKey::derive(&key());
        let opened = timeout(PATIENCE, connect::open(&way, &random(9), &key, url)).await.expect("an end");
        let error = opened.err().expect("nobody without the key");
        let _: (bool, &str, String) = (error.is_permanent(), error.hint(), error.to_string());
        assert!(!matches!(error, RemoteError::Silent(_)) || remote.stays, "{error}");
    });
}

async fn stand(mut wire: DuplexStream, said: Vec<u8>, stays: bool) {
    let (mut from, mut to) = tokio::io::split(&mut wire);
    let write = async {
        let _ = to.write_all(&said).await;
        if !stays {
            let _ = to.shutdown().await;
        }
    };
    let mut heard = Vec::new();
    let _ = tokio::join!(write, from.read_to_end(&mut heard));
}
