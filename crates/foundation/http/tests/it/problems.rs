//! Problem documents: every kind, what they tell and what they keep to themselves.

use std::time::Duration;

use runtime_http::{HttpConfig, HttpError, Path, Problem, Route, Stack};
use runtime_kernel::{Context, Error, ErrorKind, Principal, PrincipalKind, Retry, Source, SystemClock};

use crate::support::{Running, get};

async fn fail(Path(index): Path<usize>) -> Result<(), HttpError> {
    let kind = ErrorKind::ALL[index];
    let error =
        Error::new(kind, format!("test.{kind}"), "said to the caller").with_source("kept from the caller");
    Err(error.with_detail("/name", "is too short").into())
}

async fn later() -> Result<(), HttpError> {
    let wait = Retry::After(Duration::from_millis(1500));
    Err(Error::new(ErrorKind::RateLimited, "test.later", "slow down").with_retry(wait).into())
}

#[tokio::test]
async fn every_kind_has_its_status_and_document() {
    let server = Running::start(HttpConfig::default(), vec![Route::get("/{index}", fail).public()]).await;
    for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
        let answer = server.raw(get(&format!("/{index}"))).await;
        assert_eq!(answer.status, kind.http_status());
        let problem = answer.problem();
        assert_eq!(problem["code"], format!("test.{kind}"));
        assert_eq!(problem["title"], kind.title());
        assert_eq!(problem["detail"], "said to the caller");
        assert_eq!(problem["errors"][0]["at"], "/name");
        assert!(!answer.body.contains("kept from"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), kind == ErrorKind::Unauthenticated);
        serde_json::from_str::<Problem>(&answer.body).unwrap();
    }
}

#[tokio::test]
async fn retry_after_is_whole_seconds_rounded_up() {
    let server = Running::start(HttpConfig::default(), vec![Route::get("/later", later).public()]).await;
    assert_eq!(server.raw(get("/later")).await.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn a_problem_has_its_document_without_the_server_too() {
    use runtime_http::axum::response::IntoResponse;
    let response = HttpError(Error::new(ErrorKind::Conflict, "test.conflict", "taken")).into_response();
    assert_eq!(response.status(), 409);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = runtime_http::axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
    assert_eq!(serde_json::from_slice::<Problem>(&body).unwrap().code, "test.conflict");
}

/// The guard of a route, tried with every sort of caller.
#[tokio::test]
async fn a_route_asks_for_its_scope() {
    use runtime_http::axum::body::Body;
    use tower::ServiceExt;
    let routes = || {
        vec![
            Route::get("/open", || async { "open" }).public(),
            Route::get("/known", || async { "known" }),
            Route::get("/write", || async { "write" }).scope("jobs:write"),
        ]
    };
    let caller = |scopes: &[&str]| {
        let mut principal = Principal::new(PrincipalKind::Service, "key");
        principal.scopes = scopes.iter().map(|scope| (*scope).into()).collect();
        principal
    };
    for (path, principal, status) in [
        ("/open", None, 200),
        ("/known", None, 401),
        ("/known", Some(caller(&[])), 200),
        ("/write", None, 401),
        ("/write", Some(caller(&["jobs:read"])), 403),
        ("/write", Some(caller(&["jobs:*"])), 200),
        ("/write", Some(Principal::system("test")), 200),
        ("/missing", None, 404),
    ] {
        let mut context = Context::new(Source::Http, &SystemClock);
        if let Some(principal) = principal.clone() {
            context = context.with_principal(principal);
        }
        let mut request = http::Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(context);
        let response = runtime_http::router(routes(), Stack::default(), ()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path} {principal:?}");
        assert_eq!(response.headers().contains_key("www-authenticate"), status == 401, "{path}");
    }
}
