//! One call on its way through the middleware to its handler.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use runtime_kernel::{Context, Error};
use serde_json::Value;

/// What a handler answered, of whatever type.
pub type Answer = Box<dyn Any + Send>;

pub(crate) type Handle = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Answer, Error>> + Send + Sync>;

/// Makes a payload anew, for a transaction that lost a race.
pub(crate) type Again = fn(&(dyn Any + Send)) -> Option<Box<dyn Any + Send>>;

/// A handler, and whether it takes a transaction: then its payload can be made anew.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) handle: Handle,
    pub(crate) again: Option<Again>,
}

/// How a type is written and read, where it can be.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) payload: fn(&(dyn Any + Send)) -> Result<Value, serde_json::Error>,
    pub(crate) answer: fn(&(dyn Any + Send)) -> Result<Value, serde_json::Error>,
    pub(crate) read: fn(Value) -> Result<Answer, serde_json::Error>,
}

/// One command or query being called.
pub struct Call {
    /// The work it belongs to. What middleware changes here, the rest of the call sees.
    pub context: Context,
    /// The caller's idempotency key.
    pub key: Option<String>,
    pub(crate) name: &'static str,
    pub(crate) payload: Box<dyn Any + Send>,
    pub(crate) codec: Option<Codec>,
    pub(crate) again: Option<Again>,
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) tx: Option<runtime_db::Tx>,
}

impl Call {
    /// The command's or query's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The command or query, when it is of this type.
    pub fn payload<T: 'static>(&self) -> Option<&T> {
        self.payload.downcast_ref()
    }

    /// The transaction it is done in, inside of [`Transactional`](crate::Transactional) and when its handler takes one.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn tx(&mut self) -> Option<&mut runtime_db::Tx> {
        self.tx.as_mut()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Something around every call: it may refuse, answer by itself, or go on and look at the answer.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles a call, by `next.run(call)` or without it.
    async fn call(&self, call: Call, next: Next<'_>) -> Result<Answer, Error>;
}

/// The rest of the way.
#[derive(Clone)]
pub struct Next<'c> {
    pub(crate) chain: &'c [Arc<dyn Middleware>],
    pub(crate) handle: &'c Handle,
}

impl Next<'_> {
    /// Goes on: the next middleware, or the handler.
    ///
    /// # Errors
    /// What they say.
    pub async fn run(self, call: Call) -> Result<Answer, Error> {
        match self.chain.split_first() {
            Some((first, chain)) => first.call(call, Next { chain, handle: self.handle }).await,
            None => (self.handle)(call).await,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("left", &self.chain.len()).finish_non_exhaustive()
    }
}
