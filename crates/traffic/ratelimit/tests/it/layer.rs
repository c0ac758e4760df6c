//! Requests through the layer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use http::{Extensions, Request, Response, StatusCode};
use runtime_kernel::{Context, ManualClock, Name, Principal, Source, TenantContext};
use runtime_ratelimit::{Applies, Decision, Lookup, RateLimitConfig, RateLimitLayer, RateLimiter};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

/// Answers everything, and insists on being asked whether it is ready first.
#[derive(Clone, Default)]
struct Handler {
    ready: bool,
}

impl Service<Request<String>> for Handler {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called before it was ready");
        std::future::ready(Ok(Response::new(request.into_body())))
    }
}

#[derive(Clone)]
struct Route(&'static str);

const LOOKUP: Lookup = Lookup { peer, route };

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<IpAddr>().copied()
}

fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get::<Route>().map(|route| route.0)
}

type Seen = Arc<Mutex<HashMap<(String, &'static str), u32>>>;

fn layer(config: Value, applies: Applies) -> (RateLimitLayer, ManualClock, Seen) {
    let config: RateLimitConfig = serde_json::from_value(config).unwrap();
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder(1_000).clock(Arc::new(clock.clone())).build();
    let layer = RateLimitLayer::new(&config, applies, Arc::new(limiter), LOOKUP).unwrap();
    let (seen, told) = (Seen::default(), Seen::default());
    let tell = Arc::clone(&told);
    drop(seen);
    let layer = layer.observed(move |rule, decision: Decision| {
        *tell.lock().unwrap().entry((rule.to_owned(), decision.as_str())).or_default() += 1;
    });
    (layer, clock, told)
}

fn get(path: &str) -> Request<String> {
    Request::get(path).extension("192.0.2.1".parse::<IpAddr>().unwrap()).body("hello".to_owned()).unwrap()
}

async fn send(layer: &RateLimitLayer, request: Request<String>) -> Response<String> {
    layer.layer(Handler::default()).oneshot(request).await.unwrap()
}

fn header<'a>(response: &'a Response<String>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn rule(name: &str, by: &Value, capacity: u32) -> Value {
    json!({ "name": name, "by": by, "rate": { "capacity": capacity, "window": "60s" } })
}

#[tokio::test]
async fn answers_say_where_a_caller_stands_and_refusals_when_to_come_back() {
    let (layer, clock, told) =
        layer(json!({ "rules": [rule("per-ip", &json!(["ip"]), 2)] }), Applies::Everything);
    let first = send(&layer, get("/x")).await;
    assert_eq!((first.status(), first.body().as_str()), (StatusCode::OK, "hello"));
    assert_eq!(header(&first, "ratelimit-policy"), "\"per-ip\";q=2;w=60");
    assert_eq!(header(&first, "ratelimit"), "\"per-ip\";r=1;t=30");
    let _ = send(&layer, get("/x")).await;

    let refused = send(&layer, get("/x")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&refused, "retry-after"), "30");
    assert_eq!(header(&refused, "ratelimit"), "\"per-ip\";r=0;t=60");
    assert_eq!(header(&refused, "content-type"), "application/problem+json");
    let problem: Value = serde_json::from_str(refused.body()).unwrap();
    assert_eq!(
        (&problem["code"], &problem["status"], &problem["limit"]),
        (&json!("ratelimit.exceeded"), &json!(429), &json!("per-ip"))
    );

    clock.advance(Duration::from_secs(30));
    assert_eq!(send(&layer, get("/x")).await.status(), StatusCode::OK);
    let told = told.lock().unwrap();
    assert_eq!(told.get(&("per-ip".to_owned(), "admitted")), Some(&3));
    assert_eq!(told.get(&("per-ip".to_owned(), "refused")), Some(&1));
}

#[tokio::test]
async fn headers_come_in_the_style_that_was_asked_for() {
    for (style, draft, legacy) in
        [("draft", true, false), ("legacy", false, true), ("both", true, true), ("none", false, false)]
    {
        let config = json!({ "headers": style, "rules": [rule("r", &json!([]), 5)] });
        let (layer, ..) = layer(config, Applies::Everything);
        let response = send(&layer, get("/")).await;
        assert_eq!(!header(&response, "ratelimit").is_empty(), draft, "{style}");
        let all =
            ["limit", "remaining", "reset"].map(|name| header(&response, &format!("x-ratelimit-{name}")));
        assert_eq!(all, if legacy { ["5", "4", "12"] } else { ["", "", ""] }, "{style}");
    }
}

#[tokio::test]
async fn a_request_takes_from_all_its_rules_or_from_none() {
    let rules = json!([rule("all", &json!([]), 10), rule("route", &json!(["ip", "route"]), 1)]);
    let (layer, ..) = layer(json!({ "rules": rules }), Applies::Everything);
    let to = |route| {
        let mut request = get("/users/7");
        request.extensions_mut().insert(Route(route));
        request
    };
    let first = send(&layer, to("/users/{id}")).await;
    assert_eq!(header(&first, "ratelimit"), "\"route\";r=0;t=60", "the tightest is told");
    for _ in 0..20 {
        assert_eq!(send(&layer, to("/users/{id}")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    }
    let other = send(&layer, to("/orders/{id}")).await;
    assert_eq!(other.status(), StatusCode::OK, "twenty refusals took nothing from what all share");
}

#[tokio::test]
async fn callers_are_told_apart_by_what_the_rule_counts() {
    let clock = ManualClock::new();
    let who = |principal: Option<&str>, tenant: Option<&str>, request: Request<String>| {
        let mut context = Context::new(Source::Http, &clock);
        if let Some(id) = principal {
            context = context.with_principal(Principal::system(id));
        }
        if let Some(name) = tenant {
            context = context
                .with_tenant(TenantContext::tenant(Name::new("main").unwrap(), Name::new(name).unwrap()));
        }
        let mut request = request;
        request.extensions_mut().insert(context);
        request
    };
    let from = |address: &str| {
        let mut request = get("/");
        request.extensions_mut().insert(address.parse::<IpAddr>().unwrap());
        request
    };
    let with = |name: &str, value: &str| {
        let mut request = get("/");
        request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        request
    };
    for (by, first, same, other) in [
        (json!(["ip"]), from("2001:db8::1"), from("2001:db8::2"), from("2001:db8:0:1::1")),
        (json!(["ip"]), from("192.0.2.7"), from("::ffff:192.0.2.7"), from("192.0.2.8")),
        (
            json!(["principal"]),
            who(Some("a"), Some("t"), get("/")),
            who(Some("a"), Some("t"), from("1.1.1.1")),
            who(Some("a"), Some("u"), get("/")),
        ),
        (
            json!(["tenant"]),
            who(Some("a"), Some("t"), get("/")),
            who(Some("b"), Some("t"), get("/")),
            who(Some("a"), Some("u"), get("/")),
        ),
        (json!([{ "header": "x-key" }]), with("x-key", "a"), with("x-key", "a"), with("x-key", "b")),
        (json!(["method"]), get("/a"), get("/b"), {
            let mut r = get("/a");
            *r.method_mut() = http::Method::POST;
            r
        }),
        // Without what the rule counts by, a request is not counted.
        (json!(["ip"]), get("/"), get("/"), Request::get("/").body(String::new()).unwrap()),
    ] {
        let (layer, ..) = layer(json!({ "rules": [rule("r", &by, 1)] }), Applies::Everything);
        let statuses = [send(&layer, first).await, send(&layer, same).await, send(&layer, other).await]
            .map(|r| r.status().as_u16());
        assert_eq!(statuses, [200, 429, 200], "{by}");
    }
}

#[tokio::test]
async fn a_rule_covers_the_methods_and_paths_it_names() {
    let config = json!({ "rules": [{
        "name": "r", "rate": { "capacity": 1, "window": "1h" },
        "methods": ["post"], "paths": ["/v1/*", "/exact"], "except": ["/v1/free*"],
    }] });
    for (method, path, covered) in [
        ("POST", "/v1/jobs", true),
        ("POST", "/exact", true),
        ("POST", "/exact/no", false),
        ("GET", "/v1/jobs", false),
        ("POST", "/v2/jobs", false),
        ("POST", "/v1/free/x", false),
    ] {
        let (layer, ..) = layer(config.clone(), Applies::Everything);
        let request = || Request::builder().method(method).uri(path).body(String::new()).unwrap();
        let _ = send(&layer, request()).await;
        let second = send(&layer, request()).await.status() == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(second, covered, "{method} {path}");
    }
}

#[tokio::test]
async fn a_rule_that_only_watches_refuses_nobody_and_takes_nothing_from_the_others() {
    let mut shadow = rule("new", &json!(["ip"]), 1);
    shadow["shadow"] = json!(true);
    let (layer, _, told) =
        layer(json!({ "rules": [shadow, rule("old", &json!(["ip"]), 3)] }), Applies::Everything);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let response = send(&layer, get("/")).await;
        assert!(header(&response, "ratelimit").starts_with("\"old\""));
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(told.lock().unwrap().get(&("new".to_owned(), "would_refuse")), Some(&3));
}

#[tokio::test]
async fn rules_that_need_an_identity_wait_for_it() {
    let rules = json!([rule("early", &json!(["ip"]), 1), rule("late", &json!(["ip", "principal"]), 1)]);
    for (applies, names) in [
        (Applies::Everything, "[\"early\", \"late\"]"),
        (Applies::BeforeIdentity, "[\"early\"]"),
        (Applies::AfterIdentity, "[\"late\"]"),
    ] {
        let (layer, ..) = layer(json!({ "rules": rules }), applies);
        assert!(format!("{layer:?}").contains(names), "{layer:?}");
    }
    let (layer, ..) = layer(json!({ "enabled": false, "rules": rules }), Applies::Everything);
    assert!(layer.is_empty());
}

#[tokio::test]
async fn an_override_of_an_operation_reaches_the_rule_that_takes_it() {
    let config = json!({
        "operations": { "search": { "capacity": 1, "window": "60s" } },
        "overrides": { "premium": { "search": { "capacity": 3, "window": "60s" } } },
        "rules": [{ "name": "search", "by": [{ "header": "x-plan" }], "operation": "search" }],
    });
    let (layer, ..) = layer(config, Applies::Everything);
    let plan = |name: &str| {
        let mut request = get("/");
        request.headers_mut().insert("x-plan", name.parse().unwrap());
        request
    };
    for (name, granted) in [("free", 1), ("premium", 3)] {
        let mut passed = 0;
        for _ in 0..5 {
            passed += u32::from(send(&layer, plan(name)).await.status() == StatusCode::OK);
        }
        assert_eq!(passed, granted, "{name}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_its_key() {
    let rate = json!({ "capacity": 1, "window": "1s" });
    for (rule, expected) in [
        (json!({ "name": "a b", "rate": rate }), "`rules.0.name` must be 1 to 64"),
        (json!({ "name": "a" }), "`rules.0.rate` is needed"),
        (json!({ "name": "a", "rate": rate, "operation": "x" }), "`rules.0.rate` is needed"),
        (json!({ "name": "a", "rate": rate, "cost": 2 }), "`rules.0.cost` is more than"),
        (json!({ "name": "a", "rate": rate, "paths": ["v1"] }), "`rules.0.paths` must begin"),
        (json!({ "name": "a", "rate": rate, "by": [{ "header": "x y" }] }), "`rules.0.by` names a header"),
        (json!({ "name": "a", "rate": { "capacity": 1, "window": "0s" } }), "`rules.0.rate` `window`"),
    ] {
        let config: RateLimitConfig = serde_json::from_value(json!({ "rules": [rule] })).unwrap();
        let buckets = Arc::new(RateLimiter::new(8));
        let error = RateLimitLayer::new(&config, Applies::Everything, buckets, LOOKUP).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn trusted_proxies_and_the_prefix_say_who_a_caller_is() {
    let through = |client: &str, peer: &str| {
        let mut request = get("/");
        request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
        request.extensions_mut().insert(peer.parse::<IpAddr>().unwrap());
        request
    };
    // One caller or two, by what is configured: the second request is refused when it is the same one.
    for (config, first, second, same) in [
        (json!({}), through("1.1.1.1", "10.0.0.1"), through("2.2.2.2", "10.0.0.1"), true),
        (
            json!({ "trusted_proxies": 1 }),
            through("1.1.1.1", "10.0.0.1"),
            through("2.2.2.2", "10.0.0.1"),
            false,
        ),
        (
            json!({ "trusted_proxies": 1 }),
            through("1.1.1.1", "10.0.0.1"),
            through("6.6.6.6, 1.1.1.1", "10.0.0.2"),
            true,
        ),
        (json!({}), through("-", "2001:db8:0:1::1"), through("-", "2001:db8:0:2::1"), false),
        (
            json!({ "ipv6_prefix": 48 }),
            through("-", "2001:db8:0:1::1"),
            through("-", "2001:db8:0:2::1"),
            true,
        ),
    ] {
        let mut whole = config.clone();
        whole["rules"] = json!([rule("r", &json!(["ip"]), 1)]);
        let (layer, ..) = layer(whole, Applies::Everything);
        assert_eq!(send(&layer, first).await.status(), StatusCode::OK);
        let refused = send(&layer, second).await.status() == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(refused, same, "{config}");
    }
}
