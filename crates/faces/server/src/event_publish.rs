//! The built-in kind `event.publish`: puts an event into the log, once however often the job runs.

use runtime_events::{CloudEvent, EventLog, EventsError, Message, Receipt};
use runtime_kernel::{Context, Error, ErrorKind, Source, SystemClock};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The name of the kind.
pub(crate) const KIND: &str = "event.publish";

/// The source of events whose job names none.
const SOURCE: &str = "/jobs";

/// What to publish: a whole CloudEvent, or its parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventPublish {
    /// Where it goes.
    topic: String,
    /// A CloudEvent as JSON. Its `id` is the job's, its `source` `/jobs` and its `specversion` 1.0 unless told.
    #[serde(default)]
    event: Option<Map<String, Value>>,
    /// Without `event`: what happened.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// Without `event`: where. `/jobs` unless told.
    #[serde(default)]
    source: Option<String>,
    /// Without `event`: to what.
    #[serde(default)]
    subject: Option<String>,
    /// Without `event`: what it is kept in order with.
    #[serde(default)]
    key: Option<String>,
    /// Without `event`: the rest.
    #[serde(default)]
    data: Option<Value>,
}

impl EventPublish {
    /// Checks what can be checked before the job is accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the place that is wrong.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let anyone = Context::new(Source::Internal, &SystemClock);
        self.message(&anyone, "00000000-0000-0000-0000-000000000000").map(drop)
    }

    fn message(&self, context: &Context, id: &str) -> Result<Message, Error> {
        let event = self.event(id)?;
        Message::new(&SystemClock, context, self.topic.clone(), event).map_err(|error| self.refused(&error))
    }

    fn event(&self, id: &str) -> Result<CloudEvent, Error> {
        let parts = [&self.kind, &self.source, &self.subject, &self.key];
        let has_parts = parts.iter().any(|part| part.is_some()) || self.data.is_some();
        let Some(event) = &self.event else {
            let kind = self.kind.as_deref().ok_or_else(|| wrong("/payload/type", "is needed, or `event`"))?;
            let source = self.source.as_deref().unwrap_or(SOURCE);
            let mut event = CloudEvent::builder(id, source, kind);
            if let Some(subject) = &self.subject {
                event = event.subject(subject);
            }
            if let Some(key) = &self.key {
                event = event.key(key);
            }
            if let Some(data) = &self.data {
                event = event.json(data);
            }
            return event.build().map_err(|error| self.refused(&error));
        };
        if has_parts {
            return Err(wrong(
                "/payload/event",
                "is whole: `type`, `source`, `subject`, `key` and `data` belong into it",
            ));
        }
        let mut event = event.clone();
        for (name, value) in [("specversion", "1.0"), ("id", id), ("source", SOURCE)] {
            event.entry(name).or_insert_with(|| json!(value));
        }
        let text = Value::Object(event).to_string();
        CloudEvent::from_json(text.as_bytes()).map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &EventsError) -> Error {
        let within = if self.event.is_some() { "/payload/event" } else { "/payload" };
        match error {
            EventsError::Attribute { attribute, problem } => wrong(&format!("{within}/{attribute}"), problem),
            EventsError::Config { key, problem } => wrong(&format!("/payload/{key}"), problem),
            other => wrong(within, &other.to_string()),
        }
    }
}

fn wrong(at: &str, problem: &str) -> Error {
    Error::new(ErrorKind::Invalid, "job.payload_invalid", "the payload is not a valid event.publish")
        .with_detail(at.to_owned(), problem.to_owned())
}

/// Carries the job out. An attempt whose answer was lost is followed by one that finds the event there.
pub(crate) async fn run(
    log: &dyn EventLog,
    context: &Context,
    job: &str,
    payload: Value,
) -> Result<Value, Error> {
    let unreadable = |error: serde_json::Error| wrong("/payload", &error.to_string());
    let wanted: EventPublish = serde_json::from_value(payload).map_err(unreadable)?;
    let message = wanted.message(context, job)?;
    let receipts = log.publish(std::slice::from_ref(&message)).await.map_err(Error::from)?;
    let receipt = match receipts.first() {
        Some(Receipt::New) => "new",
        Some(Receipt::Duplicate) => "duplicate",
        None => return Err(Error::internal("the log gave no receipt")),
    };
    let Message { topic, event, .. } = &message;
    Ok(json!({ "topic": topic, "source": event.source(), "id": event.id(), "receipt": receipt }))
}

#[cfg(test)]
mod tests {
    use runtime_events::MemoryLog;
    use runtime_kernel::SystemClock;

    use super::*;

    #[test]
    fn what_could_never_be_published_is_refused_with_its_place() {
        let at = |payload: Value| match serde_json::from_value::<EventPublish>(payload) {
            Ok(wanted) => wanted.check().map_err(|error| error.details()[0].at.clone()),
            Err(_) => Err("/payload".to_owned()),
        };
        for (payload, place) in [
            (json!({ "topic": "orders", "type": "placed" }), None),
            (json!({ "topic": "orders", "event": { "type": "placed", "data": [1], "region": "eu" } }), None),
            (json!({ "type": "placed" }), Some("/payload")),
            (json!({ "topic": "orders", "typ": "placed" }), Some("/payload")),
            (json!({ "topic": "no spaces", "type": "placed" }), Some("/payload/topic")),
            (json!({ "topic": "orders" }), Some("/payload/type")),
            (json!({ "topic": "orders", "type": "" }), Some("/payload/type")),
            (json!({ "topic": "orders", "event": {} }), Some("/payload/event/type")),
            (json!({ "topic": "orders", "event": { "type": "a", "id": "" } }), Some("/payload/event/id")),
            (json!({ "topic": "orders", "event": { "type": "a" }, "data": 1 }), Some("/payload/event")),
            (
                json!({ "topic": "orders", "event": { "type": "a", "specversion": "0.3" } }),
                Some("/payload/event"),
            ),
        ] {
            assert_eq!(at(payload.clone()).err().as_deref(), place, "{payload}");
        }
    }

    #[tokio::test]
    async fn a_second_attempt_of_a_job_adds_nothing() {
        let log = MemoryLog::new(SystemClock::shared());
        let context = Context::new(Source::Job, &SystemClock);
        let payloads = [
            json!({ "topic": "orders", "type": "placed", "data": { "n": 1 } }),
            json!({ "topic": "orders", "event": { "type": "placed", "id": "own", "source": "/shop" } }),
        ];
        for (payload, id) in payloads.into_iter().zip(["job-1", "own"]) {
            for receipt in ["new", "duplicate"] {
                let done = run(&log, &context, "job-1", payload.clone()).await.unwrap();
                assert_eq!((done["receipt"].as_str(), done["id"].as_str()), (Some(receipt), Some(id)));
            }
        }
        assert_eq!(log.bounds("orders").await.unwrap().newest, 2);
    }
}
