//! What a model is: the ports every provider implements.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use futures_core::Stream;
use runtime_kernel::Context;

use crate::error::ProviderError;
use crate::wire::{ChatRequest, ChatResponse, Delta, Embeddings};

/// A streamed answer. It ends after an error.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<Delta, ProviderError>> + Send>>;

/// What a provider says of its limits in the head of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// How many requests are left.
    pub requests: Option<u32>,
    /// How many tokens are left.
    pub tokens: Option<u32>,
}

/// A chat model.
#[async_trait]
pub trait ChatModel: fmt::Debug + Send + Sync + 'static {
    /// A whole answer, and what the provider says of its limits.
    ///
    /// # Errors
    /// [`ProviderError`], with `target` as given.
    async fn complete(
        &self,
        context: &Context,
        target: &str,
        request: &ChatRequest,
    ) -> Result<(ChatResponse, Told), ProviderError>;

    /// An answer bit by bit. It returns when the answer's head is there.
    ///
    /// # Errors
    /// [`ProviderError`], with `target` as given.
    async fn stream(
        &self,
        context: &Context,
        target: &str,
        request: &ChatRequest,
    ) -> Result<(ChatStream, Told), ProviderError>;
}

/// A model that turns texts into vectors.
#[async_trait]
pub trait EmbeddingModel: fmt::Debug + Send + Sync + 'static {
    /// A vector for each text.
    ///
    /// # Errors
    /// [`ProviderError`], with `target` as given.
    async fn embed(
        &self,
        context: &Context,
        target: &str,
        texts: &[String],
    ) -> Result<(Embeddings, Told), ProviderError>;
}
