//! A client of the OpenAI wire format: chat completions, streamed or not, and embeddings.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use runtime_client::{Client, ClientError, RequestBuilder, Response, parse_retry_after};
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Context, Deadline, SharedClock};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ProviderError;
use crate::port::{ChatModel, ChatStream, EmbeddingModel, Told};
use crate::sse::SseParser;
use crate::wire::{
    ChatRequest, ChatResponse, Delta, Embeddings, Finish, Message, Role, Usage, bytes, estimate,
};

/// The largest event of a stream, and the largest refusal.
const MOST_EVENT: usize = 1 << 20;

/// Where a model is.
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenAiConfig {
    /// The beginning of the URLs: `https://api.openai.com/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The key to show; never printed.
    pub key: Option<String>,
}

impl fmt::Debug for OpenAiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl OpenAiConfig {
    /// A model behind a URL.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { url: url.into(), model: model.into(), key: None }
    }

    /// Shows this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// A model that speaks the OpenAI wire format. It makes one attempt at a time: retries and fallbacks are
/// [`harden_ai`](crate::harden_ai)'s.
///
/// A chat's answer may take until the context's deadline, however short the client's own `timeout` is; that holds for
/// embeddings, and for a context without a deadline. A stream may be longer than the client's `max_response`: each of its events may have 1 MiB.
#[derive(Clone, Debug)]
pub struct OpenAi {
    client: Client,
    config: OpenAiConfig,
    clock: SharedClock,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Spoken,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spoken {
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    content: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Piece>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    delta: Spoken,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Vectors {
    data: Vec<Vector>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Vector {
    index: usize,
    embedding: Vec<f32>,
}

/// A request that was sent: whose time it has, and since when.
struct Sent {
    clock: SharedClock,
    began: Instant,
    deadline: Deadline,
}

impl Sent {
    fn error(&self, target: &str, error: ClientError) -> ProviderError {
        match error {
            // The client's time is over, not the caller's: that is the target's affair.
            ClientError::Deadline if !self.deadline.is_expired(&*self.clock) => ProviderError::TimedOut {
                target: target.to_owned(),
                after: self.clock.now().saturating_duration_since(self.began),
            },
            error => ProviderError::of_client(target, error),
        }
    }
}

impl OpenAi {
    /// A model by its configuration. The client must be allowed to call it, and needs no retries of its own.
    pub fn new(client: Client, config: OpenAiConfig, clock: SharedClock) -> Self {
        Self { client, config, clock }
    }

    /// Asks for the list of models: whether it is there and knows our key, at no cost.
    ///
    /// # Errors
    /// [`ProviderError`], with `target` as given.
    pub async fn ping(&self, context: &Context, target: &str) -> Result<(), ProviderError> {
        self.send(context, target, self.keyed(self.client.get(&self.url("models")))).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.config.url.trim_end_matches('/'))
    }

    /// A chat has the call's own time: it takes longer than what the client's is meant for.
    fn ask(&self, context: &Context, body: &Value) -> RequestBuilder {
        let request = self.post("chat/completions", body);
        match context.deadline.remaining(&*self.clock) {
            Some(left) => request.timeout(left),
            None => request,
        }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.keyed(self.client.post(&self.url(path)).json(body))
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        // One loop retries, and it is not here.
        let request = request.repeatable(false);
        match &self.config.key {
            Some(key) => request.header("authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    async fn send(
        &self,
        context: &Context,
        target: &str,
        request: RequestBuilder,
    ) -> Result<(Response, Told, Sent), ProviderError> {
        let sent = Sent { clock: self.clock.clone(), began: self.clock.now(), deadline: context.deadline };
        let answer = request.send(&context.clone().with_caller_retries(true)).await;
        let answer = answer.map_err(|error| sent.error(target, error))?;
        let told = told(answer.headers());
        if answer.status().is_success() {
            return Ok((answer, told, sent));
        }
        let asked = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|value| parse_retry_after(value, self.clock.utc()));
        let status = answer.status();
        let mut text = beginning(answer).await;
        // Some providers quote what they do not like.
        if let Some(key) = self.config.key.as_deref().filter(|key| !key.is_empty()) {
            text = text.replace(key, "***");
        }
        Err(refusal(target, status, retry_after, &text))
    }

    fn chat(&self, request: &ChatRequest, stream: bool) -> Result<Value, ProviderError> {
        request.check()?;
        let wrong = |message: String| ProviderError::Config { key: "request".to_owned(), message };
        let mut body = serde_json::to_value(request).map_err(|error| wrong(error.to_string()))?;
        let fields = body.as_object_mut().ok_or_else(|| wrong("must be an object".to_owned()))?;
        fields.insert("model".to_owned(), self.config.model.clone().into());
        if stream {
            fields.insert("stream".to_owned(), true.into());
            fields.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        Ok(body)
    }
}

/// A refusal is short.
async fn beginning(mut answer: Response) -> String {
    let mut text = Vec::new();
    while text.len() < MOST_EVENT
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What a status and its body mean.
fn refusal(target: &str, status: StatusCode, retry_after: Option<Duration>, text: &str) -> ProviderError {
    let target = target.to_owned();
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, kind, message) = (field("code"), field("type"), field("message"));
    let says = |words: &[&str]| words.iter().any(|word| code.contains(word) || kind.contains(word));
    match status.as_u16() {
        401 | 403 => ProviderError::Unauthorized { target },
        429 => ProviderError::RateLimited { target, retry_after },
        503 | 529 => ProviderError::Overloaded { target, retry_after },
        _ if says(&["context_length", "context_window", "request_too_large"]) => {
            ProviderError::ContextWindow { target }
        }
        400 | 422 if message.contains("maximum context length") => ProviderError::ContextWindow { target },
        413 => ProviderError::ContextWindow { target },
        _ if says(&["content_policy", "content_filter", "moderation"]) => {
            ProviderError::ContentPolicy { target }
        }
        408 | 500..=599 => ProviderError::Failed { target, why: format!("it answered {status}") },
        code => {
            let message: String = message.chars().take(500).collect();
            ProviderError::Invalid { target, status: code, message }
        }
    }
}

/// `x-ratelimit-remaining-requests` and `-tokens`.
fn told(headers: &HeaderMap) -> Told {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    Told {
        requests: number("x-ratelimit-remaining-requests"),
        tokens: number("x-ratelimit-remaining-tokens"),
    }
}

fn lost(target: &str, why: impl Into<String>) -> ProviderError {
    ProviderError::Lost { target: target.to_owned(), why: why.into() }
}

#[async_trait]
impl ChatModel for OpenAi {
    async fn complete(
        &self,
        context: &Context,
        target: &str,
        request: &ChatRequest,
    ) -> Result<(ChatResponse, Told), ProviderError> {
        let post = self.ask(context, &self.chat(request, false)?);
        let (answer, told, sent) = self.send(context, target, post).await?;
        let whole: Whole = match answer.json().await {
            Ok(whole) => whole,
            Err(ClientError::Decode(_)) => {
                return Err(lost(target, "its answer is no completion"));
            }
            Err(error) => return Err(sent.error(target, error)),
        };
        let Some(choice) = whole.choices.into_iter().next() else {
            return Err(lost(target, "its answer has no choices"));
        };
        let Spoken { role, content, more } = choice.message;
        let text = content.unwrap_or_default();
        let usage = whole.usage.and_then(Usage::said);
        let usage = usage.unwrap_or_else(|| request.most().heard(text.len() + bytes(&more)));
        let response = ChatResponse {
            target: target.to_owned(),
            model: whole.model,
            message: Message { role: role.unwrap_or(Role::Assistant), content: text, more },
            finish: Finish::parse(choice.finish_reason.as_deref().unwrap_or("stop")),
            usage,
        };
        Ok((response, told))
    }

    async fn stream(
        &self,
        context: &Context,
        target: &str,
        request: &ChatRequest,
    ) -> Result<(ChatStream, Told), ProviderError> {
        let request = self.ask(context, &self.chat(request, true)?);
        // Nothing of it is kept but the event that comes: there is nothing to bound in all.
        let request = request.max_response(ByteSize::bytes(u64::MAX));
        let (mut answer, told, sent) = self.send(context, target, request).await?;
        let target = target.to_owned();
        let stream = async_stream::stream! {
            let mut parser = SseParser::new(MOST_EVENT);
            loop {
                let chunk = match answer.chunk().await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => {
                        yield Err(lost(&target, "the stream ended without its last event"));
                        return;
                    }
                    Err(error) => {
                        yield Err(sent.error(&target, error));
                        return;
                    }
                };
                let events = match parser.push(&chunk) {
                    Ok(events) => events,
                    Err(error) => {
                        yield Err(lost(&target, error.to_string()));
                        return;
                    }
                };
                for event in events {
                    if event.data == "[DONE]" {
                        return;
                    }
                    match delta(&target, &event.data) {
                        Ok(delta) => yield Ok(delta),
                        Err(error) => {
                            yield Err(error);
                            return;
                        }
                    }
                }
            }
        };
        Ok((Box::pin(stream), told))
    }
}

fn delta(target: &str, data: &str) -> Result<Delta, ProviderError> {
    let chunk: Chunk =
        serde_json::from_str(data).map_err(|_| lost(target, "an event is no piece of a completion"))?;
    if let Some(error) = chunk.error {
        let status =
            error.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Err(refusal(target, status, None, &json!({ "error": error }).to_string()));
    }
    let piece = chunk.choices.into_iter().next();
    let (spoken, finish) = piece.map_or_else(Default::default, |piece| (piece.delta, piece.finish_reason));
    Ok(Delta {
        content: spoken.content.unwrap_or_default(),
        more: spoken.more,
        finish: finish.as_deref().map(Finish::parse),
        usage: chunk.usage,
    })
}

#[async_trait]
impl EmbeddingModel for OpenAi {
    async fn embed(
        &self,
        context: &Context,
        target: &str,
        texts: &[String],
    ) -> Result<(Embeddings, Told), ProviderError> {
        let body = json!({ "model": self.config.model, "input": texts, "encoding_format": "float" });
        let (answer, told, sent) = self.send(context, target, self.post("embeddings", &body)).await?;
        let mut found: Vectors = match answer.json().await {
            Ok(found) => found,
            Err(ClientError::Decode(_)) => {
                return Err(lost(target, "its answer has no vectors"));
            }
            Err(error) => return Err(sent.error(target, error)),
        };
        // Their order is not promised.
        found.data.sort_by_key(|vector| vector.index);
        let in_order = found.data.iter().map(|vector| vector.index).eq(0..texts.len());
        if !in_order {
            return Err(lost(
                target,
                format!("it gave {} vectors for {} texts", found.data.len(), texts.len()),
            ));
        }
        let vectors = found.data.into_iter().map(|vector| vector.embedding).collect();
        let usage = found.usage.and_then(Usage::said);
        let usage = usage.unwrap_or_else(|| Usage { prompt: estimate(texts), completion: 0 });
        Ok((Embeddings { vectors, usage }, told))
    }
}
