#![doc = include_str!("../README.md")]

mod address;
mod body;
mod builder;
mod client;
mod config;
mod error;
#[cfg(feature = "fixtures")]
mod fixtures;
mod guard;
mod hook;
#[cfg(feature = "module")]
mod module;
mod redirect;
mod request;
mod resolve;
mod response;
mod retry_after;
mod targets;

pub use address::AddressClass;
pub use builder::ClientBuilder;
pub use client::Client;
pub use config::{ClientConfig, GuardMode};
pub use error::{ClientError, Phase};
#[cfg(feature = "fixtures")]
pub use fixtures::Fixtures;
pub use guard::{AllowError, Guard, Refusal};
pub use hook::{Hook, Outgoing, Stored};
#[cfg(feature = "module")]
pub use module::{ClientModule, ClientTargets, HTTP_CLIENT};
pub use request::RequestBuilder;
pub use resolve::{Lookup, LookupFuture, SystemLookup};
pub use response::Response;
pub use retry_after::parse_retry_after;
pub use targets::{Target, Targets, Went};
