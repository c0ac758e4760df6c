//! Events within a process: published once, delivered to four.

use std::hint::black_box;
use std::time::Duration;

use runtime_events::bus::{SubscribeOptions, Topic, TopicOptions};
use runtime_kernel::SystemClock;

use crate::measure::{interleave, nanos};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(100);
const BATCH: u64 = 512;
const SUBSCRIBERS: usize = 4;

/// Nanoseconds for each delivery: a batch is published, then read by everybody.
pub fn rows() -> Vec<Row> {
    let each = |time: f64| time / (BATCH as f64 * SUBSCRIBERS as f64);
    let topic: Topic<u64> = Topic::new(TopicOptions::default(), SystemClock::shared()).expect("sound");
    let mut ours: Vec<_> = (0..SUBSCRIBERS)
        .map(|n| topic.subscribe(format!("s{n}"), SubscribeOptions::new()).expect("room"))
        .collect();
    let (sender, first) = tokio::sync::broadcast::channel::<u64>(1024);
    let mut theirs: Vec<_> = (1..SUBSCRIBERS).map(|_| sender.subscribe()).collect();
    theirs.push(first);
    let queues: Vec<_> = (0..SUBSCRIBERS).map(|_| flume::bounded::<u64>(1024)).collect();
    let [mine, tokio, flume] = interleave([
        &mut || {
            each(nanos(WINDOW, || {
                for n in 0..BATCH {
                    topic.try_publish(n).expect("taken");
                }
                for subscription in &mut ours {
                    for _ in 0..BATCH {
                        let _ = black_box(subscription.try_recv().expect("open"));
                    }
                }
            }))
        },
        &mut || {
            each(nanos(WINDOW, || {
                for n in 0..BATCH {
                    sender.send(n).expect("heard");
                }
                for subscription in &mut theirs {
                    for _ in 0..BATCH {
                        let _ = black_box(subscription.try_recv().expect("there"));
                    }
                }
            }))
        },
        &mut || {
            each(nanos(WINDOW, || {
                for n in 0..BATCH {
                    for (sender, _) in &queues {
                        sender.send(n).expect("heard");
                    }
                }
                for (_, receiver) in &queues {
                    for _ in 0..BATCH {
                        let _ = black_box(receiver.try_recv().expect("there"));
                    }
                }
            }))
        },
    ]);
    vec![
        Row::of("bus", "one delivery of four", "ns", Better::Less, &mine, ("tokio broadcast", &tokio)),
        Row::of("bus", "one delivery of four", "ns", Better::Less, &mine, ("flume", &flume)),
    ]
}
