//! CrossBridge's section `runtime`, read by the whole server: what it says is what happens.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::hook::Hook;
use super::house::House;

/// A provider that answers everything while it is up, and remembers what it was asked for.
#[derive(Clone, Default)]
struct Provider {
    down: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    async fn start() -> (Self, String) {
        let provider = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (provider, url)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(State(provider): State<Provider>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    provider.asked.lock().unwrap().push(path.clone());
    if provider.down.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2 });
    if path.ends_with("embeddings") {
        let texts = body["input"].as_array().map_or(1, Vec::len);
        let data: Vec<_> =
            (0..texts).map(|index| json!({ "index": index, "embedding": [index, 1] })).collect();
        return axum_json(&json!({ "data": data, "usage": usage }));
    }
    if body["stream"] == true {
        let piece = |content: &str, finish: Value| json!({ "choices": [{ "delta": { "content": content }, "finish_reason": finish }] });
        let last = json!({ "choices": [], "usage": usage });
        let events = [piece("hel", Value::Null), piece("lo", json!("stop")), last];
        let text = events.map(|event| format!("data: {event}\n\n")).concat();
        return ([("content-type", "text/event-stream")], format!("{text}data: [DONE]\n\n")).into_response();
    }
    let message = json!({ "role": "assistant", "content": "hello" });
    axum_json(
        &json!({ "model": "m", "choices": [{ "message": message, "finish_reason": "stop" }], "usage": usage }),
    )
}

fn axum_json(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn chat(stream: bool) -> Value {
    json!({ "model": "main", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 50, "stream": stream })
}

fn providers(url: &str) -> String {
    let target = json!({ "url": url, "model": "m" });
    json!({
        "targets": { "one": target, "words": target },
        "chats": { "main": { "chains": { "order": ["one"] } } },
        "embeddings": { "search": { "target": "words" } },
    })
    .to_string()
}

#[test]
fn the_section_loads_unchanged_and_no_key_of_it_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/crossbridge.yml");
    let explain = |file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runtime"));
        let output =
            command.current_dir(folder.path()).args(["--config", file, "--json", "config", "explain"]);
        let output = output.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let leaves = explain(file);
    let leaves: Vec<_> = leaves["leaves"].as_array().or(leaves.as_array()).unwrap().clone();
    let from_file: Vec<_> =
        leaves.iter().filter(|leaf| leaf.to_string().contains("crossbridge.yml")).collect();
    // 5 × 2 rates, 2 × 2 overrides, 4 × 5 figures of policies, and 24 more.
    assert!(from_file.len() >= 55, "{}", from_file.len());
    for leaf in from_file {
        assert_eq!(leaf["used"], true, "{leaf}");
    }
}

#[tokio::test]
async fn what_the_section_says_is_what_happens() {
    let ((provider, url), hook) = (Provider::start().await, Hook::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crossbridge.yml");
    let section = "runtime:
  rate_limiting: {defaults: {ai_generate: {capacity: 2, window_seconds: 3600}}}
  retry: {quick_policy: {max_attempts: 1}}
  health_checks:
    interval: 0.05
    failure_threshold: 1
    providers:
      ai_provider: {check_type: embed, interval: 0.05, timeout: 5}
      embedding_provider: {check_type: ping, interval: 0.05}
      database: {enabled: false}
    degraded_mode:
      continue_on_degraded: false
      disable_features: [flaky_detection]
      alerts: {slack_webhook: '${HOOK:-nowhere}'}
elsewhere: {of: crossbridge}
";
    std::fs::write(&file, section).unwrap();
    let house = House::start(&[
        ("RUNTIME_CONFIG", file.to_str().unwrap()),
        ("HOOK", hook.url()),
        ("RUNTIME__PROVIDERS", providers(&url).as_str()),
        ("RUNTIME__HEALTH__SHOW_DETAILS", "true"),
    ])
    .await;
    assert!(provider.asked().contains(&"/v1/embeddings".to_owned()), "asked as `check_type` says");
    assert!(provider.asked().contains(&"/v1/models".to_owned()));

    let ask =
        async |body: Value| house.request("POST", "/v1/chat/completions").json(&body).send().await.unwrap();
    let answer: Value = ask(chat(false)).await.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello", "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 5);
    let events = ask(chat(true)).await.text().await.unwrap();
    assert!(events.contains(r#""content":"hel""#) && events.ends_with("data: [DONE]\n\n"), "{events}");
    let refused = ask(chat(false)).await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let texts = json!({ "model": "search", "input": ["a", "b"] });
    let vectors: Value =
        house.request("POST", "/v1/embeddings").json(&texts).send().await.unwrap().json().await.unwrap();
    assert_eq!(vectors["data"][1]["embedding"], json!([1.0, 1.0]), "{vectors}");
    let unknown = ask(json!({ "model": "nosuch", "messages": [], "max_tokens": 1 })).await;
    assert_eq!(unknown.status(), 404);

    // Not ready while degraded, with features off, and somebody is told.
    provider.down.store(true, Ordering::SeqCst);
    house.wait_unready().await;
    let report = house.client().get(house.url("/readyz")).send().await.unwrap();
    let report: Value = report.json().await.unwrap();
    assert_eq!(report["disabled"], json!(["flaky_detection"]), "{report}");
    assert_eq!(report["checks"]["ai_provider.one"], "unhealthy", "{report}");
    assert!(report["messages"]["ai_provider.one"].as_str().unwrap().contains("500"), "{report}");
    assert!(!report["checks"].to_string().contains("database"), "switched off: {report}");
    house.until("an alert", async |_| (!hook.calls().is_empty()).then_some(())).await;
    let told = hook.calls()[0].body["text"].as_str().unwrap().to_owned();
    assert!(told.contains("unhealthy") && told.contains("_provider."), "whichever was seen first: {told}");
    provider.down.store(false, Ordering::SeqCst);
    house
        .until("all well", async |_| {
            let calls = hook.calls();
            calls.last().unwrap().body["text"].as_str().unwrap().contains("is healthy").then_some(())
        })
        .await;
    assert!(!house.log().contains(hook.url()), "the webhook is secret");
}
