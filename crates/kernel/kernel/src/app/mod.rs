//! Modules contribute, the app runs what its mode asks for.

mod built;
mod exit;
mod maintenance;
mod module;
mod service;
mod setup;
mod start;
mod supervise;
mod supervision;

pub use built::BuiltApp;
pub use exit::{ExitReport, exit_code};
pub use maintenance::{Maintenance, MaintenanceTask};
pub use module::{Module, SetupError};
pub use service::{Importance, Run, Service};
pub use setup::App;
pub use supervise::{ServiceEnd, ServiceReport};
pub use supervision::SupervisionConfig;

use crate::Clock;
use crate::config::Config;
use crate::container::Token;
use crate::lifecycle::Shutdown;

/// The process's clock, in every app's container.
pub const CLOCK: Token<dyn Clock> = Token::new("kernel.clock");

/// The configuration, in every app's container.
pub const CONFIG: Token<Config> = Token::new("kernel.config");

/// The shutdown, in every app's container.
pub const SHUTDOWN: Token<Shutdown> = Token::new("kernel.shutdown");
