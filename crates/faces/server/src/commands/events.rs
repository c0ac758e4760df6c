//! `runtime events …`

use runtime_events::log::{Lag, Parked};
use runtime_events::{CloudEvent, CloudEventBuilder, EVENT_LOG, Message, Receipt};
use runtime_kernel::config::Config;
use runtime_kernel::container::Container;
use runtime_kernel::{Clock, Context, Error, ErrorKind, SystemClock, uuid_v7};
use serde_json::json;

use super::{Done, Failure, json_of, page, work_of};
use crate::api::{EventView, event_view, parked_view};
use crate::cli::{EventsAction, Whose};
use crate::output::{Output, table};
use crate::record;

/// Works on the events in the database; running consumers follow.
pub(super) async fn run(config: Config, whose: &Whose, action: EventsAction, output: Output) -> Done {
    let work = async |container: &Container, context: &Context| act(container, context, action, output).await;
    work_of(config, whose, work).await
}

async fn act(
    container: &Container,
    context: &Context,
    action: EventsAction,
    output: Output,
) -> Result<(), Failure> {
    let log = container.get(EVENT_LOG).await?;
    match action {
        EventsAction::Publish { topic, kind, source, id, subject, key, data } => {
            let id = id.unwrap_or_else(|| uuid_v7(&SystemClock).to_string());
            let mut event = CloudEvent::builder(id, source, kind).time(SystemClock.utc());
            event = subject.into_iter().fold(event, CloudEventBuilder::subject);
            event = key.into_iter().fold(event, CloudEventBuilder::key);
            if let Some(data) = data {
                event = event.json(&json_of("data", &data)?);
            }
            let event = event.build().map_err(Error::from)?;
            let message = Message::new(&SystemClock, context, topic, event).map_err(Error::from)?;
            let receipts = log.publish(std::slice::from_ref(&message)).await.map_err(Error::from)?;
            let receipt = if receipts.first() == Some(&Receipt::Duplicate) { "duplicate" } else { "new" };
            let id = message.event.id();
            output.print(&json!({ "id": id, "receipt": receipt }), |_| format!("{id}: {receipt}"));
        }
        EventsAction::List { topic, after, limit } => {
            let found = log.read(&topic, after, page(limit)?).await.map_err(Error::from)?;
            let found: Vec<_> = found.iter().map(event_view).collect();
            output.print(&found, |found| {
                let row = |view: &EventView| {
                    let text =
                        |name| view.event.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
                    vec![view.position.to_string(), text("id"), text("type"), view.published_at.clone()]
                };
                table(&["position", "id", "type", "published"], &found.iter().map(row).collect::<Vec<_>>())
            });
        }
        EventsAction::Subscriptions => {
            let lags = log.lag().await.map_err(Error::from)?;
            output.print(&lags, |lags| {
                let row = |lag: &Lag| {
                    let counts = [lag.unread, lag.retrying, lag.parked].map(|count| count.to_string());
                    let mut row = vec![lag.subscription.clone(), lag.topic.clone()];
                    row.extend(counts);
                    row.push(format!("{}/{}", lag.claimed, lag.partitions));
                    row
                };
                let header = ["subscription", "topic", "unread", "retrying", "parked", "read by"];
                table(&header, &lags.iter().map(row).collect::<Vec<_>>())
            });
        }
        EventsAction::Parked { name, limit } => {
            let found = log.parked(&name, None, 0, page(limit)?).await.map_err(Error::from)?;
            output.print(&found.iter().map(parked_view).collect::<Vec<_>>(), |_| {
                let row = |parked: &Parked| {
                    let event = &parked.stored.message.event;
                    let why = parked.failure.as_ref().map(|failure| failure.message.clone());
                    vec![
                        parked.stored.position.to_string(),
                        event.id().to_owned(),
                        event.kind().to_owned(),
                        parked.attempts.to_string(),
                        why.unwrap_or_default(),
                    ]
                };
                let header = ["position", "id", "type", "attempts", "why"];
                table(&header, &found.iter().map(row).collect::<Vec<_>>())
            });
        }
        EventsAction::Redrive { name, position } => {
            let count = log.redrive(&name, position).await.map_err(Error::from)?;
            record::subscription(container, context, "events.redriven", &name).await?;
            output.print(&json!({ "redriven": count }), |_| format!("{count} events are handed out again"));
        }
        EventsAction::Replay { name, after } => {
            log.rewind(&name, after).await.map_err(Error::from)?;
            record::subscription(container, context, "events.rewound", &name).await?;
            output.print(&json!({ "name": name, "after": after, "done": "rewound" }), |_| {
                format!("{name} reads again from after {after}")
            });
        }
        EventsAction::Discard { name, position } => {
            if !log.discard(&name, position).await.map_err(Error::from)? {
                let message = format!("`{name}` has parked no event at {position}");
                return Err(Error::new(ErrorKind::NotFound, "events.not_found", message).into());
            }
            record::subscription(container, context, "events.discarded", &name).await?;
            output.print(&json!({ "name": name, "position": position, "done": "discarded" }), |_| {
                format!("{name} at {position}: discarded")
            });
        }
    }
    Ok(())
}
