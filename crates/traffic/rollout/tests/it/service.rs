//! Where a request goes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use runtime_kernel::{
    Context, Deadline, ManualClock, Name, Principal, PrincipalKind, Source, SystemClock, TenantContext,
};
use runtime_rollout::{
    Counts, MemoryRollouts, Order, RolloutService, Rollouts, RoutesConfig, Side, Sticky, WHOLE,
};
use tower::{Service, ServiceExt, service_fn};

async fn rollouts(sticky: &[Sticky], weight: u32) -> Rollouts {
    let mut config = RoutesConfig::default();
    config.sticky = sticky.to_vec();
    config.header = Some("x-side".to_owned());
    let routes = BTreeMap::from([("shop".to_owned(), config)]);
    let store = Arc::new(MemoryRollouts::new());
    let rollouts = Rollouts::new(store, routes, Arc::new(ManualClock::new()), |_| {}).unwrap();
    rollouts.order("shop", &Order::Weight(weight), "").await.unwrap();
    rollouts
}

/// The side that answered, and the cookie that was set.
async fn ask(rollouts: &Rollouts, request: Request<()>) -> (Side, Option<String>) {
    let answer = |side: Side| {
        service_fn(move |request: Request<()>| async move {
            assert_eq!(request.extensions().get::<Side>(), Some(&side), "the service knows");
            Ok::<_, Infallible>(Response::new(side))
        })
    };
    let mut service =
        RolloutService::new(rollouts, "shop", answer(Side::Primary), answer(Side::Canary)).unwrap();
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    let cookie = response.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
    (*response.body(), cookie)
}

fn by(principal: &str, tenant: &str) -> Request<()> {
    let mut request = Request::new(());
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new(tenant).unwrap());
    let principal = Principal::new(PrincipalKind::User, principal);
    let context = Context::new(Source::Http, &SystemClock).with_principal(principal).with_tenant(tenant);
    request.extensions_mut().insert(context);
    request
}

#[tokio::test]
async fn principals_and_tenants_stay_where_they_are() {
    let by_principal = rollouts(&[Sticky::Principal, Sticky::Cookie], 5_000).await;
    let by_tenant = rollouts(&[Sticky::Tenant], 5_000).await;
    let (mut differ, mut canaries) = (0, 0);
    for user in 0..200 {
        let user = format!("user-{user}");
        let (side, cookie) = ask(&by_principal, by(&user, "acme")).await;
        assert_eq!((side, cookie), (ask(&by_principal, by(&user, "acme")).await.0, None));
        differ += u32::from(side != ask(&by_principal, by(&user, "globex")).await.0);
        canaries += u32::from(side == Side::Canary);
        assert_eq!(ask(&by_tenant, by(&user, "acme")).await, ask(&by_tenant, by("other", "acme")).await);
    }
    assert!((70..130).contains(&canaries) && differ > 50, "the same id elsewhere is somebody else: {differ}");
}

#[tokio::test]
async fn strangers_are_kept_by_a_cookie_that_is_set_once() {
    let rollouts = rollouts(&[Sticky::Principal, Sticky::Cookie], 5_000).await;
    let mut canaries = 0;
    for _ in 0..200 {
        let (side, cookie) = ask(&rollouts, Request::new(())).await;
        canaries += u32::from(side == Side::Canary);
        let cookie = cookie.unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        for sent in [pair.to_owned(), format!("a=b; {pair}; c=d")] {
            let again = Request::builder().header("cookie", sent).body(()).unwrap();
            assert_eq!(ask(&rollouts, again).await, (side, None));
        }
    }
    assert!((70..130).contains(&canaries), "{canaries}");
    let forged = Request::builder().header("cookie", "rollout-shop=canary").body(()).unwrap();
    assert!(ask(&rollouts, forged).await.1.is_some(), "what we did not make is replaced");
}

#[tokio::test]
async fn a_header_says_where_to_and_a_pin_counts_whatever_the_weight() {
    let rollouts = rollouts(&[Sticky::Principal, Sticky::Request], 0).await;
    for (value, side) in [
        ("canary", Side::Canary),
        ("green", Side::Canary),
        ("primary", Side::Primary),
        ("nonsense", Side::Primary),
    ] {
        let request = Request::builder().header("x-side", value).body(()).unwrap();
        assert_eq!(ask(&rollouts, request).await, (side, None), "{value}");
    }
    rollouts.order("shop", &Order::Pin("main/acme:tester".to_owned(), Side::Canary), "").await.unwrap();
    assert_eq!(ask(&rollouts, by("tester", "acme")).await.0, Side::Canary);
    assert_eq!(ask(&rollouts, by("tester", "globex")).await.0, Side::Primary);
    assert_eq!(ask(&rollouts, Request::new(())).await, (Side::Primary, None));
}

/// What a rollout at this weight has seen of the canary once `ask` is over.
async fn seen(weight: u32, clock: &ManualClock, ask: impl AsyncFnOnce(&Rollouts)) -> Counts {
    let mut config = RoutesConfig::default();
    config.sticky = vec![Sticky::Request];
    let routes = BTreeMap::from([("shop".to_owned(), config)]);
    let store = Arc::new(MemoryRollouts::new());
    let rollouts = Rollouts::new(store, routes, Arc::new(clock.clone()), |_| {}).unwrap();
    for order in [Order::Weight(weight), Order::Resume] {
        rollouts.order("shop", &order, "").await.unwrap();
    }
    ask(&rollouts).await;
    rollouts.refresh().await.unwrap();
    rollouts.refresh().await.unwrap();
    rollouts.current("shop").unwrap().analysis.seen(Side::Canary)
}

fn panics() -> Result<Response<()>, Infallible> {
    panic!("the canary panics")
}

#[tokio::test]
async fn a_canary_that_panics_has_failed() {
    let clock = ManualClock::new();
    let seen = seen(WHOLE, &clock, async |rollouts| {
        let fine = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let panics = service_fn(|_: Request<()>| async { panics() });
        let mut service = RolloutService::new(rollouts, "shop", fine, panics).unwrap();
        let answer = service.ready().await.unwrap().call(Request::new(()));
        assert!(AssertUnwindSafe(answer).catch_unwind().await.is_err());
    });
    assert_eq!(seen.await, Counts { requests: 1, failed: 1, slow: 0 });
}

#[tokio::test]
async fn a_canary_that_hangs_has_failed_once_the_deadline_has_passed_and_is_slow_before() {
    for (budget, waited, expected) in [
        (None, Duration::from_millis(999), Counts::default()),
        (None, Duration::from_millis(1_001), Counts { requests: 1, failed: 0, slow: 1 }),
        (Some(2_000), Duration::from_millis(1_001), Counts { requests: 1, failed: 0, slow: 1 }),
        (Some(2_000), Duration::from_secs(2), Counts { requests: 1, failed: 1, slow: 1 }),
        (Some(500), Duration::from_millis(500), Counts { requests: 1, failed: 1, slow: 0 }),
    ] {
        let clock = ManualClock::new();
        let seen = seen(WHOLE, &clock, async |rollouts| {
            let fine = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
            let hangs =
                service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>());
            let mut service = RolloutService::new(rollouts, "shop", fine, hangs).unwrap();
            let mut request = Request::new(());
            if let Some(budget) = budget {
                let deadline = Deadline::after(&clock, Duration::from_millis(budget));
                request.extensions_mut().insert(Context::new(Source::Http, &clock).with_deadline(deadline));
            }
            let mut answer = Box::pin(service.ready().await.unwrap().call(request));
            assert!(futures_util::poll!(&mut answer).is_pending());
            clock.advance(waited);
        });
        assert_eq!(seen.await, expected, "{budget:?} {waited:?}");
    }
}

/// Ready when there is room, and then for one call of this very clone.
struct Places {
    room: bool,
    ready: bool,
}

impl Clone for Places {
    fn clone(&self) -> Self {
        Self { ready: false, ..*self }
    }
}

impl Service<Request<()>> for Places {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = self.room;
        if self.room { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        std::future::ready(Ok(Response::new(())))
    }
}

#[tokio::test]
async fn a_canary_that_is_full_holds_up_nobody_elses_requests() {
    let [room, full] = [true, false].map(|room| Places { room, ready: false });
    let clock = ManualClock::new();
    let seen = seen(0, &clock, async |rollouts| {
        let mut service = RolloutService::new(rollouts, "shop", room, full).unwrap();
        for _ in 0..2 {
            let asked = async { service.ready().await.unwrap().call(Request::new(())).await };
            assert!(futures_util::poll!(std::pin::pin!(asked)).is_ready());
        }
    });
    assert_eq!(seen.await, Counts::default());
}
