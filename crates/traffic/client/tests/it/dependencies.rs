//! What guards single dependencies: pipelines, limits per host, one retry loop per chain.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::any};
use runtime_client::{Client, ClientConfig, ClientError, Guard};
use runtime_kernel::{Deadline, SystemClock};
use runtime_resilience::{BreakerConfig, BreakerState, CircuitBreaker, Pipeline, Rejection, RetryPolicy};
use tokio::sync::Semaphore;

use super::server::{client_with, context, serve, serve_raw};

type Attempts = Arc<Mutex<Vec<Option<String>>>>;

/// Always busy; keeps what each request says of its attempt.
async fn busy(status: StatusCode) -> (String, Attempts) {
    let seen = Attempts::default();
    let kept = Arc::clone(&seen);
    let handler = any(move |headers: HeaderMap| {
        let attempt = headers.get("x-request-attempt").map(|value| value.to_str().unwrap().to_owned());
        kept.lock().unwrap().push(attempt);
        async move { status }
    });
    (serve(Router::new().route("/", handler)).await.to_string(), seen)
}

fn policy() -> RetryPolicy {
    RetryPolicy::constant(Duration::from_millis(1)).unwrap()
}

#[tokio::test]
async fn a_host_has_its_own_retries_and_breaker_and_the_breaker_sees_answers() {
    let (host, seen) = busy(StatusCode::SERVICE_UNAVAILABLE).await;
    let (other, unseen) = busy(StatusCode::SERVICE_UNAVAILABLE).await;
    let breaker = CircuitBreaker::new("dependency", BreakerConfig::consecutive(6)).unwrap();
    let client = Client::builder(ClientConfig::default(), SystemClock::shared())
        .guard(Guard::local())
        .pipeline(host.as_str(), Pipeline::new().retry(policy()).breaker(breaker.clone()))
        .build()
        .unwrap();
    for (method, before) in [("GET", 3), ("GET", 6)] {
        let answer =
            client.request(method.parse().unwrap(), &format!("http://{host}/")).send(&context()).await;
        assert_eq!(answer.unwrap().status(), 503, "the last answer comes back");
        assert_eq!(seen.lock().unwrap().len(), before);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    let error = client.get(&format!("http://{host}/")).send(&context()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Rejected { rejection: Rejection::BreakerOpen { .. }, .. }),
        "{error}"
    );
    assert_eq!(client.get(&format!("http://{other}/")).send(&context()).await.unwrap().status(), 503);
    assert_eq!((seen.lock().unwrap().len(), unseen.lock().unwrap().len()), (6, 1));
}

#[tokio::test]
async fn a_post_that_fails_counts_against_the_breaker_although_it_is_not_repeated() {
    let (host, seen) = busy(StatusCode::INTERNAL_SERVER_ERROR).await;
    let breaker = CircuitBreaker::new("dependency", BreakerConfig::consecutive(2)).unwrap();
    let client = Client::builder(ClientConfig::default(), SystemClock::shared())
        .guard(Guard::local())
        .pipeline(host.as_str(), Pipeline::new().retry(policy()).breaker(breaker.clone()))
        .build()
        .unwrap();
    for _ in 0..2 {
        let answer = client.post(&format!("http://{host}/")).json(&1).send(&context()).await.unwrap();
        assert_eq!(answer.status(), 500);
    }
    assert_eq!((seen.lock().unwrap().len(), breaker.state()), (2, BreakerState::Open));
}

#[tokio::test]
async fn a_callers_deadline_does_not_open_the_breaker_but_the_calls_own_timeout_does() {
    for (own, state) in [(false, BreakerState::Closed), (true, BreakerState::Open)] {
        let silent = serve_raw(b"").await;
        let breaker = CircuitBreaker::new("dependency", BreakerConfig::consecutive(3)).unwrap();
        let client = Client::builder(ClientConfig::default(), SystemClock::shared())
            .guard(Guard::local())
            .pipeline(silent.to_string(), Pipeline::new().breaker(breaker.clone()))
            .build()
            .unwrap();
        for _ in 0..5 {
            let (request, soon) = (client.get(&format!("http://{silent}/")), Duration::from_millis(20));
            let error = if own {
                request.timeout(soon).send(&context()).await.unwrap_err()
            } else {
                let hurried = context().with_deadline(Deadline::after(&SystemClock, soon));
                request.send(&hurried).await.unwrap_err()
            };
            assert!(matches!(error, ClientError::Deadline | ClientError::Rejected { .. }), "{error:?}");
        }
        assert_eq!(breaker.state(), state, "{own}");
    }
}

#[tokio::test]
async fn what_our_own_limits_turn_away_does_not_open_the_breaker() {
    let address = serve(Router::new().route("/", any(|| async { "done" }))).await;
    let breaker = CircuitBreaker::new("dependency", BreakerConfig::consecutive(3)).unwrap();
    // For those who wait as well, within an attempt's time.
    let policy = policy().with_attempt_timeout(Duration::from_millis(20)).unwrap();
    for waiting in [0, 1] {
        let mut config = ClientConfig::default();
        (config.max_per_host, config.max_waiting_per_host) = (1, waiting);
        let client = Client::builder(config, SystemClock::shared())
            .guard(Guard::local())
            .pipeline(address.to_string(), Pipeline::new().retry(policy.clone()).breaker(breaker.clone()))
            .build()
            .unwrap();
        let get = || client.get(&format!("http://{address}/"));
        let first = get().retry(RetryPolicy::none()).send(&context()).await.unwrap();
        for _ in 0..5 {
            let error = get().send(&context()).await.unwrap_err();
            assert!(matches!(error, ClientError::Rejected { .. }), "{error:?}");
            assert_eq!(breaker.state(), BreakerState::Closed, "{waiting}");
        }
        assert_eq!(first.text().await.unwrap(), "done");
    }
}

#[tokio::test]
async fn who_retries_says_so_and_who_is_called_by_one_that_does_not() {
    let (host, seen) = busy(StatusCode::SERVICE_UNAVAILABLE).await;
    let url = format!("http://{host}/");
    let client = Client::builder(ClientConfig::default(), SystemClock::shared())
        .guard(Guard::local())
        .retry(policy())
        .build()
        .unwrap();
    let said = || std::mem::take(&mut *seen.lock().unwrap());
    client.get(&url).send(&context()).await.unwrap();
    assert_eq!(said(), ["1/3", "2/3", "3/3"].map(|attempt| Some(attempt.to_owned())));
    client.get(&url).repeatable(false).retry(RetryPolicy::none()).send(&context()).await.unwrap();
    assert_eq!(said(), [None]);
    let under_one_that_retries = context().with_caller_retries(true);
    client.get(&url).send(&under_one_that_retries).await.unwrap();
    assert_eq!(said(), [Some("1/2".to_owned())], "one attempt, and those below know as well");
    client.get(&url).retry(policy()).send(&under_one_that_retries).await.unwrap();
    assert_eq!(said().len(), 3, "the request itself says otherwise");
}

#[tokio::test]
async fn so_many_requests_are_under_way_per_host_until_their_bodies_end() {
    let gate = Arc::new(Semaphore::new(0));
    let handler = any(|State(gate): State<Arc<Semaphore>>| async move {
        gate.acquire().await.unwrap().forget();
        "done"
    });
    let router = Router::new().route("/", handler).with_state(Arc::clone(&gate));
    let hosts = [serve(router.clone()).await, serve(router).await];
    let mut config = ClientConfig::default();
    (config.max_per_host, config.max_waiting_per_host) = (1, 1);
    let client = client_with(config, Guard::local());
    let get = |host: usize| {
        let (client, url) = (client.clone(), format!("http://{}/", hosts[host]));
        async move { client.get(&url).send(&context()).await }
    };
    let first = tokio::spawn(get(0));
    let other = tokio::spawn(get(1));
    gate.add_permits(2);
    let first = first.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    let mut second = Box::pin(get(0));
    assert!(futures_util::poll!(second.as_mut()).is_pending(), "the first body has not been read");
    let error = get(0).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { rejection: Rejection::BulkheadFull, .. }), "{error}");
    gate.add_permits(1);
    assert_eq!(first.text().await.unwrap(), "done");
    assert_eq!(second.await.unwrap().text().await.unwrap(), "done");
}
