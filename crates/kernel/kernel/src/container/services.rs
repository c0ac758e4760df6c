//! The registry: what a container will hold.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::check::check;
use super::dependencies::Needed;
use super::entry::{Entry, Lifetime, Origin};
use super::{CONTEXT, Container, ContainerError, Dependencies, Token};
use crate::Error;

/// Registered services, not yet built.
///
/// Nothing is checked or constructed before [`build`](Self::build), so the order of registration does not matter.
pub struct Services {
    entries: Vec<Entry>,
    replacements: Vec<Entry>,
}

impl Services {
    /// Holds nothing but [`CONTEXT`].
    #[track_caller]
    pub fn new() -> Self {
        let context = Entry {
            token: Needed::of(CONTEXT),
            lifetime: Lifetime::Scoped,
            needs: Vec::new(),
            origin: Origin::ScopeContext,
            dispose: None,
            at: Location::caller(),
        };
        Self { entries: vec![context], replacements: Vec::new() }
    }

    /// Registers a ready-made value: a `T`, an `Arc<T>`, or an `Arc<dyn Port>` for a `Token<dyn Port>`.
    #[track_caller]
    pub fn value<T>(&mut self, token: Token<T>, value: impl Into<Arc<T>>) -> Registration<'_, T>
    where
        T: ?Sized + Send + Sync + 'static,
    {
        self.add(Entry::value(token, value.into(), Location::caller()))
    }

    /// Registers what is built once, when first asked for, from values that are no shorter-lived.
    ///
    /// Callers that race share one construction and, when it fails, its failure; whoever asks later tries again.
    /// The construction runs in the caller that came first; when that one is cancelled, the next takes over.
    #[track_caller]
    pub fn singleton<T, D, F, W, R, E>(
        &mut self,
        token: Token<T>,
        needs: D,
        factory: F,
    ) -> Registration<'_, T>
    where
        T: ?Sized + Send + Sync + 'static,
        D: Dependencies,
        F: Fn(<D as Dependencies>::Values) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Arc<T>>,
        E: Into<Error>,
    {
        self.add(Entry::built(Lifetime::Singleton, token, needs, factory, Location::caller()))
    }

    /// Registers what is built once in every scope that asks for it. The root has none: asking it is an error.
    #[track_caller]
    pub fn scoped<T, D, F, W, R, E>(&mut self, token: Token<T>, needs: D, factory: F) -> Registration<'_, T>
    where
        T: ?Sized + Send + Sync + 'static,
        D: Dependencies,
        F: Fn(<D as Dependencies>::Values) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Arc<T>>,
        E: Into<Error>,
    {
        self.add(Entry::built(Lifetime::Scoped, token, needs, factory, Location::caller()))
    }

    /// Registers what is built anew for everyone who asks. The asker owns it: there is no hook for its disposal.
    #[track_caller]
    pub fn transient<T, D, F, W, R, E>(&mut self, token: Token<T>, needs: D, factory: F)
    where
        T: ?Sized + Send + Sync + 'static,
        D: Dependencies,
        F: Fn(<D as Dependencies>::Values) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<Arc<T>>,
        E: Into<Error>,
    {
        self.entries.push(Entry::built(Lifetime::Transient, token, needs, factory, Location::caller()));
    }

    /// Puts a value in the place of a registration, whether that came before or comes later: for tests.
    ///
    /// What was registered is not built, its dependencies are not needed by it, its disposal hook does not run.
    /// Replacing what nobody registers is refused at [`build`](Self::build); of two replacements the later counts.
    #[track_caller]
    pub fn replace<T>(&mut self, token: Token<T>, value: impl Into<Arc<T>>)
    where
        T: ?Sized + Send + Sync + 'static,
    {
        let entry = Entry::value(token, value.into(), Location::caller());
        self.replacements.retain(|known| !known.token.key.is(entry.token.key));
        self.replacements.push(entry);
    }

    /// Whether something is registered under this name.
    pub fn contains<T: ?Sized>(&self, token: Token<T>) -> bool {
        self.entries.iter().any(|entry| entry.token.key.is(token.key()))
    }

    /// Checks the whole graph and freezes it. Nothing is constructed yet.
    ///
    /// # Errors
    /// [`ContainerError`] lists every duplicate, missing dependency, cycle, captive dependency, type mismatch and
    /// idle replacement at once.
    pub fn build(self) -> Result<Container, ContainerError> {
        let Self { mut entries, replacements } = self;
        let problems = check(&mut entries, replacements);
        if problems.is_empty() { Ok(Container::new(entries)) } else { Err(ContainerError { problems }) }
    }

    fn add<T: ?Sized>(&mut self, entry: Entry) -> Registration<'_, T> {
        self.entries.push(entry);
        // Just pushed, so the list is not empty; `None` would make the options below do nothing.
        Registration { entry: self.entries.last_mut(), of: PhantomData }
    }
}

impl Default for Services {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| entry.token.key.name)).finish()
    }
}

/// A registration just made, for saying how its value is disposed.
pub struct Registration<'a, T: ?Sized> {
    entry: Option<&'a mut Entry>,
    of: PhantomData<fn(&T)>,
}

/// How long a disposal hook may take unless told otherwise.
const DISPOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl<T: ?Sized + Send + Sync + 'static> Registration<'_, T> {
    /// What is done with the value when its container or scope is disposed, within 5 s.
    ///
    /// A ready-made value counts as built first, in the order of registration. A value never built is not disposed.
    pub fn on_dispose<F, W>(self, hook: F)
    where
        F: Fn(Arc<T>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.on_dispose_within(DISPOSE_TIMEOUT, hook);
    }

    /// As [`on_dispose`](Self::on_dispose), with the longest it may take.
    pub fn on_dispose_within<F, W>(mut self, timeout: Duration, hook: F)
    where
        F: Fn(Arc<T>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Error>> + Send + 'static,
    {
        if let Some(entry) = self.entry.as_deref_mut() {
            entry.disposed_by::<T, F, W>(hook, timeout);
        }
    }
}
