//! The servers and the processes, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use runtime_db::{Database, DbError, PgPool, sqlx};
use runtime_kernel::{Clock as _, SharedClock, SystemClock};
use runtime_outbox::{Channel, OutboxMetrics, OutboxStore as _, SqlInbox, SqlOutbox, keep_house};
use runtime_telemetry::{Metrics, keys};
use runtime_testkit::nats::OwnNats;
use runtime_testkit::postgres::Server;
use tokio::task::JoinSet;

use super::check::Ending;
use super::consumer::ConsumerPart;
use super::relay::{RelayPart, config};
use super::{Event, Order, OutboxSettings, is_poison};
use crate::error::WorkcheckError;
use crate::herd::Herd;
use crate::history::{self, History, Record, now};
use crate::rng::Rng;
use crate::role::{Part, Role};

/// Parked messages looked at in one call.
const PAGE: u32 = 1000;

pub(super) struct Scene {
    pub(super) db: Database,
    pub(super) outbox: SqlOutbox,
    pub(super) server: Server,
    pub(super) nats: Option<OwnNats>,
    pub(super) herd: Herd,
    pub(super) rng: Rng,
    /// What was parked and discarded.
    pub(super) parked: BTreeSet<u64>,
    pub(super) held: BTreeMap<u64, Vec<u64>>,
    pub(super) restarts: [usize; 2],
    pub(super) strikes: usize,
}

pub(super) fn pool(db: &Database) -> Result<&PgPool, DbError> {
    db.postgres().ok_or(DbError::Closed)
}

impl Scene {
    pub(super) fn populate(&mut self, settings: &OutboxSettings, url: &str) -> Result<(), WorkcheckError> {
        let nats = self.nats.as_ref().map(OwnNats::url);
        let long = i64::try_from(settings.duration.as_micros()).unwrap_or(i64::MAX);
        let relay = RelayPart {
            nats: nats.clone(),
            rate: settings.rate / 10 / settings.relays.max(1),
            narrow_until: now().saturating_add(long),
            on_parked: settings.on_parked,
            broken: settings.broken,
        };
        let consumer = ConsumerPart { nats, broken: settings.broken };
        let parts = (0..settings.relays).map(|_| Part::Relay(relay.clone()));
        let parts = parts.chain((0..settings.consumers).map(|_| Part::Consumer(consumer.clone())));
        for (part, ahead) in parts.zip([0, 3600, -3600].into_iter().cycle()) {
            self.herd.add(Role { url: url.to_owned(), ahead, part })?;
        }
        Ok(())
    }

    /// Measures the lag as a service does, and writes down what its metrics say.
    pub(super) fn watch(
        &self,
        tasks: &mut JoinSet<()>,
        settings: &OutboxSettings,
        metrics: &Metrics,
        history: &History,
    ) -> Result<(), WorkcheckError> {
        let (config, clock): (_, SharedClock) = (config(settings.on_parked), SystemClock::shared());
        let counts = OutboxMetrics::new(metrics)?;
        let (outbox, inbox) = (self.outbox.clone(), SqlInbox::new(self.db.clone()));
        tasks.spawn(async move {
            keep_house(&outbox, &inbox, &config, &counts, &clock, std::future::pending()).await;
        });
        let oldest = metrics.gauge(keys::OUTBOX_OLDEST_UNSENT_SECONDS, "As the outbox made it.")?;
        let stored = metrics.gauge(keys::OUTBOX_STORED, "As the outbox made it.")?;
        let history = history.clone();
        tasks.spawn(async move {
            loop {
                SystemClock.sleep(Duration::from_millis(100)).await;
                let state = |state| stored.with(&[("channel", "default"), ("state", state)]).value();
                let unsent = state("ready") + state("retrying") + state("behind");
                let oldest = oldest.with(&[("channel", "default")]).value();
                history.saw(Event::Lag { oldest, unsent });
            }
        });
        Ok(())
    }

    /// Waits a little, and unless in peace does something bad and undoes it.
    pub(super) async fn strike(&mut self, faults: bool) -> Result<(), WorkcheckError> {
        if !faults {
            SystemClock.sleep(Duration::from_millis(100)).await;
            return Ok(());
        }
        let wait = Duration::from_millis(200 + self.rng.below(600));
        SystemClock.sleep(wait).await;
        self.strikes += 1;
        if self.strikes <= 4 {
            // However short the check is, relays and consumers die in it.
            return self.herd.kill_end(self.strikes.is_multiple_of(2)).await;
        }
        match self.rng.below(20) {
            0..12 => self.herd.kill(&mut self.rng).await,
            12..17 => {
                // Beyond its lease, mostly.
                let long = Duration::from_millis(1000 + self.rng.below(1500));
                self.herd.freeze(&mut self.rng, long).await
            }
            17..19 if self.nats.is_some() => self.restart_nats().await,
            _ => {
                self.server.stop_immediate().await?;
                SystemClock.sleep(Duration::from_millis(self.rng.below(700))).await;
                self.server.restart().await?;
                self.restarts[0] += 1;
                Ok(())
            }
        }
    }

    pub(super) async fn restart_nats(&mut self) -> Result<(), WorkcheckError> {
        if let Some(nats) = &mut self.nats {
            nats.kill().await?;
            SystemClock.sleep(Duration::from_millis(self.rng.below(1000))).await;
            nats.restart().await?;
            self.restarts[1] += 1;
        }
        Ok(())
    }

    /// How many are neither sent nor parked; `None` while the database does not answer.
    pub(super) async fn unsent(&self) -> Option<u64> {
        for _ in 0..50 {
            if let Ok(stats) = self.outbox.stats().await {
                return Some(stats.iter().map(runtime_outbox::store::ChannelStats::unsent).sum());
            }
            SystemClock.sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Discards what is parked and waited for, as an operator would, after a look at whether it was waited for.
    pub(super) async fn let_go(&mut self) -> Result<(), WorkcheckError> {
        let channel = Channel::default();
        let Ok(all) = self.outbox.parked(&channel, None, 0, PAGE).await else { return Ok(()) };
        for parked in all.into_iter().filter(|parked| parked.holding) {
            let Some(order) = parked.message.and_then(|message| message.event.json::<Order>().ok()) else {
                continue;
            };
            let sql = "SELECT message FROM check_effects WHERE key = $1";
            let query = sqlx::query_scalar::<_, i64>(sql).bind(i64::try_from(order.key).unwrap_or_default());
            let Ok(applied) = query.fetch_all(pool(&self.db)?).await else { return Ok(()) };
            let applied = applied.into_iter().filter_map(|message| u64::try_from(message).ok()).collect();
            self.held.insert(order.message, applied);
            if self.outbox.discard(&channel, None, parked.seq).await.is_ok() {
                self.parked.insert(order.message);
            }
        }
        Ok(())
    }

    /// How many of those that were acknowledged have no effect yet; `None` while the database does not answer.
    pub(super) async fn missing(&self, folder: &Path) -> Result<Option<u64>, WorkcheckError> {
        let records: Vec<Record<Event>> = history::read(folder)?;
        let mut added: BTreeSet<_> = records
            .iter()
            .filter_map(|record| match record.event {
                Event::Added { message, .. } if !is_poison(message) => Some(message),
                _ => None,
            })
            .collect();
        for message in self.effects().await?.values().flatten() {
            added.remove(message);
        }
        Ok(Some(added.len() as u64))
    }

    async fn effects(&self) -> Result<BTreeMap<u64, Vec<u64>>, WorkcheckError> {
        let sql = "SELECT key, message FROM check_effects ORDER BY key, place";
        let mut effects: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (key, message) in sqlx::query_as::<_, (i64, i64)>(sql).fetch_all(pool(&self.db)?).await? {
            let (key, message) =
                (u64::try_from(key).unwrap_or_default(), u64::try_from(message).unwrap_or_default());
            effects.entry(key).or_default().push(message);
        }
        Ok(effects)
    }

    /// Stops everybody and reads what is kept.
    pub(super) async fn end(mut self) -> Result<Ending, WorkcheckError> {
        let mut after = 0;
        loop {
            let page = self.outbox.parked(&Channel::default(), None, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let orders = page.into_iter().filter_map(|parked| parked.message?.event.json::<Order>().ok());
            self.parked.extend(orders.map(|order| order.message));
        }
        let (effects, unsent) = (self.effects().await?, self.unsent().await.unwrap_or(u64::MAX));
        let stuck = self.herd.stop().await?;
        Ok(Ending { effects, parked: self.parked, held: self.held, unsent, stuck })
    }
}
