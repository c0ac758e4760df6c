//! What holds for batches.

use serde_json::json;

use super::links::{end, end_all, state};
use super::{Harness, MINUTE, add, claim, get, insert, job, origin, report, request};
use crate::error::JobsError;
use crate::job::{Enqueued, JobId, JobState, NewJob};
use crate::links::{Batch, BatchId, Trigger};
use crate::store::{Filter, Insert, JobStore, Retention, Verdict};

pub(super) async fn all<H: Harness>(make: &impl AsyncFn() -> H) {
    a_batch_counts_its_members_and_calls_back(&make().await).await;
    an_empty_batch_calls_back_at_once(&make().await).await;
    running_members_add_to_their_batch(&make().await).await;
    a_redriven_member_opens_its_batch_again(&make().await).await;
    a_batch_is_cancelled_whole(&make().await).await;
    a_batch_is_its_tenants(&make().await).await;
    a_callback_waits_no_longer_for_what_is_forgotten(&make().await).await;
    a_batch_may_be_part_of_another(&make().await).await;
}

async fn open(store: &dyn JobStore, id: BatchId, jobs: Vec<NewJob>) -> Vec<Enqueued> {
    store.insert_batch(id, origin(None), jobs.into_iter().map(insert).collect()).await.expect("opened")
}

fn batch_id() -> BatchId {
    BatchId::new(&runtime_kernel::SystemClock)
}

async fn batch(store: &dyn JobStore, id: BatchId) -> Batch {
    store.batch(id, None).await.expect("read").expect("the batch is there")
}

/// Callbacks of every trigger; kind `b`, so that they are not claimed as members are.
fn callbacks(id: BatchId) -> [NewJob; 3] {
    [Trigger::Eventually, Trigger::Failed, Trigger::Ended]
        .map(|trigger| job("b").after_batch(id).trigger(trigger))
}

async fn states(store: &dyn JobStore, jobs: &[Enqueued]) -> Vec<JobState> {
    let mut found = Vec::new();
    for job in jobs {
        found.push(state(store, job.id).await);
    }
    found
}

fn counts(batch: &Batch) -> [u64; 5] {
    [batch.total, batch.open, batch.completed, batch.dead, batch.cancelled]
}

async fn a_batch_counts_its_members_and_calls_back<H: Harness>(harness: &H) {
    use JobState::{Available, Cancelled, Completed, Dead, Waiting};
    let store = harness.store();
    let taken = add(&*store, job("c").unique("u")).await;
    let id = batch_id();
    let members = (0..4).map(|_| job("a").in_batch(id)).chain([job("c").unique("u").in_batch(id)]);
    let done = open(&*store, id, members.chain(callbacks(id)).collect()).await;
    assert!(done.get(4).is_some_and(|done| done.duplicate && done.id == taken));
    let calls = done.get(5..).expect("three callbacks").to_vec();
    assert_eq!(counts(&batch(&*store, id).await), [4, 4, 0, 0, 0], "a duplicate is another's");
    let mut failed = None;
    for (how, expected) in [
        (Completed, [Waiting, Waiting, Waiting]),
        (Dead, [Waiting, Available, Waiting]),
        (Cancelled, [Waiting, Available, Waiting]),
        (Completed, [Waiting, Available, Available]),
    ] {
        let claimed = claim(&*store, "w").await.expect("a member");
        end(&*store, &claimed, how).await;
        failed = failed.or((how != Completed).then_some(claimed.id));
        assert_eq!(states(&*store, &calls).await, expected);
    }
    let whole = batch(&*store, id).await;
    assert_eq!((counts(&whole), whole.cause, whole.closed), ([4, 0, 2, 1, 1], failed, false));
    let links = store.links(calls.first().expect("one").id).await.expect("read");
    assert_eq!((links.after_batch, links.batch, links.after.len()), (Some(id), None, 0));
    assert_eq!(store.links(failed.expect("one")).await.expect("read").batch, Some(id));

    let id = batch_id();
    let done = open(&*store, id, [job("a").in_batch(id)].into_iter().chain(callbacks(id)).collect()).await;
    end_all(&*store, Completed).await;
    assert_eq!(states(&*store, done.get(1..).expect("callbacks")).await, [Available, Cancelled, Available]);
}

async fn an_empty_batch_calls_back_at_once<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let done = open(&*store, id, callbacks(id).to_vec()).await;
    let expected = [JobState::Available, JobState::Cancelled, JobState::Available];
    assert_eq!(states(&*store, &done).await, expected);
    let late = add(&*store, job("b").after_batch(id)).await;
    assert_eq!(state(&*store, late).await, JobState::Available, "a callback may come late");
}

async fn running_members_add_to_their_batch<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let done = open(&*store, id, vec![job("a").in_batch(id), job("b").after_batch(id)]).await;
    let callback = done.get(1).expect("the callback").id;
    let loader = claim(&*store, "w").await.expect("the member");
    let more = (0..3).map(|_| insert(job("a").in_batch(id))).collect();
    store.insert(more).await.expect("added");
    end(&*store, &loader, JobState::Completed).await;
    assert_eq!(counts(&batch(&*store, id).await), [4, 3, 1, 0, 0]);
    assert_eq!(state(&*store, callback).await, JobState::Waiting);
    end_all(&*store, JobState::Completed).await;
    assert_eq!(state(&*store, callback).await, JobState::Available);
    let late = store.insert(vec![insert(job("a").in_batch(id))]).await;
    assert!(matches!(late, Err(JobsError::BatchOver(over)) if over == id), "{late:?}");
    let unknown = batch_id();
    for lost in [job("a").in_batch(unknown), job("a").after_batch(unknown)] {
        let refused = store.insert(vec![insert(lost)]).await;
        assert!(matches!(refused, Err(JobsError::NoBatch(id)) if id == unknown), "{refused:?}");
    }
}

async fn a_redriven_member_opens_its_batch_again<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let jobs = [job("a").in_batch(id), job("a").in_batch(id)].into_iter().chain(callbacks(id)).collect();
    let done = open(&*store, id, jobs).await;
    let calls = done.get(2..).expect("callbacks");
    end_all(&*store, JobState::Dead).await;
    let before = [JobState::Waiting, JobState::Available, JobState::Available];
    assert_eq!(states(&*store, calls).await, before);
    let dead = Filter { batch: Some(id), limit: 10, ..Filter::default() };
    assert_eq!(store.redrive(None, &dead).await.expect("redriven"), 2);
    assert_eq!(counts(&batch(&*store, id).await), [2, 2, 0, 0, 0]);
    assert_eq!(batch(&*store, id).await.cause, None);
    let other = Filter { batch: Some(batch_id()), limit: 10, ..Filter::default() };
    assert_eq!(store.list(&other).await.expect("listed").len(), 0);
    assert_eq!(store.list(&dead).await.expect("listed").len(), 2, "its members, and no callback");
    end_all(&*store, JobState::Completed).await;
    assert_eq!(states(&*store, calls).await, [JobState::Available; 3], "success comes late, the others once");
    assert_eq!(counts(&batch(&*store, id).await), [2, 0, 2, 0, 0]);
}

async fn a_batch_is_cancelled_whole<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let first = insert(job("a").in_batch(id));
    let mut jobs = vec![first.clone(), insert(job("a").in_batch(id).after([first.id]))];
    jobs.push(insert(super::later_job().in_batch(id)));
    for _ in 0..3 {
        jobs.push(insert(job("a").key("k").in_batch(id)));
    }
    jobs.extend(callbacks(id).map(insert));
    let done = store.insert_batch(id, origin(None), jobs).await.expect("opened");
    let calls = done.get(6..).expect("callbacks").to_vec();
    // One that runs alone, one that runs for its key; two of the key are parked.
    let claimed = store.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(claimed.len(), 2);
    let mut stopped = Vec::new();
    loop {
        let some = store.cancel_batch(id, None, 2).await.expect("cancelled");
        stopped.push(some);
        assert!(some <= 2, "no more than asked");
        if some == 0 {
            break;
        }
    }
    assert_eq!(stopped.iter().sum::<u64>(), 6, "{stopped:?}");
    assert_eq!(counts(&batch(&*store, id).await), [6, 2, 0, 0, 4]);
    let late = store.insert(vec![insert(job("a").in_batch(id))]).await;
    assert!(matches!(late, Err(JobsError::BatchOver(_))), "{late:?}");
    for job in &claimed {
        let pulse = store.heartbeat("w", &[], &[job.fence], MINUTE).await.expect("beaten");
        assert!(pulse.cancel.contains(&job.id), "those that run are asked");
        report(&*store, job, Verdict::Cancelled).await;
    }
    assert_eq!(counts(&batch(&*store, id).await), [6, 0, 0, 0, 6]);
    let expected = [JobState::Waiting, JobState::Available, JobState::Available];
    assert_eq!(states(&*store, &calls).await, expected);
    // The key's places are free again.
    let next = add(&*store, job("a").key("k")).await;
    assert_eq!(claim(&*store, "w").await.map(|job| job.id), Some(next));
}

async fn a_batch_is_its_tenants<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let of = |tenant: &str, job: NewJob| Insert { origin: origin(Some(tenant)), ..insert(job) };
    let member = of("acme", job("a").in_batch(id));
    store.insert_batch(id, origin(Some("acme")), vec![member]).await.expect("opened");
    assert!(store.batch(id, Some("main/acme")).await.expect("read").is_some());
    assert!(store.batch(id, Some("main/globex")).await.expect("read").is_none());
    assert!(matches!(store.cancel_batch(id, Some("main/globex"), 9).await, Err(JobsError::NoBatch(_))));
    for job in [job("a").in_batch(id), job("a").after_batch(id)] {
        let refused = store.insert(vec![of("globex", job.clone())]).await;
        assert!(matches!(refused, Err(JobsError::NoBatch(_))), "{refused:?}");
        store.insert(vec![of("acme", job)]).await.expect("its own");
    }
    assert_eq!(counts(&batch(&*store, id).await), [2, 2, 0, 0, 0]);
}

async fn a_callback_waits_no_longer_for_what_is_forgotten<H: Harness>(harness: &H) {
    let store = harness.store();
    let id = batch_id();
    let done = open(&*store, id, [job("a").in_batch(id)].into_iter().chain(callbacks(id)).collect()).await;
    let (member, success) = done.first().zip(done.get(1)).expect("all of them");
    end_all(&*store, JobState::Dead).await;
    let keep = Retention { completed: Some(MINUTE), dead: Some(MINUTE), cancelled: Some(MINUTE) };
    harness.elapse(MINUTE * 2).await;
    assert_eq!(store.prune(&keep, 10).await.expect("pruned"), 1);
    let gone = get(&*store, success.id).await;
    assert_eq!(gone.state, JobState::Cancelled);
    let reason = gone.reason.expect("a reason");
    assert!(reason.code == "jobs.prerequisite_forgotten" && reason.message.contains(&member.id.to_string()));
    let mut callbacks = request("w", 10);
    callbacks.kinds = vec!["b".to_owned()];
    for job in store.claim(&callbacks).await.expect("claimed") {
        report(&*store, &job, Verdict::Completed(json!(1))).await;
    }
    harness.elapse(MINUTE * 2).await;
    store.prune(&keep, 10).await.expect("pruned");
    assert!(store.batch(id, None).await.expect("read").is_none(), "and then nothing is left of it");
}

async fn a_batch_may_be_part_of_another<H: Harness>(harness: &H) {
    let store = harness.store();
    let (outer, inner) = (batch_id(), batch_id());
    let done = open(&*store, outer, vec![job("a").in_batch(outer), job("c").after_batch(outer)]).await;
    let last = done.get(1).expect("the callback").id;
    let nested: Vec<NewJob> = (0..2).map(|_| job("a").in_batch(inner)).collect();
    let joins = job("b").after_batch(inner).in_batch(outer);
    let ids: Vec<JobId> = open(&*store, inner, nested.into_iter().chain([joins]).collect())
        .await
        .iter()
        .map(|done| done.id)
        .collect();
    end_all(&*store, JobState::Completed).await;
    assert_eq!(state(&*store, *ids.get(2).expect("the inner callback")).await, JobState::Available);
    assert_eq!(state(&*store, last).await, JobState::Waiting);
    let mut callbacks = request("w", 10);
    callbacks.kinds = vec!["b".to_owned()];
    for job in store.claim(&callbacks).await.expect("claimed") {
        end(&*store, &job, JobState::Completed).await;
    }
    assert_eq!(state(&*store, last).await, JobState::Available);
}
