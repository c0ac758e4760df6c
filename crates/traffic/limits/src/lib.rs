#![doc = include_str!("../README.md")]

mod algorithm;
mod calls;
mod concurrency;
mod config;
mod criticality;
mod error;
#[cfg(feature = "http")]
mod layer;
#[cfg(feature = "module")]
mod module;
mod queue;
#[cfg(feature = "quota")]
mod quota;
#[cfg(feature = "http")]
mod rules;
mod semaphore;
#[cfg(feature = "spill")]
mod spill;
#[cfg(feature = "stream")]
mod stream;
mod throttle;
mod window;

pub use algorithm::{Aimd, Algorithm, Fixed, Gradient2, Sample, Vegas};
pub use concurrency::{ConcurrencyLimit, Permit};
pub use config::{AlgorithmConfig, ConcurrencyConfig};
pub use criticality::Criticality;
pub use error::{LimitsError, Overloaded};
#[cfg(feature = "http")]
pub use layer::{ConcurrencyFuture, ConcurrencyLayer, ConcurrencyService, HeldBody, NamedLimit};
#[cfg(all(feature = "module", feature = "quota"))]
pub use module::QUOTAS;
#[cfg(all(feature = "module", feature = "spill"))]
pub use module::SPILL;
#[cfg(feature = "module")]
pub use module::{CONCURRENCY, LimitsModule};
pub use queue::QueueConfig;
#[cfg(all(feature = "quota", feature = "testkit"))]
pub use quota::laws as quota_laws;
#[cfg(feature = "quota")]
pub use quota::{Account, MemoryQuotas, Period, QuotaConfig, QuotaError, QuotaStore, Quotas, Usage};
#[cfg(all(feature = "quota", any(feature = "sqlite", feature = "postgres")))]
pub use quota::{SqlQuotas, migrations as quota_migrations};
#[cfg(feature = "http")]
pub use rules::{LimitRule, LimitsConfig};
pub use semaphore::{SemaphoreLimit, Taken};
#[cfg(feature = "spill")]
pub use spill::{SpillBuffer, SpillConfig, SpillError, SpillPolicy, SpillReader};
#[cfg(feature = "stream")]
pub use stream::Throttled;
pub use throttle::Throttle;
