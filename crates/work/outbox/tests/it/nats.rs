//! From Postgres into NATS JetStream, whose server is killed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use runtime_events::nats::{NatsConsumer, NatsEvents, NatsOptions, async_nats};
use runtime_events::{EventsConfig, Handler, Incoming};
use runtime_kernel::{Error, SystemClock};
use runtime_outbox::{Channel, OutboxStore, SqlOutbox};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::common::{Running, config, message};
use super::stores::sql::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nats_server_loses_nothing_and_gets_nothing_twice() {
    let mut server = runtime_testkit::nats::own().await.unwrap();
    let client = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(20));
    let mut options = NatsOptions::default();
    (options.stream, options.prefix) = ("t".to_owned(), "t".to_owned());
    let events = NatsEvents::new(client.connect(server.url()).await.unwrap(), options).await.unwrap();
    let postgres = Postgres::open().await;
    let outbox: Arc<dyn OutboxStore> = Arc::new(SqlOutbox::new(postgres.db.clone()));
    let mut config = config();
    config.batch = 10;
    config.timeout = Duration::from_millis(500);
    let _relay = Running::with(&outbox, Arc::new(events.clone()), config, SystemClock::shared());
    let add = async |from: u32| {
        let all: Vec<_> =
            (from..from + 50).map(|n| message(&format!("{n:03}"), &format!("k{}", n % 3))).collect();
        outbox.add(&Channel::default(), &all).await.unwrap();
    };
    add(0).await;
    runtime_testkit::until("some sent", async || {
        outbox.stats().await.unwrap().first().is_none_or(|stats| stats.unsent() < 50)
    })
    .await
    .unwrap();
    server.kill().await.unwrap();
    add(50).await;
    server.restart().await.unwrap();
    add(100).await;
    runtime_testkit::until("no lag", async || outbox.stats().await.unwrap().is_empty()).await.unwrap();
    let (tell, mut told) = mpsc::channel(1024);
    let handler = Handler::new(move |incoming: Incoming| {
        let tell = tell.clone();
        async move { tell.send(incoming).await.map_err(Error::internal) }
    });
    let consumer = NatsConsumer::new(events, "topic", "g", EventsConfig::default(), SystemClock::shared())
        .unwrap()
        .ordered();
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { consumer.run(stop.cancelled_owned(), handler).await }
    });
    let mut seen = Vec::new();
    while seen.len() < 150 {
        let incoming = told.recv().await.unwrap();
        seen.push((incoming.event.key().unwrap().to_owned(), incoming.event.id().to_owned()));
    }
    stop.cancel();
    running.await.unwrap();
    for key in 0..3 {
        let of_key: Vec<_> =
            seen.iter().filter(|(of, _)| *of == format!("k{key}")).map(|(_, id)| id.clone()).collect();
        let added: Vec<_> = (0..150).filter(|n| n % 3 == key).map(|n| format!("{n:03}")).collect();
        assert_eq!(of_key, added);
    }
}
