#![doc = include_str!("../README.md")]

mod cache;
mod call;
mod config;
mod cost;
mod database;
mod embedding;
mod error;
mod gate;
mod harden;
mod meter;
#[cfg(feature = "module")]
mod module;
mod openai;
mod port;
#[cfg(feature = "module")]
mod section;
mod sse;
mod target;
mod wire;

pub use cache::CacheConfig;
pub use config::{Chains, HardenConfig};
pub use cost::{Cost, Price};
pub use database::with_database_retry;
pub use embedding::{HardenedEmbedding, harden_embedding};
pub use error::ProviderError;
pub use gate::Gate;
pub use harden::{HardenedChat, harden_ai};
pub use meter::Spent;
#[cfg(feature = "module")]
pub use module::{CHATS, EMBEDDINGS, Named, ProvidersModule};
pub use openai::{OpenAi, OpenAiConfig};
pub use port::{ChatModel, ChatStream, EmbeddingModel, Told};
#[cfg(feature = "module")]
pub use section::{ChatConfig, CheckKind, EmbeddingConfig, ModelConfig, ProvidersConfig};
pub use sse::{SseError, SseEvent, SseParser};
pub use target::{Attempted, Target, TargetConfig};
pub use wire::{ChatRequest, ChatResponse, Delta, Embeddings, Finish, Message, Role, Usage};
