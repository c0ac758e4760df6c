//! What a tick sets going.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use runtime_kernel::Error;

use crate::store::{FireResult, Fired, Tick, Verdict};

/// An action that does its work wherever it likes.
///
/// It is run at least once for a tick, and at most `attempts` times: once more when its scheduler died in the middle,
/// too. Name the effect after [`Tick::key`] and [`Tick::fire_time`] to make it safe to repeat. The future is dropped
/// when the tick's deadline passes or its claim is lost.
#[async_trait]
pub trait Fire: Send + Sync + 'static {
    /// Does it.
    async fn fire(&self, tick: &Tick) -> FireResult;
}

/// An action whose effect is in the schedules' own database, and part of the tick's transaction: there exactly once,
/// whatever fails.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[async_trait]
pub trait FireInTx: Send + Sync + 'static {
    /// Does it. An error undoes what it did, and the tick is tried again as its schedule says.
    async fn fire_in(&self, tx: &mut runtime_db::Tx, tick: &Tick) -> FireResult;
}

#[derive(Clone)]
pub(crate) enum Action {
    Plain(Arc<dyn Fire>),
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    InTx(Arc<dyn FireInTx>),
}

/// The actions a scheduler knows, by the name schedules have for them.
#[derive(Clone, Default)]
pub struct Actions {
    by_name: HashMap<String, Action>,
}

impl Actions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action.
    #[must_use]
    pub fn on(mut self, name: impl Into<String>, action: impl Fire) -> Self {
        self.by_name.insert(name.into(), Action::Plain(Arc::new(action)));
        self
    }

    /// Adds a function as an action.
    #[must_use]
    pub fn on_tick<F, Fut>(self, name: impl Into<String>, action: F) -> Self
    where
        F: Fn(Tick) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.on(name, Function(action))
    }

    /// Adds an action that is part of the tick's transaction. It needs a [`SqlStore`](crate::SqlStore).
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[must_use]
    pub fn on_in_tx(mut self, name: impl Into<String>, action: impl FireInTx) -> Self {
        self.by_name.insert(name.into(), Action::InTx(Arc::new(action)));
        self
    }

    /// Adds another's actions; of two with one name the other's is kept.
    pub fn merge(&mut self, other: Self) {
        self.by_name.extend(other.by_name);
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A name for metrics: what anybody may put into a schedule is not one.
    pub(crate) fn label<'n>(&self, name: &'n str) -> &'n str {
        if self.has(name) { name } else { "unknown" }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Action> {
        self.by_name.get(name)
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

struct Function<F>(F);

#[async_trait]
impl<F, Fut> Fire for Function<F>
where
    F: Fn(Tick) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    async fn fire(&self, tick: &Tick) -> FireResult {
        (self.0)(tick.clone()).await.map(|()| Fired::Done)
    }
}

impl Verdict {
    pub(crate) fn of(fired: &Fired) -> Self {
        match fired {
            Fired::Done => Self::Done,
            Fired::Skipped(note) => Self::Skipped(note.clone()),
            Fired::NotYet => Self::Waits(std::time::Duration::from_secs(1)),
        }
    }
}
