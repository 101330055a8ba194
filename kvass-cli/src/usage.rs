//! What clap found wrong with the command line, as one sentence and a hint.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};
use kvass_proto::shell;

use crate::cli::Cli;
use crate::error::Error;
use crate::output::Output;

/// Turns clap's error into ours; help and version are printed here.
pub(crate) fn report(error: &clap::Error, arguments: &[OsString]) -> Error {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match print(&error.render().to_string()) {
            Ok(()) => Error::Silent(0),
            Err(error) => error,
        },
        ErrorKind::InvalidUtf8 => {
            Error::input("an argument is not UTF-8").hint("keys are UTF-8; values may be any bytes")
        }
        _ => {
            let command = command(arguments);
            Error::input(sentence(error, command.as_ref())).hint(hint(error, command.as_ref(), arguments))
        }
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut output = Output::stdout()?;
    output.write(text.as_bytes())?;
    output.finish()
}

/// The first lines of clap's text, without its tip and usage, where there is nothing better.
fn sentence(error: &clap::Error, command: Option<&Command>) -> String {
    let cause = std::error::Error::source(error);
    match (error.kind(), text(error, ContextKind::InvalidSubcommand), cause, command) {
        (ErrorKind::InvalidSubcommand, Some(name), ..) => return format!("no such command: {name}"),
        (ErrorKind::ValueValidation, _, Some(cause), _) => return cause.to_string(),
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, .., Some(command)) => {
            let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            return format!("{} needs one of: {}", command.get_name(), names.join(", "));
        }
        _ => {}
    }
    let text = error.to_string();
    let body = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = body.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// What was meant, where that can be guessed, and where to read on.
fn hint(error: &clap::Error, command: Option<&Command>, arguments: &[OsString]) -> String {
    let more = match command {
        Some(command) => format!("kvass help {}", command.get_name()),
        None => "kvass without a command shows what there is".into(),
    };
    let more = separator(error, command, arguments).unwrap_or(more);
    let guess =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg].iter().find_map(|kind| text(error, *kind));
    let guess = guess.map(str::to_owned).or_else(|| swapped(text(error, ContextKind::InvalidSubcommand)?, command));
    match guess {
        Some(guess) => format!("did you mean '{guess}'? {more}"),
        None => more,
    }
}

/// The line with the '--' that was forgotten.
fn separator(error: &clap::Error, command: Option<&Command>, arguments: &[OsString]) -> Option<String> {
    let invalid = text(error, ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument)?;
    // clap names only the first letter of a group of short flags.
    let whole = arguments.iter().filter_map(|word| word.to_str()).find(|word| word.starts_with(invalid));
    let whole = shell::word(whole.unwrap_or(invalid));
    match (command?.get_name(), invalid.starts_with('-')) {
        ("set", true) => Some(format!("a value that begins with '-' stands after '--': kvass set KEY -- {whole}")),
        (name @ ("get" | "rm" | "wait" | "ls" | "watch" | "url" | "qr"), true) => {
            Some(format!("a key that begins with '-' stands after '--': kvass {name} -- {whole}"))
        }
        ("run", _) => Some(format!("the program stands after '--': kvass run -e VAR=KEY -- {whole}")),
        _ => None,
    }
}

/// The command with the same letters, which clap does not think of where a name is short.
fn swapped(name: &str, command: Option<&Command>) -> Option<String> {
    let letters = |name: &str| {
        let mut letters: Vec<_> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    let all = Cli::command();
    let mut names = command.unwrap_or(&all).get_subcommands().map(Command::get_name);
    names.find(|known| letters(known) == letters(name)).map(str::to_owned)
}

/// What clap says of its error under this name: the best text, which is the last, where there are several.
fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.last().map(String::as_str),
        _ => None,
    }
}

/// The command that was meant: the first word that is one.
fn command(arguments: &[OsString]) -> Option<Command> {
    let all = Cli::command();
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    words.filter_map(|word| all.find_subcommand(word)).next().cloned()
}
