//! What an operator writes: models, and the chats and embeddings put together from them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Chains, HardenConfig};
use crate::target::TargetConfig;

/// The section `providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ProvidersConfig {
    /// The models by name.
    pub targets: BTreeMap<String, ModelConfig>,
    /// The chats by name: one or several models as one.
    pub chats: BTreeMap<String, ChatConfig>,
    /// The embeddings by name.
    pub embeddings: BTreeMap<String, EmbeddingConfig>,
    /// The operation of `ratelimit.operations` that limits who asks a chat how often. Default `ai_generate`; nothing is
    /// limited while the table does not name it.
    pub chat_operation: String,
    /// The same for embeddings. Default `embed`.
    pub embedding_operation: String,
    /// How the health checks `ai_provider.<target>` ask. Default ping.
    pub chat_check: CheckKind,
    /// How the health checks `embedding_provider.<name>` ask. Default ping.
    pub embedding_check: CheckKind,
}

impl Default for ProvidersConfig {
    fn default() -> Self {
        Self {
            targets: BTreeMap::new(),
            chats: BTreeMap::new(),
            embeddings: BTreeMap::new(),
            chat_operation: "ai_generate".to_owned(),
            embedding_operation: "embed".to_owned(),
            chat_check: CheckKind::Ping,
            embedding_check: CheckKind::Ping,
        }
    }
}

/// How a provider is asked whether it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckKind {
    /// For its list of models, which costs nothing.
    #[default]
    Ping,
    /// For an answer of one token.
    Generate,
    /// For the vector of one word.
    Embed,
}

/// One model at one provider, behind the OpenAI wire format.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The beginning of the URLs: `https://api.openai.com/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The key to show. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// What is known of it beforehand.
    pub limits: TargetConfig,
}

/// Without the key.
impl fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// One or several models as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChatConfig {
    /// Which targets follow which failure.
    pub chains: Chains,
    /// How calls are made.
    pub calls: HardenConfig,
}

impl ChatConfig {
    /// Every target it may call, once.
    pub(crate) fn targets(&self) -> Vec<&str> {
        let Chains { order, context_window, content_policy } = &self.chains;
        let mut names = Vec::new();
        for name in order.iter().chain(context_window).chain(content_policy) {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        names
    }
}

/// One model that turns texts into vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EmbeddingConfig {
    /// Which target.
    pub target: String,
    /// The retry policy, by name. Default `expensive`.
    pub retry: String,
    /// How many texts are sent at a time. Default 64.
    pub batch: usize,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self { target: String::new(), retry: "expensive".to_owned(), batch: 64 }
    }
}

impl ProvidersConfig {
    /// The key that is wrong, and what it must be.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: String, message: &str| Err((key, message.to_owned()));
        for (name, target) in &self.targets {
            if !target.url.starts_with("http://") && !target.url.starts_with("https://") {
                return wrong(format!("targets.{name}.url"), "must be an http or https URL");
            }
            if target.model.is_empty() {
                return wrong(format!("targets.{name}.model"), "must not be empty");
            }
        }
        let known = |key: String, name: &str| {
            let found = self.targets.contains_key(name);
            if found { Ok(()) } else { Err((key, format!("names no target: `{name}`"))) }
        };
        for (name, chat) in &self.chats {
            if chat.chains.order.is_empty() {
                return wrong(format!("chats.{name}.chains.order"), "must name a target");
            }
            let calls = &chat.calls;
            if calls.max_attempts == 0 {
                return wrong(format!("chats.{name}.calls.max_attempts"), "must be more than 0");
            }
            for (key, time) in [("timeout", calls.timeout), ("attempt_timeout", calls.attempt_timeout)] {
                if time.is_zero() {
                    return wrong(format!("chats.{name}.calls.{key}"), "must be more than 0");
                }
            }
            for target in chat.targets() {
                known(format!("chats.{name}.chains"), target)?;
            }
        }
        for (name, embedding) in &self.embeddings {
            known(format!("embeddings.{name}.target"), &embedding.target)?;
            if embedding.batch == 0 {
                return wrong(format!("embeddings.{name}.batch"), "must be more than 0");
            }
        }
        if self.embedding_check == CheckKind::Generate {
            return wrong("embedding_check".to_owned(), "must be `ping` or `embed`");
        }
        Ok(())
    }
}
