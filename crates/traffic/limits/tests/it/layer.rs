//! The limit in front of an HTTP service.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::{Extensions, Request, Response, StatusCode};
use http_body_util::BodyExt;
use runtime_kernel::{Clock, Context, Deadline, RequestId, Source, SystemClock, TraceContext};
use runtime_limits::{
    ConcurrencyConfig, ConcurrencyLayer, ConcurrencyLimit, LimitRule, LimitsConfig, QueueConfig,
};
use tokio::sync::oneshot;
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt, service_fn};

type Reply = oneshot::Sender<StatusCode>;

/// A service whose answers the test gives.
struct House {
    service: BoxCloneService<Request<Body>, Response<Body>, Infallible>,
    layer: ConcurrencyLayer,
    asked: Arc<Mutex<Vec<Reply>>>,
}

impl House {
    fn new(config: &LimitsConfig) -> Self {
        let route = |extensions: &Extensions| extensions.get::<&'static str>().copied();
        let layer = ConcurrencyLayer::new(config, route).unwrap();
        let asked: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let inner = Arc::clone(&asked);
        let service = service_fn(move |_: Request<Body>| {
            let (reply, status) = oneshot::channel();
            inner.lock().unwrap().push(reply);
            async move {
                let mut response = Response::new(Body::from("hello"));
                *response.status_mut() = status.await.unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        let service =
            BoxCloneService::new(layer.layer(service).map_response(|response| response.map(Body::new)));
        Self { service, layer, asked }
    }

    fn send(&self, request: Request<Body>) -> tokio::task::JoinHandle<Response<Body>> {
        let mut service = self.service.clone();
        tokio::spawn(async move { service.ready().await.unwrap().call(request).await.unwrap() })
    }

    async fn begun(&self, requests: usize) {
        while self.asked.lock().unwrap().len() < requests {
            tokio::task::yield_now().await;
        }
    }

    fn answer(&self, status: StatusCode) {
        self.asked.lock().unwrap().remove(0).send(status).unwrap();
    }

    fn limit(&self, name: &str) -> ConcurrencyLimit {
        self.layer.limits().into_iter().find(|limit| limit.name == name).unwrap().limit
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn config(change: impl FnOnce(&mut LimitsConfig)) -> LimitsConfig {
    let mut config = LimitsConfig::default();
    config.server = ConcurrencyConfig::fixed(1);
    change(&mut config);
    config
}

#[tokio::test]
async fn beyond_the_limit_a_problem_says_so_and_a_place_is_held_until_the_last_byte() {
    let house = House::new(&config(|_| {}));
    let first = house.send(get("/"));
    house.begun(1).await;
    let refused = house.send(get("/")).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let expected = serde_json::json!({
        "type": "about:blank", "title": "Unavailable", "status": 503,
        "detail": "the service is overloaded", "code": "limits.overloaded",
    });
    assert_eq!(problem, expected);
    // Every character that a caller's request id may have.
    let mut named = get("/");
    let id: String = (0x21..0x7f_u8).map(char::from).filter(|char| !"\"'\\<>".contains(*char)).collect();
    let id = RequestId::accept(&id).unwrap();
    named.extensions_mut().insert(Context::from_parts(Source::Http, id.clone(), TraceContext::root()));
    let body = house.send(named).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["request_id"], id.to_string());
    house.answer(StatusCode::OK);
    let answer = first.await.unwrap();
    assert_eq!(house.limit("server").in_flight(), 1, "the body has not been read");
    answer.into_body().collect().await.unwrap();
    assert_eq!(house.limit("server").in_flight(), 0);
    let second = house.send(get("/"));
    house.begun(1).await;
    house.answer(StatusCode::OK);
    drop(second.await.unwrap());
    assert_eq!(house.limit("server").in_flight(), 0, "dropped unread");
}

#[tokio::test]
async fn rules_give_routes_limits_of_their_own_or_none() {
    let mut reports = LimitRule::default();
    (reports.name, reports.paths) = ("reports".to_owned(), vec!["/reports/*".to_owned()]);
    (reports.limit, reports.per_route, reports.exempt) = (Some(ConcurrencyConfig::fixed(1)), true, true);
    let mut events = LimitRule::default();
    (events.name, events.paths, events.exempt) = ("events".to_owned(), vec!["/events".to_owned()], true);
    let house = House::new(&config(|config| config.rules = vec![reports, events]));
    let routed = |path: &str, route: &'static str| {
        let mut request = get(path);
        request.extensions_mut().insert(route);
        request
    };
    let mut held = Vec::new();
    for (nth, request) in [
        get("/events"),
        get("/events"),
        routed("/reports/a/1", "/reports/a/{id}"),
        routed("/reports/b/1", "/reports/b/{id}"),
        get("/"),
    ]
    .into_iter()
    .enumerate()
    {
        held.push(house.send(request));
        house.begun(nth + 1).await;
    }
    assert_eq!(house.send(routed("/reports/a/2", "/reports/a/{id}")).await.unwrap().status(), 503);
    assert_eq!(house.send(get("/")).await.unwrap().status(), 503);
    assert_eq!(house.limit("reports /reports/a/{id}").in_flight(), 1);
    assert_eq!((house.limit("reports").in_flight(), house.limit("server").in_flight()), (0, 1));
}

#[tokio::test]
async fn what_matters_is_said_by_the_rule_before_the_header() {
    let mut probes = LimitRule::default();
    (probes.name, probes.paths) = ("probes".to_owned(), vec!["/readyz".to_owned()]);
    probes.criticality = Some(runtime_limits::Criticality::CriticalPlus);
    let house = House::new(&config(|config| {
        config.server = ConcurrencyConfig::fixed(3);
        config.criticality_header = Some("x-criticality".to_owned());
        config.rules = vec![probes];
    }));
    let with = |path: &str, criticality: &str| {
        Request::get(path).header("x-criticality", criticality).body(Body::empty()).unwrap()
    };
    let mut held = Vec::new();
    for nth in 0..2 {
        held.push(house.send(with("/", "sheddable")));
        house.begun(nth + 1).await;
    }
    assert_eq!(house.send(with("/", "sheddable")).await.unwrap().status(), 503, "two of three");
    held.push(house.send(with("/readyz", "sheddable")));
    house.begun(3).await;
}

#[tokio::test]
async fn requests_wait_in_line_until_their_deadline() {
    let house = House::new(&config(|config| config.server.queue = Some(QueueConfig::of(10))));
    let first = house.send(get("/"));
    house.begun(1).await;
    let waiting = house.send(get("/"));
    while house.limit("server").waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let mut hopeless = get("/");
    let mut context = Context::new(Source::Http, &SystemClock);
    context.deadline = Deadline::at(SystemClock.now() + Duration::from_millis(1));
    hopeless.extensions_mut().insert(context);
    assert_eq!(house.send(hopeless).await.unwrap().status(), 504);
    house.answer(StatusCode::OK);
    drop(first.await.unwrap());
    house.begun(1).await;
    house.answer(StatusCode::OK);
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn answers_teach_the_limit() {
    let mut server = ConcurrencyConfig::fixed(1);
    (server.algorithm, server.initial, server.max) =
        (runtime_limits::AlgorithmConfig::Aimd { timeout: Duration::from_mins(1) }, 10, 100);
    (server.window, server.min_samples) = (Duration::from_millis(1), 1);
    let house = House::new(&config(|config| config.server = server));
    let ask = async |status: StatusCode, until: &dyn Fn(u32) -> bool| {
        for _ in 0..100_000 {
            let answer = house.send(get("/"));
            house.begun(1).await;
            house.answer(status);
            drop(answer.await.unwrap());
            if until(house.limit("server").limit()) {
                return;
            }
        }
        panic!("nothing was learnt");
    };
    ask(StatusCode::SERVICE_UNAVAILABLE, &|limit| limit < 10).await;
    let before = house.limit("server").limit();
    for _ in 0..50 {
        let answer = house.send(get("/"));
        house.begun(1).await;
        house.answer(StatusCode::NOT_FOUND);
        drop(answer.await.unwrap());
    }
    assert_eq!(house.limit("server").limit(), before, "a caller's mistake says nothing");
    ask(StatusCode::GATEWAY_TIMEOUT, &|limit| limit == 1).await;
    ask(StatusCode::OK, &|limit| limit > 1).await;
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    let rule = |change: fn(&mut LimitRule)| {
        config(|config| {
            let mut rule = LimitRule::default();
            rule.name = "a".to_owned();
            change(&mut rule);
            config.rules = vec![rule];
        })
    };
    let mut twice = rule(|_| {});
    twice.rules.extend(twice.rules.clone());
    for (config, key) in [
        (config(|c| c.server.min = 0), "server.min"),
        (config(|c| c.criticality_header = Some("not a header".to_owned())), "criticality_header"),
        (rule(|rule| rule.name.clear()), "rules.0.name"),
        (rule(|rule| rule.name = "server".to_owned()), "rules.0.name"),
        (twice, "rules.1.name"),
        (rule(|rule| rule.paths = vec!["x".to_owned()]), "rules.0.paths"),
        (rule(|rule| rule.per_route = true), "rules.0.per_route"),
        (rule(|rule| rule.limit = Some(ConcurrencyConfig::fixed(0))), "rules.0.limit.min"),
    ] {
        assert_eq!(ConcurrencyLayer::new(&config, |_| None).unwrap_err().key, key);
    }
}
