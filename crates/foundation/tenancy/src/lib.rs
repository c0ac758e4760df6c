#![doc = include_str!("../README.md")]

mod config;
mod directory;
mod error;
mod hints;
#[cfg(feature = "http")]
mod layer;
#[cfg(feature = "module")]
mod module;
mod resolver;

pub use config::{Defaults, OrgConfig, RealmConfig, Strategy, TenancyConfig, TenantConfig};
pub use error::TenancyError;
pub use hints::{HEADERS, TenantHints};
#[cfg(feature = "http")]
pub use layer::{TenantLayer, TenantService};
#[cfg(feature = "module")]
pub use module::{RESOLVER, TenancyModule};
pub use resolver::{Requires, Resolved, TenantResolver};
