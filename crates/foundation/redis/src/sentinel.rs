//! The master of a service, as sentinels name it.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisConnectionInfo, RedisResult, TlsMode};
use tokio::task::JoinSet;

use crate::config::RedisConfig;
use crate::error::RedisError;
use crate::hosts::{Hosts, no};
use crate::place::{hurried, tcp, unhurried};
use crate::shared::{Shared, late};

const PORT: u16 = 26_379;

/// Finds the master when it is first needed, and again once it did not answer.
pub(crate) struct Sentinel {
    service: Service,
    shared: Shared,
    /// For the shared connection.
    hurried: AsyncConnectionConfig,
    own: AsyncConnectionConfig,
}

#[derive(Clone)]
struct Service {
    sentinels: Vec<ConnectionInfo>,
    name: String,
    master: SentinelNodeConnectionInfo,
}

impl Sentinel {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisError> {
        let hosts = Hosts::read(&config.url, PORT)?;
        let (name, database) = hosts.path.split_once('/').unwrap_or((hosts.path, "0"));
        if name.is_empty() {
            return Err(no("must name the service after the sentinels: `/service` or `/service/database`"));
        }
        let database: i64 = database.parse().map_err(|_| no("must end in the number of a database"))?;
        let login = hosts.all.first().map(|host| host.redis_settings().clone()).unwrap_or_default();
        let mut master = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(login.set_db(database))
            .set_tcp_settings(tcp());
        if hosts.secure() {
            master = master.set_tls_mode(TlsMode::Secure);
        }
        Ok(Self {
            service: Service { sentinels: hosts.all, name: name.to_owned(), master },
            shared: Shared::new(config.connect_timeout),
            hurried: hurried(config),
            own: unhurried(config),
        })
    }

    /// The connection to the master, as far as is known.
    pub(crate) async fn shared(&self) -> RedisResult<MultiplexedConnection> {
        self.shared.get(async || self.service.connect(&self.hurried).await).await
    }

    /// A new connection to the master.
    pub(crate) async fn own(&self) -> RedisResult<MultiplexedConnection> {
        self.service.connect(&self.own).await
    }

    /// The next caller asks the sentinels again.
    pub(crate) fn forget(&self) {
        self.shared.forget();
    }
}

impl Service {
    /// Asks all sentinels at once: one that hangs must not hide a new master. The first that names one which says of
    /// itself that it is the master, is believed.
    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let mut asked = JoinSet::new();
        for sentinel in &self.sentinels {
            let (service, sentinel, config) = (self.clone(), sentinel.clone(), config.clone());
            asked.spawn(async move { service.ask(sentinel, &config).await });
        }
        let mut last = late();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Servers have passwords more often than sentinels, which refuse one they do not have: it is told only when asked
    /// for.
    async fn ask(
        self,
        sentinel: ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let open = sentinel.clone().set_redis_settings(RedisConnectionInfo::default());
        match self.ask_as(open, config).await {
            Err(error) if error.code() == Some("NOAUTH") => self.ask_as(sentinel, config).await,
            answer => answer,
        }
    }

    async fn ask_as(
        &self,
        sentinel: ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let (name, master) = (self.name.clone(), Some(self.master.clone()));
        let mut client = SentinelClient::build(vec![sentinel], name, master, SentinelServerType::Master)?;
        client.get_async_connection_with_config(config).await
    }
}

/// An old master may still answer, and take orders nobody will ever see.
pub(crate) async fn still_master(connection: &mut (impl ConnectionLike + Send)) -> RedisResult<()> {
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(connection).await?;
    match role.into_iter().next().map(redis::from_redis_value::<String>) {
        Some(Ok(role)) if role == "master" => Ok(()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into()),
    }
}
