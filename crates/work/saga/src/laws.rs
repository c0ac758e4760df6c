//! The laws every store keeps, stated once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Context, ErrorKind, ManualClock, Source, SystemClock};
use serde_json::json;

use crate::error::SagaError;
use crate::instance::{Asked, Failure, Instance, ParkReason, SagaId, Status};
use crate::journal::{Entry, What};
use crate::store::{ClaimRequest, Claimed, Filter, NewInstance, NewSignal, Remedy, SagaStore, Settle};

/// A store under test whose time can be moved.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn SagaStore>;
    /// Lets time pass for it.
    async fn elapse(&self, by: Duration);
}

const LEASE: Duration = Duration::from_secs(30);

/// Every law, each on a store of its own.
///
/// # Panics
/// When one is broken.
pub async fn all<H: Harness>(mut fresh: impl AsyncFnMut() -> H) {
    a_key_begins_one_saga_per_tenant_and_type(&fresh().await).await;
    a_lease_keeps_others_away_until_it_runs_out(&fresh().await).await;
    a_journal_takes_entries_of_the_latest_claim_only(&fresh().await).await;
    what_waits_is_due_when_its_time_comes_or_it_is_poked(&fresh().await).await;
    a_poke_during_a_claim_is_not_lost(&fresh().await).await;
    a_signal_id_counts_once_and_signals_have_a_limit(&fresh().await).await;
    a_tenant_sees_and_touches_its_own_only(&fresh().await).await;
    a_parked_saga_stands_still_until_it_is_seen_to(&fresh().await).await;
    a_cancel_sets_a_parked_saga_going(&fresh().await).await;
    what_nobody_knows_is_parked_and_taken_by_the_first_that_does(&fresh().await).await;
    lists_are_filtered_and_paged(&fresh().await).await;
    what_is_over_is_forgotten_in_time(&fresh().await).await;
}

/// A saga of type `a`, version 1.
pub fn new(tenant: &str, key: Option<&str>) -> NewInstance {
    NewInstance {
        id: SagaId::new(&SystemClock),
        tenant: tenant.to_owned(),
        name: "a".to_owned(),
        version: 1,
        key: key.map(str::to_owned),
        input: json!({ "text": "ü\u{0}\"" }),
        context: Context::new(Source::Internal, &ManualClock::new()).carry(&ManualClock::new()),
        timeout: None,
    }
}

async fn claim(store: &Arc<dyn SagaStore>, worker: &str, kinds: &[&str]) -> Vec<Claimed> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let request = ClaimRequest { worker: worker.to_owned(), kinds, max: 10, lease: LEASE };
    store.claim(&request).await.unwrap().claimed
}

async fn one(store: &Arc<dyn SagaStore>, worker: &str) -> Claimed {
    let mut claimed = claim(store, worker, &["a@1"]).await;
    assert_eq!(claimed.len(), 1);
    claimed.pop().unwrap()
}

async fn get(store: &Arc<dyn SagaStore>, id: SagaId) -> Instance {
    store.get("t", id).await.unwrap().unwrap()
}

fn entry(claimed: &Claimed, seq: u64) -> Entry {
    let what = What::TimerSet { name: "x".to_owned(), until: claimed.instance.created_at };
    Entry { seq, at: claimed.instance.created_at, position: "0".to_owned(), what }
}

fn asked() -> Asked {
    Asked { by: Some("ann".to_owned()), reason: "why not".to_owned() }
}

fn failure() -> Failure {
    Failure::new(ErrorKind::Conflict, "no", "no")
}

fn wait() -> Settle {
    Settle::Wait { until: None, failure: None, pokes: 0 }
}

fn lost<T: std::fmt::Debug>(done: &Result<T, SagaError>) {
    assert!(matches!(done, Err(SagaError::LeaseLost(_))), "{done:?}");
}

fn wrong_state<T: std::fmt::Debug>(done: &Result<T, SagaError>) {
    assert!(matches!(done, Err(SagaError::WrongState { .. })), "{done:?}");
}

fn signal(id: Option<&str>) -> NewSignal {
    NewSignal { name: "go".to_owned(), id: id.map(str::to_owned), payload: json!(1) }
}

async fn a_key_begins_one_saga_per_tenant_and_type(harness: &dyn Harness) {
    let store = harness.store();
    let first = new("t", Some("k"));
    let id = store.start(&first).await.unwrap();
    assert_eq!(id, first.id);
    assert_eq!(store.start(&new("t", Some("k"))).await.unwrap(), id);
    assert_ne!(store.start(&new("u", Some("k"))).await.unwrap(), id);
    assert_ne!(store.start(&NewInstance { name: "b".to_owned(), ..new("t", Some("k")) }).await.unwrap(), id);
    assert_ne!(store.start(&new("t", None)).await.unwrap(), store.start(&new("t", None)).await.unwrap());
    let kept = get(&store, id).await;
    assert_eq!((kept.input, kept.key, kept.status), (first.input, first.key, Status::Running));
    assert_eq!(kept.context, first.context);
}

async fn a_lease_keeps_others_away_until_it_runs_out(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    assert!(claim(&store, "w", &["a@2", "b@1"]).await.is_empty());
    let first = one(&store, "w1").await;
    assert_eq!((first.instance.id, first.instance.fence), (id, 1));
    assert!(claim(&store, "w2", &["a@1"]).await.is_empty());
    harness.elapse(LEASE / 2).await;
    let beats = store.heartbeat("w1", &[id], LEASE).await.unwrap();
    assert_eq!((beats[0].id, beats[0].fence), (id, 1));
    assert!(store.heartbeat("w2", &[id], LEASE).await.unwrap().is_empty());
    harness.elapse(LEASE * 3 / 4).await;
    assert!(claim(&store, "w2", &["a@1"]).await.is_empty());
    harness.elapse(LEASE / 2).await;
    assert_eq!(one(&store, "w2").await.instance.fence, 2);
    assert!(store.heartbeat("w1", &[id], LEASE).await.unwrap().is_empty());
}

async fn a_journal_takes_entries_of_the_latest_claim_only(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    lost(
        &store
            .append(
                id,
                0,
                &entry(&Claimed { instance: get(&store, id).await, journal: vec![], signals: vec![] }, 1),
            )
            .await,
    );
    let first = one(&store, "w1").await;
    store.append(id, 1, &entry(&first, 1)).await.unwrap();
    lost(&store.append(id, 1, &entry(&first, 1)).await);
    harness.elapse(LEASE).await;
    let second = one(&store, "w2").await;
    assert_eq!(second.journal, [entry(&first, 1)]);
    lost(&store.append(id, 1, &entry(&first, 2)).await);
    lost(&store.settle(id, 1, &Settle::Completed(json!(1))).await);
    store.append(id, 2, &entry(&first, 2)).await.unwrap();
    store.settle(id, 2, &Settle::Completed(json!("done"))).await.unwrap();
    lost(&store.append(id, 2, &entry(&first, 3)).await);
    lost(&store.settle(id, 2, &wait()).await);
    let over = get(&store, id).await;
    assert_eq!((over.status, over.output, over.worker), (Status::Completed, Some(json!("done")), None));
    assert!(over.ended_at.is_some() && over.due_at.is_none());
    assert_eq!(store.journal(id, 0, 10).await.unwrap().len(), 2);
    assert_eq!(store.journal(id, 1, 10).await.unwrap(), [entry(&first, 2)]);
    assert_eq!(store.journal(id, 0, 1).await.unwrap(), [entry(&first, 1)]);
}

async fn what_waits_is_due_when_its_time_comes_or_it_is_poked(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    let first = one(&store, "w").await;
    let until = Some(first.instance.created_at.saturating_add(Duration::from_mins(10)));
    let settle = Settle::Wait { until, failure: Some(failure()), pokes: 0 };
    store.settle(id, 1, &settle).await.unwrap();
    let waits = get(&store, id).await;
    assert_eq!((waits.status, waits.failure, waits.due_at), (Status::Compensating, Some(failure()), until));
    harness.elapse(Duration::from_mins(5)).await;
    let request = ClaimRequest { worker: "w".into(), kinds: vec!["a@1".into()], max: 1, lease: LEASE };
    let claims = store.claim(&request).await.unwrap();
    assert!(claims.claimed.is_empty());
    let left = claims.next.unwrap().duration_since(claims.now);
    assert!(left > Duration::from_mins(4) && left <= Duration::from_mins(5), "{left:?}");
    harness.elapse(Duration::from_mins(6)).await;
    one(&store, "w").await;
    store.settle(id, 2, &wait()).await.unwrap();
    assert_eq!(get(&store, id).await.due_at, None);
    assert!(claim(&store, "w", &["a@1"]).await.is_empty());
    assert!(store.signal("t", id, &signal(None), 10).await.unwrap());
    assert_eq!(one(&store, "w").await.signals[0].name, "go");
}

async fn a_poke_during_a_claim_is_not_lost(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    one(&store, "w").await;
    store.signal("t", id, &signal(None), 10).await.unwrap();
    assert_eq!(store.heartbeat("w", &[id], LEASE).await.unwrap()[0].pokes, 1);
    store.settle(id, 1, &wait()).await.unwrap();
    let again = one(&store, "w").await;
    assert_eq!((again.signals.len(), again.instance.pokes), (1, 1));
    store.cancel("t", id, &asked()).await.unwrap();
    assert_eq!(store.heartbeat("w", &[id], LEASE).await.unwrap()[0].cancel, Some(asked()));
    store.settle(id, 2, &Settle::Wait { until: None, failure: None, pokes: 1 }).await.unwrap();
    let again = one(&store, "w").await;
    assert_eq!(again.instance.cancel, Some(asked()));
    store.settle(id, 3, &Settle::Wait { until: None, failure: None, pokes: 2 }).await.unwrap();
    assert!(claim(&store, "w", &["a@1"]).await.is_empty());
}

async fn a_signal_id_counts_once_and_signals_have_a_limit(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    assert!(store.signal("t", id, &signal(Some("x")), 3).await.unwrap());
    assert!(!store.signal("t", id, &signal(Some("x")), 3).await.unwrap());
    assert!(store.signal("t", id, &signal(None), 3).await.unwrap());
    assert!(store.signal("t", id, &signal(None), 3).await.unwrap());
    let full = store.signal("t", id, &signal(None), 3).await;
    assert!(matches!(full, Err(SagaError::TooManySignals { limit: 3, .. })), "{full:?}");
    let numbers: Vec<_> = store.signals(id, 1).await.unwrap().iter().map(|signal| signal.number).collect();
    assert_eq!(numbers, [2, 3]);
    one(&store, "w").await;
    store.settle(id, 1, &Settle::Completed(json!(null))).await.unwrap();
    wrong_state(&store.signal("t", id, &signal(None), 10).await);
    assert!(!store.signal("t", id, &signal(Some("x")), 10).await.unwrap());
}

async fn a_tenant_sees_and_touches_its_own_only(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    assert_eq!(store.get("u", id).await.unwrap(), None);
    for done in [
        store.signal("u", id, &signal(None), 9).await.map(drop),
        store.cancel("u", id, &asked()).await,
        store.remedy("u", id, Remedy::Retry, &asked()).await,
    ] {
        assert!(matches!(done, Err(SagaError::NotFound(_))), "{done:?}");
    }
    let filter = Filter { tenant: Some("u".to_owned()), ..Filter::default() };
    assert!(store.list(&filter).await.unwrap().is_empty());
}

async fn a_parked_saga_stands_still_until_it_is_seen_to(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    wrong_state(&store.remedy("t", id, Remedy::Retry, &asked()).await);
    one(&store, "w").await;
    let (position, name) = ("0".to_owned(), "refund".to_owned());
    let reason = ParkReason::CompensationFailed { position, name, failure: failure() };
    let park = Settle::Park { reason: reason.clone(), failure: Some(failure()) };
    store.settle(id, 1, &park).await.unwrap();
    let parked = get(&store, id).await;
    assert_eq!((parked.status, parked.parked), (Status::Parked, Some(reason)));
    assert_eq!(store.parked().await.unwrap(), 1);
    store.signal("t", id, &signal(None), 9).await.unwrap();
    wrong_state(&store.cancel("t", id, &asked()).await);
    harness.elapse(Duration::from_hours(1)).await;
    assert!(claim(&store, "w", &["a@1"]).await.is_empty());
    store.remedy("t", id, Remedy::Retry, &asked()).await.unwrap();
    let again = one(&store, "w").await;
    assert_eq!((again.instance.status, again.instance.parked.is_none()), (Status::Compensating, true));
    assert_eq!(store.parked().await.unwrap(), 0);
    assert!(matches!(&again.journal[0].what, What::Retried { asked: who } if *who == asked()));
    store.settle(id, 2, &park).await.unwrap();
    store.remedy("t", id, Remedy::Resolve, &asked()).await.unwrap();
    let again = one(&store, "w").await;
    assert_eq!(again.journal[1].position, "0");
    let reason = ParkReason::Panicked { message: "oh".to_owned() };
    store.settle(id, 3, &Settle::Park { reason, failure: None }).await.unwrap();
    store.remedy("t", id, Remedy::Resolve, &asked()).await.unwrap();
    let over = get(&store, id).await;
    assert_eq!((over.status, over.due_at, over.parked), (Status::Resolved, None, None));
    assert_eq!(store.journal(id, 2, 9).await.unwrap()[0].position, "");
    wrong_state(&store.cancel("t", id, &asked()).await);
}

async fn a_cancel_sets_a_parked_saga_going(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    one(&store, "w").await;
    let reason = ParkReason::Panicked { message: "oh".to_owned() };
    store.settle(id, 1, &Settle::Park { reason, failure: None }).await.unwrap();
    store.cancel("t", id, &asked()).await.unwrap();
    store.cancel("t", id, &Asked { reason: "again".to_owned(), ..asked() }).await.unwrap();
    let again = one(&store, "w").await;
    assert_eq!((again.instance.status, again.instance.cancel), (Status::Running, Some(asked())));
}

async fn what_nobody_knows_is_parked_and_taken_by_the_first_that_does(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", None)).await.unwrap();
    let (after, known) = (Duration::from_mins(1), ["b@1".to_owned()]);
    assert_eq!(store.park_unregistered(&known, after, 10).await.unwrap(), 0);
    harness.elapse(Duration::from_mins(2)).await;
    assert_eq!(store.park_unregistered(&["a@1".to_owned()], after, 10).await.unwrap(), 0);
    assert_eq!(store.park_unregistered(&known, after, 10).await.unwrap(), 1);
    assert_eq!(store.park_unregistered(&[], after, 10).await.unwrap(), 0);
    let parked = get(&store, id).await;
    assert_eq!(parked.status, Status::Parked);
    assert_eq!(parked.parked, Some(ParkReason::Unregistered { kind: "a@1".to_owned() }));
    assert_eq!(one(&store, "w").await.instance.status, Status::Running);
    assert_eq!(get(&store, id).await.parked, None);
}

async fn lists_are_filtered_and_paged(harness: &dyn Harness) {
    let store = harness.store();
    let mut ids = Vec::new();
    for key in [Some("k"), None, None] {
        ids.push(store.start(&new("t", key)).await.unwrap());
    }
    store.start(&new("u", None)).await.unwrap();
    ids.reverse();
    let list = async |filter: Filter| {
        let filter = Filter { tenant: Some("t".to_owned()), ..filter };
        store.list(&filter).await.unwrap().iter().map(|instance| instance.id).collect::<Vec<_>>()
    };
    assert_eq!(list(Filter::default()).await, ids);
    assert_eq!(list(Filter { limit: Some(2), ..Filter::default() }).await, ids[..2]);
    assert_eq!(list(Filter { before: Some(ids[1]), ..Filter::default() }).await, ids[2..]);
    assert_eq!(list(Filter { key: Some("k".to_owned()), ..Filter::default() }).await, ids[2..]);
    assert_eq!(list(Filter { name: Some("b".to_owned()), ..Filter::default() }).await, []);
    assert_eq!(list(Filter { status: Some(Status::Running), ..Filter::default() }).await, ids);
    assert_eq!(list(Filter { status: Some(Status::Parked), ..Filter::default() }).await, []);
}

async fn what_is_over_is_forgotten_in_time(harness: &dyn Harness) {
    let store = harness.store();
    let id = store.start(&new("t", Some("k"))).await.unwrap();
    let claimed = one(&store, "w").await;
    store.append(id, 1, &entry(&claimed, 1)).await.unwrap();
    store.settle(id, 1, &Settle::Compensated(failure())).await.unwrap();
    let open = store.start(&new("t", None)).await.unwrap();
    harness.elapse(Duration::from_mins(5)).await;
    assert_eq!(store.prune(Duration::from_mins(10), 10).await.unwrap(), 0);
    assert_eq!(get(&store, id).await.failure, Some(failure()));
    harness.elapse(Duration::from_mins(6)).await;
    assert_eq!(store.prune(Duration::from_mins(10), 10).await.unwrap(), 1);
    assert_eq!(store.get("t", id).await.unwrap(), None);
    assert!(store.journal(id, 0, 10).await.unwrap().is_empty());
    assert!(store.get("t", open).await.unwrap().is_some());
    assert_ne!(store.start(&new("t", Some("k"))).await.unwrap(), id);
}
