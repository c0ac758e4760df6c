//! Routes and layers, put together into one router that guards every route.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Poller, Poll, ready};

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use http::Method;
use pin_project_lite::pin_project;
use runtime_kernel::{Context, Error, ErrorKind};

use crate::phase::Stack;
use crate::problem::{HttpError, respond};
use crate::route::{Route, RouteInfo};

/// Which route answered.
#[derive(Clone, Debug)]
pub(crate) struct RouteIndex {
    #[cfg(feature = "metrics")]
    pub(crate) index: usize,
    #[cfg(feature = "metrics")]
    pub(crate) path: Arc<str>,
    pub(crate) log: bool,
}

thread_local! {
    /// The guard of the route that answered last on this thread: handed from the last phase to the first, which asks
    /// within the same poll. An extension of the answer would cost each a map of its own. Behind a layer that answers
    /// from another task the route is not known, and the request is counted as unmatched.
    static ANSWERED: Cell<Option<Arc<OnceLock<Gated>>>> = const { Cell::new(None) };
}

/// Which route has answered on this thread since it was last asked.
pub(crate) fn answered() -> Option<RouteIndex> {
    ANSWERED.take().and_then(|gated| gated.get().map(|gated| gated.route.clone()))
}

/// Puts routes and layers together. Unknown paths and methods answer with problem documents.
pub fn router<S: Clone + Send + Sync + 'static>(routes: Vec<Route<S>>, stack: Stack<S>, state: S) -> Router {
    let mut built = Router::new().fallback(not_found);
    for (index, route) in routes.into_iter().enumerate() {
        let path = route.info.path.clone().into_owned();
        let _ = route.gate.set(Gated::new(index, &route.info));
        built = built.route(&path, route.handler);
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
pub(crate) struct Gated {
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

/// A handler behind what its route asks. It is a handler itself: a layer of axum's would box each answer once more.
#[derive(Clone)]
pub(crate) struct Gate<H> {
    /// Set when the router is put together; until then nobody passes.
    pub(crate) gated: Arc<OnceLock<Gated>>,
    pub(crate) inner: H,
}

impl<H: Handler<T, S>, T, S> Handler<T, S> for Gate<H> {
    type Future = GateFuture<H::Future>;

    fn call(self, request: Request, state: S) -> GateFuture<H::Future> {
        let refusal = match self.gated.get() {
            Some(gated) => gated.refusal(&request),
            None => Some(Error::internal("a route was called before its router was put together")),
        };
        let (refused, inner) = match refusal {
            Some(error) => (Some(respond(&error)), None),
            None => (None, Some(self.inner.call(request, state))),
        };
        GateFuture { inner, refused, gated: self.gated }
    }
}

pin_project! {
    pub(crate) struct GateFuture<F> {
        #[pin]
        inner: Option<F>,
        refused: Option<Response>,
        gated: Arc<OnceLock<Gated>>,
    }
}

impl<F: Future<Output = Response>> Future for GateFuture<F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Response> {
        let this = self.project();
        let response = match (this.refused.take(), this.inner.as_pin_mut()) {
            (Some(refused), _) => refused,
            (None, Some(inner)) => ready!(inner.poll(cx)),
            (None, None) => return Poll::Pending,
        };
        ANSWERED.set(Some(Arc::clone(this.gated)));
        Poll::Ready(response)
    }
}
