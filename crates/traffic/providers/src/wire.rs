//! Chats and embeddings as the OpenAI API writes them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ProviderError;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// What the model shall be.
    System,
    /// The same, as newer models call it.
    Developer,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// What a tool answered.
    Tool,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. Read from null as nothing, as beside `tool_calls`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub content: String,
    /// Whatever else the wire format has: `name`, `tool_calls`, `tool_call_id`, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

fn or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Message {
    /// A message of a user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into(), more: Map::new() }
    }

    /// What the model shall be.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into(), more: Map::new() }
    }
}

/// What is asked of a chat model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The chat so far.
    pub messages: Vec<Message>,
    /// How many tokens the answer may have at most. It bounds what a call can cost, and is reserved before it is made.
    pub max_tokens: u32,
    /// How free the answer is: 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature: Option<f64>,
    /// Whatever else the wire format has: `tools`, `response_format`, `stop`, `seed`, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ChatRequest {
    /// A chat whose answer has at most so many tokens.
    pub fn new(messages: impl Into<Vec<Message>>, max_tokens: u32) -> Self {
        Self { messages: messages.into(), max_tokens, temperature: None, more: Map::new() }
    }

    /// About how many tokens the question is, not fewer than English text has: a token for every three bytes of what is
    /// said and of whatever else messages and request have (`tools`, `tool_calls`, …, as JSON), and eight for each
    /// message.
    pub fn estimate(&self) -> u32 {
        let one = |message: &Message| (message.content.len() + bytes(&message.more)).div_ceil(3) + 8;
        let all = self.messages.iter().map(one).sum::<usize>() + bytes(&self.more).div_ceil(3);
        u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// What question and answer may have at most.
    pub(crate) fn most(&self) -> Usage {
        Usage { prompt: self.estimate(), completion: self.max_tokens }
    }

    /// Refuses what would have it use, and cost, more than is reserved for it.
    pub(crate) fn check(&self) -> Result<(), ProviderError> {
        let beyond = ["n", "best_of", "max_completion_tokens", "max_tokens"];
        match beyond.iter().find(|key| self.more.contains_key(**key)) {
            Some(key) => Err(ProviderError::Config {
                key: "request".to_owned(),
                message: format!("must not have `{key}`: `max_tokens` bounds one answer"),
            }),
            None => Ok(()),
        }
    }
}

/// About how many tokens texts are that are turned into vectors.
pub(crate) fn estimate(texts: &[String]) -> u32 {
    let tokens = texts.iter().map(|text| text.len().div_ceil(3) + 1).sum::<usize>();
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// How long these fields are as JSON; those without a value are nothing.
pub(crate) fn bytes(more: &Map<String, Value>) -> usize {
    let said = more.iter().filter(|(_, value)| !value.is_null());
    said.map(|(key, value)| key.len() + value.to_string().len()).sum()
}

/// Tokens a call has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Those of the question.
    #[serde(rename = "prompt_tokens", default)]
    pub prompt: u32,
    /// Those of the answer.
    #[serde(rename = "completion_tokens", default)]
    pub completion: u32,
}

impl Usage {
    /// Together.
    pub fn total(self) -> u32 {
        self.prompt.saturating_add(self.completion)
    }

    /// What of this a call has used whose provider does not say: no more tokens than its answer had bytes.
    pub(crate) fn heard(self, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { prompt: self.prompt, completion: self.completion.min(bytes) }
    }

    /// Nothing is no word: every question has a token.
    pub(crate) fn said(self) -> Option<Self> {
        (self.total() > 0).then_some(self)
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// It was complete.
    Stop,
    /// It had as many tokens as it may.
    Length,
    /// The provider's policy cut it.
    ContentFilter,
    /// The model asks for a tool.
    ToolCalls,
    /// Something else.
    Other(String),
}

impl Finish {
    /// The word of the wire format.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCalls => "tool_calls",
            Self::Other(other) => other,
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            "tool_calls" => Self::ToolCalls,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChatResponse {
    /// The target that answered.
    pub target: String,
    /// The model that answered.
    pub model: String,
    /// What it says.
    pub message: Message,
    /// Why it ended.
    pub finish: Finish,
    /// What it used. Where the provider does not say: as many tokens as the question is estimated to have, and one for
    /// each byte of the answer, up to `max_tokens`.
    pub usage: Usage,
}

/// A piece of a streamed answer.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Delta {
    /// The next words.
    pub content: String,
    /// Whatever else the piece has: parts of `tool_calls`, …
    pub more: Map<String, Value>,
    /// Why the answer ended, in its last piece.
    pub finish: Option<Finish>,
    /// What the call used, if the provider says so, after the last piece.
    pub usage: Option<Usage>,
}

impl Delta {
    /// Whether it is only a beginning: a role, fields without a value.
    pub(crate) fn says_nothing(&self) -> bool {
        self.content.is_empty()
            && self.finish.is_none()
            && self.usage.is_none()
            && self.more.values().all(Value::is_null)
    }
}

/// Vectors, one for each text, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Embeddings {
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// What they used. Where the provider does not say: a token for every three bytes, and one for each text.
    pub usage: Usage,
}
