//! Posting events to a web hook, read back by the binding.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use runtime_client::{Client, ClientConfig, GuardMode};
use runtime_events::cloudevent::http::{Limits, Mode, read};
use runtime_events::{CloudEvent, EventsError, HttpPublisher, Message, Publisher};
use runtime_kernel::{Classify, Context, ErrorKind, Source, SystemClock};

type Got = Arc<Mutex<Vec<(HeaderMap, Vec<CloudEvent>)>>>;

async fn take(State(got): State<Got>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(received) = read(&headers, &body, &Limits::default()) else { return StatusCode::BAD_REQUEST };
    let events = received.into_events();
    if events.iter().any(|event| event.kind() == "refused") {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    got.lock().unwrap().push((headers, events));
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn events_are_posted_in_every_mode_with_their_trace() {
    let got = Got::default();
    let router = axum::Router::new().route("/hook", axum::routing::post(take)).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = ClientConfig::default();
    config.guard = GuardMode::Local;
    let client = Client::new(config, SystemClock::shared()).unwrap();
    let work = Context::new(Source::Http, &SystemClock);
    let message = |id: &str, kind: &str| {
        let event = CloudEvent::builder(id, "/s", kind).json(&id).build().unwrap();
        Message::new(&SystemClock, &work, "topic", event).unwrap()
    };
    let all = ["1", "2", "3"].map(|id| message(id, "t"));
    let hook = HttpPublisher::new(client, url, SystemClock::shared());
    for (hook, requests) in
        [(hook.clone(), 3), (hook.clone().mode(Mode::Structured), 3), (hook.clone().batched(2), 2)]
    {
        assert_eq!(hook.publish(&all).await.unwrap().len(), 3);
        let got = std::mem::take(&mut *got.lock().unwrap());
        assert_eq!(got.len(), requests);
        for (headers, _) in &got {
            let parent = headers["traceparent"].to_str().unwrap();
            assert!(parent.contains(&work.trace.trace_id_hex()));
        }
        let events: Vec<_> = got.into_iter().flat_map(|(_, events)| events).collect();
        assert_eq!(events.iter().map(CloudEvent::id).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert!(
            events.iter().all(|event| event.trace().is_some_and(|it| it.trace_id() == work.trace.trace_id()))
        );
    }
    let refused = hook.publish(&[message("4", "refused")]).await.unwrap_err();
    assert!(matches!(refused, EventsError::Refused { status: 503 }));
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}
