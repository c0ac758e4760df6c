//! Types of sagas: a name, a version and the code.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runtime_kernel::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::SagaError;
use crate::instance::{ParkReason, kind_of};
use crate::saga::Saga;

/// How a saga's code ended, as its worker sees it.
pub(crate) enum Ended {
    Returned(Result<Value, Error>),
    /// Its input or its output is not of the type of the code.
    Unreadable(ParkReason),
}

type Code = dyn Fn(Saga, Value) -> BoxFuture<'static, Ended> + Send + Sync;

/// A type of saga.
///
/// A saga goes on under the version it began with, so a change of the code that changes which operations come in which
/// order is a new version; the old one stays registered until its last saga is over.
#[derive(Clone)]
pub struct Definition {
    pub(crate) name: Arc<str>,
    pub(crate) version: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) code: Arc<Code>,
}

impl Definition {
    /// A saga in plain async Rust.
    ///
    /// The code is run again from its beginning whenever a saga is resumed; what is in the journal is not done again but
    /// answered from it. So whatever has effects, takes time, or may turn out otherwise another time (clocks, random
    /// numbers, reads) belongs into a step.
    pub fn new<I, O, F, Fut>(name: &str, version: u32, code: F) -> Self
    where
        I: DeserializeOwned + Send,
        O: Serialize,
        F: Fn(Saga, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, Error>> + Send + 'static,
    {
        let unreadable = |error: &serde_json::Error, what: &str| {
            Ended::Unreadable(ParkReason::Unreadable {
                position: String::new(),
                message: format!("the {what} is not of the code's type: {error}"),
            })
        };
        let code = move |saga, input| match serde_json::from_value::<I>(input) {
            Err(error) => std::future::ready(unreadable(&error, "input")).boxed(),
            Ok(input) => {
                let running = code(saga, input);
                async move {
                    match running.await.map(serde_json::to_value) {
                        Ok(Ok(output)) => Ended::Returned(Ok(output)),
                        Ok(Err(error)) => unreadable(&error, "output"),
                        Err(error) => Ended::Returned(Err(error)),
                    }
                }
                .boxed()
            }
        };
        Self { name: name.into(), version, timeout: None, code: Arc::new(code) }
    }

    /// How long a saga of this type may take in all, waits included, unless its start says otherwise; what it did is
    /// undone then. No limit unless told.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The types a process knows.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    by_kind: HashMap<String, Definition>,
    newest: HashMap<Arc<str>, u32>,
}

impl Definitions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] for a second one of the same name and version, and for a name that is empty, longer than
    /// 100 bytes or has `@` in it.
    pub fn with(mut self, definition: Definition) -> Result<Self, SagaError> {
        self.add(definition)?;
        Ok(self)
    }

    pub(crate) fn add(&mut self, definition: Definition) -> Result<(), SagaError> {
        let name = &definition.name;
        if name.is_empty() || name.len() > 100 || name.contains('@') {
            return Err(SagaError::Invalid(format!("`{name}` is no name for a type of saga")));
        }
        let kind = kind_of(name, definition.version);
        if self.by_kind.contains_key(&kind) {
            return Err(SagaError::Invalid(format!("`{kind}` is registered twice")));
        }
        let newest = self.newest.entry(Arc::clone(name)).or_default();
        *newest = (*newest).max(definition.version);
        self.by_kind.insert(kind, definition);
        Ok(())
    }

    pub(crate) fn get(&self, name: &str, version: u32) -> Option<&Definition> {
        self.by_kind.get(&kind_of(name, version))
    }

    pub(crate) fn newest(&self, name: &str) -> Option<&Definition> {
        self.get(name, *self.newest.get(name)?)
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.by_kind.keys().cloned().collect();
        kinds.sort();
        kinds
    }
}
