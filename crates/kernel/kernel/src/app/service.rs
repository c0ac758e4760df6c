//! A long-running part of an app.

use std::sync::Arc;

use async_trait::async_trait;

use crate::container::Container;
use crate::lifecycle::{Stage, StopSignal};
use crate::{Error, Mode, SharedClock};

/// A long-running part, started in the modes it is bound to and restarted as the supervision says.
///
/// Services start in the order they were added, after all start hooks.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The name in logs and reports.
    fn name(&self) -> &'static str;

    /// The modes that run it. By default every mode.
    fn modes(&self) -> &'static [Mode] {
        &[Mode::All]
    }

    /// The stage of the shutdown in which it is told to stop and waited for.
    ///
    /// What lets work in belongs to [`Stage::Intake`]; workers, the default, to [`Stage::Work`]; writers of buffers
    /// to [`Stage::Flush`].
    fn stops_at(&self) -> Stage {
        Stage::Work
    }

    /// Whether the process can go on without it, once it can no longer be restarted.
    fn importance(&self) -> Importance {
        Importance::Critical
    }

    /// Runs until `run.stop` fires.
    ///
    /// An error, a panic and an end before `run.stop` fires are failures: it is started again. It is dropped when it
    /// takes longer to stop than the shutdown allows.
    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error>;
}

/// Whether the process can go on without a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Importance {
    /// The process ends, with exit code 70.
    Critical,
    /// The process goes on; the log says so.
    Optional,
}

/// What a running service gets.
#[derive(Clone, Debug)]
pub struct Run {
    /// The built container.
    pub services: Container,
    /// Fires when the service shall stop.
    pub stop: StopSignal,
    /// The process's clock.
    pub clock: SharedClock,
    /// What this process does.
    pub mode: Mode,
}
