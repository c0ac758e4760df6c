//! Workflows in SQLite or Postgres, by the same statements.

mod read;
mod run;
mod write;

use async_trait::async_trait;
use runtime_db::{Database, DbError, Tx};
use runtime_kernel::{Context, Source, Timestamp};

use crate::definition::{Definition, Version, VersionState};
use crate::error::WorkflowError;
use crate::event::Event;
use crate::instance::{Instance, InstanceId};
use crate::store::{Change, Due, InstanceFilter, Loaded, Standing, VersionFilter, WorkflowStore};
use crate::task::Task;

/// Workflows in a database that [`crate::migrations`] have prepared.
///
/// Time comes from the database: Postgres is asked for it; SQLite lives on this machine, so its time is this process's
/// clock.
#[derive(Clone, Debug)]
pub struct SqlWorkflows {
    db: Database,
}

impl SqlWorkflows {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }
}

#[async_trait]
impl WorkflowStore for SqlWorkflows {
    async fn now(&self) -> Result<Timestamp, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = tx.time().await?;
        tx.rollback().await?;
        Ok(now)
    }

    async fn add_version(&self, tenant: &str, version: &Version) -> Result<bool, WorkflowError> {
        let add = async |mut tx: Tx| write::add_version(&mut tx, tenant, version).await;
        self.db.transaction(&self.context(), add).await
    }

    async fn versions(&self, tenant: &str, filter: &VersionFilter) -> Result<Vec<Version>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = read::versions(&mut tx, tenant, filter).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn set_state(
        &self,
        tenant: &str,
        code: &str,
        number: u32,
        from: VersionState,
        to: VersionState,
    ) -> Result<bool, WorkflowError> {
        let set = async |mut tx: Tx| write::set_state(&mut tx, tenant, code, number, from, to).await;
        match self.db.transaction(&self.context(), set).await {
            // Another process activated another version at the same time.
            Err(WorkflowError::Db(DbError::Unique { .. })) => Ok(false),
            done => done,
        }
    }

    async fn create(
        &self,
        definition: &Definition,
        change: &Change,
    ) -> Result<Option<InstanceId>, WorkflowError> {
        let create = async |mut tx: Tx| write::create(&mut tx, definition, change).await;
        self.db.transaction(&self.context(), create).await
    }

    async fn load(
        &self,
        tenant: &str,
        id: InstanceId,
        action: Option<&str>,
    ) -> Result<Option<Loaded>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = tx.time().await?;
        let found = read::load(&mut tx, tenant, id, action, now).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn commit(&self, change: &Change) -> Result<bool, WorkflowError> {
        let commit = async |mut tx: Tx| write::commit(&mut tx, change).await;
        self.db.transaction(&self.context(), commit).await
    }

    async fn due(&self, after: Option<&Due>, limit: u32) -> Result<Vec<Due>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = tx.time().await?;
        let found = read::due(&mut tx, now, after, limit).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn tasks(
        &self,
        tenant: &str,
        holder: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Task, i64)>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = tx.time().await?;
        let found = read::tasks(&mut tx, now, tenant, holder, limit).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn standing(&self) -> Result<Standing, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let now = tx.time().await?;
        let found = read::standing(&mut tx, now).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn instances(&self, tenant: &str, filter: &InstanceFilter) -> Result<Vec<Instance>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = read::instances(&mut tx, tenant, filter).await?;
        tx.rollback().await?;
        Ok(found)
    }

    async fn events(
        &self,
        tenant: &str,
        id: InstanceId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, WorkflowError> {
        let mut tx = self.db.begin(&self.context()).await?;
        let found = read::events(&mut tx, tenant, id, after, limit).await?;
        tx.rollback().await?;
        Ok(found)
    }
}
