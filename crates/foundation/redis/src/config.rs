//! What an operator writes to say where Redis is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `redis`. Every key but the URL has a default.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where it is. Empty: there is none.
    ///
    /// - `redis://[user:password@]host[:port][/database]`, or `redis+unix:///path`: one server.
    /// - `redis+sentinel://[user:password@]host[:port],host[:port]/service[/database]`, with the feature `sentinel`: the
    ///   master these sentinels name. The user and password are the servers', and the sentinels' if they ask for one.
    /// - `redis+cluster://[user:password@]host[:port],host[:port]`, with the feature `cluster`: the cluster these nodes
    ///   are part of.
    ///
    /// `rediss` in place of `redis` speaks TLS, with the feature `tls`.
    pub url: String,
    /// What every key starts with, so that several services can share a server. Default `runtime`.
    pub prefix: String,
    /// How long to wait for a connection. Default 1 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub connect_timeout: Duration,
    /// How long to wait for an answer on the shared connection. Default 500 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub response_timeout: Duration,
    /// Connections for commands that block, such as `BLPOP`: 1 to 1024. Opened when needed. Default 8.
    pub pool_size: usize,
    /// Once it does not answer, how long everybody is told so at once before one caller tries again. Default 1 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub retry_after: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            prefix: "runtime".to_owned(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            pool_size: 8,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisConfig {
    /// A server at `url`, with the defaults otherwise.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The same under another key prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The key that is wrong, and what it must be.
    pub(crate) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let bad_prefix = |b: u8| !(0x21..0x7f).contains(&b) || matches!(b, b'{' | b'}');
        if self.prefix.is_empty() || self.prefix.len() > 64 || self.prefix.bytes().any(bad_prefix) {
            return Some(("prefix", "must be 1 to 64 visible ASCII characters other than `{` and `}`"));
        }
        if !(1..=1024).contains(&self.pool_size) {
            return Some(("pool_size", "must be 1 to 1024"));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("retry_after", self.retry_after),
        ];
        times.into_iter().find(|(_, time)| time.is_zero()).map(|(key, _)| (key, "must be more than 0"))
    }
}
