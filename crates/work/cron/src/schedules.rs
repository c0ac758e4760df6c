//! The handle through which a service keeps schedules and looks at them.

use std::fmt;
use std::sync::Arc;

use runtime_kernel::{Context, SharedClock, Source, TenantContext, Timestamp};
use tokio::sync::Notify;

use crate::config::CronConfig;
use crate::error::CronError;
use crate::schedule::Schedule;
use crate::store::{Filter, Key, Origin, Put, ScheduleStore, Stored, TickRecord};

/// The most fire times a preview shows.
const MAX_PREVIEW: usize = 1_000;

/// Schedules, as the rest of a service sees them. Cheap to clone.
///
/// The tenant of the context decides whose schedules are meant: another tenant's are as good as not there. A context
/// without a tenant means the service's own.
#[derive(Clone)]
pub struct Schedules {
    pub(crate) store: Arc<dyn ScheduleStore>,
    pub(crate) config: Arc<CronConfig>,
    pub(crate) clock: SharedClock,
    pub(crate) wake: Arc<Notify>,
}

impl Schedules {
    /// Schedules over a store.
    ///
    /// # Errors
    /// [`CronError::Invalid`] names the limit that cannot be used.
    pub fn new(store: impl ScheduleStore, config: CronConfig, clock: SharedClock) -> Result<Self, CronError> {
        if let Some((key, problem)) = config.problem() {
            let problem = format!("{key}: {problem}");
            return Err(CronError::Invalid { schedule: "cron".to_owned(), key: "config", problem });
        }
        Ok(Self { store: Arc::new(store), config: Arc::new(config), clock, wake: Arc::default() })
    }

    /// Keeps a schedule, new or changed. The same once more changes nothing; a change of its times begins anew from
    /// now.
    ///
    /// # Errors
    /// What is wrong with it; [`CronError::Full`].
    pub async fn put(&self, context: &Context, schedule: Schedule) -> Result<Stored, CronError> {
        self.keep(context, schedule, Origin::Api, None).await
    }

    /// Keeps a schedule only if it is at this revision: 0 when it must be new.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`CronError::Changed`] at another revision.
    pub async fn put_at(
        &self,
        context: &Context,
        schedule: Schedule,
        revision: u64,
    ) -> Result<Stored, CronError> {
        self.keep(context, schedule, Origin::Api, Some(revision)).await
    }

    async fn keep(
        &self,
        context: &Context,
        schedule: Schedule,
        origin: Origin,
        expected: Option<u64>,
    ) -> Result<Stored, CronError> {
        let schedule = self.config.resolve(schedule)?;
        let context = context.carry(&*self.clock);
        let limit = self.config.max_schedules;
        let stored = self.store.put(Put { schedule, origin, context, expected, limit }).await?;
        self.wake.notify_one();
        Ok(stored)
    }

    /// Keeps these, and removes what else this origin has: the service's own schedules, as its program or its
    /// configuration names them. Schedules of other origins with the same names are taken over.
    ///
    /// # Errors
    /// As [`put`](Self::put), at the first that cannot be kept.
    pub async fn sync(&self, origin: Origin, schedules: Vec<Schedule>) -> Result<(), CronError> {
        let context = Context::new(Source::Internal, &*self.clock);
        let mut gone: Vec<Key> = Vec::new();
        let mut filter = Filter { tenant: Some(String::new()), origin: Some(origin), ..Filter::default() };
        loop {
            let page = self.store.list(&filter).await?;
            filter.after = page.last().map(|stored| stored.key.clone());
            let unnamed = |stored: &Stored| !schedules.iter().any(|wanted| wanted.name == stored.key.name);
            gone.extend(page.into_iter().filter(unnamed).map(|stored| stored.key));
            if filter.after.is_none() {
                break;
            }
        }
        for schedule in schedules {
            self.keep(&context, schedule, origin, None).await?;
        }
        for key in gone {
            tracing::info!(schedule = %key, origin = origin.as_str(), "a schedule is no longer named and is removed");
            self.store.remove(&key).await?;
        }
        Ok(())
    }

    /// Looks the calendars of the configuration up again for every schedule, of whatever tenant, that names some, and says
    /// how many have changed: those begin anew from now. One that is named and not there any more stays as it was. Every
    /// scheduler does this when it starts; of two with different configurations the later counts.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn look_up_calendars(&self) -> Result<u64, CronError> {
        let (mut filter, mut changed) = (Filter { limit: 1_000, ..Filter::default() }, 0);
        loop {
            let page = self.store.list(&filter).await?;
            filter.after = page.last().map(|stored| stored.key.clone());
            for old in page.into_iter().filter(|stored| !stored.schedule.calendars.is_empty()) {
                let resolved = self.config.resolve(old.schedule.clone());
                let checked = resolved.and_then(|new| new.check(&old.key.tenant).map(|_| new));
                let schedule = match checked {
                    Ok(new) if new == old.schedule => continue,
                    Ok(new) => new,
                    Err(error) => {
                        tracing::error!(schedule = %old.key, %error, "a schedule keeps the calendars it was kept with");
                        continue;
                    }
                };
                let (expected, limit) = (Some(old.revision), u32::MAX);
                let put = Put { schedule, origin: old.origin, context: old.context, expected, limit };
                match self.store.put(put).await {
                    Ok(_) => changed += 1,
                    // Whoever was faster has looked them up as well.
                    Err(CronError::Changed { .. } | CronError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if filter.after.is_none() {
                break;
            }
        }
        if changed > 0 {
            self.wake.notify_one();
        }
        Ok(changed)
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn get(&self, context: &Context, name: &str) -> Result<Stored, CronError> {
        let found = self.store.get(&key(context, name)).await?;
        found.ok_or_else(|| CronError::NotFound(name.to_owned()))
    }

    /// Schedules by name, after one and at most so many.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn list(
        &self,
        context: &Context,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Stored>, CronError> {
        let tenant = Some(key(context, "").tenant);
        let after = after.map(|name| key(context, name));
        self.store.list(&Filter { tenant, origin: None, after, limit: limit.min(1_000) }).await
    }

    /// Fires nothing until it is resumed. Ticks that have been added already run.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn pause(&self, context: &Context, name: &str) -> Result<Stored, CronError> {
        self.store.pause(&key(context, name), true).await
    }

    /// Fires again, from now on: what would have fired meanwhile is left out.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn resume(&self, context: &Context, name: &str) -> Result<Stored, CronError> {
        let stored = self.store.pause(&key(context, name), false).await?;
        self.wake.notify_one();
        Ok(stored)
    }

    /// Forgets a schedule and its history.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn remove(&self, context: &Context, name: &str) -> Result<(), CronError> {
        let removed = self.store.remove(&key(context, name)).await?;
        if removed { Ok(()) } else { Err(CronError::NotFound(name.to_owned())) }
    }

    /// Fires right now, also while paused; the overlap policy holds. Says which fire time the tick has.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn trigger(&self, context: &Context, name: &str) -> Result<Timestamp, CronError> {
        let at = self.store.trigger(&key(context, name)).await?;
        self.wake.notify_one();
        Ok(at)
    }

    /// The latest ticks, latest first.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn history(
        &self,
        context: &Context,
        name: &str,
        limit: u32,
    ) -> Result<Vec<TickRecord>, CronError> {
        let stored = self.get(context, name).await?;
        self.store.history(&stored.key, limit.min(10_000)).await
    }

    /// The next fire times, at most 1,000, whether paused or not.
    ///
    /// # Errors
    /// [`CronError::NotFound`].
    pub async fn preview(
        &self,
        context: &Context,
        name: &str,
        count: usize,
    ) -> Result<Vec<Timestamp>, CronError> {
        let stored = self.get(context, name).await?;
        self.preview_of(context, &stored.schedule, count)
    }

    /// The next fire times a schedule would have, before it is kept.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn preview_of(
        &self,
        context: &Context,
        schedule: &Schedule,
        count: usize,
    ) -> Result<Vec<Timestamp>, CronError> {
        let schedule = self.config.resolve(schedule.clone())?;
        let timetable = schedule.check(&key(context, "").tenant)?;
        Ok(timetable.upcoming(self.clock.utc()).take(count.min(MAX_PREVIEW)).collect())
    }
}

fn key(context: &Context, name: &str) -> Key {
    let tenant = context.tenant.as_deref().map(TenantContext::namespace).unwrap_or_default();
    Key { tenant, name: name.to_owned() }
}

impl fmt::Debug for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}
