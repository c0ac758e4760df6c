//! The built container and its scopes.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cell::{Cell, Value};
use super::dispose::{DisposeReport, dispose_one};
use super::entry::{Entry, Lifetime, Origin, Slot};
use super::error::{disposed, no_scope, not_built, unknown, wrong_type};
use super::scope::{Graph, Scope};
use super::table::Table;
use super::{Services, Token};
use crate::{Context, Error};

/// Holds built services; the root of its scopes, or a scope itself. Cheap to clone, clones are the same container.
///
/// ```
/// use runtime_kernel::container::{Container, Services, Token};
/// use runtime_kernel::Error;
///
/// const GREETING: Token<str> = Token::new("app.greeting");
/// const LENGTH: Token<usize> = Token::new("app.length");
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut services = Services::new();
/// services.value(GREETING, "hello");
/// services.singleton(LENGTH, (GREETING,), |(greeting,)| async move { Ok::<_, Error>(greeting.len()) });
/// let container = services.build()?;
/// assert_eq!(*container.get(LENGTH).await?, 5);
/// container.dispose().await;
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Container {
    scope: Arc<Scope>,
}

/// One registration of a built container, for those who look at it from outside.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Registered {
    /// The service's name.
    pub token: &'static str,
    /// How long its values live.
    pub lifetime: Lifetime,
    /// The type registered, as Rust names it.
    pub type_name: &'static str,
    /// The names it declared that it needs.
    pub needs: Vec<&'static str>,
    /// Whether the root has built it. Always `false` for what lives in scopes or for the asker alone.
    pub is_built: bool,
}

impl Container {
    /// Starts a registry.
    pub fn services() -> Services {
        Services::new()
    }

    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let table = Table::new(entries.iter().map(|entry| entry.token.key));
        let mut scoped = 0;
        let mut ready = Vec::new();
        let slots: Box<[Slot]> = entries
            .into_iter()
            .map(|mut entry| {
                let place = scoped;
                scoped += usize::from(entry.lifetime == Lifetime::Scoped);
                let origin = std::mem::replace(&mut entry.origin, Origin::InCell);
                let (cell, origin) = match origin {
                    Origin::Ready(value) => (Cell::filled(value), Origin::InCell),
                    other => (Cell::default(), other),
                };
                entry.origin = origin;
                let slot = Slot { entry, cell, place };
                ready.extend(slot.cell.get().and_then(|value| slot.disposal(value)));
                slot
            })
            .collect();
        let scope = Arc::new(Scope::new(Arc::new(Graph::new(table, slots, scoped)), None, None));
        for disposable in ready {
            // A new container is not closed.
            let _ = scope.remember(disposable);
        }
        Self { scope }
    }

    /// The value of a token, built first when nobody has asked before.
    ///
    /// A value that is built is found without waiting, locking or allocating. Cancel-safe: a construction whose
    /// caller is gone is started again by whoever waits for it.
    ///
    /// # Errors
    /// What the factory of the service or of one of its dependencies answers, with the services' names in its
    /// sources; `container.missing`, `container.type`, `container.no_scope` when the graph has no such value here;
    /// `container.disposed` after [`dispose`](Self::dispose).
    pub async fn get<T: ?Sized + Send + Sync + 'static>(&self, token: Token<T>) -> Result<Arc<T>, Error> {
        match self.peek(token) {
            Some(value) => Ok(value),
            None => self.build(token).await,
        }
    }

    /// The value of a token if it has been built here: never builds, never waits. `None` for transients.
    #[inline]
    pub fn peek<T: ?Sized + Send + Sync + 'static>(&self, token: Token<T>) -> Option<Arc<T>> {
        let graph = &*self.scope.graph;
        let slot = graph.slots.get(graph.table.find(token.key())?)?;
        if self.scope.closed.load(Ordering::Acquire) || graph.closed.load(Ordering::Acquire) {
            return None;
        }
        match slot.entry.lifetime {
            Lifetime::Value | Lifetime::Singleton => shared(slot.cell.get()?),
            Lifetime::Scoped if matches!(slot.entry.origin, Origin::ScopeContext) => {
                (self.scope.context.as_ref()? as &dyn Any).downcast_ref::<Arc<T>>().cloned()
            }
            Lifetime::Scoped => shared(self.scope.cell(slot.place)?.get()?),
            Lifetime::Transient => None,
        }
    }

    /// Opens a scope below this container or scope, for one piece of work.
    ///
    /// It shares what is above it, has scoped values of its own and sees its own [`CONTEXT`](super::CONTEXT).
    /// Whoever opens a scope disposes it. One that is dropped instead has its hooks run in a task of their own.
    #[must_use]
    pub fn scope(&self, context: impl Into<Arc<Context>>) -> Self {
        let graph = Arc::clone(&self.scope.graph);
        let parent = Some(Arc::clone(&self.scope));
        Self { scope: Arc::new(Scope::new(graph, parent, Some(context.into()))) }
    }

    /// The context this scope was opened with; `None` in the root.
    pub fn context(&self) -> Option<&Arc<Context>> {
        self.scope.context.as_ref()
    }

    /// Whether this is a scope rather than the root.
    pub fn is_scope(&self) -> bool {
        self.scope.parent.is_some()
    }

    /// Whether something is registered under this name.
    pub fn contains<T: ?Sized>(&self, token: Token<T>) -> bool {
        self.scope.graph.table.find(token.key()).is_some()
    }

    /// Every registration, in order.
    pub fn registered(&self) -> Vec<Registered> {
        let slots = self.scope.graph.slots.iter();
        slots
            .map(|slot| Registered {
                token: slot.name(),
                lifetime: slot.entry.lifetime,
                type_name: slot.entry.token.type_name,
                needs: slot.entry.needs.iter().map(|need| need.key.name).collect(),
                is_built: slot.cell.get().is_some(),
            })
            .collect()
    }

    /// Disposes what was built here, newest first, after the scopes below that still have something to dispose.
    ///
    /// Needs a tokio runtime with its timer on. A hook that fails, panics or hangs is reported and the rest still
    /// run. From now on nothing can be had here;
    /// a construction that is under way is disposed as soon as it ends. A second call finds nothing to do.
    /// When the future is dropped, the hook that runs is cut and the rest are left to the next call.
    pub async fn dispose(&self) -> DisposeReport {
        DisposeReport { disposals: Arc::clone(&self.scope).dispose().await }
    }

    fn root(&self) -> Self {
        let mut scope = &self.scope;
        while let Some(parent) = &scope.parent {
            scope = parent;
        }
        Self { scope: Arc::clone(scope) }
    }

    /// Boxed, because a factory's dependencies come back here.
    fn build<T: ?Sized + Send + Sync + 'static>(
        &self,
        token: Token<T>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<T>, Error>> + Send + '_>> {
        Box::pin(async move {
            let graph = &*self.scope.graph;
            let slot = graph.table.find(token.key()).and_then(|at| graph.slots.get(at));
            let slot = slot.ok_or_else(|| unknown(token.name()))?;
            let asked = || wrong_type(token.name(), slot.entry.token.type_name, std::any::type_name::<T>());
            if slot.entry.token.type_id != std::any::TypeId::of::<T>() {
                return Err(asked());
            }
            if self.scope.is_closed() {
                return Err(disposed(token.name()));
            }
            let failed = |error| not_built(token.name(), error);
            match slot.entry.lifetime {
                Lifetime::Value | Lifetime::Singleton => {
                    let value = slot.cell.get_or_build(self.root().construct(slot)).await.map_err(failed)?;
                    shared(value).ok_or_else(asked)
                }
                Lifetime::Scoped if !self.is_scope() => Err(no_scope(token.name())),
                Lifetime::Scoped => {
                    let cell = self.scope.cells().get(slot.place).ok_or_else(|| unknown(token.name()))?;
                    let value = cell.get_or_build(self.clone().construct(slot)).await.map_err(failed)?;
                    shared(value).ok_or_else(asked)
                }
                Lifetime::Transient => {
                    let value =
                        self.clone().construct(slot).await.map_err(|error| failed(Arc::new(error)))?;
                    shared(&value).ok_or_else(asked)
                }
            }
        })
    }

    /// Runs the factory on behalf of the owner of the value, and makes the owner remember to dispose it.
    async fn construct(self, slot: &Slot) -> Result<Value, Error> {
        let Origin::Built(factory) = &slot.entry.origin else { return Err(unknown(slot.name())) };
        let value = factory(self.clone()).await?;
        if let Some(disposable) = slot.disposal(&value)
            && let Err(late) = self.scope.remember(disposable)
        {
            dispose_one(late).await;
            return Err(disposed(slot.name()));
        }
        Ok(value)
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("registered", &self.scope.graph.slots.len())
            .field("is_scope", &self.is_scope())
            .finish_non_exhaustive()
    }
}

/// The typed handle in an erased value.
fn shared<T: ?Sized + Send + Sync + 'static>(value: &Value) -> Option<Arc<T>> {
    (&**value as &dyn Any).downcast_ref::<Arc<T>>().cloned()
}
