//! A sink that makes each message a job.

use std::fmt::Write as _;

use async_trait::async_trait;
use runtime_events::{EventsError, Message, Publisher, Receipt};
use runtime_jobs::{Jobs, JobsError, NewJob};
use runtime_kernel::{Error, SharedClock, Source};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How long a message's unique key stays taken unless told.
const UNIQUE_FOR: Duration = Duration::from_hours(24);

type Make = dyn Fn(&Message) -> Result<NewJob, Error> + Send + Sync;

/// Makes each message a job: its topic is the job's kind, the event as JSON its payload. The event's source and id are
/// the job's unique key, so that a message that is published again makes no second job, for a day unless told.
#[derive(Clone)]
pub struct JobSink {
    jobs: Jobs,
    clock: SharedClock,
    unique_for: Duration,
    make: Arc<Make>,
}

impl JobSink {
    /// Over jobs.
    pub fn new(jobs: Jobs, clock: SharedClock) -> Self {
        Self { jobs, clock, unique_for: UNIQUE_FOR, make: Arc::new(as_it_is) }
    }

    /// Makes jobs otherwise: another kind, queue or payload. The unique key is set in any case. An error parks the
    /// message once its attempts are used up.
    #[must_use]
    pub fn made_by(
        mut self,
        make: impl Fn(&Message) -> Result<NewJob, Error> + Send + Sync + 'static,
    ) -> Self {
        self.make = Arc::new(make);
        self
    }

    /// How long a message is remembered once its job has finished.
    #[must_use]
    pub fn unique_for(mut self, period: Duration) -> Self {
        self.unique_for = period;
        self
    }
}

#[async_trait]
impl Publisher for JobSink {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let mut receipts = Vec::with_capacity(messages.len());
        for message in messages {
            let job =
                (self.make)(message).map_err(|error| EventsError::Malformed(error.message().to_owned()))?;
            let job = job.unique(unique(message)).unique_for(self.unique_for);
            let context = message.context.resume(Source::Event, &*self.clock);
            let done = self.jobs.enqueue(&context, job).await.map_err(refused)?;
            receipts.push(if done.duplicate { Receipt::Duplicate } else { Receipt::New });
        }
        Ok(receipts)
    }
}

fn as_it_is(message: &Message) -> Result<NewJob, Error> {
    let payload: Value = serde_json::from_str(&message.event.to_json()?).map_err(Error::internal)?;
    Ok(NewJob::new(message.topic.clone(), payload))
}

/// Source and id may be longer than a job's key may be; their hash is not.
fn unique(message: &Message) -> String {
    let name = format!("{}\n{}", message.event.source(), message.event.id());
    Sha256::digest(name).iter().fold("outbox:".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refused(error: JobsError) -> EventsError {
    match error {
        JobsError::Invalid(problem) => EventsError::Malformed(problem),
        JobsError::TooLarge { size, limit } => EventsError::TooLarge { what: "the payload", size, limit },
        other => EventsError::Broker(Box::new(other)),
    }
}

impl std::fmt::Debug for JobSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobSink").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}
