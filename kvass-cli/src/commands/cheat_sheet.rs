//! `kvass` alone: a cheat sheet.

use crate::error::Error;
use crate::output::Output;

const TEXT: &str = "\
kvass - a personal key-value store

  kvass set KEY [VALUE]      store VALUE, or standard input
  kvass get KEY              write the value
  kvass ls [PREFIX]          list keys; -l with sizes and times, -v with values
  kvass rm KEY...            remove keys
  kvass url KEY              a link to the value, for any browser; --expires 1d
  kvass url --list           the links that there are; --revoke LINK ends one
  kvass qr KEY               the link as a QR code; -o FILE.svg or FILE.png
  kvass watch [PREFIX]       show changes as they arrive
  kvass wait KEY             wait for a key, then write its value
  kvass run -e VAR=KEY -- CMD
                             run CMD with values in its environment

  kvass pair                 show a line that lets another device join
  kvass join                 join with such a line
  kvass sync                 wait until this store and the remote hold the same
  kvass set KEY V --wait     return once the remote holds it
  kvass get KEY --fresh      first take what the remote has
  kvass status               what the daemon knows about itself
  kvass config show|key|server-key|pid|remote|public-url
                             the keys, process id, remote and public URL
  kvass serve [--bind ADDR]  be the remote of other devices
  kvass daemon start|stop|restart
  kvass export|import [FILE] all entries as text
  kvass doctor               check everything, and say what would mend it
  kvass completions SHELL    completion with live key names
  kvass man [DIR]            the manual

Flags for every command:
  --db DIR                   the data directory (or KVASS_DB)
  --socket PATH              the daemon's socket (or KVASS_SOCKET)
  -q, --quiet                no notes, only errors

kvass help COMMAND tells more.
";

pub(crate) fn run() -> Result<(), Error> {
    let mut output = Output::stdout()?;
    output.write(TEXT.as_bytes())?;
    output.finish()
}
