//! Crash points: a job's life, broken off, failed and held up between every two durable steps of it.
//!
//! On Postgres the points lie in the connection itself, between the statements and on both sides of every commit, so that
//! the inside of every transaction is covered, and "it was committed and nobody was told" is. Everywhere the points also
//! lie before and after each operation of the store; and on SQLite a process is dropped at each place where it waits.
#![cfg(all(feature = "sqlite", feature = "postgres"))]

mod chapters;
pub(super) mod faulty;
pub(super) mod gate;
mod snapshot;
mod ties;
mod wire;
mod world;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use runtime_db::{Database, DbConfig, Synchronous, sqlx};
use runtime_jobs::store::JobStore;
use runtime_jobs::{Jobs, JobsConfig, MemoryStore, SqlStore, migrations};
use runtime_kernel::{Clock, ManualClock, SharedClock, Sleep, Timestamp};
use runtime_migrate::{MigrateOptions, Migrator};
use runtime_testkit::postgres::TestDatabase;

use self::chapters::Chapter;
use self::faulty::Faulty;
use self::gate::{Fault, Gate};
use self::wire::Wire;
use self::world::{LEASE, Process, World};

/// Dates are moved by hand, as those of the store; who sleeps sleeps as ever.
#[derive(Debug)]
struct Moved(ManualClock);

impl Clock for Moved {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn utc(&self) -> Timestamp {
        self.0.utc()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Where the jobs are kept.
enum Place {
    Memory,
    Sqlite { url: String, db: Database, _folder: tempfile::TempDir },
    Postgres(TestDatabase, Database),
}

/// Where the points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Points {
    /// Before and after each operation of the store.
    Operations,
    /// After each statement, and on both sides of each commit.
    Wire,
}

struct Stage {
    clock: ManualClock,
    place: Place,
}

impl Stage {
    fn memory() -> Self {
        Self { clock: ManualClock::new(), place: Place::Memory }
    }

    async fn sqlite() -> Self {
        let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let db = connect(&url, &clock).await;
        build(&db).await;
        let pool = &db.sqlite().unwrap().write;
        for sql in ["CREATE TABLE effects (job BLOB)", "CREATE TABLE orders (job BLOB)"] {
            sqlx::query(sql).execute(pool).await.unwrap();
        }
        Self { clock, place: Place::Sqlite { url, db, _folder: folder } }
    }

    async fn postgres() -> Self {
        let (clock, database) = (ManualClock::new(), runtime_testkit::postgres::database().await.unwrap());
        let db = connect(database.url(), &clock).await;
        build(&db).await;
        let pool = db.postgres().unwrap();
        // The server lives through all of this, so nothing is gained by waiting for its disk.
        let quick = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
        for sql in [quick, "CREATE TABLE effects (job UUID)", "CREATE TABLE orders (job UUID)"] {
            sqlx::query(sql).execute(pool).await.unwrap();
        }
        Self { clock, place: Place::Postgres(database, db) }
    }

    /// Two processes over what is kept here, the first of them behind a gate.
    async fn scene(&self, points: Points, fault: Fault, at: String) -> Scene {
        let (gate, calm) = (Arc::new(Gate::new(fault).counting(every())), Arc::new(Gate::new(fault)));
        let world = World::new(self.clock.clone(), at);
        let inside = if points == Points::Wire { &calm } else { &gate };
        let mut wire = None;
        let (first, second): (Handle, Handle) = match &self.place {
            Place::Memory => {
                let store: Arc<dyn JobStore> = Arc::new(MemoryStore::new(Arc::new(self.clock.clone())));
                ((Arc::clone(&store), None), (store, None))
            }
            Place::Sqlite { url, db, .. } => (handle(connect(url, &self.clock).await), handle(db.clone())),
            Place::Postgres(database, db) => {
                let mut url = database.url().to_owned();
                if points == Points::Wire {
                    let rest = url.split_once("://").unwrap().1;
                    let server = rest.split('/').next().unwrap().rsplit('@').next().unwrap().to_owned();
                    let carried = Wire::start(server.clone(), Arc::clone(&gate)).await;
                    let join = if url.contains('?') { '&' } else { '?' };
                    url = url.replacen(&server, &carried.address().to_string(), 1)
                        + &format!("{join}sslmode=disable");
                    wire = Some(carried);
                }
                (handle(connect(&url, &self.clock).await), handle(db.clone()))
            }
        };
        let process = |name: &str, (store, sql): Handle, inside: &Arc<Gate>, excuse: &Arc<Gate>| {
            let mut config = JobsConfig::default();
            (config.poll_interval, config.heartbeat) = (Duration::from_millis(5), Duration::from_millis(10));
            (config.lease, config.drain) = (LEASE, Duration::from_secs(5));
            let clock: SharedClock = Arc::new(Moved(self.clock.clone()));
            Process {
                name: name.to_owned(),
                jobs: Jobs::new(Faulty(store, Arc::clone(inside), Arc::default()), config, clock),
                gate: Arc::clone(inside),
                excuse: Arc::clone(excuse),
                sql,
                world: Arc::clone(&world),
            }
        };
        let first = process("first", first, inside, &gate);
        let second = process("second", second, &Arc::new(Gate::new(fault)), &Arc::new(Gate::new(fault)));
        Scene { first, second, gate, wire }
    }

    /// Whether a process of this database waits for a lock.
    async fn waits(&self) -> bool {
        let Place::Postgres(_, db) = &self.place else { return false };
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(db.postgres().unwrap()).await.unwrap();
        waiting > 0
    }

    /// Waits until the server has ended what a dead process had begun. It learns of the death by the closed connection, a
    /// moment later, and until then holds the locks, which whoever prunes goes past.
    async fn buried(&self) {
        let Place::Postgres(_, db) = &self.place else { return };
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL";
        let ended = async {
            while sqlx::query_scalar::<_, i64>(sql).fetch_one(db.postgres().unwrap()).await.unwrap() > 0 {}
        };
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .expect("a dead process's transaction ends");
    }
}

type Handle = (Arc<dyn JobStore>, Option<(Database, SqlStore)>);

fn handle(db: Database) -> Handle {
    let store = SqlStore::new(db.clone()).on_this_clock();
    (Arc::new(store.clone()), Some((db, store)))
}

async fn connect(url: &str, clock: &ManualClock) -> Database {
    let mut config = DbConfig::at(url);
    config.synchronous = Synchronous::Normal;
    Database::connect(&config, Arc::new(Moved(clock.clone()))).await.unwrap()
}

async fn build(db: &Database) {
    let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
    migrator.run().await.unwrap();
}

struct Scene {
    first: Process,
    second: Process,
    gate: Arc<Gate>,
    wire: Option<Wire>,
}

/// What a run over all points came to.
#[derive(Debug, Default)]
struct Seen {
    points: u64,
    stale: u32,
}

/// Both sides of every commit are points for every fault; of the statements before it, which last only with it, every
/// fault has every fourth, each others. All for all take minutes: `cargo xtask soak crash`.
fn every() -> u64 {
    std::env::var("RUNTIME_CRASH_EVERY").map_or(4, |every| every.parse().unwrap())
}

/// Plays a chapter once for each point: until one run does not come to its point.
async fn every_point(stage: &Stage, points: Points, chapter: Chapter, fault: Fault, stride: usize) -> Seen {
    let mut seen = Seen::default();
    for at in (0..).step_by(stride) {
        let scene = stage.scene(points, fault, format!("{chapter:?}, {fault:?} at {at}")).await;
        let Scene { first, second, gate, wire } = scene;
        chapter.prepare(&second).await;
        gate.arm(at);
        let mut play = Box::pin(chapter.play(&first));
        let done = tokio::select! {
            () = &mut play => true,
            () = gate.struck() => false,
        };
        match fault {
            // It never came so far: what follows is not to be struck either.
            _ if done => gate.rest(),
            Fault::Kill => drop(play),
            Fault::Error => play.await,
            Fault::Delay => {
                let mut work = Box::pin(second.take_over());
                let over = meanwhile(stage, work.as_mut()).await;
                gate.open();
                if over {
                    play.await;
                } else {
                    tokio::join!(play, work);
                }
            }
        }
        second.look().await;
        if fault == Fault::Error {
            first.finish().await;
        } else {
            drop(wire);
            if fault == Fault::Kill {
                stage.buried().await;
            }
            second.finish().await;
        }
        second.verify().await;
        second.verify_nothing_left().await;
        seen.stale += first.world.stale();
        if done && !gate.has_struck() {
            return seen;
        }
        seen.points += 1;
    }
    seen
}

/// Lets another work while one stands still: until it is done, which it says, or waits for what the first has locked.
async fn meanwhile(stage: &Stage, mut work: Pin<&mut impl Future<Output = ()>>) -> bool {
    loop {
        if tokio::time::timeout(Duration::from_millis(2), &mut work).await.is_ok() {
            return true;
        }
        if stage.waits().await {
            return false;
        }
    }
}

const SCRIPTS: [Chapter; 6] =
    [Chapter::Enqueue, Chapter::Work, Chapter::Keys, Chapter::Remedy, Chapter::House, Chapter::Ties];

/// Plays every chapter; says how many points there were.
async fn every_chapter(stage: &Stage, points: Points, fault: Fault, stride: usize) -> Seen {
    let mut all = Seen::default();
    for chapter in SCRIPTS {
        let Seen { points, stale } = every_point(stage, points, chapter, fault, stride).await;
        all = Seen { points: all.points + points, stale: all.stale + stale };
    }
    all
}

async fn every_fault(stage: &Stage, points: Points, stride: usize) {
    for fault in [Fault::Kill, Fault::Error, Fault::Delay] {
        let seen = every_chapter(stage, points, fault, stride).await;
        assert!(seen.points > 50, "{fault:?}: there were points: {seen:?}");
        assert!(fault != Fault::Delay || seen.stale > 0, "nobody came too late: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_a_job_survives_every_fault_between_operations() {
    every_fault(&Stage::memory(), Points::Operations, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_job_survives_every_fault_between_operations() {
    every_fault(&Stage::sqlite().await, Points::Operations, 1).await;
}

/// Which statements run is told by the wire.
async fn on_postgres(fault: Fault) -> Seen {
    let stage = Stage::postgres().await;
    let seen = every_chapter(&stage, Points::Wire, fault, 1).await;
    assert!(seen.points > 150, "there were points: {seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_job_survives_death_around_every_commit() {
    on_postgres(Fault::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_job_survives_a_lost_connection_around_every_commit() {
    on_postgres(Fault::Error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_job_survives_standing_still_around_every_commit() {
    let seen = on_postgres(Fault::Delay).await;
    assert!(seen.stale > 0, "nobody came too late: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_a_worker_survives_every_fault() {
    for fault in [Fault::Kill, Fault::Error, Fault::Delay] {
        let seen = every_point(&Stage::memory(), Points::Operations, Chapter::Worker, fault, 1).await;
        assert!(seen.points > 10, "{fault:?}: there were points: {seen:?}");
    }
}

/// A worker's points fall where its tasks happen to be, so each run has others; every third is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_worker_survives_every_fault() {
    let stage = Stage::postgres().await;
    for fault in [Fault::Kill, Fault::Error, Fault::Delay] {
        let seen = every_point(&stage, Points::Wire, Chapter::Worker, fault, 3).await;
        assert!(seen.points > 10, "{fault:?}: there were points: {seen:?}");
    }
}

/// Lets a future wait so often, then drops it.
async fn dropped_after(waits: usize, work: impl Future<Output = ()>) -> bool {
    let mut work = Box::pin(work);
    let mut left = waits;
    std::future::poll_fn(move |context| match work.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending if left == 0 => Poll::Ready(true),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_job_survives_being_dropped_wherever_it_waits() {
    const STRIDE: usize = 3;
    let stage = Stage::sqlite().await;
    let mut drops = 0;
    for chapter in SCRIPTS {
        for waits in (0..).step_by(STRIDE) {
            let scene =
                stage.scene(Points::Operations, Fault::Kill, format!("{chapter:?}, dropped at {waits}"));
            let Scene { first, second, .. } = scene.await;
            chapter.prepare(&second).await;
            let dropped = dropped_after(waits, chapter.play(&first)).await;
            second.finish().await;
            second.verify().await;
            second.verify_nothing_left().await;
            drops += usize::from(dropped);
            // What the database answers at once is not waited for: a run may be done early, and the next one not.
            if !dropped && waits > 10 {
                break;
            }
        }
    }
    assert!(drops > 20, "there were places to wait: {drops}");
}
