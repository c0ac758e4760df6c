//! The port through which events leave: a log, a broker, a web hook or the bus of this process.

use std::sync::Arc;

use async_trait::async_trait;

use crate::bus::Topic;
use crate::error::EventsError;
use crate::message::Message;

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was taken.
    New,
    /// It had been taken before: same topic, tenant, source and id.
    Duplicate,
}

/// Takes events over. Laws every broker passes are in `laws` (feature `testkit`).
///
/// `Ok` means that all of them were taken, durably where the implementation is durable. After an error any of them may
/// have been taken, and all may be published again: who keeps duplicates apart says so by [`Receipt::Duplicate`].
/// Messages of one key that one caller publishes one after the other are kept in that order.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Publishes messages in their order; one receipt for each.
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError>;
}

/// The bus of this process: taken is what the topic took, until the process ends.
#[async_trait]
impl Publisher for Topic<Arc<Message>> {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        for message in messages {
            Self::publish(self, Arc::new(message.clone())).await?;
        }
        Ok(vec![Receipt::New; messages.len()])
    }
}

#[async_trait]
impl<P: Publisher + ?Sized> Publisher for Arc<P> {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        (**self).publish(messages).await
    }
}
