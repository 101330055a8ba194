//! `kvass status`: what the daemon knows about itself.

use kvass_proto::v1::{self, Status, reply::Reply, request::Command};

use crate::cli;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::json::Object;
use crate::output::Output;
use crate::time;

pub(crate) fn run(client: &mut Client, arguments: &cli::Status) -> Result<(), Error> {
    let Reply::Status(status) = client.ask(Command::Status(v1::StatusQuery {}))? else { return Err(unexpected()) };
    let mut output = Output::stdout()?;
    if arguments.json {
        output.line(&json(&status))?;
    } else {
        output.write(text(&status).as_bytes())?;
    }
    output.finish()
}

fn text(status: &Status) -> String {
    let remote = if status.remote.is_empty() { "none" } else { &status.remote };
    let verified = if status.verified { "all records since the start" } else { "not yet" };
    let lines = [
        ("Daemon", format!("kvassd {} (process {})", status.version, status.process)),
        ("Since", time::seconds(status.started_us)),
        ("Directory", status.directory.clone()),
        ("Keys", status.keys.to_string()),
        ("Values", format!("{} bytes", status.value_bytes)),
        ("On disk", format!("{} bytes", status.disk_bytes)),
        ("Verified", verified.into()),
        ("Fingerprint", status.fingerprint.clone()),
        ("Remote", remote.into()),
    ];
    lines.iter().map(|(name, value)| format!("{:<13}{value}\n", format!("{name}:"))).collect()
}

fn json(status: &Status) -> String {
    Object::new()
        .text("version", &status.version)
        .number("process", status.process.into())
        .text("started", &time::microseconds(status.started_us))
        .text("directory", &status.directory)
        .number("keys", status.keys)
        .number("value_bytes", status.value_bytes)
        .number("disk_bytes", status.disk_bytes)
        .truth("verified", status.verified)
        .text("fingerprint", &status.fingerprint)
        .text_or_null("remote", &status.remote)
        .end()
}
