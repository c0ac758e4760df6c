//! Where Redis is: one server, the master sentinels name, or a cluster.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult};

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::config::RedisConfig;
use crate::connection::Connection;
use crate::error::RedisError;
#[cfg(feature = "sentinel")]
use crate::sentinel::Sentinel;
use crate::shared::Shared;

/// How long nothing comes before the peer is asked whether it is there, and how often then.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long it may leave that, or what was sent, without acknowledgement.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What the URL says.
#[allow(clippy::large_enum_variant, reason = "a process has one, behind an `Arc`")]
pub(crate) enum Place {
    Server {
        client: Client,
        shared: Shared,
        /// For the shared connection.
        hurried: AsyncConnectionConfig,
        /// For connections of one's own.
        own: AsyncConnectionConfig,
    },
    #[cfg(feature = "sentinel")]
    Sentinel(Sentinel),
    #[cfg(feature = "cluster")]
    Cluster(Cluster),
}

impl Place {
    /// Reads the URL; connects to nothing yet.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisError> {
        let scheme = config.url.split_once("://").map_or("", |(scheme, _)| scheme);
        if scheme.starts_with("rediss") && !cfg!(feature = "tls") {
            return Err(missing("tls"));
        }
        match scheme {
            #[cfg(feature = "sentinel")]
            "redis+sentinel" | "rediss+sentinel" => Sentinel::new(config).map(Self::Sentinel),
            #[cfg(not(feature = "sentinel"))]
            "redis+sentinel" | "rediss+sentinel" => Err(missing("sentinel")),
            #[cfg(feature = "cluster")]
            "redis+cluster" | "rediss+cluster" => Cluster::new(config).map(Self::Cluster),
            #[cfg(not(feature = "cluster"))]
            "redis+cluster" | "rediss+cluster" => Err(missing("cluster")),
            _ => Self::server(config).map_err(wrong),
        }
    }

    fn server(config: &RedisConfig) -> RedisResult<Self> {
        let client = Client::open(config.url.as_str().into_connection_info()?.set_tcp_settings(tcp()))?;
        let shared = Shared::new(config.connect_timeout);
        Ok(Self::Server { client, shared, hurried: hurried(config), own: unhurried(config) })
    }

    /// The connection everybody shares.
    pub(crate) async fn shared(&self) -> RedisResult<Connection> {
        match self {
            Self::Server { client, shared, hurried, .. } => {
                let open = async || client.get_multiplexed_async_connection_with_config(hurried).await;
                shared.get(open).await.map(Connection::Plain)
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinel(sentinel) => sentinel.shared().await.map(Connection::Plain),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => Ok(Connection::Cluster(cluster.shared())),
        }
    }

    /// A new connection, whose answers may take as long as they like.
    pub(crate) async fn own(&self) -> RedisResult<Connection> {
        match self {
            Self::Server { client, own, .. } => {
                client.get_multiplexed_async_connection_with_config(own).await.map(Connection::Plain)
            }
            #[cfg(feature = "sentinel")]
            Self::Sentinel(sentinel) => sentinel.own().await.map(Connection::Plain),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.own().await.map(Connection::Cluster),
        }
    }

    /// Whether a connection of one's own can be used again.
    pub(crate) async fn check(&self, connection: &mut Connection) -> RedisResult<()> {
        #[cfg(feature = "sentinel")]
        if let Self::Sentinel(_) = self {
            return crate::sentinel::still_master(connection).await;
        }
        redis::cmd("PING").exec_async(connection).await
    }

    /// What was shared did not answer: it may be dead, or where it leads to may have changed.
    pub(crate) fn forget(&self) {
        match self {
            Self::Server { shared, .. } => shared.forget(),
            #[cfg(feature = "sentinel")]
            Self::Sentinel(sentinel) => sentinel.forget(),
            // The library does so by itself.
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => {}
        }
    }
}

/// For the shared connection: every answer has its time.
pub(crate) fn hurried(config: &RedisConfig) -> AsyncConnectionConfig {
    unhurried(config).set_response_timeout(Some(config.response_timeout))
}

/// For commands that block: only the time they name themselves counts.
pub(crate) fn unhurried(config: &RedisConfig) -> AsyncConnectionConfig {
    let own = AsyncConnectionConfig::new().set_connection_timeout(Some(config.connect_timeout));
    own.set_response_timeout(None)
}

/// A peer that has vanished without a word is noticed by the system, also by those who wait without a time-out.
pub(crate) fn tcp() -> TcpSettings {
    let (idle, every) = KEEPALIVE;
    let settings =
        TcpSettings::default().set_keepalive(TcpKeepalive::new().with_time(idle).with_interval(every));
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

/// The library's message does not repeat the URL, which may hold a password.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn wrong(error: redis::RedisError) -> RedisError {
    RedisError::Config { key: "url", message: error.to_string() }
}

fn missing(feature: &str) -> RedisError {
    RedisError::Config { key: "url", message: format!("needs the feature `{feature}` of runtime-redis") }
}
