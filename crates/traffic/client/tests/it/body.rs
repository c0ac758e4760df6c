//! Limits on answers.

use std::time::Duration;

use axum::body::Body;
use axum::{Router, routing::get};
use bytes::Bytes;
use runtime_client::ClientError;
use runtime_kernel::units::ByteSize;
use runtime_kernel::{Classify, ErrorKind};

use super::server::{context, local, serve, serve_raw};

#[tokio::test]
async fn an_answer_that_says_it_is_too_large_is_refused_before_its_body() {
    let address = serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n").await;
    let error = local()
        .get(&format!("http://{address}/"))
        .max_response(ByteSize::kib(1))
        .send(&context())
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TooLarge, "client.response_too_large"));
    assert_eq!(error.to_string(), "the answer is larger than 1KiB");
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_limit() {
    let endless = || async { Body::from_stream(Endless) };
    let address = serve(Router::new().route("/", get(endless))).await;
    let mut response = local()
        .get(&format!("http://{address}/"))
        .max_response(ByteSize::kib(100))
        .send(&context())
        .await
        .unwrap();
    let mut seen = 0;
    let error = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => seen += chunk.len(),
            Ok(None) => panic!("it has no end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::TooLarge { .. }));
    assert!(seen <= 100 * 1024, "{seen}");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let address = serve(Router::new().route("/", get(|| async { "x".repeat(1024) }))).await;
    for (limit, passes) in [(1024, true), (1023, false)] {
        let request = local().get(&format!("http://{address}/")).max_response(ByteSize::bytes(limit));
        let result = async { request.send(&context()).await?.bytes().await }.await;
        assert_eq!(result.map(|body| body.len()).ok(), passes.then_some(1024), "{limit}");
    }
}

#[cfg(feature = "compression")]
#[tokio::test]
async fn what_is_packed_counts_as_unpacked() {
    // 16 MiB of zeros, gzipped in advance: a stored head and runs that repeat.
    let address =
        serve(Router::new().route("/", get(|| async { ([("content-encoding", "gzip")], bomb()) }))).await;
    assert!(bomb().len() < 20_000, "{}", bomb().len());
    let response = local()
        .get(&format!("http://{address}/"))
        .max_response(ByteSize::mib(1))
        .send(&context())
        .await
        .unwrap();
    assert!(matches!(response.bytes().await.unwrap_err(), ClientError::TooLarge { .. }));
    let response = local()
        .get(&format!("http://{address}/"))
        .max_response(ByteSize::mib(32))
        .timeout(Duration::from_secs(20))
        .send(&context())
        .await
        .unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 16 << 20);
}

#[cfg(feature = "compression")]
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![0; 16 << 20]).unwrap();
    packed.finish().unwrap()
}

/// 1 KiB for ever.
struct Endless;

impl futures_core::Stream for Endless {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 1024]))))
    }
}
