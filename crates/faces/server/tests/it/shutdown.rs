//! SIGTERM under load: readiness first, every request in flight answered, exit 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::house::{House, client};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_64_connections_fails_no_request_and_exits_0() {
    let mut house = House::start(&[("RUNTIME__SHUTDOWN__DRAIN_DELAY", "500ms")]).await;
    let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let lanes: Vec<_> = (0..64)
        .map(|_| {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            let (client, url, key) = (client(), house.url("/v1/jobs?limit=1"), house.key().to_owned());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match client.get(&url).bearer_auth(&key).send().await {
                        Ok(response) => {
                            assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
                            response.bytes().await.expect("a whole answer");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        // Refused at connect, after the listener closed, is not a request in flight.
                        Err(error) if error.is_connect() => return,
                        Err(error) => panic!("a request in flight failed: {error:?}"),
                    }
                }
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 256 {
        tokio::task::yield_now().await;
    }
    house.sigterm();
    house.wait_unready().await;
    let served_unready = answered.load(Ordering::Relaxed);
    let status = house.exit().await;
    stop.store(true, Ordering::Relaxed);
    for lane in lanes {
        lane.await.unwrap();
    }
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(
        answered.load(Ordering::Relaxed) > served_unready,
        "requests are served while readiness is already false"
    );
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut house =
        House::start(&[("RUNTIME__SHUTDOWN__DRAIN_DELAY", "60s"), ("RUNTIME__SHUTDOWN__TIMEOUT", "90s")])
            .await;
    house.sigterm();
    house.wait_unready().await;
    house.sigterm();
    let status = house.exit().await;
    assert_eq!(status.code(), Some(143), "{}", house.log());
}
