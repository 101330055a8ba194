//! TLS to a remote: whom to trust, and in words why somebody is not trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::network::Wire;

/// Whom a remote's certificate may come from: the authorities that the system trusts, and those of a PEM file.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Read at each connection, so that a new file counts at once.
    pub file: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TlsError {
    #[error("the certificate of {0} comes from an authority that is not trusted here")]
    Untrusted(String),
    #[error("the certificate of {0} is that of an authority, and not of a server")]
    Authority(String),
    #[error("the certificate that answers at {0} is for other names")]
    Name(String),
    #[error("the certificate of {0} has expired")]
    Expired(String),
    #[error("the certificate of {0} is not valid yet; or the clock here is slow")]
    Early(String),
    #[error("the certificate of {host} does not verify")]
    Certificate { host: String, source: Error },
    #[error("{0} does not speak TLS")]
    Plain(String),
    #[error("{host} ends the TLS handshake")]
    Handshake { host: String, source: io::Error },
    #[error("{0} offers no HTTP/2")]
    NoHttp2(String),
    #[error("the authorities in {path} cannot be read")]
    File { path: PathBuf, source: pem::Error },
    #[error("there is no certificate in {0}")]
    Empty(PathBuf),
    #[error("this system trusts no authority")]
    NoAuthority,
}

impl TlsError {
    pub(super) fn hint(&self) -> &str {
        match self {
            Self::Untrusted(_) => "for an authority of your own: KVASS_CA=FILE.pem, then 'kvass daemon restart'",
            Self::Authority(_) => "the server needs a certificate with 'CA:FALSE', which the authority has signed",
            Self::Name(_) => "name the remote as its certificate does",
            Self::Plain(_) => "without TLS it is http://",
            Self::NoHttp2(_) => "the proxy there has to offer h2, and to pass gRPC on",
            Self::NoAuthority => "install ca-certificates, or name authorities: KVASS_CA=FILE.pem",
            Self::File { .. } | Self::Empty(_) => "KVASS_CA names a file of certificates in PEM",
            _ => "",
        }
    }
}

/// Makes a connection a secure one to a host, with HTTP/2 in it.
pub(super) async fn secure(wire: Box<dyn Wire>, host: &str, trust: &Trust) -> Result<Box<dyn Wire>, TlsError> {
    let trust = trust.clone();
    #[allow(clippy::expect_used, reason = "a panic in it is a bug, and ends whoever waits as well")]
    let config = tokio::task::spawn_blocking(move || config(&trust)).await.expect("reading authorities does not panic");
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let secured = TlsConnector::from(Arc::new(config?)).connect(name, wire).await;
    let secured = secured.map_err(|error| failed(host, error))?;
    match secured.get_ref().1.alpn_protocol() {
        Some(b"h2") => Ok(Box::new(secured)),
        _ => Err(TlsError::NoHttp2(host.to_owned())),
    }
}

fn config(trust: &Trust) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // What does not parse is of no use to anybody; most systems have some of that.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &trust.file {
        let certificates = read(path)?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(TlsError::Empty(path.clone()));
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    #[allow(clippy::expect_used, reason = "the provider has what both versions need")]
    let builder = builder.with_safe_default_protocol_versions().expect("ciphers for TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn failed(host: &str, error: io::Error) -> TlsError {
    let host = host.to_owned();
    match error.get_ref().and_then(|inside| inside.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => TlsError::Plain(host),
        Some(
            Error::NoApplicationProtocol
            | Error::AlertReceived(tokio_rustls::rustls::AlertDescription::NoApplicationProtocol),
        ) => TlsError::NoHttp2(host),
        Some(Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::Untrusted(host),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsError::Name(host),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired(host),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsError::Early(host),
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                TlsError::Authority(host)
            }
            _ => TlsError::Certificate { host, source: Error::InvalidCertificate(why.clone()) },
        },
        _ => TlsError::Handshake { host, source: error },
    }
}
