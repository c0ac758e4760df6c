#![doc = include_str!("../README.md")]

mod clock;
mod context;
mod deadline;
mod error;
mod id;
mod mode;
mod principal;
mod tenant;
mod ticks;
mod timestamp;
mod trace;
pub mod units;

#[cfg(feature = "app")]
pub mod app;
#[cfg(feature = "app")]
pub mod config;
#[cfg(feature = "app")]
pub mod container;
#[cfg(feature = "app")]
pub mod lifecycle;

pub use clock::{Clock, ManualClock, SharedClock, Sleep, SystemClock};
pub use context::{Carried, Context, RequestId, Source};
pub use deadline::Deadline;
pub use error::{Classify, Detail, Error, ErrorKind, Retry};
pub use id::uuid_v7;
pub use mode::{Mode, UnknownMode};
pub use principal::{Principal, PrincipalKind, Reach};
pub use tenant::{Name, NameError, TenantContext};
pub use ticks::Ticks;
pub use timestamp::{NotATimestamp, Timestamp, TimestampOutOfRange};
pub use trace::{TraceContext, TraceError};
pub use uuid::{Error as UuidError, Uuid};
