//! What parks a saga, and how an operator gets it going again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime_kernel::Principal;
use runtime_saga::{Definition, NewSaga, ParkReason, Saga, SagaError, SignalRequest, Status, StepKey, What};
use serde_json::json;

use super::world::{
    Outside, Running, context, done_and_undone, memory, nothing, over, refused, rests, sagas, until,
};

fn go() -> SignalRequest {
    SignalRequest { name: "go".to_owned(), payload: json!(null), id: None }
}

/// Three steps undone in reverse; the middle one's compensation fails while told so.
fn stubborn(outside: &Outside, fails: &Arc<AtomicBool>) -> Definition {
    let (outside, fails) = (outside.clone(), Arc::clone(fails));
    Definition::new("stubborn", 1, move |saga: Saga, (): ()| {
        let (outside, fails) = (outside.clone(), Arc::clone(&fails));
        async move {
            for name in ["a", "b", "c"] {
                let (outside, fails) = (outside.clone(), Arc::clone(&fails));
                let undo = move |(): (), key: StepKey| {
                    let fails = name == "b" && fails.load(Ordering::SeqCst);
                    outside.call(&key, &format!("undo {name}"));
                    async move { if fails { Err(refused()) } else { Ok(()) } }
                };
                saga.step(name, nothing).compensate(format!("undo {name}"), undo).await?;
            }
            Err::<(), _>(refused())
        }
    })
}

#[tokio::test]
async fn a_compensation_that_fails_for_good_parks_the_saga_and_can_be_retried_or_resolved() {
    for resolve in [false, true] {
        let (store, _, clock) = memory();
        let (outside, fails) = (Outside::default(), Arc::new(AtomicBool::new(true)));
        let sagas = sagas(&store, &clock, vec![stubborn(&outside, &fails)]);
        let id = sagas.start(&context(), NewSaga::new("stubborn", ()).unwrap()).await.unwrap();
        let _worker = Running::start(&sagas);
        let parked = over(&sagas, id).await;
        assert_eq!(parked.status, Status::Parked);
        let Some(ParkReason::CompensationFailed { position, name, failure }) = parked.parked else {
            panic!("{:?}", parked.parked)
        };
        assert_eq!(
            (position.as_str(), name.as_str(), failure.code.as_str()),
            ("1", "undo b", "test.refused")
        );
        assert_eq!(outside.calls(), ["undo c", "undo b"]);
        let filter = serde_json::from_value(json!({"status": "parked"})).unwrap();
        assert_eq!(sagas.list(&context(), filter).await.unwrap()[0].id, id);
        let ann = context().with_principal(Principal::system("ann"));
        if resolve {
            sagas.resolve(&ann, id, "refunded by hand").await.unwrap();
        } else {
            fails.store(false, Ordering::SeqCst);
            sagas.retry(&ann, id, "the bank is back").await.unwrap();
        }
        let ended = over(&sagas, id).await;
        assert_eq!(
            (ended.status, ended.failure.unwrap().code.as_str()),
            (Status::Compensated, "test.refused")
        );
        let calls = outside.calls();
        let then: &[&str] = if resolve { &["undo a"] } else { &["undo b", "undo a"] };
        assert_eq!(&calls[2..], then);
        let journal = sagas.show(&context(), id, 0).await.unwrap().journal;
        let asked = journal.iter().find_map(|entry| match &entry.what {
            What::Retried { asked } | What::Resolved { asked } => Some(asked.clone()),
            _ => None,
        });
        assert!(asked.unwrap().by.unwrap().contains("ann"));
    }
}

#[tokio::test]
async fn a_changed_order_of_steps_parks_the_saga_and_the_right_code_takes_it_up_again() {
    fn code(outside: &Outside, steps: &'static [&'static str], wait: bool) -> Definition {
        let outside = outside.clone();
        Definition::new("n", 1, move |saga: Saga, (): ()| {
            let outside = outside.clone();
            async move {
                for name in steps {
                    let outside = outside.clone();
                    let act = move |key: StepKey| {
                        outside.call(&key, name);
                        async { Ok(()) }
                    };
                    saga.step(*name, act)
                        .compensate(format!("undo {name}"), |(), _| async { Ok(()) })
                        .await?;
                }
                if wait {
                    saga.signal::<()>("go").await;
                }
                saga.step("last", nothing).await
            }
        })
    }
    for (changed, waits, position, recorded, found) in [
        (&["b", "a"][..], true, "0", "step `a`", "step `b`"),
        (&["a", "x", "b"][..], true, "1", "step `b`", "step `x`"),
        (&["a"][..], true, "1", "step `b`", "signal `go`"),
    ] {
        let (store, _, clock) = memory();
        let outside = Outside::default();
        let right = sagas(&store, &clock, vec![code(&outside, &["a", "b"], true)]);
        let id = right.start(&context(), NewSaga::new("n", ()).unwrap()).await.unwrap();
        let worker = Running::start(&right);
        rests(&right, id).await;
        worker.kill().await;
        let wrong = sagas(&store, &clock, vec![code(&outside, changed, waits)]);
        let worker = Running::start(&wrong);
        wrong.signal(&context(), id, go()).await.unwrap();
        let parked = over(&wrong, id).await.parked.unwrap();
        worker.kill().await;
        let expected = ParkReason::NonDeterminism {
            position: position.to_owned(),
            recorded: recorded.to_owned(),
            found: found.to_owned(),
        };
        assert_eq!(parked, expected);
        assert!(matches!(parked.as_error(), Some(SagaError::NonDeterminism { .. })));
        assert_eq!(outside.calls(), ["a", "b"], "nothing was done by the wrong code");
        let _worker = Running::start(&right);
        right.retry(&context(), id, "the right code is back").await.unwrap();
        assert_eq!(over(&right, id).await.status, Status::Completed);
    }
}

#[tokio::test]
async fn a_compensation_the_code_no_longer_has_parks_the_saga_instead_of_being_dropped() {
    fn code(undone: bool) -> Definition {
        Definition::new("n", 1, move |saga: Saga, (): ()| async move {
            let step = saga.step("a", nothing);
            let step = if undone { step.compensate("undo a", |(), _| async { Ok(()) }) } else { step };
            step.await?;
            saga.signal::<()>("go").await;
            Ok(())
        })
    }
    let (store, manual, clock) = memory();
    let right = sagas(&store, &clock, vec![code(true)]);
    let id = right.start(&context(), NewSaga::new("n", ()).unwrap()).await.unwrap();
    let worker = Running::start(&right);
    rests(&right, id).await;
    worker.kill().await;
    right.cancel(&context(), id, "no more").await.unwrap();
    let wrong = sagas(&store, &clock, vec![code(false)]);
    let worker = Running::start(&wrong);
    let parked = loop {
        let instance = wrong.get(&context(), id).await.unwrap();
        if let Some(parked) = instance.parked {
            break parked;
        }
        manual.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    };
    worker.kill().await;
    assert!(matches!(&parked, ParkReason::NonDeterminism { position, .. } if position == "0"), "{parked:?}");
    let _worker = Running::start(&right);
    right.retry(&context(), id, "the right code is back").await.unwrap();
    assert_eq!(over(&right, id).await.status, Status::Compensated);
    assert_eq!(done_and_undone(&right, id).await.1, ["undo a"]);
}

#[tokio::test]
async fn a_saga_goes_on_under_the_version_it_began_with() {
    let version = |number: u32| {
        Definition::new("v", number, move |saga: Saga, (): ()| async move {
            saga.signal::<()>("go").await;
            Ok(number)
        })
    };
    let (store, manual, clock) = memory();
    let old = sagas(&store, &clock, vec![version(1)]);
    let first = old.start(&context(), NewSaga::new("v", ()).unwrap()).await.unwrap();
    let both = sagas(&store, &clock, vec![version(1), version(2)]);
    let second = both.start(&context(), NewSaga::new("v", ()).unwrap()).await.unwrap();
    // Nobody knows version 2 any longer: it is parked and shown, and taken up by the first who does.
    let worker = Running::start(&old);
    until(&old, second, |instance| {
        manual.advance(Duration::from_secs(1));
        instance.parked == Some(ParkReason::Unregistered { kind: "v@2".to_owned() })
    })
    .await;
    worker.kill().await;
    let _worker = Running::start(&both);
    for (id, number) in [(first, 1), (second, 2)] {
        both.signal(&context(), id, go()).await.unwrap();
        let done = until(&both, id, |instance| instance.status.is_over()).await;
        assert_eq!(done.output, Some(json!(number)));
    }
}

#[tokio::test]
async fn a_cancel_undoes_what_was_done_and_comes_too_late_for_what_is_over() {
    let (store, _, clock) = memory();
    let code = Definition::new("c", 1, |saga: Saga, (): ()| async move {
        saga.step("a", nothing).compensate("undo a", |(), _| async { Ok(()) }).await?;
        saga.signal::<()>("go").await;
        saga.step("b", nothing).await
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("c", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    rests(&sagas, id).await;
    sagas.cancel(&context(), id, "changed my mind").await.unwrap();
    let ended = over(&sagas, id).await;
    let failure = ended.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("saga.cancelled", "cancelled: changed my mind")
    );
    assert_eq!(done_and_undone(&sagas, id).await, (vec!["a".to_owned()], vec!["undo a".to_owned()]));
    let late = sagas.cancel(&context(), id, "again").await;
    assert!(matches!(late, Err(SagaError::WrongState { state: "compensated", .. })), "{late:?}");
}

#[tokio::test]
async fn panics_and_results_that_cannot_be_kept_park_the_saga_and_an_operator_may_end_it() {
    let (store, _, clock) = memory();
    let panics = Definition::new("panics", 1, |saga: Saga, (): ()| async move {
        saga.step("a", nothing).await?;
        assert!(saga.id().to_string().is_empty(), "oh no");
        Ok(())
    });
    let large = Definition::new("large", 1, |saga: Saga, (): ()| async move {
        saga.step("a", |_| async { Ok("x".repeat(300_000)) }).await
    });
    let odd = Definition::new("odd", 1, |saga: Saga, _: u32| async move { saga.step("a", nothing).await });
    let sagas = sagas(&store, &clock, vec![panics, large, odd]);
    let _worker = Running::start(&sagas);
    for (name, reason) in [("panics", "oh no"), ("large", "300002 bytes"), ("odd", "the input is not")] {
        let id = sagas.start(&context(), NewSaga::new(name, ()).unwrap()).await.unwrap();
        let parked = over(&sagas, id).await.parked.unwrap();
        assert!(parked.to_string().contains(reason), "{parked}");
        sagas.resolve(&context(), id, "seen to by hand").await.unwrap();
        assert_eq!(sagas.get(&context(), id).await.unwrap().status, Status::Resolved);
    }
}
