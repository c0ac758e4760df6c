//! Endpoints from DNS.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use runtime_kernel::SharedClock;

use super::{Source, Teller, scale};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// The shortest and the longest time an answer is believed, whatever its records say.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

/// Endpoints from DNS: the A and AAAA records of a name with a port we know, or its SRV records (RFC 2782) with the ports
/// and weights they say. Asked again when the answer's time to live is over, after 1 s at least and 5 min at most.
///
/// Of SRV records only those of the best priority count, and of their targets those that have addresses; weights above
/// 1000 are scaled, so that the largest is 1000. A name that does not exist is an error, not an empty service.
#[derive(Clone)]
pub struct Dns {
    name: String,
    port: Option<u16>,
    resolver: TokioResolver,
    clock: SharedClock,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Dns {
    /// The addresses of a name, by the system's name servers.
    ///
    /// # Errors
    /// [`DiscoveryError::Source`] when the system's configuration cannot be read.
    pub fn addresses(name: impl Into<String>, port: u16, clock: SharedClock) -> Result<Self, DiscoveryError> {
        Self::system(name.into(), Some(port), clock)
    }

    /// The SRV records of a name such as `_http._tcp.orders.internal`, by the system's name servers.
    ///
    /// # Errors
    /// [`DiscoveryError::Source`] when the system's configuration cannot be read.
    pub fn services(name: impl Into<String>, clock: SharedClock) -> Result<Self, DiscoveryError> {
        Self::system(name.into(), None, clock)
    }

    fn system(name: String, port: Option<u16>, clock: SharedClock) -> Result<Self, DiscoveryError> {
        let wrong =
            |error: NetError| DiscoveryError::source("the system's DNS configuration", error.to_string());
        let mut builder = TokioResolver::builder_tokio().map_err(wrong)?;
        builder.options_mut().cache_size = 0;
        Ok(Self { name, port, resolver: builder.build().map_err(wrong)?, clock })
    }

    /// Asks this name server instead of the system's.
    ///
    /// # Errors
    /// [`DiscoveryError::Source`].
    pub fn server(mut self, server: SocketAddr) -> Result<Self, DiscoveryError> {
        let [mut udp, mut tcp] = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        (udp.port, tcp.port) = (server.port(), server.port());
        let server = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().cache_size = 0;
        self.resolver =
            builder.build().map_err(|error| DiscoveryError::source("the name server", error.to_string()))?;
        Ok(self)
    }

    async fn look_up(&self, name: &str, kind: RecordType) -> Result<Lookup, NetError> {
        // Fully qualified: what a search list would find is somebody else.
        let name = Name::from_utf8(if name.ends_with('.') { name.to_owned() } else { format!("{name}.") });
        self.resolver.lookup(name.map_err(NetError::from)?, kind).await
    }

    /// The addresses of a name, both families, and how long they are good for.
    async fn hosts(&self, name: &str) -> Result<(Vec<String>, Duration), NetError> {
        let (v4, v6) = tokio::join!(self.look_up(name, RecordType::A), self.look_up(name, RecordType::AAAA));
        let mut ttl = *TTL.end();
        let mut hosts = Vec::new();
        let found = match (v4, v6) {
            // A family without records is no error as long as the other has some.
            (Ok(v4), Ok(v6)) => vec![v4, v6],
            (Ok(one), Err(error)) | (Err(error), Ok(one)) => {
                if !error.is_no_records_found() {
                    return Err(error);
                }
                vec![one]
            }
            // That there are none is known only if both say so.
            (Err(v4), Err(v6)) => return Err(if v4.is_no_records_found() { v6 } else { v4 }),
        };
        for record in found.iter().flat_map(Lookup::answers) {
            match &record.data {
                RData::A(address) => hosts.push(address.0.to_string()),
                RData::AAAA(address) => hosts.push(address.0.to_string()),
                // By which the name leads there.
                RData::CNAME(_) => {}
                _ => continue,
            }
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        }
        hosts.sort_unstable();
        Ok((hosts, ttl))
    }

    async fn endpoints(&self) -> Result<(Vec<Endpoint>, Duration), NetError> {
        if let Some(port) = self.port {
            let (hosts, ttl) = self.hosts(&self.name).await?;
            return Ok((hosts.into_iter().map(|host| Endpoint::new(host, port)).collect(), ttl));
        }
        let found = self.look_up(&self.name, RecordType::SRV).await?;
        let (mut services, mut ttl) = (Vec::new(), *TTL.end());
        for record in found.answers() {
            match &record.data {
                RData::SRV(service) => services.push(service),
                RData::CNAME(_) => {}
                _ => continue,
            }
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        }
        let best = services.iter().map(|service| service.priority).min();
        let (mut endpoints, mut empty) = (Vec::new(), None);
        for service in services.into_iter().filter(|service| Some(service.priority) == best) {
            let (hosts, theirs) = match self.hosts(&service.target.to_utf8()).await {
                Ok(found) => found,
                // It must not take the others with it.
                Err(error) if error.is_no_records_found() => {
                    empty = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            ttl = ttl.min(theirs);
            let weight = u32::from(service.weight);
            endpoints.extend(hosts.into_iter().map(|host| (Endpoint::new(host, service.port), weight)));
        }
        if let Some(error) = empty.filter(|_| endpoints.is_empty()) {
            return Err(error);
        }
        let mut endpoints = scale(endpoints);
        endpoints.sort_by_key(Endpoint::authority);
        Ok((endpoints, ttl))
    }
}

#[async_trait]
impl Source for Dns {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        loop {
            let found = self.endpoints().await;
            let (endpoints, ttl) = found.map_err(|error| {
                DiscoveryError::source(format!("DNS of {}", self.name), error.to_string())
            })?;
            teller.tell(endpoints);
            self.clock.sleep(ttl.clamp(*TTL.start(), *TTL.end())).await;
        }
    }
}
