//! Rewrites an index that has outgrown its content into a fresh one: sled gives little of its file back.
//!
//! It runs at a start, before anybody is served. Every row is copied as it is, so the store stays the same store.

use super::create::seal_off;
use super::index::{self, Fault, Index};
use super::layout::{self, Layout, StorePaths};
use super::witness::{Mark, Witness};
use super::{OpenError, open, space};
use crate::failpoint::reached;

/// How much larger than its content an index may be: this many bytes, and four times the content.
const SLACK: u64 = 64 << 20;

/// Rows of one batch.
const BATCH: usize = 512;

/// Whether the index is due for a rewrite, and there is room for one.
pub(crate) fn has_outgrown(index: &Index) -> bool {
    let account = index.account.keys.account();
    let (Ok(tally), Ok(size)) = (index.tally(account), index.db.size_on_disk()) else { return false };
    size > SLACK + 4 * tally.content
}

/// Replaces the store by a fresh copy. A crash leaves the old one or the new one.
pub(crate) fn rewrite(layout: &Layout, index: Index, mark: Mark) -> Result<(), OpenError> {
    let to = layout.store_new();
    let room = space::available(layout.root()).map_err(OpenError::io("tell the free space of", layout.root()))?;
    let content = index.tally(index.account.keys.account()).map_or(0, |tally| tally.content);
    if room < SLACK + 6 * content {
        tracing::warn!("the index has outgrown its content, and there is no room to rewrite it");
        return Ok(());
    }
    let copied = copy(&index, &to, mark).and_then(|()| Ok(seal_off(&to)?));
    reached("rewrite.sealed");
    drop(index);
    if let Err(fault) = copied {
        // The old one is as good as it was: a disk that filled, or damage, is told when it is met there.
        tracing::warn!(%fault, "the index cannot be rewritten");
        return layout::remove_directory(&to.0).map_err(OpenError::io("remove", &to.0));
    }
    open::replace_store(layout).map_err(OpenError::io("replace the index in", layout.root()))
}

fn copy(from: &Index, to: &StorePaths, mark: Mark) -> Result<(), Fault> {
    layout::remove_directory(&to.0)?;
    layout::make_directory(&to.0)?;
    layout::make_directory(&to.sled())?;
    let db = index::open_sled(&to.sled())?;
    index::guarded(|| {
        for name in from.db.tree_names() {
            let (source, target) = (from.db.open_tree(&name)?, db.open_tree(&name)?);
            let mut batch = sled::Batch::default();
            for (at, row) in source.iter().enumerate() {
                let (key, value) = row?;
                batch.insert(key, value);
                if (at + 1) % BATCH == 0 {
                    target.apply_batch(std::mem::take(&mut batch))?;
                }
            }
            target.apply_batch(batch)?;
        }
        db.flush()?;
        Ok(())
    })?;
    reached("rewrite.copied");
    Ok(Witness::create(&to.witness(), mark)?)
}
