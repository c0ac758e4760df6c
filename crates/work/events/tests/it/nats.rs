//! The laws of brokers on NATS JetStream, and what is its own: lost servers, strangers' messages, what is parked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::laws::{self, Broker, Capabilities, Consuming};
use runtime_events::nats::{NatsConsumer, NatsEvents, NatsOptions, async_nats};
use runtime_events::{CloudEvent, EventsConfig, Handler, Incoming, Message, Publisher, Receipt};
use runtime_kernel::{Context, Error, Source, SystemClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

async fn connect(url: &str, prefix: &str) -> NatsEvents {
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(url)
        .await
        .unwrap();
    let mut options = NatsOptions::default();
    (options.stream, options.prefix) = (prefix.to_owned(), prefix.to_owned());
    NatsEvents::new(client, options).await.unwrap()
}

fn config() -> EventsConfig {
    let mut config = EventsConfig::default();
    config.lease = Duration::from_millis(1500);
    config.poll_interval = Duration::from_millis(20);
    config.retry.base_delay = Duration::from_millis(5);
    config.retry.max_delay = Duration::from_millis(20);
    config.retry.max_attempts = 3;
    config.drain = Duration::from_millis(100);
    config
}

fn message(id: &str) -> Message {
    let event = CloudEvent::builder(id, "/s", "t").json(&id).build().unwrap();
    Message::new(&SystemClock, &Context::new(Source::Internal, &SystemClock), "topic", event).unwrap()
}

fn consumer(events: &NatsEvents) -> NatsConsumer {
    NatsConsumer::new(events.clone(), "topic", "g", config(), SystemClock::shared()).unwrap()
}

/// A handler that says what it has seen.
fn telling() -> (Handler, mpsc::Receiver<Incoming>) {
    let (tell, told) = mpsc::channel(1024);
    let handler = Handler::new(move |incoming: Incoming| {
        let tell = tell.clone();
        async move { tell.send(incoming).await.map_err(Error::internal) }
    });
    (handler, told)
}

struct Nats {
    events: NatsEvents,
    ordered: bool,
}

#[async_trait]
impl Broker for Nats {
    fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(self.events.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: self.ordered, dedup: true }
    }

    async fn consume(&self, topic: &str, group: &str, handler: Handler) -> Consuming {
        let consumer =
            NatsConsumer::new(self.events.clone(), topic, group, config(), SystemClock::shared()).unwrap();
        let consumer = if self.ordered { consumer.ordered() } else { consumer };
        consumer.subscribe().await.unwrap();
        Consuming::spawn(|stop| async move { consumer.run(stop.cancelled_owned(), handler).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_the_laws_of_brokers() {
    for ordered in [false, true] {
        let server = runtime_testkit::nats::server().await.unwrap();
        laws::broker(&Nats { events: connect(server.url(), server.prefix()).await, ordered }).await;
    }
}

/// What was acknowledged survives the server's death, publishers and consumers find it again by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_and_is_found_again() {
    let mut server = runtime_testkit::nats::own().await.unwrap();
    let events = connect(&server.url(), "t").await;
    let (handler, mut told) = telling();
    let stop = CancellationToken::new();
    let consumer = consumer(&events);
    consumer.subscribe().await.unwrap();
    let task = tokio::spawn({
        let stop = stop.clone();
        async move { consumer.run(stop.cancelled_owned(), handler).await }
    });
    events.publish(&[message("before")]).await.unwrap();
    assert_eq!(told.recv().await.unwrap().event.id(), "before");
    server.kill().await.unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), events.publish(&[message("lost")])).await;
    assert!(!matches!(failed, Ok(Ok(_))), "a publisher is not told that a dead server took something");
    server.restart().await.unwrap();
    let mut receipt = None;
    runtime_testkit::until("the server taking events again", async || {
        receipt = events.publish(&[message("after")]).await.ok();
        receipt.is_some()
    })
    .await
    .unwrap();
    loop {
        let seen = told.recv().await.unwrap();
        if seen.event.id() == "after" {
            break;
        }
    }
    assert_eq!(events.publish(&[message("after")]).await.unwrap(), [Receipt::Duplicate]);
    stop.cancel();
    task.await.unwrap();
}

/// A message of a stranger: CloudEvents in either mode are understood, anything else is parked with the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_understood_or_parked() {
    let server = runtime_testkit::nats::server().await.unwrap();
    let events = connect(server.url(), server.prefix()).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let subject = format!("{}.topic", server.prefix());
    let mut structured = async_nats::HeaderMap::new();
    structured.insert("Content-Type", "application/cloudevents+json; charset=utf-8");
    let body = r#"{"specversion":"1.0","id":"s","source":"/s","type":"t","data":1}"#;
    let mut binary = async_nats::HeaderMap::new();
    for (name, value) in [
        ("Ce-Specversion", "1.0"),
        ("CE-ID", "b"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-datacontenttype", "text/plain"),
    ] {
        binary.insert(name, value);
    }
    client.publish_with_headers(subject.clone(), structured, body.into()).await.unwrap();
    client.publish(subject.clone(), "nonsense".into()).await.unwrap();
    client.publish_with_headers(subject, binary, "hello".into()).await.unwrap();
    client.flush().await.unwrap();
    let (handler, mut told) = telling();
    let stop = CancellationToken::new();
    let (running, consumer) = (stop.clone(), consumer(&events));
    let task = tokio::spawn(async move { consumer.run(running.cancelled_owned(), handler).await });
    let mut seen: Vec<_> = [told.recv().await.unwrap(), told.recv().await.unwrap()].into();
    seen.sort_by_key(|incoming| incoming.event.id().to_owned());
    assert_eq!(seen.iter().map(|it| it.event.id()).collect::<Vec<_>>(), ["b", "s"]);
    assert_eq!(seen[0].event.data_content_type(), Some("text/plain"));
    assert!(seen.iter().all(|it| it.context.tenant.is_none()));
    runtime_testkit::until("the parked message", async || {
        events.parked("g", "topic", 10).await.is_ok_and(|parked| parked.len() == 1)
    })
    .await
    .unwrap();
    let parked = events.parked("g", "topic", 10).await.unwrap();
    assert!(parked[0].message.is_none());
    assert_eq!(parked[0].failure.as_ref().unwrap().code, "events.attribute");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_on_is_parked_whole() {
    let server = runtime_testkit::nats::server().await.unwrap();
    let events = connect(server.url(), server.prefix()).await;
    let stop = CancellationToken::new();
    let (running, consumer) = (stop.clone(), consumer(&events));
    let handler = Handler::new(|_| async { Err(Error::invalid("never")) });
    let task = tokio::spawn(async move { consumer.run(running.cancelled_owned(), handler).await });
    let sent = message("bad");
    events.publish(std::slice::from_ref(&sent)).await.unwrap();
    runtime_testkit::until("the parked event", async || {
        events.parked("g", "topic", 10).await.is_ok_and(|parked| parked.len() == 1)
    })
    .await
    .unwrap();
    let parked = events.parked("g", "topic", 10).await.unwrap().remove(0);
    let message = parked.message.unwrap();
    assert_eq!((message.event.id(), &message.context), ("bad", &sent.context));
    assert_eq!(parked.failure.unwrap().message, "never");
    assert!(events.parked("other", "topic", 10).await.unwrap().is_empty());
    stop.cancel();
    task.await.unwrap();
}
