//! The program around a daemon: process, logs, signals, the service manager, and the thread pool.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use kvass_proto::line::with_causes;
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::accept::{CertificateError, Tls};
use crate::config::Config;
use crate::daemon::{self, DaemonError, Phase};
use crate::logs::{self, Log, LogError};
use crate::process::{self, ProcessError};
use crate::socket::{self, Place, SocketError};
use crate::store::{self, OpenError, Repaired};

/// Threads for calls that block: the store's calls, and those that take over the async work meanwhile.
const BLOCKING: usize = 96;

/// How long such a thread waits for more work.
const KEEP: Duration = Duration::from_secs(2);

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RunError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the threads of the daemon cannot be started")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Repair(OpenError),
    #[error("the report cannot be written")]
    Report(#[source] io::Error),
}

impl RunError {
    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Socket(error) => error.hint(),
            Self::Daemon(error) => error.hint().into(),
            Self::Certificate(error) => error.hint().into(),
            // What helps against damage is what has just failed.
            Self::Repair(error) if error.is_damage() => String::new(),
            Self::Repair(error) => error.hint().into(),
            _ => String::new(),
        }
    }
}

/// Serves the data directory until a signal or a client ends it.
///
/// A daemon that was started on demand and finds another one serving returns at once.
///
/// # Errors
/// Whatever keeps it from serving, or ends it early.
pub fn serve(config: &Config) -> Result<(), RunError> {
    let inherited = if config.on_demand { Vec::new() } else { socket::inherited()? };
    if config.on_demand {
        process::detach();
    } else {
        logs::to_stderr(config.log);
    }
    process::harden()?;
    process::log_panics();
    let tls = config.port.tls.clone().map(Tls::open).transpose()?;
    let Some(claimed) = socket::claim(config, !inherited.is_empty())? else { return Ok(()) };
    let log = if config.on_demand { Some(logs::to_file(config.log, &claimed.0)?) } else { None };
    let runtime = threads().map_err(RunError::Threads)?;
    let served = runtime.block_on(async {
        // Before the socket is there: whoever sees it may send a signal, and that must not leave the socket behind.
        let signals = Signals::new(config).map_err(RunError::Threads)?;
        run(config, socket::listen(config, claimed, inherited)?, tls, log, signals).await
    });
    // A call into the store that has not ended by now may hang.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if config.on_demand
        && let Err(error) = &served
    {
        // Others write it to standard error, where their logs go too.
        tracing::error!(%error, "ended");
    }
    served
}

/// Moves a damaged store aside, makes a new one of all that verifies, and writes a report to `out`.
///
/// # Errors
/// A directory that another daemon serves, or a store that cannot be repaired.
pub fn repair(config: &Config, out: &mut dyn Write) -> Result<(), RunError> {
    // No log: what is found is in the report, and a person reads both on one screen.
    process::harden()?;
    process::log_panics();
    let (directory, _lock) = socket::claim_quietly(config)?;
    let mut written = Ok(());
    let mut report = |line: &str| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    };
    let repaired = store::repair(&directory, &mut report).map_err(RunError::Repair)?;
    written.and_then(|()| write_report(out, &repaired)).map_err(RunError::Report)
}

fn write_report(out: &mut dyn Write, repaired: &Repaired) -> io::Result<()> {
    writeln!(out, "{} kept", entries(repaired.kept))?;
    if !repaired.lost.is_empty() {
        writeln!(out, "{} lost:", entries(repaired.lost.len() as u64))?;
        repaired.lost.iter().try_for_each(|name| writeln!(out, "  {name}"))?;
    }
    match repaired.remote.as_str() {
        "" => writeln!(out, "no remote is set; 'kvass config remote' sets one")?,
        remote => writeln!(out, "the remote is {remote}")?,
    }
    writeln!(out, "the damaged store is in {}", repaired.aside.display())
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".into() } else { format!("{count} entries") }
}

fn threads() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEEP)
        .thread_name("kvassd")
        .enable_all()
        .build()
}

async fn run(
    config: &Config,
    place: Place,
    tls: Option<Tls>,
    log: Option<Log>,
    signals: Signals,
) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    let report = |phase| tell(config, phase, log.as_ref());
    let running = daemon::run(config, place, tls.clone(), stop.clone(), report);
    tokio::pin!(running);
    let Signals { mut terminate, mut interrupt, hangups } = signals;
    let hangups = hangups.heed(tls, &stop);
    tokio::pin!(hangups);
    loop {
        tokio::select! {
            result = &mut running => return Ok(result?),
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
            never = &mut hangups => match never {},
        }
    }
}

/// What others ask of the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangups: Hangups,
}

impl Signals {
    fn new(config: &Config) -> io::Result<Self> {
        let hangups = Hangups {
            signal: signal(SignalKind::hangup())?,
            on_terminal: !config.on_demand && io::stderr().is_terminal(),
        };
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, hangups })
    }
}

/// SIGHUP: that a terminal was closed, or, as all servers take it, that what is set is to be read again.
struct Hangups {
    signal: Signal,
    /// Whether the daemon was started on a terminal, and belongs to it.
    on_terminal: bool,
}

impl Hangups {
    /// Asks for the stop where the terminal is gone, else reads the certificate again, where there is one.
    async fn heed(mut self, tls: Option<Tls>, stop: &CancellationToken) -> Infallible {
        loop {
            self.signal.recv().await;
            // One that was closed is none any more.
            if self.on_terminal && !io::stderr().is_terminal() {
                stop.cancel();
            } else if let Some(tls) = tls.clone() {
                reload(tls).await;
            } else {
                tracing::info!("SIGHUP: there is nothing to read again");
            }
        }
    }
}

async fn reload(tls: Tls) {
    match spawn_blocking(move || tls.reload()).await {
        Ok(Ok(())) => tracing::info!("the certificate was read again"),
        Ok(Err(error)) => tracing::error!(error = with_causes(&error), "the certificate stays what it was"),
        Err(error) => tracing::error!(%error, "the certificate was not read again"),
    }
}

/// Tells the service manager, or gives the client that started this daemon its standard error back.
fn tell(config: &Config, phase: Phase, log: Option<&Log>) {
    if let (Phase::Serving, Some(log)) = (phase, log)
        && let Err(error) = log.take_stderr()
    {
        tracing::warn!(%error, "standard error stays with the client that started this daemon");
    }
    if config.on_demand {
        return;
    }
    let state = match phase {
        Phase::Serving => NotifyState::Ready,
        Phase::Alive => NotifyState::Watchdog,
        Phase::Stopping => NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
