//! Extractors whose refusals are problem documents that name the place of the mistake.

use axum::extract::path::ErrorKind as PathError;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use runtime_kernel::{Context, Error, ErrorKind};
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};

use crate::problem::HttpError;

/// The request's [`Context`]: id, trace, deadline, principal, tenant.
#[derive(Clone, Debug)]
pub struct Ctx(pub Context);

impl<S: Send + Sync> FromRequestParts<S> for Ctx {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let missing =
            || HttpError(Error::internal("no Context: the router is not served by runtime_http::Server"));
        parts.extensions.get::<Context>().cloned().map(Self).ok_or_else(missing)
    }
}

/// A JSON body, in and out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> Result<Self, HttpError> {
        if !is_json(request.headers().get(CONTENT_TYPE)) {
            let message = "the body must be sent as `content-type: application/json`";
            return Err(HttpError(Error::new(ErrorKind::Invalid, "http.unsupported_media_type", message)));
        }
        // Not axum's `Bytes`, which stops at a limit of its own; the server limits the body.
        let body = request.into_body().collect().await.map_err(|error| unreadable(&error))?;
        let bytes = body.to_bytes();
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(Objects(&mut json)).map_err(|error| {
            let at = pointer(error.path());
            let what = error.inner().to_string();
            Error::new(
                ErrorKind::Invalid,
                "http.invalid_json",
                format!("the body is not what is expected: {what}"),
            )
            .with_detail(at, what)
        })?;
        json.end().map_err(|error| Error::new(ErrorKind::Invalid, "http.invalid_json", error.to_string()))?;
        Ok(Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response = Response::new(body.into());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => HttpError(Error::internal(error)).into_response(),
        }
    }
}

/// A typed JSON answer with a status.
impl<T: Serialize> Json<T> {
    /// The same with a status other than 200.
    pub fn status(self, status: StatusCode) -> Response {
        let mut response = self.into_response();
        *response.status_mut() = status;
        response
    }
}

/// The path's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let rejection = match path {
            Ok(path) => return Ok(Self(path.0)),
            Err(rejection) => rejection,
        };
        let what = rejection.body_text();
        let error = Error::new(ErrorKind::Invalid, "http.invalid_path", what.clone());
        let name = match named(&rejection) {
            Some(name) => Some(name),
            // A path with one parameter is read without its name; the mistake can only be there.
            None => RawPathParams::from_request_parts(parts, state).await.ok().and_then(|all| only(&all)),
        };
        Err(HttpError(match name {
            Some(name) => error.with_detail(name, what),
            None => error,
        }))
    }
}

/// The name of the path parameter that is wrong, when axum says it.
fn named(rejection: &PathRejection) -> Option<String> {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else { return None };
    match failed.kind() {
        PathError::ParseErrorAtKey { key, .. }
        | PathError::InvalidUtf8InPathParam { key }
        | PathError::DeserializeError { key, .. } => Some(key.clone()),
        _ => None,
    }
}

fn only(parameters: &RawPathParams) -> Option<String> {
    let mut names = parameters.iter().map(|(name, _)| name);
    names.next().filter(|_| names.next().is_none()).map(str::to_owned)
}

/// The query's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| {
            let what = rejection.body_text();
            let error = Error::new(ErrorKind::Invalid, "http.invalid_query", what.clone());
            match at(&rejection) {
                Some(name) => HttpError(error.with_detail(name, what)),
                None => HttpError(error),
            }
        })
    }
}

/// The name of the query parameter that is wrong: serde's path to it, or the one it misses.
fn at(rejection: &QueryRejection) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(rejection);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<serde_path_to_error::Error<serde::de::value::Error>>() {
            let path = error.path().to_string();
            if path != "." {
                return Some(path);
            }
            // serde names a missing field in its message only.
            let message = error.inner().to_string();
            return message
                .strip_prefix("missing field `")
                .and_then(|rest| rest.split('`').next())
                .map(str::to_owned);
        }
        cause = error.source();
    }
    None
}

/// RFC 6839: `application/json` and everything `+json`.
fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let Some(text) = content_type.and_then(|value| value.to_str().ok()) else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What broke the body, if it was one of our limits.
fn unreadable(rejection: &(dyn std::error::Error + 'static)) -> HttpError {
    let mut cause = Some(rejection);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return HttpError(Error::new(ours.kind(), ours.code().to_owned(), ours.message().to_owned()));
        }
        cause = error.source();
    }
    HttpError(Error::new(ErrorKind::Invalid, "http.body_unreadable", "the request body could not be read"))
}

/// Takes a struct from an object only. serde would take an array too, field by field in an order nobody promised.
struct Objects<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A JSON pointer (RFC 6901) from serde's path.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let text = match segment {
            serde_path_to_error::Segment::Seq { index } => index.to_string(),
            serde_path_to_error::Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            serde_path_to_error::Segment::Enum { variant } => variant.clone(),
            serde_path_to_error::Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&text);
    }
    pointer
}
