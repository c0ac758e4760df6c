#![doc = include_str!("../README.md")]

mod address;
mod builder;
mod client;
mod config;
mod error;
mod guard;
#[cfg(feature = "module")]
mod module;
mod redirect;
mod request;
mod resolve;
mod response;
mod retry_after;

pub use address::AddressClass;
pub use builder::ClientBuilder;
pub use client::Client;
pub use config::{ClientConfig, GuardMode};
pub use error::{ClientError, Phase};
pub use guard::{AllowError, Guard, Refusal};
#[cfg(feature = "module")]
pub use module::{ClientModule, HTTP_CLIENT};
pub use request::RequestBuilder;
pub use resolve::{Lookup, LookupFuture, SystemLookup};
pub use response::Response;
pub use retry_after::parse_retry_after;
