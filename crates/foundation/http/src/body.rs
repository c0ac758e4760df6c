//! Bodies: of requests, that end with an error when they grow too large or stall; of answers, that keep a request
//! running until they end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use runtime_kernel::{Error, ErrorKind};
use tokio::time::Sleep;

use crate::receive::Activity;

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
        activity: Arc<Activity>,
        ended: bool,
    }

    impl<B> PinnedDrop for Limited<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.ended {
                this.activity.linger.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl<B> Limited<B> {
    pub(crate) fn new(inner: B, limit: u64, stall: Duration, activity: &Arc<Activity>) -> Self {
        Self { inner, left: limit, limit, stall, timer: None, activity: Arc::clone(activity), ended: false }
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
        let frame = match this.inner.as_mut().poll_frame(cx) {
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
        let Some(frame) = frame else {
            *this.ended = true;
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into);
        if let Ok(frame) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => {
                    *this.left = left;
                    *this.ended = this.inner.is_end_stream();
                }
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

/// Counts a request as running until its answer's body has ended or its caller has gone.
pub(crate) struct Running(Arc<Activity>);

impl Running {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        activity.answering.store(true, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    /// Whether no request is taken on this connection after this one.
    pub(crate) fn is_last(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// An answer's body, which keeps its request running until it has ended.
    pub(crate) struct Answer {
        #[pin]
        inner: axum::body::Body,
        running: Option<Running>,
    }
}

impl Answer {
    pub(crate) fn new(inner: axum::body::Body, running: Option<Running>) -> Self {
        Self { inner, running }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
