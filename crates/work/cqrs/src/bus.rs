//! The buses: one handler per type, found by the type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use runtime_kernel::{Context, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::{Call, Codec, Handle, Middleware, Next};
use crate::error::CqrsError;

/// Something to be done.
pub trait Command: Serialize + Send + 'static {
    /// Its name in logs, keys and errors; unique on a bus.
    const NAME: &'static str;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// Something to be asked; asking changes nothing.
pub trait Query: Send + 'static {
    /// Its name in logs and errors; unique on a bus.
    const NAME: &'static str;
    /// What is answered.
    type Reply: Send + 'static;
}

/// Commands and their handlers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CommandBus(Arc<Routes>);

/// Queries and their handlers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryBus(Arc<Routes>);

impl CommandBus {
    /// A bus to be, without handlers.
    pub fn builder() -> CommandBusBuilder {
        CommandBusBuilder(Building::default())
    }

    /// Does a command.
    ///
    /// # Errors
    /// [`CqrsError::Unknown`], and what middleware and handler say.
    pub async fn send<C: Command>(&self, context: &Context, command: C) -> Result<C::Reply, Error> {
        self.0.call(context, command, C::NAME, None, Some(codec::<C>())).await
    }

    /// Does a command that happens once for each idempotency key, as the middleware
    /// [`Idempotent`](crate::Idempotent) sees to; without that middleware it is refused.
    ///
    /// # Errors
    /// As [`send`](Self::send), and what [`Idempotent`](crate::Idempotent) says.
    pub async fn send_once<C: Command>(
        &self,
        context: &Context,
        key: impl Into<String>,
        command: C,
    ) -> Result<C::Reply, Error> {
        if !self.0.once {
            return Err(Error::new(
                runtime_kernel::ErrorKind::Unsupported,
                "cqrs.not_idempotent",
                "the bus has no idempotency store",
            ));
        }
        self.0.call(context, command, C::NAME, Some(key.into()), Some(codec::<C>())).await
    }
}

impl QueryBus {
    /// A bus to be, without handlers.
    pub fn builder() -> QueryBusBuilder {
        QueryBusBuilder(Building::default())
    }

    /// Asks a query.
    ///
    /// # Errors
    /// [`CqrsError::Unknown`], and what middleware and handler say.
    pub async fn ask<Q: Query>(&self, context: &Context, query: Q) -> Result<Q::Reply, Error> {
        self.0.call(context, query, Q::NAME, None, None).await
    }
}

/// A command bus in the making.
#[derive(Debug, Default)]
#[must_use]
pub struct CommandBusBuilder(Building);

impl CommandBusBuilder {
    /// Handles a type of command.
    pub fn handle<C, F, W>(mut self, handler: F) -> Self
    where
        C: Command,
        F: Fn(Context, C) -> W + Send + Sync + 'static,
        W: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        self.0.add::<C, C::Reply, F, W>(C::NAME, handler);
        self
    }

    /// Declares that a type of command will be sent: without a handler the bus is not built.
    pub fn expects<C: Command>(mut self) -> Self {
        self.0.expected.push((TypeId::of::<C>(), C::NAME));
        self
    }

    /// Puts something around every call, inside of what was added before.
    pub fn layer(mut self, middleware: impl Middleware) -> Self {
        self.0.once |= (&middleware as &dyn Any).is::<crate::Idempotent>();
        self.0.chain.push(Arc::new(middleware));
        self
    }

    /// The bus.
    ///
    /// # Errors
    /// [`CqrsError::Duplicate`] and [`CqrsError::Unknown`] name the first command with two handlers or none.
    pub fn build(self) -> Result<CommandBus, CqrsError> {
        Ok(CommandBus(Arc::new(self.0.build()?)))
    }
}

/// A query bus in the making.
#[derive(Debug, Default)]
#[must_use]
pub struct QueryBusBuilder(Building);

impl QueryBusBuilder {
    /// Handles a type of query.
    pub fn handle<Q, F, W>(mut self, handler: F) -> Self
    where
        Q: Query,
        F: Fn(Context, Q) -> W + Send + Sync + 'static,
        W: Future<Output = Result<Q::Reply, Error>> + Send + 'static,
    {
        self.0.add::<Q, Q::Reply, F, W>(Q::NAME, handler);
        self
    }

    /// Declares that a type of query will be asked: without a handler the bus is not built.
    pub fn expects<Q: Query>(mut self) -> Self {
        self.0.expected.push((TypeId::of::<Q>(), Q::NAME));
        self
    }

    /// Puts something around every call, inside of what was added before.
    pub fn layer(mut self, middleware: impl Middleware) -> Self {
        self.0.chain.push(Arc::new(middleware));
        self
    }

    /// The bus.
    ///
    /// # Errors
    /// [`CqrsError::Duplicate`] and [`CqrsError::Unknown`] name the first query with two handlers or none.
    pub fn build(self) -> Result<QueryBus, CqrsError> {
        Ok(QueryBus(Arc::new(self.0.build()?)))
    }
}

#[derive(Default)]
struct Building {
    handlers: Vec<(TypeId, &'static str, Handle)>,
    expected: Vec<(TypeId, &'static str)>,
    chain: Vec<Arc<dyn Middleware>>,
    once: bool,
}

impl Building {
    fn add<T, R, F, W>(&mut self, name: &'static str, handler: F)
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(Context, T) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let handle: Handle = Arc::new(move |context, payload| match payload.downcast::<T>() {
            Ok(payload) => {
                let work = handler(context, *payload);
                Box::pin(async move { work.await.map(|reply| Box::new(reply) as Box<dyn Any + Send>) })
            }
            // The type is the key it was found by.
            Err(_) => Box::pin(async move { Err(CqrsError::Unknown(name).into()) }),
        });
        self.handlers.push((TypeId::of::<T>(), name, handle));
    }

    fn build(self) -> Result<Routes, CqrsError> {
        let (mut routes, mut names) = (HashMap::new(), std::collections::HashSet::new());
        for (id, name, handle) in self.handlers {
            if !names.insert(name) || routes.insert(id, handle).is_some() {
                return Err(CqrsError::Duplicate(name));
            }
        }
        if let Some((_, name)) = self.expected.iter().find(|(id, _)| !routes.contains_key(id)) {
            return Err(CqrsError::Unknown(name));
        }
        Ok(Routes { by_type: routes, chain: self.chain, once: self.once })
    }
}

struct Routes {
    by_type: HashMap<TypeId, Handle>,
    chain: Vec<Arc<dyn Middleware>>,
    once: bool,
}

impl Routes {
    async fn call<T: Send + 'static, R: 'static>(
        &self,
        context: &Context,
        payload: T,
        name: &'static str,
        key: Option<String>,
        codec: Option<Codec>,
    ) -> Result<R, Error> {
        let handle = self.by_type.get(&TypeId::of::<T>()).ok_or(CqrsError::Unknown(name))?;
        let call = Call { context: context.clone(), key, name, payload: Box::new(payload), codec };
        let answer = Next { chain: &self.chain, handle }.run(call).await?;
        let wrong = || CqrsError::Corrupt(name.to_owned(), "middleware answered by another type".to_owned());
        answer.downcast::<R>().map(|reply| *reply).map_err(|_| wrong().into())
    }
}

fn codec<C: Command>() -> Codec {
    fn write<T: Serialize + 'static>(
        value: &(dyn Any + Send),
    ) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(value.downcast_ref::<T>())
    }
    Codec {
        payload: write::<C>,
        answer: write::<C::Reply>,
        read: |value| {
            serde_json::from_value::<C::Reply>(value).map(|reply| Box::new(reply) as Box<dyn Any + Send>)
        },
    }
}

impl fmt::Debug for Building {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.iter().map(|(_, name, _)| name)).finish()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("handlers", &self.by_type.len()).finish_non_exhaustive()
    }
}
