#![doc = include_str!("../README.md")]

pub mod check;
mod clock;
mod driver;
mod error;
pub mod fleet;
mod herd;
pub mod history;
mod load;
mod nemesis;
pub mod outbox;
mod record;
mod rng;
mod role;
mod settings;
mod witness;
mod worker;

pub use driver::{Outcome, run};
pub use error::WorkcheckError;
pub use role::{Role, serve};
pub use settings::{Broken, Settings, WorkerSettings};
pub use worker::work;
