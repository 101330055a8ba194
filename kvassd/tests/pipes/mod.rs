//! A network inside the process.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io;
use std::net::{IpAddr, SocketAddr};

use kvassd::network::{Accept, Connect, Wire};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// A network of one host.
#[derive(Clone)]
pub struct Pipes(mpsc::Sender<(DuplexStream, IpAddr)>);

/// Where the host accepts.
pub struct Listener(mpsc::Receiver<(DuplexStream, IpAddr)>);

pub fn network() -> (Pipes, Listener) {
    let (to, from) = mpsc::channel(16);
    (Pipes(to), Listener(from))
}

impl Pipes {
    pub async fn open(&self) -> io::Result<DuplexStream> {
        self.open_from([192, 0, 2, 1].into()).await
    }

    /// A connection that comes from this address.
    pub async fn open_from(&self, address: IpAddr) -> io::Result<DuplexStream> {
        let (near, far) = duplex(4_096);
        self.0.send((far, address)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

#[tonic::async_trait]
impl Connect for Pipes {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
        assert_eq!((host, port), ("server", 8000));
        Ok(Box::new(self.open().await?))
    }
}

impl Accept for Listener {
    type Wire = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.recv().await {
            Some((wire, address)) => Ok((wire, (address, 1).into())),
            None => std::future::pending().await,
        }
    }
}
