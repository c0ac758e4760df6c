//! API keys at the door of an HTTP service.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::{Extension, Router, routing::get};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use runtime_apikey::{ApiKeyLayer, NewKey, Verified};
use runtime_kernel::{Context, Source};
use tower::ServiceExt;

use super::setup::{Setup, setup};

async fn whoami(
    Extension(context): Extension<Context>,
    verified: Option<Extension<Arc<Verified>>>,
) -> String {
    let principal = context.principal.map(|principal| principal.id.to_string());
    assert_eq!(principal.is_some(), verified.is_some());
    principal.unwrap_or_else(|| "nobody".to_owned())
}

async fn ask(setup: &Setup, headers: &[(&str, &str)]) -> Response<Body> {
    let layer = ApiKeyLayer::new(setup.keys.authenticator().clone());
    let router = Router::new().route("/", get(whoami)).layer(layer);
    let mut request = Request::builder().uri("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Context::new(Source::Http, &setup.clock));
    router.oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_key_in_either_header_names_the_caller() {
    let setup = setup();
    let issued = setup.keys.create(NewKey::default()).await.unwrap();
    let (key, id) = (issued.expose(), issued.key.id.to_string());
    let bearer = format!("Bearer {key}");
    for (headers, caller) in [
        (&[("authorization", bearer.as_str())][..], id.as_str()),
        (&[("authorization", &format!("bEARER   {key}"))], &id),
        (&[("x-api-key", key)], &id),
        (&[("x-api-key", key), ("authorization", &bearer)], &id),
        (&[("x-api-key", key), ("authorization", "Basic eDp5")], &id),
        (&[], "nobody"),
        (&[("authorization", "Bearer eyJhbGciOi.J9.x")], "nobody"),
        (&[("authorization", "Basic eDp5")], "nobody"),
    ] {
        let response = ask(&setup, headers).await;
        assert_eq!(response.status(), 200, "{headers:?}");
        assert_eq!(text(response).await, caller, "{headers:?}");
    }
}

#[tokio::test]
async fn a_bad_key_is_answered_with_a_problem_and_a_challenge() {
    let setup = setup();
    let revoked = setup.keys.create(NewKey::default()).await.unwrap();
    setup.keys.revoke(revoked.key.id, "leaked").await.unwrap();
    let other = setup.keys.create(NewKey::default()).await.unwrap();
    let bearer = format!("Bearer {}", other.expose());
    for (headers, status, code) in [
        (&[("x-api-key", "nonsense")][..], 401, "apikey.invalid"),
        (&[("x-api-key", "")], 401, "apikey.invalid"),
        (&[("authorization", "Bearer rt_nonsense")], 401, "apikey.invalid"),
        (&[("x-api-key", revoked.expose())], 401, "apikey.revoked"),
        (&[("x-api-key", revoked.expose()), ("authorization", &bearer)], 400, "apikey.ambiguous"),
        (&[("x-api-key", other.expose()), ("x-api-key", other.expose())], 400, "apikey.ambiguous"),
    ] {
        let response = ask(&setup, headers).await;
        assert_eq!(response.status().as_u16(), status, "{code}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let challenge =
            response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(challenge.as_deref(), (status == 401).then_some("Bearer error=\"invalid_token\""));
        let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(
            (problem["code"].as_str(), problem["status"].as_u64()),
            (Some(code), Some(u64::from(status)))
        );
        assert!(!problem.to_string().contains("nonsense"));
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_503_not_401() {
    let setup = setup();
    let issued = setup.keys.create(NewKey::default()).await.unwrap();
    setup.store.broken.store(true, Ordering::SeqCst);
    let response = ask(&setup, &[("x-api-key", issued.expose())]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!text(response).await.contains("down"), "the cause stays inside");
}
