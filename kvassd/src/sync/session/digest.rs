//! Compares what both sides hold once neither has anything to tell the other: an alarm, not the mechanism.

use std::time::Duration;

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::time::sleep;

use super::send::Outbox;
use super::{Ended, SessionError, call};
use crate::store::{ReadError, Seq, Store, StoreId};

/// How long nothing may have changed before a digest is told.
const QUIET: Duration = Duration::from_secs(1);

/// The least time between two digests.
const PAUSE: Duration = Duration::from_secs(60);

/// Tells the digest of this store whenever the other side has acknowledged all of its log and nothing changes.
pub(super) async fn tell(store: Store, outbox: Outbox, peer: StoreId) -> Result<Ended, SessionError> {
    let (mut commits, mut peers) = (store.commits(), store.peers_changed());
    let mut told = None;
    loop {
        commits.borrow_and_update();
        peers.borrow_and_update();
        tokio::select! {
            biased;
            changed = commits.changed() => if changed.is_err() { return Ok(Ended::Stopped) } else { continue },
            _ = peers.changed() => continue,
            () = sleep(QUIET) => {}
        }
        if let Some(digest) = digest(&store, peer).await?.filter(|digest| told.as_ref() != Some(digest)) {
            outbox.urgent(Frame::Digest(digest.clone()));
            told = Some(digest);
            sleep(PAUSE).await;
        } else {
            tokio::select! {
                biased;
                changed = commits.changed() => if changed.is_err() { return Ok(Ended::Stopped) },
                _ = peers.changed() => {}
            }
        }
    }
}

/// What there is to tell; `None` while the other side lacks something of the log, or the store cannot be read.
async fn digest(store: &Store, peer: StoreId) -> Result<Option<v1::Digest>, SessionError> {
    // Before the tally: a merge between the two then gives a place where nobody is, and not one with an older digest.
    let known = store.peer(peer);
    let Some((digest, head)) = tally(store).await? else { return Ok(None) };
    let held = known.held.map_or(0, |held| held.seq.0);
    let is_quiet = known.acknowledged >= head;
    Ok(is_quiet.then(|| v1::Digest { digest: digest.to_vec(), head: head.0, held }))
}

/// Whether what the other side holds differs from what is here; `None` where the two are not at the same place.
pub(super) async fn differs(store: &Store, peer: StoreId, told: &v1::Digest) -> Result<Option<bool>, SessionError> {
    // Before the tally, as above.
    let held = store.peer(peer).held.map_or(Seq(0), |held| held.seq);
    let Some((digest, head)) = tally(store).await? else { return Ok(None) };
    let is_same_place = head.0 == told.held && held.0 == told.head;
    Ok(is_same_place.then(|| digest[..] != told.digest[..]))
}

async fn tally(store: &Store) -> Result<Option<([u8; 32], Seq)>, SessionError> {
    let from = store.clone();
    match call(store, move || from.tally()).await? {
        Err(ReadError::DiskFull) => Ok(None),
        tally => Ok(Some(tally?)),
    }
}
