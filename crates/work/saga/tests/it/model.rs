//! Random outcomes of steps and compensations, beside a model that is a loop.

use proptest::prelude::*;
use runtime_kernel::{Error, ErrorKind, Retry};
use runtime_resilience::RetryPolicy;
use runtime_saga::{Definition, NewSaga, Saga, Status, StepKey};

use super::world::{Outside, Running, context, memory, refused, sagas};

const ATTEMPTS: u32 = 3;

/// Fails so often, then succeeds; or fails for good at once.
#[derive(Clone, Copy, Debug)]
enum Luck {
    After(u32),
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    act: Luck,
    undo: Option<Luck>,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let luck = || prop_oneof![6 => Just(Luck::After(0)), 3 => (1..=ATTEMPTS).prop_map(Luck::After), 1 => Just(Luck::Never)];
    let plan = (luck(), proptest::option::of(luck())).prop_map(|(act, undo)| Plan { act, undo });
    proptest::collection::vec(plan, 0..6)
}

fn try_once(luck: Luck, attempt: u32) -> Result<(), Error> {
    match luck {
        Luck::Never => Err(refused()),
        Luck::After(failures) if attempt > failures => Ok(()),
        Luck::After(_) => {
            Err(Error::new(ErrorKind::Unavailable, "test.again", "again").with_retry(Retry::Now))
        }
    }
}

/// What is called, and whether it succeeds in the end.
fn calls(name: &str, luck: Luck, log: &mut Vec<String>) -> bool {
    for attempt in 1..=ATTEMPTS {
        log.push(name.to_owned());
        match try_once(luck, attempt) {
            Ok(()) => return true,
            Err(error) if error.retry() == Retry::Never => return false,
            Err(_) => {}
        }
    }
    false
}

fn model(plans: &[Plan]) -> (Status, Vec<String>) {
    let (mut log, mut done) = (Vec::new(), Vec::new());
    for (number, plan) in plans.iter().enumerate() {
        if !calls(&format!("act {number}"), plan.act, &mut log) {
            for (number, luck) in done.into_iter().rev() {
                if !calls(&format!("undo {number}"), luck, &mut log) {
                    return (Status::Parked, log);
                }
            }
            return (Status::Compensated, log);
        }
        done.extend(plan.undo.map(|luck| (number, luck)));
    }
    (Status::Completed, log)
}

fn code(plans: Vec<Plan>, outside: Outside) -> Definition {
    Definition::new("p", 1, move |saga: Saga, (): ()| {
        let (plans, outside) = (plans.clone(), outside.clone());
        async move {
            let policy = RetryPolicy::default().with_max_attempts(ATTEMPTS).unwrap();
            for (number, plan) in plans.into_iter().enumerate() {
                let (acts, undoes) = (outside.clone(), outside.clone());
                let act = move |key: StepKey| {
                    acts.call(&key, &format!("act {number}"));
                    async move { try_once(plan.act, key.attempt()) }
                };
                let mut step = saga.step("act", act).retry(policy.clone()).compensation_retry(policy.clone());
                if let Some(luck) = plan.undo {
                    step = step.compensate("undo", move |(), key: StepKey| {
                        undoes.call(&key, &format!("undo {number}"));
                        async move { try_once(luck, key.attempt()) }
                    });
                }
                step.await?;
            }
            Ok(())
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_saga_does_what_a_loop_would_do(plans in plans()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (status, log) = model(&plans);
        let (found, calls) = runtime.block_on(async {
            let (store, _, clock) = memory();
            let outside = Outside::default();
            let sagas = sagas(&store, &clock, vec![code(plans, outside.clone())]);
            let id = sagas.start(&context(), NewSaga::new("p", ()).unwrap()).await.unwrap();
            let _worker = Running::start(&sagas);
            let ended = loop {
                let instance = sagas.get(&context(), id).await.unwrap();
                if instance.status.is_over() || instance.parked.is_some() {
                    break instance;
                }
                tokio::task::yield_now().await;
            };
            (ended.status, outside.calls())
        });
        prop_assert_eq!((found, calls), (status, log));
    }
}
