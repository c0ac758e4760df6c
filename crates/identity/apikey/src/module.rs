//! Puts API keys into an app.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode, SharedClock};

use crate::config::ApiKeyConfig;
use crate::events::{Hook, KeyEvent};
use crate::service::ApiKeys;
use crate::store::KeyStore;

/// The app's API keys.
pub const API_KEYS: Token<ApiKeys> = Token::new("identity.api_keys");

/// Reads the section `apikey`, provides [`API_KEYS`], and writes last uses down in the background and at the end.
///
/// Keys rest in the app's database (features `sqlite`, `postgres`) unless a store is given.
#[derive(Default)]
pub struct ApiKeyModule {
    store: Option<Arc<dyn KeyStore>>,
    hooks: Mutex<Vec<Hook>>,
}

impl fmt::Debug for ApiKeyModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyModule").field("store", &self.store).finish_non_exhaustive()
    }
}

impl ApiKeyModule {
    /// Keys in the app's database.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys in this store.
    pub fn with_store(store: impl KeyStore) -> Self {
        Self { store: Some(Arc::new(store)), ..Self::default() }
    }

    /// Calls `hook` after each key is made, rotated, revoked or refused.
    #[must_use]
    pub fn hook(self, hook: impl Fn(&KeyEvent) + Send + Sync + 'static) -> Self {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(hook));
        self
    }
}

impl Module for ApiKeyModule {
    fn name(&self) -> &'static str {
        "apikey"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        let config: ApiKeyConfig = app.section()?;
        let interval = config.last_used_interval;
        let clock = app.shared_clock();
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let build = move |store| build(store, &clock, &config, &hooks);
        match &self.store {
            Some(store) => {
                let keys = build(Arc::clone(store)).map_err(Error::from)?;
                app.services().value(API_KEYS, Arc::new(keys));
            }
            None => in_database(app, build)?,
        }
        app.service(LastUses { interval });
        Ok(())
    }
}

fn build(
    store: Arc<dyn KeyStore>,
    clock: &SharedClock,
    config: &ApiKeyConfig,
    hooks: &[Hook],
) -> Result<ApiKeys, crate::KeyError> {
    let builder = ApiKeys::builder(store, Arc::clone(clock), config.clone());
    let builder = hooks.iter().cloned().fold(builder, |builder, hook| builder.hook(move |event| hook(event)));
    builder.build()
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[expect(clippy::unnecessary_wraps, reason = "the build without a database refuses")]
fn in_database(
    app: &mut App,
    build: impl Fn(Arc<dyn KeyStore>) -> Result<ApiKeys, crate::KeyError> + Send + Sync + 'static,
) -> Result<(), SetupError> {
    use runtime_migrate::MigrateApp;

    app.migrations(crate::migrations::SET);
    app.services().singleton(API_KEYS, (runtime_db::DB,), move |(db,)| {
        let keys = build(Arc::new(crate::SqlKeyStore::new((*db).clone())));
        async move { keys }
    });
    Ok(())
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn in_database(
    _: &mut App,
    _: impl Fn(Arc<dyn KeyStore>) -> Result<ApiKeys, crate::KeyError> + Send + Sync + 'static,
) -> Result<(), SetupError> {
    Err(SetupError::module("apikey", "needs a store, or the feature `sqlite` or `postgres`"))
}

/// Writes noted last uses down. Nothing is lost that matters: at worst a use of the last interval.
struct LastUses {
    interval: std::time::Duration,
}

#[async_trait]
impl Service for LastUses {
    fn name(&self) -> &'static str {
        "apikey.last_uses"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::All, Mode::Api]
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        let keys = run.services.get(API_KEYS).await?;
        loop {
            let stopping = tokio::select! {
                () = run.stop.stopped() => true,
                () = run.clock.sleep(self.interval) => false,
            };
            if let Err(error) = keys.authenticator().flush().await {
                tracing::warn!(error = %Error::from(error).report(), "last uses of API keys could not be written down");
            }
            if stopping {
                return Ok(());
            }
        }
    }
}
