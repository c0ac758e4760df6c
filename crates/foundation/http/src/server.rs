//! Listens, accepts, serves and drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use runtime_kernel::SharedClock;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;

use crate::config::HttpConfig;
use crate::connection::{Protocol, Stream, Told};
use crate::metrics::HttpMetrics;
use crate::receive::Receive;

/// How long the accept loop rests when the system has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// How many idle connections are closed each time that happens.
const SHED: usize = 8;

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
            told: Told::default(),
            protocol: Protocol::new(&config, receive),
            config,
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
    config: HttpConfig,
    told: Told,
    protocol: Protocol,
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
        let connection = self.protocol.connection(stream, &self.told);
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
        self.told.shed.send_replace(Arc::new(AtomicUsize::new(connections)));
    }

    async fn finish(self) -> DrainReport {
        self.told.drain.cancel();
        self.tracker.close();
        let connections = self.tracker.len();
        let in_time = tokio::time::timeout(self.config.drain, self.tracker.wait()).await.is_ok();
        let cut = if in_time { 0 } else { self.tracker.len() };
        if cut > 0 {
            self.told.cut.cancel();
            self.tracker.wait().await;
            tracing::warn!(cut, "connections were cut: they took longer than http.drain");
        }
        DrainReport { connections, cut }
    }
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
