//! Limits on HTTP requests, as a `tower` layer.

use std::fmt::Write;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};

use http::{Extensions, HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use runtime_kernel::{Classify, Context};
use tower_layer::Layer;
use tower_service::Service;

use crate::buckets::{Answer, Buckets, Demand, Together};
use crate::client_ip::{client_ip, network};
use crate::config::{By, HeaderStyle, RateLimitConfig};
use crate::headers;
use crate::outcome::{LimitError, Standing};
use crate::rate::Rate;
use crate::rules::{Rule, RuleError, Rules};

/// Told of every decision: the rule's name and what became of the request there.
type Observe = dyn Fn(&str, Decision) + Send + Sync;

/// What became of a request at a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// All rules admitted it; told for the tightest.
    Admitted,
    /// This rule refused it.
    Refused,
    /// This rule would have refused it, but only watches.
    WouldRefuse,
}

impl Decision {
    /// The decision as metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
        }
    }
}

/// Which rules a layer applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applies {
    /// All of them.
    Everything,
    /// Those that need no identity: before authentication.
    BeforeIdentity,
    /// Those that count by principal or tenant: after resolution.
    AfterIdentity,
}

/// A layer that takes a token for every rule that covers a request, all of them or none, and answers 429 with a
/// problem document otherwise.
///
/// Clones, and services made by it, share everything.
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
    observe: Arc<Observe>,
}

struct Shared {
    rules: Rules,
    buckets: Arc<dyn Buckets>,
    style: HeaderStyle,
    trusted_proxies: u8,
    ipv6_prefix: u8,
    lookup: Lookup,
}

impl std::fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.shared.rules.rules.iter().map(|rule| &rule.name).collect();
        f.debug_struct("RateLimitLayer").field("rules", &names).finish_non_exhaustive()
    }
}

/// How a layer learns what a request does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// The address of the connection.
    pub peer: fn(&Extensions) -> Option<IpAddr>,
    /// The template of the route.
    pub route: fn(&Extensions) -> Option<&str>,
}

impl RateLimitLayer {
    /// A layer over those rules of a configuration that `applies` names.
    ///
    /// # Errors
    /// [`RuleError`] names the key that is wrong.
    pub fn new(
        config: &RateLimitConfig,
        applies: Applies,
        buckets: Arc<dyn Buckets>,
        lookup: Lookup,
    ) -> Result<Self, RuleError> {
        let mut rules = Rules::new(config)?;
        let late = |rule: &Rule| rule.by.iter().any(By::needs_identity);
        rules.rules.retain(|rule| match applies {
            Applies::Everything => true,
            Applies::BeforeIdentity => !late(rule),
            Applies::AfterIdentity => late(rule),
        });
        if !config.enabled {
            rules.rules.clear();
        }
        let shared = Shared {
            rules,
            buckets,
            style: config.headers,
            trusted_proxies: config.trusted_proxies,
            ipv6_prefix: config.ipv6_prefix,
            lookup,
        };
        Ok(Self { shared: Arc::new(shared), observe: Arc::new(|_, _| {}) })
    }

    /// Tells somebody of every decision, for metrics. Called on the request's own path: it must not block.
    #[must_use]
    pub fn observed(mut self, observe: impl Fn(&str, Decision) + Send + Sync + 'static) -> Self {
        self.observe = Arc::new(observe);
        self
    }

    /// Whether there is any rule to apply.
    pub fn is_empty(&self) -> bool {
        self.shared.rules.rules.is_empty()
    }

    /// The rules that cover a request, each with the key and rate of its bucket.
    fn taken<B>(&self, request: &Request<B>) -> Vec<Taken> {
        let Shared { rules, lookup, trusted_proxies, ipv6_prefix, .. } = &*self.shared;
        let caller = Caller {
            context: request.extensions().get(),
            address: (lookup.peer)(request.extensions())
                .map(|peer| network(client_ip(request.headers(), peer, *trusted_proxies), *ipv6_prefix)),
            route: (lookup.route)(request.extensions()),
        };
        let (method, path) = (request.method().as_str(), request.uri().path());
        let covering = rules.rules.iter().enumerate().filter(|(_, rule)| rule.covers(method, path));
        covering
            .filter_map(|(index, rule)| {
                let subject = caller.subject(rule, request)?;
                let rate = rule.rate_of(&rules.operations, &subject);
                Some(Taken { rule: index, key: rule.key(&subject), rate })
            })
            .collect()
    }

    fn rule(&self, taken: &Taken) -> Option<&Rule> {
        self.shared.rules.rules.get(taken.rule)
    }

    /// Splits off the rules that only watch.
    fn split(&self, taken: Vec<Taken>) -> (Vec<Taken>, Vec<Taken>) {
        taken.into_iter().partition(|taken| self.rule(taken).is_some_and(|rule| !rule.shadow))
    }

    fn demands<'a>(&self, taken: &'a [Taken]) -> Vec<Demand<'a>> {
        let cost = |taken: &Taken| self.rule(taken).map_or(1, |rule| rule.cost);
        taken.iter().map(|taken| Demand::new(&taken.key, taken.rate).cost(cost(taken))).collect()
    }

    fn judge(&self, real: &[Taken], together: Together) -> Result<Verdict, Refusal> {
        let name = |index: usize| {
            real.get(index)
                .and_then(|taken| self.rule(taken))
                .map_or("", |rule| rule.name.as_str())
                .to_owned()
        };
        match together {
            Ok(None) => Ok(None),
            Ok(Some(tightest)) => {
                let name = name(tightest.index);
                (self.observe)(&name, Decision::Admitted);
                Ok(Some((name, tightest.standing)))
            }
            Err(refused) => {
                let name = name(refused.index);
                (self.observe)(&name, Decision::Refused);
                Err(Refusal { name, error: refused.error })
            }
        }
    }

    fn watched(&self, taken: &Taken, together: &Together) {
        if let (Err(_), Some(rule)) = (together, self.rule(taken)) {
            (self.observe)(&rule.name, Decision::WouldRefuse);
        }
    }

    async fn ask(self, real: Vec<Taken>, watching: Vec<Taken>) -> Result<Verdict, Refusal> {
        let verdict = if real.is_empty() {
            Ok(None)
        } else {
            self.judge(&real, self.shared.buckets.take(&self.demands(&real)).await)
        };
        for taken in &watching {
            let together = self.shared.buckets.take(&self.demands(std::slice::from_ref(taken))).await;
            self.watched(taken, &together);
        }
        verdict
    }

    /// The verdict, if it needs no waiting.
    fn ask_now(&self, real: &[Taken], watching: &[Taken]) -> Option<Result<Verdict, Refusal>> {
        let together = self.shared.buckets.take_now(&self.demands(real))?;
        for taken in watching {
            if let Some(together) = self.shared.buckets.take_now(&self.demands(std::slice::from_ref(taken))) {
                self.watched(taken, &together);
            }
        }
        Some(self.judge(real, together))
    }
}

/// A rule that covers the request, and its bucket.
struct Taken {
    rule: usize,
    key: String,
    rate: Rate,
}

/// The tightest limit and where it stands; nothing when no rule applied.
type Verdict = Option<(String, Standing)>;

struct Refusal {
    name: String,
    error: LimitError,
}

/// What is known of who asks.
struct Caller<'a> {
    context: Option<&'a Context>,
    address: Option<IpAddr>,
    route: Option<&'a str>,
}

impl Caller<'_> {
    /// What the rule counts this request under; nothing when it does not say.
    fn subject<B>(&self, rule: &Rule, request: &Request<B>) -> Option<String> {
        let mut subject = String::new();
        for (nth, by) in rule.by.iter().enumerate() {
            if nth > 0 {
                subject.push('|');
            }
            match by {
                By::Ip => write!(subject, "{}", self.address?).ok()?,
                By::Principal => {
                    let context = self.context?;
                    // The same id in another tenant is somebody else.
                    if let Some(tenant) = &context.tenant {
                        write!(subject, "{}:", tenant.namespace()).ok()?;
                    }
                    write!(subject, "{}", context.principal.as_ref()?.id).ok()?;
                }
                By::Tenant => subject.push_str(&self.context?.tenant.as_ref()?.namespace()),
                By::Route => subject.push_str(self.route?),
                By::Method => subject.push_str(request.method().as_str()),
                By::Header(name) => subject.push_str(request.headers().get(name)?.to_str().ok()?),
            }
        }
        Some(subject)
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService { inner, layer: self.clone() }
    }
}

/// What [`RateLimitLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S, B, R> Service<Request<B>> for RateLimitService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RateLimitFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let style = self.layer.shared.style;
        let (real, watching) = self.layer.split(self.layer.taken(&request));
        let now = if real.is_empty() && watching.is_empty() {
            Some(Ok(None))
        } else {
            self.layer.ask_now(&real, &watching)
        };
        let stage = match now {
            Some(Ok(verdict)) => Stage::Passed { future: self.inner.call(request), verdict },
            Some(Err(refusal)) => Stage::Refused { refusal: Some((refusal, id(&request))) },
            None => {
                // The instance that was polled ready makes the call; its clone waits for the next `poll_ready`.
                let fresh = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, fresh);
                let answer: Answer<'static, _> = Box::pin(self.layer.clone().ask(real, watching));
                Stage::Asking { answer, next: Some((ready, request)) }
            }
        };
        RateLimitFuture { stage, style }
    }
}

fn id<B>(request: &Request<B>) -> Option<String> {
    request.extensions().get::<Context>().map(|context| context.request_id.to_string())
}

pin_project! {
    /// The answer to come.
    pub struct RateLimitFuture<S, B, F> {
        #[pin]
        stage: Stage<S, B, F>,
        style: HeaderStyle,
    }
}

pin_project! {
    #[project = At]
    enum Stage<S, B, F> {
        Refused { refusal: Option<(Refusal, Option<String>)> },
        Asking { answer: Answer<'static, Result<Verdict, Refusal>>, next: Option<(S, Request<B>)> },
        Passed { #[pin] future: F, verdict: Verdict },
    }
}

impl<S, B, F, R, E> Future for RateLimitFuture<S, B, F>
where
    S: Service<Request<B>, Response = Response<R>, Error = E, Future = F>,
    F: Future<Output = Result<Response<R>, E>>,
    R: From<String>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                At::Refused { refusal } => {
                    let (refusal, id) = refusal.take().unwrap_or_else(Refusal::polled_again);
                    return Poll::Ready(Ok(refusal.answer(*this.style, id)));
                }
                At::Passed { future, verdict } => {
                    let mut response = ready!(future.poll(cx))?;
                    if let Some((name, standing)) = verdict {
                        headers::write(response.headers_mut(), *this.style, name, *standing);
                    }
                    return Poll::Ready(Ok(response));
                }
                At::Asking { answer, next } => match (ready!(answer.as_mut().poll(cx)), next.take()) {
                    (Ok(verdict), Some((mut service, request))) => {
                        Stage::Passed { future: service.call(request), verdict }
                    }
                    (Err(refusal), Some((_, request))) => {
                        Stage::Refused { refusal: Some((refusal, id(&request))) }
                    }
                    (_, None) => Stage::Refused { refusal: None },
                },
            };
            this.stage.set(next);
        }
    }
}

impl Refusal {
    /// A future that is polled after it has answered may say anything.
    fn polled_again() -> (Self, Option<String>) {
        let error = LimitError::Full { retry_after: std::time::Duration::ZERO };
        (Self { name: String::new(), error }, None)
    }

    /// The problem document (RFC 9457).
    fn answer<R: From<String>>(self, style: HeaderStyle, request_id: Option<String>) -> Response<R> {
        let kind = self.error.kind();
        let mut document = serde_json::json!({
            "type": "about:blank",
            "title": kind.title(),
            "status": kind.http_status(),
            "detail": self.error.to_string(),
            "code": self.error.code(),
            "limit": self.name,
        });
        if let (Some(id), Some(fields)) = (request_id, document.as_object_mut()) {
            fields.insert("request_id".to_owned(), id.into());
        }
        let mut response = Response::new(R::from(document.to_string()));
        *response.status_mut() =
            StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let LimitError::Exceeded { standing, .. } = self.error {
            headers::write(fields, style, &self.name, standing);
        }
        if let Some(wait) = self.error.retry_after() {
            headers::retry_after(fields, wait);
        }
        response
    }
}
