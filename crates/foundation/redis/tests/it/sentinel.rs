//! Against a real sentinel with a master and a replica, which trade places.

use std::sync::Arc;

use runtime_kernel::{ManualClock, SystemClock};
use runtime_redis::{Redis, RedisConfig, Script, cmd, pipe};
use runtime_testkit::redis::{Node, sentinel};

/// Where only writes count: the value a node has.
async fn value(node: &Node, key: &str) -> String {
    node.ask(&format!("GET {key}")).await.unwrap()
}

#[tokio::test]
async fn the_master_is_found_and_found_again_after_it_has_died() {
    let mut servers = sentinel().await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(servers.url());
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    let key = redis.key(None, "area", "a");
    redis.run::<()>(cmd("SET").arg(&key).arg(1)).await.unwrap();
    let (x, y): (i64, i64) = redis.run_all(pipe().atomic().incr(&key, 1).incr(&key, 1)).await.unwrap();
    assert_eq!((x, y), (2, 3));
    redis.blocking().await.map(drop).unwrap();
    assert!(value(&servers.master, &key).await.ends_with("3\r\n"));

    servers.master.kill().await.unwrap();
    let found_out = redis.ping().await.unwrap_err();
    assert!(found_out.is_away(), "{found_out:?}");
    runtime_testkit::until("a new master", async || {
        clock.advance(config.retry_after);
        let answer = redis.run::<()>(cmd("SET").arg(&key).arg("after")).await;
        answer.inspect_err(|error| assert!(error.is_away(), "{error:?}")).is_ok()
    })
    .await
    .unwrap();
    assert!(value(&servers.replica, &key).await.ends_with("after\r\n"), "it is the master now");
    // Everything else goes there as well.
    let script = Script::new("return redis.call('APPEND', KEYS[1], ARGV[1])");
    assert_eq!(redis.run_script::<i64>(script.key(&key).arg("!")).await.unwrap(), 6);
    let mut own = redis.blocking().await.unwrap();
    let list = redis.key(None, "list", "l");
    redis.run::<()>(cmd("RPUSH").arg(&list).arg("x")).await.unwrap();
    let (_, popped): (String, String) = cmd("BLPOP").arg(&list).arg(1).query_async(&mut own).await.unwrap();
    assert_eq!(popped, "x");
}

#[tokio::test]
async fn orders_follow_the_master_when_it_becomes_a_replica() {
    let mut servers = sentinel().await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(servers.url());
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    let key = redis.key(None, "area", "a");
    redis.run::<()>(cmd("SET").arg(&key).arg("before")).await.unwrap();
    // Returns to the pool, where it must not be taken for a way to the master later.
    redis.blocking().await.map(drop).unwrap();
    servers.swap().await.unwrap();
    runtime_testkit::until("the other master", async || {
        clock.advance(config.retry_after);
        let answer = redis.run::<()>(cmd("SET").arg(&key).arg("after")).await;
        answer.inspect_err(|error| assert!(error.is_away(), "{error:?}")).is_ok()
    })
    .await
    .unwrap();
    assert!(value(&servers.master, &key).await.ends_with("after\r\n"));
    let mut own = redis.blocking().await.unwrap();
    cmd("SET").arg(&key).arg("own").exec_async(&mut own).await.unwrap();
}

#[tokio::test]
async fn a_server_that_may_not_write_counts_as_away() {
    let servers = sentinel().await.unwrap();
    let redis = Redis::new(&RedisConfig::at(servers.replica.url()), SystemClock::shared()).unwrap();
    let script = Script::new("return redis.call('SET', KEYS[1], 1)");
    let error = redis.run_script::<()>(&script.key("k")).await.unwrap_err();
    assert!(error.is_away(), "{error:?}");
}

#[tokio::test]
async fn a_service_nobody_knows_and_sentinels_that_are_gone_count_as_away() {
    let servers = sentinel().await.unwrap();
    for url in [servers.url().replace("/main", "/other"), "redis+sentinel://127.0.0.1:1/main".to_owned()] {
        let redis = Redis::new(&RedisConfig::at(url), SystemClock::shared()).unwrap();
        assert!(redis.ping().await.unwrap_err().is_away());
        assert_eq!(redis.ping().await.unwrap_err().to_string(), "Redis is away");
    }
}

#[tokio::test]
async fn a_password_is_told_to_sentinels_that_ask_for_one() {
    let servers = sentinel().await.unwrap();
    servers.master.ask("CONFIG SET requirepass hunter2").await.unwrap();
    let url = servers.url().replace("://", "://:hunter2@");
    let redis = Redis::new(&RedisConfig::at(&url), SystemClock::shared()).unwrap();
    redis.ping().await.expect("the sentinel is open, the master is not");
    servers.sentinel.ask("CONFIG SET requirepass hunter2").await.unwrap();
    let redis = Redis::new(&RedisConfig::at(&url), SystemClock::shared()).unwrap();
    redis.ping().await.expect("neither is");
}
