//! A place between the client and the network: caches and recorded answers.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::error::ClientError;

/// A request on its way to the network.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a Method,
    /// The absolute URL.
    pub url: &'a Url,
    /// The headers; they may carry secrets.
    pub headers: &'a HeaderMap,
    /// The body; nothing when it is a stream.
    pub body: Option<&'a Bytes>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, unpacked.
    pub body: Bytes,
}

/// Stands between the client and the network, at every hop of every attempt, once the guard has let it pass.
#[async_trait]
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// The answer, if it needs no network.
    ///
    /// # Errors
    /// Ends the attempt.
    async fn answer(&self, request: Outgoing<'_>) -> Result<Option<Stored>, ClientError>;

    /// Whether [`keep`](Self::keep) wants this answer. If so its body is read whole, within the call's limit, before
    /// the caller sees its head.
    fn wants(&self, request: Outgoing<'_>, status: StatusCode, headers: &HeaderMap) -> bool;

    /// Takes a whole answer that came from the network.
    async fn keep(&self, request: Outgoing<'_>, answer: &Stored);
}
