#![doc = include_str!("../README.md")]

pub mod check;
mod clock;
mod driver;
mod error;
pub mod history;
mod load;
mod nemesis;
mod record;
mod rng;
mod settings;
mod witness;
mod worker;

pub use driver::{Outcome, run};
pub use error::WorkcheckError;
pub use settings::{Broken, Settings, WorkerSettings};
pub use worker::work;
