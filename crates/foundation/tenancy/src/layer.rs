//! The layer that gives HTTP requests their tenant.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use http::Request;
use pin_project_lite::pin_project;
use runtime_http::HttpError;
use runtime_http::axum::response::{IntoResponse, Response};
use runtime_kernel::Context;
use tower::{Layer, Service};

use crate::error::TenancyError;
use crate::hints::TenantHints;
use crate::resolver::{Requires, Resolved, TenantResolver};

/// Paths that answer whoever asks, whatever tenant they name.
const PROBES: &[&str] = &["/livez", "/readyz", "/startupz", "/healthz", "/metrics", "/openapi.json"];

/// Resolves the tenant of every request that has a proven principal, after authentication and before anything that
/// is kept per tenant. The [`Context`] in the request's extensions then names the tenant, and a [`Resolved`] lies
/// beside it.
///
/// A request without a principal passes with no tenant, its hints unread: it gets no further than public routes.
/// Probes pass likewise. Refusals are problem documents.
#[derive(Clone, Debug)]
pub struct TenantLayer {
    resolver: TenantResolver,
    requires: Requires,
    open: Arc<[String]>,
}

impl TenantLayer {
    /// A layer that requires what [`Requires::Usual`] says and leaves the probes alone.
    pub fn new(resolver: TenantResolver) -> Self {
        let open = PROBES.iter().map(|path| (*path).to_owned()).collect();
        Self { resolver, requires: Requires::Usual, open }
    }

    /// Requires something else.
    #[must_use]
    pub fn requires(mut self, requires: Requires) -> Self {
        self.requires = requires;
        self
    }

    /// Leaves these paths alone as well.
    #[must_use]
    pub fn except(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.open = self.open.iter().cloned().chain(paths.into_iter().map(Into::into)).collect();
        self
    }

    fn resolve<B>(&self, request: &Request<B>) -> Result<Option<Resolved>, TenancyError> {
        let Some(context) = request.extensions().get::<Context>() else { return Ok(None) };
        let Some(principal) = context.principal.as_deref() else { return Ok(None) };
        if self.open.iter().any(|path| path == request.uri().path()) {
            return Ok(None);
        }
        let headers = request.headers();
        let hints =
            TenantHints::from_headers(|name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes))?;
        let resolved = self.resolver.resolve(Some(principal), &hints, self.requires);
        if let Err(error) = &resolved {
            tracing::info!(principal = %principal.id, %error, "no tenant for this request");
        }
        resolved.map(Some)
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;

    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService { inner, layer: self.clone() }
    }
}

/// What [`TenantLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct TenantService<S> {
    inner: S,
    layer: TenantLayer,
}

impl<S, B> Service<Request<B>> for TenantService<S>
where
    S: Service<Request<B>>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = S::Error;
    type Future = TenantFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.layer.resolve(&request) {
            Ok(None) => {}
            Ok(Some(resolved)) => {
                if let Some(context) = request.extensions_mut().get_mut::<Context>() {
                    context.tenant = Some(Arc::new(resolved.context.clone()));
                }
                request.extensions_mut().insert(resolved);
            }
            Err(error) => return TenantFuture::Refused { error: Some(error) },
        }
        TenantFuture::Passed { future: self.inner.call(request) }
    }
}

pin_project! {
    /// The answer to come.
    #[project = Answer]
    pub enum TenantFuture<F> {
        Refused { error: Option<TenancyError> },
        Passed { #[pin] future: F },
    }
}

impl<F, R, E> Future for TenantFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        match self.project() {
            // Polled again after its end, it would say so for ever rather than panic.
            Answer::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Ok(HttpError::from(error).into_response())),
                None => Poll::Pending,
            },
            Answer::Passed { future } => future.poll(cx).map_ok(IntoResponse::into_response),
        }
    }
}
