//! Listens, accepts, serves and drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime_kernel::SharedClock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpConfig;
use crate::metrics::HttpMetrics;
use crate::receive::Receive;

/// How long the accept loop rests when the system has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// How much larger hyper's own limits are than ours, so that what is over ours gets a problem document rather than a
/// bare status.
const HEADROOM: usize = 8;

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
            // A socket file left by a process that was killed would be in the way.
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                let _ = std::fs::remove_file(path);
            }
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

    /// Serves until `stop`, then drains: accepts nothing more, lets requests in flight finish for `drain`, cuts the
    /// rest.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> DrainReport {
        let Self { listener, config, receive, .. } = self;
        let connections = Connections {
            permits: Arc::new(Semaphore::new(config.max_connections)),
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            shed: watch::Sender::new(()),
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
        drop(listener);
        connections.finish().await
    }
}

struct Connections {
    permits: Arc<Semaphore>,
    tracker: TaskTracker,
    drain: CancellationToken,
    cut: CancellationToken,
    /// Told when room is needed: idle connections then close.
    shed: watch::Sender<()>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    config: HttpConfig,
    receive: Receive,
}

impl Connections {
    /// Takes one connection, or rests after a failure to. Cancel-safe: nothing accepted is dropped.
    async fn accept(&self, listener: &Listener) {
        let permit = if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            permit
        } else {
            self.shed.send_replace(());
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            permit
        };
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
                let connection = self.connection(stream);
                self.tracker.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "no file descriptor for a new connection: idle ones are closed");
                self.shed.send_replace(());
                tokio::time::sleep(EXHAUSTED).await;
            }
            // The peer went away before it was accepted.
            Err(error) => tracing::debug!(%error, "a connection was not accepted"),
        }
    }

    fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let receive = self.receive.connection();
        let activity = Arc::clone(&receive.activity);
        let (drain, cut, mut shed) = (self.drain.clone(), self.cut.clone(), self.shed.subscribe());
        let builder = Arc::clone(&self.builder);
        let (header_timeout, idle_timeout) = (self.config.header_timeout, self.config.idle_timeout);
        async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = receive.receive(request);
                async move { Ok::<Response, std::convert::Infallible>(answer.await) }
            });
            let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
            let mut seen = 0;
            let mut closing = false;
            // A connection that has said nothing gets as long as a request's head.
            let mut timer = pin!(tokio::time::sleep(header_timeout));
            loop {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = cut.cancelled() => return,
                    () = drain.cancelled(), if !closing => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Ok(()) = shed.changed(), if !closing => {
                        if activity.running.load(Ordering::Relaxed) == 0 {
                            closing = true;
                            connection.as_mut().graceful_shutdown();
                        }
                    }
                    () = timer.as_mut(), if !closing => {
                        let begun = activity.begun.load(Ordering::Relaxed);
                        if begun == seen && activity.running.load(Ordering::Relaxed) == 0 {
                            closing = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        seen = begun;
                        timer.set(tokio::time::sleep(idle_timeout));
                    }
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
        .header_read_timeout(config.header_timeout)
        .max_headers(config.max_headers.saturating_mul(HEADROOM))
        .max_buf_size(head.max(8 * 1024))
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
