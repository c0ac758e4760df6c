//! Orders, steps that are due, and replicas that agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use runtime_kernel::{ManualClock, Timestamp};
use runtime_rollout::{
    Change, Evidence, Kind, MemoryRollouts, Order, Phase, Plan, Rollout, RolloutError, RolloutService,
    RolloutStore, Rollouts, RoutesConfig, Side, Step, Sticky, Subject, WHOLE,
};
use tokio::sync::oneshot;
use tower::{Service, ServiceExt, service_fn};

type Changes = Arc<Mutex<Vec<(Phase, u32, bool)>>>;

fn config(kind: Kind) -> RoutesConfig {
    let mut config = RoutesConfig::default();
    let step = |weight| Step { weight, hold: Duration::from_mins(1), min_requests: 20 };
    (config.kind, config.plan) =
        (kind, Plan { steps: vec![step(500), step(5_000)], drain: Duration::from_secs(30) });
    config.sticky = vec![Sticky::Request];
    config
}

/// One of several processes over one store.
fn replica(store: &MemoryRollouts, clock: &ManualClock, kind: Kind) -> (Rollouts, Changes) {
    let changes = Changes::default();
    let kept = Arc::clone(&changes);
    let observe = move |change: &Change| {
        kept.lock().unwrap().push((change.after.phase, change.after.weight, change.by_itself));
    };
    let routes = BTreeMap::from([("shop".to_owned(), config(kind))]);
    let rollouts = Rollouts::new(Arc::new(store.clone()), routes, Arc::new(clock.clone()), observe).unwrap();
    (rollouts, changes)
}

/// Sends requests of as many subjects; of the canary every so many fail.
async fn traffic(rollouts: &Rollouts, requests: u32, canary_fails_every: Option<u32>) -> u32 {
    let answer = |fails: bool| {
        move |_: Request<()>| async move {
            let status = if fails { 500 } else { 200 };
            Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(()).unwrap())
        }
    };
    let mut canary = 0;
    for subject in 0..requests {
        let service = RolloutService::new(
            rollouts,
            "shop",
            service_fn(answer(false)),
            service_fn(answer(canary_fails_every.is_some_and(|every| subject % every == 0))),
        );
        let mut request = Request::new(());
        request.extensions_mut().insert(Subject(format!("user-{subject}")));
        canary +=
            u32::from(rollouts.current("shop").unwrap().side(&format!("user-{subject}")) == Side::Canary);
        service.unwrap().ready().await.unwrap().call(request).await.unwrap();
    }
    canary
}

#[tokio::test]
async fn a_good_canary_goes_step_by_step_to_everything_and_replicas_agree() {
    let (store, clock) = (MemoryRollouts::new(), ManualClock::new());
    let [(one, told), (two, untold)] =
        [replica(&store, &clock, Kind::Canary), replica(&store, &clock, Kind::Canary)];
    one.refresh().await.unwrap();
    two.refresh().await.unwrap();
    assert_eq!(traffic(&one, 200, None).await, 0, "at rest");
    one.order("shop", &Order::Start, "v2").await.unwrap();
    two.refresh().await.unwrap();
    assert_eq!(two.current("shop").unwrap().weight, 500, "the other has heard of it");
    let sides = |rollouts: &Rollouts| {
        let rollout = rollouts.current("shop").unwrap();
        (0..1_000).map(|user| rollout.side(&format!("user-{user}"))).collect::<Vec<_>>()
    };
    assert_eq!(sides(&one), sides(&two), "and sends everybody to the same side");

    clock.advance(Duration::from_mins(2));
    one.refresh().await.unwrap();
    assert_eq!(one.current("shop").unwrap().step, 0, "long enough, and too few requests");
    for replica in [&one, &two] {
        traffic(replica, 400, None).await;
        replica.refresh().await.unwrap();
    }
    one.refresh().await.unwrap();
    assert_eq!(
        (one.current("shop").unwrap().step, one.current("shop").unwrap().weight),
        (1, 5_000),
        "together they have"
    );
    clock.advance(Duration::from_secs(30));
    traffic(&one, 400, None).await;
    one.refresh().await.unwrap();
    assert_eq!(one.current("shop").unwrap().step, 1, "enough requests, and too soon");
    clock.advance(Duration::from_secs(30));
    one.refresh().await.unwrap();
    assert_eq!(one.current("shop").unwrap().phase, Phase::Promoted);
    let (again, _) = replica(&store, &clock, Kind::Canary);
    again.refresh().await.unwrap();
    assert_eq!(sides(&again), vec![Side::Canary; 1_000], "after a restart as well");
    let all: Vec<_> = told.lock().unwrap().iter().chain(&*untold.lock().unwrap()).copied().collect();
    let moved = |weight| all.iter().filter(|(_, own, by_itself)| *own == weight && *by_itself).count();
    assert_eq!((moved(5_000), moved(10_000)), (1, 1), "each step was taken once: {all:?}");
}

#[tokio::test]
async fn a_bad_canary_is_rolled_back_by_itself_with_the_reason() {
    let (store, clock) = (MemoryRollouts::new(), ManualClock::new());
    let (rollouts, changes) = replica(&store, &clock, Kind::Canary);
    rollouts.order("shop", &Order::Weight(3_000), "").await.unwrap();
    rollouts.order("shop", &Order::Resume, "").await.unwrap();
    for _ in 0..20 {
        traffic(&rollouts, 100, Some(3)).await;
        clock.advance(Duration::from_secs(1));
        rollouts.refresh().await.unwrap();
    }
    let rollout = rollouts.current("shop").unwrap();
    assert_eq!((rollout.phase, rollout.weight), (Phase::RolledBack, 0));
    assert!(rollout.reason.starts_with("the canary fails more often"), "{}", rollout.reason);
    assert_eq!(*changes.lock().unwrap().last().unwrap(), (Phase::RolledBack, 0, true));
    assert_eq!(traffic(&rollouts, 200, None).await, 0);
}

#[tokio::test]
async fn after_a_weight_of_somebodys_choice_the_steps_go_on_from_there_and_never_back() {
    let settled = async |rollouts: &Rollouts, clock: &ManualClock| {
        let mut weights = Vec::new();
        for _ in 0..10 {
            let rollout = rollouts.current("shop").unwrap();
            weights.push(rollout.weight);
            if rollout.phase != Phase::Running {
                break;
            }
            for _ in 0..500 {
                rollouts.answered("shop", Side::Canary, false, false).unwrap();
                rollouts.answered("shop", Side::Primary, false, false).unwrap();
            }
            clock.advance(Duration::from_mins(10));
            rollouts.refresh().await.unwrap();
        }
        (rollouts.current("shop").unwrap().phase, weights)
    };
    let all = vec![100, 500, 2_500, 5_000, WHOLE];
    for (before, weight, then) in [
        (vec![], 4_000, vec![4_000, 5_000, WHOLE]),
        (vec![], 50, [vec![50], all.clone()].concat()),
        (vec![], WHOLE, vec![WHOLE, WHOLE]),
        (vec![Order::Start], 100, all.clone()),
        (vec![Order::Start, Order::Advance, Order::Advance, Order::Rollback], 100, all.clone()),
        (vec![Order::Start], 2_500, vec![2_500, 5_000, WHOLE]),
    ] {
        let clock = ManualClock::new();
        let routes = BTreeMap::from([("shop".to_owned(), RoutesConfig::default())]);
        let rollouts =
            Rollouts::new(Arc::new(MemoryRollouts::new()), routes, Arc::new(clock.clone()), |_| {}).unwrap();
        for order in &before {
            rollouts.order("shop", order, "").await.unwrap();
        }
        if before == [Order::Start] {
            assert_eq!(settled(&rollouts, &clock).await, (Phase::Promoted, all.clone()));
        }
        for order in [Order::Weight(weight), Order::Resume] {
            rollouts.order("shop", &order, "").await.unwrap();
        }
        assert_eq!(settled(&rollouts, &clock).await, (Phase::Promoted, then), "{before:?} {weight}");
    }
}

#[tokio::test]
async fn blue_green_switches_only_to_what_was_verified_drains_and_goes_back_at_once() {
    let (store, clock) = (MemoryRollouts::new(), ManualClock::new());
    let (rollouts, _) = replica(&store, &clock, Kind::BlueGreen);
    let order = async |order: &Order| rollouts.order("shop", order, "").await;
    let refused = |answer: Result<Rollout, RolloutError>| matches!(answer, Err(RolloutError::Refused { .. }));
    assert!(refused(order(&Order::Switch).await) && refused(order(&Order::Rollback).await));
    order(&Order::Prepare).await.unwrap();
    assert!(refused(order(&Order::Switch).await), "not verified");
    order(&Order::Pin("tester".to_owned(), Side::Canary)).await.unwrap();
    let current = || rollouts.current("shop").unwrap();
    assert_eq!((current().side("tester"), current().side("user")), (Side::Canary, Side::Primary));
    order(&Order::Verify).await.unwrap();
    let switched = order(&Order::Switch).await.unwrap();
    assert!(matches!(switched.phase, Phase::Draining { .. }) && switched.side("user") == Side::Canary);
    assert!(refused(order(&Order::Prepare).await), "the other side is still draining");
    let back = order(&Order::Rollback).await.unwrap();
    assert_eq!(back.side("user"), Side::Primary, "at once");
    clock.advance(Duration::from_secs(29));
    rollouts.refresh().await.unwrap();
    assert!(matches!(current().phase, Phase::Draining { .. }));
    clock.advance(Duration::from_secs(1));
    rollouts.refresh().await.unwrap();
    assert_eq!((current().phase, current().weight), (Phase::Idle, 0));
    order(&Order::Prepare).await.unwrap();
    assert_eq!(current().phase, Phase::Prepared { side: Side::Canary, verified: false });
}

#[tokio::test]
async fn orders_that_do_not_fit_are_refused_and_say_why() {
    for (kind, before, order, fits) in [
        (Kind::Canary, vec![], Order::Pause, false),
        (Kind::Canary, vec![], Order::Rollback, false),
        (Kind::Canary, vec![], Order::Advance, false),
        (Kind::Canary, vec![], Order::Prepare, false),
        (Kind::Canary, vec![], Order::Weight(10_001), false),
        (Kind::Canary, vec![], Order::Unpin("a".to_owned()), false),
        (Kind::Canary, vec![Order::Start], Order::Start, false),
        (Kind::Canary, vec![Order::Start], Order::Resume, false),
        (Kind::Canary, vec![Order::Start], Order::Pause, true),
        (Kind::Canary, vec![Order::Start, Order::Pause], Order::Resume, true),
        (Kind::Canary, vec![Order::Start, Order::Advance], Order::Advance, true),
        (Kind::Canary, vec![Order::Start, Order::Promote], Order::Rollback, true),
        (Kind::Canary, vec![Order::Start, Order::Rollback], Order::Start, true),
        (Kind::Canary, vec![Order::Weight(1)], Order::Resume, true),
        (Kind::BlueGreen, vec![], Order::Start, false),
        (Kind::BlueGreen, vec![], Order::Verify, false),
        (Kind::BlueGreen, vec![Order::Prepare], Order::Rollback, true),
        (Kind::BlueGreen, vec![Order::Prepare, Order::Rollback], Order::Rollback, false),
        (Kind::BlueGreen, vec![Order::Prepare, Order::Verify], Order::Switch, true),
        (Kind::BlueGreen, vec![Order::Prepare, Order::Verify, Order::Switch], Order::Rollback, true),
        (
            Kind::BlueGreen,
            vec![Order::Prepare, Order::Verify, Order::Switch, Order::Rollback],
            Order::Rollback,
            false,
        ),
    ] {
        let (rollouts, _) = replica(&MemoryRollouts::new(), &ManualClock::new(), kind);
        for order in &before {
            rollouts.order("shop", order, "").await.unwrap();
        }
        match rollouts.order("shop", &order, "because").await {
            Ok(rollout) => assert!(fits && rollout.reason.ends_with("because"), "{before:?} {order:?}"),
            Err(error) => {
                assert!(!fits && error.to_string().contains(order.as_str()), "{before:?} {order:?}: {error}");
            }
        }
    }
    let (rollouts, _) = replica(&MemoryRollouts::new(), &ManualClock::new(), Kind::Canary);
    assert!(matches!(rollouts.order("nosuch", &Order::Start, "").await, Err(RolloutError::Unknown(_))));
}

#[tokio::test]
async fn what_is_made_ready_anew_is_no_longer_a_side_to_go_back_to() {
    let (store, clock) = (MemoryRollouts::new(), ManualClock::new());
    let (rollouts, _) = replica(&store, &clock, Kind::BlueGreen);
    for order in [Order::Prepare, Order::Verify, Order::Switch] {
        rollouts.order("shop", &order, "").await.unwrap();
    }
    clock.advance(Duration::from_secs(30));
    rollouts.refresh().await.unwrap();
    for order in [Order::Prepare, Order::Rollback] {
        rollouts.order("shop", &order, "").await.unwrap();
    }
    let twice = rollouts.order("shop", &Order::Rollback, "").await;
    assert!(matches!(twice, Err(RolloutError::Refused { .. })));
    assert_eq!(rollouts.current("shop").unwrap().active(), Side::Canary);
}

#[test]
fn a_rollout_stored_before_it_said_which_side_was_left_can_be_read() {
    let plan = config(Kind::BlueGreen).plan;
    let rollout = Rollout::new("shop", Kind::BlueGreen, plan, Timestamp::UNIX_EPOCH);
    let mut stored = serde_json::to_value(&rollout).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("left").is_some());
    assert_eq!(serde_json::from_value::<Rollout>(stored).unwrap(), rollout);
}

/// Told once it has been read, and what lets the answer go.
type Hold = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// A store that keeps one answer back: tells that it has read, and waits until it is let go.
#[derive(Clone, Debug, Default)]
struct Held {
    store: Arc<Mutex<MemoryRollouts>>,
    next: Arc<Mutex<Option<Hold>>>,
}

impl Held {
    fn store(&self) -> MemoryRollouts {
        self.store.lock().unwrap().clone()
    }
}

#[async_trait]
impl RolloutStore for Held {
    async fn list(&self) -> Result<Vec<Rollout>, RolloutError> {
        self.store().list().await
    }

    async fn get(&self, name: &str) -> Result<Option<Rollout>, RolloutError> {
        let answer = self.store().get(name).await;
        let next = self.next.lock().unwrap().take();
        if let Some((read, go)) = next {
            read.send(()).unwrap();
            go.await.unwrap();
        }
        answer
    }

    async fn put(&self, rollout: &Rollout) -> Result<bool, RolloutError> {
        self.store().put(rollout).await
    }

    async fn add(&self, name: &str, generation: u64, seen: Evidence) -> Result<Evidence, RolloutError> {
        self.store().add(name, generation, seen).await
    }
}

#[tokio::test]
async fn what_was_read_before_an_order_does_not_undo_it() {
    let held = Held::default();
    let routes = BTreeMap::from([("shop".to_owned(), config(Kind::BlueGreen))]);
    let clock = Arc::new(ManualClock::new());
    let rollouts = Rollouts::new(Arc::new(held.clone()), routes, clock, |_| {}).unwrap();
    for order in [Order::Prepare, Order::Verify, Order::Switch] {
        rollouts.order("shop", &order, "").await.unwrap();
    }
    let ((read, has_read), (go, gone)) = (oneshot::channel(), oneshot::channel());
    *held.next.lock().unwrap() = Some((read, gone));
    let order = async {
        has_read.await.unwrap();
        rollouts.order("shop", &Order::Rollback, "").await.unwrap();
        go.send(()).unwrap();
    };
    let (refreshed, ()) = tokio::join!(rollouts.refresh(), order);
    refreshed.unwrap();
    assert_eq!(rollouts.current("shop").unwrap().active(), Side::Primary);

    // What is older on purpose counts: a store that was put back to a backup.
    let (backup, mut before) = (MemoryRollouts::new(), (*rollouts.current("shop").unwrap()).clone());
    (before.revision, before.phase, before.weight) = (1, Phase::Idle, WHOLE);
    assert!(backup.put(&before).await.unwrap());
    *held.store.lock().unwrap() = backup;
    rollouts.refresh().await.unwrap();
    assert_eq!(rollouts.current("shop").unwrap().active(), Side::Canary);
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    let step = |weight| Step { weight, hold: Duration::ZERO, min_requests: 0 };
    for (change, key) in [
        ((|c| c.path = "/shop".to_owned()) as fn(&mut RoutesConfig), "path"),
        (|c| (c.path, c.primary, c.canary) = ("shop".into(), "http://a".into(), "http://b".into()), "path"),
        (|c| (c.path, c.primary, c.canary) = ("/shop".into(), "a:80".into(), "http://b".into()), "primary"),
        (|c| c.sticky.clear(), "sticky"),
        (|c| c.slow = Duration::ZERO, "slow"),
        (|c| c.analysis.alpha = 0.0, "analysis.alpha"),
        (|c| c.plan.steps.clear(), "plan.steps"),
    ] {
        let mut config = RoutesConfig::default();
        change(&mut config);
        let routes = BTreeMap::from([("shop".to_owned(), config)]);
        let made =
            Rollouts::new(Arc::new(MemoryRollouts::new()), routes, Arc::new(ManualClock::new()), |_| {});
        assert!(made.unwrap_err().to_string().contains(key), "{key}");
    }
    for steps in [vec![step(0)], vec![step(10_001)], vec![step(5), step(5)], vec![step(9), step(5)]] {
        let mut config = RoutesConfig::default();
        config.plan.steps = steps;
        let routes = BTreeMap::from([("shop".to_owned(), config)]);
        assert!(
            Rollouts::new(Arc::new(MemoryRollouts::new()), routes, Arc::new(ManualClock::new()), |_| {})
                .is_err()
        );
    }
}

#[tokio::test]
async fn what_was_seen_before_a_step_says_nothing_of_it() {
    let (store, clock) = (MemoryRollouts::new(), ManualClock::new());
    let (rollouts, _) = replica(&store, &clock, Kind::Canary);
    rollouts.refresh().await.unwrap();
    for _ in 0..500 {
        rollouts.answered("shop", Side::Canary, true, true).unwrap();
        rollouts.answered("shop", Side::Primary, false, false).unwrap();
    }
    rollouts.order("shop", &Order::Start, "").await.unwrap();
    for _ in 0..3 {
        rollouts.refresh().await.unwrap();
    }
    let rollout = rollouts.current("shop").unwrap();
    assert_eq!((rollout.phase, rollout.analysis.seen(Side::Canary).requests), (Phase::Running, 0));
    assert!(rollouts.answered("nosuch", Side::Canary, true, true).is_err());
}
