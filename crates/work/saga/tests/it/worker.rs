//! What becomes of a worker's claims when the worker, its store or its turn does not do as it should.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use runtime_kernel::SystemClock;
use runtime_saga::store::SagaStore;
use runtime_saga::{
    Definition, Definitions, NewSaga, ParkReason, Saga, SagaError, SagaId, Sagas, Status, StepKey, Worker,
};
use tokio::sync::Notify;

use super::hooked::{At, Hooked, When};
use super::world::{
    Outside, Running, config, context, done_and_undone, memory, nothing, over, refused, rests, sagas, until,
};

#[tokio::test]
async fn a_worker_that_is_dropped_does_nothing_more() {
    let (store, _, clock) = memory();
    let still_used: Weak<dyn SagaStore> = Arc::downgrade(&store);
    let waits =
        Definition::new("w", 1, |saga: Saga, (): ()| async move { Ok(saga.signal::<u32>("n").await) });
    let sagas = sagas(&store, &clock, vec![waits]);
    let id = sagas.start(&context(), NewSaga::new("w", ()).unwrap()).await.unwrap();
    let worker = Worker::new(sagas.clone()).unwrap();
    {
        let mut running = Box::pin(worker.run(std::future::pending()));
        tokio::select! {
            () = &mut running => {}
            _ = rests(&sagas, id) => {}
        }
    }
    drop((worker, sagas, store));
    // Nothing was awaited since. A heartbeat that outlives its worker, if only by a moment, extends a lease nobody keeps.
    assert!(still_used.upgrade().is_none());
}

#[tokio::test]
async fn a_turn_that_panics_or_is_refused_gives_its_saga_back_before_the_lease_runs_out() {
    for panics in [false, true] {
        let (store, manual, clock) = memory();
        let appended = AtomicU64::new(0);
        let unlucky = Hooked::over(store, move |at| {
            // The decision to undo, the first time.
            let now = at == At::Append(When::Before) && appended.fetch_add(1, Ordering::SeqCst) == 1;
            assert!(!(now && panics), "the store panics");
            let id = SagaId::new(&SystemClock);
            async move { if now { Err(SagaError::LeaseLost(id)) } else { Ok(()) } }
        });
        let code = Definition::new("w", 1, |saga: Saga, (): ()| async move {
            saga.step("a", nothing).compensate("undo a", |(), _| async { Ok(()) }).await?;
            Err::<(), _>(refused())
        });
        let sagas = sagas(&unlucky, &clock, vec![code]);
        let id = sagas.start(&context(), NewSaga::new("w", ()).unwrap()).await.unwrap();
        let _worker = Running::start(&sagas);
        let back = rests(&sagas, id).await;
        assert_eq!(back.due_at, Some(back.created_at.saturating_add(Duration::from_secs(1))));
        manual.advance(Duration::from_secs(1));
        assert_eq!(over(&sagas, id).await.status, Status::Compensated);
        let (done, undone) = done_and_undone(&sagas, id).await;
        assert_eq!((done, undone), (vec!["a".to_owned()], vec!["undo a".to_owned()]));
    }
}

#[tokio::test]
async fn a_cancel_reaches_a_saga_in_hand_with_the_next_heartbeat_and_lets_its_step_end() {
    let (store, manual, clock) = memory();
    let (entered, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hooked = {
        let told = Arc::clone(&told);
        Hooked::over(store, move |at| {
            if at == At::Heartbeat(When::After) {
                told.notify_one();
            }
            async { Ok(()) }
        })
    };
    let (inside, go_on) = (Arc::clone(&entered), Arc::new(Notify::new()));
    let held = Arc::clone(&go_on);
    let code = Definition::new("c", 1, move |saga: Saga, (): ()| {
        let (inside, held) = (Arc::clone(&inside), Arc::clone(&held));
        async move {
            let slow = move |_: StepKey| {
                let (inside, held) = (Arc::clone(&inside), Arc::clone(&held));
                async move {
                    inside.notify_one();
                    held.notified().await;
                    Ok(())
                }
            };
            saga.step("slow", slow).compensate("undo slow", |(), _| async { Ok(()) }).await?;
            saga.step("next", nothing).await
        }
    });
    let here = sagas(&hooked, &clock, vec![code]);
    let elsewhere = sagas(&hooked, &clock, Vec::new());
    let id = here.start(&context(), NewSaga::new("c", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&here);
    entered.notified().await;
    elsewhere.cancel(&context(), id, "no longer wanted").await.unwrap();
    manual.advance(here.config().heartbeat);
    told.notified().await;
    tokio::task::yield_now().await;
    assert_eq!(here.get(&context(), id).await.unwrap().fence, 1, "nobody else has it");
    go_on.notify_one();
    let ended = over(&here, id).await;
    assert_eq!((ended.status, ended.failure.unwrap().code.as_str()), (Status::Compensated, "saga.cancelled"));
    let (done, undone) = done_and_undone(&here, id).await;
    assert_eq!((done, undone), (vec!["slow".to_owned()], vec!["undo slow".to_owned()]));
}

#[tokio::test]
async fn a_full_journal_parks_the_saga_before_the_next_step_and_does_not_keep_it_from_being_undone() {
    let (store, _, clock) = memory();
    let outside = Outside::default();
    let code = {
        let outside = outside.clone();
        Definition::new("long", 1, move |saga: Saga, (): ()| {
            let outside = outside.clone();
            async move {
                for _ in 0..10 {
                    let outside = outside.clone();
                    let act = move |key: StepKey| {
                        outside.call(&key, "one more");
                        async { Ok(()) }
                    };
                    saga.step("one more", act).compensate("one less", |(), _| async { Ok(()) }).await?;
                }
                Ok(())
            }
        })
    };
    let mut config = config();
    config.max_journal = 4;
    let sagas = Sagas::new(store, Definitions::new().with(code).unwrap(), config, clock);
    let id = sagas.start(&context(), NewSaga::new("long", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    let parked = over(&sagas, id).await;
    assert_eq!((parked.status, parked.parked), (Status::Parked, Some(ParkReason::JournalFull { limit: 4 })));
    assert_eq!(outside.calls().len(), 4, "nothing was done that could not be written down");
    sagas.cancel(&context(), id, "too long").await.unwrap();
    let ended = until(&sagas, id, |instance| instance.status.is_over()).await;
    assert_eq!(ended.status, Status::Compensated);
    assert_eq!(done_and_undone(&sagas, id).await.1.len(), 4);
}
