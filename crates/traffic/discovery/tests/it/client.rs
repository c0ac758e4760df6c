//! A client that calls a name behind which several endpoints stand.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use runtime_client::{Client, ClientConfig, ClientError};
use runtime_discovery::{Balancer, Endpoint, OutlierConfig, Strategy};
use runtime_kernel::{Classify, Context, Deadline, ErrorKind, Source, SystemClock};
use runtime_resilience::RetryPolicy;

struct Server {
    endpoint: Endpoint,
    asked: Arc<AtomicU32>,
    answer: Arc<Mutex<(StatusCode, Option<&'static str>)>>,
}

async fn server() -> Server {
    let asked = Arc::new(AtomicU32::new(0));
    let answer = Arc::new(Mutex::new((StatusCode::OK, None::<&'static str>)));
    let (count, say) = (Arc::clone(&asked), Arc::clone(&answer));
    let handler = any(move |headers: HeaderMap| {
        count.fetch_add(1, Ordering::SeqCst);
        let (status, retry_after) = *say.lock().unwrap();
        async move {
            let mut answer = HeaderMap::new();
            if let Some(wait) = retry_after {
                answer.insert("retry-after", wait.parse().unwrap());
            }
            (status, answer, headers["host"].to_str().unwrap().to_owned())
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", handler)).await });
    Server { endpoint, asked, answer }
}

fn client(balancer: &Balancer) -> Client {
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let builder = Client::builder(ClientConfig::default(), SystemClock::shared()).retry(policy);
    // The default guard: no private target but what stands behind the name.
    builder.targets("orders.service", Arc::new(balancer.clone())).build().unwrap()
}

async fn get(client: &Client) -> Result<(u16, String), ClientError> {
    let context = Context::new(Source::Internal, &SystemClock);
    let answer = client.get("http://orders.service/").send(&context).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn calls_are_spread_retried_elsewhere_and_kept_from_those_that_ask_for_peace() {
    let servers = [server().await, server().await];
    let balancer = Balancer::new(Strategy::RoundRobin, OutlierConfig::default()).unwrap();
    let client = client(&balancer);
    assert!(matches!(get(&client).await, Err(ClientError::NoTarget(_))));
    balancer.update(&servers.each_ref().map(|server| server.endpoint.clone()));
    let asked = || servers.each_ref().map(|server| server.asked.swap(0, Ordering::SeqCst));
    for _ in 0..10 {
        assert_eq!(get(&client).await.unwrap(), (200, "orders.service".to_owned()));
    }
    assert_eq!(asked(), [5, 5]);

    *servers[0].answer.lock().unwrap() = (StatusCode::BAD_GATEWAY, None);
    for _ in 0..4 {
        assert_eq!(get(&client).await.unwrap().0, 200, "the retry goes to the other");
    }
    let [failed, answered] = asked();
    assert!((1..=4).contains(&failed) && answered == 4, "{failed} {answered}");

    *servers[0].answer.lock().unwrap() = (StatusCode::TOO_MANY_REQUESTS, Some("60"));
    for _ in 0..20 {
        assert_eq!(get(&client).await.unwrap().0, 200);
    }
    assert_eq!(asked()[0], 1, "it asked to be left alone, once");

    *servers[1].answer.lock().unwrap() = (StatusCode::SERVICE_UNAVAILABLE, Some("60"));
    // The last answer of the one that was left comes back; from then on there is nobody to call.
    let _ = get(&client).await;
    let error = get(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
}

#[tokio::test]
async fn what_stands_behind_a_name_is_called_at_any_port_also_under_its_own_name() {
    let endpoint = server().await.endpoint;
    let own = Endpoint::new("localhost", endpoint.port);
    for (url, endpoint) in
        [("http://orders.service/".to_owned(), endpoint), (format!("http://localhost:{}/", own.port), own)]
    {
        let balancer = Balancer::new(Strategy::default(), OutlierConfig::default()).unwrap();
        balancer.update(&[endpoint]);
        let balancer = Arc::new(balancer);
        let mut config = ClientConfig::default();
        config.allow_ports = vec![443];
        let client = Client::builder(config, SystemClock::shared());
        let client = client.targets("orders.service", balancer.clone()).targets("localhost", balancer);
        let (client, context) = (client.build().unwrap(), Context::new(Source::Internal, &SystemClock));
        assert_eq!(client.get(&url).send(&context).await.unwrap().status(), 200, "{url}");
        let refused = client.get("http://other.service/").send(&context).await.unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    }
}

#[tokio::test]
async fn an_endpoint_that_stays_silent_is_left_alone_unless_its_caller_did_not_wait() {
    let soon = Duration::from_millis(50);
    // The attempt's time-out, the call's, and what its caller has left.
    for (attempt, call, left, counts) in
        [(Some(soon), None, None, (2, 1)), (None, Some(soon), None, (2, 1)), (None, None, Some(soon), (2, 0))]
    {
        // Takes connections and never looks at them.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = Endpoint::parse(&silent.local_addr().unwrap().to_string()).unwrap();
        let alive = server().await;
        let balancer = Balancer::new(Strategy::RoundRobin, OutlierConfig::default()).unwrap();
        balancer.update(&[dead, alive.endpoint.clone()]);
        let mut policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
        if let Some(timeout) = attempt {
            policy = policy.with_attempt_timeout(timeout).unwrap();
        }
        let client = Client::builder(ClientConfig::default(), SystemClock::shared()).retry(policy);
        let client = client.targets("orders.service", Arc::new(balancer.clone())).build().unwrap();
        for _ in 0..16 {
            let mut context = Context::new(Source::Internal, &SystemClock);
            if let Some(left) = left {
                context = context.with_deadline(Deadline::after(&SystemClock, left));
            }
            let mut request = client.get("http://orders.service/");
            if let Some(timeout) = call {
                request = request.timeout(timeout);
            }
            let answer = request.send(&context).await;
            assert!(answer.is_ok() || attempt.is_none(), "another endpoint gets it: {answer:?}");
        }
        assert_eq!(balancer.counts(), counts, "{attempt:?} {call:?} {left:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left_alone_after_five_calls() {
    let (gone, alive) = (server().await.endpoint.port, server().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    drop(listener);
    assert_ne!(gone, 0);
    let balancer = Balancer::new(Strategy::RoundRobin, OutlierConfig::default()).unwrap();
    balancer.update(&[dead, alive.endpoint.clone()]);
    let client = client(&balancer);
    for _ in 0..30 {
        assert_eq!(get(&client).await.unwrap().0, 200);
    }
    assert_eq!((balancer.counts(), alive.asked.load(Ordering::SeqCst)), ((2, 1), 30));
}
