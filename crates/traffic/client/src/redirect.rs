//! Where a redirect leads, and what may go along (RFC 9110 §15.4, Fetch §4.4).

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE,
    COOKIE, LOCATION, PROXY_AUTHORIZATION,
};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::body::Body;
use crate::error::ClientError;

/// One hop of a call.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Hop {
    /// The next hop, if the answer is a redirect that says where to.
    pub(crate) fn next(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Self>, ClientError> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = headers.get(LOCATION) else { return Ok(None) };
        let location = location.to_str().map_err(|_| ClientError::BadRedirect)?;
        let url = self.url.join(location).map_err(|_| ClientError::BadRedirect)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ClientError::BadRedirect);
        }
        let mut next = Self { url, ..self.clone() };
        let becomes_get = match status.as_u16() {
            303 => !matches!(self.method, Method::GET | Method::HEAD),
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = Body::EMPTY;
            for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION] {
                next.headers.remove(name);
            }
        }
        if next.url.origin() != self.url.origin() {
            for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                next.headers.remove(name);
            }
            for name in ["x-api-key", "cookie2"] {
                next.headers.remove(name);
            }
            next.headers.remove(http::header::HOST);
        }
        Ok(Some(next))
    }
}
