//! Turns names into addresses, and hands on only those that may be called.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::Guard;

/// The future of a look-up.
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Turns a name into addresses; the ports in the answer do not count.
pub trait Lookup: Send + Sync + 'static {
    /// Every address of the name. A name that has none is not called.
    fn lookup(&self, host: &str) -> LookupFuture;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str) -> LookupFuture {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

/// Resolves once per connection and filters: the connector sees no address that was not judged. Without a guard
/// (hosts the operator named) everything passes.
pub(crate) struct GuardedResolver {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) guard: Option<Arc<Guard>>,
    /// The host that is not judged: the proxy's.
    pub(crate) except: Option<String>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let judged = self.except.as_deref() != Some(host.as_str());
        let (found, guard) = (self.lookup.lookup(&host), self.guard.clone().filter(|_| judged));
        Box::pin(async move {
            // Port 0 makes the connector use the URL's own.
            let found = found.await?.into_iter().map(|address| SocketAddr::new(address.ip(), 0));
            let Some(guard) = guard else { return Ok(Box::new(found) as Addrs) };
            let (mut passed, mut refusal) = (Vec::new(), None);
            for address in found {
                match guard.check_address(&host, address.ip()) {
                    Ok(()) => passed.push(address),
                    Err(reason) => refusal = Some(reason),
                }
            }
            match refusal {
                Some(reason) if passed.is_empty() => Err(reason.into()),
                _ => Ok(Box::new(passed.into_iter()) as Addrs),
            }
        })
    }
}
