//! The line in front of a limit.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use runtime_kernel::{Classify, Deadline, ErrorKind, ManualClock, SystemClock};
use runtime_limits::{ConcurrencyConfig, ConcurrencyLimit, Criticality, Overloaded, Permit, QueueConfig};
use tokio::sync::mpsc;

const MS: Duration = Duration::from_millis(1);

fn one_at_a_time(size: u32, clock: &ManualClock) -> ConcurrencyLimit {
    let mut config = ConcurrencyConfig::fixed(1);
    config.queue = Some(QueueConfig::of(size));
    ConcurrencyLimit::with_clock(config, Arc::new(clock.clone())).unwrap()
}

/// Callers in line; each tells its name and holds its place until it is let go.
struct Line {
    limit: ConcurrencyLimit,
    tell: mpsc::UnboundedSender<(u32, Result<Permit, Overloaded>)>,
    told: mpsc::UnboundedReceiver<(u32, Result<Permit, Overloaded>)>,
}

impl Line {
    fn new(limit: &ConcurrencyLimit) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self { limit: limit.clone(), tell, told }
    }

    async fn join(&self, name: u32, criticality: Criticality, deadline: Deadline) {
        let (limit, tell) = (self.limit.clone(), self.tell.clone());
        let before = limit.waiting();
        tokio::spawn(async move {
            let answer = limit.wait(criticality, deadline).await;
            let _ = tell.send((name, answer));
        });
        while self.limit.waiting() == before && self.told.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    async fn next(&mut self) -> (u32, Result<Permit, Overloaded>) {
        self.told.recv().await.unwrap()
    }
}

#[tokio::test]
async fn a_burst_is_served_in_the_order_it_came() {
    let clock = ManualClock::new();
    let limit = one_at_a_time(10, &clock);
    let mut line = Line::new(&limit);
    let mut held = limit.acquire(Criticality::Critical).unwrap();
    for name in 0..5 {
        line.join(name, Criticality::Critical, Deadline::NONE).await;
    }
    assert_eq!(limit.waiting(), 5);
    for expected in 0..5 {
        clock.advance(10 * MS);
        drop(held);
        let (name, permit) = line.next().await;
        assert_eq!(name, expected);
        held = permit.unwrap();
        assert_eq!(limit.in_flight(), 1);
    }
    drop(held);
    assert_eq!((limit.in_flight(), limit.waiting(), limit.rejected()), (0, 0, 0));
}

#[tokio::test]
async fn in_a_line_that_stands_the_last_is_first_and_nobody_waits_longer_than_the_target() {
    let clock = ManualClock::new();
    let limit = one_at_a_time(10, &clock);
    let mut line = Line::new(&limit);
    let held = limit.acquire(Criticality::Critical).unwrap();
    line.join(1, Criticality::Critical, Deadline::NONE).await;
    clock.advance(60 * MS);
    line.join(2, Criticality::Critical, Deadline::NONE).await;
    clock.advance(41 * MS);
    let (name, answer) = line.next().await;
    assert_eq!((name, answer.unwrap_err()), (1, Overloaded::Waited { waited: 101 * MS }));
    // It has been there for longer than 100 ms: it stands.
    line.join(3, Criticality::Critical, Deadline::NONE).await;
    line.join(4, Criticality::Critical, Deadline::NONE).await;
    drop(held);
    let (name, permit) = line.next().await;
    let permit = permit.unwrap();
    assert_eq!(name, 4, "who came last");
    clock.advance(6 * MS);
    let (name, answer) = line.next().await;
    assert_eq!((name, answer.unwrap_err()), (3, Overloaded::Waited { waited: 6 * MS }));
    drop(permit);
    let (name, answer) = line.next().await;
    assert!(name == 2 && answer.is_err(), "who waited longer than the target is not begun any more");
    assert_eq!((limit.in_flight(), limit.waiting(), limit.rejected()), (0, 0, 3));
}

#[tokio::test]
async fn what_matters_more_is_served_first_and_takes_the_room_of_what_matters_less() {
    let clock = ManualClock::new();
    let limit = one_at_a_time(2, &clock);
    let mut line = Line::new(&limit);
    let held = limit.acquire(Criticality::CriticalPlus).unwrap();
    line.join(1, Criticality::Sheddable, Deadline::NONE).await;
    line.join(2, Criticality::Critical, Deadline::NONE).await;
    let refused = limit.wait(Criticality::Sheddable, Deadline::NONE).await.unwrap_err();
    assert_eq!(refused, Overloaded::Full { in_flight: 1, limit: 1 }, "nobody there matters less");
    let (limit_2, tell) = (limit.clone(), line.tell.clone());
    tokio::spawn(async move {
        let answer = limit_2.wait(Criticality::CriticalPlus, Deadline::NONE).await;
        let _ = tell.send((3, answer));
    });
    let (name, answer) = line.next().await;
    assert!(name == 1 && answer.is_err());
    drop(held);
    for expected in [3, 2] {
        let (name, permit) = line.next().await;
        assert_eq!(name, expected);
        drop(permit);
    }
}

#[tokio::test]
async fn who_leaves_is_forgotten_and_a_place_just_given_goes_to_the_next() {
    let clock = ManualClock::new();
    let limit = one_at_a_time(3, &clock);
    let held = limit.acquire(Criticality::Critical).unwrap();
    let mut gone = Box::pin(limit.wait(Criticality::Critical, Deadline::NONE));
    let mut first = Box::pin(limit.wait(Criticality::Critical, Deadline::NONE));
    let mut second = Box::pin(limit.wait(Criticality::Critical, Deadline::NONE));
    std::future::poll_fn(|cx| {
        assert!(
            [&mut gone, &mut first, &mut second].into_iter().all(|wait| wait.as_mut().poll(cx).is_pending())
        );
        Poll::Ready(())
    })
    .await;
    assert_eq!(limit.waiting(), 3);
    drop(gone);
    assert_eq!(limit.waiting(), 2);
    drop(held);
    assert_eq!((limit.in_flight(), limit.waiting()), (1, 1), "the first was given the place");
    drop(first);
    drop(second.await.unwrap());
    assert_eq!((limit.in_flight(), limit.waiting()), (0, 0));
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_is_told_apart() {
    let clock = ManualClock::new();
    let limit = one_at_a_time(2, &clock);
    let mut line = Line::new(&limit);
    let _held = limit.acquire(Criticality::Critical).unwrap();
    line.join(1, Criticality::Critical, Deadline::after(&clock, 3 * MS)).await;
    clock.advance(3 * MS);
    let error = line.next().await.1.unwrap_err();
    assert_eq!((error, error.kind()), (Overloaded::DeadlinePassed, ErrorKind::Timeout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_forgotten_and_no_place_is_lost_however_they_race() {
    let mut config = ConcurrencyConfig::fixed(3);
    let mut queue = QueueConfig::of(1_000);
    queue.interval = Duration::from_mins(1);
    queue.target = Duration::from_mins(1);
    config.queue = Some(queue);
    let limit = ConcurrencyLimit::with_clock(config, SystemClock::shared()).unwrap();
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let limit = limit.clone();
            tokio::spawn(async move {
                for call in 0..300 {
                    let wait = limit.wait(Criticality::CriticalPlus, Deadline::NONE);
                    if (call + caller) % 7 == 0 {
                        // Polled a few times, and dropped.
                        let mut wait = Box::pin(wait);
                        for _ in 0..call % 3 {
                            let polled = std::future::poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await;
                            if polled.is_ready() {
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        continue;
                    }
                    let permit = wait.await.unwrap();
                    assert!(limit.in_flight() <= 3);
                    tokio::task::yield_now().await;
                    permit.succeeded();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((limit.in_flight(), limit.waiting()), (0, 0));
}

#[test]
fn a_line_that_makes_no_sense_names_its_key() {
    for (size, target, interval, key) in
        [(0, 5, 100, "queue.size"), (1, 0, 100, "queue.target"), (1, 5, 4, "queue.interval")]
    {
        let mut config = ConcurrencyConfig::fixed(1);
        let mut queue = QueueConfig::of(size);
        (queue.target, queue.interval) = (target * MS, interval * MS);
        config.queue = Some(queue);
        assert_eq!(ConcurrencyLimit::new(config).unwrap_err().key, key);
    }
}
