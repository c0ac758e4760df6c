//! The in-process bus: order, bounds, replay, and that nobody harms anybody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use runtime_events::EventsError;
use runtime_events::bus::{
    Bus, Ended, Event, Overflow, RecvError, Start, SubscribeOptions, SubscriberState, Topic, TopicOptions,
};
use runtime_kernel::{Context, Error, ErrorKind, ManualClock, Source, SystemClock};
use runtime_resilience::RetryPolicy;
use tokio::sync::{Mutex, oneshot};

fn topic<T: Clone + Send + 'static>(capacity: usize) -> Topic<T> {
    let mut options = TopicOptions::default();
    options.capacity = capacity;
    Topic::new(options, SystemClock::shared()).unwrap()
}

fn options() -> SubscribeOptions {
    SubscribeOptions::new()
}

fn quick() -> RetryPolicy {
    RetryPolicy::constant(Duration::from_millis(1)).unwrap().with_max_attempts(3).unwrap()
}

async fn forever() {
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn every_subscriber_sees_the_same_order_with_numbers() {
    let topic = topic(8);
    let mut subscribers: Vec<_> =
        ["a", "b"].into_iter().map(|name| topic.subscribe(name, options()).unwrap()).collect();
    for n in 0..5_u64 {
        assert_eq!(topic.try_publish(n).unwrap(), n);
    }
    for subscriber in &mut subscribers {
        for n in 0..5 {
            let delivery = subscriber.recv().await.unwrap();
            assert_eq!((delivery.number, delivery.event), (n, n));
        }
        assert_eq!(subscriber.try_recv().unwrap(), None);
    }
}

#[tokio::test]
async fn a_sleeping_subscriber_is_woken() {
    let topic = topic(8);
    let mut subscriber = topic.subscribe("a", options()).unwrap();
    let asleep = tokio::spawn(async move { subscriber.recv().await });
    tokio::task::yield_now().await;
    topic.try_publish(7).unwrap();
    assert_eq!(asleep.await.unwrap().unwrap().event, 7);
}

#[tokio::test]
async fn who_falls_behind_loses_the_oldest_and_is_told_how_many() {
    let topic = topic(4);
    let mut slow = topic.subscribe("slow", options()).unwrap();
    let mut tight = topic.subscribe("tight", options().room(2)).unwrap();
    for n in 0..10 {
        topic.try_publish(n).unwrap();
    }
    assert_eq!(slow.recv().await, Err(RecvError::Lagged(6)));
    assert_eq!(slow.recv().await.unwrap().event, 6);
    assert_eq!(tight.recv().await, Err(RecvError::Lagged(8)));
    assert_eq!(tight.recv().await.unwrap().event, 8);
    let stats = topic.stats();
    assert_eq!((stats.published, stats.remembered), (10, 4), "the ring is bounded");
    assert_eq!(stats.subscribers.iter().map(|s| s.lost).collect::<Vec<_>>(), [6, 8]);
}

#[tokio::test]
async fn who_must_not_have_gaps_is_cut_off_instead() {
    let topic = topic(4);
    let mut strict = topic.subscribe("strict", options().overflow(Overflow::Disconnect)).unwrap();
    for n in 0..5 {
        topic.try_publish(n).unwrap();
    }
    assert_eq!(strict.recv().await, Err(RecvError::Cut));
    assert_eq!(strict.recv().await, Err(RecvError::Cut));
    assert_eq!(topic.stats().subscribers[0].state, SubscriberState::Cut);
}

#[tokio::test]
async fn a_blocking_subscriber_holds_publishers_until_it_moves_on() {
    let topic = topic(4);
    let block = options().overflow(Overflow::Block(Duration::from_mins(1))).room(1);
    let mut careful = topic.subscribe("careful", block).unwrap();
    topic.try_publish(0).unwrap();
    assert!(matches!(topic.try_publish(1), Err(EventsError::Full(name)) if name == "careful"));
    let publisher = tokio::spawn({
        let topic = topic.clone();
        async move { topic.publish(1).await }
    });
    tokio::task::yield_now().await;
    assert!(!publisher.is_finished());
    assert_eq!(careful.recv().await.unwrap().event, 0);
    assert!(!publisher.is_finished(), "it may still be working on it");
    assert_eq!(careful.recv().await.unwrap().event, 1);
    assert_eq!(publisher.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_dead_blocking_subscriber_is_cut_off_in_time() {
    let clock = ManualClock::new();
    let topic = Topic::new(TopicOptions::default(), Arc::new(clock.clone())).unwrap();
    let block = options().overflow(Overflow::Block(Duration::from_secs(5))).room(1);
    let mut dead = topic.subscribe("dead", block).unwrap();
    let mut live = topic.subscribe("live", options()).unwrap();
    topic.publish(0).await.unwrap();
    let publisher = tokio::spawn({
        let topic = topic.clone();
        async move { topic.publish(1).await }
    });
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(5));
    assert_eq!(publisher.await.unwrap().unwrap(), 1);
    assert_eq!((live.recv().await.unwrap().event, live.recv().await.unwrap().event), (0, 1));
    assert_eq!(topic.stats().subscribers[0].state, SubscriberState::Cut);
    assert_eq!(dead.recv().await, Err(RecvError::Cut));
    assert_eq!(topic.try_publish(2).unwrap(), 2, "nobody waits for it any more");
}

#[tokio::test]
async fn a_newcomer_replays_the_window_and_a_returning_one_goes_on() {
    let topic = topic(4);
    for n in 0..10 {
        topic.try_publish(n).unwrap();
    }
    for (start, first) in [(Start::Replay(2), 8), (Start::Replay(99), 6), (Start::At(7), 7)] {
        let mut subscriber = topic.subscribe("new", options().start(start)).unwrap();
        assert_eq!(subscriber.recv().await.unwrap().event, first, "{start:?}");
        assert_eq!(subscriber.position(), first + 1);
    }
    let mut now = topic.subscribe("now", options()).unwrap();
    assert_eq!(now.try_recv().unwrap(), None);
    assert!(matches!(topic.subscribe("late", options().start(Start::At(5))), Err(EventsError::Gone(5))));
}

#[tokio::test]
async fn a_closed_topic_delivers_what_it_had() {
    let topic = topic(4);
    let mut subscriber = topic.subscribe("a", options()).unwrap();
    topic.try_publish(1).unwrap();
    topic.close();
    assert!(matches!(topic.try_publish(2), Err(EventsError::Closed)));
    assert_eq!(subscriber.recv().await.unwrap().event, 1);
    assert_eq!(subscriber.recv().await, Err(RecvError::Closed));
    assert!(topic.subscribe("b", options()).is_err());
}

#[tokio::test]
async fn limits_are_refused_by_name_and_the_gone_are_forgotten() {
    let mut limits = TopicOptions::default();
    limits.max_subscribers = 2;
    let topic: Topic<u8> = Topic::new(limits, SystemClock::shared()).unwrap();
    assert!(topic.subscribe("a", options().room(0)).is_err());
    assert!(topic.subscribe("a", options().room(1025)).is_err());
    let _a = topic.subscribe("a", options()).unwrap();
    let b = topic.subscribe("b", options()).unwrap();
    assert!(topic.subscribe("c", options()).is_err());
    drop(b);
    for n in 0..200 {
        topic.subscribe(format!("n{n}"), options()).unwrap();
    }
    assert!(topic.stats().subscribers.len() <= 66, "at most 64 that have gone");
    limits.capacity = 0;
    assert!(Topic::<u8>::new(limits, SystemClock::shared()).is_err());
}

#[tokio::test]
async fn a_subscriber_lost_in_a_panic_is_reported_as_such() {
    let topic = topic::<u8>(4);
    let subscriber = topic.subscribe("unlucky", options()).unwrap();
    let _ = tokio::spawn(async move {
        let _kept = subscriber;
        panic!("on purpose");
    })
    .await;
    assert_eq!(topic.stats().subscribers[0].state, SubscriberState::Died);
}

/// A failing, a panicking and a hanging handler beside a good one: the good one gets everything.
#[tokio::test(start_paused = true)]
async fn failing_panicking_and_hanging_handlers_harm_nobody() {
    let topic = topic::<u32>(64);
    let run = |name: &str, how: fn(u32) -> bool| {
        let (seen, dead) = (Arc::new(Mutex::new(Vec::new())), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (kept, buried) = (Arc::clone(&seen), Arc::clone(&dead));
        let handling = topic
            .subscribe(name, options())
            .unwrap()
            .handling(SystemClock::shared())
            .retry(quick())
            .timeout(Duration::from_secs(1))
            .dead(move |dead| buried.lock().unwrap().push((dead.delivery.event, dead.attempts)));
        let task = tokio::spawn(handling.run(forever(), move |delivery| {
            let seen = Arc::clone(&kept);
            async move {
                if how(delivery.event) {
                    seen.lock().await.push(delivery.event);
                    return Ok(());
                }
                match delivery.event % 3 {
                    0 => Err(Error::new(ErrorKind::Unavailable, "test.failed", "on purpose")),
                    1 => panic!("on purpose"),
                    _ => std::future::pending().await,
                }
            }
        }));
        (task, seen, dead)
    };
    let (bad, bad_seen, bad_dead) = run("bad", |n| n > 2);
    let (good, good_seen, good_dead) = run("good", |_| true);
    for n in 0..6 {
        topic.publish(n).await.unwrap();
    }
    topic.close();
    assert_eq!((good.await.unwrap(), bad.await.unwrap()), (Ended::Closed, Ended::Closed));
    assert_eq!(*good_seen.lock().await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(*bad_seen.lock().await, [3, 4, 5], "it goes on after what it could not handle");
    assert_eq!(*bad_dead.lock().unwrap(), [(0, 3), (1, 3), (2, 3)]);
    assert!(good_dead.lock().unwrap().is_empty());
    let stats = topic.stats();
    let bad = stats.subscribers.iter().find(|s| s.name == "bad").unwrap();
    assert_eq!((bad.handled, bad.failed, bad.dead), (3, 9, 3));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_succeed_is_not_tried_again() {
    let topic = topic::<u32>(4);
    let tried = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tried);
    let handling = topic.subscribe("a", options()).unwrap().handling(SystemClock::shared()).retry(quick());
    let task = tokio::spawn(handling.run(forever(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err(Error::invalid("never")) }
    }));
    topic.publish(1).await.unwrap();
    topic.close();
    task.await.unwrap();
    assert_eq!(tried.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stopped_handler_finishes_what_it_has_begun() {
    let topic = topic::<u32>(4);
    let (stop, stopped) = oneshot::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let (go, gone) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((begun, gone))));
    let handling = topic.subscribe("a", options()).unwrap().handling(SystemClock::shared());
    let task = tokio::spawn(handling.run(async { drop(stopped.await) }, move |_| {
        let once = Arc::clone(&once);
        async move {
            let (begun, gone) = once.lock().await.take().unwrap();
            begun.send(()).unwrap();
            gone.await.unwrap();
            Ok(())
        }
    }));
    topic.publish(1).await.unwrap();
    topic.publish(2).await.unwrap();
    has_begun.await.unwrap();
    stop.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(task.await.unwrap(), Ended::Stopped);
    assert_eq!(topic.stats().subscribers[0].handled, 1);
}

struct Ping;
impl Event for Ping {
    const TYPE: &'static str = "ping";
}
struct Impostor;
impl Event for Impostor {
    const TYPE: &'static str = "ping";
}

#[tokio::test]
async fn a_bus_knows_its_types_and_carries_their_context() {
    let bus = Bus::new(TopicOptions::default(), SystemClock::shared());
    let mut pings = bus.subscribe::<Ping>("a", options()).unwrap();
    let context = Context::new(Source::Http, &SystemClock);
    bus.publish(&context, Ping).await.unwrap();
    assert_eq!(pings.recv().await.unwrap().event.context.trace, context.trace);
    assert!(matches!(bus.topic::<Impostor>(), Err(EventsError::Config { key, .. }) if key == "ping"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Many publishers, many subscribers, many lanes, failures in between: per key everybody sees every event of every
    /// publisher in the order that publisher sent it, and all subscribers see one order.
    #[test]
    fn order_holds_per_key(
        publishers in 1_usize..5, subscribers in 1_usize..4, keys in 1_u64..6, events in 1_u64..60,
        lanes in 1_usize..6, fail in 2_u64..9, room in 1_usize..32,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            type Seen = Arc<std::sync::Mutex<HashMap<u64, Vec<(usize, u64)>>>>;
            let topic = topic::<(u64, usize, u64)>(32);
            let mut runs = Vec::new();
            for n in 0..subscribers {
                let seen: Seen = Seen::default();
                let kept = Arc::clone(&seen);
                let failed = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
                let block = options().overflow(Overflow::Block(Duration::from_mins(1))).room(room);
                let handling = topic.subscribe(format!("s{n}"), block).unwrap()
                    .handling(SystemClock::shared()).retry(quick()).concurrent(lanes, |event| Some(event.0));
                let task = tokio::spawn(handling.run(forever(), move |delivery| {
                    let (key, publisher, event) = delivery.event;
                    let (seen, failed) = (Arc::clone(&kept), Arc::clone(&failed));
                    async move {
                        if event % fail == 0 && failed.lock().unwrap().insert(delivery.number) {
                            return Err(Error::new(ErrorKind::Unavailable, "test.failed", "at first"));
                        }
                        tokio::task::yield_now().await;
                        seen.lock().unwrap().entry(key).or_default().push((publisher, event));
                        Ok(())
                    }
                }));
                runs.push((task, seen));
            }
            let senders: Vec<_> = (0..publishers).map(|publisher| {
                let topic = topic.clone();
                tokio::spawn(async move {
                    for event in 0..events {
                        topic.publish((event % keys, publisher, event)).await.unwrap();
                    }
                })
            }).collect();
            for sender in senders {
                sender.await.unwrap();
            }
            topic.close();
            let mut first = None;
            for (task, seen) in runs {
                assert_eq!(task.await.unwrap(), Ended::Closed);
                let seen = std::mem::take(&mut *seen.lock().unwrap());
                assert_eq!(seen.values().map(Vec::len).sum::<usize>() as u64, publishers as u64 * events);
                for (key, list) in &seen {
                    for publisher in 0..publishers {
                        let mine: Vec<u64> = list.iter().filter(|e| e.0 == publisher).map(|e| e.1).collect();
                        assert!(mine.is_sorted() && mine.iter().all(|event| event % keys == *key));
                    }
                }
                assert_eq!(first.get_or_insert_with(|| seen.clone()), &seen);
            }
        });
    }
}
