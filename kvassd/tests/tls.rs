//! Remotes behind TLS, over real sockets: a terminator in front of a real server, with certificates good and bad.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod authority;
mod device;
mod pipes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authority::{Authority, serving};
use device::Device;
use kvass_proto::line::with_causes;
use kvassd::accept::Door;
use kvassd::sync::remote::{Remote, RemoteError, Trust};
use kvassd::sync::server;
use pipes::{Pipes, network};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

impl Device {
    fn file(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("authorities.pem");
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn probe(&self, url: &str, file: Option<&Path>) -> Result<(), RemoteError> {
        Remote::new(self.store.clone(), Trust { file: file.map(Into::into) }).probe(url).await
    }
}

/// Ends TLS at a port, and carries what is in it to a server.
async fn terminate(config: ServerConfig, server: Pipes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((wire, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let mut inside = acceptor.accept(wire).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut server.open().await?).await
            });
        }
    });
    address
}

fn serve(device: &Device) -> Pipes {
    let (pipes, listener) = network();
    tokio::spawn(server::serve(Door::default(), device.store.clone(), listener, CancellationToken::new()));
    pipes
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_sync_through_tls_with_an_authority_of_ones_own() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let address = terminate(authority.signs("localhost", 4096), serve(&server)).await;
    device.store.set_remote(format!("https://localhost:{}", address.port())).unwrap();
    let file = device.file(&authority.0.pem());
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Remote::new(device.store.clone(), Trust { file: Some(file) }).run(stop.clone()));
    device.set("from the device", b"1").await;
    server.sees("from the device").await;
    server.set("from the server", b"2").await;
    device.sees("from the server").await;
    stop.cancel();
    keeping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_refused_in_words() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let pipes = serve(&server);
    let own = device.file(&authority.0.pem());
    let mut without = authority.signs("localhost", 4096);
    without.alpn_protocols.clear();
    let itself = serving(authority.0.der().clone(), authority.0.key());
    let other = Authority::new().signs("localhost", 4096);
    for (config, found, hint) in [
        (other, "the certificate of localhost comes from an authority that is not trusted here", "KVASS_CA=FILE.pem"),
        (
            authority.signs("other.example", 4096),
            "the certificate that answers at localhost is for other names",
            "name",
        ),
        (authority.signs("localhost", 2021), "the certificate of localhost has expired", ""),
        (itself, "the certificate of localhost is that of an authority, and not of a server", "CA:FALSE"),
        (without, "localhost offers no HTTP/2", "h2"),
    ] {
        let address = terminate(config, pipes.clone()).await;
        let error = device.probe(&format!("https://localhost:{}", address.port()), Some(&own)).await.unwrap_err();
        assert_eq!(with_causes(&error), found);
        assert!(error.hint().contains(hint), "{}", error.hint());
        assert!(!error.is_permanent(), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_named_authority_of_ones_own_is_trusted_and_a_wrong_file_is_named() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let address = terminate(authority.signs("localhost", 4096), serve(&server)).await;
    let url = format!("https://localhost:{}", address.port());
    assert!(device.probe(&url, None).await.is_err());
    let file = device.file("");
    let empty = device.probe(&url, Some(&file)).await.unwrap_err();
    assert_eq!(with_causes(&empty), format!("there is no certificate in {}", file.display()));
    // The file is read at each attempt.
    device.file(&authority.0.pem());
    device.probe(&url, Some(&file)).await.unwrap();
    let missing = device.probe(&url, Some(Path::new("/nowhere/authorities.pem"))).await.unwrap_err();
    assert!(
        with_causes(&missing).starts_with("the authorities in /nowhere/authorities.pem cannot be read: "),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_https_are_told_apart() {
    let (server, device, authority) = (Device::new(), Device::new(), Authority::new());
    let secure = terminate(authority.signs("localhost", 4096), serve(&server)).await;
    let error = device.probe(&format!("http://{secure}"), None).await.unwrap_err();
    assert_eq!(with_causes(&error), format!("http://{secure} expects https"));
    assert!(error.hint().contains("https://"), "{}", error.hint());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(server::serve(Door::default(), server.store.clone(), listener, CancellationToken::new()));
    let error = device.probe(&format!("https://localhost:{}", plain.port()), None).await.unwrap_err();
    assert_eq!(with_causes(&error), "localhost does not speak TLS");
    assert!(error.hint().contains("http://"), "{}", error.hint());
}
