//! A request body that ends with an error when it grows too large or stalls.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use runtime_kernel::{Error, ErrorKind};
use tokio::time::Sleep;

pin_project! {
    /// The body, counted and timed. No timer is set while bytes keep coming.
    pub(crate) struct Limited<B> {
        #[pin]
        inner: B,
        left: u64,
        limit: u64,
        stall: Duration,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<B> Limited<B> {
    pub(crate) fn new(inner: B, limit: u64, stall: Duration) -> Self {
        Self { inner, left: limit, limit, stall, timer: None }
    }
}

/// The error of a body over its limit.
pub(crate) fn too_large(limit: u64) -> Error {
    let message = format!("the request body is larger than {limit} bytes");
    Error::new(ErrorKind::TooLarge, "http.body_too_large", message)
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let frame = match this.inner.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer.set(Some(tokio::time::sleep(*this.stall)));
                }
                let stalled = this.timer.as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
                if !stalled {
                    return Poll::Pending;
                }
                let message = "the request body stalled";
                let error = Error::new(ErrorKind::Timeout, "http.body_timeout", message);
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        this.timer.set(None);
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(Into::into);
        if let Ok(frame) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => *this.left = left,
                None => return Poll::Ready(Some(Err(too_large(*this.limit).into()))),
            }
        }
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
