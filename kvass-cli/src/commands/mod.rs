//! The commands, a file each: what they ask the daemon, and how they print the answer.

pub(crate) mod completions;

mod cheat_sheet;
mod config;
mod daemon;
mod doctor;
mod export;
mod get;
pub(crate) mod import;
mod join;
mod ls;
mod man;
mod pair;
mod qr;
mod rm;
mod run;
mod serve;
mod set;
mod status;
mod sync;
mod url;
mod wait;
mod watch;

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::error::Error;
use crate::place::Place;

/// Runs the command that was given.
pub(crate) fn run(cli: Cli) -> Result<(), Error> {
    // What needs no store comes first: it works where no directory can be found.
    let command = match cli.command {
        None => return cheat_sheet::run(),
        Some(Command::Completions(arguments)) => return completions::run(&arguments),
        Some(Command::Man(arguments)) => return man::run(arguments),
        Some(command) => command,
    };
    if cli.db.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        return Err(Error::input("--db names no directory"));
    }
    if cli.socket.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        return Err(Error::input("--socket names no path"));
    }
    let mut client = Client::new(Place::find(cli.db, cli.socket)?, cli.quiet);
    match command {
        Command::Set(arguments) => set::run(&mut client, arguments),
        Command::Get(arguments) => get::run(&mut client, arguments),
        Command::Ls(arguments) => ls::run(&mut client, arguments),
        Command::Rm(arguments) => rm::run(&mut client, arguments),
        Command::Url(arguments) => url::run(&mut client, arguments),
        Command::Qr(arguments) => qr::run(&mut client, &arguments),
        Command::Watch(arguments) => watch::run(&mut client, arguments),
        Command::Wait(arguments) => wait::run(&mut client, arguments),
        Command::Sync(arguments) => sync::run(&mut client, &arguments),
        Command::Status(arguments) => status::run(&mut client, &arguments),
        Command::Config(arguments) => config::run(&mut client, arguments),
        Command::Pair => pair::run(&mut client),
        Command::Join(arguments) => join::run(&mut client, arguments),
        Command::Serve(arguments) => serve::run(&client.place, arguments),
        Command::Daemon(arguments) => daemon::run(&mut client, &arguments),
        Command::Run(arguments) => run::run(&mut client, arguments),
        Command::Export(arguments) => export::run(&mut client, arguments),
        Command::Import(arguments) => import::run(&mut client, arguments),
        Command::Doctor(arguments) => doctor::run(&mut client, &arguments),
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}
