//! TLS at the port, with a certificate and its key from two files that can be read again while the port is open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};

use crate::given;
use crate::network::{Tap, Tapped, Wire};

/// What plain HTTP hears at a port that speaks TLS. Devices look for the last word, see `sync/connect/heard.rs`.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    this port speaks HTTPS\n";

/// Where a certificate and its key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why files are of no use for TLS.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CertificateError {
    #[error("the file {path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the file {path} is no PEM")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("there is no certificate in {0}")]
    NoCertificate(PathBuf),
    #[error("there is no private key in {0}")]
    NoKey(PathBuf),
    #[error("the private key in {0} is encrypted")]
    Encrypted(PathBuf),
    #[error("the key in {key} does not fit the certificate in {certificate}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate in {certificate} or the key in {key} is of no use")]
    Useless { certificate: PathBuf, key: PathBuf, source: Error },
}

impl CertificateError {
    /// What to do about it, or nothing.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::NoCertificate(_) => "--tls-cert names the certificate in PEM, with those of its authority behind it",
            Self::NoKey(_) => "--tls-key names the private key in PEM",
            Self::Encrypted(_) => {
                "openssl pkey -in FILE -out OTHER takes the passphrase off; keep the file at mode 0600"
            }
            _ => "",
        }
    }
}

/// The TLS of a port. A cheap clone.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// Files that are not there, or hold nothing of use.
    pub fn open(files: Files) -> Result<Self, CertificateError> {
        let config = config(&files)?;
        Ok(Self { files: Arc::new(files), config: Arc::new(RwLock::new(Arc::new(config))) })
    }

    /// Reads both again, for connections that come from now on. Blocks.
    ///
    /// # Errors
    /// Likewise; what was read before stays in force.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let config = Arc::new(config(&self.files)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Makes a connection a secure one. Who speaks plain HTTP is told so, which leaves nothing to serve.
    pub(super) async fn secure<W, T>(&self, mut wire: Tapped<W, T>) -> io::Result<Option<Box<dyn Wire>>>
    where
        W: Wire + 'static,
        T: Tap + Unpin + Send + 'static,
    {
        match wire.peek().await? {
            None => Ok(None),
            // A request begins with its method, in capitals, and TLS with the byte 22.
            Some(first) if first.is_ascii_uppercase() => refuse(wire).await.map(|()| None),
            Some(_) => {
                let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
                let secured = TlsAcceptor::from(config).accept(wire).await?;
                Ok(Some(Box::new(secured)))
            }
        }
    }
}

async fn refuse(mut wire: impl Wire) -> io::Result<()> {
    wire.write_all(PLAIN).await?;
    wire.shutdown().await?;
    // A connection that is closed before it is read to its end is reset, and then nobody sees the answer.
    copy(&mut wire, &mut sink()).await.map(drop)
}

fn config(files: &Files) -> Result<ServerConfig, CertificateError> {
    let Files { certificate, key } = files;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    #[allow(clippy::expect_used, reason = "the provider has what both versions need")]
    let builder = builder.with_safe_default_protocol_versions().expect("ciphers for TLS 1.2 and 1.3");
    let config = builder.with_no_client_auth().with_single_cert(chain(certificate)?, private_key(key)?);
    let mut config = config.map_err(|source| match source {
        Error::InconsistentKeys(_) => CertificateError::Mismatch { certificate: certificate.clone(), key: key.clone() },
        source => CertificateError::Useless { certificate: certificate.clone(), key: key.clone(), source },
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |source| CertificateError::Pem { path: path.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(CertificateError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = zeroize::Zeroizing::new(read(path)?);
    given::warn_of_others(path);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if has(&text, b"ENCRYPTED") => CertificateError::Encrypted(path.to_owned()),
        pem::Error::NoItemsFound => CertificateError::NoKey(path.to_owned()),
        source => CertificateError::Pem { path: path.to_owned(), source },
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}
