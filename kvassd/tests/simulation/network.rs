//! The simulated network as kvassd sees it, with connections that can be cut at any time, or behind a frame.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use kvassd::network::{Accept, Connect, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use turmoil::net::{TcpListener, TcpStream};

use crate::frames::Frames;
use crate::trap::Trap;

/// Which way frames go, as the machine sees it whose wires are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// What befalls a machine behind a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The connection is gone; the machine lives on.
    Cut,
    /// The machine is killed.
    Killed,
}

/// Something that happens once so many frames more have passed, on whatever connections.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    pub direction: Direction,
    /// At least 1.
    pub frames: u64,
    pub fate: Fate,
}

#[derive(Default)]
struct State {
    now: CancellationToken,
    next: Option<Boundary>,
    /// All frames so far, in and out.
    passed: [u64; 2],
}

/// Cuts the connections of one machine.
#[derive(Clone)]
pub struct Scissors {
    state: Arc<Mutex<State>>,
    trap: Arc<Trap>,
}

impl Scissors {
    /// Those of the machine that has this trap.
    pub fn new(trap: Arc<Trap>) -> Self {
        Self { state: Arc::default(), trap }
    }

    /// Resets all connections that are there now.
    pub fn cut(&self) {
        std::mem::take(&mut self.state.lock().unwrap().now).cancel();
    }

    /// Cuts, or kills, behind a frame; in place of what was to happen before.
    pub fn cut_behind(&self, boundary: Option<Boundary>) {
        self.state.lock().unwrap().next = boundary;
    }

    /// Whether that has not happened yet.
    pub fn is_set(&self) -> bool {
        self.state.lock().unwrap().next.is_some()
    }

    /// How many frames have come in, and gone out.
    pub fn passed(&self) -> [u64; 2] {
        self.state.lock().unwrap().passed
    }

    /// A frame has passed. Says whether the connection ends with it.
    fn pass(&self, direction: Direction) -> bool {
        let mut state = self.state.lock().unwrap();
        state.passed[direction as usize] += 1;
        let Some(boundary) = state.next.as_mut().filter(|boundary| boundary.direction == direction) else {
            return false;
        };
        boundary.frames -= 1;
        if boundary.frames > 0 {
            return false;
        }
        let fate = boundary.fate;
        state.next = None;
        drop(state);
        if fate == Fate::Killed {
            self.trap.spring();
        }
        true
    }

    fn wire(&self, stream: TcpStream, is_ours: bool) -> Cuttable {
        let cut = Box::pin(self.state.lock().unwrap().now.clone().cancelled_owned());
        let [come, gone] = [!is_ours, is_ours].map(Frames::new);
        Cuttable { stream, scissors: self.clone(), cut, come, gone, is_cut: false }
    }
}

#[tonic::async_trait]
impl Connect for Scissors {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Box::new(self.wire(stream, true)))
    }
}

/// A listener of the simulated network.
pub struct Listener {
    pub listener: TcpListener,
    pub scissors: Scissors,
}

impl Accept for Listener {
    type Wire = Cuttable;

    async fn accept(&mut self) -> io::Result<(Cuttable, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.scissors.wire(stream, false), peer))
    }
}

/// A connection that can be cut.
pub struct Cuttable {
    stream: TcpStream,
    scissors: Scissors,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    come: Frames,
    gone: Frames,
    is_cut: bool,
}

impl Cuttable {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Pending if !self.is_cut => Ok(()),
            _ => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    /// How many of the bytes that have come are taken: all, or those up to where the connection is cut.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(end) = self.come.next_end(&bytes[at..]) {
            at += end;
            if self.scissors.pass(Direction::In) {
                self.is_cut = true;
                return at;
            }
        }
        bytes.len()
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, to);
        let taken = self.take(&to.filled()[before..]);
        to.set_filled(before + taken);
        read
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        // One frame at a time, so that what is behind a cut is not written.
        let mut ahead = self.gone.clone();
        let end = ahead.next_end(from);
        let part = &from[..end.unwrap_or(from.len())];
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, part))?;
        if written < part.len() {
            self.gone.next_end(&part[..written]);
            return Poll::Ready(Ok(written));
        }
        self.gone = ahead;
        self.is_cut = end.is_some() && self.scissors.pass(Direction::Out);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
