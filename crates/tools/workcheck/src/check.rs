//! The judge: from what all processes saw and what the database kept, which promises were broken. A pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Event, Record};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Promise {
    /// A job whose enqueueing was acknowledged exists.
    NothingLost,
    /// A job whose enqueueing was undone does not exist and never runs; none exists twice.
    NothingMadeUp,
    /// Every job ends, once faults have ended.
    EverythingEnds,
    /// At most one report ends a job.
    OneEnding,
    /// A report under a lease is refused once the job has been claimed under a later one.
    StaleRefused,
    /// A handler begins at most once under one lease.
    OneRunPerLease,
    /// A completed job's handler ended well, under the lease its result is from.
    CompletedWasRun,
    /// A job dies only when its attempts are used up, and is cancelled only when somebody asked.
    NoFalseEnding,
    /// No two valid leases hold one job.
    OneLeasePerJob,
    /// No more jobs of one key are under valid leases at once than its limit allows.
    LimitsHold,
    /// First attempts at jobs of one key begin in the order of their enqueueing, where one call returned before the next.
    FirstInFirstOut,
    /// No second job of a unique key is accepted while its window is open.
    UniqueHolds,
    /// Nothing is left over: leases, slots, cancels, keys.
    NothingLeaks,
    /// A worker told to stop does.
    WorkersStop,
    /// What a message or a step causes happens once.
    EffectOnce,
    /// Effects of one key come in the order in which their messages were added.
    OrderPerKey,
    /// What cannot be sent is parked, and nothing else is.
    OnlyPoisonParks,
    /// The lag that was measured is gone once everything is sent.
    LagRecovers,
    /// What was done is undone in reverse order, or not at all when all went well.
    UndoneInReverse,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub about: String,
}

impl Violation {
    pub(crate) fn new(promise: Promise, about: String) -> Self {
        Self { promise, about }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.about)
    }
}

/// What was promised about kinds of job.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// How many of one key may run at once, by kind.
    pub limits: BTreeMap<String, usize>,
    /// For how long a unique key stays taken, in microseconds, by kind; until the job ends for other kinds.
    pub windows: BTreeMap<String, i64>,
}

/// How much earlier than its window's end a key may be seen free: it is taken a statement before the job is written.
const STATEMENT: i64 = 500_000;

/// An attempt as the database keeps it. Times are the database's, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts the job's claims from 1.
    pub number: i64,
    /// When its lease began.
    pub began: i64,
    /// When its lease ended.
    pub ended: i64,
}

/// A job as the database keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The number in its payload.
    pub job: u64,
    /// Its kind.
    pub kind: String,
    /// Its key with a limit.
    pub key: Option<String>,
    /// Its unique key.
    pub unique: Option<String>,
    /// Whether it waited for a time of its own.
    pub scheduled: bool,
    /// How it ended: `completed`, `dead`, `cancelled`; `None` when it has not.
    pub state: Option<String>,
    /// When it was enqueued.
    pub created: i64,
    /// When it ended.
    pub finished: i64,
    /// Attempts used and allowed.
    pub attempts_used: (i64, i64),
    /// The lease its result is from.
    pub result_fence: Option<u64>,
    /// Its attempts.
    pub attempts: Vec<Attempt>,
    /// What the last attempt that was written down failed with.
    pub error: String,
}

/// What the database keeps at the end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Every job.
    pub jobs: Vec<Kept>,
    /// What should be zero, by name.
    pub left: BTreeMap<String, i64>,
    /// Workers that did not stop when told to.
    pub stuck: Vec<String>,
}

/// Judges a whole run.
pub fn check(history: &[Record], ending: &Ending, rules: &Rules) -> Vec<Violation> {
    let mut judge = Judge { history, ending, rules, found: Vec::new() };
    judge.existence();
    judge.endings();
    judge.leases();
    judge.intervals();
    judge.order();
    judge.unique();
    for (name, count) in ending.left.iter().filter(|(_, count)| **count != 0) {
        judge.broke(Promise::NothingLeaks, format!("{count} {name} left"));
    }
    for worker in &ending.stuck {
        judge.broke(Promise::WorkersStop, format!("{worker} went on"));
    }
    judge.found
}

struct Judge<'a> {
    history: &'a [Record],
    ending: &'a Ending,
    rules: &'a Rules,
    found: Vec<Violation>,
}

impl<'a> Judge<'a> {
    fn broke(&mut self, promise: Promise, about: String) {
        self.found.push(Violation { promise, about });
    }

    fn by_key(&self) -> BTreeMap<(&'a str, &'a str), Vec<&'a Kept>> {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for kept in &self.ending.jobs {
            if let Some(key) = &kept.key {
                keys.entry((kept.kind.as_str(), key.as_str())).or_default().push(kept);
            }
        }
        keys
    }

    fn existence(&mut self) {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for kept in &self.ending.jobs {
            *times.entry(kept.job).or_default() += 1;
        }
        let mut absent = BTreeSet::new();
        for record in self.history {
            match record.event {
                Event::Enqueued { job, .. } if !times.contains_key(&job) => {
                    self.broke(Promise::NothingLost, format!("job {job} was acknowledged and is gone"));
                }
                Event::Undone { job } | Event::Duplicate { job } => {
                    absent.insert(job);
                }
                _ => {}
            }
        }
        for (job, count) in times {
            if count > 1 {
                self.broke(Promise::NothingMadeUp, format!("job {job} exists {count} times"));
            }
            if absent.contains(&job) {
                self.broke(Promise::NothingMadeUp, format!("job {job} exists and was never enqueued"));
            }
        }
        for record in self.history {
            if let Event::Began { job, .. } = record.event
                && absent.contains(&job)
            {
                self.broke(Promise::NothingMadeUp, format!("job {job} ran and was never enqueued"));
            }
        }
    }

    fn endings(&mut self) {
        let mut well = BTreeSet::new();
        for record in self.history {
            if let Event::Ended { job, fence, ok: true } = record.event {
                well.insert((job, fence));
            }
        }
        for kept in &self.ending.jobs {
            let job = kept.job;
            match kept.state.as_deref() {
                None => {
                    self.broke(Promise::EverythingEnds, format!("job {job} ({}) has not ended", kept.kind));
                }
                Some("completed") => {
                    let run = kept.result_fence.is_some_and(|fence| well.contains(&(job, fence)));
                    if !run {
                        let fence = kept.result_fence;
                        self.broke(
                            Promise::CompletedWasRun,
                            format!("job {job} completed by no run under {fence:?}"),
                        );
                    }
                }
                Some("dead") if kept.attempts_used.0 >= kept.attempts_used.1 => {}
                Some(state) => {
                    let ((used, allowed), kind, error) = (kept.attempts_used, &kept.kind, &kept.error);
                    self.broke(
                        Promise::NoFalseEnding,
                        format!("job {job} ({kind}) is {state} after {used} of {allowed} attempts: {error}"),
                    );
                }
            }
        }
    }

    fn leases(&mut self) {
        let mut claims: BTreeMap<u64, Vec<(u64, i64)>> = BTreeMap::new();
        for record in self.history {
            if let Event::Claimed { job, fence } = record.event {
                claims.entry(job).or_default().push((fence, record.at));
            }
        }
        let mut began = BTreeSet::new();
        let mut ended: BTreeMap<u64, u64> = BTreeMap::new();
        for record in self.history {
            match record.event {
                Event::Began { job, fence } if !began.insert((job, fence)) => {
                    self.broke(Promise::OneRunPerLease, format!("job {job} ran twice under lease {fence}"));
                }
                Event::Reported { job, fence, last, accepted: true, called } => {
                    // A claim whose answer was there before the report was made; one answered meanwhile may have come
                    // after what the report did.
                    let later = |(newer, at): &&(u64, i64)| *newer > fence && *at < called;
                    if let Some((newer, _)) = claims.get(&job).and_then(|claims| claims.iter().find(later)) {
                        let about = format!("job {job}: lease {fence} was believed after {newer} had begun");
                        self.broke(Promise::StaleRefused, about);
                    }
                    if last && let Some(before) = ended.insert(job, fence) {
                        let about = format!("job {job} was ended under lease {before} and under {fence}");
                        self.broke(Promise::OneEnding, about);
                    }
                }
                _ => {}
            }
        }
        for kept in &self.ending.jobs {
            let newest =
                claims.get(&kept.job).and_then(|claims| claims.iter().map(|(fence, _)| *fence).max());
            if let (Some(fence), Some(newest)) = (kept.result_fence, newest)
                && fence < newest
            {
                let about = format!("job {}: the result is lease {fence}'s, the last was {newest}", kept.job);
                self.broke(Promise::StaleRefused, about);
            }
        }
    }

    /// An attempt counts while its lease is valid; what a process does after that is another's time.
    fn intervals(&mut self) {
        for kept in &self.ending.jobs {
            let held: Vec<_> = kept.attempts.iter().map(|attempt| (attempt.began, attempt.ended)).collect();
            if most_at_once(&held) > 1 {
                let about = format!("job {} was under two leases at once: {:?}", kept.job, kept.attempts);
                self.broke(Promise::OneLeasePerJob, about);
            }
        }
        for ((kind, key), jobs) in self.by_key() {
            let Some(limit) = self.rules.limits.get(kind) else { continue };
            let attempts = jobs.iter().flat_map(|kept| &kept.attempts);
            let held: Vec<_> = attempts.map(|attempt| (attempt.began, attempt.ended)).collect();
            let most = most_at_once(&held);
            if most > *limit {
                let about = format!("{most} of `{kind}` {key} were running, {limit} may");
                self.broke(Promise::LimitsHold, about);
            }
        }
    }

    fn order(&mut self) {
        let mut calls: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
        for record in self.history {
            if let Event::Enqueued { job, called } = record.event {
                calls.insert(job, (called, record.at));
            }
        }
        for ((kind, key), jobs) in self.by_key() {
            let mut begun: Vec<(i64, i64, i64, u64)> = jobs
                .iter()
                .filter(|kept| !kept.scheduled)
                .filter_map(|kept| {
                    let (called, returned) = calls.get(&kept.job)?;
                    let first = kept.attempts.iter().find(|attempt| attempt.number == 1)?;
                    Some((first.began, *called, *returned, kept.job))
                })
                .collect();
            begun.sort_unstable();
            // Going back in time: whoever began later must not have been there before an earlier one was called.
            let mut soonest: Option<(i64, i64, u64)> = None;
            for (began, called, returned, job) in begun.into_iter().rev() {
                if let Some((there, late, other)) = soonest
                    && there < called
                    && late > began
                {
                    let about =
                        format!("`{kind}` {key}: job {job} began before {other}, which was there first");
                    self.broke(Promise::FirstInFirstOut, about);
                }
                if soonest.is_none_or(|(there, _, _)| returned < there) {
                    soonest = Some((returned, began, job));
                }
            }
        }
    }

    fn unique(&mut self) {
        let mut keys: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
        for kept in &self.ending.jobs {
            if let Some(key) = &kept.unique {
                keys.entry(key).or_default().push(kept);
            }
        }
        for (key, mut jobs) in keys {
            jobs.sort_unstable_by_key(|kept| kept.created);
            for pair in jobs.windows(2) {
                let [first, second] = pair else { continue };
                let free = match self.rules.windows.get(&first.kind) {
                    Some(window) => first.created + window - STATEMENT,
                    None if first.state.is_none() => i64::MAX,
                    None => first.finished,
                };
                if second.created < free {
                    let about = format!("{key}: job {} was accepted while {} held it", second.job, first.job);
                    self.broke(Promise::UniqueHolds, about);
                }
            }
        }
    }
}

/// How many of these half-open intervals share a moment at most.
fn most_at_once(intervals: &[(i64, i64)]) -> usize {
    let mut edges = Vec::with_capacity(intervals.len() * 2);
    for (began, ended) in intervals {
        edges.push((*began, 1));
        edges.push((*ended, -1));
    }
    // At one moment, what ends makes room first.
    edges.sort_unstable();
    let (mut now, mut most) = (0_i64, 0_i64);
    for (_, step) in edges {
        now += step;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or_default()
}
