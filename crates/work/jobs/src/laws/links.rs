//! What holds for jobs that wait for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Harness, MINUTE, add, claim, failure, get, insert, job, origin, report, request};
use crate::error::JobsError;
use crate::job::{JobId, JobState, NewJob};
use crate::links::Trigger;
use crate::store::{Claimed, Filter, Insert, JobStore, Receipt, Report, Retention, Verdict};

pub(super) async fn all<H: Harness>(make: &impl AsyncFn() -> H) {
    a_trigger_decides_when_a_job_runs_or_never_will(make).await;
    what_has_ended_before_counts_as_it_ended(&make().await).await;
    a_running_job_can_be_waited_for_however_it_goes_on(&make().await).await;
    deaths_and_cancels_count_whatever_caused_them(&make().await).await;
    a_failure_is_passed_on_and_named(&make().await).await;
    what_cannot_be_waited_for_is_refused_and_adds_nothing(&make().await).await;
    redriving_lets_those_wait_again_that_a_failure_cancelled(&make().await).await;
    a_waiting_job_is_seen_and_can_be_cancelled(&make().await).await;
    results_are_read_and_kept_until_who_waits_has_ended(&make().await).await;
    a_duplicate_stands_for_the_job_that_holds_its_key(&make().await).await;
    a_released_job_keeps_its_time_and_its_key(&make().await).await;
    racing_ends_release_each_job_once(&make().await).await;
    load_counts_what_could_run_and_no_further_than_asked(&make().await).await;
}

pub(super) async fn end(store: &dyn JobStore, claimed: &Claimed, state: JobState) {
    let verdict = match state {
        JobState::Completed => Verdict::Completed(json!({ "of": claimed.id })),
        JobState::Dead => Verdict::Dead(failure()),
        _ => Verdict::Cancelled,
    };
    assert_eq!(report(store, claimed, verdict).await, Receipt::Accepted);
}

/// Claims all there are and ends them.
pub(super) async fn end_all(store: &dyn JobStore, state: JobState) -> Vec<JobId> {
    let claimed = store.claim(&request("w", 1000)).await.expect("claimed");
    for job in &claimed {
        end(store, job, state).await;
    }
    claimed.into_iter().map(|job| job.id).collect()
}

pub(super) async fn state(store: &dyn JobStore, id: JobId) -> JobState {
    get(store, id).await.state
}

fn after(jobs: impl IntoIterator<Item = JobId>) -> NewJob {
    job("a").after(jobs)
}

async fn reason(store: &dyn JobStore, id: JobId) -> (String, String) {
    let reason = get(store, id).await.reason.expect("a reason");
    (reason.code, reason.message)
}

async fn a_trigger_decides_when_a_job_runs_or_never_will<H: Harness>(make: &impl AsyncFn() -> H) {
    use JobState::{Available, Cancelled, Completed, Dead, Waiting};
    // How two end, one after the other; what becomes of completed, eventually, ended, failed after each.
    let cases = [
        ([Completed, Completed], [[Waiting; 4], [Available, Available, Available, Cancelled]]),
        ([Completed, Dead], [[Waiting; 4], [Cancelled, Waiting, Available, Available]]),
        (
            [Dead, Completed],
            [[Cancelled, Waiting, Waiting, Available], [Cancelled, Waiting, Available, Available]],
        ),
        (
            [Cancelled, Dead],
            [[Cancelled, Waiting, Waiting, Available], [Cancelled, Waiting, Available, Available]],
        ),
    ];
    for (ends, stages) in cases {
        let harness = make().await;
        let store = harness.store();
        let (one, two) = (add(&*store, job("a")).await, add(&*store, job("a")).await);
        let mut waiters = Vec::new();
        for trigger in [Trigger::Completed, Trigger::Eventually, Trigger::Ended, Trigger::Failed] {
            waiters.push(add(&*store, job("b").after([one, two, one]).trigger(trigger)).await);
        }
        for (how, expected) in ends.into_iter().zip(stages) {
            let claimed = claim(&*store, "w").await.expect("a prerequisite");
            end(&*store, &claimed, how).await;
            let mut found = Vec::new();
            for waiter in &waiters {
                found.push(state(&*store, *waiter).await);
            }
            assert_eq!(found, expected, "{ends:?}");
        }
    }
}

async fn what_has_ended_before_counts_as_it_ended<H: Harness>(harness: &H) {
    let store = harness.store();
    let done = add(&*store, job("a")).await;
    end_all(&*store, JobState::Completed).await;
    let dead = add(&*store, job("a")).await;
    end_all(&*store, JobState::Dead).await;
    let runs = add(&*store, after([done])).await;
    assert_eq!(end_all(&*store, JobState::Completed).await, [runs]);
    let never = add(&*store, after([done, dead])).await;
    assert_eq!(state(&*store, never).await, JobState::Cancelled);
    let open = add(&*store, job("b")).await;
    let waits = add(&*store, after([done, open])).await;
    assert_eq!(state(&*store, waits).await, JobState::Waiting);
    store.cancel(open, None).await.expect("cancelled");
    assert_eq!(state(&*store, waits).await, JobState::Cancelled);
}

async fn a_running_job_can_be_waited_for_however_it_goes_on<H: Harness>(harness: &H) {
    let store = harness.store();
    // Several in one lease, so that the mark is of one of them.
    let mut firsts = Vec::new();
    for _ in 0..10 {
        firsts.push(add(&*store, job("a")).await);
    }
    let claimed = store.claim(&request("w", 10)).await.expect("claimed");
    let mut waiters = Vec::new();
    for first in &firsts {
        waiters.push(add(&*store, job("b").after([*first])).await);
    }
    for (n, job) in claimed.iter().enumerate() {
        let verdict = match n % 3 {
            0 => Verdict::Completed(json!(1)),
            1 => Verdict::Retry(Duration::ZERO, failure()),
            _ => Verdict::Released(Duration::ZERO),
        };
        report(&*store, job, verdict).await;
        let expected = if n % 3 == 0 { JobState::Available } else { JobState::Waiting };
        assert_eq!(state(&*store, *waiters.get(n).expect("one each")).await, expected);
    }
    // The others come again, are lost, and come once more.
    let again = store.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(again.len(), 6);
    harness.elapse(MINUTE).await;
    assert_eq!(store.rescue(10).await.expect("rescued").returned, 6);
    assert_eq!(end_all(&*store, JobState::Completed).await.len(), 6);
    for waiter in waiters {
        assert_eq!(state(&*store, waiter).await, JobState::Available);
    }
}

async fn deaths_and_cancels_count_whatever_caused_them<H: Harness>(harness: &H) {
    let store = harness.store();
    let lost = add(&*store, job("a").max_attempts(1)).await;
    let asked = add(&*store, job("a")).await;
    let waiting = add(&*store, job("b")).await;
    let scheduled = super::later_job();
    let scheduled = add(&*store, scheduled).await;
    let mut waiters = Vec::new();
    for id in [lost, asked, waiting, scheduled] {
        waiters.push((id, add(&*store, job("b").after([id]).trigger(Trigger::Failed)).await));
    }
    store.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(store.cancel(asked, None).await.expect("asked"), JobState::Running);
    store.cancel(waiting, None).await.expect("cancelled");
    store.cancel(scheduled, None).await.expect("cancelled");
    harness.elapse(MINUTE).await;
    assert_eq!(store.rescue(10).await.expect("rescued").dead, 2);
    for (id, waiter) in waiters {
        assert_eq!(state(&*store, waiter).await, JobState::Available, "{:?}", get(&*store, id).await.state);
    }
}

async fn a_failure_is_passed_on_and_named<H: Harness>(harness: &H) {
    let store = harness.store();
    let root = add(&*store, job("a")).await;
    let mut chain = vec![root];
    for _ in 0..5 {
        let last = *chain.last().expect("one at least");
        chain.push(add(&*store, after([last]).unique(format!("u{}", chain.len()))).await);
    }
    let cleans = add(&*store, job("b").after(chain.clone()).trigger(Trigger::Ended)).await;
    assert_eq!(end_all(&*store, JobState::Dead).await, [root]);
    for pair in chain.windows(2) {
        let [before, id] = pair else { continue };
        assert_eq!(state(&*store, *id).await, JobState::Cancelled);
        let (code, message) = reason(&*store, *id).await;
        assert!(
            code == "jobs.prerequisite_failed" && message.contains(&before.to_string()),
            "{code} {message}"
        );
    }
    assert_eq!(state(&*store, cleans).await, JobState::Available);
    let again = add(&*store, job("a").unique("u1")).await;
    assert!(!chain.contains(&again), "the keys of those that were cancelled are free");
}

async fn what_cannot_be_waited_for_is_refused_and_adds_nothing<H: Harness>(harness: &H) {
    let store = harness.store();
    let known = add(&*store, job("a")).await;
    let unknown = insert(job("a")).id;
    let theirs = Insert { origin: origin(Some("acme")), ..insert(job("a")) };
    store.insert(vec![theirs.clone()]).await.expect("inserted");
    let mine = |job: NewJob| Insert { origin: origin(Some("globex")), ..insert(job) };
    let later = insert(job("a"));
    let myself = insert(job("a"));
    let myself = Insert { job: after([myself.id]), ..myself };
    let cases = [
        (vec![insert(job("a")), insert(after([known, unknown]))], unknown),
        (vec![mine(job("a")), mine(after([theirs.id]))], theirs.id),
        (vec![insert(after([later.id])), later.clone()], later.id),
        (vec![myself.clone()], myself.id),
    ];
    for (jobs, missing) in cases {
        let refused = store.insert(jobs.clone()).await;
        assert!(matches!(refused, Err(JobsError::NotFound(id)) if id == missing), "{refused:?}");
        for job in jobs {
            assert!(store.get(job.id, None).await.expect("read").is_none(), "all or none");
        }
    }
    let whole = vec![later.clone(), insert(after([later.id]))];
    store.insert(whole).await.expect("in the order they wait in");
    let seen = Insert { origin: origin(Some("acme")), ..insert(after([theirs.id])) };
    store.insert(vec![seen]).await.expect("a job of one's own tenant");
}

async fn redriving_lets_those_wait_again_that_a_failure_cancelled<H: Harness>(harness: &H) {
    let store = harness.store();
    let (one, two) = (add(&*store, job("a")).await, add(&*store, job("a")).await);
    let second = add(&*store, after([one, two])).await;
    let third = add(&*store, after([second])).await;
    let by_hand = add(&*store, after([one])).await;
    store.cancel(by_hand, None).await.expect("cancelled");
    end_all(&*store, JobState::Dead).await;
    for id in [second, third] {
        assert_eq!(state(&*store, id).await, JobState::Cancelled);
    }
    let any = Filter { limit: 10, ..Filter::default() };
    assert_eq!(store.redrive(Some(one), &any).await.expect("redriven"), 1);
    assert_eq!(state(&*store, second).await, JobState::Cancelled, "the other is dead still");
    assert_eq!(store.redrive(Some(two), &any).await.expect("redriven"), 1);
    for id in [second, third] {
        let job = get(&*store, id).await;
        assert_eq!((job.state, job.reason, job.finished_at), (JobState::Waiting, None, None));
    }
    assert_eq!(state(&*store, by_hand).await, JobState::Cancelled, "somebody wanted that");
    end_all(&*store, JobState::Completed).await;
    assert_eq!(end_all(&*store, JobState::Completed).await, [second]);
    assert_eq!(end_all(&*store, JobState::Completed).await, [third]);
}

async fn a_waiting_job_is_seen_and_can_be_cancelled<H: Harness>(harness: &H) {
    let store = harness.store();
    let first = add(&*store, job("a")).await;
    let waits = add(&*store, job("b").after([first]).key("k").unique("u")).await;
    let next = add(&*store, job("b").after([waits])).await;
    let filter = Filter { state: Some(JobState::Waiting), limit: 10, ..Filter::default() };
    let listed: Vec<JobId> = store.list(&filter).await.expect("listed").iter().map(|job| job.id).collect();
    assert_eq!(listed, [next, waits]);
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(store.list(&all).await.expect("listed").len(), 3);
    let stats = store.stats(MINUTE).await.expect("counted");
    let depth = stats.depths.iter().find(|depth| depth.kind == "b").expect("counted");
    assert_eq!((&depth.states, depth.oldest), (&BTreeMap::from([("waiting".to_owned(), 2)]), None));
    assert!(stats.unhandled.contains(&"b".to_owned()));
    assert!(store.cancel(waits, Some("main/acme")).await.is_err(), "another tenant's");
    assert_eq!(store.cancel(waits, None).await.expect("cancelled"), JobState::Cancelled);
    assert_eq!(get(&*store, waits).await.reason, None, "somebody wanted it");
    assert_eq!(state(&*store, next).await, JobState::Cancelled);
    assert_ne!(add(&*store, job("b").unique("u")).await, waits, "its key is free");
    end_all(&*store, JobState::Completed).await;
    assert_eq!(state(&*store, waits).await, JobState::Cancelled, "and stays so");
}

async fn results_are_read_and_kept_until_who_waits_has_ended<H: Harness>(harness: &H) {
    let store = harness.store();
    let [good, bad, stopped, open] = [
        add(&*store, job("a")).await,
        add(&*store, job("a").max_attempts(1)).await,
        add(&*store, job("a")).await,
        add(&*store, job("c")).await,
    ];
    let waits = job("a").after_named("good", good).after([bad, stopped, open]).trigger(Trigger::Ended);
    let waits = add(&*store, waits).await;
    for (id, how) in [(good, JobState::Completed), (bad, JobState::Dead), (stopped, JobState::Cancelled)] {
        let claimed = claim(&*store, "w").await.expect("a job");
        assert_eq!(claimed.id, id);
        end(&*store, &claimed, how).await;
    }
    let keep = Retention { completed: Some(MINUTE), dead: Some(MINUTE), cancelled: Some(MINUTE) };
    harness.elapse(MINUTE * 2).await;
    assert_eq!(store.prune(&keep, 10).await.expect("pruned"), 0, "somebody waits for each");
    let links = store.links(waits).await.expect("read");
    let states: Vec<_> = links.after.iter().map(|prior| (prior.id, prior.state)).collect();
    assert_eq!(
        states,
        [
            (good, Some(JobState::Completed)),
            (bad, Some(JobState::Dead)),
            (stopped, Some(JobState::Cancelled)),
            (open, None)
        ]
    );
    let (first, second) = links.after.first().zip(links.after.get(1)).expect("four of them");
    assert_eq!((first.name.as_deref(), &first.result), (Some("good"), &Some(json!({ "of": good }))));
    assert_eq!((&second.result, &second.failure), (&None, &Some(failure())));
    store.cancel(open, None).await.expect("cancelled");
    let claimed = claim(&*store, "w").await.expect("all have ended");
    assert_eq!(claimed.id, waits);
    harness.elapse(Duration::from_secs(1)).await;
    assert_eq!(store.prune(&keep, 10).await.expect("pruned"), 0, "it may read them still");
    end(&*store, &claimed, JobState::Completed).await;
    harness.elapse(MINUTE * 2).await;
    assert_eq!(store.prune(&keep, 10).await.expect("pruned"), 5);
    assert!(store.links(waits).await.expect("read").after.is_empty());
}

async fn a_duplicate_stands_for_the_job_that_holds_its_key<H: Harness>(harness: &H) {
    let store = harness.store();
    let holder = add(&*store, job("a").unique("u")).await;
    let (twin, waits) = (insert(job("a").unique("u")), insert(job("a")));
    let waits = Insert { job: after([twin.id]), ..waits };
    let done = store.insert(vec![twin, waits.clone()]).await.expect("inserted");
    assert!(done.first().is_some_and(|done| done.duplicate && done.id == holder));
    assert_eq!(state(&*store, waits.id).await, JobState::Waiting);
    assert_eq!(end_all(&*store, JobState::Completed).await, [holder]);
    assert_eq!(state(&*store, waits.id).await, JobState::Available);
}

async fn a_released_job_keeps_its_time_and_its_key<H: Harness>(harness: &H) {
    let store = harness.store();
    let first = add(&*store, job("a")).await;
    let far = add(&*store, super::later_job().after([first])).await;
    let running = add(&*store, job("a").key("k")).await;
    let keyed = add(&*store, job("a").key("k").after([first])).await;
    let claimed = store.claim(&request("w", 10)).await.expect("claimed");
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [first, running]);
    let (one, two) = claimed.first().zip(claimed.get(1)).expect("both");
    end(&*store, one, JobState::Completed).await;
    assert_eq!(state(&*store, far).await, JobState::Scheduled);
    assert!(claim(&*store, "w").await.is_none(), "one of its key runs");
    end(&*store, two, JobState::Completed).await;
    assert_eq!(claim(&*store, "w").await.map(|job| job.id), Some(keyed));
}

async fn racing_ends_release_each_job_once<H: Harness>(harness: &H) {
    const FIRST: usize = 24;
    let store = harness.store();
    let firsts: Vec<Insert> = (0..FIRST).map(|_| insert(job("a"))).collect();
    let mut jobs = firsts.clone();
    // Each pair of neighbours has somebody who waits for both, and all have.
    for pair in firsts.windows(2) {
        jobs.push(insert(job("b").after(pair.iter().map(|first| first.id))));
    }
    jobs.push(insert(job("b").after(firsts.iter().map(|first| first.id))));
    let waiters = jobs.len() - FIRST;
    store.insert(jobs).await.expect("inserted");
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let claimed = store.claim(&request(&format!("w{n}"), 3)).await.expect("claimed");
                let reports = claimed.iter().map(|job| Report {
                    id: job.id,
                    fence: job.fence,
                    verdict: Verdict::Completed(json!(1)),
                });
                let receipts = store.report(reports.collect()).await.expect("reported");
                assert!(receipts.iter().all(|receipt| *receipt == Receipt::Accepted));
            })
        })
        .collect();
    for racer in racers {
        racer.await.expect("a racer ends");
    }
    // Whatever a race has left behind.
    end_all(&*store, JobState::Completed).await;
    let mut request = request("w", 1000);
    request.kinds = vec!["b".to_owned()];
    let released = store.claim(&request).await.expect("claimed");
    assert_eq!(released.len(), waiters, "each once");
    assert!(store.claim(&request).await.expect("claimed").is_empty());
}

async fn load_counts_what_could_run_and_no_further_than_asked<H: Harness>(harness: &H) {
    let store = harness.store();
    let load = store.load("default", 10).await.expect("measured");
    assert_eq!((load.depth, load.age), (0, Duration::ZERO));
    add(&*store, super::later_job()).await;
    let first = add(&*store, job("a")).await;
    add(&*store, job("a").after([first])).await;
    add(&*store, job("a").queue("other")).await;
    harness.elapse(MINUTE).await;
    for n in 0..6 {
        add(&*store, job(if n % 2 == 0 { "a" } else { "b" }).key("k")).await;
    }
    let load = store.load("default", 10).await.expect("measured");
    assert_eq!(load.depth, 7, "neither those that wait for their time or for others, nor another queue's");
    assert!(load.age >= MINUTE && load.age < MINUTE * 2, "{load:?}");
    assert_eq!(store.load("default", 3).await.expect("measured").depth, 4);
    // Those that wait for their key wait as well; the one that runs does not.
    let mut both = request("w", 10);
    both.kinds.push("b".to_owned());
    let claimed = store.claim(&both).await.expect("claimed");
    assert_eq!(store.load("default", 10).await.expect("measured").depth, 7 - claimed.len() as u64);
    assert_eq!(store.load("nowhere", 10).await.expect("measured").depth, 0);
}
