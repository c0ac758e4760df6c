//! Bodies that come bit by bit, both ways.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::{Router, routing::any};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use runtime_client::ClientError;
use runtime_kernel::units::ByteSize;
use runtime_resilience::RetryPolicy;

use super::server::{context, local, serve};

#[tokio::test]
async fn what_is_sent_as_a_stream_comes_back_as_one() {
    let echo = any(|body: Body| async move { body });
    let url = format!("http://{}/", serve(Router::new().route("/", echo)).await);
    let (tell, told) = tokio::sync::mpsc::channel::<Bytes>(1);
    let upload = stream::unfold(told, |mut told| async move {
        told.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), told))
    });
    let sending = tokio::spawn(async move { local().post(&url).body_stream(upload).send(&context()).await });
    tell.send("first ".into()).await.unwrap();
    let mut answer = Box::pin(sending.await.unwrap().unwrap().into_stream());
    assert_eq!(answer.next().await.unwrap().unwrap(), "first ", "before the last is sent");
    tell.send("second".into()).await.unwrap();
    drop(tell);
    let mut rest = Vec::new();
    while let Some(chunk) = answer.next().await {
        rest.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(rest, b"second");
}

#[tokio::test]
async fn a_stream_is_sent_once() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let busy = move |body: Body| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let _ = axum::body::to_bytes(body, 1_000).await;
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let away = any(|body: Body| async move {
        let _ = axum::body::to_bytes(body, 1_000).await;
        (StatusCode::TEMPORARY_REDIRECT, [("location", "/")])
    });
    let base = format!("http://{}", serve(Router::new().route("/", any(busy)).route("/away", away)).await);
    let policy = RetryPolicy::constant(Duration::from_millis(1)).unwrap();
    let body = || stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"once"))]);
    let request = local().request(http::Method::PUT, &format!("{base}/")).body_stream(body()).retry(policy);
    assert_eq!(request.send(&context()).await.unwrap().status(), 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let request = local().request(http::Method::PUT, &format!("{base}/away")).body_stream(body());
    assert!(matches!(request.send(&context()).await, Err(ClientError::BodySent)));
}

#[tokio::test]
async fn a_streamed_answer_keeps_its_limit() {
    let long =
        any(|| async { Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from(vec![7; 1_000])))) });
    let url = format!("http://{}/", serve(Router::new().route("/", long)).await);
    let answer = local().get(&url).max_response(ByteSize::bytes(5_000)).send(&context()).await.unwrap();
    let chunks: Vec<_> = answer.into_stream().collect().await;
    let (last, first) = chunks.split_last().unwrap();
    assert!(first.iter().all(Result::is_ok));
    assert!(matches!(last, Err(ClientError::TooLarge { .. })));
}
