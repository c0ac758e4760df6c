//! A relay process: narrow while messages are added, and repeating itself whenever it dies between sending and marking.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::{EventsError, Message, Publisher, Receipt, SqlLog};
use runtime_kernel::{Clock as _, SystemClock};
use runtime_outbox::{Channel, OnParked, OutboxConfig, Relay, SqlOutbox};
use serde::{Deserialize, Serialize};

use super::{Broken, Event, Order, is_poison, nats};
use crate::error::WorkcheckError;
use crate::history::{History, now};
use crate::role::Process;

/// How long a broken relay puts off what it has taken for sent.
const PUT_OFF: Duration = Duration::from_millis(1500);

/// What a relay is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RelayPart {
    /// The NATS server; the event log of the database when absent.
    pub nats: Option<String>,
    /// Messages per second it can send, until then.
    pub rate: u32,
    /// Until when, in microseconds.
    pub narrow_until: i64,
    /// What becomes of a key whose message was parked.
    pub on_parked: OnParked,
    /// How it is broken.
    pub broken: Broken,
}

/// Short times, so that a check of seconds sees leases run out.
pub(super) fn config(on_parked: OnParked) -> OutboxConfig {
    let mut config = OutboxConfig::default();
    config.batch = 20;
    config.lease = Duration::from_millis(1500);
    config.poll_interval = Duration::from_millis(50);
    config.max_poll_interval = Duration::from_millis(400);
    config.timeout = Duration::from_secs(3);
    config.drain = Duration::from_millis(500);
    config.housekeeping = Duration::from_millis(200);
    config.retry.base_delay = Duration::from_millis(20);
    config.retry.max_delay = Duration::from_millis(500);
    // A message that was in hand each time a relay was killed is taken for the reason; kills here are not its fault.
    config.retry.max_attempts = 8;
    config.on_parked = on_parked;
    config
}

pub(crate) async fn relay(
    part: &RelayPart,
    process: Process,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkcheckError> {
    let inner: Arc<dyn Publisher> = match &part.nats {
        Some(url) => Arc::new(nats(url).await?),
        None => Arc::new(SqlLog::new(process.db.clone())),
    };
    let sink = Narrow { inner, part: part.clone(), history: process.history };
    let outbox = Arc::new(SqlOutbox::new(process.db));
    let config = config(part.on_parked);
    let relay = Relay::new(outbox, Channel::default(), Arc::new(sink), config, process.clock)?;
    relay.run(stop).await;
    Ok(())
}

/// A sink that takes its time, refuses poison, and is broken when told to be.
struct Narrow {
    inner: Arc<dyn Publisher>,
    part: RelayPart,
    history: History,
}

impl Narrow {
    /// Half of a batch's time.
    async fn half(&self, messages: usize) {
        if now() < self.part.narrow_until {
            let whole = Duration::from_micros(messages as u64 * 1_000_000 / u64::from(self.part.rate.max(1)));
            SystemClock.sleep(whole / 2).await;
        }
    }

    async fn send(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        let receipts = self.inner.publish(messages).await?;
        let numbers = messages.iter().filter_map(|message| message.event.json::<Order>().ok());
        self.history.saw(Event::Sent { messages: numbers.map(|order| order.message).collect() });
        Ok(receipts)
    }
}

#[async_trait]
impl Publisher for Narrow {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        for message in messages {
            if is_poison(message.event.json::<Order>()?.message) {
                return Err(EventsError::Malformed("poison".to_owned()));
            }
        }
        // A relay that is killed is killed before or after it has sent, but rarely in between: both are made likely.
        self.half(messages.len()).await;
        let receipts = match self.part.broken {
            Broken::Hasty => {
                let (inner, later) = (Arc::clone(&self.inner), messages.to_vec());
                tokio::spawn(async move {
                    SystemClock.sleep(PUT_OFF).await;
                    drop(inner.publish(&later).await);
                });
                vec![Receipt::New; messages.len()]
            }
            Broken::Backwards => {
                let backwards: Vec<_> = messages.iter().rev().cloned().collect();
                self.send(&backwards).await?
            }
            _ => self.send(messages).await?,
        };
        self.half(messages.len()).await;
        Ok(receipts)
    }
}
