//! How a process ends: stages in order, hooks last in first out, each with its own time inside one budget.

mod config;
mod hook;
mod os_signal;
mod report;
mod shutdown;
mod stage;
mod stop;

pub(crate) use hook::{HookFuture, guard, panic_text};

pub use config::ShutdownConfig;
pub use hook::Outcome;
pub use os_signal::{OsSignal, OsSignals};
pub use report::{HookReport, ShutdownReport};
pub use shutdown::Shutdown;
pub use stage::Stage;
pub use stop::{StopReason, StopSignal};
