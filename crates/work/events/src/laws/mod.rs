//! The laws every broker and every event log keeps, stated once and run on each.

mod broker;
mod log;

pub use broker::{Broker, Capabilities, Consuming, broker};
pub use log::{Harness, log};

use runtime_kernel::{Context, Name, Source, SystemClock, TenantContext};

use crate::cloudevent::CloudEvent;
use crate::message::Message;

fn context(tenant: Option<&str>) -> Context {
    let context = Context::new(Source::Internal, &SystemClock);
    let Some(tenant) = tenant else { return context };
    let name = |text: &str| Name::new(text).expect("a name");
    context.with_tenant(TenantContext::tenant(name("main"), name(tenant)))
}

/// A message of a tenant with an id and a key; an empty key is none.
fn message_of(tenant: Option<&str>, topic: &str, id: &str, key: &str) -> Message {
    let mut event = CloudEvent::builder(id, "/laws", "law").json(&serde_json::json!({ "id": id }));
    if !key.is_empty() {
        event = event.key(key);
    }
    let event = event.build().expect("an event");
    Message::new(&SystemClock, &context(tenant), topic, event).expect("a message")
}

fn message(topic: &str, id: &str, key: &str) -> Message {
    message_of(None, topic, id, key)
}
