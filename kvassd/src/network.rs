//! The network as the rest sees it: somewhere to connect to, and somewhere to be connected to. TCP stands behind it in
//! the daemon, and something else may in a test.

mod tapped;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) use self::tapped::{Tap, Tapped};

/// How long one address of a host is tried alone.
const START: Duration = Duration::from_millis(250);

/// A connection that carries bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Where connections are made.
#[tonic::async_trait]
pub trait Connect: Send + Sync {
    /// Connects to a port of a host: a name, an IPv4 address, or an IPv6 address without brackets.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](io::ErrorKind::NotFound) where the name does not resolve, others where nobody is there.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>>;
}

/// Where connections are accepted.
pub trait Accept: Send + 'static {
    /// What a connection is here.
    type Wire: Wire + 'static;

    /// The next connection, and who made it. An error ends nothing: the next call may succeed.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Wire, SocketAddr)>> + Send;
}

/// TCP of this machine, with the names that its system resolves.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

#[tonic::async_trait]
impl Connect for Tcp {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
        let addresses =
            lookup_host((host, port)).await.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let stream = first(addresses).await?;
        // Frames are whole when they are written: waiting for more only delays them.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// The first connection that stands, of one to each address. Each has a short start on the next one, so that an address
/// of a family that leads nowhere keeps nobody waiting (RFC 8305).
async fn first(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let (mut attempts, mut failure) = (JoinSet::new(), io::Error::from(io::ErrorKind::NotFound));
    for address in addresses {
        attempts.spawn(TcpStream::connect(address));
        match timeout(START, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => failure = error,
            _ => {}
        }
    }
    while let Some(Ok(ended)) = attempts.join_next().await {
        match ended {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl Accept for TcpListener {
    type Wire = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Fails only where the peer is gone already, which shows at the first read.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}
