//! What the first phase does for every request: id, trace, deadline, panic guard, log.

use runtime_http::{Ctx, HttpConfig, Json, Result, Route};
use serde_json::{Value, json};

use crate::support::{Running, get};

async fn context(Ctx(context): Ctx) -> Json<Value> {
    Json(json!({
        "request_id": context.request_id.to_string(),
        "trace_id": context.trace.trace_id_hex(),
        "traceparent": context.trace.to_traceparent(),
        "tracestate": context.trace.state(),
        "deadline": context.deadline.instant().is_some(),
    }))
}

async fn panics() -> Result<&'static str> {
    panic!("password=hunter2")
}

async fn server() -> Running {
    let routes = vec![
        Route::get("/context", context).public(),
        Route::get("/panics", panics).public(),
        Route::get("/later", || async {
            tokio::task::yield_now().await;
            panics().await
        })
        .public(),
    ];
    Running::start(HttpConfig::default(), routes).await
}

fn ask(headers: &str) -> String {
    format!("GET /context HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_well_formed_request_id_is_kept_and_echoed_and_any_other_replaced() {
    let server = server().await;
    for (sent, kept) in
        [("req-1", true), ("a/b:c=d", true), ("two words", false), ("<x>", false), ("", false)]
    {
        let answer = server.raw(ask(&format!("x-request-id: {sent}\r\n"))).await;
        let echoed = answer.header("x-request-id").unwrap();
        assert_eq!(echoed == sent, kept, "{sent:?} came back as {echoed:?}");
        let seen: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(seen["request_id"], echoed, "the handler sees what the caller gets");
    }
    let ids = [server.raw(ask("")).await, server.raw(ask("")).await]
        .map(|a| a.header("x-request-id").map(str::to_owned));
    assert!(ids[0].is_some());
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_trace_is_continued_under_a_new_span_and_a_broken_one_begun_anew() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let server = server().await;
    let good = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    for (headers, continued, state) in [
        (good.clone(), true, None),
        (format!("{good}tracestate: a=1,b=2\r\n"), true, Some("a=1,b=2")),
        (format!("{good}tracestate: a=1\r\ntracestate: b=2\r\n"), true, Some("a=1,b=2")),
        (format!("{good}{good}"), false, None),
        (format!("traceparent: 00-{TRACE}-0000000000000000-01\r\n"), false, None),
        ("tracestate: a=1\r\n".to_owned(), false, None),
        (String::new(), false, None),
    ] {
        let seen: Value = serde_json::from_str(&server.raw(ask(&headers)).await.body).unwrap();
        assert_eq!(seen["trace_id"] == TRACE, continued, "{headers:?}");
        assert!(!seen["traceparent"].as_str().unwrap().contains("00f067aa0ba902b7"), "a span of our own");
        assert_eq!(seen["tracestate"].as_str(), state, "{headers:?}");
        assert_eq!(seen["deadline"], true);
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_shows_nothing_and_harms_nobody() {
    let server = server().await;
    for path in ["/panics", "/later"] {
        let answer = server.raw(get(path)).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.problem()["code"], "internal");
        assert!(!answer.body.contains("hunter2"));
        assert_eq!(server.raw(get("/context")).await.status, 200, "the server goes on");
    }
}

#[tokio::test]
async fn every_answer_says_that_its_type_is_not_to_be_guessed() {
    let server = server().await;
    for path in ["/context", "/nothing", "/panics"] {
        assert_eq!(server.raw(get(path)).await.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}
