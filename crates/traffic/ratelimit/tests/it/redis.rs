//! Buckets in a real Redis: the laws, many processes, and Redis going away.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime_kernel::{ManualClock, SystemClock};
use runtime_ratelimit::{Buckets, Demand, Lease, LimitError, Rate, RateLimiter, RedisBuckets, WhenAway};
use runtime_redis::{Redis, RedisConfig, cmd};
use runtime_testkit::proxy::FaultProxy;
use runtime_testkit::redis::{TestRedis, server};

fn connect(url: &str, prefix: &str) -> Redis {
    let config = RedisConfig::at(url).with_prefix(prefix.trim_end_matches(':'));
    Redis::new(&config, SystemClock::shared()).unwrap()
}

fn buckets(redis: Redis, when_away: WhenAway) -> RedisBuckets {
    RedisBuckets::new(redis, when_away, RateLimiter::new(1_000))
}

async fn fresh() -> (RedisBuckets, Redis, TestRedis) {
    let server = server().await.unwrap();
    let redis = connect(server.url(), server.prefix());
    (buckets(redis.clone(), WhenAway::Refuse), redis, server)
}

#[tokio::test]
async fn the_laws_hold_in_redis() {
    super::laws::hold(&fresh().await.0).await;
}

#[tokio::test]
async fn the_laws_hold_in_a_cluster_and_behind_a_sentinel() {
    let cluster = runtime_testkit::redis::cluster(3).await.unwrap();
    super::laws::hold(&buckets(connect(&cluster.url(), "t"), WhenAway::Refuse)).await;
    let sentinel = runtime_testkit::redis::sentinel().await.unwrap();
    super::laws::hold(&buckets(connect(&sentinel.url(), "t"), WhenAway::Refuse)).await;
}

#[tokio::test]
async fn a_bucket_expires_when_it_is_full_again() {
    let (buckets, redis, _server) = fresh().await;
    let rate = Rate::new(10, Duration::from_secs(10)).unwrap();
    assert!(buckets.take(&[Demand::new("k", rate).cost(3)]).await.is_ok());
    let key = redis.key_together("limit", "bucket:k");
    let left: i64 = redis.run(cmd("PTTL").arg(&key)).await.unwrap();
    assert!((2_000..=3_001).contains(&left), "{left}");
}

#[tokio::test]
async fn a_bucket_that_remembers_is_taken_from_like_any_other() {
    let (buckets, _redis, _server) = fresh().await;
    let demand = Demand::new("k", Rate::per_hour(10).unwrap());
    let reserved = buckets.reserve(demand.cost(8)).await.unwrap();
    let left = async |cost| {
        let taken = buckets.take(&[demand.cost(cost)]).await;
        taken.map(|granted| granted.unwrap().standing.remaining()).map_err(|refused| refused.error)
    };
    assert_eq!(left(1).await, Ok(1));
    let refused = left(2).await.unwrap_err();
    assert!(refused.retry_after() > Some(Duration::from_mins(5)), "{refused:?}");
    reserved.cancel().await.unwrap();
    assert_eq!(left(2).await, Ok(7));
}

#[tokio::test]
async fn a_script_that_was_flushed_costs_no_request() {
    let (buckets, redis, _server) = fresh().await;
    let rate = Rate::per_hour(10).unwrap();
    for _ in 0..3 {
        assert!(buckets.take(&[Demand::new("k", rate)]).await.is_ok());
        redis.run::<()>(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_grant_no_more_than_redis_has_debited() {
    let (plain, redis, _server) = fresh().await;
    let lease = Lease { tokens: 50, time: Duration::from_mins(1) };
    let rate = Rate::per_hour(1_000).unwrap();
    let granted = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        // Each is a process of its own as far as leases go.
        let own = buckets(redis.clone(), WhenAway::Refuse).leased(lease, 100, SystemClock::shared());
        let granted = Arc::clone(&granted);
        tasks.push(tokio::spawn(async move {
            for _ in 0..600 {
                let taken = match own.take_now(&[Demand::new("k", rate)]) {
                    Some(taken) => taken,
                    None => own.take(&[Demand::new("k", rate)]).await,
                };
                granted.fetch_add(u32::from(taken.is_ok()), Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let granted = granted.load(Ordering::Relaxed);
    assert!(granted <= 1_000, "{granted}");
    assert!(granted > 800, "four processes hold at most fifty each that they did not use: {granted}");
    assert_eq!(plain.peek(Demand::new("k", rate)).await.unwrap().remaining(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_processes_settle_adds_up_to_the_token() {
    let server = server().await.unwrap();
    // A token takes minutes to come back, so time plays no part.
    let rate = Rate::new(100_000, Duration::from_hours(10_000)).unwrap();
    let demand = Demand::new("k", rate);
    let tasks: Vec<_> = (0..4u32)
        .map(|own| {
            let buckets = buckets(connect(server.url(), server.prefix()), WhenAway::Refuse);
            tokio::spawn(async move {
                let mut used = 0;
                for turn in 0..100 {
                    let first = buckets.reserve(demand.cost(7)).await.unwrap();
                    let second = buckets.reserve(demand.cost(3)).await.unwrap();
                    let (a, b) = ((turn * 5 + own) % 11, (turn + own) % 4);
                    second.settle(b).await.unwrap();
                    first.settle(a).await.unwrap();
                    used += a + b;
                }
                used
            })
        })
        .collect();
    let mut used = 0;
    for task in tasks {
        used += task.await.unwrap();
    }
    let buckets = buckets(connect(server.url(), server.prefix()), WhenAway::Refuse);
    assert_eq!(buckets.peek(demand).await.unwrap().remaining(), 100_000 - used);
}

#[tokio::test]
async fn what_time_has_paid_for_does_not_come_back_twice() {
    let (buckets, _redis, _server) = fresh().await;
    let demand = Demand::new("k", Rate::new(10, Duration::from_secs(2)).unwrap());
    let reserved = buckets.reserve(demand.cost(9)).await.unwrap();
    runtime_testkit::until("a full bucket", async || {
        // Nothing is granted until all of it is.
        buckets.take(&[demand.cost(10)]).await.is_ok()
    })
    .await
    .unwrap();
    let left = reserved.cancel().await.unwrap().unwrap().remaining();
    assert!(left < 5, "the bucket was full in between: {left}");
}

/// The law of law.rs against a real server and real time: what was granted between two moments, as it was settled in
/// the end, is at most what the bucket holds and what came back meanwhile.
#[tokio::test]
async fn no_window_holds_more_than_burst_and_refill() {
    let (buckets, _redis, _server) = fresh().await;
    let clock = SystemClock::shared();
    for (capacity, seed) in [(8, 1), (40, 2), (8, 3), (300, 4)] {
        let rate = Rate::new(capacity, Duration::from_millis(8)).unwrap();
        let key = format!("law:{seed}");
        let demand = Demand::new(&key, rate);
        let mut random: u64 = seed;
        let mut next = |below: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(random >> 32).unwrap() % below
        };
        // When each was asked for at the earliest, granted at the latest, and how much it came to.
        let (mut grants, mut open) = (Vec::new(), Vec::new());
        for _ in 0..4_000 {
            let (cost, before) = (1 + next(capacity), clock.now());
            match next(8) {
                0..=2 => {
                    let taken = buckets.take(&[demand.cost(cost)]).await.is_ok();
                    grants.extend(taken.then(|| (before, clock.now(), cost)));
                }
                3..=4 => {
                    if let Ok(reserved) = buckets.reserve(demand.cost(cost)).await {
                        open.push((grants.len(), reserved));
                        grants.push((before, clock.now(), cost));
                    }
                }
                _ if open.len() > 6 => {
                    let (at, reserved) = open.swap_remove(usize::try_from(next(6)).unwrap());
                    let used = next(reserved.tokens() + 1);
                    reserved.settle(used).await.unwrap();
                    grants[at].2 = used;
                }
                _ => {}
            }
        }
        assert!(grants.len() > 100, "{}", grants.len());
        for (from, (start, ..)) in grants.iter().enumerate() {
            let mut sum = 0;
            for (_, end, tokens) in &grants[from..] {
                sum += u128::from(*tokens);
                let refilled = (*end - *start).as_nanos() / rate.interval().as_nanos();
                assert!(sum <= u128::from(capacity) + refilled + 1, "{sum} of {capacity} + {refilled}");
            }
        }
    }
}

#[tokio::test]
async fn while_redis_is_away_each_policy_does_what_it_says() {
    let server = server().await.unwrap();
    let target = server.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let rate = Rate::per_hour(3).unwrap();
    for policy in [WhenAway::Admit, WhenAway::Refuse, WhenAway::Local] {
        let proxy = FaultProxy::start(target.clone()).await.unwrap();
        let clock = ManualClock::new();
        let prefix = format!("{}{policy:?}", server.prefix());
        let config = RedisConfig::at(format!("redis://{}", proxy.address())).with_prefix(prefix);
        let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
        let buckets = buckets(redis, policy);
        let demand = [Demand::new("k", rate)];
        assert!(buckets.take(&demand).await.is_ok());
        let before = buckets.reserve(Demand::new("before", rate)).await.unwrap();

        proxy.cut();
        let error = before.settle(0).await.unwrap_err();
        assert!(matches!(error, LimitError::Away { .. }), "it was reserved where nobody answers: {error}");
        match (buckets.reserve(Demand::new("away", rate).cost(2)).await, policy) {
            (Ok(reserved), WhenAway::Admit) => assert_eq!(reserved.settle(1).await.unwrap(), None),
            (Err(LimitError::Away { .. }), WhenAway::Refuse) => {}
            (Ok(reserved), WhenAway::Local) => {
                assert_eq!(reserved.settle(1).await.unwrap().unwrap().remaining(), 2);
            }
            (answer, _) => panic!("{answer:?}"),
        }
        let mut granted = 0;
        let mut refused = None;
        for _ in 0..10 {
            match buckets.take(&demand).await {
                Ok(_) => granted += 1,
                Err(error) => refused = Some(error.error),
            }
        }
        match policy {
            WhenAway::Admit => assert_eq!((granted, refused), (10, None)),
            WhenAway::Refuse => {
                assert!(granted == 0 && matches!(refused, Some(LimitError::Away { .. })), "{refused:?}");
            }
            _ => assert!(granted == 3 && matches!(refused, Some(LimitError::Exceeded { .. })), "{refused:?}"),
        }

        proxy.heal();
        let remaining = loop {
            clock.advance(config.retry_after);
            let standing = buckets.take(&demand).await;
            if let Ok(Some(tightest)) = standing
                && tightest.standing.remaining() < 2
            {
                break tightest.standing.remaining();
            }
        };
        assert_eq!(remaining, 1, "Redis remembers the one from before: {policy:?}");
    }
}

/// Starts itself once more in eight processes, each of which takes as often as it can and prints how often it could.
#[tokio::test]
async fn eight_processes_share_one_limit_and_never_go_over_it() {
    if let (Ok(url), Ok(prefix)) = (std::env::var("LIMIT_URL"), std::env::var("LIMIT_PREFIX")) {
        let buckets = buckets(connect(&url, &prefix), WhenAway::Refuse);
        let rate = Rate::per_hour(2_000).unwrap();
        let mut granted = 0;
        for _ in 0..1_000 {
            let all = [Demand::new("shared", rate), Demand::new("other", rate)];
            granted += u32::from(buckets.take(&all).await.is_ok());
        }
        println!("granted={granted};");
        return;
    }
    let (buckets, _redis, server) = fresh().await;
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = Command::new(&program);
            let own = "it::redis::eight_processes_share_one_limit_and_never_go_over_it";
            command.args(["--exact", own, "--nocapture"]);
            command.env("LIMIT_URL", server.url()).env("LIMIT_PREFIX", server.prefix());
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut granted = 0;
    for child in children {
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let number = text.split("granted=").nth(1).and_then(|rest| rest.split(';').next());
        granted += number.unwrap_or_else(|| panic!("{text}")).parse::<u32>().unwrap();
    }
    // A token comes back every 1.8 s, so a slow run may see a few more than the bucket held.
    assert!((2_000..2_030).contains(&granted), "{granted}");
    assert!(
        buckets.peek(Demand::new("shared", Rate::per_hour(2_000).unwrap())).await.unwrap().remaining() < 30
    );
}
