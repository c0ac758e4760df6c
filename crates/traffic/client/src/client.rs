//! The client: one call is attempts, each of which is hops.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use runtime_kernel::{Classify, Context, Deadline, ErrorKind, Retry, SharedClock};
use runtime_resilience::{Bulkheads, Guarded, Pipeline, Rejection, Repeat, RetryPolicy};
use url::Url;

use crate::builder::ClientBuilder;
use crate::config::ClientConfig;
use crate::error::{ClientError, Phase};
use crate::guard::{Guard, Refusal};
use crate::hook::{Hook, Outgoing};
use crate::redirect::Hop;
use crate::request::RequestBuilder;
use crate::resolve::Lookup;
use crate::response::Response;
use crate::retry_after::verdict;
use crate::targets::{Targets, Went};

/// An outbound HTTP client. Clones share pools and settings.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// Connects only to addresses the guard has passed.
    pub(crate) guarded: reqwest::Client,
    /// For hosts the operator named, whose addresses are not judged; pools apart, so no connection is shared.
    pub(crate) named: reqwest::Client,
    pub(crate) config: ClientConfig,
    pub(crate) clock: SharedClock,
    pub(crate) guard: Arc<Guard>,
    /// What guards calls to hosts that have no pipeline of their own.
    pub(crate) pipeline: Pipeline,
    pub(crate) pipelines: BTreeMap<String, Pipeline>,
    pub(crate) hook: Option<Arc<dyn Hook>>,
    pub(crate) targets: BTreeMap<String, Arc<dyn Targets>>,
    pub(crate) per_host: Option<Bulkheads>,
    pub(crate) lookup: Arc<dyn Lookup>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.inner.config)
            .field("guard", &self.inner.guard)
            .finish_non_exhaustive()
    }
}

/// A call as asked for.
pub(crate) struct Call {
    pub(crate) hop: Hop,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) repeatable: Option<bool>,
    pub(crate) deadline: Deadline,
    /// Whether that is the call's own time-out rather than what its caller has left.
    pub(crate) own: bool,
    pub(crate) limit: u64,
    pub(crate) redirects: u32,
    /// The endpoint the last attempt went to, where a host has several.
    pub(crate) last: Mutex<Option<String>>,
}

/// A failed attempt, as the pipeline sees it.
enum Failed {
    /// With what it says of the dependency.
    Error(ClientError, ErrorKind, Retry),
    /// An answer that says it may go better another time.
    Status(Box<Response>, Retry),
}

impl Classify for Failed {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Error(_, kind, _) => *kind,
            Self::Status(response, _) => match response.status() {
                StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited,
                StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorKind::Timeout,
                _ => ErrorKind::Unavailable,
            },
        }
    }

    fn code(&self) -> &'static str {
        "client.failed"
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Error(_, _, retry) | Self::Status(_, retry) => *retry,
        }
    }
}

/// Which attempt of how many.
#[derive(Clone, Copy)]
struct Attempt {
    number: u32,
    most: u32,
    /// How long it may take, and until when that is.
    time: Option<(Duration, Deadline)>,
}

impl Attempt {
    /// Its own time-out, if that ends before the call's deadline.
    fn time(&self, call: &Call) -> Option<(Duration, Deadline)> {
        self.time.filter(|(_, until)| until.narrow(call.deadline) != call.deadline)
    }
}

impl Call {
    /// What an error says of the dependency: nothing, when our own limits kept the call from it, or its caller did not
    /// wait. The call's own time-out is how long we think the dependency may take; a caller may have no time left at all.
    fn kind_of(&self, error: &ClientError) -> ErrorKind {
        match error {
            ClientError::Rejected { .. } => ErrorKind::Cancelled,
            ClientError::Deadline if !self.own => ErrorKind::Cancelled,
            error => error.kind(),
        }
    }
}

impl Client {
    /// A client over its settings.
    ///
    /// # Errors
    /// [`ClientError::Config`] names the key that is wrong.
    pub fn new(config: ClientConfig, clock: SharedClock) -> Result<Self, ClientError> {
        Self::builder(config, clock).build()
    }

    /// A client put together piece by piece.
    pub fn builder(config: ClientConfig, clock: SharedClock) -> ClientBuilder {
        ClientBuilder::new(config, clock)
    }

    /// A request to an absolute URL. What is wrong with it is said when it is sent.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url)
    }

    /// A `GET`.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A `POST`.
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Which targets may be called.
    pub fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    pub(crate) async fn call(&self, context: &Context, call: Call) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        inner.check(&call.hop.url)?;
        let repeatable = call.repeatable.unwrap_or_else(|| is_repeatable(&call.hop));
        let repeat = if call.hop.body.is_stream() || (context.caller_retries && call.retry.is_none()) {
            Repeat::Never
        } else if repeatable {
            Repeat::Always
        } else {
            Repeat::Unsent
        };
        let pipeline = inner.pipeline_of(&call.hop.url);
        let own = call.retry.as_ref().map(|policy| pipeline.clone().retry(policy.clone()));
        let pipeline = own.as_ref().unwrap_or(pipeline);
        let most = if repeat == Repeat::Never { 1 } else { pipeline.retry_policy().max_attempts() };
        let timeout = pipeline.retry_policy().attempt_timeout();
        let once = async |attempt: Attempt| {
            let mut redirected = false;
            let answer = self.follow(context, &call, attempt, &mut redirected).await;
            let response = answer.map_err(|error| {
                // What may have reached the other side is repeated only when that does no harm. Who sent us on got it.
                let harmless = repeat == Repeat::Always || (error.is_unsent() && !redirected);
                let retry = match error {
                    // Another attempt would only join those in whose way this one was.
                    ClientError::Rejected { .. } => Retry::Never,
                    _ if harmless => error.retry(),
                    _ => Retry::Never,
                };
                let kind = call.kind_of(&error);
                Failed::Error(error, kind, retry)
            })?;
            match verdict(
                &inner.config.retry_statuses,
                response.status(),
                response.headers(),
                inner.clock.utc(),
            ) {
                None => Ok(response),
                Some(retry) => {
                    let retry = match retry {
                        _ if repeat != Repeat::Always => Retry::Never,
                        // Another endpoint gets it: this one alone asked to be left alone.
                        Retry::After(_) if inner.targets_of(&call.hop.url).is_some() => Retry::Backoff,
                        retry => retry,
                    };
                    Err(Failed::Status(Box::new(response), retry))
                }
            }
        };
        // The attempt's time begins here, no later than the pipeline's: only we know what was waited for when it ends.
        let attempt = |number| {
            let time = timeout.map(|timeout| (timeout, Deadline::after(&*inner.clock, timeout)));
            once(Attempt { number, most, time })
        };
        let host = || call.hop.url.host_str().unwrap_or_default().to_owned();
        match pipeline.run_with(repeat, call.deadline, attempt).await {
            Ok(response) => Ok(response),
            Err(Guarded::Failed(Failed::Status(response, _))) => Ok(*response),
            Err(
                Guarded::Rejected(Rejection::DeadlinePassed)
                | Guarded::Failed(Failed::Error(
                    ClientError::Rejected { rejection: Rejection::DeadlinePassed, .. },
                    ..,
                )),
            ) => Err(ClientError::Deadline),
            Err(Guarded::Failed(Failed::Error(error, ..))) => Err(error),
            Err(Guarded::Rejected(Rejection::TimedOut { after })) => {
                Err(ClientError::Timeout { phase: Phase::Attempt, after })
            }
            Err(Guarded::Rejected(rejection)) => Err(ClientError::Rejected { host: host(), rejection }),
        }
    }

    /// One attempt: the request and the redirects that answer it, each judged before it is followed. Says whether there
    /// was one.
    async fn follow(
        &self,
        context: &Context,
        call: &Call,
        attempt: Attempt,
        redirected: &mut bool,
    ) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let mut hop = call.hop.clone();
        for _ in 0..=call.redirects {
            inner.check(&hop.url)?;
            let response = self.exchange(context, call, &hop, attempt).await?;
            let next =
                if call.redirects == 0 { None } else { hop.next(response.status(), response.headers())? };
            match next {
                None => return Ok(response),
                Some(next) => (hop, *redirected) = (next, true),
            }
        }
        Err(ClientError::TooManyRedirects(call.redirects))
    }

    async fn exchange(
        &self,
        context: &Context,
        call: &Call,
        hop: &Hop,
        attempt: Attempt,
    ) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let outgoing =
            Outgoing { method: &hop.method, url: &hop.url, headers: &hop.headers, body: hop.body.bytes() };
        if let Some(hook) = &inner.hook
            && let Some(stored) = hook.answer(outgoing).await?
        {
            return Response::stored(stored, &hop.url, call, inner);
        }
        let response = match inner.targets_of(&hop.url) {
            None => self.connect(context, call, hop, attempt, None).await?,
            Some(targets) => {
                let last = || call.last.lock().unwrap_or_else(PoisonError::into_inner);
                let avoid = last().clone();
                let target = targets.pick(avoid.as_deref()).map_err(ClientError::NoTarget)?;
                *last() = Some(target.authority().to_owned());
                let url = at(&hop.url, target.authority()).ok_or(ClientError::BadTarget)?;
                let answer = self.connect(context, call, hop, attempt, Some(&url)).await;
                match &answer {
                    Ok(response) => {
                        let now = inner.clock.utc();
                        target.done(Went::of(response.status(), response.headers(), now));
                    }
                    Err(error) => {
                        if let Some(went) = Went::of_error(error, call.own) {
                            target.done(went);
                        }
                    }
                }
                answer?
            }
        };
        match &inner.hook {
            Some(hook) if hook.wants(outgoing, response.status(), response.headers()) => {
                let (stored, url) = response.into_stored().await?;
                hook.keep(outgoing, &stored).await;
                Response::stored(stored, &url, call, inner)
            }
            _ => Ok(response),
        }
    }
}

impl Client {
    /// One request to one place: the hop's own, or an endpoint behind it.
    async fn connect(
        &self,
        context: &Context,
        call: &Call,
        hop: &Hop,
        attempt: Attempt,
        behind: Option<&Url>,
    ) -> Result<Response, ClientError> {
        let inner = &*self.inner;
        let url = behind.unwrap_or(&hop.url);
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(0);
        // Endpoints behind a name are the operator's own.
        let named = behind.is_some() || inner.guard.names_host(host, port);
        if inner.config.proxy.is_some() && !named {
            inner.judge(host, url, call.deadline).await?;
        }
        let time = attempt.time(call);
        let until = time.map_or(call.deadline, |(_, until)| until);
        let place = match &inner.per_host {
            None => None,
            Some(places) => {
                let rejected = |rejection| {
                    let rejection = match (rejection, time) {
                        (Rejection::DeadlinePassed, Some((waited, _))) => {
                            Rejection::BulkheadTimeout { waited }
                        }
                        (rejection, _) => rejection,
                    };
                    ClientError::Rejected { host: host.to_owned(), rejection }
                };
                let places = places.get(&format!("{host}:{port}")).map_err(rejected)?;
                Some(places.enter(&*inner.clock, until).await.map_err(rejected)?)
            }
        };
        let mut request = reqwest::Request::new(hop.method.clone(), url.clone());
        *request.headers_mut() = hop.headers.clone();
        if behind.is_some()
            && let Some(host) = hop.url.host_str().and_then(|host| HeaderValue::from_str(host).ok())
        {
            request.headers_mut().entry(http::header::HOST).or_insert(host);
        }
        if inner.config.propagate {
            let left = call.deadline.remaining(&*inner.clock);
            propagate(request.headers_mut(), context, left, attempt);
        }
        *request.body_mut() = hop.body.to_send()?;
        let pool = if named { &inner.named } else { &inner.guarded };
        let late = || match time {
            Some((after, _)) => ClientError::Timeout { phase: Phase::Attempt, after },
            None => ClientError::Deadline,
        };
        let sent = until.run(&*inner.clock, pool.execute(request)).await.map_err(|_| late())?;
        let response =
            sent.map_err(|error| ClientError::from_reqwest(error, host, inner.config.connect_timeout))?;
        Response::new(response, host, call, inner, place)
    }
}

/// The URL at another authority.
fn at(url: &Url, authority: &str) -> Option<Url> {
    let (host, port) = authority.rsplit_once(':')?;
    let mut url = url.clone();
    url.set_host(Some(host)).ok()?;
    url.set_port(Some(port.parse().ok()?)).ok()?;
    Some(url)
}

impl Inner {
    /// Judges a URL. What stands behind a host is the operator's own, as if the allow-list named the host.
    fn check(&self, url: &Url) -> Result<(), Refusal> {
        match self.targets_of(url) {
            Some(_) => Guard::check_scheme(url),
            None => self.guard.check_url(url),
        }
    }

    fn targets_of(&self, url: &Url) -> Option<&Arc<dyn Targets>> {
        self.targets.get(url.host_str().unwrap_or_default())
    }

    fn pipeline_of(&self, url: &Url) -> &Pipeline {
        if self.pipelines.is_empty() {
            return &self.pipeline;
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(0);
        let own = self.pipelines.get(&format!("{host}:{port}")).or_else(|| self.pipelines.get(host));
        own.unwrap_or(&self.pipeline)
    }

    /// Judges the addresses a name has for us: the proxy, which connects, will not ask.
    async fn judge(&self, host: &str, url: &Url, deadline: Deadline) -> Result<(), ClientError> {
        // The guard has judged addresses by the URL.
        if !matches!(url.host(), Some(url::Host::Domain(_))) {
            return Ok(());
        }
        let found = deadline.run(&*self.clock, self.lookup.lookup(host)).await;
        let found = found.map_err(|_| ClientError::Deadline)?;
        let found = found.and_then(|found| {
            // The proxy may know some that nobody has judged.
            if found.is_empty() { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Ok(found) }
        });
        let found = found.map_err(|source| ClientError::Unknown { host: host.to_owned(), source })?;
        found.iter().try_for_each(|address| self.guard.check_address(host, address.ip()))?;
        Ok(())
    }
}

/// Whether doing it twice is the same as doing it once (RFC 9110 §9.2.2), or the other side sees to it by key.
fn is_repeatable(hop: &Hop) -> bool {
    matches!(
        hop.method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    ) || hop.headers.contains_key("idempotency-key")
}

/// Trace under a span of its own, request id, the time left, and which attempt it is of how many, so that those further
/// down do not retry as well; what the request set itself stays.
fn propagate(headers: &mut HeaderMap, context: &Context, left: Option<Duration>, attempt: Attempt) {
    let mut set = |name: &'static str, value: Option<String>| {
        let name = HeaderName::from_static(name);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.entry(name).or_insert(value);
        }
    };
    let trace = context.trace.child();
    set("traceparent", Some(trace.to_traceparent()));
    set("tracestate", trace.state().map(ToOwned::to_owned));
    set("x-request-id", Some(context.request_id.to_string()));
    set("x-request-timeout", left.map(|left| left.as_millis().to_string()));
    // Under one that retries, all below it know as much, whoever asks again here.
    let Attempt { number, most, .. } = attempt;
    let announced = if most > 1 { Some(format!("{number}/{most}")) } else { None };
    set("x-request-attempt", announced.or_else(|| context.caller_retries.then(|| "1/2".to_owned())));
}
