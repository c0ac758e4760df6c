//! `/v1/chat/completions` and `/v1/embeddings`: the app's chats and embeddings behind the OpenAI wire format.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use runtime_http::axum::body::Body;
use runtime_http::axum::extract::State;
use runtime_http::axum::response::{IntoResponse, Response};
use runtime_http::{Ctx, HttpApp, Json, Result, Route};
use runtime_kernel::app::App;
use runtime_kernel::container::Container;
use runtime_kernel::{Classify, Clock, Context, Error, ErrorKind, SystemClock};
use runtime_providers::{
    CHATS, ChatRequest, Delta, EMBEDDINGS, Finish, HardenedChat, Message, ProviderError, Usage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const TAG: &str = "providers";

pub(super) fn routes(app: &mut App) {
    app.route(
        Route::post("/v1/chat/completions", complete)
            .summary("Asks a chat of the section `providers.chats`; with `stream`, as server-sent events.")
            .tag(TAG)
            .scope("providers:call")
            .takes::<Question>()
            .answers::<Completion>(200, "The answer.")
            .problems(&[404, 429]),
    );
    app.route(
        Route::post("/v1/embeddings", embed)
            .summary("Turns texts into vectors by an embedding of the section `providers.embeddings`.")
            .tag(TAG)
            .scope("providers:call")
            .takes::<Texts>()
            .answers::<Vectors>(200, "The vectors.")
            .problems(&[404, 429]),
    );
}

/// A chat, as the OpenAI API writes it. Whatever else it has is passed on.
#[derive(Debug, Deserialize, JsonSchema)]
struct Question {
    /// The chat's name in `providers.chats`.
    model: String,
    /// The chat so far: `role`, `content`, and whatever else a message has.
    messages: Vec<Map<String, Value>>,
    /// How many tokens the answer may have at most.
    #[serde(alias = "max_completion_tokens")]
    max_tokens: u32,
    /// Whether the answer comes bit by bit.
    stream: Option<bool>,
    /// How free the answer is: 0 to 2.
    temperature: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// An answer, as the OpenAI API writes it.
#[derive(Debug, Serialize, JsonSchema)]
struct Completion {
    /// The request's id.
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// When, in seconds since 1970.
    created: i64,
    /// The model that answered.
    model: String,
    /// The target that answered.
    target: String,
    /// One choice: `index`, `message` and `finish_reason`.
    choices: [Value; 1],
    /// The tokens that were used.
    usage: Used,
}

/// Tokens that were used.
#[derive(Debug, Serialize, JsonSchema)]
struct Used {
    /// Those of the question.
    #[serde(rename = "prompt_tokens")]
    prompt: u32,
    /// Those of the answer.
    #[serde(rename = "completion_tokens")]
    completion: u32,
    /// Together.
    #[serde(rename = "total_tokens")]
    total: u32,
}

impl From<Usage> for Used {
    fn from(usage: Usage) -> Self {
        Self { prompt: usage.prompt, completion: usage.completion, total: usage.total() }
    }
}

/// Texts to turn into vectors.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Texts {
    /// The embedding's name in `providers.embeddings`.
    model: String,
    /// One text, or several.
    input: OneOrMany,
    /// Numbers in any case: clients that ask for `base64` read them as well.
    #[serde(rename = "encoding_format")]
    _encoding: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Vectors, as the OpenAI API writes them.
#[derive(Debug, Serialize, JsonSchema)]
struct Vectors {
    /// `list`.
    object: &'static str,
    /// `index` and `embedding`, in the order of the texts.
    data: Vec<Value>,
    /// The embedding's name.
    model: String,
    /// The tokens that were used.
    usage: Used,
}

async fn complete(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(question): Json<Question>,
) -> Result<Response> {
    let messages = question.messages.into_iter().map(|message| serde_json::from_value(message.into()));
    let messages: Vec<Message> = messages.collect::<std::result::Result<_, _>>().map_err(|error| {
        Error::new(ErrorKind::Invalid, "provider.invalid_message", format!("`messages`: {error}"))
    })?;
    let mut request = ChatRequest::new(messages, question.max_tokens);
    request.temperature = question.temperature;
    request.more = question.more;
    // Ours to say: the usage comes in any case.
    request.more.remove("stream_options");
    let chats = container.get(CHATS).await?;
    let chat = chats.get(&question.model)?;
    if question.stream == Some(true) {
        return Ok(streamed(chat, &context, &request).await?);
    }
    let answer = chat.complete(&context, &request).await?;
    let finish = answer.finish.as_str();
    Ok(Json(Completion {
        id: context.request_id.to_string(),
        object: "chat.completion",
        created: SystemClock.utc().as_second(),
        model: answer.model,
        target: answer.target,
        choices: [json!({ "index": 0, "message": answer.message, "finish_reason": finish })],
        usage: answer.usage.into(),
    })
    .into_response())
}

async fn streamed(
    chat: &HardenedChat,
    context: &Context,
    request: &ChatRequest,
) -> std::result::Result<Response, ProviderError> {
    let answer = chat.stream(context, request).await?;
    let id: Arc<str> = context.request_id.to_string().into();
    let events = stream::unfold(Some(Box::pin(answer)), move |answer| {
        let id = Arc::clone(&id);
        async move {
            let mut answer = answer?;
            Some(match answer.next().await {
                Some(Ok(delta)) => (event(&piece(&id, delta)), Some(answer)),
                // Its head is out: the error is the last event, and there is no `[DONE]`.
                Some(Err(error)) => {
                    let error = json!({ "message": error.to_string(), "code": error.code() });
                    (event(&json!({ "error": error })), None)
                }
                None => ("data: [DONE]\n\n".to_owned(), None),
            })
        }
    });
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events.map(Ok::<_, Infallible>)))
        .into_response())
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn piece(id: &str, delta: Delta) -> Value {
    let Delta { content, mut more, finish, usage, .. } = delta;
    more.insert("content".to_owned(), content.into());
    let finish = finish.as_ref().map(Finish::as_str);
    let choice = json!({ "index": 0, "delta": more, "finish_reason": finish });
    let usage = usage.map(Used::from);
    let created = SystemClock.utc().as_second();
    json!({ "id": id, "object": "chat.completion.chunk", "created": created, "choices": [choice], "usage": usage })
}

async fn embed(
    State(container): State<Container>,
    Ctx(context): Ctx,
    Json(Texts { model, input, .. }): Json<Texts>,
) -> Result<Json<Vectors>> {
    let texts = match input {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    let embeddings = container.get(EMBEDDINGS).await?;
    let found = embeddings.get(&model)?.embed(&context, &texts).await?;
    let data = found.vectors.into_iter().enumerate();
    let data =
        data.map(|(index, vector)| json!({ "object": "embedding", "index": index, "embedding": vector }));
    Ok(Json(Vectors { object: "list", data: data.collect(), model, usage: found.usage.into() }))
}
