#![doc = include_str!("../README.md")]

mod balance;
mod config;
mod endpoint;
mod error;
#[cfg(feature = "module")]
mod module;
mod service;
mod source;
#[cfg(feature = "client")]
mod targets;

pub use balance::{Balancer, Outcome, OutlierConfig, Picked, Strategy};
pub use config::{DiscoveryConfig, ServiceConfig, SourceConfig};
pub use endpoint::Endpoint;
pub use error::{DiscoveryError, NoEndpoint};
#[cfg(feature = "module")]
pub use module::{DiscoveryModule, SERVICES, Services};
pub use service::{Known, Service, Watching};
#[cfg(feature = "consul")]
pub use source::Consul;
#[cfg(feature = "dns")]
pub use source::Dns;
#[cfg(feature = "etcd")]
pub use source::Etcd;
#[cfg(feature = "kube")]
pub use source::Kubernetes;
pub use source::{Env, Fixed, Lines, Source, Teller};
