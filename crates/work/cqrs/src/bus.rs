//! The buses: one handler per type, found by the type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use runtime_kernel::{Context, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::{Again, Answer, Call, Codec, Handle, Middleware, Next, Route};
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

    /// Does a command that happens once for each idempotency key. [`Transactional`](crate::Transactional) sees to it where
    /// the handler takes a transaction, [`Idempotent`](crate::Idempotent) where it does not; without it is refused.
    ///
    /// # Errors
    /// As [`send`](Self::send), and what that middleware says.
    pub async fn send_once<C: Command>(
        &self,
        context: &Context,
        key: impl Into<String>,
        command: C,
    ) -> Result<C::Reply, Error> {
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
#[derive(Clone, Debug, Default)]
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
        self.0.add::<C, C::Reply, W>(C::NAME, None, move |call, payload| handler(call.context, payload));
        self
    }

    /// Handles a type of command in the transaction that [`Transactional`](crate::Transactional) opens, on the same bus, for
    /// it: committed when the handler says `Ok` and not before, undone in every other case. After a lost race it runs again,
    /// so it must do nothing outside the transaction that may not happen twice.
    ///
    /// The handler has the transaction by value, and must have dropped it when it ends: one that is kept is undone.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn handle_in<C, F, W>(mut self, handler: F) -> Self
    where
        C: Command + Clone,
        F: Fn(Context, runtime_db::Tx, C) -> W + Send + Sync + 'static,
        W: Future<Output = Result<C::Reply, Error>> + Send + 'static,
    {
        let again: Again = |payload| Some(Box::new(payload.downcast_ref::<C>()?.clone()));
        self.0.add::<C, C::Reply, _>(C::NAME, Some(again), move |call, payload| {
            let work = call.tx.map(|tx| handler(call.context, tx, payload));
            async move { work.ok_or(CqrsError::NoTransaction(C::NAME))?.await }
        });
        self
    }

    /// Declares that a type of command will be sent: without a handler the bus is not built.
    pub fn expects<C: Command>(mut self) -> Self {
        self.0.expected.push((TypeId::of::<C>(), C::NAME));
        self
    }

    /// Puts something around every call, inside of what was added before.
    pub fn layer(mut self, middleware: impl Middleware) -> Self {
        let middleware_type = (&middleware as &dyn Any).type_id();
        self.0.once |= middleware_type == TypeId::of::<crate::Idempotent>();
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        {
            self.0.transactions |= middleware_type == TypeId::of::<crate::Transactional>();
        }
        self.0.chain.push(Arc::new(middleware));
        self
    }

    /// Adds what another has: its middleware inside of this one's.
    pub fn merge(mut self, other: Self) -> Self {
        self.0.merge(other.0);
        self
    }

    /// Checks the handlers before the middleware is complete.
    #[cfg(feature = "module")]
    pub(crate) fn check(&self) -> Result<(), CqrsError> {
        self.0.routes().map(drop)
    }

    /// The bus.
    ///
    /// # Errors
    /// [`CqrsError::Duplicate`] and [`CqrsError::Unknown`] name the first command with two handlers or none,
    /// [`CqrsError::NoTransaction`] one whose handler takes a transaction, on a bus that opens none.
    pub fn build(self) -> Result<CommandBus, CqrsError> {
        Ok(CommandBus(Arc::new(self.0.build()?)))
    }
}

/// A query bus in the making.
#[derive(Clone, Debug, Default)]
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
        self.0.add::<Q, Q::Reply, W>(Q::NAME, None, move |call, payload| handler(call.context, payload));
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

    /// Adds what another has: its middleware inside of this one's.
    pub fn merge(mut self, other: Self) -> Self {
        self.0.merge(other.0);
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

#[derive(Clone, Default)]
struct Building {
    handlers: Vec<(TypeId, &'static str, Route)>,
    expected: Vec<(TypeId, &'static str)>,
    chain: Vec<Arc<dyn Middleware>>,
    once: bool,
    transactions: bool,
}

impl Building {
    fn add<T, R, W>(
        &mut self,
        name: &'static str,
        again: Option<Again>,
        handler: impl Fn(Call, T) -> W + Send + Sync + 'static,
    ) where
        T: Send + 'static,
        R: Send + 'static,
        W: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let handle: Handle = Arc::new(move |mut call| {
            match std::mem::replace(&mut call.payload, Box::new(())).downcast::<T>() {
                Ok(payload) => {
                    let work = handler(call, *payload);
                    Box::pin(async move { work.await.map(|reply| Box::new(reply) as Answer) })
                }
                // The type is the key it was found by.
                Err(_) => Box::pin(async move { Err(CqrsError::Unknown(name).into()) }),
            }
        });
        self.handlers.push((TypeId::of::<T>(), name, Route { handle, again }));
    }

    fn merge(&mut self, other: Self) {
        self.handlers.extend(other.handlers);
        self.expected.extend(other.expected);
        self.chain.extend(other.chain);
        self.once |= other.once;
        self.transactions |= other.transactions;
    }

    /// The handlers by their types, each there once.
    fn routes(&self) -> Result<HashMap<TypeId, Route>, CqrsError> {
        let (mut by_type, mut names) = (HashMap::new(), std::collections::HashSet::new());
        for (id, name, route) in &self.handlers {
            if !names.insert(*name) || by_type.insert(*id, route.clone()).is_some() {
                return Err(CqrsError::Duplicate(name));
            }
        }
        match self.expected.iter().find(|(id, _)| !by_type.contains_key(id)) {
            Some((_, name)) => Err(CqrsError::Unknown(name)),
            None => Ok(by_type),
        }
    }

    fn build(self) -> Result<Routes, CqrsError> {
        let by_type = self.routes()?;
        let mut in_one = self.handlers.iter().filter(|(_, _, route)| route.again.is_some());
        if let Some((_, name, _)) = in_one.next().filter(|_| !self.transactions) {
            return Err(CqrsError::NoTransaction(name));
        }
        Ok(Routes { by_type, chain: self.chain, once: self.once })
    }
}

struct Routes {
    by_type: HashMap<TypeId, Route>,
    chain: Vec<Arc<dyn Middleware>>,
    /// Whether there is an [`Idempotent`](crate::Idempotent).
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
        let route = self.by_type.get(&TypeId::of::<T>()).ok_or(CqrsError::Unknown(name))?;
        if key.is_some() && !self.once && route.again.is_none() {
            return Err(CqrsError::NotIdempotent(name).into());
        }
        let call = Call {
            context: context.clone(),
            key,
            name,
            payload: Box::new(payload),
            codec,
            again: route.again,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            tx: None,
        };
        let answer = Next { chain: &self.chain, handle: &route.handle }.run(call).await?;
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
