//! The section `client`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use runtime_kernel::units::ByteSize;
use serde::{Deserialize, Serialize};

/// How outbound HTTP calls are made. Section `client`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ClientConfig {
    /// How long a connection may take to come up, TLS included. Default 5 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub connect_timeout: Duration,
    /// How long the answer's body may pause. Default 15 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub read_timeout: Duration,
    /// How long a call may take from first to last byte, retries and redirects included; the context's deadline
    /// shortens it. Default 30 s. A dependency that takes longer has failed, for its breaker and as an endpoint; when the
    /// context's deadline comes first, nothing is held against it.
    #[serde(with = "runtime_kernel::units::duration")]
    pub timeout: Duration,
    /// The statuses that say it may go better another time: 400 to 599. Default 408, 425, 429, 500, 502, 503 and 504.
    pub retry_statuses: Vec<u16>,
    /// The largest answer's body, unpacked. Default 10 MiB.
    pub max_response: ByteSize,
    /// How many redirects are followed; 0 hands the redirect itself back. At most 20, default 5.
    pub max_redirects: u32,
    /// How many idle connections are kept per host. Default 32.
    pub pool_max_idle_per_host: usize,
    /// How long an idle connection is kept. Default 90 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub pool_idle_timeout: Duration,
    /// How many requests may be under way per host; 0, as by default, for any number. Over HTTP/1.1 that is how many
    /// connections there are.
    pub max_per_host: usize,
    /// How many more may wait for their turn, per host. Default 100.
    pub max_waiting_per_host: usize,
    /// A proxy every request goes through: `http://host:port`. None by default, none from the environment. The guard
    /// judges the addresses we see; the proxy resolves names itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Hosts that are called past the proxy: names, `.domains`, addresses, networks. Empty by default.
    pub no_proxy: Vec<String>,
    /// Our own certificate chain (PEM), for servers that ask for one; with `client_key_file`. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert_file: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_file: Option<PathBuf>,
    /// The pipeline (section `resilience.pipeline`) that guards the calls to a host: by host, or `host:port`.
    pub pipelines: BTreeMap<String, String>,
    /// Which targets may be called at all. Default `public`.
    pub guard: GuardMode,
    /// Targets that may be called although the guard would refuse them: networks (`10.0.0.0/8`), addresses, hosts,
    /// with a port or without. Empty by default.
    pub allow_private: Vec<String>,
    /// The only ports that may be called; empty, as by default, for any.
    pub allow_ports: Vec<u16>,
    /// Sends `traceparent`, `tracestate`, `x-request-id` and `x-request-timeout` along. Default true.
    pub propagate: bool,
    /// Certificates (PEM) trusted beside Mozilla's. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The `user-agent` header. Default `runtime/` and the version.
    pub user_agent: String,
}

/// Which targets may be called at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuardMode {
    /// The public internet.
    #[default]
    Public,
    /// The public internet and this machine.
    Local,
    /// Everything.
    Open,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            timeout: Duration::from_secs(30),
            retry_statuses: vec![408, 425, 429, 500, 502, 503, 504],
            max_response: ByteSize::mib(10),
            max_redirects: 5,
            pool_max_idle_per_host: 32,
            pool_idle_timeout: Duration::from_secs(90),
            max_per_host: 0,
            max_waiting_per_host: 100,
            proxy: None,
            no_proxy: Vec::new(),
            client_cert_file: None,
            client_key_file: None,
            pipelines: BTreeMap::new(),
            guard: GuardMode::Public,
            allow_private: Vec::new(),
            allow_ports: Vec::new(),
            propagate: true,
            ca_file: None,
            user_agent: concat!("runtime/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ClientConfig {
    /// The key that is wrong and what it must be.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let zero = |key| Err((key, "must not be 0".to_owned()));
        if self.connect_timeout.is_zero() {
            return zero("connect_timeout");
        }
        if self.read_timeout.is_zero() {
            return zero("read_timeout");
        }
        if self.timeout.is_zero() {
            return zero("timeout");
        }
        if let Some(status) = self.retry_statuses.iter().find(|status| !(400..=599).contains(*status)) {
            return Err(("retry_statuses", format!("must be 400 to 599: {status}")));
        }
        if self.max_redirects > 20 {
            return Err(("max_redirects", "must not be more than 20".to_owned()));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return Err(("client_cert_file", "and `client_key_file` go together".to_owned()));
        }
        if self.max_per_host > 1_000_000 || self.max_waiting_per_host > 1_000_000 {
            return Err(("max_per_host", "must be at most 1000000".to_owned()));
        }
        if http::HeaderValue::from_str(&self.user_agent).is_err() {
            return Err(("user_agent", "must be a header value".to_owned()));
        }
        self.build_guard().map(drop)
    }

    pub(crate) fn build_guard(&self) -> Result<crate::Guard, (&'static str, String)> {
        let guard = crate::Guard::new(self.guard)
            .allow(&self.allow_private)
            .map_err(|error| ("allow_private", error.to_string()))?;
        Ok(if self.allow_ports.is_empty() { guard } else { guard.ports(self.allow_ports.iter().copied()) })
    }
}

#[cfg(feature = "module")]
impl runtime_kernel::config::Section for ClientConfig {
    const PATH: &'static str = "client";

    fn validate(&self) -> Result<(), runtime_kernel::config::Invalid> {
        self.check().map_err(|(key, message)| runtime_kernel::config::Invalid::new(key, message))
    }
}
