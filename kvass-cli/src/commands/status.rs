//! `kvass status`: what the daemon knows about itself, and how it stands with the remote.

use kvass_proto::line::one_line;
use kvass_proto::v1::{self, Link, Status, link::State, reply::Reply, request::Command};

use crate::cli;
use crate::client::Client;
use crate::connection::unexpected;
use crate::error::Error;
use crate::json::Object;
use crate::output::Output;
use crate::time;

/// How far two clocks may be apart before that is worth a warning, in microseconds.
const SKEW_US: u64 = 60_000_000;

/// What to do about clocks that are apart.
pub(crate) const SKEW_MEND: &str = "set the clock that is wrong, as with `timedatectl set-ntp true`";

pub(crate) fn run(client: &mut Client, arguments: &cli::Status) -> Result<(), Error> {
    let Reply::Status(status) = client.ask(Command::Status(v1::StatusQuery {}))? else { return Err(unexpected()) };
    let mut output = Output::stdout()?;
    if arguments.json {
        output.line(&json(&status))?;
    } else {
        output.write(text(&status).as_bytes())?;
    }
    output.finish()?;
    if let Some(problem) = status.link.as_ref().and_then(skew_problem) {
        client.note(&format!("{problem}: {SKEW_MEND}"));
    }
    Ok(())
}

/// What is wrong where the clocks of both sides are far apart: the later of two writes wins, by the clocks of those who
/// wrote.
pub(crate) fn skew_problem(link: &Link) -> Option<String> {
    let is_far = link.skew_us.unsigned_abs() >= SKEW_US;
    is_far.then(|| format!("the remote's clock is {}, so that an older write may win", skew(link.skew_us)))
}

fn text(status: &Status) -> String {
    let remote = if status.remote.is_empty() { "none" } else { &status.remote };
    let verified = if status.verified { "all records since the start" } else { "not yet" };
    let mut lines = vec![
        ("Daemon", format!("kvassd {} (process {})", status.version, status.process)),
        ("Since", time::seconds(status.started_us)),
        ("Directory", status.directory.clone()),
        keys(status),
        ("Values", format!("{} bytes", status.value_bytes)),
        ("On disk", format!("{} bytes", status.disk_bytes)),
        ("Verified", verified.into()),
        ("Fingerprint", status.fingerprint.clone()),
        ("Remote", remote.into()),
    ];
    if let Some(link) = &status.link {
        lines.extend(link_lines(link));
    }
    if status.refused != 0 {
        lines.push(("Refused", format!("{} records of other stores, which did not verify", status.refused)));
    }
    if !status.bind.is_empty() {
        lines.push(("Serving at", status.bind.clone()));
    }
    lines.iter().map(|(name, value)| format!("{:<13}{value}\n", format!("{name}:"))).collect()
}

fn keys(status: &Status) -> (&'static str, String) {
    match status.blind {
        true => ("Entries", format!("{}, which cannot be read here: this store has the server key only", status.keys)),
        false => ("Keys", status.keys.to_string()),
    }
}

fn link_lines(link: &Link) -> Vec<(&'static str, String)> {
    let mut lines = vec![("Link", state(link))];
    if !link.hint.is_empty() {
        lines.push(("Mend", one_line(&link.hint)));
    }
    lines.push(("Not sent", waiting(link)));
    if link.skew_us != 0 {
        lines.push(("Its clock", skew(link.skew_us)));
    }
    if link.differs {
        lines.push((
            "Differs",
            "the remote holds other records, though all are sent; run 'kvass doctor' on both".into(),
        ));
    }
    if link.full {
        lines.push(("Disk", "full; nothing is taken from the remote until there is space".into()));
    }
    lines
}

fn state(link: &Link) -> String {
    let since = time::seconds(link.since_us);
    let state = format!("{} since {since}", word(link.state()));
    if link.error.is_empty() { state } else { format!("{state}: {}", one_line(&link.error)) }
}

fn waiting(link: &Link) -> String {
    let changes = if link.pending == 1 { "1 change".into() } else { format!("{} changes", link.pending) };
    match link.oldest_us {
        0 => changes,
        since if link.pending == 1 => format!("{changes}, since {}", time::seconds(since)),
        since => format!("{changes}, the oldest since {}", time::seconds(since)),
    }
}

/// By how much a clock goes wrong: to the millisecond, from a minute on to the second.
fn skew(skew_us: i64) -> String {
    let amount = skew_us.unsigned_abs();
    let seconds = amount / 1_000_000;
    let amount = match seconds {
        0..60 => format!("{seconds}.{:03} s", amount / 1_000 % 1_000),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600.. => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    };
    format!("{amount} {}", if skew_us < 0 { "behind" } else { "ahead" })
}

fn json(status: &Status) -> String {
    let object = Object::new()
        .text("version", &status.version)
        .number("process", status.process.into())
        .text("started", &time::microseconds(status.started_us))
        .text("directory", &status.directory)
        .truth("blind", status.blind)
        .number("keys", status.keys)
        .number("records", status.records)
        .number("value_bytes", status.value_bytes)
        .number("disk_bytes", status.disk_bytes)
        .truth("verified", status.verified)
        .text("fingerprint", &status.fingerprint)
        .text_or_null("remote", &status.remote);
    let object = match &status.link {
        Some(link) => link_fields(object, link),
        None => object.text_or_null("link", ""),
    };
    let object = object.number("refused", status.refused);
    if status.bind.is_empty() { object.end() } else { object.text("bind", &status.bind).end() }
}

/// The fields of a link, which are absent where there is none.
fn link_fields(object: Object, link: &Link) -> Object {
    let pending_since = if link.oldest_us == 0 { String::new() } else { time::microseconds(link.oldest_us) };
    object
        .text("link", word(link.state()))
        .text("since", &time::microseconds(link.since_us))
        .text_or_null("error", &link.error)
        .text_or_null("mend", &link.hint)
        .number("pending", link.pending)
        .text_or_null("pending_since", &pending_since)
        .number_or_null("skew_us", Some(link.skew_us).filter(|skew| *skew != 0))
        .truth("differs", link.differs)
        .truth("full", link.full)
}

fn word(state: State) -> &'static str {
    match state {
        State::Connecting => "connecting",
        State::Connected => "connected",
        State::Waiting => "waiting",
        State::Blocked => "blocked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_has_a_direction_and_a_fitting_unit() {
        assert_eq!(skew(-1_999), "0.001 s behind");
        assert_eq!(skew(59_999_999), "59.999 s ahead");
        assert_eq!(skew(60_000_000), "1 min 0 s ahead");
        assert_eq!(skew(-7_384_000_000), "2 h 3 min behind");
        assert!(skew(i64::MIN).ends_with("behind"));
    }
}
