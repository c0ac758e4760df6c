//! Streams and bodies at the pace of a throttle.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::throttle::Throttle;

pin_project! {
    /// A byte stream or body at the pace of a [`Throttle`]. Chunks larger than the burst are passed in parts, so that
    /// what leaves is as even as the throttle says; nothing is copied.
    pub struct Throttled<S> {
        #[pin]
        inner: S,
        throttle: Throttle,
        // What has been read and may not pass yet.
        held: Bytes,
        // How much of it is being waited for.
        part: usize,
        waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    }
}

impl<S: fmt::Debug> fmt::Debug for Throttled<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled")
            .field("inner", &self.inner)
            .field("throttle", &self.throttle)
            .finish_non_exhaustive()
    }
}

impl Throttle {
    /// This stream or body at our pace. One that is not read while it waits holds the others up for its one part, at most
    /// the burst, and no longer; it comes next when it is read again.
    pub fn pace<S>(&self, stream: S) -> Throttled<S> {
        Throttled { inner: stream, throttle: self.clone(), held: Bytes::new(), part: 0, waiting: None }
    }
}

/// The next part of what is held, once it may pass.
fn next_part(
    throttle: &Throttle,
    held: &mut Bytes,
    part: &mut usize,
    waiting: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    cx: &mut Context<'_>,
) -> Poll<Bytes> {
    if waiting.is_none() {
        let most = usize::try_from(throttle.burst()).unwrap_or(usize::MAX);
        *part = held.len().min(most);
        let units = u64::try_from(*part).unwrap_or(u64::MAX);
        if !(throttle.is_free() && throttle.take_now(units).is_ok()) {
            let throttle = throttle.clone();
            *waiting = Some(Box::pin(async move { throttle.take(units).await }));
        }
    }
    if let Some(wait) = waiting {
        ready!(wait.as_mut().poll(cx));
        *waiting = None;
    }
    Poll::Ready(held.split_to(*part))
}

impl<S, E> Stream for Throttled<S>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    type Item = Result<Bytes, E>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        while this.held.is_empty() {
            match ready!(this.inner.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => *this.held = bytes,
                other => return Poll::Ready(other),
            }
        }
        next_part(this.throttle, this.held, this.part, this.waiting, cx).map(|part| Some(Ok(part)))
    }
}

impl<B> Body for Throttled<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        while this.held.is_empty() {
            match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => *this.held = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let part = next_part(this.throttle, this.held, this.part, this.waiting, cx);
        part.map(|part| Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.inner.size_hint(), u64::try_from(self.held.len()).unwrap_or(0));
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(held)) {
            hint.set_upper(upper);
        }
        hint
    }
}
