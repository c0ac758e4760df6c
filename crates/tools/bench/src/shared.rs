//! The limiter in Redis, beside the script everybody writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime_kernel::SystemClock;
use runtime_ratelimit::{Buckets, Demand, Lease, Rate, RateLimiter, RedisBuckets, WhenAway};
use runtime_redis::{Redis, RedisConfig, Script};

use crate::measure::interleave;
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(700);
const CALLERS: usize = 50;

/// As redis-cell's users write it: one key, the time from the caller.
const PLAIN: &str = r"
local tat = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
local now, interval, depth = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if tat < now then tat = now end
local new = tat + interval
if new - now > depth then return {0, new - now - depth} end
redis.call('SET', KEYS[1], new, 'PX', math.ceil((new - now) / 1000) + 1)
return {1, depth - (new - now)}";

/// Decisions per second of fifty callers over one connection.
pub fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (redis, rate) = runtime.block_on(async {
        let server = runtime_testkit::redis::server().await.expect("redis-server is installed");
        let config = RedisConfig::at(server.url()).with_prefix(server.prefix().trim_end_matches(':'));
        (
            Redis::new(&config, SystemClock::shared()).expect("sound"),
            Rate::per_second(1_000_000).expect("a rate"),
        )
    });
    let buckets = RedisBuckets::new(redis.clone(), WhenAway::Refuse, RateLimiter::new(16));
    let lease = Lease { tokens: 1_000, time: Duration::from_millis(100) };
    let leased = buckets.clone().leased(lease, 1_000, SystemClock::shared());
    let (script, key) = (Arc::new(Script::new(PLAIN)), redis.key(None, "plain", "k"));

    let ask = |buckets: &RedisBuckets| {
        let buckets = buckets.clone();
        move || {
            let buckets = buckets.clone();
            async move {
                let demand = [Demand::new("k", rate)];
                let granted = match buckets.take_now(&demand) {
                    Some(granted) => granted,
                    None => buckets.take(&demand).await,
                };
                assert!(!matches!(granted, Err(refused) if refused.error.retry_after().is_none()));
            }
        }
    };
    let plain = move || {
        let (redis, script, key) = (redis.clone(), Arc::clone(&script), key.clone());
        async move {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            let mut call = script.key(&key);
            call.arg(u64::try_from(now.as_micros()).expect("fits")).arg(1).arg(1_000_000);
            let _: (i64, i64) = redis.run_script(call).await.expect("answered");
        }
    };
    let (ours, by_lease) = (ask(&buckets), ask(&leased));
    let [ours, by_lease, plain] = interleave([
        &mut || rate_of(&runtime, ours.clone()),
        &mut || rate_of(&runtime, by_lease.clone()),
        &mut || rate_of(&runtime, plain.clone()),
    ]);
    let peer = "a one-key Lua script, same connection";
    let row = |name, ours: &[f64], peer| Row::of("shared", name, "dec/s", Better::More, ours, peer);
    vec![
        row("limiter in Redis, 50 callers", &ours, (peer, &plain)),
        row("limiter in Redis with leases of 1000, 50 callers", &by_lease, (peer, &plain)),
    ]
}

fn rate_of<F, W>(runtime: &tokio::runtime::Runtime, operation: F) -> f64
where
    F: Fn() -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    runtime.block_on(async {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (stop, done, operation) = (Arc::clone(&stop), Arc::clone(&done), operation.clone());
                tokio::spawn(async move {
                    let mut own = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Ones that need no round trip never yield by themselves.
                        for _ in 0..64 {
                            operation().await;
                            own += 1;
                        }
                        tokio::task::yield_now().await;
                    }
                    done.fetch_add(own, Ordering::Relaxed);
                })
            })
            .collect();
        tokio::time::sleep(WINDOW).await;
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("no panic");
        }
        done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
    })
}
