//! `kvass rm`: removes keys, or a namespace.

use kvass_proto::v1::{self, Removed, reply::Reply, request::Command};

use super::ls;
use crate::cli::Rm;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::terminal;

pub(crate) fn run(client: &mut Client, arguments: Rm) -> Result<(), Error> {
    if let Some(prefix) = arguments.prefix {
        return remove_prefix(client, prefix, arguments.force);
    }
    let removed = remove(client, v1::Remove { keys: arguments.keys, prefix: None })?;
    if arguments.force || removed.missing.is_empty() {
        return Ok(());
    }
    for key in removed.missing {
        Error::NoSuchKey(key).print();
    }
    Err(Error::Silent(1))
}

fn remove_prefix(client: &mut Client, prefix: String, force: bool) -> Result<(), Error> {
    if !force {
        if !terminal::can_ask() {
            return Err(Error::input(format!("removing every key that begins with '{prefix}' needs -f here"))
                .hint("on a terminal it asks first"));
        }
        let keys = match ls::count(client, &prefix)? {
            0 => return nothing(client, &prefix),
            1 => "1 key".into(),
            count => format!("{count} keys"),
        };
        if !terminal::confirm(&format!("Remove {keys} beginning with '{prefix}'?"))? {
            client.note("nothing was removed");
            return Ok(());
        }
    }
    match remove(client, v1::Remove { keys: Vec::new(), prefix: Some(prefix.clone()) })?.count {
        0 => nothing(client, &prefix),
        _ => Ok(()),
    }
}

/// A namespace without keys is no missing key: what was asked for is so.
fn nothing(client: &Client, prefix: &str) -> Result<(), Error> {
    client.note(&format!("no key begins with '{prefix}'"));
    Ok(())
}

fn remove(client: &mut Client, request: v1::Remove) -> Result<Removed, Error> {
    match client.ask(Command::Remove(request))? {
        Reply::Removed(removed) => Ok(removed),
        _ => Err(unexpected()),
    }
}
