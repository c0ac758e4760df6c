//! What an operator sets about the HTTP edge.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::units::{self, ByteSize};
use serde::{Deserialize, Serialize};

/// The section `http`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpConfig {
    /// The address to listen on. 127.0.0.1 unless told: reachable from elsewhere only when asked to be.
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one. 3000 unless told.
    pub port: u16,
    /// A Unix socket to listen on instead of the port.
    pub unix_socket: Option<PathBuf>,
    /// How long a client may take to send a request's head, and how long a new connection may say nothing. 10 s.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests; looked at once in so long, so that it is closed after
    /// one to two times this. 60 s.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// How long a request's body may stall. 30 s.
    #[serde(with = "units::duration")]
    pub body_timeout: Duration,
    /// How long a peer may take nothing of what we send it. 30 s.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// The deadline every request starts with; the caller's `x-request-timeout` or `grpc-timeout` may shorten it. 30 s.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// The largest request body. 2 MiB.
    pub max_body: ByteSize,
    /// The largest request head. 16 KiB.
    pub max_head: ByteSize,
    /// The most headers of a request. 100.
    pub max_headers: usize,
    /// The most connections at once; over it, idle ones are closed and new ones wait in the system's queue. 10 000.
    pub max_connections: usize,
    /// The most requests at once on one HTTP/2 connection. 200.
    pub max_concurrent_streams: u32,
    /// The most streams a peer may have reset before we looked at them; over it, the connection ends
    /// (CVE-2023-44487). 20.
    pub max_pending_resets: usize,
    /// How long requests in flight may take to finish at shutdown. 10 s.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// Whether each request is logged, at level info, target `http.access`. Probes never are.
    pub access_log: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 3000,
            unix_socket: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            max_body: ByteSize::mib(2),
            max_head: ByteSize::kib(16),
            max_headers: 100,
            max_connections: 10_000,
            max_concurrent_streams: 200,
            max_pending_resets: 20,
            drain: Duration::from_secs(10),
            access_log: true,
        }
    }
}

impl HttpConfig {
    /// The key that is wrong and why, if one is.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let durations = [
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("request_timeout", self.request_timeout),
        ];
        if let Some((key, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Some((key, "must be longer than zero"));
        }
        if self.max_head < ByteSize::kib(1) || self.max_head > ByteSize::mib(1) {
            return Some(("max_head", "must be 1KiB to 1MiB"));
        }
        if !(8..=10_000).contains(&self.max_headers) {
            return Some(("max_headers", "must be 8 to 10000"));
        }
        if self.max_connections == 0 {
            return Some(("max_connections", "must be at least 1"));
        }
        (self.max_concurrent_streams == 0).then_some(("max_concurrent_streams", "must be at least 1"))
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for HttpConfig {
    const PATH: &'static str = "http";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.problem()
            .map_or(Ok(()), |(key, problem)| Err(runtime_kernel::config::Invalid::new(key, problem)))
    }
}
