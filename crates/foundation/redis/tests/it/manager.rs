//! Against a real server, behind a proxy that can be cut.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Classify, ManualClock, Name, SystemClock, TenantContext};
use runtime_redis::{Redis, RedisConfig, RedisError, Script, cmd, pipe};
use runtime_testkit::proxy::FaultProxy;
use runtime_testkit::redis;
use tokio::net::{TcpListener, TcpStream};

async fn connected() -> (Redis, runtime_testkit::redis::TestRedis) {
    let server = redis::server().await.unwrap();
    let config = RedisConfig::at(server.url()).with_prefix(server.prefix());
    (Redis::new(&config, SystemClock::shared()).unwrap(), server)
}

#[tokio::test]
async fn commands_pipelines_and_scripts_run_on_one_connection() {
    let (redis, _server) = connected().await;
    let (a, b) = (redis.key(None, "area", "a"), redis.key(None, "area", "b"));
    redis.run::<()>(cmd("SET").arg(&a).arg(1)).await.unwrap();
    let (x, y): (i64, i64) = redis.run_all(pipe().atomic().incr(&a, 1).incr(&b, 5)).await.unwrap();
    assert_eq!((x, y), (2, 5));
    let script = Script::new("return redis.call('GET', KEYS[1]) + redis.call('GET', KEYS[2])");
    let sum: i64 = redis.run_script(script.key(&a).key(&b)).await.unwrap();
    assert_eq!(sum, 7);
}

#[tokio::test]
async fn a_script_the_server_has_forgotten_is_sent_again() {
    let (redis, _server) = connected().await;
    // A script of its own, so that forgetting it disturbs no other test that shares the server.
    let script = Script::new(&format!("return '{}'", redis.key(None, "script", "own")));
    for _ in 0..2 {
        let _: String = redis.run_script(&script.prepare_invoke()).await.unwrap();
        redis.run::<()>(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test]
async fn no_two_tenants_and_no_two_areas_share_a_key() {
    let (redis, server) = connected().await;
    let tenant = |name| TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap());
    let (acme, other) = (tenant("acme"), tenant("other"));
    let keys = [
        redis.key(None, "limit", "k"),
        redis.key(Some(&acme), "limit", "k"),
        redis.key(Some(&other), "limit", "k"),
        redis.key(Some(&acme), "cache", "k"),
        redis.key(None, "limit", "acme:k"),
        redis.key_together("limit", "k"),
        redis.key_together("limit", "acme:k"),
    ];
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "{keys:?}");
    assert_eq!(keys[1], format!("{}:{{main/acme}}:limit:k", server.prefix()));
}

#[tokio::test]
async fn a_blocking_command_does_not_hold_up_the_shared_connection() {
    let (redis, _server) = connected().await;
    let list = redis.key(None, "list", "l");
    let mut own = redis.blocking().await.unwrap();
    let pop = tokio::spawn({
        let list = list.clone();
        async move { cmd("BLPOP").arg(&list).arg(30).query_async::<(String, String)>(&mut own).await }
    });
    // Answered although the other connection waits, and what the other waits for.
    redis.ping().await.unwrap();
    redis.run::<()>(cmd("RPUSH").arg(&list).arg("x")).await.unwrap();
    assert_eq!(pop.await.unwrap().unwrap().1, "x");
}

#[tokio::test]
async fn a_blocking_command_that_is_given_up_takes_nothing_more() {
    // Its own, for it counts those that wait.
    let server = redis::own().await.unwrap();
    let redis = Redis::new(&RedisConfig::at(server.node.url()), SystemClock::shared()).unwrap();
    let list = redis.key(None, "list", "l");
    let waiting = async |clients: &str| {
        let told = format!("blocked_clients:{clients}\r\n");
        runtime_testkit::until(&told, async || {
            server.node.ask("INFO clients").await.is_ok_and(|answer| answer.contains(&told))
        })
        .await
        .unwrap();
    };
    let mut own = redis.blocking().await.unwrap();
    let mut pop = cmd("BLPOP");
    pop.arg(&list).arg(0);
    tokio::select! {
        popped = pop.exec_async(&mut own) => panic!("{popped:?}"),
        () = waiting("1") => {}
    }
    drop(own);
    waiting("0").await;
    redis.run::<()>(cmd("RPUSH").arg(&list).arg("x")).await.unwrap();
    assert_eq!(redis.run::<i64>(cmd("LLEN").arg(&list)).await.unwrap(), 1);
    redis.run::<()>(cmd("DEL").arg(&list)).await.unwrap();

    let mut own = redis.blocking().await.unwrap();
    tokio::select! {
        popped = pop.exec_async(&mut own) => panic!("{popped:?}"),
        () = waiting("1") => {}
    }
    let error = cmd("PING").exec_async(&mut own).await.unwrap_err();
    assert!(error.is_connection_dropped(), "its answer would come after the one nobody waits for: {error:?}");
    drop(own);

    // One that ended goes back and is used again.
    let mut own = redis.blocking().await.unwrap();
    let id = cmd("CLIENT").arg("ID").query_async::<i64>(&mut own).await.unwrap();
    drop(own);
    let mut own = redis.blocking().await.unwrap();
    assert_eq!(cmd("CLIENT").arg("ID").query_async::<i64>(&mut own).await.unwrap(), id);
}

#[tokio::test]
async fn who_only_blocks_is_told_as_well_that_it_is_back() {
    let server = redis::own().await.unwrap();
    let clock = ManualClock::new();
    let mut config = RedisConfig::at(server.node.url());
    config.connect_timeout = Duration::from_millis(100);
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    server.node.stop().unwrap();
    let found_out = redis.blocking().await.map(drop).unwrap_err();
    assert!(matches!(found_out, RedisError::Unreachable(_)), "{found_out:?}");
    server.node.resume().unwrap();
    server.node.ask("PING").await.unwrap();
    clock.advance(config.retry_after);
    redis.blocking().await.map(drop).unwrap();
    redis.blocking().await.map(drop).expect("not only the one that tried");
}

#[tokio::test]
async fn a_pool_that_is_used_up_says_so() {
    let server = redis::server().await.unwrap();
    let mut config = RedisConfig::at(server.url());
    config.pool_size = 1;
    config.connect_timeout = Duration::from_millis(100);
    let redis = Redis::new(&config, SystemClock::shared()).unwrap();
    let held = redis.blocking().await.unwrap();
    assert!(matches!(redis.blocking().await.map(drop), Err(RedisError::PoolExhausted)));
    drop(held);
    redis.blocking().await.map(drop).unwrap();
}

#[tokio::test]
async fn while_it_is_away_everybody_is_told_at_once_and_it_comes_back_by_itself() {
    let server = redis::server().await.unwrap();
    let target = server.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = FaultProxy::start(target).await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(format!("redis://{}", proxy.address()));
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    redis.ping().await.unwrap();

    proxy.cut();
    let found_out = redis.ping().await.unwrap_err();
    assert!(matches!(found_out, RedisError::Unreachable(_)), "{found_out:?}");
    let told = redis.ping().await.unwrap_err();
    assert!(
        matches!(told, RedisError::Away { retry_after } if retry_after == config.retry_after),
        "{told:?}"
    );
    assert!(told.is_away() && told.code() == "redis.away");
    assert!(redis.blocking().await.map(drop).unwrap_err().is_away());

    proxy.heal();
    assert!(redis.ping().await.is_err(), "nobody tries before it is time");
    let mut tries = 0;
    loop {
        clock.advance(config.retry_after);
        tries += 1;
        match redis.ping().await {
            Ok(()) => break,
            Err(error) => assert!(error.is_away() && tries < 50, "{error:?}"),
        }
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_vanished_without_a_word_is_called_anew() {
    let server = redis::server().await.unwrap();
    let target = server.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = FaultProxy::start(target).await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(format!("redis://{}", proxy.address()));
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    redis.ping().await.unwrap();
    redis.blocking().await.map(drop).unwrap();
    proxy.silence();
    let found_out = redis.ping().await.unwrap_err();
    assert!(matches!(found_out, RedisError::Unreachable(_)), "{found_out:?}");
    clock.advance(config.retry_after);
    redis.ping().await.expect("over another connection");
    // So are those of the pool.
    redis.blocking().await.map(drop).unwrap();
}

#[tokio::test]
async fn a_master_that_may_no_longer_write_is_looked_for_anew() {
    let server = redis::own().await.unwrap();
    let clock = ManualClock::new();
    let config = RedisConfig::at(server.node.url());
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    let id = async || redis.run::<i64>(cmd("CLIENT").arg("ID")).await.unwrap();
    for together in [false, true] {
        let before = id().await;
        server.node.ask("REPLICAOF 127.0.0.1 1").await.unwrap();
        let refused = if together {
            redis.run_all::<()>(pipe().atomic().set("a", 1).set("b", 1)).await
        } else {
            redis.run(cmd("SET").arg("a").arg(1)).await
        };
        assert!(matches!(refused, Err(RedisError::Unreachable(_))), "{refused:?}");
        assert!(matches!(redis.ping().await, Err(RedisError::Away { .. })));
        server.node.ask("REPLICAOF NO ONE").await.unwrap();
        clock.advance(config.retry_after);
        // Its name may lead elsewhere by now.
        assert_ne!(id().await, before);
    }
}

#[tokio::test]
async fn the_first_try_after_an_outage_is_a_try() {
    let server = redis::server().await.unwrap();
    let target = server.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let clock = ManualClock::new();
    let config = RedisConfig::at(format!("redis://{address}"));
    let redis = Redis::new(&config, Arc::new(clock.clone())).unwrap();
    let refused = redis.ping().await.unwrap_err();
    assert!(matches!(refused, RedisError::Unreachable(_)), "{refused:?}");

    // Nobody tries meanwhile, nor is anything found out in the background that is told later.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    });
    clock.advance(config.retry_after);
    redis.ping().await.expect("not what was heard before");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_asks_a_silent_peer_whether_it_is_there() {
    let server = redis::own().await.unwrap();
    let redis = Redis::new(&RedisConfig::at(server.node.url()), SystemClock::shared()).unwrap();
    redis.ping().await.unwrap();
    let _own = redis.blocking().await.unwrap();
    // In hexadecimal digits: whom it leads to, that it stands (01), and that it is the keepalive's timer that runs (02).
    let to = format!(":{:04X} 01 ", server.node.port());
    runtime_testkit::until("both connections' timers", async || {
        let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let ours = sockets.lines().filter(|line| line.contains(&to));
        ours.filter(|line| line.split_whitespace().nth(5).is_some_and(|timer| timer.starts_with("02:")))
            .count()
            == 2
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_wrong_command_is_not_an_absence() {
    let (redis, _server) = connected().await;
    let error = redis.run::<()>(&cmd("NOSUCH")).await.unwrap_err();
    assert!(!error.is_away() && error.code() == "redis.refused", "{error:?}");
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_blocking_command_may_take_longer_than_answers_elsewhere() {
    let server = redis::server().await.unwrap();
    let mut config = RedisConfig::at(server.url()).with_prefix(server.prefix());
    config.response_timeout = Duration::from_millis(50);
    let redis = Redis::new(&config, SystemClock::shared()).unwrap();
    let mut own = redis.blocking().await.unwrap();
    let nothing = redis.key(None, "list", "nothing");
    // The library's own default is half a second.
    let popped = cmd("BLPOP").arg(&nothing).arg(0.7).query_async::<Option<(String, String)>>(&mut own).await;
    assert_eq!(popped.unwrap(), None);
}

#[tokio::test]
async fn a_url_says_which_feature_it_needs() {
    for (url, feature, here) in [
        ("rediss://a", "tls", cfg!(feature = "tls")),
        ("redis+sentinel://a/main", "sentinel", cfg!(feature = "sentinel")),
        ("redis+cluster://a", "cluster", cfg!(feature = "cluster")),
    ] {
        let made = Redis::new(&RedisConfig::at(url), SystemClock::shared()).map(drop);
        let expected = format!("`redis.url` needs the feature `{feature}` of runtime-redis");
        assert_eq!(made.err().map(|error| error.to_string()), (!here).then_some(expected));
    }
}

#[test]
fn a_wrong_configuration_names_its_key_and_never_the_password() {
    let wrong = |change: fn(&mut RedisConfig)| {
        let mut config = RedisConfig::at("redis://:hunter2@127.0.0.1:1");
        change(&mut config);
        assert!(!format!("{config:?}").contains("hunter2"));
        Redis::new(&config, SystemClock::shared()).map(drop).unwrap_err().to_string()
    };
    for (change, key) in [
        ((|c| c.url = "http://:hunter2@x".to_owned()) as fn(&mut RedisConfig), "redis.url"),
        (|c| c.url = "redis-cluster://a".to_owned(), "redis.url"),
        (|c| c.url = "redis+sentinel://:hunter2@a:1".to_owned(), "redis.url"),
        (|c| c.url = "redis+sentinel://:hunter2@a:1/main/x".to_owned(), "redis.url"),
        (|c| c.url = "redis+cluster://:hunter2@a:1,b:2/1".to_owned(), "redis.url"),
        (|c| c.prefix = "{x}".to_owned(), "redis.prefix"),
        (|c| c.pool_size = 0, "redis.pool_size"),
        (|c| c.retry_after = Duration::ZERO, "redis.retry_after"),
    ] {
        let message = wrong(change);
        assert!(message.contains(key) && !message.contains("hunter2"), "{message}");
    }
}
