//! What stands between the client and the network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::{Router, routing::any};
use http::{HeaderMap, StatusCode};
use runtime_client::{Client, ClientConfig, ClientError, Fixtures, Guard, Hook, Outgoing, Stored};
use runtime_kernel::SystemClock;

use super::server::{context, serve};

async fn counting() -> (String, Arc<AtomicU32>) {
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let handler = any(move |body: String| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        let headers = [("x-nth", nth.to_string()), ("set-cookie", "session=secret".to_owned())];
        async move { (headers, format!("{nth} {body}")) }
    });
    (format!("http://{}/", serve(Router::new().route("/", handler)).await), seen)
}

fn client(hook: impl Hook) -> Client {
    let builder = Client::builder(ClientConfig::default(), SystemClock::shared());
    builder.guard(Guard::local()).hook(hook).build().unwrap()
}

/// Keeps every answer to a `GET` for ever.
#[derive(Clone, Debug, Default)]
struct Cache(Arc<Mutex<HashMap<String, Stored>>>);

#[async_trait]
impl Hook for Cache {
    async fn answer(&self, request: Outgoing<'_>) -> Result<Option<Stored>, ClientError> {
        Ok(self.0.lock().unwrap().get(request.url.as_str()).cloned())
    }

    fn wants(&self, request: Outgoing<'_>, status: StatusCode, _: &HeaderMap) -> bool {
        request.method == http::Method::GET && status == StatusCode::OK
    }

    async fn keep(&self, request: Outgoing<'_>, answer: &Stored) {
        self.0.lock().unwrap().insert(request.url.to_string(), answer.clone());
    }
}

#[tokio::test]
async fn a_cache_answers_in_place_of_the_network() {
    let (url, seen) = counting().await;
    let client = client(Cache::default());
    for _ in 0..3 {
        let answer = client.get(&url).send(&context()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.url().as_str()), (200, url.as_str()));
        assert_eq!(answer.headers()["x-nth"], "0");
        assert_eq!(answer.text().await.unwrap(), "0 ");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert!(client.get("http://10.0.0.1/").send(&context()).await.is_err(), "the guard judges first");
}

#[tokio::test]
async fn what_was_recorded_is_replayed_in_order_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exchanges.json");
    let (url, seen) = counting().await;
    let ask = async |client: &Client| {
        let mut answers = Vec::new();
        for body in ["a", "a", "b"] {
            let request = client.post(&url).header("authorization", "Bearer secret").body(body);
            let answer = request.send(&context()).await?;
            assert!(answer.headers().contains_key("x-nth"));
            answers.push(answer.text().await?);
        }
        Ok::<_, ClientError>(answers)
    };
    let recorded = ask(&client(Fixtures::record(&path))).await.unwrap();
    assert_eq!(recorded, ["0 a", "1 a", "2 b"]);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(!written.contains("secret"), "{written}");

    let replaying = client(Fixtures::replay(&path).unwrap());
    assert_eq!(ask(&replaying).await.unwrap(), recorded);
    assert_eq!(seen.load(Ordering::SeqCst), 3, "nothing reached the network");
    let error = replaying.post(&url).body("a").send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::NoFixture { .. }), "each as often as it was recorded: {error}");
    let error = replaying.get(&format!("{url}?token=hidden")).send(&context()).await.unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
    assert!(matches!(Fixtures::replay(folder.path().join("none")), Err(ClientError::Fixtures { .. })));
}
