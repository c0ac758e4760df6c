//! Extractors: where the mistake is, said in the problem document.

use runtime_http::{HttpConfig, Json, Path, Query, Route};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Answer, Running, get};

#[derive(Deserialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    count: u32,
}

#[derive(Deserialize)]
struct Page {
    limit: u16,
}

async fn server() -> Running {
    let routes = vec![
        Route::post("/orders", |Json(order): Json<Order>| async move {
            Json(order.lines.iter().map(|line| line.count).sum::<u32>())
        })
        .public(),
        Route::get("/orders/{id}", |Path(id): Path<u32>| async move { Json(id) }).public(),
        Route::get("/orders", |Query(page): Query<Page>| async move { Json(page.limit) }).public(),
    ];
    Running::start(HttpConfig::default(), routes).await
}

async fn post(server: &Running, media_type: &str, body: &str) -> Answer {
    let head =
        format!("POST /orders HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {media_type}\r\n");
    server.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await
}

#[tokio::test]
async fn a_body_is_read_or_refused_with_the_place_of_the_mistake() {
    let server = server().await;
    for (media_type, body, status, code, at) in [
        ("application/json", r#"{"lines":[{"count":2},{"count":3}]}"#, 200, "", Value::Null),
        ("application/json; charset=utf-8", r#"{"lines":[]}"#, 200, "", Value::Null),
        ("application/merge-patch+json", r#"{"lines":[]}"#, 200, "", Value::Null),
        (
            "application/json",
            r#"{"lines":[{"count":2},{"count":"x"}]}"#,
            400,
            "http.invalid_json",
            json!("/lines/1/count"),
        ),
        ("application/json", r#"{"lines":[{"count":2},{}]}"#, 400, "http.invalid_json", json!("/lines/1")),
        ("application/json", r#"[[{"count":2}]]"#, 400, "http.invalid_json", Value::Null),
        ("application/json", "{", 400, "http.invalid_json", Value::Null),
        ("application/json", "", 400, "http.invalid_json", Value::Null),
        ("application/json", r#"{"lines":[]} x"#, 400, "http.invalid_json", Value::Null),
        ("text/plain", r#"{"lines":[]}"#, 415, "http.unsupported_media_type", Value::Null),
        ("application/jsonp", r#"{"lines":[]}"#, 415, "http.unsupported_media_type", Value::Null),
    ] {
        let answer = post(&server, media_type, body).await;
        assert_eq!(answer.status, status, "{media_type} {body}: {answer:?}");
        if status != 200 {
            let problem = answer.problem();
            assert_eq!(problem["code"], code, "{body}");
            if !at.is_null() {
                assert_eq!(problem["errors"][0]["at"], at, "{body}");
            }
        }
    }
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let server = server().await;
    for (path, status, named) in [
        ("/orders/7", 200, ""),
        ("/orders/seven", 400, "id"),
        ("/orders?limit=5", 200, ""),
        ("/orders?limit=many", 400, "limit"),
        ("/orders?limit=70000", 400, "limit"),
        ("/orders", 400, "limit"),
    ] {
        let answer = server.raw(get(path)).await;
        assert_eq!(answer.status, status, "{path}");
        if status != 200 {
            assert_eq!(answer.problem()["errors"][0]["at"], named, "{path}: {answer:?}");
        }
    }
}
