//! Endpoints from Kubernetes.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::{Source, Teller};
use crate::endpoint::Endpoint;
use crate::error::DiscoveryError;

/// The ready endpoints of a service, by its endpoint slices, which are watched.
///
/// The account needs `list` and `watch` on `endpointslices` of the group `discovery.k8s.io`.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    namespace: String,
    service: String,
    port: Option<String>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("namespace", &self.namespace)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// A client by the pod's own account, or the developer's configuration; and the namespace it is at home in. Kube asks
    /// rustls for the process's cryptography: unless somebody has chosen, it is ring.
    ///
    /// # Errors
    /// [`DiscoveryError::Source`] when there is no configuration.
    pub async fn client() -> Result<(Client, String), DiscoveryError> {
        let wrong = |why: String| DiscoveryError::source("Kubernetes", why);
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Whoever comes first wins; either is good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let config = kube::Config::infer().await.map_err(|error| wrong(error.to_string()))?;
        let namespace = config.default_namespace.clone();
        Ok((Client::try_from(config).map_err(|error| wrong(error.to_string()))?, namespace))
    }

    /// A service of a namespace, by its only port.
    pub fn new(client: Client, namespace: impl Into<String>, service: impl Into<String>) -> Self {
        Self { client, namespace: namespace.into(), service: service.into(), port: None }
    }

    /// By the port of this name.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>) -> Self {
        self.port = Some(name.into());
        self
    }

    /// Those of a slice that are ready, or say nothing about it.
    fn endpoints(&self, slice: &EndpointSlice) -> Vec<Endpoint> {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let port = ports.iter().find(|port| self.port.is_none() || port.name == self.port);
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true))
        });
        ready
            .flat_map(|endpoint| {
                endpoint.addresses.iter().map(|address| {
                    let mut own = Endpoint::new(address.clone(), port);
                    if let Some(zone) = &endpoint.zone {
                        own.attributes.insert("zone".to_owned(), zone.clone());
                    }
                    own
                })
            })
            .collect()
    }
}

#[async_trait]
impl Source for Kubernetes {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let config =
            watcher::Config::default().labels(&format!("kubernetes.io/service-name={}", self.service));
        let mut events = std::pin::pin!(watcher::watcher(slices, config));
        let (mut known, mut fresh) = (BTreeMap::new(), BTreeMap::new());
        while let Some(event) = events.next().await {
            let wrong = |error: watcher::Error| DiscoveryError::source("Kubernetes", error.to_string());
            let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
            match event.map_err(wrong)? {
                Event::Init => {
                    fresh.clear();
                    continue;
                }
                Event::InitApply(slice) => {
                    fresh.insert(name(&slice), self.endpoints(&slice));
                    continue;
                }
                Event::InitDone => known = std::mem::take(&mut fresh),
                Event::Apply(slice) => {
                    known.insert(name(&slice), self.endpoints(&slice));
                }
                Event::Delete(slice) => {
                    known.remove(&name(&slice));
                }
            }
            teller.tell(known.values().flatten().cloned().collect());
        }
        Err(DiscoveryError::source("Kubernetes", "ended the watch"))
    }
}

/// The same by the pod's own account, which is read when the watch begins: that needs a runtime, and may fail.
#[cfg(feature = "module")]
#[derive(Clone, Debug)]
pub(crate) struct InCluster {
    pub(crate) namespace: Option<String>,
    pub(crate) service: String,
    pub(crate) port: Option<String>,
}

#[cfg(feature = "module")]
#[async_trait]
impl Source for InCluster {
    async fn watch(&self, teller: &Teller) -> Result<(), DiscoveryError> {
        let (client, home) = Kubernetes::client().await?;
        let namespace = self.namespace.clone().unwrap_or(home);
        let own = Kubernetes { client, namespace, service: self.service.clone(), port: self.port.clone() };
        own.watch(teller).await
    }
}
