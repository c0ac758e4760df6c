//! Redirects: bounded, judged, without credentials abroad.

use axum::http::{HeaderMap, Method, StatusCode, header::LOCATION};
use axum::response::IntoResponse;
use axum::{
    Json, Router,
    routing::{any, get},
};
use runtime_client::{ClientConfig, ClientError, Guard};
use serde_json::{Value, json};

use super::server::{client_with, context, local, serve};

fn to(status: u16, location: String) -> impl IntoResponse {
    (StatusCode::from_u16(status).unwrap(), [(LOCATION, location)])
}

async fn echo(method: Method, headers: HeaderMap, body: String) -> Json<Value> {
    let has = |name: &str| headers.contains_key(name);
    Json(
        json!({ "method": method.as_str(), "body": body, "authorization": has("authorization"), "cookie": has("cookie"),
        "x-api-key": has("x-api-key"), "content-type": has("content-type"), "x-mine": has("x-mine") }),
    )
}

#[tokio::test]
async fn a_redirect_to_a_refused_target_is_refused() {
    let secret = serve(Router::new().route("/", get(|| async { "secret" }))).await;
    for location in [
        format!("http://{secret}/"),
        format!("http://[::ffff:127.0.0.1]:{}/", secret.port()),
        "http://169.254.169.254/".to_owned(),
        "http://10.1.1.1/".to_owned(),
        "gopher://x/".to_owned(),
    ] {
        let front = serve(Router::new().route("/", get(move || async move { to(302, location) }))).await;
        let guard = Guard::public_only().allow([front.to_string()]).unwrap();
        let error = client_with(ClientConfig::default(), guard)
            .get(&format!("http://{front}/"))
            .send(&context())
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{error:?}");
    }
}

#[tokio::test]
async fn credentials_stay_with_their_origin() {
    let abroad = serve(Router::new().route("/", any(echo))).await;
    let home = Router::new()
        .route("/same", any(|| async { to(307, "/echo".to_owned()) }))
        .route("/abroad", any(move || async move { to(307, format!("http://{abroad}/")) }))
        .route("/echo", any(echo));
    let home = serve(home).await;
    for (path, kept) in [("same", true), ("abroad", false)] {
        let request =
            local().post(&format!("http://{home}/{path}")).body("hi").header("authorization", "Bearer x");
        let request = request.header("cookie", "a=b").header("x-api-key", "k").header("x-mine", "1");
        let seen: Value = request.send(&context()).await.unwrap().json().await.unwrap();
        for name in ["authorization", "cookie", "x-api-key"] {
            assert_eq!(seen[name], kept, "{path} {name}");
        }
        assert_eq!((&seen["x-mine"], &seen["body"]), (&json!(true), &json!("hi")), "{path}");
    }
}

#[tokio::test]
async fn the_method_follows_the_status() {
    let server =
        Router::new().route("/echo", any(echo)).route(
            "/{status}",
            any(|axum::extract::Path(status): axum::extract::Path<u16>| async move {
                to(status, "/echo".to_owned())
            }),
        );
    let address = serve(server).await;
    for (status, method, arrives) in [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
    ] {
        let request =
            local().request(method.parse().unwrap(), &format!("http://{address}/{status}")).json(&1);
        let seen: Value = request.send(&context()).await.unwrap().json().await.unwrap();
        let kept = method == arrives;
        assert_eq!(
            (seen["method"].as_str(), seen["body"].as_str(), &seen["content-type"]),
            (Some(arrives), Some(if kept { "1" } else { "" }), &json!(kept)),
            "{status} {method}"
        );
    }
}

#[tokio::test]
async fn redirects_are_bounded() {
    let address = serve(Router::new().route("/", get(|| async { to(302, "/".to_owned()) }))).await;
    let error = local().get(&format!("http://{address}/")).send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::TooManyRedirects(5)), "{error:?}");
    let mut config = ClientConfig::default();
    config.max_redirects = 0;
    let response = client_with(config, Guard::local())
        .get(&format!("http://{address}/"))
        .send(&context())
        .await
        .unwrap();
    assert_eq!(response.status(), 302, "not followed, handed back");
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_is_an_error_and_one_without_location_an_answer() {
    let bare = || async { StatusCode::FOUND };
    let bad = || async { to(302, "http://user:pw@127.0.0.1/".to_owned()) };
    let address = serve(Router::new().route("/bare", get(bare)).route("/bad", get(bad))).await;
    assert_eq!(local().get(&format!("http://{address}/bare")).send(&context()).await.unwrap().status(), 302);
    let error = local().get(&format!("http://{address}/bad")).send(&context()).await.unwrap_err();
    assert!(matches!(error, ClientError::BadRedirect));
}
