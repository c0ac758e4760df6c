//! Adds messages in transactions of an application's kind: of several rows, some undone, some committed late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime_db::Database;
use runtime_events::{CloudEvent, Message};
use runtime_kernel::{Clock as _, Context, Source, SystemClock};
use runtime_outbox::SqlOutbox;

use super::{Event, Order, TOPIC};
use crate::error::WorkcheckError;
use crate::history::History;
use crate::rng::Rng;

/// Keys each of them has for itself, so that transactions about one key follow each other.
const KEYS: u64 = 16;

pub(super) struct Feeder {
    pub(super) number: u64,
    pub(super) rng: Rng,
    pub(super) next: Arc<AtomicU64>,
    pub(super) history: History,
    pub(super) db: Database,
    pub(super) outbox: SqlOutbox,
}

impl Feeder {
    /// Keeps up a rate for so long, making up for what took longer. Says how many messages were acknowledged.
    pub(super) async fn feed(mut self, rate: u32, long: Duration) -> u64 {
        let (began, mut made, mut added) = (SystemClock.now(), 0_u64, 0);
        loop {
            let gone = SystemClock.now().saturating_duration_since(began);
            if gone >= long {
                return added;
            }
            let ahead = Duration::from_micros(made * 1_000_000 / u64::from(rate.max(1))).saturating_sub(gone);
            SystemClock.sleep(ahead).await;
            let many = 1 + self.rng.below(20);
            made += many;
            added += self.transaction(many).await;
        }
    }

    async fn transaction(&mut self, many: u64) -> u64 {
        let orders: Vec<Order> = (0..many)
            .map(|_| Order {
                message: self.next.fetch_add(1, Ordering::Relaxed),
                key: self.number * KEYS + self.rng.below(KEYS),
            })
            .collect();
        let (undo, late) = (self.rng.below(20) == 0, self.rng.below(20) == 0);
        let written = self.write(&orders, late).await;
        let committed = match written {
            Ok(tx) if undo => {
                let _ = tx.rollback().await;
                None
            }
            Ok(tx) => Some(tx.commit().await.is_ok()),
            // Its commit was never asked for.
            Err(_) => None,
        };
        for Order { message, key } in orders {
            self.history.saw(match committed {
                None => Event::Undone { message },
                Some(true) => Event::Added { message, key },
                Some(false) => Event::Unknown { message, key },
            });
        }
        if committed == Some(true) { many } else { 0 }
    }

    async fn write(&mut self, orders: &[Order], late: bool) -> Result<runtime_db::Tx, WorkcheckError> {
        let context = Context::new(Source::Internal, &SystemClock);
        let mut messages = Vec::with_capacity(orders.len());
        for order in orders {
            let event = CloudEvent::builder(order.message.to_string(), "/workcheck", "order")
                .key(order.key.to_string())
                .json(order);
            messages.push(Message::new(&SystemClock, &context, TOPIC, event.build()?)?);
        }
        let mut tx = self.db.begin(&context).await?;
        self.outbox.add_all_in(&mut tx, &messages).await?;
        if late {
            SystemClock.sleep(Duration::from_millis(self.rng.below(300))).await;
        }
        Ok(tx)
    }
}
