//! The laws of a broker, seen by publishers and handlers.
//!
//! Their subjects are those of Watermill's universal tests of publishers and subscribers (`pubsub/tests/test_pubsub.go`):
//! resending on errors, no acknowledgement, going on after a subscriber has closed, consumer groups, order, concurrency.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Error, ErrorKind, SystemClock};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{context, message, message_of};
use crate::cloudevent::CloudEvent;
use crate::incoming::{Handler, Incoming};
use crate::message::Message;
use crate::publisher::{Publisher, Receipt};

/// What a broker claims to be able to. Laws about the rest are not run.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Events of a key are handled in order, however many consumers share a group.
    pub ordered: bool,
    /// An event published twice is delivered once.
    pub dedup: bool,
}

/// A broker under test: three attempts a few milliseconds apart, and claims that run out within two seconds.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Where events are published.
    fn publisher(&self) -> Arc<dyn Publisher>;
    /// What it claims.
    fn capabilities(&self) -> Capabilities;
    /// Starts one more consumer of a group; when it returns, the group gets all that is published from then on.
    async fn consume(&self, topic: &str, group: &str, handler: Handler) -> Consuming;
}

/// A consumer that runs.
#[derive(Debug)]
pub struct Consuming {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Consuming {
    /// Spawns a consumer that runs until the token it gets is cancelled.
    pub fn spawn<W: Future<Output = ()> + Send + 'static>(run: impl FnOnce(CancellationToken) -> W) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(stop.clone()));
        Self { stop, task }
    }

    /// Stops it, and waits until it has ended.
    ///
    /// # Panics
    /// When it did not end well.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("a consumer ends well");
    }

    /// As if its process were killed.
    fn kill(self) {
        self.task.abort();
    }
}

/// Runs every law the broker claims, each on a topic of its own.
pub async fn broker(broker: &dyn Broker) {
    every_event_arrives_whole_with_its_context(broker).await;
    what_was_published_before_a_consumer_came_back_is_delivered(broker).await;
    a_failed_or_panicked_attempt_is_repeated(broker).await;
    what_a_killed_consumer_held_goes_to_the_next(broker).await;
    every_group_gets_everything_and_its_members_share_it(broker).await;
    a_stuck_group_holds_up_no_other(broker).await;
    a_poisonous_event_is_given_up_and_the_rest_flows(broker).await;
    many_publishers_and_consumers_lose_nothing(broker).await;
    if broker.capabilities().dedup {
        an_event_published_twice_is_delivered_once(broker).await;
    }
    if broker.capabilities().ordered {
        events_of_a_key_are_handled_in_order(broker).await;
    }
}

/// What handlers have seen.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<Incoming>>>);

impl Seen {
    fn add(&self, incoming: Incoming) {
        self.0.lock().expect("not poisoned").push(incoming);
    }

    fn ids(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").iter().map(|it| it.event.id().to_owned()).collect()
    }

    fn handler(&self) -> Handler {
        let seen = self.clone();
        Handler::new(move |incoming| {
            seen.add(incoming);
            async { Ok(()) }
        })
    }

    /// Waits until the handlers have seen all of these, once at least.
    async fn all(&self, ids: &[String]) {
        self.until(|seen| ids.iter().all(|id| seen.contains(id))).await;
    }

    async fn until(&self, holds: impl Fn(&[String]) -> bool) {
        for _ in 0..6000 {
            if holds(&self.ids()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {:?} were seen", self.ids());
    }
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("e{n}")).collect()
}

async fn publish(broker: &dyn Broker, messages: &[Message]) -> Vec<Receipt> {
    broker.publisher().publish(messages).await.expect("published")
}

async fn publish_ids(broker: &dyn Broker, topic: &str, ids: &[String]) {
    let messages: Vec<_> = ids.iter().map(|id| message(topic, id, "")).collect();
    publish(broker, &messages).await;
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "test.failed", "on purpose")
}

async fn every_event_arrives_whole_with_its_context(broker: &dyn Broker) {
    let (topic, seen) = ("whole", Seen::default());
    let consumer = broker.consume(topic, "g", seen.handler()).await;
    let work = context(Some("acme"));
    let full =
        CloudEvent::now(&SystemClock, "https://example.com/läden".replace('ä', "%C3%A4"), "com.example.t")
            .subject("Euro € \"quoted\" 100%")
            .data_schema("https://example.com/schema#v1")
            .extension("number", "7")
            .key("key with space")
            .json(&serde_json::json!({ "nested": [1, null, "ü"] }))
            .build()
            .expect("an event");
    let bare = CloudEvent::builder("bare", "/s", "t").build().expect("an event");
    let bytes = CloudEvent::builder("bytes", "/s", "t").binary("image/png", vec![0, 159, 146, 150]);
    let bytes = bytes.build().expect("an event");
    let all =
        [full, bare, bytes].map(|event| Message::new(&SystemClock, &work, topic, event).expect("a message"));
    publish(broker, &all).await;
    seen.until(|seen| seen.len() == 3).await;
    consumer.stop().await;
    let seen = seen.0.lock().expect("not poisoned").clone();
    for sent in &all {
        let came = seen.iter().find(|it| it.event.id() == sent.event.id()).expect("it came");
        // Compared as JSON: a broker may carry data as bytes.
        let json = |event: &CloudEvent| serde_json::to_value(event).expect("JSON");
        assert_eq!(json(&came.event), json(&sent.event));
        assert_eq!((&came.topic, came.attempt), (&sent.topic, 1));
        assert_eq!(came.context.trace.trace_id(), work.trace.trace_id());
        assert_eq!(came.context.tenant, work.tenant);
        assert_eq!(came.context.request_id.to_string(), work.request_id.to_string());
    }
}

async fn what_was_published_before_a_consumer_came_back_is_delivered(broker: &dyn Broker) {
    let (topic, first, second) = ("resume", Seen::default(), Seen::default());
    let (before, between) = (ids(0..20), ids(20..40));
    let consumer = broker.consume(topic, "g", first.handler()).await;
    publish_ids(broker, topic, &before).await;
    first.all(&before).await;
    consumer.stop().await;
    publish_ids(broker, topic, &between).await;
    let consumer = broker.consume(topic, "g", second.handler()).await;
    second.all(&between).await;
    consumer.stop().await;
    assert!(second.ids().iter().all(|id| between.contains(id)), "what was settled does not come again");
}

async fn a_failed_or_panicked_attempt_is_repeated(broker: &dyn Broker) {
    let (topic, seen, failed) = ("failing", Seen::default(), Arc::new(Mutex::new(HashSet::new())));
    let kept = seen.clone();
    let handler = Handler::new(move |incoming: Incoming| {
        let (kept, first) =
            (kept.clone(), failed.lock().expect("fine").insert(incoming.event.id().to_owned()));
        async move {
            match incoming.event.id() {
                "e1" if first => Err(unavailable()),
                "e2" if first => panic!("on purpose"),
                _ => {
                    kept.add(incoming);
                    Ok(())
                }
            }
        }
    });
    let consumer = broker.consume(topic, "g", handler).await;
    publish_ids(broker, topic, &ids(0..4)).await;
    seen.all(&ids(0..4)).await;
    consumer.stop().await;
    let attempt = |id: &str| {
        let seen = seen.0.lock().expect("fine");
        seen.iter().find(|it| it.event.id() == id).map(|it| it.attempt)
    };
    assert_eq!((attempt("e0"), attempt("e1"), attempt("e2")), (Some(1), Some(2), Some(2)));
    assert_eq!(seen.ids().len(), 4, "what succeeded is not repeated");
}

async fn what_a_killed_consumer_held_goes_to_the_next(broker: &dyn Broker) {
    let (topic, stuck, seen) = ("killed", Seen::default(), Seen::default());
    let kept = stuck.clone();
    let handler = Handler::new(move |incoming| {
        kept.add(incoming);
        std::future::pending()
    });
    let consumer = broker.consume(topic, "g", handler).await;
    publish_ids(broker, topic, &ids(0..5)).await;
    stuck.until(|seen| !seen.is_empty()).await;
    consumer.kill();
    let consumer = broker.consume(topic, "g", seen.handler()).await;
    seen.all(&ids(0..5)).await;
    consumer.stop().await;
}

async fn every_group_gets_everything_and_its_members_share_it(broker: &dyn Broker) {
    let (topic, one, two) = ("groups", Seen::default(), Seen::default());
    let mut consumers = Vec::new();
    for (group, seen) in [("one", &one), ("one", &one), ("two", &two), ("two", &two), ("two", &two)] {
        consumers.push(broker.consume(topic, group, seen.handler()).await);
    }
    publish_ids(broker, topic, &ids(0..60)).await;
    one.all(&ids(0..60)).await;
    two.all(&ids(0..60)).await;
    for consumer in consumers {
        consumer.stop().await;
    }
    assert_eq!((one.ids().len(), two.ids().len()), (60, 60), "each event to one member of each group");
}

async fn a_stuck_group_holds_up_no_other(broker: &dyn Broker) {
    let (topic, stuck, seen) = ("stuck", Seen::default(), Seen::default());
    let kept = stuck.clone();
    let hangs = Handler::new(move |incoming| {
        kept.add(incoming);
        std::future::pending()
    });
    let stuck_consumer = broker.consume(topic, "stuck", hangs).await;
    let consumer = broker.consume(topic, "good", seen.handler()).await;
    publish_ids(broker, topic, &ids(0..30)).await;
    stuck.until(|seen| !seen.is_empty()).await;
    seen.all(&ids(0..30)).await;
    consumer.stop().await;
    stuck_consumer.kill();
}

async fn a_poisonous_event_is_given_up_and_the_rest_flows(broker: &dyn Broker) {
    let (topic, seen, tried) = ("poison", Seen::default(), Seen::default());
    let (kept, counted) = (seen.clone(), tried.clone());
    let handler = Handler::new(move |incoming: Incoming| {
        let (kept, counted) = (kept.clone(), counted.clone());
        async move {
            let (id, event) = (incoming.event.id().to_owned(), incoming);
            match id.as_str() {
                "e1" => {
                    counted.add(event);
                    Err(unavailable())
                }
                "e2" => {
                    counted.add(event);
                    Err(Error::invalid("never"))
                }
                _ => {
                    kept.add(event);
                    Ok(())
                }
            }
        }
    });
    let consumer = broker.consume(topic, "g", handler).await;
    publish_ids(broker, topic, &ids(0..6)).await;
    seen.all(&["e0", "e3", "e4", "e5"].map(ToOwned::to_owned)).await;
    let count = |seen: &[String], id: &str| seen.iter().filter(|it| *it == id).count();
    tried.until(|seen| count(seen, "e1") == 3 && count(seen, "e2") == 1).await;
    publish_ids(broker, topic, &ids(6..8)).await;
    seen.all(&ids(6..8)).await;
    consumer.stop().await;
    assert_eq!(
        (count(&tried.ids(), "e1"), count(&tried.ids(), "e2")),
        (3, 1),
        "given up on means given up on"
    );
}

async fn many_publishers_and_consumers_lose_nothing(broker: &dyn Broker) {
    let (topic, seen) = ("many", Seen::default());
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(broker.consume(topic, "g", seen.handler()).await);
    }
    let publishers = (0..8_u32).map(|publisher| {
        let port = broker.publisher();
        tokio::spawn(async move {
            for id in ids(publisher * 25..(publisher + 1) * 25) {
                port.publish(&[message(topic, &id, "")]).await.expect("published");
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("a publisher ends well");
    }
    seen.all(&ids(0..200)).await;
    for consumer in consumers {
        consumer.stop().await;
    }
}

async fn an_event_published_twice_is_delivered_once(broker: &dyn Broker) {
    let (topic, seen) = ("twice", Seen::default());
    let consumer = broker.consume(topic, "g", seen.handler()).await;
    assert_eq!(publish(broker, &[message(topic, "e0", "")]).await, [Receipt::New]);
    assert_eq!(publish(broker, &[message(topic, "e0", "")]).await, [Receipt::Duplicate]);
    let elsewhere = message_of(Some("acme"), topic, "e0", "");
    assert_eq!(
        publish(broker, &[elsewhere]).await,
        [Receipt::New],
        "another tenant's event is another event"
    );
    publish_ids(broker, topic, &ids(1..2)).await;
    seen.all(&ids(0..2)).await;
    seen.until(|seen| seen.len() == 3).await;
    consumer.stop().await;
    assert_eq!(seen.ids().len(), 3);
}

/// Several publishers of their own keys, several members, failures in between.
async fn events_of_a_key_are_handled_in_order(broker: &dyn Broker) {
    let (topic, seen, failed) = ("ordered", Seen::default(), Arc::new(Mutex::new(HashSet::new())));
    let mut consumers = Vec::new();
    for _ in 0..3 {
        let (kept, failed) = (seen.clone(), Arc::clone(&failed));
        let handler = Handler::new(move |incoming: Incoming| {
            let (kept, failed) = (kept.clone(), Arc::clone(&failed));
            async move {
                let (id, number) = (incoming.event.id().to_owned(), incoming.position);
                if number % 7 == 0 && failed.lock().expect("fine").insert(id) {
                    return Err(unavailable());
                }
                tokio::task::yield_now().await;
                kept.add(incoming);
                Ok(())
            }
        });
        consumers.push(broker.consume(topic, "g", handler).await);
    }
    let publishers = (0..4).map(|publisher| {
        let port = broker.publisher();
        tokio::spawn(async move {
            for n in 0..30 {
                let key = format!("k{publisher}-{}", n % 3);
                let id = format!("{publisher}-{n:03}");
                port.publish(&[message(topic, &id, &key)]).await.expect("published");
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("a publisher ends well");
    }
    seen.until(|seen| seen.iter().collect::<HashSet<_>>().len() == 120).await;
    for consumer in consumers {
        consumer.stop().await;
    }
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for it in seen.0.lock().expect("fine").iter() {
        let key = it.event.key().expect("a key").to_owned();
        keys.entry(key).or_default().push(it.event.id().to_owned());
    }
    assert!(keys.values().all(|ids| ids.is_sorted()), "{keys:?}");
}
