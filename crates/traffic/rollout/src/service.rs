//! Sends each request to one of two services.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};
use std::time::Instant;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use runtime_kernel::{Context, Deadline, SharedClock, uuid_v7};
use tower::util::Oneshot;
use tower::{Service, ServiceExt};

use crate::assign::bucket;
use crate::config::Sticky;
use crate::control::Rollouts;
use crate::error::RolloutError;
use crate::state::{Rollout, Side};

/// Who a request belongs to, for requests that know it otherwise than by their [`Context`]. Put into the extensions, it
/// counts before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(pub String);

/// A service that sends each request to one of two: where the header says, where its subject is pinned to, or by weight;
/// and counts how each fares. Clones share everything but the two services.
///
/// It is always ready. Which of the two will be called is known with the request only, so a clone of that one is made
/// ready, and called, by the future: a side that is full holds up its own requests and nobody else's.
#[derive(Clone)]
pub struct RolloutService<P, C> {
    primary: P,
    canary: C,
    name: Arc<str>,
    rollouts: Rollouts,
    header: Option<HeaderName>,
    cookie: Arc<str>,
}

impl<P, C> fmt::Debug for RolloutService<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RolloutService").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<P, C> RolloutService<P, C> {
    /// The rollout of that name over two services.
    ///
    /// # Errors
    /// [`RolloutError::Unknown`], and [`RolloutError::Config`] when its header cannot be one.
    pub fn new(rollouts: &Rollouts, name: &str, primary: P, canary: C) -> Result<Self, RolloutError> {
        let header = rollouts.watched(name)?.config.header.as_ref().map(|header| header.parse()).transpose();
        let header = header.map_err(|_| RolloutError::Config {
            key: format!("routes.{name}.header"),
            message: "cannot be a header".to_owned(),
        })?;
        let cookie = format!("rollout-{name}").into();
        Ok(Self { primary, canary, name: name.into(), rollouts: rollouts.clone(), header, cookie })
    }

    /// Where a request goes, and the cookie to set, if one is needed.
    fn choose<B>(
        &self,
        rollout: &Rollout,
        sticky: &[Sticky],
        request: &Request<B>,
    ) -> (Side, Option<String>) {
        let wanted = self.header.as_ref().and_then(|header| request.headers().get(header)?.to_str().ok());
        if let Some(side) = wanted.and_then(Side::parse) {
            return (side, None);
        }
        if let Some(Subject(subject)) = request.extensions().get() {
            return (rollout.side(subject), None);
        }
        let context = request.extensions().get::<Context>();
        for kind in sticky {
            let subject = match kind {
                Sticky::Principal => context.and_then(|context| {
                    let principal = context.principal.as_ref()?;
                    let tenant = context.tenant.as_ref().map(|tenant| tenant.namespace());
                    // The same id in another tenant is somebody else.
                    Some(tenant.map_or_else(
                        || principal.id.to_string(),
                        |tenant| format!("{tenant}:{}", principal.id),
                    ))
                }),
                Sticky::Tenant => context.and_then(|context| Some(context.tenant.as_ref()?.namespace())),
                Sticky::Cookie => {
                    if let Some(known) = cookie(request.headers(), &self.cookie) {
                        return (rollout.side(known), None);
                    }
                    let fresh = uuid_v7(&**self.rollouts.clock()).simple().to_string();
                    return (rollout.side(&fresh), Some(fresh));
                }
                Sticky::Request => break,
            };
            if let Some(subject) = subject {
                return (rollout.side(&subject), None);
            }
        }
        let drawn = || bucket(&rollout.name, &uuid_v7(&**self.rollouts.clock()).simple().to_string());
        (rollout.side_of_bucket(drawn), None)
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(own, _)| *own == name)?;
    // As we make them.
    let ours = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    ours.then_some(value)
}

impl<P, C, B, R> Service<Request<B>> for RolloutService<P, C>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    C: Service<Request<B>, Response = Response<R>, Error = P::Error> + Clone,
{
    type Response = Response<R>;
    type Error = P::Error;
    type Future = RolloutFuture<Oneshot<P, Request<B>>, Oneshot<C, Request<B>>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), P::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let clock = Arc::clone(self.rollouts.clock());
        let began = clock.now();
        // A service is made over a rollout that is there.
        let (side, set) = match self.rollouts.watched(&self.name) {
            Ok(watched) => self.choose(&watched.rollout.load(), &watched.config.sticky, &request),
            Err(_) => (Side::Primary, None),
        };
        let deadline =
            request.extensions().get::<Context>().map_or(Deadline::NONE, |context| context.deadline);
        request.extensions_mut().insert(side);
        let (primary, canary) = match side {
            Side::Primary => (Some(self.primary.clone().oneshot(request)), None),
            Side::Canary => (None, Some(self.canary.clone().oneshot(request))),
        };
        let cookie = set.map(|value| (Arc::clone(&self.cookie), value));
        let (rollouts, name) = (self.rollouts.clone(), Arc::clone(&self.name));
        let told = Told { rollouts, name, side, began, deadline, clock, polled: false };
        RolloutFuture { primary, canary, cookie, told: Some(told) }
    }
}

/// A request that has not been counted yet.
struct Told {
    rollouts: Rollouts,
    name: Arc<str>,
    side: Side,
    began: Instant,
    deadline: Deadline,
    clock: SharedClock,
    /// Whether the service is being polled: left so by one that panics.
    polled: bool,
}

impl Told {
    fn count(&self, failed: bool, slow: bool) {
        if let Ok(watched) = self.rollouts.watched(&self.name) {
            watched.answered(self.side, failed, slow);
        }
    }

    fn is_slow(&self) -> bool {
        let took = self.clock.now().saturating_duration_since(self.began);
        self.rollouts.watched(&self.name).is_ok_and(|watched| took > watched.config.slow)
    }

    /// Nobody waits for the answer any more.
    fn given_up(&self) {
        let (failed, slow) = (self.polled || self.deadline.is_expired(&*self.clock), self.is_slow());
        if failed || slow {
            self.count(failed, slow);
        }
    }
}

pin_project! {
    /// The future of [`RolloutService`]. Dropped before the answer it counts as failed if the service has panicked or the
    /// deadline of the request's [`Context`] has passed, as slow if it took that long; else it counts nothing: the caller
    /// went away early.
    pub struct RolloutFuture<P, C> {
        #[pin]
        primary: Option<P>,
        #[pin]
        canary: Option<C>,
        cookie: Option<(Arc<str>, String)>,
        told: Option<Told>,
    }

    impl<P, C> PinnedDrop for RolloutFuture<P, C> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(told) = this.project().told.take() {
                told.given_up();
            }
        }
    }
}

impl<P, C, R, E> Future for RolloutFuture<P, C>
where
    P: Future<Output = Result<Response<R>, E>>,
    C: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = |told: &mut Option<Told>, now: bool| {
            if let Some(told) = told {
                told.polled = now;
            }
        };
        polled(this.told, true);
        let answer = match (this.primary.as_pin_mut(), this.canary.as_pin_mut()) {
            (Some(primary), _) => primary.poll(cx),
            (None, Some(canary)) => canary.poll(cx),
            (None, None) => Poll::Pending,
        };
        polled(this.told, false);
        let mut answer = ready!(answer);
        if let Some(told) = this.told.take() {
            let failed = answer.as_ref().map_or(true, |response| response.status().is_server_error());
            told.count(failed, told.is_slow());
        }
        if let (Ok(response), Some((name, value))) = (&mut answer, this.cookie.take()) {
            // A year; no script needs it.
            let cookie = format!("{name}={value}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        Poll::Ready(answer)
    }
}
