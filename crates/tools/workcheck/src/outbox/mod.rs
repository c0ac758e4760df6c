//! The outbox at ten times the rate its relays can send, while they are killed: nothing lost, each effect once, in order.

pub mod check;
mod consumer;
mod driver;
mod feeder;
mod relay;
mod scene;
mod settings;

use serde::{Deserialize, Serialize};

pub use consumer::ConsumerPart;
pub(crate) use consumer::consume;
pub use driver::{Outcome, run};
pub use relay::RelayPart;
pub(crate) use relay::relay;
pub use settings::{Broken, OutboxSettings};

use crate::error::WorkcheckError;

/// Where messages go.
const TOPIC: &str = "orders";

/// Something a process saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The transaction that added it has committed.
    Added {
        /// Which message.
        message: u64,
        /// Its key.
        key: u64,
    },
    /// The transaction that added it was rolled back, or never got as far as its commit.
    Undone {
        /// Which message must not exist.
        message: u64,
    },
    /// The commit was not answered: the message may or may not exist.
    Unknown {
        /// Which message.
        message: u64,
        /// Its key.
        key: u64,
    },
    /// The sink has taken messages.
    Sent {
        /// Which.
        messages: Vec<u64>,
    },
    /// An effect's transaction has committed.
    Applied {
        /// Of which message.
        message: u64,
    },
    /// A message came again, and nothing was done.
    Absorbed {
        /// Which message.
        message: u64,
    },
    /// How the outbox stands, as its metrics say.
    Lag {
        /// The age of the oldest message that is neither sent nor parked, in seconds.
        oldest: f64,
        /// How many there are.
        unsent: f64,
    },
}

/// What a message tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    message: u64,
    key: u64,
}

/// Messages no sink takes.
pub(crate) const fn is_poison(message: u64) -> bool {
    message.is_multiple_of(397)
}

/// A stream of a NATS server, as soon as there is one.
async fn nats(url: &str) -> Result<runtime_events::nats::NatsEvents, WorkcheckError> {
    use std::time::Duration;

    use runtime_events::nats::{NatsEvents, NatsOptions, async_nats};
    use runtime_kernel::{Clock as _, SystemClock};

    loop {
        let options = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(20))
            .connection_timeout(Duration::from_secs(2));
        match options.connect(url).await {
            Ok(client) => match NatsEvents::new(client, NatsOptions::default()).await {
                Ok(events) => return Ok(events),
                Err(error) => eprintln!("{error}"),
            },
            Err(error) => eprintln!("{error}"),
        }
        SystemClock.sleep(Duration::from_millis(100)).await;
    }
}
