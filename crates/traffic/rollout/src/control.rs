//! Orders to rollouts, and the eye that is kept on them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use runtime_kernel::{SharedClock, Timestamp};
use serde::{Deserialize, Serialize};

use crate::analysis::{Analysis, Counts, Verdict};
use crate::config::RoutesConfig;
use crate::error::RolloutError;
use crate::state::{Kind, Phase, Rollout, Side, WHOLE};
use crate::store::{Evidence, RolloutStore};

/// How often a change is tried when others change the same rollout.
const TRIES: u32 = 8;

/// What may be done to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// Canary: begins with the first step, from rest, promoted or rolled back.
    Start,
    /// Canary: nothing moves by itself any more.
    Pause,
    /// Canary: goes on where it was paused.
    Resume,
    /// Canary: the next step now; after the last one everything.
    Advance,
    /// Canary: everything to the canary.
    Promote,
    /// Canary: nothing to it any more. Blue-green: what is prepared is not switched to, or back to the side the last
    /// switch left; once only.
    Rollback,
    /// Canary: this share, in hundredths of a per cent; and paused. Resumed, it goes on with the first step that has a
    /// larger one.
    Weight(u32),
    /// A subject goes to this side whatever the weight.
    Pin(String, Side),
    /// It goes by the weight again.
    Unpin(String),
    /// Blue-green: the side that is not active is made ready; only those pinned to it go there.
    Prepare,
    /// Blue-green: it has been looked at and is good.
    Verify,
    /// Blue-green: everything to the side that was prepared and verified; the other one drains.
    Switch,
}

impl Order {
    /// As routes, command lines and audit events spell it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Advance => "advance",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Weight(_) => "weight",
            Self::Pin(..) => "pin",
            Self::Unpin(_) => "unpin",
            Self::Prepare => "prepare",
            Self::Verify => "verify",
            Self::Switch => "switch",
        }
    }
}

/// A change that was made, by somebody's order or by itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The rollout before.
    pub before: Rollout,
    /// And after.
    pub after: Rollout,
    /// Whether nobody ordered it.
    pub by_itself: bool,
}

type Observe = dyn Fn(&Change) + Send + Sync;

/// The rollouts of a process, and what its requests have told of them since they were last counted.
#[derive(Clone)]
pub struct Rollouts {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn RolloutStore>,
    clock: SharedClock,
    observe: Arc<Observe>,
    watched: BTreeMap<String, Watched>,
}

pub(crate) struct Watched {
    pub(crate) config: RoutesConfig,
    pub(crate) rollout: ArcSwap<Rollout>,
    sides: [Tally; 2],
}

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
}

impl Tally {
    fn take(&self) -> Counts {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (failed, slow) = (take(&self.failed), take(&self.slow));
        // Read last: what is just being added may be missing among those that failed, never the other way round.
        Counts { requests: take(&self.requests), failed, slow }
    }
}

impl Watched {
    /// Goes by what the store has said, unless a change of our own was newer than the answer; says what it went by before.
    fn adopt(&self, asked: &Arc<Rollout>, stored: &Rollout) -> Arc<Rollout> {
        let stored = Arc::new(stored.clone());
        self.rollout.rcu(|known| {
            // Where nothing has happened since it was asked, the store is right: it may have been put back to a backup.
            let newer = Arc::ptr_eq(known, asked) || known.revision < stored.revision;
            Arc::clone(if newer { &stored } else { known })
        })
    }

    /// Goes by a change of our own. What was counted before it says nothing of what comes after.
    fn follow(&self, before: &Rollout, after: &Rollout) {
        let own = Arc::new(after.clone());
        self.rollout.rcu(|known| Arc::clone(if known.revision < own.revision { &own } else { known }));
        if before.generation != after.generation {
            for tally in &self.sides {
                tally.take();
            }
        }
    }

    pub(crate) fn answered(&self, side: Side, failed: bool, slow: bool) {
        let [primary, canary] = &self.sides;
        let tally = if side == Side::Primary { primary } else { canary };
        tally.requests.fetch_add(1, Ordering::Relaxed);
        tally.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        tally.slow.fetch_add(u64::from(slow), Ordering::Relaxed);
    }
}

impl fmt::Debug for Rollouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.inner.watched.keys().collect();
        f.debug_struct("Rollouts").field("names", &names).finish_non_exhaustive()
    }
}

impl Rollouts {
    /// The rollouts of a configuration. Nothing is read before [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`RolloutError::Config`] names the key that is wrong.
    pub fn new(
        store: Arc<dyn RolloutStore>,
        routes: BTreeMap<String, RoutesConfig>,
        clock: SharedClock,
        observe: impl Fn(&Change) + Send + Sync + 'static,
    ) -> Result<Self, RolloutError> {
        let mut watched = BTreeMap::new();
        for (name, config) in routes {
            config.check(&name)?;
            let rollout = Rollout::new(name.as_str(), config.kind, config.plan.clone(), clock.utc());
            let rollout = ArcSwap::from_pointee(rollout);
            watched.insert(name, Watched { config, rollout, sides: Default::default() });
        }
        Ok(Self { inner: Arc::new(Inner { store, clock, observe: Arc::new(observe), watched }) })
    }

    pub(crate) fn watched(&self, name: &str) -> Result<&Watched, RolloutError> {
        self.inner.watched.get(name).ok_or_else(|| RolloutError::Unknown(name.to_owned()))
    }

    #[cfg(feature = "http")]
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.watched.keys().map(String::as_str)
    }

    /// What this process goes by at the moment.
    ///
    /// # Errors
    /// [`RolloutError::Unknown`].
    pub fn current(&self, name: &str) -> Result<Arc<Rollout>, RolloutError> {
        Ok(self.watched(name)?.rollout.load_full())
    }

    /// A request has been answered: counted for the analysis. `RolloutService` (feature `http`)
    /// does it by itself.
    ///
    /// # Errors
    /// [`RolloutError::Unknown`].
    pub fn answered(&self, name: &str, side: Side, failed: bool, slow: bool) -> Result<(), RolloutError> {
        self.watched(name)?.answered(side, failed, slow);
        Ok(())
    }

    /// Reads what others have changed, hands in what requests have told, and moves on what is due. Every process calls
    /// it about once a second; of several that see the same, one moves.
    ///
    /// # Errors
    /// [`RolloutError::Store`]: the process goes on by what it knew.
    pub async fn refresh(&self) -> Result<(), RolloutError> {
        for (name, watched) in &self.inner.watched {
            let asked = watched.rollout.load_full();
            let stored = self.inner.store.get(name).await?;
            let rollout = match stored {
                Some(stored) => stored,
                None => self.create(watched).await?,
            };
            let known = watched.adopt(&asked, &rollout);
            if !Arc::ptr_eq(&known, &asked) && known.revision > rollout.revision {
                // Changed while the store was asked: what it said is looked at next time.
                continue;
            }
            let fresh = known.generation != rollout.generation;
            let [primary, canary] = watched.sides.each_ref().map(Tally::take);
            // What was told under another generation says nothing of this one.
            let seen = if fresh { Evidence::default() } else { Evidence { primary, canary } };
            if rollout.phase == Phase::Running {
                let all = self.inner.store.add(name, rollout.generation, seen).await?;
                self.look(watched, rollout, all).await?;
            } else if let Phase::Draining { until } = rollout.phase
                && self.inner.clock.utc() >= until
            {
                let retired = |rollout: &mut Rollout| {
                    rollout.phase = Phase::Idle;
                    rollout.reason = format!("{} has drained", rollout.active().other().as_str());
                };
                self.by_itself(watched, rollout, retired).await?;
            }
        }
        Ok(())
    }

    async fn create(&self, watched: &Watched) -> Result<Rollout, RolloutError> {
        let mut rollout = (**watched.rollout.load()).clone();
        (rollout.revision, rollout.plan) = (1, watched.config.plan.clone());
        if self.inner.store.put(&rollout).await? {
            return Ok(rollout);
        }
        let stored = self.inner.store.get(&rollout.name).await?;
        stored.ok_or_else(|| RolloutError::Raced(rollout.name.clone()))
    }

    /// Analyses a running canary and takes the next step when it is due.
    async fn look(&self, watched: &Watched, rollout: Rollout, all: Evidence) -> Result<(), RolloutError> {
        let mut analysis = rollout.analysis;
        let verdict = analysis.look(&watched.config.analysis, all.primary, all.canary);
        let step = rollout.plan.steps.get(rollout.step).copied();
        let now = self.inner.clock.utc();
        let due = step.is_some_and(|step| {
            rollout.since.saturating_add(step.hold) <= now && all.canary.requests >= step.min_requests
        });
        let worse = match verdict {
            Verdict::NoWorse => None,
            Verdict::FailsMore => Some("the canary fails more often"),
            Verdict::SlowerMore => Some("the canary is slow more often"),
            Verdict::OverBudget => Some("the canary has used up its error budget"),
        };
        if worse.is_none() && !due && analysis == rollout.analysis {
            return Ok(());
        }
        self.by_itself(watched, rollout, move |rollout| {
            rollout.analysis = analysis;
            if let Some(why) = worse {
                let Counts { requests, failed, slow } = all.canary;
                rollout.to(0, Phase::RolledBack, now);
                rollout.reason =
                    format!("{why}: {failed} failed and {slow} were slow of {requests} requests");
            } else if due {
                rollout.advance(now);
                "the step was good".clone_into(&mut rollout.reason);
            }
        })
        .await
    }

    /// A change nobody ordered; that another process has made it already is as good.
    async fn by_itself(
        &self,
        watched: &Watched,
        before: Rollout,
        change: impl FnOnce(&mut Rollout),
    ) -> Result<(), RolloutError> {
        let mut after = before.clone();
        change(&mut after);
        after.revision += 1;
        if self.inner.store.put(&after).await? {
            watched.follow(&before, &after);
            if (before.phase, before.weight, before.step) != (after.phase, after.weight, after.step) {
                (self.inner.observe)(&Change { before, after, by_itself: true });
            }
        }
        Ok(())
    }

    /// Does what an operator orders, and says how the rollout stands then.
    ///
    /// # Errors
    /// [`RolloutError::Unknown`], [`RolloutError::Refused`] when it is not at a point where that can be done,
    /// [`RolloutError::Raced`], [`RolloutError::Store`].
    pub async fn order(&self, name: &str, order: &Order, reason: &str) -> Result<Rollout, RolloutError> {
        let watched = self.watched(name)?;
        for _ in 0..TRIES {
            let before = match self.inner.store.get(name).await? {
                Some(stored) => stored,
                None => self.create(watched).await?,
            };
            let mut after = before.clone();
            if *order == Order::Start {
                after.plan = watched.config.plan.clone();
            }
            after.obey(order, self.inner.clock.utc())?;
            after.reason = if reason.is_empty() {
                order.as_str().to_owned()
            } else {
                format!("{}: {reason}", order.as_str())
            };
            after.revision += 1;
            if self.inner.store.put(&after).await? {
                watched.follow(&before, &after);
                (self.inner.observe)(&Change { before, after: after.clone(), by_itself: false });
                return Ok(after);
            }
        }
        Err(RolloutError::Raced(name.to_owned()))
    }

    /// Every rollout as the store has it.
    ///
    /// # Errors
    /// [`RolloutError::Store`].
    pub async fn list(&self) -> Result<Vec<Rollout>, RolloutError> {
        let mut all = self.inner.store.list().await?;
        all.retain(|rollout| self.inner.watched.contains_key(&rollout.name));
        Ok(all)
    }
}

impl Rollout {
    /// To another share; evidence begins anew.
    fn to(&mut self, weight: u32, phase: Phase, now: Timestamp) {
        (self.weight, self.phase, self.since) = (weight, phase, now);
        self.analysis = Analysis::default();
        self.generation += 1;
    }

    /// Blue-green: everything to a side, while the other one finishes what it has begun.
    fn all_to(&mut self, side: Side, now: Timestamp) {
        let until = now.saturating_add(self.plan.drain);
        self.to(if side == Side::Canary { WHOLE } else { 0 }, Phase::Draining { until }, now);
    }

    /// To the first step with a larger share than now, whatever step it is at.
    fn advance(&mut self, now: Timestamp) {
        let larger = self.plan.steps.iter().position(|step| step.weight > self.weight);
        self.step = larger.unwrap_or(self.plan.steps.len());
        match self.plan.steps.get(self.step).map(|step| step.weight) {
            Some(weight) if weight < WHOLE => self.to(weight, Phase::Running, now),
            _ => self.to(WHOLE, Phase::Promoted, now),
        }
    }

    fn obey(&mut self, order: &Order, now: Timestamp) -> Result<(), RolloutError> {
        let refused = |why: &str| {
            Err(RolloutError::Refused { name: self.name.clone(), order: order.as_str(), why: why.to_owned() })
        };
        match order {
            Order::Pin(subject, side) => {
                if self.pins.len() >= 10_000 && !self.pins.contains_key(subject) {
                    return refused("10,000 subjects are pinned already");
                }
                self.pins.insert(subject.clone(), *side);
                return Ok(());
            }
            Order::Unpin(subject) => {
                if self.pins.remove(subject).is_none() {
                    return refused("the subject is not pinned");
                }
                return Ok(());
            }
            _ => {}
        }
        let canary = self.kind == Kind::Canary;
        match (order, self.phase) {
            (
                Order::Start
                | Order::Pause
                | Order::Resume
                | Order::Advance
                | Order::Promote
                | Order::Weight(_),
                _,
            ) if !canary => refused("it goes by blue-green"),
            (Order::Prepare | Order::Verify | Order::Switch, _) if canary => refused("it goes by canary"),
            (Order::Start, Phase::Idle | Phase::Promoted | Phase::RolledBack) => {
                self.step = 0;
                let weight = self.plan.steps.first().map_or(WHOLE, |step| step.weight);
                self.to(weight, Phase::Running, now);
                Ok(())
            }
            (Order::Pause, Phase::Running) => {
                self.phase = Phase::Paused;
                Ok(())
            }
            (Order::Resume, Phase::Paused) => {
                self.to(self.weight, Phase::Running, now);
                Ok(())
            }
            (Order::Advance, Phase::Running | Phase::Paused) => {
                self.advance(now);
                Ok(())
            }
            (Order::Promote, Phase::Running | Phase::Paused) => {
                self.to(WHOLE, Phase::Promoted, now);
                Ok(())
            }
            (Order::Rollback, Phase::Running | Phase::Paused | Phase::Promoted) if canary => {
                self.to(0, Phase::RolledBack, now);
                Ok(())
            }
            (Order::Weight(weight), _) => {
                if *weight > WHOLE {
                    return refused("a weight is at most 10000");
                }
                // Resumed, it is held as long as the last step with no larger share; below the first, as that one.
                let reached = self.plan.steps.iter().rposition(|step| step.weight <= *weight);
                self.step = reached.unwrap_or(0);
                self.to(*weight, Phase::Paused, now);
                Ok(())
            }
            (Order::Prepare, Phase::Idle) => {
                // What becomes of the other side now is no longer what was left.
                self.left = None;
                self.phase = Phase::Prepared { side: self.active().other(), verified: false };
                self.since = now;
                Ok(())
            }
            (Order::Verify, Phase::Prepared { side, .. }) => {
                self.phase = Phase::Prepared { side, verified: true };
                Ok(())
            }
            (Order::Switch, Phase::Prepared { side, verified: true }) => {
                self.left = Some(side.other());
                self.all_to(side, now);
                Ok(())
            }
            (Order::Switch, Phase::Prepared { .. }) => refused("the side has not been verified"),
            (Order::Rollback, Phase::Prepared { .. }) => {
                self.to(self.weight, Phase::Idle, now);
                Ok(())
            }
            (Order::Rollback, Phase::Draining { .. } | Phase::Idle) if !canary => match self.left.take() {
                Some(left) => {
                    self.all_to(left, now);
                    Ok(())
                }
                // Going back from going back would end where nobody wants to be.
                None => refused("there is no side to go back to"),
            },
            (_, phase) => refused(&format!("it is {phase:?}")),
        }
    }
}
