//! Any history of calls means the same to every store: memory is the model, SQLite and Postgres are held to it.
#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use runtime_db::{Database, DbConfig};
use runtime_jobs::store::{ClaimRequest, Filter, Insert, JobStore, Origin, Report, Retention, Verdict};
use runtime_jobs::{
    BatchId, Failure, JobId, JobState, Limit, MemoryStore, NewJob, SqlStore, Trigger, migrations,
};
use runtime_kernel::{Clock, Context, ManualClock, Name, Source, TenantContext};
use runtime_migrate::{MigrateOptions, Migrator};
use serde_json::json;

const KINDS: [&str; 2] = ["a", "b"];
const QUEUES: [&str; 2] = ["default", "other"];
const WORKERS: [&str; 2] = ["w0", "w1"];
const LEASE: Duration = Duration::from_secs(30);

/// A call. Jobs and claims are picked among those there have been.
#[derive(Clone, Debug)]
enum Call {
    Insert {
        kind: usize,
        queue: usize,
        priority: i16,
        delay: u64,
        attempts: u32,
        unique: Option<(u8, bool)>,
        key: Option<u8>,
        tenant: bool,
        tie: Tie,
    },
    /// Opens a batch of so many members, with a callback of each trigger.
    Batch {
        members: u32,
        tenant: bool,
    },
    CancelBatch {
        batch: Index,
        tenant: bool,
    },
    Claim {
        worker: usize,
        max: u32,
    },
    Report {
        claim: Index,
        verdict: u8,
    },
    Heartbeat {
        worker: usize,
    },
    Rescue {
        max: u32,
    },
    Cancel {
        job: Index,
        tenant: bool,
    },
    Redrive {
        job: Option<Index>,
        kind: Option<usize>,
        limit: u32,
    },
    Prune {
        max: u32,
    },
    Elapse {
        seconds: u64,
    },
}

/// What a job is tied to, among what there has been.
#[derive(Clone, Debug)]
enum Tie {
    Nothing,
    After(Vec<Index>, usize),
    Joins(Index),
    AfterBatch(Index, usize),
}

const TRIGGERS: [Trigger; 4] = [Trigger::Completed, Trigger::Eventually, Trigger::Ended, Trigger::Failed];

fn tie() -> impl Strategy<Value = Tie> {
    prop_oneof![
        4 => Just(Tie::Nothing),
        4 => (prop::collection::vec(any::<Index>(), 1..4), 0..4_usize).prop_map(|(jobs, rule)| Tie::After(jobs, rule)),
        1 => any::<Index>().prop_map(Tie::Joins),
        1 => (any::<Index>(), 0..4_usize).prop_map(|(batch, rule)| Tie::AfterBatch(batch, rule)),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let unique = proptest::option::of((0..2_u8, any::<bool>()));
    prop_oneof![
        5 => ((0..2_usize, 0..2_usize, -1..2_i16, 0..3_u64), (1..4_u32, unique, proptest::option::of(0..2_u8), any::<bool>()), tie()).prop_map(
            |((kind, queue, priority, delay), (attempts, unique, key, tenant), tie)| Call::Insert {
                kind, queue, priority, delay: delay * 20, attempts, unique, key, tenant, tie
            }
        ),
        1 => (0..4_u32, any::<bool>()).prop_map(|(members, tenant)| Call::Batch { members, tenant }),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(batch, tenant)| Call::CancelBatch { batch, tenant }),
        5 => (0..2_usize, 1..4_u32).prop_map(|(worker, max)| Call::Claim { worker, max: max * max * max }),
        5 => (any::<Index>(), 0..6_u8).prop_map(|(claim, verdict)| Call::Report { claim, verdict }),
        2 => (0..2_usize).prop_map(|worker| Call::Heartbeat { worker }),
        2 => (1..4_u32).prop_map(|max| Call::Rescue { max }),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(job, tenant)| Call::Cancel { job, tenant }),
        2 => (proptest::option::of(any::<Index>()), proptest::option::of(0..2_usize), 1..3_u32)
            .prop_map(|(job, kind, limit)| Call::Redrive { job, kind, limit }),
        1 => (1..4_u32).prop_map(|max| Call::Prune { max }),
        3 => (1..40_u64).prop_map(|seconds| Call::Elapse { seconds }),
    ]
}

struct Both {
    clock: ManualClock,
    model: MemoryStore,
    store: SqlStore,
    inserts: Vec<Insert>,
    claims: Vec<(JobId, u64, usize)>,
    batches: Vec<BatchId>,
}

/// Makes the same call of both and compares the answers, errors by their text.
macro_rules! same {
    ($both:expr, |$store:ident| $call:expr) => {{
        let expected = {
            let $store = &$both.model;
            $call.await.map_err(|error| error.to_string())
        };
        let found = {
            let $store = &$both.store;
            $call.await.map_err(|error| error.to_string())
        };
        prop_assert_eq!(&found, &expected, "{}", stringify!($call));
        expected
    }};
}

fn origin(clock: &ManualClock, tenant: bool) -> Origin {
    let context = Context::new(Source::Internal, clock);
    if !tenant {
        return Origin::of(&context.carry(clock)).unwrap();
    }
    let name = |text| Name::new(text).unwrap();
    let context = context.with_tenant(TenantContext::tenant(name("main"), name("acme")));
    Origin::of(&context.carry(clock)).unwrap()
}

impl Both {
    fn new(db: Database, clock: ManualClock) -> Self {
        let model = MemoryStore::new(Arc::new(clock.clone()));
        let store = SqlStore::new(db).on_this_clock();
        Self { clock, model, store, inserts: Vec::new(), claims: Vec::new(), batches: Vec::new() }
    }

    async fn run(mut self, calls: Vec<Call>) -> Result<(), TestCaseError> {
        for (n, call) in calls.into_iter().enumerate() {
            self.make(call).await?;
            // Every answer is compared; everything that can be seen, only now and then, for it is much.
            if n % 10 == 9 {
                self.compare().await?;
            }
        }
        self.compare().await
    }

    fn picked(&self, index: Index) -> Option<JobId> {
        (!self.inserts.is_empty()).then(|| index.get(&self.inserts).id)
    }

    fn tied(&self, job: NewJob, tie: Tie) -> NewJob {
        match tie {
            Tie::After(jobs, rule) => {
                job.after(jobs.into_iter().filter_map(|job| self.picked(job))).trigger(TRIGGERS[rule])
            }
            Tie::Joins(batch) if !self.batches.is_empty() => job.in_batch(*batch.get(&self.batches)),
            Tie::AfterBatch(batch, rule) if !self.batches.is_empty() => {
                job.after_batch(*batch.get(&self.batches)).trigger(TRIGGERS[rule])
            }
            _ => job,
        }
    }

    async fn open(&mut self, members: u32, tenant: bool) -> Result<(), TestCaseError> {
        let (batch, origin) = (BatchId::new(&self.clock), origin(&self.clock, tenant));
        let members = (0..members).map(|_| NewJob::new(KINDS[0], json!("member")).in_batch(batch));
        let callbacks =
            TRIGGERS.map(|rule| NewJob::new(KINDS[1], json!("call")).after_batch(batch).trigger(rule));
        let inserts: Vec<Insert> = members
            .chain(callbacks)
            .map(|job| Insert { id: JobId::new(&self.clock), job, origin: origin.clone() })
            .collect();
        let _ = same!(self, |store| store.insert_batch(batch, origin.clone(), inserts.clone()));
        self.inserts.extend(inserts);
        self.batches.push(batch);
        Ok(())
    }

    async fn make(&mut self, call: Call) -> Result<(), TestCaseError> {
        match call {
            Call::Insert { kind, queue, priority, delay, attempts, unique, key, tenant, tie } => {
                let at = self.clock.utc().checked_add(Duration::from_secs(delay)).unwrap();
                let mut job = NewJob::new(KINDS[kind], json!({ "n": delay })).queue(QUEUES[queue]);
                job = job.priority(priority).max_attempts(attempts);
                if delay > 0 {
                    job = job.run_at(at);
                }
                if let Some(key) = key {
                    job = job.key(format!("l{key}"));
                }
                if let Some((key, period)) = unique {
                    job = job.unique(format!("k{key}"));
                    if period {
                        job = job.unique_for(Duration::from_mins(1));
                    }
                }
                let job = self.tied(job, tie);
                let insert = Insert { id: JobId::new(&self.clock), job, origin: origin(&self.clock, tenant) };
                let _ = same!(self, |store| store.insert(vec![insert.clone()]));
                self.inserts.push(insert);
            }
            Call::Batch { members, tenant } => self.open(members, tenant).await?,
            Call::CancelBatch { batch, tenant } => {
                if !self.batches.is_empty() {
                    let (batch, tenant) = (*batch.get(&self.batches), tenant.then_some("main/acme"));
                    let _ = same!(self, |store| store.cancel_batch(batch, tenant, 1000));
                }
            }
            Call::Claim { worker, max } => {
                let request = ClaimRequest {
                    worker: WORKERS[worker].to_owned(),
                    queues: vec![QUEUES[0].to_owned()],
                    kinds: KINDS.map(ToOwned::to_owned).to_vec(),
                    max,
                    lease: LEASE,
                    limits: BTreeMap::from([(KINDS[1].to_owned(), Limit::concurrency(2))]),
                };
                let claimed = same!(self, |store| store.claim(&request)).unwrap();
                self.claims.extend(claimed.iter().map(|claimed| (claimed.id, claimed.fence, worker)));
            }
            Call::Report { claim, verdict } => {
                if !self.claims.is_empty() {
                    let (id, fence, _) = *claim.get(&self.claims);
                    let failure = Failure::new("unavailable", "test.failed", "on purpose");
                    let verdict = match verdict {
                        0 | 1 => Verdict::Completed(json!("done")),
                        2 => Verdict::Retry(Duration::from_secs(10), failure),
                        3 => Verdict::Dead(failure),
                        4 => Verdict::Cancelled,
                        _ => Verdict::Released(Duration::ZERO),
                    };
                    let report = Report { id, fence, verdict };
                    let _ = same!(self, |store| store.report(vec![report.clone()]));
                }
            }
            Call::Heartbeat { worker } => {
                let mine = self.claims.iter().filter(|(_, _, holder)| *holder == worker);
                let held: Vec<u64> = mine.map(|(_, fence, _)| *fence).collect();
                let kinds = [KINDS[worker].to_owned()];
                let sorted = |mut pulse: runtime_jobs::store::Pulse| {
                    pulse.held.sort_unstable();
                    pulse.cancel.sort_unstable();
                    pulse
                };
                let expected = self.model.heartbeat(WORKERS[worker], &kinds, &held, LEASE).await.unwrap();
                let found = self.store.heartbeat(WORKERS[worker], &kinds, &held, LEASE).await.unwrap();
                prop_assert_eq!(sorted(found), sorted(expected), "heartbeat");
            }
            Call::Rescue { max } => {
                let _ = same!(self, |store| store.rescue(max));
            }
            Call::Cancel { job, tenant } => {
                if let Some(id) = self.picked(job) {
                    let tenant = tenant.then_some("main/acme");
                    let _ = same!(self, |store| store.cancel(id, tenant));
                }
            }
            Call::Redrive { job, kind, limit } => {
                let id = job.and_then(|job| self.picked(job));
                let kind = kind.map(|kind| KINDS[kind].to_owned());
                let filter = Filter { kind, limit, ..Filter::default() };
                let _ = same!(self, |store| store.redrive(id, &filter));
            }
            Call::Prune { max } => {
                let keep = |seconds| Some(Duration::from_secs(seconds));
                let retention = Retention { completed: keep(30), dead: keep(60), cancelled: None };
                let _ = same!(self, |store| store.prune(&retention, max));
            }
            Call::Elapse { seconds } => self.clock.advance(Duration::from_secs(seconds)),
        }
        Ok(())
    }

    /// Everything that can be seen of both.
    async fn compare(&self) -> Result<(), TestCaseError> {
        for insert in &self.inserts {
            let _ = same!(self, |store| store.get(insert.id, None));
            let _ = same!(self, |store| store.get(insert.id, Some("main/acme")));
            let _ = same!(self, |store| store.links(insert.id));
        }
        for batch in &self.batches {
            let _ = same!(self, |store| store.batch(*batch, None));
        }
        for state in JobState::ALL.into_iter().map(Some).chain([None]) {
            let filter = Filter { state, limit: 100, ..Filter::default() };
            let _ = same!(self, |store| store.list(&filter));
        }
        let _ = same!(self, |store| store.stats(Duration::from_mins(1)));
        Ok(())
    }
}

async fn open(url: &str, clock: &ManualClock) -> Database {
    let db = Database::connect(&DbConfig::at(url), Arc::new(clock.clone())).await.unwrap();
    let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
    migrator.run().await.unwrap();
    db
}

fn histories(cases: u32, run: impl Fn(Vec<Call>) -> Result<(), TestCaseError>) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&prop::collection::vec(call(), 1..60), run).unwrap();
}

#[test]
fn every_history_means_the_same_to_memory_and_sqlite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    histories(96, |calls| {
        runtime.block_on(async {
            let clock = ManualClock::new();
            Both::new(open("sqlite::memory:", &clock).await, clock).run(calls).await
        })
    });
}

#[cfg(feature = "postgres")]
#[test]
fn every_history_means_the_same_to_memory_and_postgres() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (clock, database) =
        (ManualClock::new(), runtime.block_on(runtime_testkit::postgres::database()).unwrap());
    let db = runtime.block_on(open(database.url(), &clock));
    histories(32, |calls| {
        runtime.block_on(async {
            let tables = "ready, later, keyed, awaiting, groups, members, waits, slots, pauses, leases, progress, cancels, finished, attempts, unique, workers";
            let tables = tables.split(", ").map(|table| format!("runtime_jobs_{table}")).collect::<Vec<_>>().join(", ");
            let empty = format!("TRUNCATE {tables} RESTART IDENTITY");
            let pool = db.postgres().unwrap();
            runtime_db::sqlx::query(runtime_db::sqlx::AssertSqlSafe(empty)).execute(pool).await.unwrap();
            Both::new(db.clone(), clock.clone()).run(calls).await
        })
    });
}
