//! Where Redis is: one server, the master sentinels name, or a cluster.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncConnectionConfig, Client, RedisResult};

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::config::RedisConfig;
use crate::connection::Connection;
use crate::error::RedisError;
#[cfg(feature = "sentinel")]
use crate::sentinel::Sentinel;

/// What the URL says.
#[allow(clippy::large_enum_variant, reason = "a process has one, behind an `Arc`")]
pub(crate) enum Place {
    Server {
        client: Client,
        shared: ConnectionManager,
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
        let client = Client::open(config.url.as_str())?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout))
            // Trying again is paced by `Away`; a caller must not be held meanwhile.
            .set_number_of_retries(0)
            .set_min_delay(Duration::from_millis(10))
            .set_max_delay(Duration::from_millis(100));
        let shared = ConnectionManager::new_lazy_with_config(client.clone(), settings)?;
        Ok(Self::Server { client, shared, own: unhurried(config) })
    }

    /// The connection everybody shares.
    #[cfg_attr(
        not(feature = "sentinel"),
        expect(clippy::unused_async, reason = "sentinels have to be asked")
    )]
    pub(crate) async fn shared(&self) -> RedisResult<Connection> {
        match self {
            Self::Server { shared, .. } => Ok(Connection::Managed(shared.clone())),
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

    /// What was shared did not answer: where it leads to may have changed.
    #[cfg_attr(not(feature = "sentinel"), expect(clippy::unused_self, reason = "with sentinels it is used"))]
    pub(crate) fn forget(&self) {
        #[cfg(feature = "sentinel")]
        if let Self::Sentinel(sentinel) = self {
            sentinel.forget();
        }
    }
}

/// For commands that block: only the time they name themselves counts.
pub(crate) fn unhurried(config: &RedisConfig) -> AsyncConnectionConfig {
    let own = AsyncConnectionConfig::new().set_connection_timeout(Some(config.connect_timeout));
    own.set_response_timeout(None)
}

/// The library's message does not repeat the URL, which may hold a password.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn wrong(error: redis::RedisError) -> RedisError {
    RedisError::Config { key: "url", message: error.to_string() }
}

fn missing(feature: &str) -> RedisError {
    RedisError::Config { key: "url", message: format!("needs the feature `{feature}` of runtime-redis") }
}
