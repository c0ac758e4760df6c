//! A consumer process: what a message causes and that it was seen, in one transaction.

use std::sync::Arc;
use std::time::Duration;

use runtime_db::{Database, on_connection, sqlx};
use runtime_events::nats::NatsConsumer;
use runtime_events::{Consumer, EventsConfig, Handler, Incoming, SqlLog, SubscriptionSpec};
use runtime_kernel::{Clock as _, Context, Error, Retry, Source, SystemClock};
use runtime_outbox::SqlInbox;
use serde::{Deserialize, Serialize};

use super::{Broken, Event, Order, TOPIC, nats};
use crate::error::WorkcheckError;
use crate::history::History;
use crate::role::Process;

/// Who consumes.
const GROUP: &str = "effects";

/// How long a broken consumer keeps to itself what it has done.
const UNACKNOWLEDGED: Duration = Duration::from_millis(100);

/// The next place of a key, and what is done there. The key's row is locked until the commit, so places are in the order
/// of commits.
const EFFECT: &str = "WITH next AS (INSERT INTO check_keys (key, place) VALUES ($1, 1)
        ON CONFLICT (key) DO UPDATE SET place = check_keys.place + 1 RETURNING place)
    INSERT INTO check_effects (key, place, message) SELECT $1, place, $2 FROM next";

/// The tables of the effects.
pub(super) const TABLES: &str = "CREATE TABLE check_keys (key bigint PRIMARY KEY, place bigint NOT NULL);
    CREATE TABLE check_effects (key bigint, place bigint, message bigint, PRIMARY KEY (key, place))";

/// What a consumer is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsumerPart {
    /// The NATS server; the event log of the database when absent.
    pub nats: Option<String>,
    /// How it is broken.
    pub broken: Broken,
}

fn config() -> EventsConfig {
    let mut config = EventsConfig::default();
    config.lease = Duration::from_millis(1500);
    config.poll_interval = Duration::from_millis(50);
    config.timeout = Duration::from_secs(5);
    config.drain = Duration::from_millis(500);
    config.retry.base_delay = Duration::from_millis(20);
    config.retry.max_delay = Duration::from_millis(500);
    // Kills and outages are not the fault of a message.
    config.retry.max_attempts = 100;
    config
}

pub(crate) async fn consume(
    part: &ConsumerPart,
    process: Process,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkcheckError> {
    let Process { db, clock, history } = process;
    let hands = Hands { inbox: SqlInbox::new(db.clone()), db: db.clone(), history, broken: part.broken };
    let handler = Handler::new(move |incoming: Incoming| {
        let hands = hands.clone();
        async move {
            let done = hands.apply(&incoming).await;
            done.map_err(|error| Error::internal(error).with_retry(Retry::Backoff))
        }
    });
    if let Some(url) = &part.nats {
        let consumer = NatsConsumer::new(nats(url).await?, TOPIC, GROUP, config(), clock)?.ordered();
        consumer.run(stop, handler).await;
        return Ok(());
    }
    let spec = SubscriptionSpec::new(GROUP, TOPIC)?;
    Consumer::new(Arc::new(SqlLog::new(db)), spec, config(), clock)?.run(stop, handler).await?;
    Ok(())
}

#[derive(Clone)]
struct Hands {
    inbox: SqlInbox,
    db: Database,
    history: History,
    broken: Broken,
}

impl Hands {
    async fn apply(&self, incoming: &Incoming) -> Result<(), WorkcheckError> {
        let Order { message, key } = incoming.event.json()?;
        let context = Context::new(Source::Job, &SystemClock);
        let mut tx = self.db.begin(&context).await?;
        if self.broken != Broken::Forgetful {
            let once = self.inbox.event_once_in(&mut tx, &context, GROUP, &incoming.event).await?;
            if !once.is_fresh() {
                self.history.saw(Event::Absorbed { message });
                return Ok(tx.rollback().await?);
            }
        }
        let (number, of) = (signed(message), signed(key));
        on_connection!(tx, conn => sqlx::query(EFFECT).bind(of).bind(number).execute(&mut *conn).await?.rows_affected())?;
        tx.commit().await?;
        self.history.saw(Event::Applied { message });
        if self.broken == Broken::Forgetful {
            // It is seen to die in between.
            SystemClock.sleep(UNACKNOWLEDGED).await;
        }
        Ok(())
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
