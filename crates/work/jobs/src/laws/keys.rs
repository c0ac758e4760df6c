//! What holds for jobs that share a key, and for what is paused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::{Harness, MINUTE, add, claim, insert, job, origin, report, request};
use crate::job::{JobId, JobState};
use crate::limit::Limit;
use crate::store::{ClaimRequest, Insert, JobStore, Pause, Receipt, Verdict};

pub(super) async fn all<H: Harness>(make: &impl AsyncFn() -> H) {
    jobs_of_one_key_run_one_after_another_in_order(&make().await).await;
    a_key_lets_in_as_many_as_its_limit_says(&make().await).await;
    a_rate_spaces_the_beginnings_of_a_key(&make().await).await;
    a_lost_or_cancelled_job_gives_up_its_place(&make().await).await;
    racing_claimers_never_exceed_a_limit(&make().await).await;
    nothing_paused_is_claimed(&make().await).await;
}

fn limited(max: u32, limit: Limit) -> ClaimRequest {
    ClaimRequest { limits: BTreeMap::from([("a".to_owned(), limit)]), ..request("w", max) }
}

async fn ids(store: &dyn JobStore, request: &ClaimRequest) -> Vec<JobId> {
    store.claim(request).await.expect("claimed").iter().map(|claimed| claimed.id).collect()
}

async fn jobs_of_one_key_run_one_after_another_in_order<H: Harness>(harness: &H) {
    let store = harness.store();
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.push(add(&*store, job("a").key("k")).await);
    }
    let other = add(&*store, job("a").key("l")).await;
    let free = add(&*store, job("a")).await;
    let first = store.claim(&request("w", 10)).await.expect("claimed");
    let began: Vec<JobId> = first.iter().map(|claimed| claimed.id).collect();
    assert_eq!(began, [*mine.first().expect("three"), other, free]);
    assert_eq!(ids(&*store, &request("v", 10)).await, []);
    let late = add(&*store, job("a").key("k").priority(-5)).await;
    assert_eq!(ids(&*store, &request("v", 10)).await, [], "nor one that came later, however urgent");
    let mut held = first.first().cloned();
    let mut order = Vec::new();
    while let Some(one) = held {
        report(&*store, &one, Verdict::Completed(json!(1))).await;
        let next = store.claim(&request("w", 10)).await.expect("claimed");
        assert!(next.len() <= 1, "one left, so one comes");
        order.extend(next.iter().map(|claimed| claimed.id));
        held = next.first().cloned();
    }
    mine.splice(..1, [late]);
    assert_eq!(order, mine, "those that waited, the most urgent first");
}

async fn a_key_lets_in_as_many_as_its_limit_says<H: Harness>(harness: &H) {
    let store = harness.store();
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(add(&*store, job("a").key("k")).await);
    }
    let two = limited(10, Limit::concurrency(2));
    let mut held = store.claim(&two).await.expect("claimed");
    let mut seen: Vec<JobId> = held.iter().map(|claimed| claimed.id).collect();
    assert_eq!(held.len(), 2);
    while let Some(one) = held.pop() {
        report(&*store, &one, Verdict::Completed(json!(1))).await;
        let more = store.claim(&two).await.expect("claimed");
        assert!(more.len() <= 1, "one left, so one comes");
        seen.extend(more.iter().map(|claimed| claimed.id));
        held.extend(more);
    }
    assert_eq!(seen, all, "each once, in order");
    let raised = limited(10, Limit::concurrency(3));
    for _ in 0..5 {
        add(&*store, job("a").key("k")).await;
    }
    assert_eq!(store.claim(&raised).await.expect("claimed").len(), 3, "a new limit holds at once");
    let tenant = Insert { origin: origin(Some("acme")), ..insert(job("a").key("k")) };
    store.insert(vec![tenant]).await.expect("inserted");
    assert_eq!(store.claim(&raised).await.expect("claimed").len(), 1, "another tenant's key is another key");
}

async fn a_rate_spaces_the_beginnings_of_a_key<H: Harness>(harness: &H) {
    let store = harness.store();
    for _ in 0..9 {
        add(&*store, job("a").key("k")).await;
    }
    // Three at once, then one every twenty seconds.
    let paced = limited(10, Limit::rate(3, MINUTE));
    assert_eq!(store.claim(&paced).await.expect("claimed").len(), 3);
    assert_eq!(store.claim(&paced).await.expect("claimed").len(), 0);
    let probe = store.probe(&paced).await.expect("probed");
    assert!(!probe.due && probe.next.is_some_and(|next| next <= MINUTE / 3), "{probe:?}");
    harness.elapse(MINUTE / 3 + Duration::from_millis(10)).await;
    assert_eq!(store.claim(&paced).await.expect("claimed").len(), 1);
    assert_eq!(store.claim(&paced).await.expect("claimed").len(), 0);
    harness.elapse(MINUTE * 2).await;
    let mut began = 0;
    for _ in 0..5 {
        began += store.claim(&paced).await.expect("claimed").len();
    }
    assert_eq!(began, 3, "a pause saves up no more than the burst");
}

async fn a_lost_or_cancelled_job_gives_up_its_place<H: Harness>(harness: &H) {
    let store = harness.store();
    let lost = add(&*store, job("a").key("k").max_attempts(1)).await;
    let parked = add(&*store, job("a").key("k")).await;
    let next = add(&*store, job("a").key("k")).await;
    assert_eq!(ids(&*store, &request("w", 10)).await, [lost]);
    assert_eq!(store.cancel(parked, None).await.expect("cancelled"), JobState::Cancelled);
    harness.elapse(MINUTE).await;
    store.rescue(10).await.expect("rescued");
    let fourth = add(&*store, job("a").key("k")).await;
    // Whoever is next may have been let in already: when it goes, the one after it comes.
    assert_eq!(store.cancel(next, None).await.expect("cancelled"), JobState::Cancelled);
    assert_eq!(ids(&*store, &request("w", 10)).await, [fourth]);
}

async fn racing_claimers_never_exceed_a_limit<H: Harness>(harness: &H) {
    const KEYS: usize = 3;
    let store = harness.store();
    let jobs = (0..60).map(|n| insert(job("a").key(format!("k{}", n % KEYS)))).collect();
    let added: Vec<JobId> = store.insert(jobs).await.expect("inserted").iter().map(|done| done.id).collect();
    let at_once: Arc<[AtomicUsize; KEYS]> = Arc::default();
    let order: Arc<Mutex<Vec<JobId>>> = Arc::default();
    let racers = (0..6).map(|n| {
        let (store, at_once, order, added) =
            (Arc::clone(&store), Arc::clone(&at_once), Arc::clone(&order), added.clone());
        tokio::spawn(async move {
            let mut request = limited(4, Limit::concurrency(2));
            request.worker = format!("w{n}");
            let mut idle = 0;
            while idle < 20 {
                let claimed = store.claim(&request).await.expect("claimed");
                idle = if claimed.is_empty() { idle + 1 } else { 0 };
                for job in &claimed {
                    let place = added.iter().position(|id| *id == job.id).expect("one of ours");
                    let running = at_once.get(place % KEYS).expect("a key").fetch_add(1, Ordering::SeqCst);
                    assert!(running < 2, "three jobs of one key at once");
                    order.lock().expect("not poisoned").push(job.id);
                }
                tokio::task::yield_now().await;
                for job in &claimed {
                    let place = added.iter().position(|id| *id == job.id).expect("one of ours");
                    at_once.get(place % KEYS).expect("a key").fetch_sub(1, Ordering::SeqCst);
                    let receipt = report(&*store, job, Verdict::Completed(json!(1))).await;
                    assert_eq!(receipt, Receipt::Accepted);
                }
            }
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.expect("a racer ends");
    }
    let mut began = order.lock().expect("not poisoned").clone();
    assert_eq!(began.len(), added.len(), "each began once");
    began.sort();
    began.dedup();
    assert_eq!(began.len(), added.len());
}

async fn nothing_paused_is_claimed<H: Harness>(harness: &H) {
    let store = harness.store();
    add(&*store, job("a")).await;
    let pause = |kind: Option<&str>| Pause { queue: "default".to_owned(), kind: kind.map(ToOwned::to_owned) };
    for kind in [None, Some("a")] {
        store.set_paused("default", kind, true).await.expect("paused");
        store.set_paused("default", kind, true).await.expect("paused again");
        assert_eq!(store.paused().await.expect("listed"), [pause(kind)]);
        assert!(claim(&*store, "w").await.is_none());
        assert!(!store.probe(&request("w", 1)).await.expect("probed").due);
        store.set_paused("default", kind, false).await.expect("resumed");
    }
    store.set_paused("default", Some("b"), true).await.expect("paused");
    store.set_paused("other", None, true).await.expect("paused");
    assert!(claim(&*store, "w").await.is_some(), "another kind's and another queue's pause");
}
