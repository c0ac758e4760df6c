//! The port: where schedules, their ticks and the leader's lease live.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Error, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catch_up::CatchUp;
use crate::error::CronError;
use crate::schedule::{Overlap, Schedule};

/// Names a schedule: the tenant's namespace, empty without one, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The namespace of the tenant it belongs to; empty without one.
    pub tenant: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}:{}", self.tenant, self.name)
        }
    }
}

/// Who a schedule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The program.
    Code,
    /// The configuration.
    Config,
    /// Somebody who asked.
    Api,
}

impl Origin {
    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Config => "config",
            Self::Api => "api",
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Code, Self::Config, Self::Api].into_iter().find(|origin| origin.as_str() == text)
    }
}

/// A schedule on its way into a store.
#[derive(Clone, Debug)]
pub struct Put {
    /// What is kept.
    pub schedule: Schedule,
    /// Who it comes from.
    pub origin: Origin,
    /// Who keeps it; its tenant is the schedule's.
    pub context: Carried,
    /// Only if it is at this revision; 0 when it must be new.
    pub expected: Option<u64>,
    /// The most schedules of one tenant.
    pub limit: u32,
}

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its tenant and name.
    pub key: Key,
    /// What is kept.
    pub schedule: Schedule,
    /// Grows with each change.
    pub revision: u64,
    /// Fires nothing while it is.
    pub paused: bool,
    /// Who it comes from.
    pub origin: Origin,
    /// Who kept it last.
    pub context: Carried,
    /// The next fire time; `None` when there is none any more.
    pub next: Option<Timestamp>,
}

/// Where a tick stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickState {
    /// Waits for its time, a retry, or for earlier ticks.
    Pending,
    /// A scheduler runs its action.
    Running,
    /// The action succeeded.
    Done,
    /// The action failed as often as it may, or for good. Nothing more happens to it.
    Failed,
    /// Left out by the overlap policy, or by the action itself.
    Skipped,
    /// Fire times nobody was there for, left out by the misfire policy: one record for all of them.
    Missed,
}

impl TickState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Skipped, Self::Missed];

    /// The name in JSON and SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing more happens to it.
    pub const fn is_finished(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// One tick of a schedule. There is at most one for each fire time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// The time it stands for.
    pub fire_time: Timestamp,
    /// Where it stands.
    pub state: TickState,
    /// Not before this time: the fire time and its jitter, or the next attempt.
    pub due: Timestamp,
    /// Attempts begun.
    pub attempt: u32,
    /// Whether somebody asked for it, rather than the clock.
    pub manual: bool,
    /// When the last attempt began.
    pub fired_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or was left out.
    pub note: Option<String>,
}

/// A tick that can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ready {
    /// The time it stands for.
    pub fire_time: Timestamp,
    /// Whose.
    pub key: Key,
    /// Which action it sets going.
    pub action: String,
}

/// What a leader sees.
#[derive(Clone, Debug)]
pub struct Look {
    /// Schedules whose next fire time has come.
    pub due: Vec<Stored>,
    /// Ticks that can be claimed, the oldest first.
    pub ready: Vec<Ready>,
    /// The store's time.
    pub now: Timestamp,
    /// How long until there is something new to see, if anything is planned.
    pub wait: Option<Duration>,
}

/// A claimed tick and the token that proves the claim.
#[derive(Clone, Debug)]
pub struct ClaimedTick {
    /// Whose.
    pub key: Key,
    /// The time it stands for.
    pub fire_time: Timestamp,
    /// The schedule as it is now.
    pub stored: Stored,
    /// When this attempt began.
    pub fired_at: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Grows with every claim of this tick; a report with an older one is refused.
    pub fence: u64,
    /// Whether somebody asked for it.
    pub manual: bool,
}

/// What became of a claim.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It is the caller's.
    Claimed(Box<ClaimedTick>),
    /// The overlap policy left it out, now and for good.
    Skipped,
    /// The overlap policy lets it wait.
    Waits,
    /// It used up its attempts without anybody reporting back, and has failed.
    Lost,
    /// Somebody else has it, or it is gone.
    Taken,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It was left out.
    Skipped(String),
    /// It failed and is tried again after the delay.
    Retry(Duration, String),
    /// It failed for good.
    Failed(String),
    /// It is not its turn yet: asked again after the delay, and the attempt is not counted.
    Waits(Duration),
}

/// Which schedules to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only of this tenant's namespace; `None` for all.
    pub tenant: Option<String>,
    /// Only from here.
    pub origin: Option<Origin>,
    /// Only later than this one, in order of their keys.
    pub after: Option<Key>,
    /// At most so many.
    pub limit: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self { tenant: None, origin: None, after: None, limit: 100 }
    }
}

/// Where schedules live. Laws every implementation keeps are in `laws` (feature `testkit`).
///
/// An operation that returned `Ok` is durable. Time is the store's own.
#[async_trait]
pub trait ScheduleStore: Send + Sync + 'static {
    /// Keeps a schedule. The same once more changes nothing; another plan begins anew from now.
    async fn put(&self, put: Put) -> Result<Stored, CronError>;
    /// One schedule.
    async fn get(&self, key: &Key) -> Result<Option<Stored>, CronError>;
    /// Schedules in order of their keys.
    async fn list(&self, filter: &Filter) -> Result<Vec<Stored>, CronError>;
    /// Forgets a schedule and its ticks; says whether there was one.
    async fn remove(&self, key: &Key) -> Result<bool, CronError>;
    /// Pauses, or resumes from now on: what would have fired meanwhile is left out.
    async fn pause(&self, key: &Key, paused: bool) -> Result<Stored, CronError>;
    /// Adds a tick for right now, paused or not. Says which.
    async fn trigger(&self, key: &Key) -> Result<Timestamp, CronError>;
    /// The latest ticks, latest first.
    async fn history(&self, key: &Key, limit: u32) -> Result<Vec<TickRecord>, CronError>;
    /// Becomes or stays the leader for so long. Says under which fence; `None` while another leads.
    async fn lead(&self, holder: &str, lease: Duration) -> Result<Option<u64>, CronError>;
    /// Lets another lead.
    async fn resign(&self, holder: &str) -> Result<(), CronError>;
    /// What there is to do; at most so many of each.
    async fn look(&self, max: u32) -> Result<Look, CronError>;
    /// Adds the ticks of a due schedule and moves it on, in one step; says whether it was still as seen and the leader
    /// still leads. However many do this at once, one does it.
    async fn advance(&self, leader: u64, seen: &Stored, plan: &CatchUp) -> Result<bool, CronError>;
    /// Claims a tick that is ready, by the overlap policy.
    async fn claim(&self, key: &Key, fire_time: Timestamp, lease: Duration) -> Result<Claim, CronError>;
    /// Extends a claim; says whether it still holds.
    async fn extend(&self, claimed: &ClaimedTick, lease: Duration) -> Result<bool, CronError>;
    /// Ends a claim; says whether it still held.
    async fn finish(&self, claimed: &ClaimedTick, verdict: Verdict) -> Result<bool, CronError>;
    /// The database it is in, where an action can share the tick's transaction.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn sql(&self) -> Option<&crate::SqlStore> {
        None
    }
}

/// The namespace of a context's tenant; empty without one.
pub(crate) fn namespace(context: &Carried) -> String {
    context.tenant.as_ref().map(runtime_kernel::TenantContext::namespace).unwrap_or_default()
}

/// What is known of a tick that wants to be claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) attempt: u32,
    /// Its lease ran out while it ran.
    pub(crate) lost: bool,
    /// Other ticks of the schedule that have begun and not ended.
    pub(crate) begun: u32,
    /// Earlier ones that have not ended, begun or not.
    pub(crate) earlier: u32,
    /// Of those, the ones that have not begun.
    pub(crate) waiting: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Run,
    Skip,
    Wait,
    GiveUp,
}

/// The overlap policy, and the end of attempts nobody reported.
pub(crate) fn decide(schedule: &Schedule, candidate: Candidate) -> Decision {
    if candidate.lost && candidate.attempt >= schedule.attempts {
        return Decision::GiveUp;
    }
    // What has begun keeps its place: the policy is about those that come later.
    if candidate.attempt > 0 {
        return Decision::Run;
    }
    match schedule.overlap {
        Overlap::Skip if candidate.begun > 0 => Decision::Skip,
        Overlap::Wait { up_to } if candidate.waiting >= up_to && candidate.earlier > 0 => Decision::Skip,
        Overlap::Wait { .. } if candidate.earlier > 0 => Decision::Wait,
        Overlap::Allow | Overlap::Skip | Overlap::Wait { .. } => Decision::Run,
    }
}

/// Whether a new plan leaves the times as they are, so that the next fire time stays.
pub(crate) fn same_times(old: &Schedule, new: &Schedule) -> bool {
    let times = |of: &Schedule| (of.when.clone(), of.zone.clone(), of.dialect);
    times(old) == times(new) && (&old.calendar, &old.named) == (&new.calendar, &new.named)
}

pub(crate) const OVERLAPPED: &str = "an earlier tick had not finished";
pub(crate) const LOST: &str = "its scheduler was not heard from before the lease ran out";

pub(crate) fn missed_note(missed: u32) -> String {
    format!("{missed} fire times were missed and left out")
}

/// What a tick runs with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tick {
    /// Whose tick it is.
    pub key: Key,
    /// The time it stands for: the name of its effect, should that have to be safe to repeat.
    pub fire_time: Timestamp,
    /// When this attempt began.
    pub fired_at: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether somebody asked for it.
    pub manual: bool,
    /// The schedule as it is now.
    pub schedule: Schedule,
    /// A trace of its own, the schedule's tenant, and the attempt's deadline.
    pub context: runtime_kernel::Context,
}

/// What an action came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fired {
    /// The effect is there.
    Done,
    /// There was nothing to do, and why.
    Skipped(String),
    /// Not yet: the tick waits for its turn, and is asked again soon.
    NotYet,
}

/// An action's answer.
pub type FireResult = Result<Fired, Error>;
