//! Joining another account: first a look at its remote, then key and remote together.

use std::time::Duration;

use kvass_proto::v1::{self, error::Code, reply::Reply};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::commands::{Exchange, stopping};
use super::failure::{Failure, message};
use crate::keys::EncryptionKey;
use crate::store::Difference;
use crate::sync::channel::ChannelError;
use crate::sync::remote::RemoteError;
use crate::sync::session::SessionError;

/// How often a client that waits for a preview is shown how far it is.
const SHOW: Duration = Duration::from_millis(200);

impl Exchange<'_, '_, '_> {
    /// Ends early where the client leaves or the daemon stops.
    pub(super) async fn preview(&mut self, preview: v1::Preview) -> Result<Reply, Failure> {
        let (key, remote, store) = (key(preview.key)?, self.remote.clone(), self.store.clone());
        let (seen, counted) = watch::channel(0);
        let show = async {
            loop {
                let seen = *counted.borrow();
                self.out.send(Reply::Previewing(v1::Previewing { seen })).await?;
                tokio::time::sleep(SHOW).await;
            }
        };
        tokio::select! {
            found = remote.preview(&preview.remote, &key, &seen) => {
                let found = found.map_err(|error| unreached(&error))?;
                let first = found.first.into_iter().map(encode).collect();
                let own = spawn_blocking(move || store.summary()).await??.keys;
                Ok(Reply::Previewed(v1::Previewed { differing: found.differing, first, own }))
            }
            failed = show => failed,
            () = self.shared.stopping() => Err(stopping()),
            () = self.from.closed() => Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()),
        }
    }

    pub(super) async fn join(&mut self, join: v1::Join) -> Result<Reply, Failure> {
        let (key, store) = (key(join.key)?, self.store.clone());
        if join.remote.is_empty() {
            return Err(Failure::bad_input("there is no remote to join"));
        }
        spawn_blocking(move || store.join(key, join.remote)).await??;
        self.config().await
    }
}

fn key(bytes: Vec<u8>) -> Result<EncryptionKey, Failure> {
    let bytes = Zeroizing::new(bytes);
    let wrong = || Failure::bad_input(format!("an encryption key has 32 bytes and not {}", bytes.len()));
    Ok(EncryptionKey::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| wrong())?))
}

fn encode(difference: Difference) -> v1::Difference {
    v1::Difference { key: difference.name, remote_wins: difference.theirs_is_newer }
}

/// Why the remote of a link cannot be joined.
fn unreached(error: &RemoteError) -> Failure {
    let (code, hint) = match error {
        RemoteError::Absent(_) | RemoteError::Silent(_) | RemoteError::Name(_) | RemoteError::Closed(_) => {
            (Code::NotReached, "join once it answers")
        }
        RemoteError::Proxy(_) | RemoteError::Tls(_) | RemoteError::WantsTls(_) => (Code::NotReached, error.hint()),
        RemoteError::Session(SessionError::Channel(ChannelError::Refused)) => {
            (Code::Failed, "its key may have changed since: 'kvass pair' on a device that is in step makes a new line")
        }
        _ => (Code::Failed, ""),
    };
    Failure::Answer(Box::new(message(error, code, hint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::connect::TlsError;

    fn told(error: &RemoteError) -> (Code, String) {
        match unreached(error) {
            Failure::Answer(answer) => (answer.code(), answer.hint),
            _ => panic!("no answer to {error}"),
        }
    }

    #[test]
    fn what_may_answer_later_is_not_reached_and_says_what_would_mend_it() {
        let url = || "http://server:8000".to_owned();
        for error in [RemoteError::Name("server".into()), RemoteError::Closed(url()), RemoteError::Absent(url())] {
            assert_eq!(told(&error), (Code::NotReached, "join once it answers".into()));
        }
        for error in [
            RemoteError::Proxy(url()),
            RemoteError::WantsTls(url()),
            RemoteError::Tls(TlsError::Plain("server".into())),
        ] {
            assert_eq!(told(&error), (Code::NotReached, error.hint().into()));
            assert!(!error.hint().is_empty(), "{error}");
        }
        assert_eq!(told(&RemoteError::Address("x".into())).0, Code::Failed);
    }
}
