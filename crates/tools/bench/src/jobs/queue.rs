//! What is measured of any queue, and the contenders by name.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Turns true when a worker shall end.
pub type Stop = watch::Receiver<bool>;

/// The largest lot jobs are enqueued in.
pub const LOT: usize = 10_000;

/// A queue in a database of its own, with one worker of one no-op kind.
#[allow(async_fn_in_trait)]
pub trait Queue {
    /// Adds jobs, durable on return, by its fastest documented way, at most [`LOT`] at once.
    async fn enqueue(&self, count: usize);
    /// Runs a worker until told to stop.
    async fn work(&self, stop: Stop);
    /// Runs what a process runs that has nothing to do: the worker and its housekeeping.
    async fn idle(&self, stop: Stop) {
        self.work(stop).await;
    }
    /// How many handlers have been run.
    fn ran(&self) -> usize;
    /// How many jobs the database says are done: committed there as done, or gone where a queue deletes what is done.
    async fn done(&self) -> usize;
    /// A transaction of the caller's, which writes a row of its own into a table `users (id bigint)` and, if asked,
    /// enqueues a job. Tells when all is said but `COMMIT`.
    async fn enqueue_within(&self, with_job: bool, said: impl FnOnce());
    /// Lets go of its connections.
    async fn close(self);
}

/// Waits until told to stop.
pub async fn stopped(mut stop: Stop) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// The lots a number of jobs is enqueued in.
pub fn lots(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(LOT).map(move |from| LOT.min(count - from))
}

/// Jobs enqueued per second, by two clients at once: one makes its next lot while the database takes in the other's.
pub async fn enqueue_rate(queue: &impl Queue, count: usize) -> f64 {
    let half = count / 2;
    let began = Instant::now();
    tokio::join!(queue.enqueue(half), queue.enqueue(count - half));
    count as f64 / began.elapsed().as_secs_f64()
}

/// Jobs done per second, from the start of the worker until the database says that `until` more are done than before.
pub async fn drain_rate(queue: &impl Queue, before: usize, count: usize) -> f64 {
    let (stop, told) = watch::channel(false);
    let ran_before = queue.ran();
    let began = Instant::now();
    let timed = async {
        // The database is asked only near the end: looking costs it more than it would seem.
        while queue.ran() - ran_before < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        while queue.done().await < before + count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = began.elapsed();
        stop.send(true).expect("a worker listens");
        took
    };
    let ((), took) = tokio::join!(queue.work(told), timed);
    count as f64 / took.as_secs_f64()
}

/// How graphile_worker is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// 24 jobs at once, all else as it comes: each slot then takes one job each second, or when notified.
    Defaults,
    /// 24 jobs at once, polling each 5 ms as its own benchmark does.
    Direct,
    /// As its own benchmark, with a local queue of so many.
    Local(usize),
}

/// A queue at one of its published settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    Graphile(Setting),
    /// With batches of so many.
    Apalis(usize),
    /// With so many workers.
    Awa(u32),
    Underway,
}

/// Evaluates an expression on the queue a contender opens.
macro_rules! on_queue {
    ($contender:expr, $url:expr, $queue:ident => $run:expr) => {
        match $contender {
            Contender::Ours => {
                let $queue = $crate::jobs::ours::Ours::open($url).await;
                $run
            }
            Contender::Graphile(setting) => {
                let $queue = $crate::jobs::peers::graphile::Graphile::open($url, setting).await;
                $run
            }
            Contender::Apalis(batch) => {
                let $queue = $crate::jobs::peers::apalis::Apalis::open($url, batch).await;
                $run
            }
            Contender::Awa(workers) => {
                let $queue = $crate::jobs::peers::awa::Awa::open($url, workers).await;
                $run
            }
            Contender::Underway => {
                let $queue = $crate::jobs::peers::underway::Underway::open($url).await;
                $run
            }
        }
    };
}
pub(crate) use on_queue;

impl Contender {
    /// All of them, at the settings their authors publish.
    pub const ALL: [Self; 10] = [
        Self::Ours,
        Self::Graphile(Setting::Direct),
        Self::Graphile(Setting::Local(500)),
        Self::Graphile(Setting::Local(5000)),
        Self::Apalis(10),
        Self::Apalis(500),
        Self::Awa(64),
        Self::Awa(256),
        Self::Awa(1024),
        Self::Underway,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Ours => "runtime-jobs".to_owned(),
            Self::Graphile(Setting::Defaults) => "graphile_worker 0.14, defaults".to_owned(),
            Self::Graphile(Setting::Direct) => "graphile_worker 0.14, 24 at once, poll 5 ms".to_owned(),
            Self::Graphile(Setting::Local(size)) => format!("graphile_worker 0.14, local queue {size}"),
            Self::Apalis(10) => "apalis-postgres 1.0, default".to_owned(),
            Self::Apalis(batch) => format!("apalis-postgres 1.0, batch {batch}"),
            Self::Awa(workers) => format!("awa 0.6.9, {workers} workers"),
            Self::Underway => "underway 0.2, 24 at once".to_owned(),
        }
    }

    /// How many jobs make a few seconds' work: a rate is per second anyway.
    pub fn jobs(self) -> usize {
        match self {
            Self::Ours | Self::Graphile(Setting::Local(_)) => super::env("JOBS", 100_000),
            Self::Graphile(_) => super::env("JOBS_GRAPHILE_DIRECT", 5_000),
            Self::Apalis(10) => super::env("JOBS_APALIS_DEFAULT", 5_000),
            Self::Apalis(_) => super::env("JOBS_APALIS", 30_000),
            Self::Awa(_) => super::env("JOBS_AWA", 20_000),
            Self::Underway => super::env("JOBS_UNDERWAY", 500),
        }
    }

    /// Jobs enqueued and drained per second, in a fresh database.
    pub async fn round(self, url: &str) -> (f64, f64) {
        let count = self.jobs();
        on_queue!(self, url, queue => {
            let enqueued = enqueue_rate(&queue, count).await;
            let drained = drain_rate(&queue, 0, count).await;
            queue.close().await;
            (enqueued, drained)
        })
    }
}
