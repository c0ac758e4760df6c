//! The section `providers` in an app.

use std::time::Duration;

use runtime_client::ClientModule;
use runtime_health::{HEALTH, HealthModule, Status};
use runtime_kernel::app::App;
use runtime_kernel::config::Config;
use runtime_kernel::{Context, Error, ErrorKind, Mode, Principal, Source, SystemClock};
use runtime_limits::LimitsModule;
use runtime_providers::{
    CHATS, ChatRequest, EMBEDDINGS, Message, ProviderError, ProvidersConfig, ProvidersModule,
};
use runtime_ratelimit::RateLimitModule;
use runtime_resilience::ResilienceModule;
use runtime_telemetry::{MetricsApp, TelemetryModule};
use serde_json::json;

use super::script::{Act, Provider};

fn app(url: &str, more: &[(&str, serde_json::Value)]) -> App {
    let target =
        json!({ "url": url, "model": "m", "api_key": "sk-secret", "limits": { "tokens_per_minute": 1000 } });
    let config = Config::builder()
        .set("client.guard", "open")
        .set("providers.targets.one", target.clone())
        .set("providers.targets.words", target)
        .set("providers.chats.main", json!({ "chains": { "order": ["one"] } }))
        .set(
            "providers.chats.spare",
            json!({ "chains": { "order": ["one"] }, "calls": { "max_wait": "0s" } }),
        )
        .set("providers.embeddings.search", json!({ "target": "words", "retry": "quick" }));
    let config = more.iter().fold(config, |config, (path, value)| config.set(path, value.clone()));
    App::new(config.build().unwrap())
        .mode(Mode::Worker)
        .with(TelemetryModule::new())
        .with(ClientModule)
        .with(ResilienceModule)
        .with(HealthModule)
        .with(LimitsModule)
        .with(RateLimitModule)
        .with(ProvidersModule)
}

fn chat(tokens: u32) -> ChatRequest {
    ChatRequest::new([Message::user("hello")], tokens)
}

#[tokio::test]
async fn chats_and_embeddings_are_there_by_name_and_share_what_a_target_may() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(7)).await;
    let mut app = app(&url, &[]);
    let metrics = app.metrics();
    let app = app.build().unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    let chats = app.container().get(CHATS).await.unwrap();
    let answer = chats.get("main").unwrap().complete(&context, &chat(900)).await.unwrap();
    assert_eq!((answer.target.as_str(), answer.usage.total()), ("one", 14));
    // 14 of the 1,000 tokens of the one target are gone for the other chat as well.
    let error = chats.get("spare").unwrap().complete(&context, &chat(985)).await.unwrap_err();
    assert!(matches!(error, ProviderError::Limited { .. }), "{error}");
    let words = app.container().get(EMBEDDINGS).await.unwrap();
    let found = words.get("search").unwrap().embed(&context, &["abc".to_owned()]).await.unwrap();
    assert_eq!(found.vectors.len(), 1);
    assert!(provider.ledger.lock().unwrap().keys.iter().all(|key| key == "Bearer sk-secret"));
    let error = chats.get("nosuch").unwrap_err().to_string();
    assert_eq!(error, "no `nosuch` in `providers.chats`; there are: main, spare");
    let text = metrics.render();
    for line in [
        r#"providers_attempts_total{outcome="answered",target="one"} 1"#,
        r#"providers_tokens_total{kind="completion",target="one"} 7"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn an_operation_of_the_table_limits_who_asks() {
    let (provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
    let rate = |capacity: u32| json!({ "capacity": capacity, "window": "1h" });
    let limits = [
        ("ratelimit.operations.ai_generate", rate(2)),
        ("ratelimit.operations.embed", rate(1)),
        ("ratelimit.overrides", json!({ "premium": { "ai_generate": rate(3) } })),
    ];
    let app = app(&url, &limits).build().unwrap();
    let chats = app.container().get(CHATS).await.unwrap();
    let ask = async |who: &str| {
        let context = Context::new(Source::Internal, &SystemClock).with_principal(Principal::system(who));
        let mut answered = 0;
        for _ in 0..4 {
            match chats.get("main").unwrap().complete(&context, &chat(10)).await {
                Ok(_) => answered += 1,
                Err(ProviderError::Limited { target, retry_after, .. }) => {
                    assert_eq!((target.as_str(), retry_after.is_some()), ("ai_generate", true));
                }
                Err(error) => panic!("{error}"),
            }
        }
        answered
    };
    assert_eq!((ask("somebody").await, ask("another").await, ask("premium").await), (2, 2, 3));
    let words = app.container().get(EMBEDDINGS).await.unwrap();
    let context = Context::new(Source::Internal, &SystemClock);
    let texts = ["a".to_owned()];
    assert!(words.get("search").unwrap().embed(&context, &texts).await.is_ok());
    assert!(words.get("search").unwrap().embed(&context, &texts).await.is_err());
    assert_eq!(provider.asked().len(), 8);

    let off = [limits[0].clone(), ("ratelimit.enabled", json!(false))];
    let app = self::app(&url, &off).build().unwrap();
    let chats = app.container().get(CHATS).await.unwrap();
    for _ in 0..3 {
        chats.get("main").unwrap().complete(&context, &chat(10)).await.unwrap();
    }
}

#[tokio::test]
async fn each_model_that_is_used_has_a_check_that_asks_as_configured() {
    for (chat, embedding, asked) in [
        ("ping", "ping", vec!["models", "models"]),
        ("generate", "embed", vec!["health_check", "health_check"]),
        ("embed", "ping", vec!["health_check", "models"]),
    ] {
        let (provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
        let kinds = [
            ("providers.chat_check", json!(chat)),
            ("providers.embedding_check", json!(embedding)),
            ("health.checks.ai_provider.interval", json!("1h")),
        ];
        let app = app(&url, &kinds).build().unwrap();
        let health = app.container().get(HEALTH).await.unwrap();
        let mut changes = health.changes();
        let running = tokio::spawn(app.run());
        tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|status| *status == Status::Healthy))
            .await
            .unwrap()
            .unwrap();
        let names: Vec<_> = health.readiness().checks.into_iter().map(|check| check.name).collect();
        for name in ["ai_provider.one", "embedding_provider.search"] {
            assert!(names.iter().any(|own| own == name), "{names:?}");
        }
        let mut seen = provider.asked();
        seen.sort_unstable();
        assert_eq!(seen, asked, "{chat} and {embedding}");
        running.abort();
    }
}

#[test]
fn a_section_that_makes_no_sense_names_its_key_and_keys_stay_hidden() {
    for (path, value, key) in [
        ("providers.targets.a", json!({ "model": "m" }), "providers.targets.a.url"),
        ("providers.targets.a", json!({ "url": "http://x" }), "providers.targets.a.model"),
        ("providers.chats.a", json!({}), "providers.chats.a.chains.order"),
        (
            "providers.chats.a",
            json!({ "chains": { "order": ["b"] }, "calls": { "max_attempts": 0 } }),
            "providers.chats.a.calls.max_attempts",
        ),
        (
            "providers.chats.a",
            json!({ "chains": { "order": ["b"] }, "calls": { "timeout": "0s" } }),
            "providers.chats.a.calls.timeout",
        ),
        ("providers.chats.a", json!({ "chains": { "order": ["b"] } }), "names no target: `b`"),
        ("providers.embeddings.a", json!({ "target": "b" }), "providers.embeddings.a.target"),
        ("providers.embedding_check", json!("generate"), "providers.embedding_check"),
    ] {
        let config = Config::builder().set(path, value).build().unwrap();
        let error = config.section::<ProvidersConfig>().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let config = Config::builder()
        .set("providers.targets.a", json!({ "url": "http://x", "model": "m", "api_key": "sk-secret" }))
        .section::<ProvidersConfig>();
    let config = config.build().unwrap();
    let section = config.section::<ProvidersConfig>().unwrap();
    assert!(!format!("{section:?} {}", config.explain()).contains("sk-secret"));
}

#[tokio::test]
async fn a_policy_that_there_is_not_stops_the_start_and_not_the_first_caller() {
    let (_provider, url) = Provider::start(|_, _| Act::Answer(1)).await;
    let app = app(&url, &[("providers.embeddings.search.retry", json!("fast"))]).build().unwrap();
    let report = app.run().await;
    assert!(format!("{:?}", report.reason).contains("no retry policy `fast`"), "{:?}", report.reason);
}

#[tokio::test]
async fn callers_see_neither_our_key_nor_our_addresses_and_cannot_ask_for_more_than_is_reserved() {
    let quoting = |headers: axum::http::HeaderMap| async move {
        let key = headers["authorization"].to_str().unwrap().to_owned();
        let body = json!({ "error": { "message": format!("what is {key}?") } });
        (axum::http::StatusCode::BAD_REQUEST, axum::Json(body))
    };
    let router = axum::Router::new().fallback(quoting);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let app = app(&format!("http://{address}/v1"), &[]).build().unwrap();
    let chats = app.container().get(CHATS).await.unwrap();
    let ask = async |request: &ChatRequest| {
        let context = Context::new(Source::Internal, &SystemClock);
        chats.get("spare").unwrap().complete(&context, request).await.unwrap_err()
    };
    let error = ask(&chat(10)).await.to_string();
    assert!(error.contains("***") && !error.contains("sk-secret"), "{error}");
    for key in ["n", "best_of", "max_completion_tokens", "max_tokens"] {
        let mut request = chat(10);
        request.more.insert(key.to_owned(), json!(3));
        let error = ask(&request).await;
        assert!(matches!(error, ProviderError::Config { .. }) && error.to_string().contains(key), "{error}");
    }
    let error = Error::from(ask(&chat(5_000)).await);
    assert_eq!(error.kind(), ErrorKind::TooLarge, "waiting does not help: {error}");
    serving.abort();
    let _ = serving.await;
    let error = ask(&chat(10)).await;
    assert!(matches!(error, ProviderError::Failed { .. }), "{error:?}");
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
}
