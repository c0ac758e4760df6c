//! Problem documents (RFC 9457): the one form in which every error leaves the house.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use runtime_kernel::{Detail, Error, ErrorKind, Retry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says which problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// The stable, machine-readable name of the problem.
    pub code: String,
    /// Names the request in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What is wrong where, when known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Place>,
}

/// One thing wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// A JSON pointer into the body, or a parameter's name.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl From<&Detail> for Place {
    fn from(detail: &Detail) -> Self {
        Self { at: detail.at.clone(), message: detail.message.clone() }
    }
}

impl Problem {
    /// The document for an error; internal faults say nothing of their cause.
    pub fn of(error: &Error) -> Self {
        let kind = error.kind();
        Self {
            kind: "about:blank".to_owned(),
            title: kind.title().to_owned(),
            status: status(error).as_u16(),
            detail: error.message().to_owned(),
            code: error.code().to_owned(),
            request_id: None,
            errors: error.details().iter().map(Place::from).collect(),
        }
    }
}

/// An error as a response: `Result<T, HttpError>` lets `?` end a handler with a problem document.
#[derive(Debug)]
pub struct HttpError(pub Error);

/// What handlers return.
pub type Result<T, E = HttpError> = std::result::Result<T, E>;

impl<E: Into<Error>> From<E> for HttpError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        respond(&self.0)
    }
}

/// Statuses that HTTP knows better than the error kinds do.
fn status(error: &Error) -> StatusCode {
    match error.code() {
        "http.method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "http.unsupported_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "http.head_too_large" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "http.body_timeout" => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Marks a response as a problem whose document still lacks the request id.
#[derive(Clone, Debug)]
pub(crate) struct Unsigned(pub(crate) Problem);

/// The response for an error.
pub(crate) fn respond(error: &Error) -> Response {
    if error.kind().is_server_fault() {
        tracing::error!(code = error.code(), error = %error.report(), "a request failed");
    }
    let problem = Problem::of(error);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status(error);
    let headers = response.headers_mut();
    if let Retry::After(wait) = error.retry() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.kind() == ErrorKind::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    write(&mut response, &problem);
    response.extensions_mut().insert(Unsigned(problem));
    response
}

fn write(response: &mut Response, problem: &Problem) {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    *response.body_mut() = Body::from(body);
}

/// Writes the document of a problem response again, with the request's id, unless a layer has encoded it since.
pub(crate) fn sign(response: &mut Response, request_id: &HeaderValue) {
    let Some(Unsigned(mut problem)) = response.extensions_mut().remove::<Unsigned>() else { return };
    if response.headers().contains_key(CONTENT_ENCODING) {
        return;
    }
    problem.request_id = request_id.to_str().ok().map(ToOwned::to_owned);
    response.headers_mut().remove(CONTENT_LENGTH);
    write(response, &problem);
}
