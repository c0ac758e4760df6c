//! Signals, timers, timeouts, retries, joins, drains, and what the code of a saga sees.

use std::time::Duration;

use runtime_kernel::{Context, Name, Retry, Source, SystemClock, TenantContext};
use runtime_resilience::{Jitter, RetryPolicy};
use runtime_saga::{Definition, NewSaga, Saga, SagaError, SignalRequest, Status, StepKey, Steps, Worker};
use serde_json::json;

use super::world::{
    Outside, Running, context, done_and_undone, memory, nothing, over, refused, rests, sagas, unavailable,
    until,
};

fn signal(name: &str, payload: impl Into<serde_json::Value>) -> SignalRequest {
    SignalRequest { name: name.to_owned(), payload: payload.into(), id: None }
}

#[tokio::test]
async fn signals_before_and_after_they_are_awaited_are_each_consumed_once_in_order() {
    let (store, _, clock) = memory();
    let code = Definition::new("s", 1, |saga: Saga, (): ()| async move {
        let mut got: Vec<u32> = Vec::new();
        for _ in 0..3 {
            got.push(saga.signal("n").await);
        }
        Ok(got)
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("s", ()).unwrap()).await.unwrap();
    sagas.signal(&context(), id, signal("n", 1)).await.unwrap();
    sagas.signal(&context(), id, signal("other", 9)).await.unwrap();
    sagas.signal(&context(), id, signal("n", 2)).await.unwrap();
    let _worker = Running::start(&sagas);
    let waiting = until(&sagas, id, |instance| instance.worker.is_none() && instance.fence == 1).await;
    assert_eq!(waiting.due_at, None, "it is in no memory and on no timer");
    sagas.signal(&context(), id, signal("n", 3)).await.unwrap();
    let done = over(&sagas, id).await;
    assert_eq!(done.output, Some(json!([1, 2, 3])));
    let late = sagas.signal(&context(), id, signal("n", 4)).await;
    assert!(matches!(late, Err(SagaError::WrongState { .. })), "{late:?}");
}

#[tokio::test]
async fn a_signal_that_does_not_come_in_time_is_none_and_stays_none() {
    let (store, manual, clock) = memory();
    let code = Definition::new("s", 1, |saga: Saga, (): ()| async move {
        let first: Option<u32> = saga.signal_within("n", Duration::from_mins(10)).await;
        let second: u32 = saga.signal("n").await;
        Ok((first, second))
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("s", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    let waiting = rests(&sagas, id).await;
    assert_eq!(waiting.due_at, Some(waiting.created_at.saturating_add(Duration::from_mins(10))));
    manual.advance(Duration::from_mins(10));
    until(&sagas, id, |instance| instance.worker.is_none() && instance.due_at.is_none()).await;
    sagas.signal(&context(), id, signal("n", 5)).await.unwrap();
    assert_eq!(over(&sagas, id).await.output, Some(json!([null, 5])));
}

#[tokio::test]
async fn a_timer_survives_a_restart_and_ends_when_it_was_to_end() {
    let (store, manual, clock) = memory();
    let code = || {
        Definition::new("t", 1, |saga: Saga, (): ()| async move {
            saga.sleep("a day", Duration::from_hours(24)).await;
            saga.step("after", nothing).await
        })
    };
    let first = sagas(&store, &clock, vec![code()]);
    let id = first.start(&context(), NewSaga::new("t", ()).unwrap()).await.unwrap();
    let worker = Running::start(&first);
    let waiting = rests(&first, id).await;
    worker.kill().await;
    manual.advance(Duration::from_hours(23));
    let second = sagas(&store, &clock, vec![code()]);
    let _worker = Running::start(&second);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(second.get(&context(), id).await.unwrap().fence, waiting.fence, "nobody looked at it");
    manual.advance(Duration::from_hours(1));
    let done = over(&second, id).await;
    assert_eq!(done.ended_at, Some(done.created_at.saturating_add(Duration::from_hours(24))));
}

#[tokio::test]
async fn a_saga_that_takes_too_long_is_undone() {
    let (store, manual, clock) = memory();
    let outside = Outside::default();
    let code = {
        let outside = outside.clone();
        Definition::new("t", 1, move |saga: Saga, (): ()| {
            let outside = outside.clone();
            async move {
                let undo = move |(): (), key: StepKey| {
                    outside.call(&key, "undo");
                    async { Ok(()) }
                };
                saga.step("a", nothing).compensate("undo", undo).await?;
                let answer: u32 = saga.signal("never").await;
                Ok(answer)
            }
        })
        .timeout(Duration::from_hours(1))
    };
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("t", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    rests(&sagas, id).await;
    manual.advance(Duration::from_hours(1));
    let ended = over(&sagas, id).await;
    assert_eq!((ended.status, ended.failure.unwrap().code.as_str()), (Status::Compensated, "saga.timeout"));
    assert_eq!(outside.calls(), ["undo"]);
}

#[tokio::test]
async fn a_step_that_hangs_panics_or_fails_is_tried_again_at_its_time_with_the_same_key() {
    let (store, manual, clock) = memory();
    let outside = Outside::default();
    let code = {
        let outside = outside.clone();
        Definition::new("r", 1, move |saga: Saga, (): ()| {
            let outside = outside.clone();
            async move {
                let policy = RetryPolicy::constant(Duration::from_mins(1)).unwrap();
                let policy = policy.with_jitter(Jitter::None).unwrap().with_max_attempts(4).unwrap();
                let act = move |key: StepKey| {
                    outside.call(&key, "act");
                    async move {
                        match key.attempt() {
                            1 => std::future::pending().await,
                            2 => panic!("oh"),
                            3 => Err(unavailable().with_retry(Retry::After(Duration::from_mins(1)))),
                            attempt => Ok(attempt),
                        }
                    }
                };
                saga.step("act", act).retry(policy).timeout(Duration::from_secs(5)).await
            }
        })
    };
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("r", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    while outside.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    manual.advance(Duration::from_secs(5));
    for attempt in 1..=3 {
        let due = until(&sagas, id, |now| now.worker.is_none() && now.fence == attempt).await.due_at.unwrap();
        assert_eq!(due.duration_since(clock.utc()), Duration::from_mins(1), "it waits in the store");
        manual.advance(Duration::from_mins(1));
    }
    assert_eq!(over(&sagas, id).await.output, Some(json!(4)));
    assert_eq!(outside.applied().values().sum::<usize>(), 1, "one key");
    assert_eq!(outside.calls().len(), 4);
}

#[tokio::test]
async fn a_compensation_that_is_always_due_runs_for_a_step_whose_outcome_nobody_knows() {
    for cancelled in [false, true] {
        let (store, _, clock) = memory();
        let outside = Outside::default();
        let code = {
            let outside = outside.clone();
            Definition::new("u", 1, move |saga: Saga, (): ()| {
                let outside = outside.clone();
                async move {
                    let act = move |_key: StepKey| async move {
                        let retry =
                            if cancelled { Retry::After(Duration::from_mins(1)) } else { Retry::Never };
                        Err::<u32, _>(unavailable().with_retry(retry))
                    };
                    let undo = move |result: Option<u32>, key: StepKey| {
                        outside.call(&key, &format!("undo {result:?}"));
                        async { Ok(()) }
                    };
                    saga.step("act", act).compensate_always("undo", undo).await
                }
            })
        };
        let sagas = sagas(&store, &clock, vec![code]);
        let id = sagas.start(&context(), NewSaga::new("u", ()).unwrap()).await.unwrap();
        let _worker = Running::start(&sagas);
        if cancelled {
            rests(&sagas, id).await;
            sagas.cancel(&context(), id, "changed my mind").await.unwrap();
        }
        assert_eq!(over(&sagas, id).await.status, Status::Compensated);
        assert_eq!(outside.calls(), ["undo None"]);
    }
}

#[tokio::test]
async fn a_failed_branch_is_undone_with_its_sisters_also_those_still_waiting_for_a_retry() {
    let (store, manual, clock) = memory();
    let code = Definition::new("j", 1, move |saga: Saga, (): ()| async move {
        let all = saga.join_all(0..3_u32, |branch, number| async move {
            let act = move |key: StepKey| async move {
                match (number, key.attempt()) {
                    (0, _) => Err(refused()),
                    (1, 1) => Err(unavailable().with_retry(Retry::After(Duration::from_secs(1)))),
                    _ => Ok(number),
                }
            };
            let undo = |_: u32, _: StepKey| async { Ok(()) };
            branch.step(format!("s{number}"), act).compensate(format!("u{number}"), undo).await
        });
        Ok(all.await?.len())
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("j", ()).unwrap()).await.unwrap();
    let _worker = Running::start(&sagas);
    rests(&sagas, id).await;
    manual.advance(Duration::from_hours(1));
    assert_eq!(over(&sagas, id).await.failure.unwrap().code, "test.refused");
    let (done, undone) = done_and_undone(&sagas, id).await;
    assert_eq!(
        (done, undone),
        (vec!["s2".to_owned(), "s1".to_owned()], vec!["u1".to_owned(), "u2".to_owned()])
    );
}

#[tokio::test]
async fn declared_steps_hand_on_their_results_and_are_undone_with_their_own() {
    let (store, _, clock) = memory();
    let outside = Outside::default();
    let undo = |outside: &Outside, name: &'static str| {
        let outside = outside.clone();
        move |value: i64, key: StepKey| {
            outside.call(&key, &format!("{name} {value}"));
            async { Ok(()) }
        }
    };
    let code = Steps::<i64>::new()
        .step("double", |value, _| async move { Ok(value * 2) })
        .compensate("halve", undo(&outside, "halve"))
        .step("add", |value, _| async move { Ok(value + 1) })
        .compensate("subtract", undo(&outside, "subtract"))
        .step("check", |value, _| async move { if value > 10 { Err(refused()) } else { Ok(value) } })
        .definition("sum", 1);
    let sagas = sagas(&store, &clock, vec![code]);
    let _worker = Running::start(&sagas);
    let id = sagas.start(&context(), NewSaga::new("sum", 3).unwrap()).await.unwrap();
    assert_eq!(over(&sagas, id).await.output, Some(json!(7)));
    let id = sagas.start(&context(), NewSaga::new("sum", 5).unwrap()).await.unwrap();
    assert_eq!(over(&sagas, id).await.status, Status::Compensated);
    assert_eq!(outside.calls(), ["subtract 11", "halve 10"]);
}

#[tokio::test]
async fn a_stopping_worker_ends_the_step_it_is_in_and_gives_the_rest_back() {
    let (store, _, clock) = memory();
    let (entered, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let code = {
        let go_on = std::sync::Arc::clone(&go_on);
        Definition::new("d", 1, move |saga: Saga, (): ()| {
            let (go_on, entered) = (std::sync::Arc::clone(&go_on), entered.clone());
            async move {
                let slow = move |_key: StepKey| {
                    let (go_on, entered) = (std::sync::Arc::clone(&go_on), entered.clone());
                    async move {
                        entered.send(()).unwrap();
                        go_on.notified().await;
                        Ok(())
                    }
                };
                saga.step("slow", slow).await?;
                saga.step("next", nothing).await
            }
        })
    };
    let sagas = sagas(&store, &clock, vec![code]);
    let id = sagas.start(&context(), NewSaga::new("d", ()).unwrap()).await.unwrap();
    let worker = Worker::new(sagas.clone()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(async { drop(stopped.await) }).await });
    inside.recv().await.unwrap();
    stop.send(()).unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    running.await.unwrap();
    let (done, _) = done_and_undone(&sagas, id).await;
    assert_eq!(done, ["slow"], "the step it was in ended, and the next did not begin");
    let back = sagas.get(&context(), id).await.unwrap();
    assert_eq!((back.worker, back.due_at), (None, Some(clock.utc())));
    let _worker = Running::start(&sagas);
    assert_eq!(over(&sagas, id).await.status, Status::Completed);
}

#[tokio::test]
async fn tenant_and_trace_travel_and_other_tenants_see_nothing() {
    let (store, _, clock) = memory();
    let code = Definition::new("c", 1, |saga: Saga, (): ()| async move {
        let who = |key: StepKey| async move {
            let context = key.context();
            Ok((context.tenant.as_ref().unwrap().namespace(), context.trace.trace_id_hex()))
        };
        saga.step("who", who).await
    });
    let sagas = sagas(&store, &clock, vec![code]);
    let tenant = |name| TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap());
    let acme = Context::new(Source::Http, &SystemClock).with_tenant(tenant("acme"));
    let other = Context::new(Source::Http, &SystemClock).with_tenant(tenant("other"));
    let id = sagas.start(&acme, NewSaga::new("c", ()).unwrap().key("k")).await.unwrap();
    assert_eq!(sagas.start(&acme, NewSaga::new("c", ()).unwrap().key("k")).await.unwrap(), id);
    let _worker = Running::start(&sagas);
    while !sagas.get(&acme, id).await.unwrap().status.is_over() {
        tokio::task::yield_now().await;
    }
    let seen = sagas.show(&acme, id, 0).await.unwrap();
    assert_eq!(seen.output, Some(json!(["main/acme", acme.trace.trace_id_hex()])));
    assert!(matches!(sagas.show(&other, id, 0).await, Err(SagaError::NotFound(_))));
    assert!(sagas.list(&other, runtime_saga::store::Filter::default()).await.unwrap().is_empty());
    let text = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<runtime_saga::Seen>(&text).unwrap(), seen);
}

#[tokio::test]
async fn what_is_too_large_unknown_or_without_a_reason_is_refused() {
    let (store, _, clock) = memory();
    let code = Definition::new("c", 1, |saga: Saga, _: String| async move { saga.step("a", nothing).await });
    let sagas = sagas(&store, &clock, vec![code]);
    let large = sagas.start(&context(), NewSaga::new("c", "x".repeat(300_000)).unwrap()).await;
    assert!(matches!(large, Err(SagaError::TooLarge { what: "input", limit: 262_144, .. })), "{large:?}");
    for unknown in [NewSaga::new("d", "").unwrap(), NewSaga::new("c", "").unwrap().version(2)] {
        let refused = sagas.start(&context(), unknown).await;
        assert!(matches!(refused, Err(SagaError::UnknownType(_))), "{refused:?}");
    }
    let id = sagas.start(&context(), NewSaga::new("c", "").unwrap()).await.unwrap();
    let unsaid = sagas.cancel(&context(), id, " ").await;
    assert!(matches!(unsaid, Err(SagaError::Invalid(_))), "{unsaid:?}");
}
