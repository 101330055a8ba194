//! `kvass qr`: a link to a value as a QR code, on the terminal or as a picture.

use std::ffi::OsStr;
use std::path::Path;

use kvass_proto::shell;

use super::url;
use crate::cli::{LinkOptions, Qr};
use crate::client::Client;
use crate::error::Error;
use crate::output::Output;
use crate::qr::{Code, Paint};
use crate::terminal;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Svg,
    Png,
}

pub(crate) fn run(client: &mut Client, arguments: &Qr) -> Result<(), Error> {
    // Before a link is made that would not be shown.
    let picture = arguments.output.as_deref().map(picture).transpose()?;
    let link = url::make(client, &arguments.key, &arguments.options)?;
    let code = Code::new(&link).ok_or_else(|| Error::input(format!("the link is too long for a QR code: {link}")))?;
    match picture {
        Some((format, output)) => write(&code, format, output),
        None => show(&code, &link, arguments),
    }
}

/// The file that is to be written, and as what. Whoever reads it has the link, so it is its owner's alone.
fn picture(path: &Path) -> Result<(Format, Output), Error> {
    let format = match path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).as_deref() {
        Some("svg") => Format::Svg,
        Some("png") => Format::Png,
        _ => {
            return Err(Error::input(format!("{} ends neither in .svg nor in .png", path.display()))
                .hint("the end of the name says what is written: FILE.svg or FILE.png"));
        }
    };
    Ok((format, Output::named(Some(path), 0o600, true)?))
}

fn write(code: &Code, format: Format, mut output: Output) -> Result<(), Error> {
    match format {
        Format::Svg => output.write(code.svg().as_bytes())?,
        Format::Png => output.write(&code.png())?,
    }
    output.finish()
}

/// Draws the code where it has room; elsewhere the link alone is written, so that it is not lost.
fn show(code: &Code, link: &str, arguments: &Qr) -> Result<(), Error> {
    let mut output = Output::stdout()?;
    if !output.terminal {
        output.write(code.blocks(Paint::Dark).as_bytes())?;
        return output.finish();
    }
    if terminal::has_room(code) {
        output.write(code.blocks(terminal::paint()).as_bytes())?;
        return output.finish();
    }
    output.line(link)?;
    output.finish()?;
    let (needed, present) = (terminal::room(code), terminal::size());
    let sizes = format!("{} columns and {} rows, and this has {} and {}", needed.0, needed.1, present.0, present.1);
    Err(Error::input(format!("the terminal is too small for the QR code: it needs {sizes}")).hint(instead(arguments)))
}

/// How the code is seen all the same. Only a plain link is found again; any other would be made once more.
fn instead(Qr { key, options, .. }: &Qr) -> String {
    match options {
        LinkOptions { expires: None, reads: None, pin: false } => {
            format!("make it larger, or write a picture: kvass qr {} -o code.svg (or .png)", shell::word(key))
        }
        _ => "kvass url --revoke LINK ends this one; then again in a larger terminal, or with -o code.svg (or .png)"
            .into(),
    }
}
