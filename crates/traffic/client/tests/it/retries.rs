//! Retries: what may be repeated, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::{Router, routing::any};
use runtime_client::{Client, ClientConfig, ClientError, GuardMode, Phase, RequestBuilder};
use runtime_kernel::SystemClock;
use runtime_resilience::RetryPolicy;

use super::server::{context, local, serve};

/// Answers 503 so many times, then 200; counts what arrives.
async fn failing(
    times: u32,
    status: StatusCode,
    retry_after: Option<&'static str>,
) -> (String, Arc<AtomicU32>) {
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let handler = move || {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        let mut headers = axum::http::HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        async move { if turn < times { (status, headers, "busy") } else { (StatusCode::OK, headers, "done") } }
    };
    let address = serve(Router::new().route("/", any(handler))).await;
    (format!("http://{address}/"), seen)
}

fn quickly(request: RequestBuilder) -> RequestBuilder {
    request.retry(RetryPolicy::constant(Duration::from_millis(1)).unwrap().with_max_attempts(4).unwrap())
}

#[tokio::test]
async fn only_what_may_be_repeated_is_repeated() {
    for (method, keyed, forced, attempts) in [
        ("GET", false, None, 3),
        ("PUT", false, None, 3),
        ("DELETE", false, None, 3),
        ("POST", false, None, 1),
        ("PATCH", false, None, 1),
        ("POST", true, None, 3),
        ("POST", false, Some(true), 3),
        ("GET", false, Some(false), 1),
    ] {
        let (url, seen) = failing(2, StatusCode::SERVICE_UNAVAILABLE, None).await;
        let mut request = quickly(local().request(method.parse().unwrap(), &url));
        if keyed {
            request = request.header("idempotency-key", "one");
        }
        if let Some(forced) = forced {
            request = request.repeatable(forced);
        }
        let response = request.send(&context()).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), attempts, "{method} {keyed} {forced:?}");
        assert_eq!(response.status() == 200, attempts == 3, "{method}");
    }
}

#[tokio::test]
async fn nothing_is_repeated_unless_a_policy_says_so() {
    let (url, seen) = failing(1, StatusCode::SERVICE_UNAVAILABLE, None).await;
    assert_eq!(local().get(&url).send(&context()).await.unwrap().status(), 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_last_answer_comes_back_whole_when_attempts_are_used_up() {
    let (url, seen) = failing(99, StatusCode::BAD_GATEWAY, None).await;
    let response = quickly(local().get(&url)).send(&context()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (502, "busy"));
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn statuses_that_will_not_change_are_not_repeated() {
    for status in [400, 401, 403, 404, 409, 422, 501] {
        let (url, seen) = failing(9, StatusCode::from_u16(status).unwrap(), None).await;
        quickly(local().get(&url)).send(&context()).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{status}");
    }
}

#[tokio::test]
async fn a_wait_the_other_side_asks_for_is_not_begun_when_the_deadline_comes_first() {
    let (url, seen) = failing(9, StatusCode::TOO_MANY_REQUESTS, Some("3600")).await;
    let response = quickly(local().get(&url)).timeout(Duration::from_secs(5)).send(&context()).await.unwrap();
    assert_eq!((response.status().as_u16(), seen.load(Ordering::SeqCst)), (429, 1));
}

#[tokio::test]
async fn an_attempt_that_may_not_be_repeated_is_cut_but_not_repeated() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let hang = move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<&'static str>()
    };
    let url = format!("http://{}/", serve(Router::new().route("/", any(hang))).await);
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap().with_max_attempts(3).unwrap();
    let policy = policy.with_attempt_timeout(Duration::from_millis(80)).unwrap();
    for (method, attempts) in [("POST", 1), ("GET", 3)] {
        seen.store(0, Ordering::SeqCst);
        let request = local().request(method.parse().unwrap(), &url).retry(policy.clone());
        let error = request.send(&context()).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { phase: Phase::Attempt, .. }), "{error:?}");
        assert_eq!(seen.load(Ordering::SeqCst), attempts, "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_never_came_up_may_always_be_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let policy = RetryPolicy::constant(Duration::from_millis(20))
        .unwrap()
        .with_jitter(runtime_resilience::Jitter::None)
        .unwrap();
    let before = runtime_kernel::Clock::now(&runtime_kernel::SystemClock);
    let error = local().post(&url).retry(policy).send(&context()).await.unwrap_err();
    let took = runtime_kernel::Clock::now(&runtime_kernel::SystemClock) - before;
    assert!(matches!(error, ClientError::Connect { .. }) && took >= Duration::from_millis(40), "{took:?}");
}

#[tokio::test]
async fn what_was_answered_by_a_redirect_is_not_sent_again_when_the_redirect_leads_nowhere() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    for (keyed, attempts) in [(false, 1), (true, 3)] {
        let (seen, nowhere) = (Arc::new(AtomicU32::new(0)), nowhere.clone());
        let count = Arc::clone(&seen);
        let order = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let location = [(axum::http::header::LOCATION, nowhere.clone())];
            async move { (StatusCode::SEE_OTHER, location) }
        };
        let url = format!("http://{}/", serve(Router::new().route("/", any(order))).await);
        let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap().with_max_attempts(3).unwrap();
        let mut request = local().post(&url).body("an order").retry(policy);
        if keyed {
            request = request.header("idempotency-key", "one");
        }
        let error = request.send(&context()).await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
        assert_eq!(seen.load(Ordering::SeqCst), attempts, "{keyed}");
    }
}

#[tokio::test]
async fn which_statuses_may_go_better_another_time_is_configured() {
    for (status, statuses, attempts) in [
        (StatusCode::TOO_EARLY, vec![429, 500, 502, 503, 504], 1),
        (StatusCode::LOCKED, vec![423], 3),
        (StatusCode::SERVICE_UNAVAILABLE, vec![], 1),
    ] {
        let (url, seen) = failing(2, status, None).await;
        let mut config = ClientConfig::default();
        (config.guard, config.retry_statuses) = (GuardMode::Open, statuses);
        let client = Client::new(config, SystemClock::shared()).unwrap();
        quickly(client.get(&url)).send(&context()).await.unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), attempts, "{status}");
    }
    let mut config = ClientConfig::default();
    config.retry_statuses = vec![503, 200];
    let error = Client::new(config, SystemClock::shared()).unwrap_err().to_string();
    assert!(error.contains("retry_statuses") && error.contains("200"), "{error}");
}
