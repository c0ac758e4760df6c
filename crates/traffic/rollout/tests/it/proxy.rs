//! Passing requests on to another server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::routing::any;
use http_body_util::BodyExt;
use runtime_client::{Client, ClientConfig, Guard};
use runtime_kernel::{Context, Deadline, ManualClock, SharedClock, Source, SystemClock};
use runtime_rollout::Upstream;
use tokio::sync::mpsc;
use tower::{Service, ServiceExt};

async fn upstream(router: Router) -> Upstream {
    upstream_by(SystemClock::shared(), router).await
}

async fn upstream_by(clock: SharedClock, router: Router) -> Upstream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::builder(ClientConfig::default(), clock.clone()).guard(Guard::local()).build();
    Upstream::new(client.unwrap(), &base, clock).unwrap()
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

#[tokio::test]
async fn a_path_that_leads_elsewhere_is_refused_however_it_is_written() {
    let echo = any(|uri: Uri| async move { uri.to_string() });
    let upstream = upstream(Router::new().fallback(echo)).await;
    let ask = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = upstream.clone().oneshot(request).await.unwrap();
        let (status, body) = (answer.status().as_u16(), answer.into_body().collect().await.unwrap());
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    };
    for path in [
        "/shop/../admin",
        "/shop/..",
        "/shop/%2e%2e/admin",
        "/shop/.%2E/admin?a=b",
        "/shop/..\\admin",
        "/shop\\%2e.\\admin",
        "/shop/..%2fadmin",
        "/shop/x%5C..%5cadmin",
        "/shop/./cart",
        "/%2e",
    ] {
        let (status, problem) = ask(path).await;
        assert!(status == 400 && problem.contains("rollout.path"), "{path}: {status} {problem}");
    }
    for path in ["/", "/shop/", "/shop/..a/b..", "/shop/...", "/shop/%252e%252e/x", "/shop//x?y=/../z"] {
        assert_eq!(ask(path).await, (200, format!("/base{path}")));
    }
}

#[tokio::test]
async fn the_head_is_bounded_and_the_body_may_go_on_after_every_time_limit() {
    let (say, said) = mpsc::channel(1);
    let said = Arc::new(Mutex::new(Some(said)));
    let slow = any(move || {
        let body = stream(said.lock().unwrap().take().unwrap());
        async move { body }
    });
    let (arrived, mut arrivals) = mpsc::channel(2);
    let never = any(move |headers: HeaderMap| async move {
        arrived.send(headers["x-request-timeout"].clone()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let clock = ManualClock::new();
    let router = Router::new().route("/base/slow", slow).route("/base/never", never);
    let upstream = upstream_by(Arc::new(clock.clone()), router).await.timeout(Duration::from_secs(20));
    let ask = |path: &str, budget: u64| {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        let deadline = Deadline::after(&clock, Duration::from_secs(budget));
        request.extensions_mut().insert(Context::new(Source::Http, &clock).with_deadline(deadline));
        upstream.clone().oneshot(request)
    };
    for (budget, bound) in [(10, 10), (40, 20)] {
        let late = async {
            assert_eq!(arrivals.recv().await.unwrap(), format!("{bound}000"));
            clock.advance(Duration::from_secs(bound));
        };
        assert_eq!(tokio::join!(ask("/never", budget), late).0.unwrap().status(), 504);
    }
    let mut body = ask("/slow", 10).await.unwrap().into_body();
    for chunk in ["first", "second"] {
        clock.advance(Duration::from_mins(1));
        say.send(chunk).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    }
    drop(say);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn values_beyond_ascii_arrive_and_the_peer_is_the_last_hop() {
    let echo = any(|headers: HeaderMap| async move {
        let hops: Vec<_> = headers.get_all("x-forwarded-for").iter().cloned().collect();
        ([("cookie", headers["cookie"].clone()), ("hops", hops[0].clone())], hops.len().to_string())
    });
    let upstream = upstream(Router::new().fallback(echo)).await;
    let ask = async |peer: &str, forwarded: &[&str]| {
        let mut request = Request::get("/").header("cookie", "name=Zo\u{eb}").body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        for hop in forwarded {
            request.headers_mut().append("x-forwarded-for", hop.parse().unwrap());
        }
        let answer = upstream.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["cookie"].as_bytes(), "name=Zo\u{eb}".as_bytes());
        answer.headers()["hops"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("192.0.2.7:4711", &[]).await, "192.0.2.7");
    assert_eq!(ask("[::ffff:192.0.2.7]:4711", &["forged"]).await, "forged, 192.0.2.7");
    assert_eq!(ask("[2001:db8::1]:1", &["203.0.113.9, a", "b"]).await, "203.0.113.9, a, b, 2001:db8::1");
}
