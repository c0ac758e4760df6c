//! Sagas with every kind of operation, whose effects are in a world that knows idempotency keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use runtime_db::{Database, DbError, PgPool, sqlx};
use runtime_kernel::{Context, Error, ErrorKind, Retry, SharedClock, Source, SystemClock};
use runtime_saga::{
    Definition, Definitions, NewSaga, Saga, SagaConfig, SagaId, Sagas, SignalRequest, SqlSagas, StepKey,
    What, Worker,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::check::{Ended, Expected, judge_sagas};
use super::{Broken, FleetSettings, Outcome, QUIET, Stage};
use crate::check::{Promise, Violation};
use crate::error::WorkcheckError;
use crate::role::{Part, Process};

/// The world outside: a key has one effect, and each call is counted.
const WORLD: &str = "CREATE TABLE check_world (key text PRIMARY KEY, place bigserial, saga bigint NOT NULL,
    what text NOT NULL, calls bigint NOT NULL)";

const CALL: &str = "INSERT INTO check_world (key, saga, what, calls) VALUES ($1, $2, $3, 1)
    ON CONFLICT (key) DO UPDATE SET calls = check_world.calls + 1 RETURNING what";

/// What a process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SagaPart {
    /// How it is broken.
    pub broken: Broken,
}

/// What the saga of a number does.
pub(super) fn expected(number: usize) -> Expected {
    Expected {
        signal: number % 4 == 1,
        timer: number.is_multiple_of(3),
        fails: number % 5 == 2,
        stumbles: number % 7 == 3,
    }
}

/// Short times, so that a check of seconds sees leases run out.
fn config() -> SagaConfig {
    let mut config = SagaConfig::default();
    config.concurrency = 32;
    config.poll_interval = Duration::from_millis(200);
    config.lease = Duration::from_millis(1500);
    config.heartbeat = Duration::from_millis(400);
    config.drain = Duration::from_secs(2);
    for retry in [&mut config.retry, &mut config.compensation_retry] {
        retry.base_delay = Duration::from_millis(20);
        retry.max_delay = Duration::from_millis(300);
    }
    config
}

fn over(db: &Database, clock: SharedClock, broken: Broken) -> Result<Sagas, WorkcheckError> {
    let world = World { db: db.clone(), broken };
    let trip = Definition::new("trip", 1, move |saga: Saga, number: usize| trip(world.clone(), saga, number));
    let store = Arc::new(SqlSagas::new(db.clone()));
    Ok(Sagas::new(store, Definitions::new().with(trip)?, config(), clock))
}

async fn trip(world: World, saga: Saga, number: usize) -> Result<usize, Error> {
    let expected = expected(number);
    let (act, undo) = (|what| world.act(number, what), |what| world.undo(number, what));
    saga.step("a", act("a")).compensate("undo a", undo("undo a")).await?;
    if expected.timer {
        saga.sleep("a while", Duration::from_millis(200 + number as u64)).await;
    }
    if expected.signal {
        let brought: usize = saga.signal("go").await;
        if brought != number {
            return Err(Error::new(ErrorKind::Internal, "check.signal", "another saga's signal"));
        }
    }
    let (b, undo_b, c, undo_c) = (act("b"), undo("undo b"), act("c"), undo("undo c"));
    saga.join(
        |branch| async move { branch.step("b", b).compensate("undo b", undo_b).await },
        |branch| async move { branch.step("c", c).compensate("undo c", undo_c).await },
    )
    .await?;
    if expected.stumbles {
        let d = act("d");
        let stumble = move |key: StepKey| {
            let (attempt, done) = (key.attempt(), d(key));
            async move {
                done.await?;
                if attempt < 3 {
                    Err(Error::new(ErrorKind::Unavailable, "check.stumbled", "its answer was lost"))
                } else {
                    Ok(())
                }
            }
        };
        saga.step("d", stumble).compensate("undo d", undo("undo d")).await?;
    }
    if expected.fails {
        return Err(Error::new(ErrorKind::Conflict, "check.refused", "refused").with_retry(Retry::Never));
    }
    saga.step("e", act("e")).await?;
    Ok(number)
}

#[derive(Clone)]
struct World {
    db: Database,
    broken: Broken,
}

impl World {
    fn act(&self, number: usize, what: &'static str) -> impl Fn(StepKey) -> Calling + Send + 'static {
        let world = self.clone();
        move |key| Box::pin(world.clone().call(number, what, key))
    }

    fn undo(&self, number: usize, what: &'static str) -> impl Fn((), StepKey) -> Calling + Send + 'static {
        let act = self.act(number, what);
        move |(), key| act(key)
    }

    async fn call(self, number: usize, what: &'static str, key: StepKey) -> Result<(), Error> {
        let text = match self.broken {
            Broken::Keyless => runtime_kernel::uuid_v7(&SystemClock).to_string(),
            _ => key.as_str().to_owned(),
        };
        let called = async {
            let query = sqlx::query_scalar::<_, String>(CALL).bind(text).bind(signed(number)).bind(what);
            Ok::<_, WorkcheckError>(query.fetch_one(pool(&self.db)?).await?)
        };
        // Whether it was done is not known: it is done again, with the same key.
        let known = called.await.map_err(|error| Error::internal(error).with_retry(Retry::Backoff))?;
        if known == what { Ok(()) } else { Err(Error::internal(format!("one key for {known} and {what}"))) }
    }
}

type Calling = BoxFuture<'static, Result<(), Error>>;

pub(crate) async fn run_sagas(
    part: &SagaPart,
    process: Process,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkcheckError> {
    Worker::new(over(&process.db, process.clock, part.broken)?)?.run(stop).await;
    Ok(())
}

/// Runs a whole check.
///
/// # Errors
/// What kept it from being made; what it found is its outcome.
pub async fn sagas(settings: &FleetSettings) -> Result<Outcome, WorkcheckError> {
    let mut stage = Stage::set(settings, "sagas", runtime_saga::migrations::SET).await?;
    sqlx::raw_sql(WORLD).execute(pool(&stage.db)?).await?;
    let sagas = over(&stage.db, SystemClock::shared(), Broken::No)?;
    stage.populate(settings.processes, &Part::Sagas(SagaPart { broken: settings.broken }))?;
    let context = Context::new(Source::Internal, &SystemClock);
    let begin = async |number: usize| {
        let new = NewSaga::new("trip", number)?.key(format!("trip-{number}"));
        let id = sagas.start(&context, new.clone()).await?;
        // Whoever got no answer asks again, and nothing begins twice.
        let again = sagas.start(&context, new).await?;
        Ok::<_, WorkcheckError>((number, id, again == id))
    };
    let signal = async |(number, id): (usize, SagaId)| {
        let go = SignalRequest { name: "go".to_owned(), payload: json!(number), id: Some("go".to_owned()) };
        Ok::<_, WorkcheckError>(sagas.signal(&context, id, go).await?)
    };
    let all = async {
        let started = stream::iter(0..settings.instances).map(begin).buffer_unordered(8);
        let started: Vec<_> = started.try_collect().await?;
        let waiting = started.iter().filter(|(number, _, _)| expected(*number).signal);
        // Some had waited for long, some had not come so far.
        let sent =
            stream::iter(waiting.map(|(number, id, _)| (*number, *id))).map(signal).buffer_unordered(8);
        sent.try_collect::<Vec<bool>>().await?;
        Ok::<_, WorkcheckError>(started)
    };
    let started = stage.strike_during(settings.faults, all).await?;
    while unfinished(&stage.db).await? > 0 && stage.gone() < settings.duration + QUIET {
        let faults = settings.faults && stage.gone() < settings.duration;
        stage.strike(faults).await?;
    }
    let mut outcome = Outcome { instances: settings.instances, took: stage.gone(), ..Outcome::default() };
    (outcome.killed, outcome.frozen) = (stage.herd.killed, stage.herd.frozen);
    let (mut all, mut twice) = (Vec::new(), 0);
    let mut world = world(&stage.db, &mut outcome).await?;
    for (number, id, once) in started {
        twice += usize::from(!once);
        let seen = sagas.show(&context, id, 0).await?;
        *outcome.ended.entry(seen.saga.status.as_str().to_owned()).or_default() += 1;
        let (mut done, mut undone) = (Vec::new(), Vec::new());
        for entry in seen.journal {
            match entry.what {
                What::StepDone { name, .. } => done.push(name),
                What::Compensated { name } => undone.push(name),
                _ => {}
            }
        }
        let effects = world.remove(&number).unwrap_or_default();
        all.push(Ended { number, status: seen.saga.status, done, undone, effects });
    }
    let stuck = stage.herd.stop().await?;
    outcome.violations = judge_sagas(&all, expected);
    if twice > 0 {
        let about = format!("{twice} sagas began twice under one key");
        outcome.violations.push(Violation::new(Promise::NothingMadeUp, about));
    }
    outcome.violations.extend(stuck.into_iter().map(|who| Violation::new(Promise::WorkersStop, who)));
    Ok(outcome)
}

/// What was done in the world, by saga, in the order of the first calls.
async fn world(db: &Database, outcome: &mut Outcome) -> Result<BTreeMap<usize, Vec<String>>, WorkcheckError> {
    let sql = "SELECT saga, what, calls FROM check_world ORDER BY place";
    let mut world: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (saga, what, calls) in sqlx::query_as::<_, (i64, String, i64)>(sql).fetch_all(pool(db)?).await? {
        outcome.effects += 1;
        outcome.repeated += usize::try_from(calls - 1).unwrap_or_default();
        world.entry(usize::try_from(saga).unwrap_or(usize::MAX)).or_default().push(what);
    }
    Ok(world)
}

async fn unfinished(db: &Database) -> Result<i64, WorkcheckError> {
    let sql = "SELECT count(*) FROM saga_instances WHERE ended_at IS NULL";
    Ok(sqlx::query_scalar(sql).fetch_one(pool(db)?).await?)
}

fn pool(db: &Database) -> Result<&PgPool, DbError> {
    db.postgres().ok_or(DbError::Closed)
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
