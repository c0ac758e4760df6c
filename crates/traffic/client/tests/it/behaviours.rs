//! The behaviours of vyro's HTTP client, each kept or deliberately different.
//!
//! Different, and why:
//! - A status is an answer, whatever it says (there 4xx and 5xx raise).
//! - `file:` and everything else that is not HTTP is refused (there local files are read).
//! - There is a time-out unless told otherwise (there none), and giving up closes the connection (there the thread goes on).
//! - An answer keeps every header, repeated ones too.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::response::AppendHeaders;
use axum::routing::any;
use runtime_client::ClientConfig;
use runtime_kernel::{Classify, Deadline, ErrorKind, SystemClock};

use super::server::{context, local, serve};

#[tokio::test]
async fn vyro_34_statuses_headers_and_bodies_come_back_as_they_are() {
    let cookie = HeaderName::from_static("set-cookie");
    let answer = any(move || async move {
        (StatusCode::NOT_FOUND, AppendHeaders([(cookie.clone(), "a=1"), (cookie, "b=2")]), r#"{"n":1}"#)
    });
    let address = serve(Router::new().route("/", answer)).await;
    let response = local().get(&format!("http://{address}/")).send(&context()).await.unwrap();
    assert_eq!(
        (response.status(), response.headers().get_all("set-cookie").iter().count()),
        (StatusCode::NOT_FOUND, 2)
    );
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["n"], 1);
}

#[tokio::test]
async fn vyro_34_the_shorter_of_two_times_counts_and_an_expired_one_is_a_timeout() {
    let silent = any(|| async { std::future::pending::<()>().await });
    let address = serve(Router::new().route("/", silent)).await;
    let url = format!("http://{address}/");
    let soon = context().with_deadline(Deadline::after(&SystemClock, Duration::from_millis(50)));
    let gone = context().with_deadline(Deadline::after(&SystemClock, Duration::ZERO));
    for context in [soon, gone] {
        let error = local().get(&url).timeout(Duration::from_secs(10)).send(&context).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert_eq!(ClientConfig::default().timeout, Duration::from_secs(30));
}

#[tokio::test]
async fn vyro_34_what_is_not_http_is_refused() {
    for url in ["file:///etc/passwd", "ftp://example.com/", "data:text/plain,hello"] {
        let error = local().get(url).send(&context()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Forbidden), "{url}: {error}");
    }
}
