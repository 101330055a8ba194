//! The requests about links, and what stands before them.

use kvass_proto::key;
use kvass_proto::v1::revoke_shares::Which;
use kvass_proto::v1::{self, error::Code, link, reply::Reply, share};

use super::commands::Exchange;
use super::failure::Failure;
use crate::http;
use crate::keys::Token;
use crate::store::{Gone, Share, ShareOptions, Store};
use crate::sync::remote::Remote;

/// Links of one message: as many as fit with the longest names and URLs.
const SHARES: usize = 250;

impl Exchange<'_, '_, '_> {
    pub(super) async fn make_share(&mut self, make: v1::MakeShare) -> Result<Reply, Failure> {
        key::check(&make.key)?;
        let Some(base) = self.store.base_url() else {
            return Err(Failure::with_hint(
                Code::NoBase,
                "there is neither a remote nor a public URL, so a link would lead nowhere",
                "kvass config remote HOST, or kvass config public-url URL",
            ));
        };
        let v1::MakeShare { key, expiry_us, reads, pin } = make;
        let options = ShareOptions { expiry_us, reads, pin };
        let made = self.shared.wait(|| self.store.share(&key, options)).await?;
        let made = made.ok_or_else(|| Failure::no_such_key(&key))?;
        let shares = vec![self.shared.call(|| self.encode(made, Some(&base))).await];
        Ok(Reply::Shares(v1::Shares { shares, last: true }))
    }

    /// The last message is the answer.
    pub(super) async fn list_shares(&mut self, list: v1::ListShares) -> Result<Reply, Failure> {
        let name = (!list.key.is_empty()).then_some(list.key.as_str());
        name.map_or(Ok(()), key::check)?;
        let mut found = self.shared.wait(|| self.store.shares(name)).await?;
        if let Some(name) = name.filter(|_| found.is_empty()) {
            self.require(name).await?;
        }
        let base = self.store.base_url();
        loop {
            let rest = found.split_off(found.len().min(SHARES));
            let encode = || found.into_iter().map(|share| self.encode(share, base.as_deref())).collect();
            let shares = self.shared.call(encode).await;
            let last = rest.is_empty();
            let reply = Reply::Shares(v1::Shares { shares, last });
            if last {
                return Ok(reply);
            }
            self.out.reply(reply).await?;
            found = rest;
        }
    }

    pub(super) async fn revoke_shares(&mut self, revoke: v1::RevokeShares) -> Result<Reply, Failure> {
        let count = match revoke.which {
            Some(Which::Token(bytes)) => {
                let token = Token::from_bytes(&zeroize::Zeroizing::new(bytes));
                let token = token.ok_or_else(|| Failure::bad_input("the token of a link has 16 bytes"))?;
                if !self.shared.wait(|| self.store.revoke(&token)).await? {
                    return Err(Failure::new(Code::NoSuchLink, "there is no such link"));
                }
                1
            }
            Some(Which::Key(name)) => {
                key::check(&name)?;
                let count = self.shared.wait(|| self.store.revoke_all(&name)).await?;
                if count == 0 {
                    self.require(&name).await?;
                }
                count
            }
            None => return Err(Failure::bad_input("neither a link nor a key to revoke")),
        };
        let waiting = revoking(&self.store, &self.remote, &self.bind).into();
        Ok(Reply::Revoked(v1::Revoked { count, waiting }))
    }

    pub(super) async fn set_public_url(&mut self, set: v1::SetPublicUrl) -> Result<Reply, Failure> {
        self.shared.wait(|| self.store.set_public_url(&set.url)).await?;
        self.config().await
    }

    /// Fails where there is no such entry.
    async fn require(&self, name: &str) -> Result<(), Failure> {
        match self.shared.wait(|| self.store.read(name)).await? {
            Some(_) => Ok(()),
            None => Err(Failure::no_such_key(name)),
        }
    }

    /// Blocks.
    fn encode(&self, found: Share, base: Option<&str>) -> v1::Share {
        let state = match found.gone {
            None => share::State::Valid,
            Some(Gone::Expired) => share::State::Expired,
            Some(Gone::Removed | Gone::Revoked) => share::State::Removed,
            Some(Gone::Replaced) => share::State::Replaced,
            Some(Gone::UsedUp) => share::State::UsedUp,
        };
        let waiting = if found.gone.is_none() { waiting(&self.store, &self.remote, &self.bind, &found) } else { "" };
        let url = base.map_or_else(String::new, |base| http::link(base, &found.token));
        let token = found.token.as_bytes().to_vec();
        let Share { name: key, time_us, expiry_us, reads, pin, .. } = found;
        let (waiting, state) = (waiting.into(), state.into());
        v1::Share { key, url, time_us, expiry_us, reads, pin, waiting, state, token }
    }
}

/// Why a link that was revoked still works; empty where it does not, or only until the remote has heard of it.
fn revoking(store: &Store, remote: &Remote, bind: &str) -> &'static str {
    if remote.url().is_empty() || is_connected(remote) || is_served_here(store, remote, bind) {
        return "";
    }
    "the remote does not know that yet, and is not connected"
}

fn is_connected(remote: &Remote) -> bool {
    remote.state().is_some_and(|(state, _)| state == link::State::Connected)
}

/// Whether links lead to this very process.
fn is_served_here(store: &Store, remote: &Remote, bind: &str) -> bool {
    !bind.is_empty() && (remote.url().is_empty() || !store.public_url().borrow().own.is_empty())
}

/// Why a link does not work yet; empty where it does, or will at once.
fn waiting(store: &Store, remote: &Remote, bind: &str, found: &Share) -> &'static str {
    if is_served_here(store, remote, bind) {
        return "";
    }
    if remote.url().is_empty() {
        return "there is no remote that could serve it";
    }
    let holds = |peer| (store.is_share_held(found, peer), store.is_held(&found.name, peer));
    let (link, entry) = store.remote_peer().map_or((false, false), holds);
    match (is_connected(remote), link && entry) {
        (_, true) => "",
        (false, false) => "the remote does not have it, and is not connected",
        (true, false) if !entry && store.is_large(&found.name) => "its value is still on its way to the remote",
        (true, false) => "",
    }
}
