//! One connection: its protocol, and what it is told while it is served.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::receive::Receive;
use crate::transport::Transport;

/// How long a connection is new: too young to be called idle, its first request may be on its way.
const NEW: Duration = Duration::from_millis(100);

/// How long a connection stays open after the last accept for a request that is already on its way, which is then
/// answered with `connection: close`. Closing an idle connection at once would lose it (RFC 9112 §9.5).
const LAST_CALL: Duration = Duration::from_millis(500);

/// How much larger hyper's own limits are than ours, so that what is over ours gets a problem document rather than a
/// bare status.
const HEADROOM: usize = 8;

/// The most headers hyper takes unless told; told, it clears a list of that length for every request.
const HYPER_HEADERS: usize = 100;

pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// What every connection hears from the server.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) drain: CancellationToken,
    pub(crate) cut: CancellationToken,
    /// How many idle connections shall close to make room; each that does takes one off.
    pub(crate) shed: watch::Sender<Arc<AtomicUsize>>,
}

/// How connections are served.
pub(crate) struct Protocol {
    builder: Arc<auto::Builder<TokioExecutor>>,
    receive: Receive,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
}

impl Protocol {
    pub(crate) fn new(config: &HttpConfig, receive: Receive) -> Self {
        let HttpConfig { header_timeout, idle_timeout, write_timeout, .. } = *config;
        Self { builder: Arc::new(builder(config)), receive, header_timeout, idle_timeout, write_timeout }
    }

    pub(crate) fn connection(&self, stream: Stream, all: &Told) -> impl Future<Output = ()> + Send + 'static {
        let peer = match &stream {
            Either::Left(tcp) => tcp.peer_addr().ok(),
            Either::Right(_) => None,
        };
        let receive = self.receive.connection(peer);
        let activity = Arc::clone(&receive.activity);
        let builder = Arc::clone(&self.builder);
        let Self { header_timeout, idle_timeout, write_timeout, .. } = *self;
        let clock = receive.clock();
        let opened = clock.now();
        let stream =
            Transport::new(stream, Arc::clone(&activity), Arc::clone(&clock), header_timeout, write_timeout);

        // Each is looked at only when it has something to say: to ask all of them whenever bytes come would take
        // locks that every connection shares.
        let events = FuturesUnordered::new();
        events.push(told(all.cut.clone(), Event::Cut));
        events.push(told(all.drain.clone(), Event::Drain));
        events.push(asked(all.shed.subscribe()));
        // A connection that has said nothing gets as long as a request's head.
        events.push(passed(header_timeout, Event::Look));
        async move {
            let mut events = events;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = receive.receive(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
            let mut seen = 0;
            let mut closing = false;
            loop {
                let event = tokio::select! {
                    biased;
                    _ = connection.as_mut() => return,
                    Some(event) = events.next() => event,
                };
                let idle = activity.running.load(Ordering::Relaxed) == 0;
                let close = match event {
                    Event::Cut => return,
                    Event::Drain => {
                        activity.closing.store(true, Ordering::Relaxed);
                        events.push(passed(LAST_CALL, Event::Close));
                        false
                    }
                    Event::Close => true,
                    Event::Shed(mut shed) => {
                        let old = clock.now().saturating_duration_since(opened) > NEW;
                        let close = idle && old && take_one(&shed.borrow_and_update());
                        events.push(asked(shed));
                        close
                    }
                    Event::Look => {
                        let begun = activity.begun.load(Ordering::Relaxed);
                        let close = idle && begun == seen;
                        seen = begun;
                        events.push(passed(idle_timeout, Event::Look));
                        close
                    }
                };
                if close && !closing {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// What a connection is told beside its bytes.
enum Event {
    /// End at once.
    Cut,
    /// The server stops.
    Drain,
    /// The last call is over.
    Close,
    /// Room is needed.
    Shed(watch::Receiver<Arc<AtomicUsize>>),
    /// Time to look whether it is idle.
    Look,
}

fn told(token: CancellationToken, event: Event) -> BoxFuture<'static, Event> {
    async move {
        token.cancelled().await;
        event
    }
    .boxed()
}

fn passed(time: Duration, event: Event) -> BoxFuture<'static, Event> {
    async move {
        tokio::time::sleep(time).await;
        event
    }
    .boxed()
}

fn asked(mut shed: watch::Receiver<Arc<AtomicUsize>>) -> BoxFuture<'static, Event> {
    async move {
        match shed.changed().await {
            Ok(()) => Event::Shed(shed),
            // The server has ended, and cuts what is left.
            Err(_) => Event::Cut,
        }
    }
    .boxed()
}

fn take_one(places: &AtomicUsize) -> bool {
    places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn builder(config: &HttpConfig) -> auto::Builder<TokioExecutor> {
    let head = config.max_head.as_usize().saturating_mul(HEADROOM);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Transport` times heads: hyper would count the wait between requests too, and set a timer for each.
        .header_read_timeout(None)
        .max_buf_size(head.max(8 * 1024));
    if config.max_headers > HYPER_HEADERS {
        builder.http1().max_headers(config.max_headers.saturating_mul(HEADROOM));
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(config.max_pending_resets)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(config.idle_timeout)
        .keep_alive_timeout(config.header_timeout);
    builder
}
