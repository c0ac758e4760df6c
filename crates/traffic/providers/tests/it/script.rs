//! A provider that speaks the OpenAI wire format and does what a script says, faults included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use runtime_client::{Client, ClientConfig, Guard};
use runtime_kernel::{Clock, SharedClock, SystemClock};
use runtime_providers::{ChatModel, OpenAi, OpenAiConfig, Price, Target, TargetConfig, Usage};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What a request is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// An answer of so many tokens, all of which the question had as well.
    Answer(u32),
    /// A status, a `Retry-After`, and an error's code.
    Refuse(u16, Option<&'static str>, &'static str),
    /// Nothing, ever.
    Hang,
    /// A stream that breaks off after so many tokens.
    BreakOff(u32),
    /// An answer with these headers.
    Saying(u32, &'static [(&'static str, &'static str)]),
    /// An answer of so many tokens that does not say what it used.
    Silent(u32),
    /// The same as calls of tools, a stream of them.
    Calling(u32),
    /// A beginning that is no answer, whose connection breaks.
    Cut,
    /// A page.
    Garbled,
    /// A stream that pauses after its first word until it is told to go on.
    Pausing(u32, Arc<Notify>),
}

/// What has happened.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Every question, in order, by its last message.
    pub(crate) asked: Vec<String>,
    /// How many streams began to speak, by question.
    pub(crate) spoken: HashMap<String, u32>,
    /// When how many tokens were used.
    pub(crate) used: Vec<(Instant, u32)>,
    /// All that was used.
    pub(crate) bill: Vec<Usage>,
    pub(crate) keys: Vec<String>,
}

type Script = Arc<dyn Fn(usize, &str) -> Act + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Provider {
    script: Script,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Provider {
    /// A provider whose answer to each request, by its number and its last message, is in the script.
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> (Self, String) {
        let provider = Self { script: Arc::new(script), ledger: Arc::default() };
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings))
            .route("/v1/models", get(models))
            .with_state(provider.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (provider, url)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.ledger.lock().unwrap().asked.clone()
    }

    fn uses(&self, usage: Usage) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.used.push((SystemClock.now(), usage.total()));
        ledger.bill.push(usage);
    }
}

fn usage(usage: Usage) -> Value {
    json!({ "prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": usage.total() })
}

async fn models(State(provider): State<Provider>) -> Json<Value> {
    provider.ledger.lock().unwrap().asked.push("models".to_owned());
    Json(json!({ "object": "list", "data": [] }))
}

async fn chat(State(provider): State<Provider>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    assert!(body["model"].is_string() && body["max_tokens"].is_u64(), "{body}");
    let question =
        body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    let nth = {
        let mut ledger = provider.ledger.lock().unwrap();
        ledger.asked.push(question.clone());
        ledger.keys.extend(headers.get("authorization").map(|key| key.to_str().unwrap().to_owned()));
        ledger.asked.len() - 1
    };
    let streams = body["stream"] == true;
    let mut speech = Speech::default();
    match (provider.script)(nth, &question) {
        Act::Hang => std::future::pending().await,
        Act::Refuse(status, retry_after, code) => {
            let body = Json(json!({ "error": { "message": "no", "type": code, "code": code } }));
            let mut response = (axum::http::StatusCode::from_u16(status).unwrap(), body).into_response();
            if let Some(wait) = retry_after {
                response.headers_mut().insert("retry-after", wait.parse().unwrap());
            }
            return response;
        }
        Act::Answer(tokens) => speech.tokens = tokens,
        Act::BreakOff(tokens) => (speech.tokens, speech.breaks) = (tokens + 5, Some(tokens)),
        Act::Saying(tokens, headers) => (speech.tokens, speech.headers) = (tokens, headers),
        Act::Silent(tokens) => (speech.tokens, speech.silent) = (tokens, true),
        Act::Calling(tokens) => (speech.tokens, speech.silent, speech.calls) = (tokens, true, true),
        Act::Cut => {
            let parts = [Ok("{\"id\": "), Err(std::io::Error::other("broken"))];
            let parts = futures_util::stream::iter(parts).then(|part| async move {
                tokio::task::yield_now().await;
                part
            });
            return Body::from_stream(parts).into_response();
        }
        Act::Garbled => return "<html>".into_response(),
        Act::Pausing(tokens, until) => (speech.tokens, speech.pause) = (tokens, Some(until)),
    }
    let (tokens, headers, silent) = (speech.tokens, speech.headers, speech.silent);
    let mut response = if streams {
        *provider.ledger.lock().unwrap().spoken.entry(question).or_default() += 1;
        stream(&provider, speech)
    } else {
        let used = Usage { prompt: tokens, completion: tokens };
        provider.uses(used);
        let message = json!({ "role": "assistant", "content": "word ".repeat(tokens as usize) });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        let usage = if silent { Value::Null } else { usage(used) };
        Json(json!({ "id": "c", "object": "chat.completion", "model": "scripted", "choices": [choice], "usage": usage }))
            .into_response()
    };
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// How an answer is given.
#[derive(Default)]
struct Speech {
    tokens: u32,
    breaks: Option<u32>,
    headers: &'static [(&'static str, &'static str)],
    pause: Option<Arc<Notify>>,
    silent: bool,
    calls: bool,
}

/// One event a token, each with what has been used so far; the last one `[DONE]`, unless it breaks off.
fn stream(provider: &Provider, speech: Speech) -> Response {
    let Speech { tokens, breaks, pause, silent, calls, .. } = speech;
    let said = breaks.unwrap_or(tokens);
    provider.uses(Usage { prompt: tokens, completion: said });
    let event = |value: Value| Bytes::from(format!("data: {value}\n\n"));
    let mut events: Vec<Result<Bytes, std::io::Error>> = vec![Ok(event(json!({
        "choices": [{ "index": 0, "delta": { "role": "assistant" }, "finish_reason": null }]
    })))];
    for token in 1..=said {
        let used = Usage { prompt: tokens, completion: token };
        let delta = if calls {
            json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "word " } }] })
        } else {
            json!({ "content": "word " })
        };
        let mut piece = json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
        if !silent {
            piece["usage"] = usage(used);
        }
        events.push(Ok(event(piece)));
    }
    if breaks.is_some() {
        events.push(Err(std::io::Error::other("broken")));
    } else {
        events.push(Ok(event(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }))));
        events.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    }
    // Each event is on its way before the next one is there.
    let events = futures_util::stream::iter(events).enumerate().then(move |(nth, event)| {
        let pause = pause.clone().filter(|_| nth == 2);
        async move {
            match pause {
                Some(pause) => pause.notified().await,
                None => tokio::task::yield_now().await,
            }
            event
        }
    });
    let body = Body::from_stream(events);
    ([("content-type", "text/event-stream")], body).into_response()
}

async fn embeddings(State(provider): State<Provider>, Json(body): Json<Value>) -> Response {
    let texts: Vec<_> =
        body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    let nth = {
        let mut ledger = provider.ledger.lock().unwrap();
        ledger.asked.push(texts.join("|"));
        ledger.asked.len() - 1
    };
    let act = (provider.script)(nth, &texts[0]);
    if matches!(act, Act::Hang) {
        std::future::pending::<()>().await;
    }
    if let Act::Refuse(status, _, _) = act {
        return axum::http::StatusCode::from_u16(status).unwrap().into_response();
    }
    // In whatever order.
    let data = texts.iter().enumerate().rev().map(
        |(index, text)| json!({ "object": "embedding", "index": index, "embedding": [text.len(), 1.0] }),
    );
    let used = Usage { prompt: 3 * u32::try_from(texts.len()).unwrap(), completion: 0 };
    let mut answer = json!({ "object": "list", "data": data.collect::<Vec<_>>() });
    if !matches!(act, Act::Silent(_)) {
        answer["usage"] = usage(used);
    }
    Json(answer).into_response()
}

pub(crate) const PRICE: Price = Price { prompt: 150_000, completion: 600_000 };

pub(crate) fn model(url: &str) -> Arc<OpenAi> {
    model_on(SystemClock::shared(), url)
}

/// With the client's own time-out as it is by default.
pub(crate) fn model_on(clock: SharedClock, url: &str) -> Arc<OpenAi> {
    model_with(clock, url, |_| {})
}

pub(crate) fn model_with(
    clock: SharedClock,
    url: &str,
    change: impl FnOnce(&mut ClientConfig),
) -> Arc<OpenAi> {
    let mut config = ClientConfig::default();
    (config.max_per_host, config.max_waiting_per_host) = (150, 10_000);
    change(&mut config);
    let client = Client::builder(config, clock.clone()).guard(Guard::local()).build().unwrap();
    let config = OpenAiConfig::new(url, "scripted").key("sk-secret");
    assert!(!format!("{config:?}").contains("secret"));
    Arc::new(OpenAi::new(client, config, clock))
}

pub(crate) fn target(name: &str, url: &str, change: impl FnOnce(&mut TargetConfig)) -> Target {
    target_on(SystemClock::shared(), name, url, change)
}

pub(crate) fn target_on(
    clock: SharedClock,
    name: &str,
    url: &str,
    change: impl FnOnce(&mut TargetConfig),
) -> Target {
    let mut config = TargetConfig::default();
    config.price = PRICE;
    change(&mut config);
    Target::new(name, model_on(clock, url) as Arc<dyn ChatModel>, config)
}
