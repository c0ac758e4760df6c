//! Against a real cluster of three masters.

use std::sync::Arc;

use runtime_kernel::{ManualClock, Name, SystemClock, TenantContext};
use runtime_redis::{Redis, RedisConfig, RedisError, Script, cmd, pipe};
use runtime_testkit::redis::{TestCluster, cluster};

async fn connected() -> (Redis, TestCluster) {
    let servers = cluster(3).await.unwrap();
    (Redis::new(&RedisConfig::at(servers.url()), SystemClock::shared()).unwrap(), servers)
}

fn tenant(name: &str) -> TenantContext {
    TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap())
}

/// The node of a key, by its place, and the slot.
async fn place(servers: &TestCluster, key: &str) -> (usize, usize) {
    let (owner, slot) = servers.owner(key).await.unwrap();
    (servers.nodes.iter().position(|node| node.port() == owner.port()).unwrap(), slot)
}

async fn name(servers: &TestCluster, nth: usize) -> String {
    let answer = servers.nodes[nth].ask("CLUSTER MYID").await.unwrap();
    answer.lines().nth(1).unwrap().to_owned()
}

async fn tell(servers: &TestCluster, nth: usize, command: &str) {
    let answer = servers.nodes[nth].ask(command).await.unwrap();
    assert_eq!(answer, "+OK\r\n", "{command}");
}

fn script() -> Script {
    Script::new("return redis.call('INCR', KEYS[1])")
}

#[tokio::test]
async fn commands_scripts_and_blocking_go_to_the_node_that_has_the_key() {
    let (redis, servers) = connected().await;
    redis.ping().await.unwrap();
    let mut seen = std::collections::HashSet::new();
    let script = script();
    for nth in 0..30 {
        let key = redis.key(None, "area", &nth.to_string());
        redis.run::<()>(cmd("SET").arg(&key).arg(nth)).await.unwrap();
        assert_eq!(redis.run_script::<i64>(script.key(&key)).await.unwrap(), nth + 1);
        let mut own = redis.blocking().await.unwrap();
        let list = redis.key(None, "list", &nth.to_string());
        redis.run::<()>(cmd("RPUSH").arg(&list).arg("x")).await.unwrap();
        let (_, popped): (String, String) =
            cmd("BLPOP").arg(&list).arg(1).query_async(&mut own).await.unwrap();
        assert_eq!(popped, "x");
        seen.insert(place(&servers, &key).await.0);
    }
    assert_eq!(seen.len(), 3, "what belongs to no tenant is spread over all nodes");
}

#[tokio::test]
async fn a_pipeline_or_script_of_one_slot_runs_and_one_of_several_is_refused() {
    let (redis, _servers) = connected().await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let own = |key| redis.key(Some(&acme), "area", key);
    let (x, y): (i64, i64) =
        redis.run_all(pipe().atomic().incr(own("a"), 1).incr(own("b"), 5)).await.unwrap();
    assert_eq!((x, y), (1, 5));
    let sum = Script::new("return redis.call('GET', KEYS[1]) + redis.call('GET', KEYS[2])");
    assert_eq!(redis.run_script::<i64>(sum.key(own("a")).key(own("b"))).await.unwrap(), 6);
    let together = |key| redis.key_together("area", key);
    redis.run_all::<()>(pipe().atomic().incr(together("a"), 1).incr(together("b"), 5)).await.unwrap();

    let others = redis.key(Some(&globex), "area", "a");
    let pipeline = redis.run_all::<()>(pipe().incr(own("a"), 1).incr(&others, 1)).await.unwrap_err();
    let script = redis.run_script::<i64>(sum.key(own("a")).key(&others)).await.unwrap_err();
    for error in [pipeline, script] {
        assert!(matches!(error, RedisError::Refused(_)), "{error:?}");
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_slot_that_has_moved_is_followed_and_takes_its_scripts_along() {
    let (redis, servers) = connected().await;
    let (key, script) = (redis.key(None, "area", "a"), script());
    assert_eq!(redis.run_script::<i64>(script.key(&key)).await.unwrap(), 1);
    redis.run::<()>(cmd("DEL").arg(&key)).await.unwrap();
    let ((from, slot), to) = (place(&servers, &key).await, servers.nodes.len() - 1);
    let new = name(&servers, to).await;
    // The node that did not have it learns of it first, as when a slot is moved.
    for nth in [to, from] {
        tell(&servers, nth, &format!("CLUSTER SETSLOT {slot} NODE {new}")).await;
    }
    assert_eq!(redis.run_script::<i64>(script.key(&key)).await.unwrap(), 1, "by MOVED, and whole");
    redis.run::<()>(cmd("SET").arg(&key).arg(7)).await.unwrap();
    assert_eq!(place(&servers, &key).await.0, to);
}

#[tokio::test]
async fn a_key_that_is_on_its_way_is_asked_for_where_it_goes() {
    let (redis, servers) = connected().await;
    let (key, script) = (redis.key(None, "area", "a"), script());
    let ((from, slot), to) = (place(&servers, &key).await, servers.nodes.len() - 1);
    let (new, old) = (name(&servers, to).await, name(&servers, from).await);
    redis.ping().await.unwrap();
    tell(&servers, to, &format!("CLUSTER SETSLOT {slot} IMPORTING {old}")).await;
    tell(&servers, from, &format!("CLUSTER SETSLOT {slot} MIGRATING {new}")).await;
    redis.run::<()>(cmd("SET").arg(&key).arg(1)).await.unwrap();
    assert_eq!(redis.run_script::<i64>(script.key(&key)).await.unwrap(), 2, "by ASK, and whole");
    assert!(servers.nodes[from].ask(&format!("GET {key}")).await.unwrap().starts_with("-ASK"));
}

#[tokio::test]
async fn a_cluster_that_lacks_a_node_is_away_and_comes_back_by_itself() {
    let servers = cluster(3).await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(servers.url());
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    redis.ping().await.unwrap();
    servers.nodes[2].stop().unwrap();
    runtime_testkit::until("to be told", async || {
        clock.advance(config.retry_after);
        redis.ping().await.is_err_and(|error| error.is_away())
    })
    .await
    .unwrap();
    assert!(matches!(redis.ping().await, Err(RedisError::Away { .. })));
    servers.nodes[2].resume().unwrap();
    runtime_testkit::until("to be back", async || {
        clock.advance(config.retry_after);
        redis.ping().await.is_ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cluster_that_was_not_there_at_first_is_found_once_it_is() {
    let servers = cluster(3).await.unwrap();
    servers.nodes.iter().for_each(|node| node.stop().unwrap());
    let clock = ManualClock::new();
    let config = RedisConfig::at(servers.url());
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    let error = redis.ping().await.unwrap_err();
    assert!(matches!(error, RedisError::Unreachable(_)), "{error:?}");
    assert!(redis.blocking().await.map(drop).unwrap_err().is_away());
    servers.nodes.iter().for_each(|node| node.resume().unwrap());
    runtime_testkit::until("to be there", async || {
        clock.advance(config.retry_after);
        redis.ping().await.is_ok()
    })
    .await
    .unwrap();
    redis.blocking().await.map(drop).unwrap();
}
