//! Definitions for callers: registered as drafts, activated, deprecated by the next, retired.

use runtime_kernel::Context;

use crate::command::DEFINE;
use crate::definition::{Definition, Difference, Version, VersionState};
use crate::error::WorkflowError;
use crate::store::VersionFilter;
use crate::workflows::{Workflows, actor, namespace};

/// How often a number is tried for that others may take at the same time.
const ROUNDS: u32 = 16;

impl Workflows {
    /// Registers a definition as the next version, a draft. Needs the scope `workflow:define`, as do the others here.
    ///
    /// # Errors
    /// [`WorkflowError::Definition`] names every problem with its place.
    pub async fn register(
        &self,
        context: &Context,
        definition: Definition,
    ) -> Result<Version, WorkflowError> {
        let by = definer(context)?;
        self.add(&namespace(context), definition, by).await
    }

    /// Makes a version the one that instances are started with. The present one is deprecated; what runs goes on.
    ///
    /// # Errors
    /// [`WorkflowError::NoVersion`], [`WorkflowError::VersionState`].
    pub async fn activate(&self, context: &Context, code: &str, number: u32) -> Result<(), WorkflowError> {
        definer(context)?;
        self.set_state(&namespace(context), code, number, VersionState::Active).await
    }

    /// Takes a version out of use for ever; what runs goes on.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    pub async fn retire(&self, context: &Context, code: &str, number: u32) -> Result<(), WorkflowError> {
        definer(context)?;
        self.set_state(&namespace(context), code, number, VersionState::Retired).await
    }

    /// Versions of the tenant's definitions, by code, newest first.
    ///
    /// # Errors
    /// Of the store.
    pub async fn versions(
        &self,
        context: &Context,
        filter: &VersionFilter,
    ) -> Result<Vec<Version>, WorkflowError> {
        actor(context)?;
        self.store.versions(&namespace(context), filter).await
    }

    /// What is different between two versions.
    ///
    /// # Errors
    /// [`WorkflowError::NoVersion`].
    pub async fn diff(
        &self,
        context: &Context,
        code: &str,
        from: u32,
        to: u32,
    ) -> Result<Vec<Difference>, WorkflowError> {
        actor(context)?;
        let tenant = namespace(context);
        let from = self.version(&tenant, code, from).await?;
        let to = self.version(&tenant, code, to).await?;
        Ok(from.definition.diff(&to.definition))
    }

    /// Makes a definition the house's active one, for tenants that have none of their own of that code. Does nothing
    /// when it is already; so each process may do it when it starts.
    ///
    /// # Errors
    /// As [`register`](Self::register) and [`activate`](Self::activate).
    pub async fn install(&self, definition: Definition) -> Result<(), WorkflowError> {
        let code = definition.code.clone();
        for _ in 0..ROUNDS {
            let filter = VersionFilter { code: Some(code.clone()), ..VersionFilter::default() };
            let versions = self.store.versions("", &filter).await?;
            let same = |version: &&Version| {
                version.definition == definition && version.state != VersionState::Retired
            };
            let number = match versions.iter().find(same) {
                Some(version) if version.state == VersionState::Active => return Ok(()),
                Some(version) => version.number,
                None => self.add("", definition.clone(), "config".to_owned()).await?.number,
            };
            match self.set_state("", &code, number, VersionState::Active).await {
                // Another process was first: it is looked at again.
                Err(WorkflowError::VersionState { .. } | WorkflowError::Contended) => {}
                done => return done,
            }
        }
        Err(WorkflowError::Contended)
    }

    async fn add(&self, tenant: &str, definition: Definition, by: String) -> Result<Version, WorkflowError> {
        definition.check()?;
        let filter = VersionFilter { code: Some(definition.code.clone()), ..VersionFilter::default() };
        for _ in 0..ROUNDS {
            let newest =
                self.store.versions(tenant, &filter).await?.first().map_or(0, |version| version.number);
            let version = Version {
                number: newest.saturating_add(1),
                state: VersionState::Draft,
                definition: definition.clone(),
                by: by.clone(),
                at: self.store.now().await?,
            };
            if self.store.add_version(tenant, &version).await? {
                return Ok(version);
            }
        }
        Err(WorkflowError::Contended)
    }

    async fn set_state(
        &self,
        tenant: &str,
        code: &str,
        number: u32,
        to: VersionState,
    ) -> Result<(), WorkflowError> {
        for _ in 0..ROUNDS {
            let from = self.version(tenant, code, number).await?.state;
            if !from.may_become(to) {
                return Err(WorkflowError::VersionState { code: code.to_owned(), version: number, from, to });
            }
            if self.store.set_state(tenant, code, number, from, to).await? {
                return Ok(());
            }
        }
        Err(WorkflowError::Contended)
    }

    async fn version(&self, tenant: &str, code: &str, number: u32) -> Result<Version, WorkflowError> {
        let filter = VersionFilter { code: Some(code.to_owned()), ..VersionFilter::default() };
        let versions = self.store.versions(tenant, &filter).await?;
        let found = versions.into_iter().find(|version| version.number == number);
        found.ok_or_else(|| WorkflowError::NoVersion { code: code.to_owned(), version: number })
    }
}

fn definer(context: &Context) -> Result<String, WorkflowError> {
    let actor = actor(context)?;
    if context.principal.as_deref().is_some_and(|principal| principal.allows(DEFINE)) {
        return Ok(actor.id);
    }
    Err(WorkflowError::NotGranted { who: actor.id, what: "define workflows" })
}
