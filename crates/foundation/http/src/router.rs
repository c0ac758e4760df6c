//! Routes and layers, put together into one router that guards every route.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::Method;
use pin_project_lite::pin_project;
use runtime_kernel::{Context, Error, ErrorKind};
use tower::{Layer, Service};

use crate::phase::Stack;
use crate::problem::{HttpError, respond};
use crate::route::{Route, RouteInfo};

/// Which route answered; taken out of the answer by the first phase.
#[derive(Clone, Debug)]
pub(crate) struct RouteIndex {
    #[cfg(feature = "metrics")]
    pub(crate) index: usize,
    #[cfg(feature = "metrics")]
    pub(crate) path: Arc<str>,
    pub(crate) log: bool,
}

/// Puts routes and layers together. Unknown paths and methods answer with problem documents.
pub fn router<S: Clone + Send + Sync + 'static>(routes: Vec<Route<S>>, stack: Stack<S>, state: S) -> Router {
    let mut built = Router::new().fallback(not_found);
    for (index, route) in routes.into_iter().enumerate() {
        let path = route.info.path.clone().into_owned();
        let gate = GateLayer(Arc::new(Gated::new(index, &route.info)));
        built = built.route(&path, route.handler.layer(gate));
    }
    // Only now: axum gives this answer to the routes it knows already.
    let built = built.method_not_allowed_fallback(method_not_allowed);
    stack.apply(built, &state).with_state(state)
}

async fn not_found() -> HttpError {
    HttpError(Error::new(ErrorKind::NotFound, "http.not_found", "there is nothing at this path"))
}

async fn method_not_allowed(method: Method) -> HttpError {
    let message = format!("{method} is not allowed here");
    HttpError(Error::new(ErrorKind::Invalid, "http.method_not_allowed", message))
}

/// What a route asks of its callers.
#[derive(Debug)]
struct Gated {
    route: RouteIndex,
    scope: Option<&'static str>,
    public: bool,
}

impl Gated {
    fn new(index: usize, info: &RouteInfo) -> Self {
        #[cfg(not(feature = "metrics"))]
        let _ = index;
        let route = RouteIndex {
            #[cfg(feature = "metrics")]
            index,
            #[cfg(feature = "metrics")]
            path: Arc::from(&*info.path),
            log: info.log,
        };
        Self { route, scope: info.scope, public: info.public }
    }

    fn refusal(&self, request: &Request) -> Option<Error> {
        if self.public {
            return None;
        }
        let context = request.extensions().get::<Context>();
        let Some(principal) = context.and_then(|context| context.principal.as_ref()) else {
            let message = "credentials are needed here: `authorization: Bearer <key>`";
            return Some(Error::new(ErrorKind::Unauthenticated, "auth.required", message));
        };
        let scope = self.scope?;
        (!principal.allows(scope)).then(|| {
            Error::new(
                ErrorKind::Forbidden,
                "auth.scope_missing",
                format!("the scope `{scope}` is needed here"),
            )
        })
    }
}

#[derive(Clone)]
struct GateLayer(Arc<Gated>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { gated: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
struct Gate<S> {
    gated: Arc<Gated>,
    inner: S,
}

impl<S: Service<Request, Response = Response>> Service<Request> for Gate<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> GateFuture<S::Future> {
        let (refused, inner) = match self.gated.refusal(&request) {
            Some(error) => (Some(respond(&error)), None),
            None => (None, Some(self.inner.call(request))),
        };
        GateFuture { inner, refused, gated: Arc::clone(&self.gated) }
    }
}

pin_project! {
    struct GateFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Response>,
        gated: Arc<Gated>,
    }
}

impl<F, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = match (this.refused.take(), this.inner.as_pin_mut()) {
            (Some(refused), _) => refused,
            (None, Some(inner)) => match inner.poll(cx) {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            },
            (None, None) => return Poll::Pending,
        };
        response.extensions_mut().insert(this.gated.route.clone());
        Poll::Ready(Ok(response))
    }
}
