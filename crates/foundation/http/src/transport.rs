//! A connection's bytes: cut when a head does not end or nothing is taken of an answer, and never a bare refusal.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use runtime_kernel::{Error, ErrorKind, RequestId, SharedClock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::problem::{PROBLEM_JSON, Problem};
use crate::receive::Activity;

/// How much of a request nobody wants is read before the connection is closed, and for how long.
///
/// Closing with bytes unread resets the connection, which may destroy the refusal on its way (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 1 << 20;

/// The beginning of the HTTP/2 preface (RFC 9113 §3.4), which no HTTP/1.1 request shares.
const PREFACE: &[u8] = b"PRI";

/// A stream of bytes between hyper and the socket.
pub(crate) struct Transport<T> {
    inner: T,
    activity: Arc<Activity>,
    clock: SharedClock,
    header_timeout: Duration,
    write_timeout: Duration,
    version: Version,
    /// A head has begun to arrive while so many requests had begun.
    head: Option<usize>,
    head_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    linger_timer: Option<Pin<Box<Sleep>>>,
    lingered: usize,
    /// What is written in place of hyper's own refusal.
    refusal: Bytes,
}

enum Version {
    /// So many bytes of the preface have been seen.
    Unknown(usize),
    Http1,
    Http2,
}

impl<T> Transport<T> {
    pub(crate) fn new(
        inner: T,
        activity: Arc<Activity>,
        clock: SharedClock,
        header_timeout: Duration,
        write_timeout: Duration,
    ) -> Self {
        Self {
            inner,
            activity,
            clock,
            header_timeout,
            write_timeout,
            version: Version::Unknown(0),
            head: None,
            head_timer: None,
            write_timer: None,
            linger_timer: None,
            lingered: 0,
            refusal: Bytes::new(),
        }
    }

    /// Looks at bytes as they arrive: which version it is, and whether they begin a head.
    fn arrived(&mut self, bytes: &[u8]) {
        if let Version::Unknown(seen) = self.version {
            let expected = PREFACE.get(seen..).unwrap_or_default();
            let common = expected.len().min(bytes.len());
            self.version = if bytes.get(..common) != expected.get(..common) {
                Version::Http1
            } else if common == expected.len() {
                Version::Http2
            } else {
                Version::Unknown(seen + common)
            };
        }
        if !bytes.is_empty() && self.activity.running.load(Ordering::Relaxed) == 0 {
            self.head = Some(self.activity.begun.load(Ordering::Relaxed));
        }
    }

    /// Nothing more has arrived: how long may this go on? No timer is set unless a head has begun and not ended.
    fn head_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = self.head == Some(self.activity.begun.load(Ordering::Relaxed));
        if !waiting || matches!(self.version, Version::Http2) {
            self.head = None;
            self.head_timer = None;
            return false;
        }
        let timeout = self.header_timeout;
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).is_ready()
    }

    /// The peer takes nothing: how long may this go on?
    fn write_overdue<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if timer.as_mut().poll(cx).is_ready() { Poll::Ready(Err(timed_out())) } else { Poll::Pending }
    }

    /// The answer to put in place of one that hyper wrote by itself, because no request could be read.
    ///
    /// While an answer of ours is on its way nothing is looked at, so that no body can be taken for such a head.
    fn instead_of(&self, bytes: &[u8]) -> Option<Bytes> {
        if !bytes.starts_with(b"HTTP/1.1 4") || self.activity.answering.load(Ordering::Relaxed) {
            return None;
        }
        let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
        let (before, after) = head.split_once("\r\ncontent-length: 0")?;
        let status: u16 = head.get(9..12)?.parse().ok()?;
        let (kind, code, message) = match status {
            431 => {
                (ErrorKind::TooLarge, "http.head_too_large", "the request head is larger than is accepted")
            }
            414 => {
                (ErrorKind::TooLarge, "http.uri_too_long", "the request target is longer than is accepted")
            }
            _ => (ErrorKind::Invalid, "http.malformed", "this is not an HTTP request"),
        };
        let id = RequestId::new(&*self.clock).to_string();
        let mut problem = Problem::of(&Error::new(kind, code, message));
        problem.status = status;
        problem.request_id = Some(id.clone());
        let body = serde_json::to_string(&problem).ok()?;
        let length = body.len();
        let answer = format!(
            "{before}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {length}\r\nx-request-id: {id}{after}\r\n\r\n{body}"
        );
        Some(answer.into())
    }
}

impl<T: AsyncWrite + Unpin> Transport<T> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.refusal.has_remaining() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.refusal);
            let written = ready!(self.write_overdue(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Transport<T> {
    /// Reads what the peer still sends of a request that was refused, within bounds.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 8192];
        let timer = self.linger_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        while timer.as_mut().poll(cx).is_pending() && self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.lingered += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Transport<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        match read {
            Poll::Ready(Ok(())) => this.arrived(buffer.filled().get(before..).unwrap_or_default()),
            Poll::Pending if this.head.is_some() && this.head_overdue(cx) => {
                return Poll::Ready(Err(timed_out()));
            }
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_refusal(cx))?;
        if let Some(refusal) = self.instead_of(bytes) {
            self.refusal = refusal;
            self.activity.linger.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.write_overdue(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.activity.answering.load(Ordering::Relaxed) || self.refusal.has_remaining() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.write_overdue(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // hyper flushes once it has written all it had: an answer whose body has ended is then wholly on its way.
        if flushed.is_ready() && self.activity.running.load(Ordering::Relaxed) == 0 {
            self.activity.answering.store(false, Ordering::Relaxed);
        }
        self.write_overdue(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        if self.activity.linger.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
