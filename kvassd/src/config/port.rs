//! What is said about the server's port, beside its address.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{ConfigError, absolute};
use crate::accept::{Files, Proxies};

/// The settings of the port for devices.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// Its certificate and key; `None`: it speaks plain HTTP.
    pub tls: Option<Files>,
    /// Connections at once; `None`: as many as the limit of descriptors allows.
    pub connections: Option<usize>,
    /// Who is believed for whom it asks.
    pub proxies: Proxies,
}

#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Flags {
    /// The certificate of the port in PEM, for https; read again at SIGHUP (KVASS_TLS_CERT)
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM (KVASS_TLS_KEY)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The most connections at once (KVASS_CONNECTIONS) [default: by the limit of descriptors, at most 10000]
    #[arg(long, value_name = "N")]
    connections: Option<String>,
    /// Proxies that are believed in X-Forwarded-For: addresses, or ranges as 10.0.0.0/8 (KVASS_PROXY)
    #[arg(long, value_name = "ADDR[/BITS],…")]
    proxy: Option<String>,
}

impl Flags {
    /// The name of a flag that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let Self { tls_cert, tls_key, connections, proxy } = self;
        let all = [
            ("--tls-cert", tls_cert.is_some()),
            ("--tls-key", tls_key.is_some()),
            ("--connections", connections.is_some()),
            ("--proxy", proxy.is_some()),
        ];
        all.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }
}

impl Port {
    pub(super) fn resolve(flags: Flags, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let file = |flag: Option<PathBuf>, name: &str| {
            flag.or_else(|| variable(name).map(PathBuf::from)).as_deref().map(absolute as fn(&Path) -> _).transpose()
        };
        let tls = match (file(flags.tls_cert, "KVASS_TLS_CERT")?, file(flags.tls_key, "KVASS_TLS_KEY")?) {
            (Some(certificate), Some(key)) => Some(Files { certificate, key }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfTls),
        };
        let connections = flags.connections.or_else(|| text("KVASS_CONNECTIONS")).map(connections).transpose()?;
        let proxies = flags.proxy.or_else(|| text("KVASS_PROXY")).unwrap_or_default().parse()?;
        Ok(Self { tls, connections, proxies })
    }
}

fn connections(text: String) -> Result<usize, ConfigError> {
    text.parse().ok().filter(|number| *number > 0).ok_or(ConfigError::Connections(text))
}
