//! A connection with somebody who listens.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Hears what comes on a connection.
pub(crate) trait Tap {
    /// Says whether more may come.
    ///
    /// # Errors
    /// What the connection then fails with.
    fn allows(&self) -> io::Result<()> {
        Ok(())
    }

    /// Hears bytes that have come.
    fn hear(&mut self, bytes: &[u8]);
}

/// A connection, and who listens to what comes on it. What goes out passes unheard.
pub(crate) struct Tapped<W, T> {
    wire: W,
    tap: T,
    /// A byte that was looked at and not taken.
    seen: Option<u8>,
    /// Why a write failed, until the last words were heard.
    failed: Option<io::Error>,
}

impl<W, T> Tapped<W, T> {
    pub(crate) fn new(wire: W, tap: T) -> Self {
        Self { wire, tap, seen: None, failed: None }
    }
}

impl<W: AsyncRead + Unpin, T: Tap + Unpin> Tapped<W, T> {
    /// The next byte, which stays to be read; `None` at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.seen.is_none() {
            let mut byte = [0];
            self.seen = (self.read(&mut byte).await? > 0).then_some(byte[0]);
        }
        Ok(self.seen)
    }
}

impl<W: AsyncRead + Unpin, T: Tap + Unpin> AsyncRead for Tapped<W, T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(byte) = self.seen.take()
        {
            buf.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        self.tap.allows()?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(context, buf))?;
        self.tap.hear(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin, T: Tap + Unpin> Tapped<W, T> {
    /// Writes. Somebody who takes nothing any more may have said why, and nobody reads on after a failed write: so it
    /// fails only once the last words were heard, for which a broken connection lets nobody wait.
    fn poll_write_by(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut W>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_none() {
            match ready!(write(Pin::new(&mut self.wire), context)) {
                Err(error) => self.failed = Some(error),
                written => return Poll::Ready(written),
            }
        }
        let mut bytes = [0; 1024];
        let mut buf = ReadBuf::new(&mut bytes);
        if ready!(Pin::new(&mut self.wire).poll_read(context, &mut buf)).is_ok() {
            self.tap.hear(buf.filled());
        }
        Poll::Ready(Err(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin, T: Tap + Unpin> AsyncWrite for Tapped<W, T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |wire, context| wire.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(context, |wire, context| wire.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
