//! One place a service can be reached at.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DiscoveryError;

/// The largest weight.
pub(crate) const HEAVIEST: u32 = 1_000;

/// One place a service can be reached at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
#[non_exhaustive]
pub struct Endpoint {
    /// A name, or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How many times the calls of an endpoint of weight 1 it gets: 1 to 1000.
    pub weight: u32,
    /// What the source says of it besides.
    pub attributes: BTreeMap<String, String>,
}

impl Endpoint {
    /// An endpoint of weight 1.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1, attributes: BTreeMap::new() }
    }

    /// The same with another weight, at least 1 and at most 1000.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight.clamp(1, HEAVIEST);
        self
    }

    /// Host and port as a URL writes them: IPv6 addresses in brackets.
    pub fn authority(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Reads `host:port`, `[address]:port`, each with `;weight=…` if need be.
    ///
    /// # Errors
    /// [`DiscoveryError::Endpoint`].
    pub fn parse(text: &str) -> Result<Self, DiscoveryError> {
        let wrong = |why: &'static str| DiscoveryError::Endpoint { text: text.to_owned(), why };
        let mut parts = text.trim().split(';');
        let authority = parts.next().unwrap_or_default().trim();
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("has no port"))?;
        let host = match host.strip_prefix('[') {
            Some(address) => {
                let address = address.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok());
                address.ok_or_else(|| wrong("has no IPv6 address in its brackets"))?.to_string()
            }
            None => host.to_owned(),
        };
        let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.parse::<IpAddr>().is_err() && (host.is_empty() || !host.bytes().all(clean)) {
            return Err(wrong("is no host; an IPv6 address needs brackets"));
        }
        let mut endpoint = Self::new(host, port);
        for part in parts {
            match part.trim().split_once('=') {
                Some(("weight", weight)) => {
                    let weight = weight.trim().parse().ok().filter(|weight| (1..=HEAVIEST).contains(weight));
                    endpoint.weight = weight.ok_or_else(|| wrong("has a weight that is not 1 to 1000"))?;
                }
                Some((name, value)) => {
                    endpoint.attributes.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                None => return Err(wrong("has a part that is no `name=value`")),
            }
        }
        Ok(endpoint)
    }
}

impl FromStr for Endpoint {
    type Err = DiscoveryError;

    fn from_str(text: &str) -> Result<Self, DiscoveryError> {
        Self::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())?;
        if self.weight != 1 {
            write!(f, ";weight={}", self.weight)?;
        }
        self.attributes.iter().try_for_each(|(name, value)| write!(f, ";{name}={value}"))
    }
}

/// Text, or a table.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Table {
        address: String,
        #[serde(default = "one")]
        weight: u32,
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    },
}

fn one() -> u32 {
    1
}

impl TryFrom<Written> for Endpoint {
    type Error = DiscoveryError;

    fn try_from(written: Written) -> Result<Self, DiscoveryError> {
        match written {
            Written::Text(text) => Self::parse(&text),
            Written::Table { address, weight, attributes } => {
                if !(1..=HEAVIEST).contains(&weight) {
                    return Err(DiscoveryError::Endpoint {
                        text: address,
                        why: "has a weight that is not 1 to 1000",
                    });
                }
                let mut endpoint = Self::parse(&address)?;
                endpoint.weight = weight;
                endpoint.attributes.extend(attributes);
                Ok(endpoint)
            }
        }
    }
}

impl From<Endpoint> for Written {
    fn from(endpoint: Endpoint) -> Self {
        Self::Text(endpoint.to_string())
    }
}
