//! The laws every store keeps, stated once and run on each.

mod batches;
mod keys;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Carried, Clock, Context, Name, Source, SystemClock, TenantContext};
use serde_json::{Value, json};

use crate::error::JobsError;

use crate::job::{AttemptOutcome, Failure, Job, JobId, JobState, NewJob};
use crate::store::{
    AGEING, ClaimRequest, Claimed, Filter, Insert, JobStore, Origin, Probe, Progress, Receipt, Report,
    Retention, Verdict,
};

/// A store under test, and a way to let its time pass.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The store, empty at first.
    fn store(&self) -> Arc<dyn JobStore>;
    /// Lets so much of the store's time pass.
    async fn elapse(&self, by: Duration);
}

const LEASE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_mins(1);

fn carried(tenant: Option<&str>) -> Carried {
    let context = Context::new(Source::Internal, &SystemClock);
    let Some(tenant) = tenant.and_then(|tenant| Name::new(tenant).ok()) else {
        return context.carry(&SystemClock);
    };
    let Ok(realm) = Name::new("main") else { return context.carry(&SystemClock) };
    context.with_tenant(TenantContext::tenant(realm, tenant)).carry(&SystemClock)
}

fn origin(tenant: Option<&str>) -> Origin {
    Origin::of(&carried(tenant)).expect("a context is JSON")
}

fn insert(job: NewJob) -> Insert {
    Insert { id: JobId::new(&SystemClock), job, origin: origin(None) }
}

fn job(kind: &str) -> NewJob {
    NewJob::new(kind, json!({ "n": 1 }))
}

/// A job of a far future.
fn later_job() -> NewJob {
    let later = SystemClock.utc().checked_add(Duration::from_hours(24 * 365 * 100)).expect("a time");
    job("a").run_at(later)
}

fn request(worker: &str, max: u32) -> ClaimRequest {
    ClaimRequest {
        worker: worker.to_owned(),
        queues: vec!["default".to_owned()],
        kinds: vec!["a".to_owned()],
        max,
        lease: LEASE,
        limits: BTreeMap::new(),
    }
}

async fn add(store: &dyn JobStore, job: NewJob) -> JobId {
    let done = store.insert(vec![insert(job)]).await.expect("inserted");
    done.first().expect("one answer").id
}

async fn claim(store: &dyn JobStore, worker: &str) -> Option<Claimed> {
    store.claim(&request(worker, 1)).await.expect("claimed").pop()
}

async fn report(store: &dyn JobStore, claimed: &Claimed, verdict: Verdict) -> Receipt {
    let report = Report { id: claimed.id, fence: claimed.fence, verdict };
    *store.report(vec![report]).await.expect("reported").first().expect("one answer")
}

async fn get(store: &dyn JobStore, id: JobId) -> Job {
    store.get(id, None).await.expect("read").expect("the job is there")
}

fn failure() -> Failure {
    Failure::new("unavailable", "test.failed", "on purpose")
}

/// Runs every law, each on a store of its own.
pub async fn all<H: Harness>(make: impl AsyncFn() -> H) {
    one_of_many_racing_claimers_gets_a_job(&make().await).await;
    jobs_come_by_priority_then_time_and_wait_for_theirs(&make().await).await;
    a_kind_nobody_handles_waits_and_is_reported(&make().await).await;
    a_stale_report_is_refused_and_changes_nothing(&make().await).await;
    an_expired_lease_takes_no_report(&make().await).await;
    a_heartbeat_extends_known_claims_only(&make().await).await;
    a_lost_job_uses_up_its_attempts(&make().await).await;
    a_retry_waits_and_a_release_costs_no_attempt(&make().await).await;
    a_unique_key_is_held_until_its_job_ends_or_its_period_is_over(&make().await).await;
    a_unique_key_may_be_given_up_when_the_first_attempt_begins(&make().await).await;
    a_probe_tells_what_a_claim_would_find(&make().await).await;
    a_lease_holds_for_each_of_its_jobs(&make().await).await;
    a_long_wait_outweighs_a_higher_priority(&make().await).await;
    progress_is_kept_under_the_lease_and_outlives_it(&make().await).await;
    keys::all(&make).await;
    links::all(&make).await;
    batches::all(&make).await;
    a_cancel_stops_waiting_jobs_and_asks_running_ones(&make().await).await;
    a_dead_job_is_redriven_with_fresh_attempts(&make().await).await;
    tenants_do_not_see_each_others_jobs(&make().await).await;
    pruning_forgets_only_what_is_finished_and_old(&make().await).await;
    pages_follow_each_other(&make().await).await;
}

async fn one_of_many_racing_claimers_gets_a_job<H: Harness>(harness: &H) {
    let store = harness.store();
    let jobs = (0..64).map(|_| insert(job("a"))).collect();
    let added = store.insert(jobs).await.expect("inserted").len();
    let racers = (0..16).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(&request(&format!("w{n}"), 3)).await.expect("claimed");
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|claimed| claimed.id));
            }
        })
    });
    let mut all = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        all.extend(racer.await.expect("a racer ends"));
    }
    let claims = all.len();
    all.sort();
    all.dedup();
    assert_eq!((claims, all.len()), (added, added), "each job is claimed once");
}

async fn jobs_come_by_priority_then_time_and_wait_for_theirs<H: Harness>(harness: &H) {
    let store = harness.store();
    let future = add(&*store, later_job()).await;
    let second = add(&*store, job("a")).await;
    let third = add(&*store, job("a")).await;
    let first = add(&*store, job("a").priority(-1)).await;
    let order: Vec<JobId> =
        store.claim(&request("w", 10)).await.expect("claimed").iter().map(|c| c.id).collect();
    assert_eq!(order, [first, second, third]);
    assert_eq!(get(&*store, future).await.state, JobState::Scheduled);
}

async fn a_kind_nobody_handles_waits_and_is_reported<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("nobody")).await;
    assert!(claim(&*store, "w").await.is_none());
    assert_eq!(get(&*store, id).await.state, JobState::Available);
    assert_eq!(store.stats(MINUTE).await.expect("counted").unhandled, ["nobody"]);
    store.heartbeat("w", &["nobody".to_owned()], &[], LEASE).await.expect("beaten");
    assert!(store.stats(MINUTE).await.expect("counted").unhandled.is_empty());
    harness.elapse(MINUTE * 2).await;
    assert_eq!(store.stats(MINUTE).await.expect("counted").unhandled, ["nobody"], "that worker has gone");
}

async fn a_stale_report_is_refused_and_changes_nothing<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("a")).await;
    let slow = claim(&*store, "slow").await.expect("a job");
    harness.elapse(MINUTE).await;
    assert_eq!(store.rescue(10).await.expect("rescued").returned, 1);
    let quick = claim(&*store, "quick").await.expect("the same job");
    assert!(quick.fence > slow.fence);
    assert_eq!(report(&*store, &slow, Verdict::Completed(json!("slow"))).await, Receipt::Stale);
    assert_eq!(report(&*store, &quick, Verdict::Completed(json!("quick"))).await, Receipt::Accepted);
    let done = get(&*store, id).await;
    assert_eq!(report(&*store, &slow, Verdict::Dead(failure())).await, Receipt::Stale);
    assert_eq!(
        report(&*store, &quick, Verdict::Completed(json!("again"))).await,
        Receipt::Stale,
        "once is enough"
    );
    assert_eq!(get(&*store, id).await, done);
    assert_eq!((done.state, done.result), (JobState::Completed, Some(json!("quick"))));
    let outcomes: Vec<_> = done.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Some(AttemptOutcome::Lost), Some(AttemptOutcome::Completed)]);
}

async fn an_expired_lease_takes_no_report<H: Harness>(harness: &H) {
    let store = harness.store();
    add(&*store, job("a")).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    harness.elapse(MINUTE).await;
    assert_eq!(report(&*store, &claimed, Verdict::Completed(json!(1))).await, Receipt::Stale);
    let pulse = store.heartbeat("w", &[], &[claimed.fence], LEASE).await.expect("beaten");
    assert!(pulse.held.is_empty(), "nor does it come back to life");
}

async fn a_heartbeat_extends_known_claims_only<H: Harness>(harness: &H) {
    let store = harness.store();
    add(&*store, job("a")).await;
    add(&*store, job("a")).await;
    let known = claim(&*store, "w").await.expect("a job");
    let unknown = claim(&*store, "w").await.expect("another, whose answer was lost on its way");
    for _ in 0..4 {
        harness.elapse(LEASE / 2).await;
        let pulse = store.heartbeat("w", &[], &[known.fence], LEASE).await.expect("beaten");
        assert_eq!(pulse.held, [known.fence]);
    }
    assert_eq!(store.rescue(10).await.expect("rescued").returned, 1);
    assert_eq!(get(&*store, known.id).await.state, JobState::Running);
    assert_eq!(get(&*store, unknown.id).await.state, JobState::Available);
}

async fn a_lost_job_uses_up_its_attempts<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("a").max_attempts(2)).await;
    for _ in 0..2 {
        assert!(claim(&*store, "w").await.is_some());
        harness.elapse(MINUTE).await;
        store.rescue(10).await.expect("rescued");
    }
    let dead = get(&*store, id).await;
    assert_eq!((dead.state, dead.attempt), (JobState::Dead, 2));
    assert!(dead.attempts.iter().all(|attempt| attempt.outcome == Some(AttemptOutcome::Lost)));
}

async fn a_retry_waits_and_a_release_costs_no_attempt<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("a")).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    assert_eq!(report(&*store, &claimed, Verdict::Retry(MINUTE, failure())).await, Receipt::Accepted);
    assert!(claim(&*store, "w").await.is_none(), "not before its time");
    assert_eq!(get(&*store, id).await.state, JobState::Scheduled);
    harness.elapse(MINUTE * 2).await;
    let claimed = claim(&*store, "w").await.expect("its time has come");
    assert_eq!(claimed.attempt, 2);
    report(&*store, &claimed, Verdict::Released(Duration::ZERO)).await;
    let again = claim(&*store, "w").await.expect("given back");
    assert_eq!(again.attempt, 2);
    report(&*store, &again, Verdict::Dead(failure())).await;
    let dead = get(&*store, id).await;
    assert_eq!(dead.attempts.len(), 3);
    assert_eq!(dead.attempts.first().and_then(|attempt| attempt.error.clone()), Some(failure()));
}

async fn a_unique_key_is_held_until_its_job_ends_or_its_period_is_over<H: Harness>(harness: &H) {
    let store = harness.store();
    let once = || job("a").unique("key");
    let first = add(&*store, once()).await;
    assert_eq!(add(&*store, once()).await, first, "taken");
    let other = Insert { origin: origin(Some("acme")), ..insert(once()) };
    let done = store.insert(vec![other]).await.expect("inserted");
    assert!(done.iter().all(|done| !done.duplicate), "another tenant's key is another key");
    let claimed = claim(&*store, "w").await.expect("a job");
    report(&*store, &claimed, Verdict::Dead(failure())).await;
    let second = add(&*store, once()).await;
    assert_ne!(second, first, "free again");
    let filter = Filter { limit: 10, ..Filter::default() };
    assert_eq!(store.redrive(Some(first), &filter).await.expect("asked"), 0, "the key is another's by now");

    let daily = || job("b").unique("key").unique_for(Duration::from_hours(24));
    let today = add(&*store, daily()).await;
    store.cancel(today, None).await.expect("cancelled");
    assert_eq!(add(&*store, daily()).await, today, "taken for the period");
    harness.elapse(Duration::from_hours(25)).await;
    assert_ne!(add(&*store, daily()).await, today);
}

async fn a_unique_key_may_be_given_up_when_the_first_attempt_begins<H: Harness>(harness: &H) {
    let store = harness.store();
    let once = || job("a").unique("key").unique_until_started();
    let first = add(&*store, once()).await;
    assert_eq!(add(&*store, once()).await, first, "taken while it waits");
    let claimed = claim(&*store, "w").await.expect("a job");
    let second = add(&*store, once()).await;
    assert_ne!(second, first, "free while it runs");
    report(&*store, &claimed, Verdict::Retry(Duration::ZERO, failure())).await;
    assert_eq!(add(&*store, once()).await, second, "it is the other's now");
    let again = store.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(again.len(), 2);
    let third = add(&*store, once()).await;
    assert!(third != first && third != second, "the other has begun");
    for claimed in &again {
        report(&*store, claimed, Verdict::Dead(failure())).await;
    }
    assert_eq!(add(&*store, once()).await, third, "whoever ends takes no other's key along");
    let held = claim(&*store, "w").await.expect("a job");
    report(&*store, &held, Verdict::Dead(failure())).await;
    let filter = Filter { limit: 10, ..Filter::default() };
    assert_eq!(store.redrive(Some(third), &filter).await.expect("redriven"), 1);
    claim(&*store, "w").await.expect("a job");
    assert_eq!(add(&*store, once()).await, third, "a redriven job keeps it until it ends");
}

async fn a_probe_tells_what_a_claim_would_find<H: Harness>(harness: &H) {
    let store = harness.store();
    assert_eq!(store.probe(&request("w", 1)).await.expect("probed"), Probe::default());
    add(&*store, job("nobody")).await;
    assert!(!store.probe(&request("w", 1)).await.expect("probed").due, "not this worker's");
    add(&*store, job("a")).await;
    assert!(store.probe(&request("w", 1)).await.expect("probed").due);
    let claimed = claim(&*store, "w").await.expect("a job");
    assert!(!store.probe(&request("w", 1)).await.expect("probed").due);
    report(&*store, &claimed, Verdict::Retry(MINUTE, failure())).await;
    let probe = store.probe(&request("w", 1)).await.expect("probed");
    assert!(!probe.due && probe.next.is_some_and(|next| next <= MINUTE && next > MINUTE / 2), "{probe:?}");
    harness.elapse(MINUTE).await;
    assert!(store.probe(&request("w", 1)).await.expect("probed").due);
}

async fn a_lease_holds_for_each_of_its_jobs<H: Harness>(harness: &H) {
    let store = harness.store();
    for _ in 0..20 {
        add(&*store, job("a")).await;
    }
    let claimed = store.claim(&request("w", 20)).await.expect("claimed");
    let fences: BTreeSet<u64> = claimed.iter().map(|claimed| claimed.fence).collect();
    assert_eq!((claimed.len(), fences.len()), (20, 1), "claimed together under one lease");
    // Half end in several batches, in another order than they were claimed in; the rest is lost.
    let reports: Vec<Report> = claimed
        .iter()
        .rev()
        .step_by(2)
        .map(|job| Report { id: job.id, fence: job.fence, verdict: Verdict::Completed(json!(1)) })
        .collect();
    for batch in reports.chunks(3) {
        let receipts = store.report(batch.to_vec()).await.expect("reported");
        assert!(receipts.iter().all(|receipt| *receipt == Receipt::Accepted));
    }
    let again = store.report(reports).await.expect("reported");
    assert!(again.iter().all(|receipt| *receipt == Receipt::Stale), "each ends once");
    harness.elapse(MINUTE).await;
    assert_eq!(store.rescue(10).await.expect("rescued").returned, 10);
    assert_eq!(store.rescue(10).await.expect("rescued").returned, 0);
    let rest = store.claim(&request("v", 20)).await.expect("claimed");
    assert!(rest.len() == 10 && rest.iter().all(|job| job.attempt == 2));
    let finished = store.stats(MINUTE).await.expect("counted").finished;
    assert_eq!(finished.get("completed"), Some(&10));
}

async fn a_long_wait_outweighs_a_higher_priority<H: Harness>(harness: &H) {
    let store = harness.store();
    let old = add(&*store, job("a")).await;
    harness.elapse(AGEING * 3).await;
    let urgent = add(&*store, job("a").priority(-2)).await;
    let most_urgent = add(&*store, job("a").priority(-4)).await;
    let claimed = store.claim(&request("w", 3)).await.expect("claimed");
    let order: Vec<JobId> = claimed.iter().map(|claimed| claimed.id).collect();
    assert_eq!(order, [most_urgent, old, urgent]);
}

async fn progress_is_kept_under_the_lease_and_outlives_it<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("a")).await;
    assert_eq!(store.progress(id).await.expect("read"), Progress::default());
    let first = claim(&*store, "w").await.expect("a job");
    let keep = async |claimed: &Claimed, progress: Option<Value>, checkpoint: Option<Value>| {
        store.keep_progress(claimed.id, claimed.fence, progress.as_ref(), checkpoint.as_ref()).await
    };
    keep(&first, None, Some(json!({ "row": 7 }))).await.expect("kept");
    keep(&first, Some(json!(0.5)), None).await.expect("kept");
    let kept = Progress { progress: Some(json!(0.5)), checkpoint: Some(json!({ "row": 7 })) };
    assert_eq!(store.progress(id).await.expect("read"), kept);
    harness.elapse(MINUTE).await;
    let refused = keep(&first, Some(json!(0.6)), None).await;
    assert!(matches!(refused, Err(JobsError::LeaseLost(lost)) if lost == id), "its lease is over");
    store.rescue(10).await.expect("rescued");
    let second = claim(&*store, "w").await.expect("the same job");
    assert!(keep(&first, Some(json!(0.6)), None).await.is_err(), "and another's by now");
    assert_eq!(store.progress(id).await.expect("read"), kept, "the next attempt goes on from there");
    report(&*store, &second, Verdict::Completed(json!(1))).await;
    assert!(keep(&second, Some(json!(1)), None).await.is_err(), "it has ended");
    harness.elapse(MINUTE * 2).await;
    let retention = Retention { completed: Some(MINUTE), dead: None, cancelled: None };
    assert_eq!(store.prune(&retention, 10).await.expect("pruned"), 1);
    assert_eq!(store.progress(id).await.expect("read"), Progress::default());
}

async fn a_cancel_stops_waiting_jobs_and_asks_running_ones<H: Harness>(harness: &H) {
    let store = harness.store();
    let waiting = add(&*store, job("b")).await;
    assert_eq!(store.cancel(waiting, None).await.expect("cancelled"), JobState::Cancelled);
    assert_eq!(store.cancel(waiting, None).await.expect("again"), JobState::Cancelled);

    let id = add(&*store, job("a")).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    assert_eq!(store.cancel(id, None).await.expect("asked"), JobState::Running);
    let pulse = store.heartbeat("w", &[], &[claimed.fence], LEASE).await.expect("beaten");
    assert_eq!(pulse.cancel, [id]);
    report(&*store, &claimed, Verdict::Retry(Duration::ZERO, failure())).await;
    assert_eq!(get(&*store, id).await.state, JobState::Cancelled, "it is not tried again");

    add(&*store, job("a")).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    report(&*store, &claimed, Verdict::Completed(json!(1))).await;
    assert!(store.cancel(claimed.id, None).await.is_err(), "what is done is done");
}

async fn a_dead_job_is_redriven_with_fresh_attempts<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = add(&*store, job("a").max_attempts(3)).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    report(&*store, &claimed, Verdict::Dead(failure())).await;
    let other_kind = Filter { kind: Some("z".to_owned()), limit: 10, ..Filter::default() };
    assert_eq!(store.redrive(None, &other_kind).await.expect("asked"), 0);
    assert_eq!(store.redrive(None, &Filter { limit: 10, ..Filter::default() }).await.expect("asked"), 1);
    let back = get(&*store, id).await;
    assert_eq!((back.state, back.attempt, back.max_attempts), (JobState::Available, 1, 4));
    let again = claim(&*store, "w").await.expect("the same job");
    assert!(again.fence > claimed.fence);
}

async fn tenants_do_not_see_each_others_jobs<H: Harness>(harness: &H) {
    let store = harness.store();
    let acme = Insert { origin: origin(Some("acme")), ..insert(job("a")) };
    store.insert(vec![acme.clone()]).await.expect("inserted");
    assert!(store.get(acme.id, Some("main/acme")).await.expect("read").is_some());
    assert!(store.get(acme.id, Some("main/globex")).await.expect("read").is_none());
    assert!(store.cancel(acme.id, Some("main/globex")).await.is_err());
    let theirs = Filter { tenant: Some("main/globex".to_owned()), limit: 10, ..Filter::default() };
    assert!(store.list(&theirs).await.expect("listed").is_empty());
}

async fn pruning_forgets_only_what_is_finished_and_old<H: Harness>(harness: &H) {
    let store = harness.store();
    let done = add(&*store, job("a")).await;
    let claimed = claim(&*store, "w").await.expect("a job");
    report(&*store, &claimed, Verdict::Completed(json!(1))).await;
    let cancelled = add(&*store, job("b")).await;
    store.cancel(cancelled, None).await.expect("cancelled");
    let waiting = add(&*store, job("b")).await;
    let retention = Retention { completed: Some(MINUTE), dead: Some(MINUTE), cancelled: None };
    assert_eq!(store.prune(&retention, 10).await.expect("pruned"), 0, "too young");
    harness.elapse(MINUTE * 2).await;
    assert_eq!(store.prune(&retention, 10).await.expect("pruned"), 1);
    assert!(store.get(done, None).await.expect("read").is_none());
    assert_eq!(get(&*store, waiting).await.state, JobState::Available);
    assert_eq!(get(&*store, cancelled).await.state, JobState::Cancelled, "kept for ever");
}

async fn pages_follow_each_other<H: Harness>(harness: &H) {
    let store = harness.store();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(add(&*store, job("a")).await);
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut filter = Filter { limit: 2, ..Filter::default() };
    loop {
        let page = store.list(&filter).await.expect("listed");
        seen.extend(page.iter().map(|job| job.id));
        match page.last() {
            Some(job) if page.len() == 2 => filter.before = Some(job.id),
            _ => break,
        }
    }
    assert_eq!(seen, ids);
}
