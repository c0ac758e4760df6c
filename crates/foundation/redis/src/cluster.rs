//! A cluster: each command goes to the node that has the slot of its keys.

use std::sync::OnceLock;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::{Arg, Cmd, Pipeline, RedisFuture, RedisResult, Value};

use crate::config::RedisConfig;
use crate::error::RedisError;
use crate::hosts::{Hosts, no};
use crate::place::{tcp, wrong};

const PORT: u16 = 6379;

/// Follows the cluster's slots by itself.
pub(crate) struct Cluster {
    /// With an end to each command, its redirections included.
    client: ClusterClient,
    /// Without.
    own: ClusterClient,
    response_timeout: Duration,
    shared: OnceLock<ClusterConnection>,
}

impl Cluster {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self, RedisError> {
        let hosts = Hosts::read(&config.url, PORT)?;
        if !hosts.path.is_empty() {
            return Err(no("must end after the hosts: a cluster has one database"));
        }
        let builder = || {
            ClusterClient::builder(hosts.all.clone())
                .connection_timeout(config.connect_timeout)
                .tcp_settings(tcp())
                .retries(8)
                .min_retry_wait(10)
                .max_retry_wait(100)
        };
        let whole = config.connect_timeout.saturating_add(config.response_timeout);
        Ok(Self {
            client: builder().overall_response_timeout(Some(whole)).build().map_err(wrong)?,
            own: builder().build().map_err(wrong)?,
            response_timeout: config.response_timeout,
            shared: OnceLock::new(),
        })
    }

    /// The connections everybody shares, opened in the background when first asked for.
    pub(crate) fn shared(&self) -> ClusterConnection {
        let open = || {
            let config = ClusterConfig::new().set_response_timeout(self.response_timeout);
            self.client.get_pending_async_connection_with_config(config)
        };
        self.shared.get_or_init(open).clone()
    }

    /// New connections.
    pub(crate) async fn own(&self) -> RedisResult<ClusterConnection> {
        self.own.get_async_connection().await
    }
}

/// Sends a script that a node does not know along with the command that runs it.
///
/// The library would load it on every master it knows of, which leaves out the one a slot is just moving to.
pub(crate) struct Whole<'a> {
    connection: &'a mut ClusterConnection,
    /// What was called last, by its hash.
    hash: Vec<u8>,
    script: Option<Vec<u8>>,
}

impl<'a> Whole<'a> {
    pub(crate) fn new(connection: &'a mut ClusterConnection) -> Self {
        Self { connection, hash: Vec::new(), script: None }
    }

    /// The script that is to be loaded, if that is the command.
    fn loaded(command: &Cmd) -> Option<Vec<u8>> {
        let mut words = command.args_iter();
        match (words.next(), words.next(), words.next()) {
            (Some(Arg::Simple(b"SCRIPT")), Some(Arg::Simple(b"LOAD")), Some(Arg::Simple(script))) => {
                Some(script.to_vec())
            }
            _ => None,
        }
    }

    /// The same call with the script in place of its hash.
    fn spelled_out(script: &[u8], command: &Cmd) -> Cmd {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script);
        for word in command.args_iter().skip(2) {
            if let Arg::Simple(word) = word {
                eval.arg(word);
            }
        }
        eval
    }
}

impl ConnectionLike for Whole<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        if let Some(script) = Self::loaded(command) {
            // The call comes next.
            self.script = Some(script);
            return Box::pin(std::future::ready(Ok(Value::BulkString(self.hash.clone()))));
        }
        let Some(script) = self.script.take() else {
            if let Some(Arg::Simple(hash)) = command.args_iter().nth(1) {
                self.hash = hash.to_vec();
            }
            return self.connection.req_packed_command(command);
        };
        Box::pin(async move {
            let eval = Self::spelled_out(&script, command);
            self.connection.req_packed_command(&eval).await
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
