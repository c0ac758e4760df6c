//! Circuit breakers: stop calling what does not answer, and find out when it does again.

mod config;
mod count;
mod machine;
mod permit;
mod registry;
pub(crate) mod time;
pub(crate) mod window;

pub use config::{BreakerConfig, Window};
pub use machine::{BreakerSnapshot, BreakerState, CircuitBreaker, Machine, Transition};
pub use permit::{Outcome, OwnedPermit, Permit};
pub use registry::Breakers;
