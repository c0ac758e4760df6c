//! Projections: read models kept up with the event log, and rebuilt beside their readers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::sqlx::Row;
use runtime_db::{Database, Dialect, Tx};
use runtime_events::EventLog;
use runtime_events::log::Stored;
use runtime_kernel::{Context, Error, Source};

use crate::error::CqrsError;
use crate::run::{change, rows};

/// A read model that follows a topic.
///
/// It keeps its rows by generation, so that a new one can be built while the old one is read: in a column, or in a table
/// of its own for each.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// Its name: that of its checkpoint.
    fn name(&self) -> &str;
    /// The topic it follows.
    fn topic(&self) -> &str;
    /// Applies one event to a generation, within the transaction that moves the checkpoint past it. An error stops the
    /// projection there: a read model is never wrong by leaving something out.
    async fn apply(&self, tx: &mut Tx, generation: u64, event: &Stored) -> Result<(), Error>;
    /// Empties a generation, before it is built and after it was replaced.
    async fn clear(&self, tx: &mut Tx, generation: u64) -> Result<(), Error>;
}

/// Keeps a projection up with its topic. Any number may run at once; each event is applied once to each generation.
pub struct Projector {
    projection: Arc<dyn Projection>,
    log: Arc<dyn EventLog>,
    db: Database,
    batch: u32,
}

struct Checkpoint {
    generation: u64,
    position: u64,
}

impl Projector {
    /// A projection in the database that holds its read model, fed from a log that may live elsewhere.
    pub fn new(projection: Arc<dyn Projection>, log: Arc<dyn EventLog>, db: Database) -> Self {
        Self { projection, log, db, batch: 100 }
    }

    /// Applies up to so many events in one transaction. 100 unless told.
    #[must_use]
    pub fn batch(mut self, batch: u32) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// The generation to read from.
    ///
    /// # Errors
    /// The database's.
    pub async fn live(&self) -> Result<u64, CqrsError> {
        Ok(self.checkpoint(None).await?.generation)
    }

    /// How many events the live generation is behind.
    ///
    /// # Errors
    /// The database's and the log's.
    pub async fn lag(&self) -> Result<u64, CqrsError> {
        let checkpoint = self.checkpoint(None).await?;
        let bounds = self.log.bounds(self.projection.topic()).await?;
        Ok(bounds.newest.saturating_sub(checkpoint.position))
    }

    /// Applies the next batch to the live generation and says how many events that were.
    ///
    /// # Errors
    /// [`CqrsError::Refused`] names the event the projection refused, and everything before it is kept;
    /// [`CqrsError::Events`] when the log has forgotten events that were not applied yet.
    pub async fn step(&self) -> Result<u64, CqrsError> {
        let checkpoint = self.checkpoint(None).await?;
        self.advance(&checkpoint).await
    }

    /// Follows the topic until `stop` is ready; failures are logged and tried again after `poll`.
    pub async fn run(&self, poll: Duration, stop: impl Future<Output = ()> + Send) {
        let listen = async {
            loop {
                self.log.announced().await;
            }
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = listen => {}
            () = self.follow(poll) => {}
        }
    }

    async fn follow(&self, poll: Duration) {
        loop {
            // Made before looking, so that what is published in between is noticed.
            let rung = self.log.rung().notified();
            match self.step().await {
                Ok(0) => {}
                Ok(_) => continue,
                Err(error) => {
                    let (projection, error) = (self.projection.name(), Error::from(error).report());
                    tracing::error!(projection, error, "a projection does not go on");
                }
            }
            tokio::select! {
                () = rung => {}
                () = self.db.clock().sleep(poll) => {}
            }
        }
    }

    /// Builds a new generation from everything the log has, beside the live one, then switches to it and clears the old
    /// one. Says which generation is live then.
    ///
    /// One at a time: a second rebuild of the same projection takes the first one's unfinished generation up. Dropped or
    /// failed midway, the live generation is untouched.
    ///
    /// # Errors
    /// As [`step`](Self::step). A log that has forgotten events cannot rebuild: [`CqrsError::Events`].
    pub async fn rebuild(&self) -> Result<u64, CqrsError> {
        let old = self.checkpoint(None).await?.generation;
        let new = old + 1;
        loop {
            let checkpoint = self.checkpoint(Some(new)).await?;
            if self.advance(&checkpoint).await? > 0 {
                continue;
            }
            let switch = async |mut tx: Tx| {
                let tx = &mut tx;
                let name = self.projection.name();
                // Whoever advances either generation meanwhile has to wait, and the readers' one is not ahead.
                let behind = self.locked(tx, new).await? < self.locked(tx, old).await?;
                if behind {
                    return Ok(false);
                }
                let live = "UPDATE cqrs_projections SET live = 1 WHERE name = $1 AND generation = $2";
                change!(tx, live, name, signed(new));
                change!(
                    tx,
                    "DELETE FROM cqrs_projections WHERE name = $1 AND generation = $2",
                    name,
                    signed(old)
                );
                self.projection.clear(tx, old).await.map_err(|error| self.refused(0, error))?;
                Ok::<_, CqrsError>(true)
            };
            if self.db.transaction(&self.context(), switch).await? {
                return Ok(new);
            }
        }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    fn refused(&self, position: u64, error: Error) -> CqrsError {
        CqrsError::Refused { name: self.projection.name().to_owned(), position, error }
    }

    /// A generation's checkpoint, made with an empty generation when there is none; the live one's for `None`.
    async fn checkpoint(&self, generation: Option<u64>) -> Result<Checkpoint, CqrsError> {
        let find = async |mut tx: Tx| {
            let tx = &mut tx;
            let name = self.projection.name();
            let sql = "SELECT generation, position FROM cqrs_projections
                WHERE name = $1 AND (generation = $2 OR ($2 = -1 AND live = 1))";
            let wanted = generation.map_or(-1, signed);
            let found = rows!(tx, sql, [name, wanted], |row| Checkpoint {
                generation: unsigned(row.try_get("generation")?),
                position: unsigned(row.try_get("position")?),
            });
            if let Some(found) = found.into_iter().next() {
                return Ok(found);
            }
            let (made, live) = (generation.unwrap_or(1), i64::from(generation.is_none()));
            self.projection.clear(tx, made).await.map_err(|error| self.refused(0, error))?;
            let sql = "INSERT INTO cqrs_projections (name, generation, position, live) VALUES ($1, $2, 0, $3)
                ON CONFLICT (name, generation) DO NOTHING";
            change!(tx, sql, name, signed(made), live);
            Ok::<_, CqrsError>(Checkpoint { generation: made, position: 0 })
        };
        self.db.transaction(&self.context(), find).await
    }

    /// A generation's position, held until the transaction ends; 0 when it is gone.
    async fn locked(&self, tx: &mut Tx, generation: u64) -> Result<u64, CqrsError> {
        let lock = if tx.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
        let sql = format!("SELECT position FROM cqrs_projections WHERE name = $1 AND generation = $2 {lock}");
        let found = rows!(tx, sql, [self.projection.name(), signed(generation)], |row| row
            .try_get::<i64, _>("position")?);
        Ok(found.first().copied().map(unsigned).unwrap_or_default())
    }

    async fn advance(&self, from: &Checkpoint) -> Result<u64, CqrsError> {
        let events = self.log.read(self.projection.topic(), from.position, self.batch).await?;
        let mut applied = 0;
        // A batch that is refused is halved down to the event that is to blame, so that what comes before it is kept.
        let (mut rest, mut size, mut position) = (&*events, events.len(), from.position);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.clamp(1, rest.len()));
            match self.apply(from.generation, position, now).await {
                Ok(true) => {
                    applied += now.len() as u64;
                    position = now.last().map_or(position, |event| event.position);
                    rest = later;
                }
                // Another projector was faster.
                Ok(false) => return Ok(applied.max(1)),
                Err(CqrsError::Refused { .. }) if now.len() > 1 => size = now.len() / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(applied)
    }

    /// Applies events and moves the checkpoint in one transaction; `false` when it is elsewhere by now.
    async fn apply(&self, generation: u64, after: u64, events: &[Stored]) -> Result<bool, CqrsError> {
        let apply = async |mut tx: Tx| {
            let tx = &mut tx;
            let last = events.last().map_or(after, |event| event.position);
            // Moved first: a second projector waits here, and then finds it moved.
            let sql = "UPDATE cqrs_projections SET position = $4
                WHERE name = $1 AND generation = $2 AND position = $3";
            let name = self.projection.name();
            if change!(tx, sql, name, signed(generation), signed(after), signed(last)) == 0 {
                return Ok(false);
            }
            for event in events {
                let applied = self.projection.apply(tx, generation, event).await;
                applied.map_err(|error| self.refused(event.position, error))?;
            }
            Ok(true)
        };
        self.db.transaction(&self.context(), apply).await
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

impl std::fmt::Debug for Projector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projector").field("projection", &self.projection.name()).finish_non_exhaustive()
    }
}
