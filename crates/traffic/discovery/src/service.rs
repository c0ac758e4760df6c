//! A service whose endpoints are watched.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::SharedClock;
use tokio::sync::watch;

use crate::endpoint::Endpoint;
use crate::source::{Source, Teller};

/// How long to wait before a source that failed is asked again, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Known {
    /// The endpoints, in the source's order; nothing until the source has answered for the first time.
    pub endpoints: Option<Arc<[Endpoint]>>,
    /// Counts the changes.
    pub version: u64,
    /// Why the source cannot be asked at the moment; the endpoints are the last it gave.
    pub stale: Option<Arc<str>>,
}

/// A service whose endpoints are watched. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Service {
    name: Arc<str>,
    known: watch::Receiver<Known>,
}

/// The task that watches, to be run for as long as the service is used.
#[derive(Debug)]
#[must_use = "nothing is watched until it runs"]
pub struct Watching {
    name: Arc<str>,
    source: Box<dyn Source>,
    teller: Teller,
    clock: SharedClock,
}

impl Service {
    /// A service and the task that watches its source.
    ///
    /// What was known last stays known while the source cannot be asked.
    pub fn new(name: impl Into<Arc<str>>, source: impl Source, clock: SharedClock) -> (Self, Watching) {
        let (tell, known) = watch::channel(Known::default());
        let name = name.into();
        let watching =
            Watching { name: Arc::clone(&name), source: Box::new(source), teller: Teller::new(tell), clock };
        (Self { name, known }, watching)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Waits until something else is known, and says what. Nothing once nobody watches any more.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Option<Known> {
        self.known.changed().await.ok()?;
        Some(self.known.borrow_and_update().clone())
    }

    /// Waits until the endpoints are known for the first time. Nothing when nobody watches.
    pub async fn ready(&mut self) -> Option<Arc<[Endpoint]>> {
        let known = self.known.wait_for(|known| known.endpoints.is_some()).await.ok()?;
        known.endpoints.clone()
    }
}

impl Watching {
    /// Watches until dropped. A source that fails is asked again after half a second, doubled up to half a minute.
    pub async fn run(self) {
        let mut wait = FIRST_WAIT;
        loop {
            let answered = self.teller.answers();
            let why = match self.source.watch(&self.teller).await {
                Ok(()) => return std::future::pending().await,
                Err(error) => error.to_string(),
            };
            if self.teller.answers() > answered {
                wait = FIRST_WAIT;
            }
            if self.teller.failed(&why) {
                tracing::warn!(service = %self.name, why, "a service's endpoints cannot be looked up");
            }
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
