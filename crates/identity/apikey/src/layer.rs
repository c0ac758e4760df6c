//! API keys at the door of an HTTP service: a `tower` layer for the phase that identifies the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use axum::body::Body;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use runtime_kernel::{Classify, Context, Error};
use tower::{Layer, Service};

use crate::authenticator::{Authenticator, Verified};
use crate::error::{KeyError, Rejection};

/// Reads `authorization: Bearer rt_…` or `x-api-key`, proves the key, and puts its principal into the request's
/// [`Context`] (in the extensions) and the [`Verified`] key beside it, as `Arc<Verified>`.
///
/// A request without a key goes on as it is: the route decides whether that will do. A bearer token that is no API
/// key is left to whoever understands it. A key that does not hold is answered with 401 and a problem document
/// (RFC 9457) at once, one in two places with 400, and with 503 when the store cannot be asked.
#[derive(Clone, Debug)]
pub struct ApiKeyLayer {
    authenticator: Authenticator,
}

impl ApiKeyLayer {
    /// A layer that asks this authenticator.
    pub fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }
}

impl<S> Layer<S> for ApiKeyLayer {
    type Service = ApiKeyService<S>;

    fn layer(&self, inner: S) -> ApiKeyService<S> {
        ApiKeyService { inner, authenticator: self.authenticator.clone() }
    }
}

/// The service [`ApiKeyLayer`] makes.
#[derive(Clone, Debug)]
pub struct ApiKeyService<S> {
    inner: S,
    authenticator: Authenticator,
}

type Proving = Pin<Box<dyn Future<Output = Result<Arc<Verified>, KeyError>> + Send>>;

pin_project! {
    /// The future of [`ApiKeyService`]: allocates only when there is a key to prove.
    pub struct ApiKeyFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Proving { proving: Proving, next: Option<(S, Request<B>)> },
        Calling { #[pin] call: S::Future },
        Refused { answer: Option<Response<Body>> },
    }
}

impl<S, B> From<State<S, B>> for ApiKeyFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn from(state: State<S, B>) -> Self {
        Self { state }
    }
}

impl<S, B> Service<Request<B>> for ApiKeyService<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ApiKeyFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let text = match presented(request.headers()) {
            Ok(None) => return State::Calling { call: self.inner.call(request) }.into(),
            Ok(Some(text)) => text.to_owned(),
            Err(rejection) => {
                return State::Refused {
                    answer: Some(refuse(&KeyError::Rejected(rejection), request.extensions().get())),
                }
                .into();
            }
        };
        // The instance that was polled ready is the one that is called later.
        let fresh = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, fresh);
        let authenticator = self.authenticator.clone();
        let proving: Proving = Box::pin(async move { authenticator.authenticate(&text).await });
        State::Proving { proving, next: Some((ready, request)) }.into()
    }
}

impl<S, B> std::fmt::Debug for ApiKeyFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeyFuture")
    }
}

impl<S, B> Future for ApiKeyFuture<S, B>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                Projected::Calling { call } => return call.poll(cx),
                Projected::Refused { answer } => {
                    // Polled again after its answer, like any finished future: never ready.
                    return answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
                }
                Projected::Proving { proving, next } => {
                    match (ready!(proving.as_mut().poll(cx)), next.take()) {
                        (Ok(verified), Some((mut service, mut request))) => {
                            admit(&mut request, verified);
                            State::Calling { call: service.call(request) }
                        }
                        (Err(error), next) => {
                            let context = next.as_ref().and_then(|(_, request)| request.extensions().get());
                            State::Refused { answer: Some(refuse(&error, context)) }
                        }
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
            };
            state.set(next);
        }
    }
}

fn admit<B>(request: &mut Request<B>, verified: Arc<Verified>) {
    if let Some(context) = request.extensions_mut().get_mut::<Context>() {
        context.principal = Some(Arc::clone(&verified.principal));
    }
    request.extensions_mut().insert(verified);
}

/// The one key a request carries, if it carries one.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let bearer = single(headers, AUTHORIZATION.as_str())?.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        // Another kind of token is somebody else's to judge.
        (scheme.eq_ignore_ascii_case("bearer") && token.starts_with("rt_")).then_some(token)
    });
    match (bearer, single(headers, "x-api-key")?) {
        (Some(bearer), Some(key)) if bearer != key => Err(Rejection::Ambiguous),
        (bearer, key) => Ok(bearer.or(key)),
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Rejection::Ambiguous);
    }
    first.map(|value| value.to_str().map_err(|_| Rejection::Malformed)).transpose()
}

fn refuse(error: &KeyError, context: Option<&Context>) -> Response<Body> {
    let (kind, code) = (error.kind(), error.code());
    let detail = match error {
        KeyError::Rejected(rejection) => rejection.to_string(),
        _ => "the API key could not be checked; try again".to_owned(),
    };
    let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": kind.title(),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "request_id": context.map(|context| context.request_id.to_string()),
    });
    let mut response = Response::new(Body::from(problem.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 §3.1
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    response
}

/// What a route answers that needs a caller and got none: 401, with the challenge of RFC 6750 §3.
///
/// ```
/// # use runtime_kernel::{Clock, Context, Source, SystemClock};
/// let context = Context::new(Source::Http, &SystemClock);
/// let error = runtime_apikey::require(&context).unwrap_err();
/// assert_eq!((error.kind().http_status(), error.code()), (401, "auth.required"));
/// ```
///
/// # Errors
/// [`runtime_kernel::ErrorKind::Unauthenticated`] without a principal.
pub fn require(context: &Context) -> Result<&runtime_kernel::Principal, Error> {
    context.principal.as_deref().ok_or_else(|| {
        Error::new(runtime_kernel::ErrorKind::Unauthenticated, "auth.required", "an API key is required")
    })
}
