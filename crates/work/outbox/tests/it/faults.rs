//! Relays against sinks that fail: poison, outages, hangs.

use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::SystemClock;
use runtime_outbox::{Channel, MemoryOutbox, OnParked, OutboxStore};

use super::common::{Mood, Recorder, Running, config, message};

fn setup() -> (Arc<dyn OutboxStore>, Arc<Recorder>) {
    (Arc::new(MemoryOutbox::new(SystemClock::shared())), Arc::default())
}

async fn add(outbox: &Arc<dyn OutboxStore>, messages: &[(&str, &str)]) {
    let messages: Vec<_> = messages.iter().map(|(id, key)| message(id, key)).collect();
    outbox.add(&Channel::default(), &messages).await.unwrap();
}

async fn parked(outbox: &Arc<dyn OutboxStore>) -> Vec<runtime_outbox::store::Parked> {
    outbox.parked(&Channel::default(), None, 0, 1000).await.unwrap()
}

#[tokio::test]
async fn poison_is_parked_with_its_reason_while_the_rest_flows() {
    for on_parked in [OnParked::Continue, OnParked::Hold] {
        let (outbox, sink) = setup();
        sink.refuse("bad", true);
        add(&outbox, &[("1", "k"), ("bad", "k"), ("3", "k"), ("4", "other"), ("5", "")]).await;
        let mut config = config();
        config.on_parked = on_parked;
        let _relay = Running::start(&outbox, &sink, config);
        runtime_testkit::until("the parked", async || !parked(&outbox).await.is_empty()).await.unwrap();
        let flows = if on_parked == OnParked::Hold { 3 } else { 4 };
        sink.until(flows).await;
        let bad = parked(&outbox).await.remove(0);
        let failure = bad.failure.unwrap();
        assert_eq!((bad.attempts, failure.code.as_str()), (3, "events.malformed"));
        assert!(failure.message.contains("poison"), "{failure:?}");
        assert_eq!(sink.ids().contains(&"3".to_owned()), on_parked == OnParked::Continue);
        // Mended, it goes after all, and what waited for it with it.
        sink.poison.lock().unwrap().clear();
        outbox.redrive(&Channel::default(), None, None).await.unwrap();
        sink.until(5).await;
        if on_parked == OnParked::Hold {
            assert_eq!(sink.by_key()["k"], ["1", "bad", "3"]);
        }
    }
}

/// Its error says "unavailable", as an outage would; what tells them apart is that others get through.
#[tokio::test]
async fn poison_that_looks_like_an_outage_is_parked_once_others_get_through() {
    let (outbox, sink) = setup();
    for n in 0..10 {
        sink.refuse(&format!("bad{n}"), false);
        add(&outbox, &[(&format!("bad{n}"), "")]).await;
    }
    let _relay = Running::start(&outbox, &sink, config());
    let mut count = 0;
    while parked(&outbox).await.len() < 10 {
        add(&outbox, &[(&count.to_string(), "")]).await;
        count += 1;
        sink.until(count).await;
        assert!(count < 2000, "what is poison is found");
    }
    assert!(parked(&outbox).await.iter().all(|parked| parked.attempts == 3));
}

#[tokio::test]
async fn an_outage_parks_nothing_and_the_lag_recovers() {
    let (outbox, sink) = setup();
    sink.set(Mood::Away);
    for n in 0..300 {
        add(&outbox, &[(&format!("{n:03}"), &format!("k{}", n % 7))]).await;
    }
    let mut config = config();
    config.batch = 20;
    let _relay = Running::start(&outbox, &sink, config);
    // Far more tries than any message has attempts.
    runtime_testkit::until("many tries", async || *sink.calls.lock().unwrap() >= 200).await.unwrap();
    let stats = outbox.stats().await.unwrap().remove(0);
    assert_eq!((stats.unsent(), stats.parked), (300, 0));
    assert!(stats.oldest_unsent.unwrap() > Duration::ZERO);
    sink.set(Mood::Well);
    sink.until(300).await;
    runtime_testkit::until("no lag", async || outbox.stats().await.unwrap().is_empty()).await.unwrap();
    for (key, ids) in sink.by_key() {
        assert!(ids.is_sorted(), "{key}: {ids:?}");
    }
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn the_lag_and_what_became_of_tries_are_measured() {
    use runtime_kernel::ManualClock;
    use runtime_outbox::{MemoryInbox, OutboxConfig, OutboxMetrics, keep_house};

    let clock = ManualClock::new();
    let shared: runtime_kernel::SharedClock = Arc::new(clock.clone());
    let outbox: Arc<dyn OutboxStore> = Arc::new(MemoryOutbox::new(shared.clone()));
    let inbox = MemoryInbox::new(shared.clone());
    let registry = runtime_telemetry::Metrics::new();
    let metrics = OutboxMetrics::new(&registry).unwrap();
    let measure = async || {
        let config = OutboxConfig::default();
        keep_house(&*outbox, &inbox, &config, &metrics, &shared, std::future::ready(())).await;
        registry.render()
    };
    let sink = Arc::new(Recorder::default());
    add(&outbox, &[("1", "k"), ("2", "")]).await;
    clock.advance(Duration::from_secs(7));
    let shown = measure().await;
    for line in [
        "outbox_oldest_unsent_seconds{channel=\"default\"} 7",
        "outbox_stored{channel=\"default\",state=\"ready\"} 2",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    let relay = runtime_outbox::Relay::new(
        Arc::clone(&outbox),
        Channel::default(),
        Arc::clone(&sink) as Arc<dyn runtime_events::Publisher>,
        config(),
        shared.clone(),
    )
    .unwrap()
    .with_metrics(metrics.clone());
    relay.run(sink.called.notified()).await;
    let shown = measure().await;
    for line in [
        "outbox_oldest_unsent_seconds{channel=\"default\"} 0",
        "outbox_stored{channel=\"default\",state=\"ready\"} 0",
        "outbox_messages_total{channel=\"default\",outcome=\"sent\"} 2",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
}

#[tokio::test]
async fn a_sink_that_never_answers_is_given_up_on_and_asked_again() {
    let (outbox, sink) = setup();
    sink.set(Mood::Hangs);
    add(&outbox, &[("1", "k"), ("2", "k")]).await;
    let mut config = config();
    config.timeout = Duration::from_millis(20);
    let _relay = Running::start(&outbox, &sink, config);
    runtime_testkit::until("two tries", async || *sink.calls.lock().unwrap() >= 2).await.unwrap();
    sink.set(Mood::Well);
    runtime_testkit::until("all sent", async || outbox.stats().await.unwrap().is_empty()).await.unwrap();
    assert_eq!(sink.by_key()["k"], ["1", "2"]);
}

#[tokio::test]
async fn a_stopped_relay_finishes_its_turn_and_takes_no_other() {
    let (outbox, sink) = setup();
    add(&outbox, &[("1", "k")]).await;
    let relay = runtime_outbox::Relay::new(
        Arc::clone(&outbox),
        Channel::default(),
        Arc::clone(&sink) as Arc<dyn runtime_events::Publisher>,
        config(),
        SystemClock::shared(),
    )
    .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    sink.until(1).await;
    drop(stop);
    running.await.unwrap();
    assert!(outbox.stats().await.unwrap().is_empty(), "what was published is settled");
    add(&outbox, &[("2", "k")]).await;
    assert_eq!(sink.ids(), ["1"]);
}
