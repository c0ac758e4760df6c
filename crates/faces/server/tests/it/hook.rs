//! A receiver of `http.request` jobs that remembers every call and answers as told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// One call that arrived.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) headers: HeaderMap,
    pub(super) body: serde_json::Value,
}

/// The receiver.
#[derive(Clone)]
pub(super) struct Hook {
    state: Arc<Shared>,
    url: String,
}

/// A status and the headers beside it.
pub(super) type Answer = (u16, Vec<(&'static str, String)>);

struct Shared {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<Vec<Answer>>,
    arrived: Notify,
    gate: watch::Sender<bool>,
}

impl Hook {
    pub(super) async fn start() -> Self {
        let state = Arc::new(Shared {
            calls: Mutex::default(),
            answers: Mutex::default(),
            arrived: Notify::new(),
            gate: watch::Sender::new(true),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { state, url }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The answers of the next calls, in order; 200 after them.
    pub(super) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut queue: Vec<_> = answers.into_iter().collect();
        queue.reverse();
        *self.state.answers.lock().unwrap() = queue;
    }

    /// Closed, every call waits.
    pub(super) fn gate(&self, open: bool) {
        self.state.gate.send_replace(open);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// How often each job called, by the number its body carries.
    pub(super) fn by_number(&self) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for call in self.state.calls.lock().unwrap().iter() {
            *counts.entry(call.body["n"].as_u64().unwrap_or(u64::MAX)).or_default() += 1;
        }
        counts
    }

    /// Waits until so many calls have arrived.
    pub(super) async fn wait_for(&self, count: usize) {
        let wait = async {
            loop {
                let arrived = self.state.arrived.notified();
                if self.state.calls.lock().unwrap().len() >= count {
                    return;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("the calls arrive in time");
    }
}

async fn receive(State(state): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    state.calls.lock().unwrap().push(Call { headers, body });
    state.arrived.notify_waiters();
    let _ = state.gate.subscribe().wait_for(|open| *open).await;
    let (status, headers) = state.answers.lock().unwrap().pop().unwrap_or((200, Vec::new()));
    let mut response = (StatusCode::from_u16(status).unwrap(), "received").into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
