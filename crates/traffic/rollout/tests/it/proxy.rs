//! Passing requests on to another server.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::routing::any;
use http_body_util::BodyExt;
use runtime_client::{Client, ClientConfig, Guard};
use runtime_kernel::SystemClock;
use runtime_rollout::Upstream;
use tokio::sync::mpsc;
use tower::{Service, ServiceExt};

async fn upstream(router: Router) -> Upstream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client =
        Client::builder(ClientConfig::default(), SystemClock::shared()).guard(Guard::local()).build();
    Upstream::new(client.unwrap(), &base, SystemClock::shared()).unwrap()
}

fn stream(chunks: mpsc::Receiver<&'static str>) -> Body {
    Body::from_stream(futures_util::stream::unfold(chunks, |mut chunks| async move {
        chunks.recv().await.map(|chunk| (Ok::<_, Infallible>(Bytes::from_static(chunk.as_bytes())), chunks))
    }))
}

#[tokio::test]
async fn path_query_headers_and_bodies_arrive_as_they_came_bit_by_bit() {
    let echo = any(|uri: Uri, headers: HeaderMap, body: Body| async move {
        let head = headers.get("x-own").map(|own| own.to_str().unwrap().to_owned());
        assert!(headers.get("x-hop").is_none() && headers.get("keep-alive").is_none(), "{headers:?}");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        (StatusCode::CREATED, [("x-uri", uri.to_string()), ("x-head", head.unwrap())], body)
    });
    let mut upstream = upstream(Router::new().fallback(echo)).await;
    let (say, said) = mpsc::channel(1);
    let request = Request::post("/cart/1?a=b&c=%20d")
        .header("host", "shop.example")
        .header("x-forwarded-host", "forged")
        .header("connection", "x-hop, keep-alive")
        .header("x-hop", "between neighbours")
        .header("x-own", "kept")
        .body(stream(said))
        .unwrap();
    let answer = upstream.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-head"]), (201, &"kept".parse().unwrap()));
    assert_eq!(answer.headers()["x-uri"], "/base/cart/1?a=b&c=%20d");
    let mut body = answer.into_body();
    for chunk in ["first", "second"] {
        say.send(chunk).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk, "before the request has ended");
    }
    drop(say);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn redirects_and_errors_are_passed_back_and_an_upstream_that_is_gone_is_a_bad_gateway() {
    let away = any(|| async { (StatusCode::FOUND, [("location", "/elsewhere")]) });
    let mut found = upstream(Router::new().fallback(away)).await;
    let answer =
        found.ready().await.unwrap().call(Request::get("/x").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"/elsewhere".parse().unwrap())
    );
    let mut busy = upstream(Router::new().fallback(any(|| async { StatusCode::SERVICE_UNAVAILABLE }))).await;
    let answer =
        busy.ready().await.unwrap().call(Request::get("/x").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 503);
    let client =
        Client::builder(ClientConfig::default(), SystemClock::shared()).guard(Guard::local()).build();
    let port = runtime_testkit::free_port().unwrap();
    let mut gone =
        Upstream::new(client.unwrap(), &format!("http://127.0.0.1:{port}"), SystemClock::shared()).unwrap();
    let answer =
        gone.ready().await.unwrap().call(Request::get("/x").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (502, &"application/problem+json".parse().unwrap())
    );
}
