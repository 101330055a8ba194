//! What the daemon was asked to do: defaults, then the environment, then flags, resolved into a [`Config`] that
//! cannot be invalid. Touches no file but to look whether a store lies in the other default place, and whether a service
//! manager has given a key.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use directories::BaseDirs;
use kvass_proto::paths;
use tracing::Level;

use crate::accept::ProxyError;
use crate::given::CREDENTIAL;
use crate::store::{Options, RESERVE_MIN};

mod port;
mod size;

pub use port::Port;
pub use size::SizeError;

/// Where devices are accepted where nothing else is said.
const BIND: &str = "0.0.0.0:8000";

const VALUE_MAX: u64 = 4 << 30;
const RESERVE: u64 = 64 << 20;

/// The settings of one daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory, absolute; it need not exist yet.
    pub directory: PathBuf,
    /// The socket's path, absolute.
    pub socket: PathBuf,
    /// The least important level that is logged.
    pub log: Level,
    /// The limits that the store keeps.
    pub options: Options,
    /// A file with the key that a new store gets, and another one must have.
    pub key_file: Option<PathBuf>,
    /// Where devices are accepted; `None`: nowhere.
    pub bind: Option<SocketAddr>,
    /// How devices are accepted.
    pub port: Port,
    /// A file of authorities to trust with `https`, beside those of the system.
    pub authorities: Option<PathBuf>,
    /// Within what time the service manager wants a sign of life; `None`: never.
    pub watchdog: Option<Duration>,
    /// Whether a client started this daemon.
    pub on_demand: bool,
    /// Whether to repair the store instead of serving it.
    pub repair: bool,
    /// The arguments without the program's name, for a client that starts a successor.
    pub arguments: Vec<String>,
}

/// The daemon of kvass: owns a store and answers the client.
///
/// It runs in the foreground until SIGTERM or `kvass daemon stop`. A client starts one by itself where none answers.
#[derive(Parser, Debug)]
#[command(name = "kvassd", version)]
struct Flags {
    /// The data directory (KVASS_DB) [default: kvass in the user's directory for data]
    #[arg(long, value_name = "DIR")]
    db: Option<PathBuf>,
    /// The socket elsewhere than in the data directory (KVASS_SOCKET)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What is logged: error, warn, info, debug or trace (KVASS_LOG) [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// The greatest value that can be set, as 10MiB (KVASS_VALUE_MAX) [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    value_max: Option<String>,
    /// The space on the disk that is left free, at least 4MiB (KVASS_RESERVE) [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    reserve: Option<String>,
    /// A file with an encryption key or a server key: a new store gets it, any other must have it (KVASS_KEY_FILE)
    /// [default: kvass-key among the credentials of a service, where it is]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Accepts devices as well, so that they can sync with this store (KVASS_SERVER=yes)
    #[arg(long)]
    server: bool,
    /// The address and port for devices, with --server (KVASS_BIND) [default: 0.0.0.0:8000]
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    #[command(flatten)]
    port: port::Flags,
    /// Authorities in PEM to trust with https, beside those of the system (KVASS_CA)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Moves a damaged store aside, makes a new one of all that verifies, and ends
    #[arg(long)]
    repair: bool,
    #[arg(long, hide = true, conflicts_with = "repair")]
    on_demand: bool,
}

/// Why flags and environment are no configuration.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ConfigError {
    /// What clap has to say: a wrong flag, or the text of `--help` and `--version`.
    #[error("{}", first_line(.0))]
    Flags(clap::Error),
    #[error("no log level '{0}': it is error, warn, info, debug or trace")]
    Level(String),
    #[error("{name} is no size")]
    Size { name: &'static str, source: SizeError },
    #[error("'{0}' is no address to accept devices at: it is an IP address and a port, as 0.0.0.0:8000")]
    Bind(String),
    #[error("--tls-cert and --tls-key go together: name both, or neither")]
    HalfTls,
    #[error("'{0}' is no number of connections: it is a whole number from 1 on")]
    Connections(String),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("{0} says how devices are accepted, which is so only with --server")]
    NoServer(&'static str),
    #[error("KVASS_SERVER is yes or no, not '{0}'")]
    Server(String),
    #[error("{name} must be more than 0")]
    Zero { name: &'static str },
    #[error("there is no home directory to keep the data in")]
    NoHome,
    #[error("the path {path} cannot be made absolute")]
    Path { path: PathBuf, source: std::io::Error },
    #[error("there is no store in {here}, but there is one in {there}")]
    Elsewhere { here: PathBuf, there: PathBuf },
}

impl ConfigError {
    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoHome => "name a directory with --db DIR or KVASS_DB".into(),
            Self::Elsewhere { here, there } => {
                format!("--db {} for the one that is there, --db {} for a new one", there.display(), here.display())
            }
            _ => String::new(),
        }
    }

    /// The exit code: 0 where text was asked for, 2 for wrong usage, 3 for what the machine lacks.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Flags(error) if !error.use_stderr() => 0,
            Self::NoHome | Self::Path { .. } | Self::Elsewhere { .. } => 3,
            _ => 2,
        }
    }
}

impl Config {
    /// Resolves the arguments and the environment of this process.
    ///
    /// # Errors
    /// Wrong usage, no home directory, or a store in the other default place.
    pub fn from_process() -> Result<Self, ConfigError> {
        Self::resolve(std::env::args_os().collect(), &|name| std::env::var_os(name), BaseDirs::new())
    }

    pub(crate) fn resolve(
        arguments: Vec<OsString>,
        environment: &dyn Fn(&str) -> Option<OsString>,
        base: Option<BaseDirs>,
    ) -> Result<Self, ConfigError> {
        let flags = Flags::try_parse_from(&arguments).map_err(ConfigError::Flags)?;
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());

        let directory = match flags.db.or_else(|| variable("KVASS_DB").map(PathBuf::from)) {
            Some(directory) => absolute(&directory)?,
            None => default_directory(&base.ok_or(ConfigError::NoHome)?)?,
        };
        let socket = match flags.socket.or_else(|| variable("KVASS_SOCKET").map(PathBuf::from)) {
            Some(socket) => absolute(&socket)?,
            None => paths::socket(&directory),
        };
        let value_max = size("--value-max", flags.value_max.or_else(|| text("KVASS_VALUE_MAX")), VALUE_MAX)?;
        if value_max == 0 {
            return Err(ConfigError::Zero { name: "--value-max" });
        }
        let reserve = size("--reserve", flags.reserve.or_else(|| text("KVASS_RESERVE")), RESERVE)?;
        let bind = match flags.server || is_server(text("KVASS_SERVER"))? {
            true => Some(bind(flags.bind.or_else(|| text("KVASS_BIND")))?),
            false => match flags.bind.map(|_| "--bind").or(flags.port.given()) {
                Some(flag) => return Err(ConfigError::NoServer(flag)),
                None => None,
            },
        };
        Ok(Self {
            directory,
            socket,
            log: level(flags.log.or_else(|| text("KVASS_LOG")))?,
            options: Options { value_max, reserve: reserve.max(RESERVE_MIN) },
            key_file: key_file(flags.key_file, &variable)?,
            bind,
            port: if bind.is_some() { Port::resolve(flags.port, &variable)? } else { Port::default() },
            authorities: match flags.ca.or_else(|| variable("KVASS_CA").map(PathBuf::from)) {
                Some(file) => Some(absolute(&file)?),
                None => None,
            },
            // Of the manager of whoever started a daemon on demand, this one is no service.
            watchdog: if flags.on_demand { None } else { sd_notify::watchdog_enabled() },
            on_demand: flags.on_demand,
            repair: flags.repair,
            arguments: arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
        })
    }
}

fn bind(text: Option<String>) -> Result<SocketAddr, ConfigError> {
    let text = text.unwrap_or_else(|| BIND.into());
    text.parse().map_err(|_| ConfigError::Bind(text))
}

fn is_server(text: Option<String>) -> Result<bool, ConfigError> {
    match text.as_deref() {
        Some("yes" | "true" | "on" | "1") => Ok(true),
        None | Some("no" | "false" | "off" | "0") => Ok(false),
        Some(other) => Err(ConfigError::Server(other.into())),
    }
}

/// A credential counts only where it is: a service may have others.
fn key_file(
    flag: Option<PathBuf>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<PathBuf>, ConfigError> {
    match flag.or_else(|| variable("KVASS_KEY_FILE").map(PathBuf::from)) {
        Some(file) => absolute(&file).map(Some),
        None => {
            let credential = variable("CREDENTIALS_DIRECTORY").map(|all| Path::new(&all).join(CREDENTIAL));
            Ok(credential.filter(|credential| credential.exists()))
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Path { path: path.into(), source })
}

fn default_directory(base: &BaseDirs) -> Result<PathBuf, ConfigError> {
    let here = paths::default_directory(base.data_dir());
    match paths::store_elsewhere(&here, base.data_dir(), base.home_dir()) {
        Some(there) => Err(ConfigError::Elsewhere { here, there }),
        None => Ok(here),
    }
}

fn size(name: &'static str, text: Option<String>, default: u64) -> Result<u64, ConfigError> {
    text.map_or(Ok(default), |text| size::parse(&text).map_err(|source| ConfigError::Size { name, source }))
}

fn level(text: Option<String>) -> Result<Level, ConfigError> {
    match text.as_deref() {
        None | Some("info") => Ok(Level::INFO),
        Some("error") => Ok(Level::ERROR),
        Some("warn") => Ok(Level::WARN),
        Some("debug") => Ok(Level::DEBUG),
        Some("trace") => Ok(Level::TRACE),
        Some(other) => Err(ConfigError::Level(other.into())),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::{Files, Proxies};

    fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let arguments = std::iter::once("kvassd").chain(arguments.iter().copied()).map(OsString::from).collect();
        let value = |name: &str| environment.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        Config::resolve(arguments, &value, None)
    }

    #[test]
    fn a_flag_beats_the_environment_and_the_environment_the_default() {
        let config = resolve(&["--db", "/a"], &[("KVASS_DB", "/b"), ("KVASS_LOG", "debug")]).unwrap();
        assert_eq!(config.directory, Path::new("/a"));
        assert_eq!(config.socket, Path::new("/a/kvassd.sock"));
        assert_eq!(config.log, Level::DEBUG);
        assert_eq!(config.options.value_max, VALUE_MAX);
        assert_eq!(config.arguments, ["--db", "/a"]);
        assert_eq!(resolve(&[], &[("KVASS_DB", "/b")]).unwrap().directory, Path::new("/b"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert!(matches!(resolve(&[], &[("KVASS_DB", "")]), Err(ConfigError::NoHome)));
        let config = resolve(&["--db", "/a"], &[("KVASS_SOCKET", ""), ("KVASS_RESERVE", "")]).unwrap();
        assert_eq!(config.socket, Path::new("/a/kvassd.sock"));
        assert_eq!(config.options.reserve, RESERVE);
    }

    #[test]
    fn authorities_are_named_by_a_flag_or_the_environment_and_by_default_not_at_all() {
        let named = |arguments: &[&str], environment| {
            resolve(&[&["--db", "/a"], arguments].concat(), environment).unwrap().authorities
        };
        let (own, other) = (PathBuf::from("/own.pem"), PathBuf::from("/other.pem"));
        assert_eq!(named(&[], &[]), None);
        assert_eq!(named(&[], &[("KVASS_CA", "")]), None);
        assert_eq!(named(&[], &[("KVASS_CA", "/own.pem")]), Some(own.clone()));
        assert_eq!(named(&["--ca", "/own.pem"], &[("KVASS_CA", "/other.pem")]), Some(own));
        assert_eq!(named(&["--ca", "/other.pem"], &[]), Some(other));
        // The daemon works in another directory than the shell that starts it.
        let relative = named(&[], &[("KVASS_CA", "own.pem")]).unwrap();
        assert!(relative.is_absolute() && relative.ends_with("own.pem"), "{}", relative.display());
    }

    #[test]
    fn the_port_is_told_by_flags_or_the_environment_and_only_a_servers_is() {
        let port = |arguments: &[&str], environment| {
            resolve(&[&["--db", "/a"], arguments].concat(), environment).map(|config| config.port)
        };
        let variables = [("KVASS_TLS_CERT", "/c.pem"), ("KVASS_TLS_KEY", "/k.pem"), ("KVASS_CONNECTIONS", "9")];
        let told = port(&["--server", "--tls-cert", "/own.pem", "--proxy", "::1"], &variables).unwrap();
        assert_eq!(told.tls, Some(Files { certificate: "/own.pem".into(), key: "/k.pem".into() }));
        assert_eq!((told.connections, told.proxies), (Some(9), "::1".parse().unwrap()));
        let default = port(&["--server"], &[("KVASS_TLS_CERT", ""), ("KVASS_PROXY", "")]).unwrap();
        assert!(default.tls.is_none() && default.connections.is_none() && default.proxies == Proxies::default());
        assert!(port(&[], &variables[..1]).unwrap().tls.is_none());
        for wrong in [["--tls-key", "/k.pem"], ["--connections", "0"], ["--connections", "many"], ["--proxy", "here"]] {
            let error = port(&[&["--server"], &wrong[..]].concat(), &[]).unwrap_err();
            assert_eq!((error.exit(), error.to_string().lines().count()), (2, 1), "{error}");
        }
        assert!(port(&["--tls-cert", "/c.pem", "--tls-key", "/k.pem"], &[]).is_err());
    }

    #[test]
    fn a_key_file_is_named_by_a_flag_the_environment_or_the_credentials_that_are_there() {
        let credentials = tempfile::tempdir().unwrap();
        let directory = credentials.path().to_str().unwrap();
        let named = |arguments: &[&str], environment: &[(&str, &str)]| {
            let environment = [&[("CREDENTIALS_DIRECTORY", directory)], environment].concat();
            resolve(&[&["--db", "/a"], arguments].concat(), &environment).unwrap().key_file
        };
        assert_eq!(named(&[], &[]), None);
        let credential = credentials.path().join("kvass-key");
        std::fs::write(&credential, "").unwrap();
        assert_eq!(named(&[], &[]), Some(credential));
        assert_eq!(named(&[], &[("KVASS_KEY_FILE", "/b")]), Some("/b".into()));
        assert_eq!(named(&["--key-file", "/c"], &[("KVASS_KEY_FILE", "/b")]), Some("/c".into()));
    }

    #[test]
    fn the_environment_makes_a_server_as_the_flag_does() {
        let bind = |arguments: &[&str], environment| {
            resolve(&[&["--db", "/a"], arguments].concat(), environment).map(|config| config.bind)
        };
        let port = |port| Some(SocketAddr::from(([0, 0, 0, 0], port)));
        assert_eq!(bind(&["--server"], &[]).unwrap(), port(8000));
        assert_eq!(bind(&["--server"], &[("KVASS_SERVER", "no")]).unwrap(), port(8000));
        assert_eq!(bind(&[], &[("KVASS_SERVER", "yes"), ("KVASS_BIND", "0.0.0.0:9")]).unwrap(), port(9));
        assert_eq!(bind(&["--bind", "0.0.0.0:9"], &[("KVASS_SERVER", "1")]).unwrap(), port(9));
        assert_eq!(bind(&[], &[("KVASS_SERVER", "no"), ("KVASS_BIND", "0.0.0.0:9")]).unwrap(), None);
        assert!(matches!(bind(&["--bind", "0.0.0.0:9"], &[]), Err(ConfigError::NoServer("--bind"))));
        assert!(matches!(bind(&[], &[("KVASS_SERVER", "maybe")]), Err(ConfigError::Server(_))));
    }

    #[test]
    fn the_reserve_has_a_least() {
        let config = resolve(&["--db", "/a", "--reserve", "0"], &[]).unwrap();
        assert_eq!(config.options.reserve, RESERVE_MIN);
    }

    #[test]
    fn wrong_usage_is_one_line_and_exit_2() {
        for arguments in [&["--nonsense"][..], &["--log", "loud"], &["--value-max", "many"], &["--value-max", "0"]] {
            let error = resolve(&[&["--db", "/a"], arguments].concat(), &[]).unwrap_err();
            assert_eq!(error.exit(), 2, "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        let error = resolve(&["--db", "/a", "--log", "loud"], &[]).unwrap_err();
        assert_eq!(error.to_string(), "no log level 'loud': it is error, warn, info, debug or trace");
        assert_eq!(resolve(&["--version"], &[]).unwrap_err().exit(), 0);
    }
}
