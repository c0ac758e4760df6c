//! The module in an app.

#[cfg(feature = "redis")]
use runtime_http::HttpApp;
use runtime_http::HttpModule;
use runtime_kernel::app::{App, SetupError};
use runtime_kernel::config::Config;
use runtime_ratelimit::RateLimitModule;
use runtime_telemetry::TelemetryModule;
use serde_json::{Value, json};

fn app(rules: Value, store: &str) -> App {
    let config = Config::builder().set("ratelimit.rules", rules).set("ratelimit.store", json!(store));
    let config = config.set("redis.url", json!("redis://127.0.0.1:1")).build().unwrap();
    let app = App::new(config).with(TelemetryModule::new()).with(HttpModule::new("t", "1"));
    #[cfg(feature = "redis")]
    let app = app.with(runtime_redis::RedisModule);
    app.with(RateLimitModule)
}

/// How often a server has run a script.
#[cfg(feature = "redis")]
async fn scripts(server: &runtime_testkit::redis::TestServer) -> u32 {
    let stats = server.node.ask("INFO commandstats").await.unwrap();
    let of = |command: &str| stats.lines().find_map(|line| line.strip_prefix(command)?.split(',').next());
    of("cmdstat_evalsha:calls=").map_or(0, |calls| calls.parse().unwrap())
}

/// Asks an app over HTTP, and says how many requests were answered and how often a script ran for them.
#[cfg(feature = "redis")]
async fn answered(lease: u32, requests: u32) -> (u32, u32, u32) {
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = runtime_testkit::redis::own().await.unwrap();
    let rule = json!([{ "name": "x", "by": ["ip"], "rate": { "capacity": 1_000, "window": "1h" } }]);
    let config = Config::builder().set("ratelimit.rules", rule).set("ratelimit.store", json!("redis"));
    let config = config.set("ratelimit.lease", json!(lease)).set("ratelimit.lease_time", json!("10s"));
    let config = config.set("redis.url", json!(server.node.url())).set("http.port", json!(0));
    let clock = runtime_kernel::ManualClock::new();
    let app = App::new(config.build().unwrap()).clock(std::sync::Arc::new(clock.clone()));
    let app = app.with(TelemetryModule::new()).with(HttpModule::new("t", "1"));
    let mut app = app.with(runtime_redis::RedisModule).with(RateLimitModule);
    let (tell, mut address) = tokio::sync::watch::channel(String::new());
    app.on_listening(move |address| drop(tell.send_replace(address.to_owned())));
    let app = app.build().unwrap();
    let shutdown = app.shutdown().clone();
    let running = tokio::spawn(app.run_without_signals());
    let address = address.wait_for(|address| !address.is_empty()).await.unwrap().clone();
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = b"GET /openapi.json HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        u32::from(answer.starts_with("HTTP/1.1 200"))
    };
    // The first sends the script.
    let mut answered = ask().await;
    let before = scripts(&server).await;
    for _ in 1..requests {
        answered += ask().await;
    }
    let ran = scripts(&server).await - before;
    clock.advance(Duration::from_secs(10));
    answered += ask().await;
    let after = scripts(&server).await - before - ran;
    shutdown.trigger("the test is over");
    running.await.unwrap();
    (answered, ran, after)
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_lease_of_the_configuration_spares_round_trips_for_its_time() {
    assert_eq!(
        answered(20, 60).await,
        (61, 2, 1),
        "three leases for sixty requests, and one when time was up"
    );
    assert_eq!(answered(0, 60).await, (61, 59, 1), "without a lease each asks");
}

fn refusal(app: App) -> Option<String> {
    match app.build() {
        Ok(_) => None,
        Err(SetupError::Module { message, .. }) => Some(message),
        Err(other) => Some(other.to_string()),
    }
}

#[tokio::test]
async fn a_wrong_rule_stops_the_start_with_its_key() {
    let message = refusal(app(json!([{ "name": "x" }]), "memory")).unwrap();
    assert!(message.contains("ratelimit.rules.0.rate"), "{message}");
}

#[tokio::test]
async fn both_stores_can_be_chosen() {
    let rule = json!([{ "name": "x", "by": ["ip"], "rate": { "capacity": 1, "window": "1s" } }]);
    for store in ["memory", "redis"] {
        assert_eq!(refusal(app(rule.clone(), store)), None, "{store}");
    }
}
