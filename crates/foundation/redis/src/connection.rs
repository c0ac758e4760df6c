//! A connection, whatever it leads to, and the pool of those for commands that block.

use std::fmt;
use std::sync::Arc;

use deadpool::managed::{Manager, Metrics, Object, RecycleResult};
use redis::aio::{ConnectionLike, MultiplexedConnection};
#[cfg(feature = "cluster")]
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, FromRedisValue, Pipeline, RedisFuture, RedisResult, ScriptInvocation, Value};

use crate::place::Place;

/// What commands go over.
#[derive(Clone)]
pub(crate) enum Connection {
    /// To one server, for as long as it lasts.
    Plain(MultiplexedConnection),
    /// To whichever nodes a command concerns.
    #[cfg(feature = "cluster")]
    Cluster(ClusterConnection),
}

impl Connection {
    fn inner(&self) -> &(dyn ConnectionLike + Send) {
        match self {
            Self::Plain(connection) => connection,
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection,
        }
    }

    fn inner_mut(&mut self) -> &mut (dyn ConnectionLike + Send) {
        match self {
            Self::Plain(connection) => connection,
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => connection,
        }
    }

    /// Runs a script by its hash, and sends it along when it is not known where it runs.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &mut self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        match self {
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => {
                script.invoke_async(&mut crate::cluster::Whole::new(connection)).await
            }
            one => script.invoke_async(one).await,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.inner_mut().req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.inner_mut().req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.inner().get_db()
    }
}

/// A connection of one's own for commands that block; it returns to the pool when dropped.
///
/// No time-out of ours holds for it, only the one the command names.
///
/// A command that is given up (its future dropped before the answer) would still take what it waits for, and nobody would
/// ever see that. So the connection is of no more use then: further commands fail, and dropping it closes it, upon which
/// the server gives the command up as well. What it had already taken by then is lost.
pub struct Blocking {
    connection: Connection,
    /// Its place in the pool.
    object: Option<Object<Own>>,
    /// Whether a command is out, or was given up.
    busy: bool,
}

impl Blocking {
    pub(crate) fn new(object: Object<Own>) -> Self {
        Self { connection: Connection::clone(&object), object: Some(object), busy: false }
    }

    async fn whole<'a, T>(
        &'a mut self,
        ask: impl FnOnce(&'a mut Connection) -> RedisFuture<'a, T> + Send,
    ) -> RedisResult<T> {
        if self.busy {
            let given_up = "a command was given up on this connection";
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, given_up).into());
        }
        self.busy = true;
        let answer = ask(&mut self.connection).await;
        self.busy = false;
        answer
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if self.busy
            && let Some(object) = self.object.take()
        {
            // Not back into the pool: its last clone, which is ours, closes it.
            drop(Object::take(object));
        }
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

impl ConnectionLike for Blocking {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.whole(|connection| connection.req_packed_command(command)))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.whole(move |connection| connection.req_packed_commands(pipeline, offset, count)))
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

/// Makes the pool's connections.
pub(crate) struct Own(pub(crate) Arc<Place>);

impl Manager for Own {
    type Type = Connection;
    type Error = redis::RedisError;

    async fn create(&self) -> RedisResult<Connection> {
        self.0.own().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<redis::RedisError> {
        Ok(self.0.check(connection).await?)
    }
}
