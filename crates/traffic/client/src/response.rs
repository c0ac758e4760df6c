//! An answer: its head at once, its body bit by bit and never more than allowed.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Deadline, SharedClock};
use serde::de::DeserializeOwned;
use url::Url;

use crate::client::{Call, Inner};
use crate::error::{ClientError, Phase};

/// An answer: its head at once, its body bit by bit. Dropping it drops the connection.
pub struct Response {
    inner: reqwest::Response,
    host: String,
    clock: SharedClock,
    deadline: Deadline,
    read_timeout: Duration,
    connect_timeout: Duration,
    limit: u64,
    seen: u64,
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
    ) -> Result<Self, ClientError> {
        let body_follows = call.hop.method != http::Method::HEAD;
        if body_follows && response.content_length().is_some_and(|length| length > call.limit) {
            return Err(ClientError::TooLarge { limit: ByteSize::bytes(call.limit) });
        }
        Ok(Self {
            inner: response,
            host: host.to_owned(),
            clock: SharedClock::clone(&client.clock),
            deadline: call.deadline,
            read_timeout: client.config.read_timeout,
            connect_timeout: client.config.connect_timeout,
            limit: call.limit,
            seen: 0,
        })
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Where the answer came from, after redirects.
    pub fn url(&self) -> &Url {
        self.inner.url()
    }

    /// The next piece of the body, unpacked; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] once the body exceeds its limit, [`ClientError::Timeout`] when it pauses too long,
    /// [`ClientError::Deadline`], [`ClientError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let left = self.deadline.remaining(&*self.clock);
        let pause = left.is_none_or(|left| self.read_timeout < left);
        let bound = if pause { Deadline::after(&*self.clock, self.read_timeout) } else { self.deadline };
        let late = if pause {
            ClientError::Timeout { phase: Phase::Read, after: self.read_timeout }
        } else {
            ClientError::Deadline
        };
        let read = bound.run(&*self.clock, self.inner.chunk()).await.map_err(|_| late)?;
        let chunk =
            read.map_err(|error| ClientError::from_reqwest(error, &self.host, self.connect_timeout))?;
        if let Some(chunk) = &chunk {
            self.seen = self.seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if self.seen > self.limit {
                return Err(ClientError::TooLarge { limit: ByteSize::bytes(self.limit) });
            }
        }
        Ok(chunk)
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
