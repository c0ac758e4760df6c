//! Jobs tied together: a flow, a batch with callbacks that grows, a batch that is cancelled.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime_jobs::store::Claimed;
use runtime_jobs::{BatchId, Flow, Job, JobId, JobState, NewBatch, NewJob, Trigger};
use serde_json::json;

use super::world::Process;

/// How many jobs are enqueued together, by the name they share.
const WHOLE: [(&str, usize); 3] = [("flow", 9), ("batch", 5), ("stopped", 4)];

fn part(of: &str, what: &str) -> NewJob {
    NewJob::new("a", json!({ "do": what, "of": of }))
}

fn waits(of: &str, trigger: Trigger) -> NewJob {
    NewJob::new("a", json!({ "do": "complete", "of": of, "trigger": trigger })).trigger(trigger)
}

pub(super) async fn play(process: &Process) {
    let waiting = |trigger| waits("flow", trigger);
    let flow = Flow::new()
        .job("done", &[], part("flow", "complete"))
        .job("dead", &[], part("flow", "dead"))
        .job("retry", &[], part("flow", "retry"))
        .job("both", &["done", "retry"], waiting(Trigger::Completed))
        .job("next", &["both"], waiting(Trigger::Completed))
        .job("failed", &["dead"], waiting(Trigger::Failed))
        .job("ended", &["dead", "done"], waiting(Trigger::Ended))
        .job("never", &["dead", "both"], waiting(Trigger::Completed))
        .job("last", &["never"], waiting(Trigger::Ended));
    let flow = process.forgive("flow", process.jobs.enqueue_flow(&process.context(), flow).await);
    process.world.acknowledge(flow.into_iter().flatten().map(|(_, job)| job.id));
    let batch = NewBatch::new(["complete", "dead", "grow"].map(|what| part("batch", what)))
        .on_failure(waits("batch", Trigger::Failed))
        .on_end(waits("batch", Trigger::Ended));
    open(process, batch).await;
    for _ in 0..2 {
        process.turn().await;
        process.world.clock.advance(Duration::from_secs(12));
    }
    let stopped = NewBatch::new(["complete", "complete"].map(|what| part("stopped", what)))
        .on_failure(waits("stopped", Trigger::Failed))
        .on_end(waits("stopped", Trigger::Ended));
    if let Some((id, members)) = open(process, stopped).await {
        // One of them runs when it is told to stop.
        let claimed = process.claim(1).await;
        for running in &claimed {
            // What waits for it comes while it runs.
            process.enqueue(vec![waits("late", Trigger::Ended).after([running.id])]).await;
        }
        process.stop_batch(id, &members).await;
        let pulse = process.beat(&claimed).await;
        process.settle(claimed, &pulse).await;
    }
    process.turn().await;
}

async fn open(process: &Process, batch: NewBatch) -> Option<(BatchId, Vec<JobId>)> {
    let opened = process.jobs.enqueue_batch(&process.context(), batch).await;
    let opened = process.forgive("batch", opened)?;
    let members: Vec<JobId> = opened.jobs.iter().map(|job| job.id).collect();
    process.world.acknowledge(members.iter().copied().chain(opened.callbacks.iter().map(|job| job.id)));
    Some((opened.id, members))
}

/// A running member adds one more to its batch.
pub(super) async fn grow(process: &Process, claimed: &Claimed) {
    let links = process.forgive("links", process.store().links(claimed.id).await);
    if let Some(batch) = links.and_then(|links| links.batch) {
        process.enqueue(vec![part("more", "complete").in_batch(batch)]).await;
    }
}

/// Who waited ended as those it waited for say; batches count their members; nothing was enqueued by halves.
pub(super) async fn verify(process: &Process, jobs: &[Job]) {
    let at = &process.world.at;
    let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut batches: BTreeMap<BatchId, Vec<JobState>> = BTreeMap::new();
    let states: BTreeMap<JobId, JobState> = jobs.iter().map(|job| (job.id, job.state)).collect();
    let mut links = BTreeMap::new();
    for job in jobs {
        let Some(of) = job.payload["of"].as_str() else { continue };
        *parts.entry(of).or_default() += 1;
        let tied = process.store().links(job.id).await.unwrap();
        if let Some(batch) = tied.batch {
            batches.entry(batch).or_default().push(job.state);
        }
        links.insert(job.id, tied);
    }
    for (of, whole) in WHOLE {
        let there = parts.get(of).copied().unwrap_or_default();
        assert!(there == 0 || there == whole, "{at}: {there} of {of:?}");
    }
    for (id, members) in &batches {
        let batch = process.store().batch(*id, None).await.unwrap().unwrap();
        let count = |state| members.iter().filter(|member| **member == state).count() as u64;
        let counted = [batch.total, batch.open, batch.completed, batch.dead, batch.cancelled];
        let there = [
            members.len() as u64,
            0,
            count(JobState::Completed),
            count(JobState::Dead),
            count(JobState::Cancelled),
        ];
        assert_eq!(counted, there, "{at}: {batch:?}");
    }
    for job in jobs {
        let Ok(trigger) = serde_json::from_value::<Trigger>(job.payload["trigger"].clone()) else { continue };
        let tied = &links[&job.id];
        let before: Vec<JobState> = match tied.after_batch {
            Some(batch) => batches[&batch].clone(),
            None => tied.after.iter().map(|after| states[&after.id]).collect(),
        };
        assert!(!before.is_empty(), "{at}: waited for nothing: {job:?}");
        for after in &tied.after {
            assert_eq!(after.state, Some(states[&after.id]), "{at}: {after:?}");
        }
        let failed = before.iter().any(|state| *state != JobState::Completed);
        let runs = match trigger {
            Trigger::Completed | Trigger::Eventually => !failed,
            Trigger::Ended => true,
            Trigger::Failed => failed,
        };
        let expected = if runs { JobState::Completed } else { JobState::Cancelled };
        assert_eq!(job.state, expected, "{at}: {trigger:?} of {before:?}: {job:?}");
    }
}
