#![doc = include_str!("../README.md")]

mod cache;
mod call;
mod config;
mod cost;
mod database;
mod embedding;
mod error;
mod harden;
mod meter;
mod openai;
mod port;
mod sse;
mod target;
mod wire;

pub use cache::CacheConfig;
pub use config::{Chains, HardenConfig};
pub use cost::{Cost, Price};
pub use database::with_database_retry;
pub use embedding::{HardenedEmbedding, harden_embedding};
pub use error::ProviderError;
pub use harden::{HardenedChat, harden_ai};
pub use meter::Spent;
pub use openai::{OpenAi, OpenAiConfig};
pub use port::{ChatModel, ChatStream, EmbeddingModel, Told};
pub use sse::{SseError, SseEvent, SseParser};
pub use target::{Target, TargetConfig};
pub use wire::{ChatRequest, ChatResponse, Delta, Embeddings, Finish, Message, Role, Usage};
