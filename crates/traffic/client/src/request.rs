//! A request being put together.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Context, Deadline};
use runtime_resilience::RetryPolicy;
use serde::Serialize;
use url::Url;

use crate::body::Body;
use crate::client::{Call, Client};
use crate::error::ClientError;
use crate::redirect::Hop;
use crate::response::Response;

/// A request being put together. What is wrong with it is said by [`RequestBuilder::send`].
#[must_use = "a request does nothing until it is sent"]
#[derive(Debug)]
pub struct RequestBuilder {
    client: Client,
    method: Method,
    url: Result<Url, String>,
    headers: HeaderMap,
    body: Body,
    timeout: Option<Duration>,
    retry: Option<RetryPolicy>,
    repeatable: Option<bool>,
    limit: Option<ByteSize>,
    redirects: Option<u32>,
    wrong: Option<String>,
}

impl RequestBuilder {
    pub(crate) fn new(client: Client, method: Method, url: &str) -> Self {
        Self {
            client,
            method,
            url: check(url),
            headers: HeaderMap::new(),
            body: Body::EMPTY,
            timeout: None,
            retry: None,
            repeatable: None,
            limit: None,
            redirects: None,
            wrong: None,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            // The value is not repeated: it may be a secret.
            _ => self.wrong = Some(format!("header `{}` cannot be sent", name.escape_debug())),
        }
        self
    }

    /// Sets the body. It is kept in memory, so that it can be sent again.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// Sets a body that is sent as it comes. It is sent once: such a request is neither retried nor follows a redirect
    /// that would send it again.
    pub fn body_stream<S, E>(mut self, stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.body = Body::stream(stream);
        self
    }

    /// Sets a JSON body and its content type.
    pub fn json(mut self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = Body::Bytes(body.into()),
            Err(error) => self.wrong = Some(format!("the body is not JSON: {error}")),
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// Shortens or lengthens how long the whole call may take; never beyond the context's deadline. When it ends before
    /// that one, the breaker and the endpoints behind a name take it for a failure of the dependency, as
    /// [`ClientConfig::timeout`](crate::ClientConfig::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Retries under this policy instead of the client's.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Says whether the request may be repeated. Unless said, `GET`, `HEAD`, `PUT`, `DELETE`, `OPTIONS`, `TRACE` and
    /// whatever carries an `idempotency-key` may.
    pub fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = Some(repeatable);
        self
    }

    /// Sets the largest body of the answer, unpacked.
    pub fn max_response(mut self, limit: ByteSize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Follows at most so many redirects, up to 20, instead of the configured number; 0 hands the redirect itself back.
    pub fn redirects(mut self, most: u32) -> Self {
        self.redirects = Some(most.min(20));
        self
    }

    /// Sends it and waits for the answer's head; the body comes through [`Response`], under the same time limit.
    ///
    /// Any status is an answer. When retries are used up on statuses such as 503, the last such answer comes back.
    /// Cancel-safe: dropping the future drops the connection or the wait.
    ///
    /// # Errors
    /// [`ClientError`]: the request is not valid, the target refused, no connection, time-outs, redirects that do not end.
    pub async fn send(self, context: &Context) -> Result<Response, ClientError> {
        if let Some(wrong) = self.wrong {
            return Err(ClientError::Request(wrong));
        }
        let url = self.url.map_err(ClientError::Request)?;
        let inner = &self.client.inner;
        let own = Deadline::after(&*inner.clock, self.timeout.unwrap_or(inner.config.timeout));
        let deadline = context.deadline.narrow(own);
        let call = Call {
            hop: Hop { method: self.method, url, headers: self.headers, body: self.body },
            retry: self.retry,
            repeatable: self.repeatable,
            deadline,
            own: deadline != context.deadline,
            limit: self.limit.unwrap_or(inner.config.max_response).as_u64(),
            redirects: self.redirects.unwrap_or(inner.config.max_redirects),
            last: Mutex::default(),
        };
        self.client.call(context, call).await
    }
}

/// The URL is not quoted: its query may carry a secret.
fn check(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("the URL cannot be read: {error}"))?;
    if !url.has_host() {
        return Err("the URL names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL carries credentials: send a header instead".to_owned());
    }
    Ok(url)
}
