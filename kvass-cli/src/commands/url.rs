//! `kvass url`: makes links to values, lists them, and ends them.

use kvass_proto::v1::revoke_shares::Which;
use kvass_proto::v1::{self, Share, error::Code, reply::Reply, request::Command, share::State};

use crate::cli::{LinkOptions, Url};
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::json::Object;
use crate::output::Output;
use crate::{link, time};

pub(crate) fn run(client: &mut Client, arguments: Url) -> Result<(), Error> {
    match arguments {
        Url { list: true, key, json, .. } => list(client, key, json),
        Url { key: Some(what), revoke: true, .. } => revoke(client, &what),
        Url { key: Some(key), options, .. } => {
            let mut output = Output::stdout()?;
            output.line(&make(client, &key, &options)?)?;
            output.finish()
        }
        Url { key: None, .. } => Err(Error::input("no key was named")),
    }
}

/// Makes a link, or finds the one that the key has.
pub(crate) fn make(client: &mut Client, key: &str, options: &LinkOptions) -> Result<String, Error> {
    let expiry_us = match options.expires {
        None => 0,
        Some(lifetime) => time::after(lifetime).ok_or_else(too_late)?,
    };
    let reads = options.reads.unwrap_or_default().into();
    let make = v1::MakeShare { key: key.into(), expiry_us, reads, pin: options.pin };
    let reply = client.ask(Command::MakeShare(make)).map_err(|error| error.of_key(key))?;
    let Reply::Shares(v1::Shares { shares, .. }) = reply else { return Err(unexpected()) };
    let share = shares.into_iter().next().ok_or_else(unexpected)?;
    if !share.waiting.is_empty() {
        client.note(&format!("the link does not work yet: {}", share.waiting));
    }
    Ok(share.url)
}

/// The clock has gone on since the command line was read.
fn too_late() -> Error {
    Error::input("a link ends in the year 9999 at the latest")
}

/// Ends the link that `what` is, or all links to the key of that name.
fn revoke(client: &mut Client, what: &str) -> Result<(), Error> {
    let mut revoked = v1::Revoked::default();
    if let Some(token) = link::token(what) {
        revoked = ask_to_revoke(client, Which::Token(token))?;
    }
    // A key may look like a token.
    if revoked.count == 0 {
        revoked = ask_to_revoke(client, Which::Key(what.into()))?;
    }
    let said = match revoked.count {
        0 => return Err(nothing(what)),
        1 => "revoked 1 link".into(),
        count => format!("revoked {count} links"),
    };
    client.note(&said);
    if !revoked.waiting.is_empty() {
        let which = if revoked.count == 1 { "the link still works" } else { "the links still work" };
        client.note(&format!("{which}: {}", revoked.waiting));
    }
    Ok(())
}

/// How many links were revoked; none is no failure here.
fn ask_to_revoke(client: &mut Client, which: Which) -> Result<v1::Revoked, Error> {
    match client.ask(Command::RevokeShares(v1::RevokeShares { which: Some(which) })) {
        Ok(Reply::Revoked(revoked)) => Ok(revoked),
        Ok(_) => Err(unexpected()),
        Err(error) if error.is(Code::NoSuchLink) || error.is(Code::NoSuchKey) => Ok(v1::Revoked::default()),
        Err(error) => Err(error),
    }
}

fn nothing(what: &str) -> Error {
    let error = match link::token(what) {
        Some(_) => Error::absent(format!("no such link: {what}")),
        None => Error::absent(format!("there is no link to '{what}'")),
    };
    error.hint("kvass url --list shows all links")
}

fn list(client: &mut Client, key: Option<String>, json: bool) -> Result<(), Error> {
    let shares = ask_for_list(client, key)?;
    let width = |of: fn(&Share) -> String| shares.iter().map(|share| of(share).chars().count()).max().unwrap_or(0);
    let widths = (width(shown), width(|share| share.key.clone()));
    let mut output = Output::stdout()?;
    for share in &shares {
        output.line(&if json { object(share) } else { columns(share, widths) })?;
    }
    output.finish()
}

fn ask_for_list(client: &mut Client, key: Option<String>) -> Result<Vec<Share>, Error> {
    let name = key.unwrap_or_default();
    let asked = client.open(Command::ListShares(v1::ListShares { key: name.clone() }));
    let mut connection = asked.map_err(|error| error.of_key(&name))?;
    let mut all = Vec::new();
    loop {
        let Reply::Shares(v1::Shares { shares, last }) = connection.reply()? else { return Err(unexpected()) };
        all.extend(shares);
        if last {
            return Ok(all);
        }
    }
}

/// The link, or its token where nothing could stand before it.
fn shown(share: &Share) -> String {
    if share.url.is_empty() { link::text(&share.token) } else { share.url.clone() }
}

/// Link, key, end, reads, whether it is pinned, and behind that why it does not work where it does not.
fn columns(share: &Share, (links, keys): (usize, usize)) -> String {
    let expiry = if share.expiry_us == 0 { "never".into() } else { time::seconds(share.expiry_us) };
    let reads = if share.reads == 0 { "any".into() } else { share.reads.to_string() };
    let pinned = if share.pin { "pinned" } else { "follows" };
    let line = format!("{:<links$}  {:<keys$}  {expiry:<20}  {reads:>5}  {pinned:<7}", shown(share), share.key);
    match share.state() {
        State::Valid => line.trim_end().into(),
        state => format!("{line}  {}", word(state)),
    }
}

fn object(share: &Share) -> String {
    let object = Object::new().text("url", &shown(share)).text("key", &share.key);
    let object = object.text("time", &time::microseconds(share.time_us)).expiry(share.expiry_us);
    let object = if share.reads == 0 { object } else { object.number("reads", share.reads) };
    object.truth("pinned", share.pin).text("state", word(share.state())).end()
}

fn word(state: State) -> &'static str {
    match state {
        State::Valid => "valid",
        State::Expired => "expired",
        State::Removed => "removed",
        State::Replaced => "replaced",
        State::UsedUp => "used-up",
    }
}
