//! The document: every route in it, every reference in it resolved, nothing promised that is not kept.

use std::collections::BTreeSet;

use runtime_http::{Json, Route, RouteInfo, openapi};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Order {
    lines: Vec<Line>,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Line {
    count: u32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Page {
    limit: u16,
    #[serde(default)]
    after: Option<String>,
}

fn routes() -> Vec<RouteInfo> {
    let routes: Vec<Route> = vec![
        Route::post("/orders", |Json(order): Json<Order>| async move { Json(order) })
            .summary("Takes an order")
            .tag("orders")
            .scope("orders:write")
            .takes::<Order>()
            .answers::<Order>(201, "Taken."),
        Route::get("/orders", || async { "" })
            .scope("orders:read")
            .query::<Page>()
            .answers::<Vec<Order>>(200, "Some."),
        Route::get("/orders/{id}", || async { "" }).answers::<Order>(200, "One.").problems(&[404]),
        Route::delete("/orders/{id}", || async { "" }).answers_empty(204, "Gone.").problems(&[404, 409]),
        Route::get("/files/{*rest}", || async { "" }).public().answers_text(200, "text/plain", "A file."),
        Route::get("/livez", || async { "" }).public().answers_text(200, "text/plain", "Alive."),
    ];
    routes.iter().map(|route| route.info().clone()).collect()
}

fn walk<'a>(value: &'a Value, see: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                see(key, value);
                walk(value, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        _ => {}
    }
}

#[test]
fn every_route_is_there_once_with_a_name_of_its_own() {
    let routes = routes();
    let document = openapi("test", "1.0.0", &routes);
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = BTreeSet::new();
    for route in &routes {
        let path = route.path.replace("{*", "{");
        let operation = &document["paths"][&path][route.method.as_str().to_ascii_lowercase()];
        assert!(operation["responses"].is_object(), "{} {path}", route.method);
        assert!(operations.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        for status in operation["responses"].as_object().unwrap().keys() {
            assert!((100..600).contains(&status.parse::<u16>().unwrap()));
        }
    }
    let count: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(count, routes.len());
}

#[test]
fn every_reference_resolves() {
    let document = openapi("test", "1.0.0", &routes());
    let mut seen = 0;
    walk(&document, &mut |key, value| {
        if key == "$ref" {
            let pointer = value.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
            seen += 1;
        }
    });
    assert!(seen > 10, "{seen}");
}

#[test]
fn every_path_parameter_is_declared_and_no_other() {
    let document = openapi("test", "1.0.0", &routes());
    for (path, operations) in document["paths"].as_object().unwrap() {
        let named: BTreeSet<_> =
            path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
        for operation in operations.as_object().unwrap().values() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let declared: BTreeSet<_> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .inspect(|parameter| assert_eq!(parameter["required"], true))
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(declared, named, "{path}");
        }
    }
}

#[test]
fn what_a_route_needs_and_may_answer_is_said() {
    let document = openapi("test", "1.0.0", &routes());
    let statuses = |path: &str, method: &str| -> BTreeSet<u16> {
        let responses = document["paths"][path][method]["responses"].as_object().unwrap();
        responses.keys().map(|status| status.parse().unwrap()).collect()
    };
    for (path, method, needed, absent) in [
        ("/orders", "post", &[201, 400, 401, 403, 413, 415, 431, 500][..], &[][..]),
        ("/orders", "get", &[200, 400, 401, 403, 431, 500][..], &[415][..]),
        ("/orders/{id}", "get", &[200, 400, 401, 404, 431, 500][..], &[403, 415][..]),
        ("/orders/{id}", "delete", &[204, 401, 404, 409][..], &[415][..]),
        ("/livez", "get", &[200, 431][..], &[401, 403, 415][..]),
    ] {
        let statuses = statuses(path, method);
        assert!(needed.iter().all(|status| statuses.contains(status)), "{method} {path}: {statuses:?}");
        assert!(!absent.iter().any(|status| statuses.contains(status)), "{method} {path}: {statuses:?}");
    }
    assert_eq!(document["paths"]["/livez"]["get"].get("security"), None);
    let security = &document["paths"]["/orders"]["post"]["security"][0];
    let scheme = security.as_object().unwrap().keys().next().unwrap();
    assert!(document["components"]["securitySchemes"][scheme].is_object());
    let query = document["paths"]["/orders"]["get"]["parameters"].as_array().unwrap();
    let required: Vec<_> =
        query.iter().map(|p| (p["name"].as_str().unwrap(), p["required"].as_bool().unwrap())).collect();
    assert!(required.contains(&("limit", true)) && required.contains(&("after", false)), "{required:?}");
}

/// What a type is read from and what it is written as differ: a field with a default may be left out of the one and
/// is always in the other.
#[test]
fn a_body_and_an_answer_of_one_type_are_each_described_as_they_are() {
    let document = openapi("test", "1.0.0", &routes());
    let resolve = |schema: &Value| match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap().clone(),
        None => schema.clone(),
    };
    let operation = &document["paths"]["/orders"]["post"];
    let body = resolve(&operation["requestBody"]["content"]["application/json"]["schema"]);
    let answer = resolve(&operation["responses"]["201"]["content"]["application/json"]["schema"]);
    let required =
        |schema: &Value| -> Vec<String> { serde_json::from_value(schema["required"].clone()).unwrap() };
    assert_eq!(required(&body), ["lines"]);
    assert!(required(&answer).contains(&"note".to_owned()), "{answer}");
}
