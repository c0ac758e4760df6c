//! Publishing to a web hook: each event is posted as a CloudEvents request.

use async_trait::async_trait;
use http::HeaderMap;
use runtime_client::Client;
use runtime_kernel::{Carried, Context, Deadline, SharedClock, Source};
use runtime_resilience::RetryPolicy;

use crate::cloudevent::http::{Mode, write, write_batch};
use crate::consumer::fresh;
use crate::error::EventsError;
use crate::message::Message;
use crate::publisher::{Publisher, Receipt};

/// Posts events to one URL, one after the other. Any 2xx answer means taken.
///
/// Repeating is safe for receivers that know an event by its source and id, as the specification lets them; they cannot
/// say that one was a duplicate, so every receipt is [`Receipt::New`].
#[derive(Clone, Debug)]
pub struct HttpPublisher {
    client: Client,
    url: String,
    mode: Mode,
    batch: usize,
    retry: Option<RetryPolicy>,
    clock: SharedClock,
}

impl HttpPublisher {
    /// To a URL, in binary mode. Which URLs may be called, and how long a call may take, is the client's to say.
    pub fn new(client: Client, url: impl Into<String>, clock: SharedClock) -> Self {
        Self { client, url: url.into(), mode: Mode::Binary, batch: 1, retry: None, clock }
    }

    /// Sends in this mode.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sends up to so many events in one request, for a receiver that asked for batches and for that size.
    #[must_use]
    pub fn batched(mut self, most: usize) -> Self {
        self.batch = most.max(1);
        self
    }

    /// Repeats calls that failed for the moment.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    async fn post(&self, from: &Carried, headers: &HeaderMap, body: bytes::Bytes) -> Result<(), EventsError> {
        // The deadline of the work that published says nothing about those who hear of it later.
        let context: Context = fresh(from.resume(Source::Event, &*self.clock), Deadline::NONE);
        let mut request = self.client.post(&self.url).body(body).repeatable(true).redirects(0);
        for (name, value) in headers {
            let value =
                value.to_str().map_err(|_| EventsError::attribute(name.as_str(), "cannot be a header"))?;
            request = request.header(name.as_str(), value);
        }
        if let Some(policy) = &self.retry {
            request = request.retry(policy.clone());
        }
        let status = request.send(&context).await?.status();
        if status.is_success() { Ok(()) } else { Err(EventsError::Refused { status: status.as_u16() }) }
    }
}

#[async_trait]
impl Publisher for HttpPublisher {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        if self.batch > 1 {
            for batch in messages.chunks(self.batch) {
                let Some(first) = batch.first() else { continue };
                let events: Vec<_> = batch.iter().map(|message| message.event.clone()).collect();
                let (headers, body) = write_batch(&events)?;
                self.post(&first.context, &headers, body).await?;
            }
        } else {
            for message in messages {
                let (headers, body) = write(&message.event, self.mode)?;
                self.post(&message.context, &headers, body).await?;
            }
        }
        Ok(vec![Receipt::New; messages.len()])
    }
}
