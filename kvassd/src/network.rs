//! The network as the rest sees it: somewhere to connect to, and somewhere to be connected to. TCP stands behind it in
//! the daemon, and something else may in a test.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection that carries bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Where connections are made.
#[tonic::async_trait]
pub trait Connect: Send + Sync {
    /// Connects to a port of a host: a name, an IPv4 address, or an IPv6 address without brackets.
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
        let stream = TcpStream::connect((host, port)).await?;
        // Frames are whole when they are written: waiting for more only delays them.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
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
