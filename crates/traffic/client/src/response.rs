//! An answer: its head at once, its body bit by bit and never more than allowed.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Deadline, SharedClock};
use runtime_resilience::Place;
use serde::de::DeserializeOwned;
use url::Url;

use crate::client::{Call, Inner};
use crate::error::{ClientError, Phase};
use crate::hook::Stored;

/// An answer: its head at once, its body bit by bit. Dropping it drops the connection.
pub struct Response {
    inner: Source,
    /// Held until the body has been read: it is the connection's.
    place: Option<Place>,
    host: String,
    clock: SharedClock,
    deadline: Deadline,
    read_timeout: Duration,
    connect_timeout: Duration,
    limit: u64,
    seen: u64,
}

/// Where an answer comes from.
enum Source {
    Network(reqwest::Response),
    Stored { stored: Stored, url: Url },
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// Refuses at once what says itself that it is too large.
    pub(crate) fn new(
        response: reqwest::Response,
        host: &str,
        call: &Call,
        client: &Inner,
        place: Option<Place>,
    ) -> Result<Self, ClientError> {
        let body_follows = call.hop.method != http::Method::HEAD;
        if body_follows && response.content_length().is_some_and(|length| length > call.limit) {
            return Err(ClientError::TooLarge { limit: ByteSize::bytes(call.limit) });
        }
        Ok(Self::of(Source::Network(response), host, call, client, place))
    }

    /// An answer that needed no network.
    pub(crate) fn stored(
        stored: Stored,
        url: &Url,
        call: &Call,
        client: &Inner,
    ) -> Result<Self, ClientError> {
        if u64::try_from(stored.body.len()).is_ok_and(|length| length > call.limit) {
            return Err(ClientError::TooLarge { limit: ByteSize::bytes(call.limit) });
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        Ok(Self::of(Source::Stored { stored, url: url.clone() }, &host, call, client, None))
    }

    fn of(inner: Source, host: &str, call: &Call, client: &Inner, place: Option<Place>) -> Self {
        Self {
            inner,
            place,
            host: host.to_owned(),
            clock: SharedClock::clone(&client.clock),
            deadline: call.deadline,
            read_timeout: client.config.read_timeout,
            connect_timeout: client.config.connect_timeout,
            limit: call.limit,
            seen: 0,
        }
    }

    /// The whole answer, its body read, and where it came from.
    pub(crate) async fn into_stored(self) -> Result<(Stored, Url), ClientError> {
        let (status, headers, url) = (self.status(), self.headers().clone(), self.url().clone());
        let body = self.bytes().await?;
        Ok((Stored { status, headers, body }, url))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        match &self.inner {
            Source::Network(response) => response.status(),
            Source::Stored { stored, .. } => stored.status,
        }
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        match &self.inner {
            Source::Network(response) => response.headers(),
            Source::Stored { stored, .. } => &stored.headers,
        }
    }

    /// Where the answer came from, after redirects.
    pub fn url(&self) -> &Url {
        match &self.inner {
            Source::Network(response) => response.url(),
            Source::Stored { url, .. } => url,
        }
    }

    /// The next piece of the body, unpacked; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] once the body exceeds its limit, [`ClientError::Timeout`] when it pauses too long,
    /// [`ClientError::Deadline`], [`ClientError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let response = match &mut self.inner {
            Source::Network(response) => response,
            Source::Stored { stored, .. } => {
                let body = std::mem::take(&mut stored.body);
                return Ok((!body.is_empty()).then_some(body));
            }
        };
        let left = self.deadline.remaining(&*self.clock);
        let pause = left.is_none_or(|left| self.read_timeout < left);
        let bound = if pause { Deadline::after(&*self.clock, self.read_timeout) } else { self.deadline };
        let late = if pause {
            ClientError::Timeout { phase: Phase::Read, after: self.read_timeout }
        } else {
            ClientError::Deadline
        };
        let read = bound.run(&*self.clock, response.chunk()).await.map_err(|_| late)?;
        let chunk =
            read.map_err(|error| ClientError::from_reqwest(error, &self.host, self.connect_timeout))?;
        if chunk.is_none() {
            self.place = None;
        }
        if let Some(chunk) = &chunk {
            self.seen = self.seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if self.seen > self.limit {
                return Err(ClientError::TooLarge { limit: ByteSize::bytes(self.limit) });
            }
        }
        Ok(chunk)
    }

    /// The body as a stream, under the same limits. It ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
        async_stream::try_stream! {
            let mut response = self;
            while let Some(chunk) = response.chunk().await? {
                yield chunk;
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Response::chunk`].
    pub async fn bytes(mut self) -> Result<Bytes, ClientError> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let mut whole = None;
        while let Some(next) = self.chunk().await? {
            whole.get_or_insert_with(|| BytesMut::from(first.as_ref())).extend_from_slice(&next);
        }
        Ok(whole.map_or(first, BytesMut::freeze))
    }

    /// The whole body as text; bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// As [`Response::chunk`].
    pub async fn text(self) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// As [`Response::chunk`], and [`ClientError::Decode`].
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.bytes().await?).map_err(ClientError::Decode)
    }
}
