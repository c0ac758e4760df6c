//! Limits on HTTP requests, as a `tower` layer.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Poller, Poll, ready};

use http::{Extensions, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use runtime_kernel::{Classify, Context, Deadline, RequestId};
use tower_layer::Layer;
use tower_service::Service;

use crate::concurrency::{ConcurrencyLimit, Permit};
use crate::criticality::Criticality;
use crate::error::{LimitsError, Overloaded};
use crate::rules::{LimitRule, LimitsConfig, SERVER};

/// How many routes of a rule have a limit to themselves; the rest share one.
const MOST_ROUTES: usize = 1_024;

/// A layer that lets so many requests be under way, and answers 503 with a problem document and `Retry-After`
/// otherwise.
///
/// A request counts until its answer's last byte. What teaches the limit is the time to the answer's head: of answers
/// below 400 the latency, while 503 and 504 say that it is too high; others say nothing.
///
/// Clones, and services made by it, share everything.
#[derive(Clone)]
pub struct ConcurrencyLayer {
    shared: Arc<Shared>,
}

struct Shared {
    server: ConcurrencyLimit,
    header: Option<HeaderName>,
    rules: Vec<Covered>,
    route: fn(&Extensions) -> Option<&str>,
    /// Every request needs one of the server's places and nothing else.
    plain: bool,
}

struct Covered {
    rule: LimitRule,
    limit: Option<ConcurrencyLimit>,
    routes: Mutex<HashMap<Box<str>, ConcurrencyLimit>>,
}

/// A limit and its name, for operators.
#[derive(Clone, Debug)]
pub struct NamedLimit {
    /// `server`, the rule's name, or both the rule's name and the route.
    pub name: String,
    /// The limit.
    pub limit: ConcurrencyLimit,
}

impl fmt::Debug for ConcurrencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLayer").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

impl ConcurrencyLayer {
    /// A layer over a configuration. `route` finds the template of a request's route, if it is known.
    ///
    /// # Errors
    /// [`LimitsError`] names the key that is wrong.
    pub fn new(config: &LimitsConfig, route: fn(&Extensions) -> Option<&str>) -> Result<Self, LimitsError> {
        config.check()?;
        let header = config.criticality_header.as_ref().map(|name| name.parse()).transpose();
        let header = header.map_err(|_| LimitsError::new("criticality_header", "cannot be a header"))?;
        let rules = config.rules.iter().map(|rule| {
            let limit = rule.limit.map(ConcurrencyLimit::new).transpose()?;
            Ok(Covered { rule: rule.clone(), limit, routes: Mutex::default() })
        });
        let rules = rules.collect::<Result<Vec<_>, LimitsError>>()?;
        let server = ConcurrencyLimit::new(config.server)?;
        let plain = rules.is_empty() && header.is_none();
        Ok(Self { shared: Arc::new(Shared { server, header, rules, route, plain }) })
    }

    /// Every limit there is at the moment.
    pub fn limits(&self) -> Vec<NamedLimit> {
        let mut limits = vec![NamedLimit { name: SERVER.to_owned(), limit: self.shared.server.clone() }];
        for covered in &self.shared.rules {
            let Some(limit) = &covered.limit else { continue };
            limits.push(NamedLimit { name: covered.rule.name.clone(), limit: limit.clone() });
            let routes = covered.routes.lock().unwrap_or_else(PoisonError::into_inner);
            let own = routes.iter().map(|(route, limit)| NamedLimit {
                name: format!("{} {route}", covered.rule.name),
                limit: limit.clone(),
            });
            limits.extend(own);
        }
        limits
    }

    fn covering<B>(&self, request: &Request<B>) -> Asked {
        let Shared { header, rules, route, .. } = &*self.shared;
        let (method, path) = (request.method().as_str(), request.uri().path());
        let covered = rules.iter().find(|covered| covered.rule.covers(method, path));
        let said = || {
            let value = request.headers().get(header.as_ref()?)?.to_str().ok()?;
            Criticality::ALL.into_iter().find(|criticality| criticality.as_str() == value)
        };
        let criticality =
            covered.and_then(|covered| covered.rule.criticality).or_else(said).unwrap_or_default();
        let own = covered.and_then(|covered| covered.of(route(request.extensions())));
        let exempt = covered.is_some_and(|covered| covered.rule.exempt);
        Asked { own, exempt, criticality }
    }
}

impl Covered {
    fn of(&self, route: Option<&str>) -> Option<ConcurrencyLimit> {
        let (shared, Some(route), true) = (self.limit.clone()?, route, self.rule.per_route) else {
            return self.limit.clone();
        };
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = routes.get(route) {
            return Some(own.clone());
        }
        if routes.len() >= MOST_ROUTES {
            return Some(shared);
        }
        let own = ConcurrencyLimit::new(self.rule.limit?).ok()?;
        routes.insert(route.into(), own.clone());
        Some(own)
    }
}

/// The places a request needs: the route's own first, then the server's.
struct Asked {
    own: Option<ConcurrencyLimit>,
    /// It needs none of the server's.
    exempt: bool,
    criticality: Criticality,
}

type Permits = [Option<Permit>; 2];

impl Asked {
    fn limits<'a>(&'a self, server: &'a ConcurrencyLimit) -> [Option<&'a ConcurrencyLimit>; 2] {
        [self.own.as_ref(), (!self.exempt).then_some(server)]
    }

    /// All places or none. Everybody waits in the same order, so that nobody waits in a circle.
    async fn wait(self, server: ConcurrencyLimit, deadline: Deadline) -> Result<Permits, Overloaded> {
        let mut permits = [None, None];
        for (permit, limit) in permits.iter_mut().zip(self.limits(&server)) {
            if let Some(limit) = limit {
                *permit = Some(limit.wait(self.criticality, deadline).await?);
            }
        }
        Ok(permits)
    }

    fn now(&self, server: &ConcurrencyLimit) -> Option<Permits> {
        let own = match &self.own {
            Some(limit) => Some(limit.acquire_quietly(self.criticality)?),
            None => None,
        };
        let server = if self.exempt { None } else { Some(server.acquire_quietly(self.criticality)?) };
        Some([own, server])
    }
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = ConcurrencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConcurrencyService { inner, layer: self.clone() }
    }
}

/// What [`ConcurrencyLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct ConcurrencyService<S> {
    inner: S,
    layer: ConcurrencyLayer,
}

impl<S, B, R> Service<Request<B>> for ConcurrencyService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: From<String>,
{
    type Response = Response<HeldBody<R>>;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Shared { server, plain, .. } = &*self.layer.shared;
        if *plain && let Some(permit) = server.acquire_quietly(Criticality::default()) {
            let future = self.inner.call(request);
            return ConcurrencyFuture { stage: Stage::Passed { future, permits: [None, Some(permit)] } };
        }
        self.look_up(request)
    }
}

impl<S: Clone> ConcurrencyService<S> {
    #[inline(never)]
    fn look_up<B>(&mut self, request: Request<B>) -> ConcurrencyFuture<S, B, S::Future>
    where
        S: Service<Request<B>>,
    {
        let asked = self.layer.covering(&request);
        if let Some(permits) = asked.now(&self.layer.shared.server) {
            return ConcurrencyFuture { stage: Stage::Passed { future: self.inner.call(request), permits } };
        }
        // The service that was polled ready waits with the request; the one that stays is polled anew.
        let fresh = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, fresh);
        let deadline =
            request.extensions().get::<Context>().map_or(Deadline::NONE, |context| context.deadline);
        ConcurrencyFuture {
            stage: Stage::Waiting {
                places: Box::pin(asked.wait(self.layer.shared.server.clone(), deadline)),
                next: Some(Box::new((service, request))),
            },
        }
    }
}

pin_project! {
    /// The future of [`ConcurrencyService`].
    pub struct ConcurrencyFuture<S, B, F> {
        #[pin]
        stage: Stage<S, B, F>,
    }
}

pin_project! {
    #[project = At]
    enum Stage<S, B, F> {
        Waiting { places: Pin<Box<dyn Future<Output = Result<Permits, Overloaded>> + Send>>, next: Option<Box<(S, Request<B>)>> },
        Passed { #[pin] future: F, permits: Permits },
    }
}

impl<S, B, R> Future for ConcurrencyFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<String>,
{
    type Output = Result<Response<HeldBody<R>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                At::Passed { future, permits } => {
                    let answer = ready!(future.poll(cx));
                    // An error teaches nothing: its places go back as they are.
                    return Poll::Ready(answer.map(|response| {
                        judge(response.status(), permits);
                        held(response, std::mem::take(permits))
                    }));
                }
                At::Waiting { places, next } => match (ready!(places.as_mut().poll(cx)), next.take()) {
                    (Ok(permits), Some(next)) => {
                        let (mut service, request) = *next;
                        Stage::Passed { future: service.call(request), permits }
                    }
                    (Err(overloaded), Some(next)) => {
                        let (_, request) = *next;
                        let id = request.extensions().get::<Context>().map(|context| &context.request_id);
                        return Poll::Ready(Ok(held(refused(overloaded, id), [None, None])));
                    }
                    (_, None) => return Poll::Pending,
                },
            };
            this.stage.set(next);
        }
    }
}

#[inline]
fn judge(status: StatusCode, permits: &mut Permits) {
    for permit in permits.iter_mut().flatten() {
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => permit.learn(true),
            status if status.as_u16() < 400 => permit.learn(false),
            _ => {}
        }
    }
}

#[inline]
fn held<R>(response: Response<R>, permits: Permits) -> Response<HeldBody<R>> {
    response.map(|inner| HeldBody { inner, permits })
}

fn refused<R: From<String>>(overloaded: Overloaded, request_id: Option<&RequestId>) -> Response<R> {
    let kind = overloaded.kind();
    // Of what stands between quotes here nothing needs escaping; a request id has no quotes in it, nor a backslash.
    let id = request_id.map_or_else(String::new, |id| format!(r#","request_id":"{id}""#));
    let (title, status, code) = (kind.title(), kind.http_status(), overloaded.code());
    let document = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"the service is overloaded","code":"{code}"{id}}}"#
    );
    let mut response = Response::new(R::from(document));
    *response.status_mut() =
        StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pin_project! {
    /// A body that holds the request's places until its last byte, or until it is dropped.
    #[derive(Debug)]
    pub struct HeldBody<R> {
        #[pin]
        inner: R,
        permits: Permits,
    }
}

impl<R: Body> Body for HeldBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            *this.permits = [None, None];
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
