//! Wires the memory of answers into an `App`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::app::{App, Module, Run, Service, SetupError};
use runtime_kernel::container::Token;
use runtime_kernel::{Error, Mode};

use crate::idempotency::IdempotencyStore;

/// The app's memory of answered commands, for [`Idempotent`](crate::Idempotent).
pub const IDEMPOTENCY: Token<Arc<dyn IdempotencyStore>> = Token::new("work.idempotency");

/// How often old answers are forgotten.
const EVERY: Duration = Duration::from_mins(1);

/// Provides [`IDEMPOTENCY`], kept in the app's database with the feature `sqlite` or `postgres`, in memory without, and
/// forgets what is past its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct CqrsModule;

impl Module for CqrsModule {
    fn name(&self) -> &'static str {
        "cqrs"
    }

    fn register(&self, app: &mut App) -> Result<(), SetupError> {
        provide(app);
        app.service(Housekeeping);
        Ok(())
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn provide(app: &mut App) {
    use runtime_migrate::MigrateApp;

    app.migrations(crate::migrations::SET);
    app.services().singleton(
        IDEMPOTENCY,
        (runtime_db::DB,),
        |(db,): (Arc<runtime_db::Database>,)| async move {
            Ok::<_, Error>(Arc::new(crate::SqlIdempotency::new((*db).clone())) as Arc<dyn IdempotencyStore>)
        },
    );
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn provide(app: &mut App) {
    let store: Arc<dyn IdempotencyStore> = Arc::new(crate::MemoryIdempotency::new(app.shared_clock()));
    app.services().value(IDEMPOTENCY, store);
}

struct Housekeeping;

#[async_trait]
impl Service for Housekeeping {
    fn name(&self) -> &'static str {
        "cqrs.housekeeping"
    }

    fn modes(&self) -> &'static [Mode] {
        // Answers in memory are forgotten where they are made.
        if cfg!(any(feature = "sqlite", feature = "postgres")) {
            &[Mode::Worker, Mode::Scheduler]
        } else {
            &[Mode::All]
        }
    }

    async fn run(self: Arc<Self>, run: Run) -> Result<(), Error> {
        const BATCH: u32 = 1000;
        let store = run.services.get(IDEMPOTENCY).await?;
        loop {
            let pause = match store.prune(BATCH).await {
                Ok(count) if count >= u64::from(BATCH) => Duration::ZERO,
                Ok(_) => EVERY,
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), "old answers could not be forgotten");
                    EVERY
                }
            };
            if run.stop.until(run.clock.sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }
}
