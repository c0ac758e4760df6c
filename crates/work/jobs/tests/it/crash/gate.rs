//! Counts the points of a run and strikes at one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// What happens at the point that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends there; another goes on.
    Kill,
    /// The connection, or the call, fails there; the same process goes on.
    Error,
    /// The process stands still there for longer than its lease while another works, then goes on.
    Delay,
}

/// The connection is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut;

/// Strikes once, at the `at`-th point it is shown.
#[derive(Debug)]
pub(crate) struct Gate {
    fault: Fault,
    at: AtomicU64,
    seen: AtomicU64,
    /// How many of the lesser points there were, and of which every so manieth counts.
    lesser: AtomicU64,
    every: u64,
    struck: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    /// One that never strikes until it is [armed](Self::arm).
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            at: AtomicU64::new(u64::MAX),
            seen: AtomicU64::new(0),
            lesser: AtomicU64::new(fault as u64),
            every: 1,
            struck: watch::Sender::new(false),
            open: watch::Sender::new(false),
        }
    }

    /// Counts only every so manieth of the lesser points; each fault begins at another one of them.
    pub(crate) fn counting(mut self, every: u64) -> Self {
        self.every = every;
        self
    }

    pub(crate) fn fault(&self) -> Fault {
        self.fault
    }

    /// Counts from here, and strikes at the point `at`.
    pub(crate) fn arm(&self, at: u64) {
        self.seen.store(0, Ordering::SeqCst);
        self.lesser.store(self.fault as u64, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
    }

    /// Strikes no more.
    pub(crate) fn rest(&self) {
        self.at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Lets what waits, and all that comes after it, pass.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn has_struck(&self) -> bool {
        *self.struck.borrow()
    }

    /// Ready when it has struck.
    pub(crate) async fn struck(&self) {
        let _ = self.struck.subscribe().wait_for(|struck| *struck).await;
    }

    /// Passes a point between two steps of which neither lasts.
    pub(crate) async fn lesser_point(&self) -> Result<(), Cut> {
        if self.lesser.fetch_add(1, Ordering::SeqCst).is_multiple_of(self.every) {
            return self.point().await;
        }
        Ok(())
    }

    /// Passes a point.
    pub(crate) async fn point(&self) -> Result<(), Cut> {
        let (n, at) = (self.seen.fetch_add(1, Ordering::SeqCst), self.at.load(Ordering::SeqCst));
        if n < at || *self.open.borrow() {
            return Ok(());
        }
        match self.fault {
            // Whatever else the process does after its death does not happen either.
            Fault::Kill => {
                self.struck.send_replace(true);
                std::future::pending().await
            }
            Fault::Error if n == at => {
                self.struck.send_replace(true);
                Err(Cut)
            }
            Fault::Error => Ok(()),
            Fault::Delay => {
                self.struck.send_replace(true);
                let _ = self.open.subscribe().wait_for(|open| *open).await;
                Ok(())
            }
        }
    }
}
