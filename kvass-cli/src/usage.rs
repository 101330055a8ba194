//! What clap found wrong with the command line, as one sentence and a hint.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Error;

/// Turns clap's error into ours; help and version are printed here.
pub(crate) fn report(error: &clap::Error, arguments: &[OsString]) -> Error {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Error::Silent(0)
        }
        ErrorKind::InvalidUtf8 => {
            Error::input("an argument is not UTF-8").hint("keys are UTF-8; values may be any bytes")
        }
        _ => Error::input(sentence(error)).hint(hint(error, arguments)),
    }
}

/// The first lines of clap's text, without its tip and usage.
fn sentence(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::ValueValidation
        && let Some(cause) = std::error::Error::source(error)
    {
        return cause.to_string();
    }
    let text = error.to_string();
    let body = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = body.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

fn hint(error: &clap::Error, arguments: &[OsString]) -> String {
    let command = command(arguments);
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(invalid)) = error.get(ContextKind::InvalidArg)
        && invalid.starts_with('-')
        && let Some(name @ ("set" | "get" | "rm" | "del" | "delete" | "wait" | "ls" | "list" | "watch")) = command
    {
        // clap names only the first letter of a group of short flags.
        let whole = arguments.iter().filter_map(|word| word.to_str()).find(|word| word.starts_with(invalid.as_str()));
        let whole = whole.unwrap_or(invalid);
        return match name {
            "set" => format!("a value that begins with '-' stands after '--': kvass set KEY -- {whole}"),
            _ => format!("a key that begins with '-' stands after '--': kvass {name} -- {whole}"),
        };
    }
    match command {
        Some(name) => format!("kvass help {name}"),
        None => "kvass without a command shows what there is".into(),
    }
}

/// The command that was meant: the first word that is one.
fn command(arguments: &[OsString]) -> Option<&str> {
    const NAMES: [&str; 20] = [
        "set",
        "get",
        "ls",
        "list",
        "rm",
        "del",
        "delete",
        "watch",
        "wait",
        "status",
        "config",
        "daemon",
        "run",
        "export",
        "import",
        "completions",
        "man",
        "doctor",
        "help",
        "serve",
    ];
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let mut words = words.skip_while(|word| !NAMES.contains(word));
    words.next().filter(|name| !matches!(*name, "help" | "serve"))
}
