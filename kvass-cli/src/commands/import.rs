//! `kvass import`: stores the entries of an export; `lines` reads them.

mod lines;
mod report;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use kvass_proto::frame::{DATA_MAX, HEADER, INLINE_MAX};
use kvass_proto::v1::{self, reply::Reply, request::Command};

use self::lines::Entry;
pub(crate) use self::lines::Lines;
use self::report::Report;
use crate::cli::Import;
use crate::client::Client;
use crate::connection::{Connection, unexpected};
use crate::error::Error;
use crate::time;

/// Requests that wait for their answers at once, so that the daemon commits them together.
const AT_ONCE: usize = 64;

pub(crate) fn run(client: &mut Client, arguments: Import) -> Result<(), Error> {
    let input = open(arguments.file.as_deref())?;
    let mut import = Importing {
        condition: v1::Import { time_us: 0, force: arguments.force, dry_run: arguments.dry_run },
        waiting: VecDeque::new(),
        report: Report::default(),
    };
    let mut result = import.all(client, &mut Lines::new(input));
    // What was sent before an error is stored all the same, and counted.
    while !import.waiting.is_empty() {
        result = result.and(import.settle(import.waiting.len() - 1));
    }
    client.note(&import.report.text(arguments.dry_run));
    result
}

type Input = BufReader<Box<dyn Read>>;

fn open(path: Option<&Path>) -> Result<Input, Error> {
    let input: Box<dyn Read> = match path {
        Some(path) if path != Path::new("-") => {
            let name = path.display();
            Box::new(File::open(path).map_err(|cause| Error::input(format!("cannot read {name}")).because(cause))?)
        }
        _ => Box::new(io::stdin().lock()),
    };
    Ok(BufReader::with_capacity(256 << 10, input))
}

struct Importing {
    condition: v1::Import,
    waiting: VecDeque<(String, Connection)>,
    report: Report,
}

impl Importing {
    fn all(&mut self, client: &mut Client, lines: &mut Lines<Input>) -> Result<(), Error> {
        while let Some(entry) = lines.entry()? {
            // Two lines with one key are stored in their order.
            if self.waiting.iter().any(|(key, _)| *key == entry.key) {
                self.settle(0)?;
            }
            let key = entry.key.clone();
            let connection = self.send(client, entry, lines)?;
            self.waiting.push_back((key, connection));
            self.settle(AT_ONCE)?;
        }
        Ok(())
    }

    fn send(&self, client: &mut Client, entry: Entry, lines: &mut Lines<Input>) -> Result<Connection, Error> {
        let time_us = entry.time_us.unwrap_or_else(time::now_us);
        let mut set = v1::Set {
            key: entry.key.clone(),
            value: None,
            size: None,
            expiry_us: entry.expiry_us,
            import: Some(v1::Import { time_us, ..self.condition }),
        };
        if entry.parts == 1 && entry.value.len() <= INLINE_MAX {
            set.value = Some(entry.value);
            return client.connect(Command::Set(set));
        }
        set.size = entry.size;
        let mut connection = client.connect_serving(&Command::Set(set))?;
        let (parts, key) = (entry.parts, entry.key);
        let mut sent = entry.value.len() as u64;
        send_value(&mut connection, &entry.value)?;
        for part in 2..=parts {
            let value = lines.part(&key, part, parts)?;
            sent += value.len() as u64;
            if entry.size.is_some_and(|size| sent > size || part == parts && sent < size) {
                return Err(lines.wrong_size(&key, sent));
            }
            send_value(&mut connection, &value)?;
        }
        connection.send_end()?;
        Ok(connection)
    }

    /// Reads answers until at most `most` are waited for.
    fn settle(&mut self, most: usize) -> Result<(), Error> {
        while self.waiting.len() > most {
            let Some((key, mut connection)) = self.waiting.pop_front() else { break };
            match connection.reply()? {
                Reply::Stored(stored) => self.report.count(key, stored.outcome()),
                _ => return Err(unexpected()),
            }
        }
        Ok(())
    }
}

fn send_value(connection: &mut Connection, value: &[u8]) -> Result<(), Error> {
    let mut buffer = Vec::with_capacity(HEADER + DATA_MAX.min(value.len()));
    for piece in value.chunks(DATA_MAX) {
        buffer.clear();
        buffer.extend_from_slice(&[0; HEADER]);
        buffer.extend_from_slice(piece);
        connection.send_data(&mut buffer)?;
    }
    Ok(())
}
