//! One registration, with its type erased.

use std::any::Any;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::cell::{Cell, Value};
use super::dependencies::{Needed, Resolve};
use super::{Container, Dependencies, Token};
use crate::Error;
use crate::lifecycle::HookFuture;

/// How long a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Given ready-made; lives as long as the container.
    Value,
    /// Built once, when first asked for; lives as long as the container.
    Singleton,
    /// Built once in each scope that asks for it; lives as long as the scope.
    Scoped,
    /// Built anew for everyone who asks; belongs to the asker and is never disposed by the container.
    Transient,
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Singleton => "singleton",
            Self::Scoped => "scoped",
            Self::Transient => "transient",
        })
    }
}

pub(super) type Building = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;
type Factory = Box<dyn Fn(Container) -> Building + Send + Sync>;
type Disposer = Box<dyn Fn(&Value) -> Option<Box<dyn FnOnce() -> HookFuture + Send>> + Send + Sync>;

/// How the value comes to be.
pub(super) enum Origin {
    Ready(Value),
    /// Ready-made, and moved into its cell when the container was built.
    InCell,
    Built(Factory),
    /// The request context the scope was opened with.
    ScopeContext,
}

pub(super) struct Entry {
    pub(super) token: Needed,
    pub(super) lifetime: Lifetime,
    pub(super) needs: Vec<Needed>,
    pub(super) origin: Origin,
    pub(super) dispose: Option<(Disposer, Duration)>,
    pub(super) at: &'static Location<'static>,
}

impl Entry {
    pub(super) fn value<T>(token: Token<T>, value: Arc<T>, at: &'static Location<'static>) -> Self
    where
        T: ?Sized + Send + Sync + 'static,
    {
        Self {
            token: Needed::of(token),
            lifetime: Lifetime::Value,
            needs: Vec::new(),
            origin: Origin::Ready(Box::new(value)),
            dispose: None,
            at,
        }
    }

    pub(super) fn built<T, D, F, W, R, E>(
        lifetime: Lifetime,
        token: Token<T>,
        needs: D,
        factory: F,
        at: &'static Location<'static>,
    ) -> Self
    where
        T: ?Sized + Send + Sync + 'static,
        D: Dependencies,
        F: Fn(<D as Dependencies>::Values) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Arc<T>>,
        E: Into<Error>,
    {
        let needed = Resolve::needed(&needs);
        let factory = Arc::new(factory);
        let needs = Arc::new(needs);
        let build: Factory = Box::new(move |container| {
            let (factory, needs) = (Arc::clone(&factory), Arc::clone(&needs));
            Box::pin(async move {
                let values = needs.resolve(container).await?;
                let shared: Arc<T> = factory(values).await.map_err(Into::into)?.into();
                Ok(Box::new(shared) as Value)
            })
        });
        Self {
            token: Needed::of(token),
            lifetime,
            needs: needed,
            origin: Origin::Built(build),
            dispose: None,
            at,
        }
    }

    pub(super) fn disposed_by<T, F, W>(&mut self, hook: F, timeout: Duration)
    where
        T: ?Sized + Send + Sync + 'static,
        F: Fn(Arc<T>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let hook = Arc::new(hook);
        let disposer: Disposer = Box::new(move |value| {
            let value = Arc::clone((&**value as &dyn Any).downcast_ref::<Arc<T>>()?);
            let hook = Arc::clone(&hook);
            Some(Box::new(move || Box::pin(async move { hook(value).await }) as HookFuture))
        });
        self.dispose = Some((disposer, timeout));
    }
}

/// An entry in its place in a built container.
pub(super) struct Slot {
    pub(super) entry: Entry,
    /// For what lives as long as the container.
    pub(super) cell: Cell,
    /// For what lives in scopes: its place among a scope's cells.
    pub(super) place: usize,
}

impl Slot {
    pub(super) fn name(&self) -> &'static str {
        self.entry.token.key.name
    }

    /// What has to be done with a fresh value when its owner goes.
    pub(super) fn disposal(&self, value: &Value) -> Option<Disposable> {
        let (disposer, timeout) = self.entry.dispose.as_ref()?;
        Some(Disposable { token: self.name(), timeout: *timeout, start: disposer(value)? })
    }
}

/// A built value's last act.
pub(super) struct Disposable {
    pub(super) token: &'static str,
    pub(super) timeout: Duration,
    pub(super) start: Box<dyn FnOnce() -> HookFuture + Send>,
}
