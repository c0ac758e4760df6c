//! Where endpoints come from: the port every source implements.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod fixed;
#[cfg(feature = "kube")]
mod kubernetes;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
#[cfg(feature = "consul")]
pub use consul::Consul;
#[cfg(feature = "dns")]
pub use dns::Dns;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use file::Lines;
pub use fixed::{Env, Fixed};
#[cfg(all(feature = "kube", feature = "module"))]
pub(crate) use kubernetes::InCluster;
#[cfg(feature = "kube")]
pub use kubernetes::Kubernetes;
use tokio::sync::watch;

use crate::endpoint::Endpoint;
#[cfg(any(feature = "consul", feature = "dns"))]
use crate::endpoint::HEAVIEST;
use crate::error::DiscoveryError;
use crate::service::Known;

/// Where endpoints come from.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Tells the endpoints, and again each time they change. Returns `Ok` when they never will; it is dropped when
    /// nobody listens any more, and called anew after an error.
    ///
    /// # Errors
    /// [`DiscoveryError`]: it cannot be asked. What was told last stays in use.
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError>;
}

/// Takes what a source finds.
#[derive(Debug)]
pub struct Teller {
    tell: watch::Sender<Known>,
    answers: AtomicU64,
}

impl Teller {
    pub(crate) fn new(tell: watch::Sender<Known>) -> Self {
        Self { tell, answers: AtomicU64::new(0) }
    }

    /// These are the endpoints now. Of those with the same host and port the last counts.
    pub fn tell(&self, endpoints: Vec<Endpoint>) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let mut unique: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let known = unique.iter_mut().find(|own| own.host == endpoint.host && own.port == endpoint.port);
            match known {
                Some(own) => *own = endpoint,
                None => unique.push(endpoint),
            }
        }
        self.tell.send_if_modified(|known| {
            let same = known.endpoints.as_deref() == Some(&unique);
            if same && known.stale.is_none() {
                return false;
            }
            known.stale = None;
            if !same {
                known.endpoints = Some(unique.into());
                known.version += 1;
            }
            true
        });
    }

    /// The source cannot be asked; whether that is news.
    pub(crate) fn failed(&self, why: &str) -> bool {
        self.tell.send_if_modified(|known| {
            let news = known.stale.as_deref() != Some(why);
            known.stale = Some(Arc::from(why));
            news
        })
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

/// Endpoints by weights that may be larger than ours are: the largest counts as 1000 then, and the others in proportion.
#[cfg(any(feature = "consul", feature = "dns"))]
fn scale(endpoints: Vec<(Endpoint, u32)>) -> Vec<Endpoint> {
    let most = u64::from(HEAVIEST);
    let largest = endpoints.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(0).max(most);
    let scaled = |weight: u32| (u64::from(weight) * most + largest / 2) / largest;
    let weighed = endpoints
        .into_iter()
        .map(|(endpoint, weight)| endpoint.weight(u32::try_from(scaled(weight)).unwrap_or(HEAVIEST)));
    weighed.collect()
}

#[async_trait]
impl Source for Box<dyn Source> {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        (**self).watch(teller).await
    }
}
