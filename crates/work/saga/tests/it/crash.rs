//! A worker that dies before and after each write and each effect, and another that goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime_kernel::{Error, Timestamp};
use runtime_saga::laws::Harness;
use runtime_saga::store::SagaStore;
use runtime_saga::{Definition, NewSaga, Saga, SignalRequest, Status, StepKey};
use tokio::sync::Notify;

use super::hooked::{At, Hooked};
use super::stores::Kept;
use super::world::{Outside, Running, context, done_and_undone, over, refused, sagas};

/// Stops everything at its n-th point, for ever.
struct Killer {
    at: u64,
    seen: AtomicU64,
    hit: Notify,
}

impl Killer {
    fn new(at: u64) -> Arc<Self> {
        Arc::new(Self { at, seen: AtomicU64::new(0), hit: Notify::new() })
    }

    async fn point(&self) {
        if self.seen.fetch_add(1, Ordering::SeqCst) >= self.at {
            self.hit.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A real store, with a point before and after each write, and after each claim.
fn deadly(store: Arc<dyn SagaStore>, killer: &Arc<Killer>) -> Arc<dyn SagaStore> {
    let killer = Arc::clone(killer);
    Hooked::over(store, move |at| {
        let killer = Arc::clone(&killer);
        async move {
            if matches!(at, At::Append(_) | At::Settle(_) | At::Claimed) {
                killer.point().await;
            }
            Ok(())
        }
    })
}

/// Two steps, a signal, two branches, a timer long past, and a last step that fails or not.
fn trip(outside: &Outside, killer: &Arc<Killer>, fails: bool) -> Definition {
    let (outside, killer) = (outside.clone(), Arc::clone(killer));
    let effect = move |name: &'static str| {
        let (outside, killer) = (outside.clone(), Arc::clone(&killer));
        move |key: StepKey| {
            let (outside, killer) = (outside.clone(), Arc::clone(&killer));
            async move {
                killer.point().await;
                outside.call(&key, name);
                killer.point().await;
                Ok::<_, Error>(name.to_owned())
            }
        }
    };
    let undo = {
        let effect = effect.clone();
        move |name: &'static str| {
            let effect = effect(name);
            move |_: String, key: StepKey| {
                let done = effect(key);
                async move { done.await.map(drop) }
            }
        }
    };
    Definition::new("trip", 1, move |saga: Saga, (): ()| {
        let (effect, undo) = (effect.clone(), undo.clone());
        async move {
            saga.step("a", effect("a")).compensate("undo a", undo("undo a")).await?;
            let brought: u32 = saga.signal("go").await;
            saga.step("b", effect("b")).compensate("undo b", undo("undo b")).await?;
            saga.join(
                |branch| {
                    let (c, undo_c) = (effect("c"), undo("undo c"));
                    async move { branch.step("c", c).compensate("undo c", undo_c).await }
                },
                |branch| {
                    let (d, undo_d) = (effect("d"), undo("undo d"));
                    async move {
                        branch.sleep_until("past", Timestamp::UNIX_EPOCH).await;
                        branch.step("d", d).compensate("undo d", undo_d).await
                    }
                },
            )
            .await?;
            saga.step("e", effect("e")).await?;
            if fails {
                return Err(refused());
            }
            Ok(brought)
        }
    })
}

async fn survives_every_death(fresh: impl AsyncFn() -> Kept, fails: bool, stride: usize) {
    for at in (0..).step_by(stride) {
        let (harness, outside, killer) = (fresh().await, Outside::default(), Killer::new(at));
        let store = harness.store();
        let deadly = deadly(Arc::clone(&store), &killer);
        let first = sagas(&deadly, &harness.clock, vec![trip(&outside, &killer, fails)]);
        let id = first.start(&context(), NewSaga::new("trip", ()).unwrap()).await.unwrap();
        let go = SignalRequest { name: "go".to_owned(), payload: 7.into(), id: None };
        first.signal(&context(), id, go).await.unwrap();
        let worker = Running::start(&first);
        let died = tokio::select! {
            () = killer.hit.notified() => true,
            instance = over(&first, id) => { assert!(instance.parked.is_none()); false }
        };
        worker.kill().await;
        // The lease of whoever died runs out.
        harness.elapse(Duration::from_secs(31)).await;
        let second = sagas(&store, &harness.clock, vec![trip(&outside, &Killer::new(u64::MAX), fails)]);
        let _worker = Running::start(&second);
        let ended = over(&second, id).await;
        let (done, undone) = done_and_undone(&second, id).await;
        let mut expected: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(
            {
                let mut done = done.clone();
                done.sort();
                done
            },
            expected,
            "at {at}: {:#?}",
            second.show(&context(), id, 0).await.unwrap()
        );
        if fails {
            assert_eq!(ended.status, Status::Compensated, "at {at}");
            assert_eq!(ended.failure.unwrap().code, "test.refused");
            let backwards = done.iter().rev().filter(|name| *name != "e").map(|name| format!("undo {name}"));
            assert_eq!(undone, backwards.collect::<Vec<_>>(), "at {at}");
            expected.extend(undone);
        } else {
            assert_eq!((ended.status, ended.output), (Status::Completed, Some(7.into())), "at {at}");
            assert_eq!(undone, [""; 0]);
        }
        let applied = outside.applied();
        assert!(applied.values().all(|count| *count == 1), "at {at}: {applied:?}");
        assert_eq!(applied.len(), expected.len(), "at {at}");
        if !died {
            assert!(at > 20, "there were points to die at");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_a_saga_survives_death_at_every_point() {
    survives_every_death(async || super::stores::memory(), false, 1).await;
    survives_every_death(async || super::stores::memory(), true, 1).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_saga_survives_death_at_every_point() {
    survives_every_death(super::stores::sqlite, false, 1).await;
    survives_every_death(super::stores::sqlite, true, 1).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_saga_survives_death_at_every_point() {
    survives_every_death(super::stores::postgres, true, 1).await;
}
