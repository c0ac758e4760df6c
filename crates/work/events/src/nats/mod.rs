//! NATS JetStream: publishes into a stream and consumes it by durable pull consumers.

mod consumer;
mod parked;
mod publisher;
mod wire;

use std::time::Duration;

use async_nats::jetstream::{self, stream};

pub use async_nats;
pub use consumer::NatsConsumer;
pub use parked::ParkedMessage;

use crate::error::EventsError;
use crate::message::check_name;

/// Which stream is used, and how it is made when it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The stream's name; parked events are in one called `<name>-parked`. `events` unless told.
    pub stream: String,
    /// The first word of every subject: a topic's is `<prefix>.<topic>`. `events` unless told.
    pub prefix: String,
    /// How long the server knows an event it has taken, so that one published twice is kept once. 2 min unless told.
    pub duplicates: Duration,
    /// How long events are kept. 7 days unless told.
    pub keep: Duration,
    /// How many servers of a cluster keep each event. 1 unless told.
    pub replicas: usize,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            stream: "events".to_owned(),
            prefix: "events".to_owned(),
            duplicates: Duration::from_mins(2),
            keep: Duration::from_hours(24 * 7),
            replicas: 1,
        }
    }
}

/// A stream of a NATS server with JetStream (2.9 or newer).
///
/// Events travel in CloudEvents' binary mode for NATS, the context they came from in the header `Runtime-Context`. That
/// header is believed: let only this service's processes publish to the stream's subjects.
#[derive(Clone, Debug)]
pub struct NatsEvents {
    context: jetstream::Context,
    options: NatsOptions,
}

impl NatsEvents {
    /// Over a client, which reconnects by itself. Makes the streams unless they are there.
    ///
    /// # Errors
    /// [`EventsError::Config`] for a name out of the alphabet, [`EventsError::Broker`] when the server refuses.
    pub async fn new(client: async_nats::Client, options: NatsOptions) -> Result<Self, EventsError> {
        check_name("prefix", &options.prefix)?;
        check_name("stream", &options.stream)?;
        if options.stream.contains('.') {
            return Err(EventsError::config("stream", "must have no dots"));
        }
        let events = Self { context: jetstream::new(client), options };
        let NatsOptions { stream, prefix, .. } = &events.options;
        for (name, subjects) in
            [(stream.clone(), format!("{prefix}.>")), (events.parked_stream(), format!("{prefix}-parked.>"))]
        {
            let config = stream::Config {
                name,
                subjects: vec![subjects],
                duplicate_window: events.options.duplicates,
                max_age: events.options.keep,
                num_replicas: events.options.replicas,
                storage: stream::StorageType::File,
                ..stream::Config::default()
            };
            events.context.get_or_create_stream(config).await.map_err(broker)?;
        }
        Ok(events)
    }

    fn subject(&self, topic: &str) -> String {
        format!("{}.{topic}", self.options.prefix)
    }

    fn parked_stream(&self) -> String {
        format!("{}-parked", self.options.stream)
    }

    /// Where a group's parked events of a topic go. A group is one word there, because topics are many.
    fn parked_subject(&self, group: &str, topic: &str) -> String {
        format!("{}-parked.{}.{topic}", self.options.prefix, durable(group))
    }
}

/// A name as one word: names have no `=`, and consumers' names no dots.
fn durable(name: &str) -> String {
    name.replace('.', "=")
}

pub(crate) fn broker(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EventsError {
    EventsError::Broker(error.into())
}
