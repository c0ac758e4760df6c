//! What one container or scope owns: its cells, what it has to dispose, and the scopes opened from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::cell::Cell;
use super::dispose::{Disposal, dispose_one};
use super::entry::{Disposable, Slot};
use super::table::Table;
use crate::Context;

/// The frozen graph, shared by the root and all scopes.
pub(super) struct Graph {
    pub(super) table: Table,
    pub(super) slots: Box<[Slot]>,
    /// How many slots live in scopes.
    pub(super) scoped: usize,
    /// The root has been disposed.
    pub(super) closed: AtomicBool,
    scopes: AtomicU64,
}

impl Graph {
    pub(super) fn new(table: Table, slots: Box<[Slot]>, scoped: usize) -> Self {
        Self { table, slots, scoped, closed: AtomicBool::new(false), scopes: AtomicU64::new(0) }
    }
}

pub(super) struct Scope {
    pub(super) graph: Arc<Graph>,
    /// `None` in the root itself.
    pub(super) parent: Option<Arc<Scope>>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) closed: AtomicBool,
    /// Made when the first scoped service is asked for: most scopes need none.
    cells: OnceLock<Box<[Cell]>>,
    built: Mutex<Vec<Disposable>>,
    /// Scopes below that have something to dispose, so that they go before what they were built from.
    below: Mutex<BTreeMap<u64, Weak<Scope>>>,
    /// This scope's number among its parent's, once it has something to dispose.
    number: OnceLock<u64>,
}

impl Scope {
    pub(super) fn new(graph: Arc<Graph>, parent: Option<Arc<Self>>, context: Option<Arc<Context>>) -> Self {
        Self {
            graph,
            parent,
            context,
            closed: AtomicBool::new(false),
            cells: OnceLock::new(),
            built: Mutex::new(Vec::new()),
            below: Mutex::new(BTreeMap::new()),
            number: OnceLock::new(),
        }
    }

    pub(super) fn cell(&self, place: usize) -> Option<&Cell> {
        self.cells.get()?.get(place)
    }

    pub(super) fn cells(&self) -> &[Cell] {
        self.cells.get_or_init(|| (0..self.graph.scoped).map(|_| Cell::default()).collect())
    }

    /// Whether this or a scope above it has been disposed.
    pub(super) fn is_closed(&self) -> bool {
        let mut scope = Some(self);
        while let Some(at) = scope {
            if at.closed.load(Ordering::Acquire) {
                return true;
            }
            scope = at.parent.as_deref();
        }
        false
    }

    /// Remembers what to dispose; gives it back when this scope has been disposed meanwhile.
    pub(super) fn remember(self: &Arc<Self>, disposable: Disposable) -> Result<(), Disposable> {
        // Announced before the check: a parent that closes either finds this scope below it or is seen closed here.
        self.announce();
        let mut built = lock(&self.built);
        if self.is_closed() {
            return Err(disposable);
        }
        built.push(disposable);
        Ok(())
    }

    /// Tells the scopes above, once, that there is something to dispose here.
    fn announce(self: &Arc<Self>) {
        let Some(parent) = &self.parent else { return };
        self.number.get_or_init(|| {
            let number = self.graph.scopes.fetch_add(1, Ordering::Relaxed);
            lock(&parent.below).insert(number, Arc::downgrade(self));
            parent.announce();
            number
        });
    }

    fn withdraw(&self) {
        if let (Some(parent), Some(number)) = (&self.parent, self.number.get()) {
            lock(&parent.below).remove(number);
        }
    }

    /// The scopes below first, then what was built here, each newest first.
    pub(super) async fn dispose(self: Arc<Self>) -> Vec<Disposal> {
        if self.parent.is_none() {
            self.graph.closed.store(true, Ordering::Release);
        }
        self.closed.store(true, Ordering::Release);
        let mut disposals = Vec::new();
        loop {
            let next = lock(&self.below).pop_last();
            let Some((_, scope)) = next else { break };
            if let Some(scope) = scope.upgrade() {
                disposals.extend(Box::pin(scope.dispose()).await);
            }
        }
        loop {
            // Popped one by one: when this future is dropped, what is left is disposed by the next call.
            let next = lock(&self.built).pop();
            let Some(disposable) = next else { break };
            disposals.push(dispose_one(disposable).await);
        }
        self.withdraw();
        disposals
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.withdraw();
        let mut left = std::mem::take(self.built.get_mut().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() {
            return;
        }
        // A request that is cancelled drops its scope: what it built must still be given back.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(
                hooks = left.len(),
                "dropped outside a runtime without being disposed: hooks not run"
            );
            return;
        };
        runtime.spawn(async move {
            while let Some(disposable) = left.pop() {
                dispose_one(disposable).await;
            }
        });
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
