//! Branches: at once and in order, failing alone, resumed where each had come to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_kernel::{Error, Retry};
use runtime_saga::{Definition, NewSaga, ParkReason, Saga, SignalRequest, Status, StepKey, What};
use serde_json::json;
use tokio::sync::Notify;

use super::world::{
    Outside, Running, context, done_and_undone, memory, nothing, over, refused, rests, sagas, unavailable,
};

fn go(name: &str) -> SignalRequest {
    SignalRequest { name: name.to_owned(), payload: json!(name), id: None }
}

#[tokio::test]
async fn both_branches_run_at_once_and_each_has_its_own_places() {
    let (store, _, clock) = memory();
    // Each waits for the other: one after the other they would never end.
    let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let code = Definition::new("j", 1, move |saga: Saga, (): ()| {
        let (first, second) = (Arc::clone(&first), Arc::clone(&second));
        async move {
            let meet = |mine: &Arc<Notify>, other: &Arc<Notify>, says: &'static str| {
                let (mine, other) = (Arc::clone(mine), Arc::clone(other));
                move |_: StepKey| {
                    let (mine, other) = (Arc::clone(&mine), Arc::clone(&other));
                    async move {
                        mine.notify_one();
                        other.notified().await;
                        Ok(says.to_owned())
                    }
                }
            };
            let (a, b) = (meet(&first, &second, "a"), meet(&second, &first, "b"));
            let both = saga.join(
                |branch| async move { branch.step("meet", a).await },
                |branch| async move {
                    let says = branch.step("meet", b).await?;
                    branch.step("and more", nothing).await?;
                    Ok(says)
                },
            );
            let both = both.await?;
            saga.step("after", nothing).await?;
            Ok(both)
        }
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("j", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    assert_eq!(over(&sagas, id).await.output, Some(json!(["a", "b"])), "in the order of the branches");
    let journal = sagas.show(&context(), id, 0).await.unwrap().journal;
    let mut places: Vec<_> = journal.into_iter().map(|entry| entry.position).collect();
    places.sort();
    assert_eq!(places, ["0.0.0", "0.1.0", "0.1.1", "1"]);
}

#[tokio::test]
async fn a_failed_branch_waits_for_its_sister_and_both_are_undone_in_reverse_of_their_completion() {
    for second_fails_too in [false, true] {
        let (store, manual, clock) = memory();
        let code = Definition::new("j", 1, move |saga: Saga, (): ()| async move {
            let undo = |(): (), _: StepKey| async { Ok(()) };
            saga.step("before", nothing).compensate("undo before", undo).await?;
            saga.join(
                |branch| async move {
                    branch.step("a", nothing).compensate("undo a", undo).await?;
                    Err::<(), Error>(refused())
                },
                |branch| async move {
                    branch.sleep("a while", Duration::from_mins(1)).await;
                    branch.step("b", nothing).compensate("undo b", undo).await?;
                    if second_fails_too { Err(unavailable().with_retry(Retry::Never)) } else { Ok(()) }
                },
            )
            .await?;
            saga.step("never", nothing).await
        });
        let sagas = sagas(&store, &clock, vec![code]);
        let id = sagas.start(&context(), NewSaga::new("j", ()).unwrap()).await.unwrap();
        let _worker = Running::start(&sagas);
        let waiting = rests(&sagas, id).await;
        assert_eq!(waiting.status, Status::Running, "the sister has not ended");
        manual.advance(Duration::from_mins(1));
        let ended = over(&sagas, id).await;
        assert_eq!(ended.failure.unwrap().code, "test.refused", "the first branch's error");
        let (done, undone) = done_and_undone(&sagas, id).await;
        assert_eq!(done, ["before", "a", "b"]);
        assert_eq!(undone, ["undo b", "undo a", "undo before"]);
    }
}

#[tokio::test]
async fn a_replay_repeats_no_branch_and_takes_up_each_where_it_was() {
    let (store, manual, clock) = memory();
    let outside = Outside::default();
    let order = Arc::new(Mutex::new(Vec::new()));
    let code = {
        let (outside, order) = (outside.clone(), Arc::clone(&order));
        Definition::new("j", 1, move |saga: Saga, (): ()| {
            let (outside, order) = (outside.clone(), Arc::clone(&order));
            async move {
                let act = move |name: &'static str| {
                    let outside = outside.clone();
                    move |key: StepKey| {
                        outside.call(&key, name);
                        async { Ok(()) }
                    }
                };
                let (a, b, c) = (act("a"), act("b"), act("c"));
                let got = saga
                    .join(
                        |branch| async move {
                            branch.step("a", a).await?;
                            let got: String = branch.signal("x").await;
                            branch.step("b", b).await?;
                            Ok(got)
                        },
                        |branch| async move {
                            branch.sleep("an hour", Duration::from_hours(1)).await;
                            branch.step("c", c).await?;
                            Ok(branch.signal::<String>("y").await)
                        },
                    )
                    .await?;
                order.lock().unwrap().push("joined");
                Ok(got)
            }
        })
    };
    // Another worker for each part of the way: nothing is in memory in between.
    let elsewhere = || sagas(&store, &clock, vec![code.clone()]);
    let id = elsewhere().start(&context(), NewSaga::new("j", ()).unwrap()).await.unwrap();
    let steps: [(&str, &[&str]); 4] =
        [("begin", &["a"]), ("x", &["a", "b"]), ("an hour", &["a", "b", "c"]), ("y", &["a", "b", "c"])];
    for (what, called) in steps {
        let here = elsewhere();
        match what {
            "begin" => {}
            "an hour" => manual.advance(Duration::from_hours(1)),
            name => assert!(here.signal(&context(), id, go(name)).await.unwrap()),
        }
        let before = here.get(&context(), id).await.unwrap().fence;
        let worker = Running::start(&here);
        super::world::until(&here, id, |now| now.worker.is_none() && now.fence > before).await;
        worker.kill().await;
        assert_eq!(outside.calls(), called, "after {what}");
    }
    let ended = elsewhere().get(&context(), id).await.unwrap();
    assert_eq!((ended.status, ended.output), (Status::Completed, Some(json!(["x", "y"]))));
    assert_eq!(*order.lock().unwrap(), ["joined"]);
}

#[tokio::test]
async fn branches_that_changed_places_park_the_saga() {
    let (store, _, clock) = memory();
    let code = |first: &'static str, second: &'static str| {
        Definition::new("j", 1, move |saga: Saga, (): ()| async move {
            saga.join(
                |branch| async move { branch.step(first, nothing).await },
                |branch| async move { branch.step(second, nothing).await },
            )
            .await?;
            Ok(saga.signal::<String>("go").await)
        })
    };
    let old = sagas(&store, &clock, vec![code("a", "b")]);
    let id = old.start(&context(), NewSaga::new("j", ()).unwrap()).await.unwrap();
    let worker = Running::start(&old);
    rests(&old, id).await;
    worker.kill().await;
    let new = sagas(&store, &clock, vec![code("b", "a")]);
    new.signal(&context(), id, go("go")).await.unwrap();
    let _worker = Running::start(&new);
    let parked = over(&new, id).await.parked;
    assert!(
        matches!(&parked, Some(ParkReason::NonDeterminism { position, .. }) if position == "0.0.0"),
        "{parked:?}"
    );
    let journal = new.show(&context(), id, 0).await.unwrap().journal;
    assert!(
        !journal.iter().any(|entry| matches!(entry.what, What::SignalReceived { .. })),
        "nothing was done"
    );
}
