//! Listens, accepts, serves and drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime_kernel::SharedClock;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpConfig;
use crate::metrics::HttpMetrics;
use crate::receive::Receive;
use crate::transport::Transport;

/// How long the accept loop rests when the system has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// How many idle connections are closed each time that happens.
const SHED: usize = 8;

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

/// Why the server could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A limit that cannot be used.
    #[error("http.{key} {problem}")]
    Config {
        /// Which.
        key: &'static str,
        /// Why.
        problem: &'static str,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl runtime_kernel::Classify for ServerError {
    fn kind(&self) -> runtime_kernel::ErrorKind {
        match self {
            Self::Config { .. } => runtime_kernel::ErrorKind::Invalid,
            Self::Listen { .. } => runtime_kernel::ErrorKind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "http.config",
            Self::Listen { .. } => "http.listen",
        }
    }
}
runtime_kernel::into_error!(ServerError);

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections open when the drain began.
    pub connections: usize,
    /// Those cut because they took longer than `drain`.
    pub cut: usize,
}

/// A server that listens, and serves once told to.
///
/// ```
/// # async fn example() -> Result<(), runtime_http::ServerError> {
/// use runtime_http::{HttpConfig, Server};
/// use runtime_kernel::SystemClock;
///
/// let router = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
/// let server = Server::bind(HttpConfig::default(), router, SystemClock::shared()).await?;
/// println!("listening on {}", server.address());
/// server.serve(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
/// # Ok(())
/// # }
/// ```
pub struct Server {
    listener: Listener,
    address: String,
    port: Option<SocketAddr>,
    config: HttpConfig,
    receive: Receive,
}

type Stream = Either<TcpStream, UnixStream>;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Listens. Connections wait in the system's queue until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ServerError`] names the limit or the address.
    pub async fn bind(config: HttpConfig, router: Router, clock: SharedClock) -> Result<Self, ServerError> {
        Self::bind_with(config, router, clock, HttpMetrics::default()).await
    }

    /// Listens, and counts requests.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(
        config: HttpConfig,
        router: Router,
        clock: SharedClock,
        metrics: HttpMetrics,
    ) -> Result<Self, ServerError> {
        if let Some((key, problem)) = config.problem() {
            return Err(ServerError::Config { key, problem });
        }
        let receive = Receive::new(router, config.clone(), clock, metrics);
        if let Some(path) = &config.unix_socket {
            let address = format!("unix:{}", path.display());
            remove_stale_socket(path);
            let listener = UnixListener::bind(path);
            let listener =
                listener.map_err(|source| ServerError::Listen { address: address.clone(), source })?;
            return Ok(Self { listener: Listener::Unix(listener), address, port: None, config, receive });
        }
        let wanted = SocketAddr::new(config.host, config.port);
        let failed = |source| ServerError::Listen { address: wanted.to_string(), source };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener: Listener::Tcp(listener),
            address: port.to_string(),
            port: Some(port),
            config,
            receive,
        })
    }

    /// Where it listens, in words.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens, unless on a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.port
    }

    /// Serves until `stop`, then drains: takes what waits in the system's queue and nothing more, answers what is on
    /// its way with `connection: close`, closes what stays idle for half a second, lets requests in flight finish for
    /// `drain`, cuts the rest.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> DrainReport {
        let Self { listener, config, receive, .. } = self;
        let connections = Connections {
            permits: Arc::new(Semaphore::new(config.max_connections)),
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            shed: watch::Sender::default(),
            builder: Arc::new(builder(&config)),
            config,
            receive,
        };
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = connections.accept(&listener) => {}
            }
        }
        connections.accept_waiting(listener);
        connections.finish().await
    }
}

struct Connections {
    permits: Arc<Semaphore>,
    tracker: TaskTracker,
    drain: CancellationToken,
    cut: CancellationToken,
    /// How many idle connections shall close to make room; each that does takes one off.
    shed: watch::Sender<Arc<AtomicUsize>>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    config: HttpConfig,
    receive: Receive,
}

impl Connections {
    /// Takes one connection, or rests after a failure to. Cancelled while it waits for room, it closes the connection
    /// it has just taken.
    async fn accept(&self, listener: &Listener) {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Answers are written whole; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                Either::Left(stream)
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Either::Right(stream)),
        };
        match accepted {
            Ok(stream) => {
                let permit = self.permit().await;
                self.spawn(stream, permit);
            }
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "no file descriptor for a new connection: idle ones are closed");
                self.make_room(SHED);
                tokio::time::sleep(EXHAUSTED).await;
            }
            // The peer went away before it was accepted.
            Err(error) => tracing::debug!(%error, "a connection was not accepted"),
        }
    }

    /// Takes the connections that have been made and not been accepted, then closes the listener. Over
    /// `max_connections` they are closed.
    fn accept_waiting(&self, listener: Listener) {
        let permit = || Arc::clone(&self.permits).try_acquire_owned().ok();
        match listener {
            Listener::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                while let Some((permit, Ok((stream, _)))) = permit().map(|permit| (permit, listener.accept()))
                {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    let Ok(stream) = stream else { continue };
                    self.spawn(Either::Left(stream), Some(permit));
                }
            }
            Listener::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                while let Some((permit, Ok((stream, _)))) = permit().map(|permit| (permit, listener.accept()))
                {
                    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                    let Ok(stream) = stream else { continue };
                    self.spawn(Either::Right(stream), Some(permit));
                }
            }
        }
    }

    fn spawn(&self, stream: Stream, permit: Option<OwnedSemaphorePermit>) {
        let connection = self.connection(stream);
        self.tracker.spawn(async move {
            connection.await;
            drop(permit);
        });
    }

    /// Waits until there is room for one more, making it from what is idle.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let mut permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        while permit.is_none() {
            self.make_room(1 + self.config.max_connections / 100);
            let freed = Arc::clone(&self.permits).acquire_owned();
            permit = tokio::time::timeout(EXHAUSTED, freed).await.ok().and_then(Result::ok);
        }
        permit
    }

    /// Asks so many idle connections to close.
    fn make_room(&self, connections: usize) {
        self.shed.send_replace(Arc::new(AtomicUsize::new(connections)));
    }

    fn connection(&self, stream: Stream) -> impl Future<Output = ()> + Send + 'static {
        let receive = self.receive.connection();
        let activity = Arc::clone(&receive.activity);
        let builder = Arc::clone(&self.builder);
        let (header_timeout, idle_timeout) = (self.config.header_timeout, self.config.idle_timeout);
        let write_timeout = self.config.write_timeout;
        let clock = receive.clock();
        let opened = clock.now();
        let stream =
            Transport::new(stream, Arc::clone(&activity), Arc::clone(&clock), header_timeout, write_timeout);

        // Each is looked at only when it has something to say: to ask all of them whenever bytes come would take
        // locks that every connection shares.
        let events = FuturesUnordered::new();
        events.push(told(self.cut.clone(), Event::Cut));
        events.push(told(self.drain.clone(), Event::Drain));
        events.push(asked(self.shed.subscribe()));
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

    async fn finish(self) -> DrainReport {
        self.drain.cancel();
        self.tracker.close();
        let connections = self.tracker.len();
        let in_time = tokio::time::timeout(self.config.drain, self.tracker.wait()).await.is_ok();
        let cut = if in_time { 0 } else { self.tracker.len() };
        if cut > 0 {
            self.cut.cancel();
            self.tracker.wait().await;
            tracing::warn!(cut, "connections were cut: they took longer than http.drain");
        }
        DrainReport { connections, cut }
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

/// Removes the socket that a killed process left behind, and nothing that is not a socket nobody listens on.
fn remove_stale_socket(path: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

/// EMFILE and ENFILE: the process or the system has no descriptor left.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
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
