//! The laws every idempotency store keeps, stated once and run on each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use crate::idempotency::{Begun, IdempotencyStore, Key};

/// A store under test, and a way to let its time pass.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The store, empty at first.
    fn store(&self) -> Arc<dyn IdempotencyStore>;
    /// Lets so much of the store's time pass.
    async fn elapse(&self, by: Duration);
}

const LEASE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_hours(24);

/// Runs every law, each on a store of its own.
pub async fn all<H: Harness>(make: impl AsyncFn() -> H) {
    an_answer_is_given_again_until_it_is_forgotten(&make().await).await;
    one_of_many_who_begin_at_once_has_the_key(&make().await).await;
    a_key_is_one_payloads_tenants_and_commands(&make().await).await;
    a_lost_holder_cannot_finish_anothers_command(&make().await).await;
    an_abandoned_key_is_free_at_once(&make().await).await;
}

fn key(tenant: &str, command: &str) -> Key {
    Key { tenant: tenant.to_owned(), command: command.to_owned(), key: "k".to_owned() }
}

async fn begin(store: &dyn IdempotencyStore, key: &Key) -> Begun {
    store.begin(key, "print", LEASE).await.expect("begun")
}

async fn started(store: &dyn IdempotencyStore, key: &Key) -> u64 {
    match begin(store, key).await {
        Begun::Started(fence) => Some(fence),
        _ => None,
    }
    .expect("the key was free")
}

async fn an_answer_is_given_again_until_it_is_forgotten<H: Harness>(harness: &H) {
    let (store, key) = (harness.store(), key("t", "c"));
    let fence = started(&*store, &key).await;
    let waiting = begin(&*store, &key).await;
    assert!(matches!(waiting, Begun::InFlight(left) if left <= LEASE && left > LEASE / 2), "{waiting:?}");
    let answer = json!({ "order": 1 });
    assert!(store.finish(&key, fence, &answer, DAY).await.expect("finished"));
    assert_eq!(begin(&*store, &key).await, Begun::Done(answer.clone()));
    assert!(!store.finish(&key, fence, &json!(2), DAY).await.expect("asked"), "once is enough");
    store.abandon(&key, fence).await.expect("asked");
    harness.elapse(DAY / 2).await;
    assert_eq!(store.prune(10).await.expect("pruned"), 0);
    assert_eq!(begin(&*store, &key).await, Begun::Done(answer), "what is done is not given back");
    harness.elapse(DAY).await;
    assert_eq!(store.prune(10).await.expect("pruned"), 1);
    assert!(started(&*store, &key).await > fence, "a fence is never given twice");
}

async fn one_of_many_who_begin_at_once_has_the_key<H: Harness>(harness: &H) {
    let store = harness.store();
    let racers = (0..16).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { begin(&*store, &key("t", "c")).await })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        winners += u32::from(matches!(racer.await.expect("a racer ends"), Begun::Started(_)));
    }
    assert_eq!(winners, 1);
}

async fn a_key_is_one_payloads_tenants_and_commands<H: Harness>(harness: &H) {
    let store = harness.store();
    let fence = started(&*store, &key("t", "c")).await;
    for other in [key("u", "c"), key("t", "d"), key("", "c")] {
        started(&*store, &other).await;
    }
    let reused = async || store.begin(&key("t", "c"), "another", LEASE).await.expect("asked");
    assert_eq!(reused().await, Begun::Reused);
    assert!(store.finish(&key("t", "c"), fence, &json!(1), DAY).await.expect("finished"));
    assert_eq!(reused().await, Begun::Reused, "also once it is done");
}

async fn a_lost_holder_cannot_finish_anothers_command<H: Harness>(harness: &H) {
    let (store, key) = (harness.store(), key("t", "c"));
    let lost = started(&*store, &key).await;
    harness.elapse(LEASE * 2).await;
    assert!(!store.finish(&key, lost, &json!("late"), DAY).await.expect("asked"), "its lease has run out");
    let fence = started(&*store, &key).await;
    assert!(fence > lost);
    assert!(!store.finish(&key, lost, &json!("late"), DAY).await.expect("asked"));
    store.abandon(&key, lost).await.expect("asked");
    assert!(store.finish(&key, fence, &json!("mine"), DAY).await.expect("finished"));
    assert_eq!(begin(&*store, &key).await, Begun::Done(json!("mine")));
}

async fn an_abandoned_key_is_free_at_once<H: Harness>(harness: &H) {
    let (store, key) = (harness.store(), key("t", "c"));
    let first = started(&*store, &key).await;
    store.abandon(&key, first).await.expect("given back");
    assert!(started(&*store, &key).await > first);
}
