//! `kvass daemon`: starts, stops and restarts kvassd by hand.

use kvass_proto::v1::{self, request::Command};

use crate::cli::Daemon;
use crate::client::Client;
use crate::error::Error;
use crate::stop;

pub(crate) fn run(client: &mut Client, arguments: &Daemon) -> Result<(), Error> {
    match arguments {
        Daemon::Start => start(client),
        Daemon::Stop => {
            if !stop::stop(client)? {
                client.note("kvassd was not running");
            }
            Ok(())
        }
        Daemon::Restart => {
            stop::stop(client)?;
            start(client)
        }
    }
}

/// Any question starts the daemon; this one is answered once it serves.
fn start(client: &mut Client) -> Result<(), Error> {
    client.ask(Command::Status(v1::StatusQuery {})).map(drop)
}
