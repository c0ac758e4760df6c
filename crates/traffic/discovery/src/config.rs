//! What an operator writes about services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balance::{OutlierConfig, Strategy};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// The section `discovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// The services, by name. In the app's HTTP client `http://<name>.service/` calls one of its endpoints.
    pub services: BTreeMap<String, ServiceConfig>,
}

/// Where a service is, and how calls are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Where its endpoints come from.
    pub source: SourceConfig,
    /// How one is chosen: `peak_ewma`, `round_robin` or `rendezvous`. Default `peak_ewma`.
    #[serde(default)]
    pub balance: Strategy,
    /// When one is left alone.
    #[serde(default)]
    pub outliers: OutlierConfig,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SourceConfig {
    /// These, always.
    Fixed(Vec<Endpoint>),
    /// An environment variable, separated by commas.
    Env(String),
    /// A file, one a line.
    File {
        /// The file.
        path: PathBuf,
        /// How often it is looked at. Default 1 s.
        #[serde(default = "second", with = "runtime_kernel::units::duration")]
        every: Duration,
    },
    /// DNS: the addresses of a name and this port, or without one the name's SRV records.
    Dns {
        /// The name.
        name: String,
        /// The port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// A name server (`10.0.0.10:53`) to ask instead of the system's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<std::net::SocketAddr>,
    },
    /// The endpoint slices of a Kubernetes service.
    Kubernetes {
        /// The namespace. Default the pod's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// The service.
        service: String,
        /// The name of its port, if it has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// The healthy instances of a Consul service.
    Consul {
        /// The agent. Default `http://127.0.0.1:8500`.
        #[serde(default = "agent")]
        url: String,
        /// The service.
        service: String,
        /// Only instances with this tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        /// The ACL token to show.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// The values under a prefix in etcd.
    Etcd {
        /// A member. Default `http://127.0.0.1:2379`.
        #[serde(default = "member")]
        url: String,
        /// The prefix.
        prefix: String,
    },
}

fn second() -> Duration {
    Duration::from_secs(1)
}

fn agent() -> String {
    "http://127.0.0.1:8500".to_owned()
}

fn member() -> String {
    "http://127.0.0.1:2379".to_owned()
}

impl DiscoveryConfig {
    /// Checks every service.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] names the key that is wrong.
    pub fn check(&self) -> Result<(), DiscoveryError> {
        for (name, service) in &self.services {
            let wrong = |key: &str, message: &str| {
                Err(DiscoveryError::Config {
                    key: format!("services.{name}{key}"),
                    message: message.to_owned(),
                })
            };
            // It becomes part of a host name.
            let clean = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if !(1..=63).contains(&name.len()) || !name.bytes().all(clean) || name.starts_with('-') {
                return wrong("", "must be named by 1 to 63 lower-case letters, digits or `-`");
            }
            match &service.source {
                SourceConfig::File { every, .. } if every.is_zero() => {
                    return wrong(".source.file.every", "must be more than 0");
                }
                SourceConfig::Dns { name, .. } if name.is_empty() => {
                    return wrong(".source.dns.name", "must not be empty");
                }
                SourceConfig::Etcd { prefix, .. } if prefix.is_empty() => {
                    return wrong(".source.etcd.prefix", "must not be empty");
                }
                _ => {}
            }
            service.outliers.check().map_err(|error| match error {
                DiscoveryError::Config { key, message } => {
                    DiscoveryError::Config { key: format!("services.{name}.{key}"), message }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}
