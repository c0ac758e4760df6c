//! Circuit breakers: stop calling what does not answer, and find out when it does again.

mod config;
mod count;
mod machine;
mod permit;
mod registry;
mod state;
pub(crate) mod time;
pub(crate) mod window;

pub use config::{BreakerConfig, Window};
pub use machine::{CircuitBreaker, Machine};
pub use permit::{Outcome, OwnedPermit, Permit};
pub use registry::Breakers;
pub use state::{BreakerSnapshot, BreakerState, Transition};
