//! `kvassd`: flags and environment to a configuration, the daemon, and its end to an exit code.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use kvass_proto::line::{one_line, with_causes};
use kvassd::config::{Config, ConfigError};

const FAILED: u8 = 3;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(ConfigError::Flags(text)) if !text.use_stderr() => {
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error, &error.hint(), error.exit()),
    };
    let ended = if config.repair { kvassd::repair(&config, &mut io::stdout()) } else { kvassd::serve(&config) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, &error.hint(), FAILED),
    }
}

/// Writes one line, and one with the hint where there is one, for whoever started the daemon.
fn fail(error: &dyn Error, hint: &str, code: u8) -> ExitCode {
    let mut lines = format!("kvassd: {}\n", one_line(&with_causes(error)));
    if !hint.is_empty() {
        lines.push_str(&format!("hint: {hint}\n"));
    }
    // Whoever started it may have gone.
    let _ = io::stderr().write_all(lines.as_bytes());
    ExitCode::from(code)
}
