//! OpenAPI 3.1, written from the routes themselves.

use std::collections::BTreeSet;

use http::Method;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::problem::{PROBLEM_JSON, Problem};
use crate::route::{Content, RouteInfo};
use crate::schemas::Schemas;

/// The document for some routes (OpenAPI 3.1.0; schemas are JSON Schema 2020-12).
///
/// What is taken is described as it is read, what is answered as it is written. A type that differs in the two, such
/// as one with a field that has a default, is there twice: as `Name` and as `NameOutput`.
pub fn openapi<'a>(title: &str, version: &str, routes: impl IntoIterator<Item = &'a RouteInfo>) -> Value {
    let mut schemas = Schemas::new();
    let problem = json!(schemas.output.subschema_for::<Problem>());
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut schemas, &problem);
        // OpenAPI has no parameter that spans segments; it is described as one that does not.
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    let schemas = schemas.finish(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "api_key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &RouteInfo, schemas: &mut Schemas, problem: &Value) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), json!(operation_id(route)));
    if !route.summary.is_empty() {
        operation.insert("summary".into(), json!(route.summary));
    }
    if !route.tag.is_empty() {
        operation.insert("tags".into(), json!([route.tag]));
    }
    let parameters = parameters(route, &mut schemas.input);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), json!(parameters));
    }
    if let Some(body) = route.body {
        let schema = body(&mut schemas.input);
        let content = json!({ "application/json": { "schema": schema } });
        operation.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    if !route.public {
        operation.insert("security".into(), json!([{ "api_key": [] }]));
    }
    operation.insert("responses".into(), responses(route, &mut schemas.output, problem));
    Value::Object(operation)
}

fn operation_id(route: &RouteInfo) -> String {
    let path = route.path.trim_matches('/').replace(['/', '.', '-'], "_").replace(['{', '}', '*'], "");
    format!("{}_{path}", route.method.as_str().to_ascii_lowercase()).trim_end_matches('_').to_owned()
}

fn parameters(route: &RouteInfo, generator: &mut SchemaGenerator) -> Vec<Value> {
    let described = route.parameters.map(|parameters| json!(parameters(generator)));
    let names = route.path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    let mut parameters: Vec<Value> = names
        .map(|name| name.trim_start_matches('*'))
        .map(|name| {
            let schema = described.as_ref().and_then(|schema| schema.get("properties")?.get(name)).cloned();
            let schema = schema.unwrap_or_else(|| json!({ "type": "string" }));
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    if let Some(query) = route.query {
        let schema = json!(query(generator));
        let required: BTreeSet<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let needed = required.contains(name.as_str());
            parameters.push(json!({ "name": name, "in": "query", "required": needed, "schema": property }));
        }
    }
    parameters
}

/// What the route declares, and every problem that follows from what it takes and needs.
fn responses(route: &RouteInfo, generator: &mut SchemaGenerator, problem: &Value) -> Value {
    let mut responses = Map::new();
    for answer in &route.answers {
        let mut response = json!({ "description": answer.description });
        let content = match answer.content {
            Content::None => None,
            Content::Json(schema) => Some(json!({ "application/json": { "schema": schema(generator) } })),
            Content::Text(media_type) => Some(json!({ media_type: { "schema": { "type": "string" } } })),
        };
        if let (Some(content), Some(response)) = (content, response.as_object_mut()) {
            response.insert("content".into(), content);
        }
        responses.insert(answer.status.to_string(), response);
    }
    // The edge itself may refuse any request.
    let mut problems: BTreeSet<u16> = [400, 408, 413, 431, 500, 503, 504].into();
    problems.extend(&route.problems);
    if !route.public {
        problems.insert(401);
    }
    if route.scope.is_some() {
        problems.insert(403);
    }
    if route.body.is_some() {
        problems.extend([415]);
    }
    if route.method != Method::GET {
        problems.insert(405);
    }
    for status in problems {
        let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let content = json!({ PROBLEM_JSON: { "schema": problem } });
        let response = json!({ "description": title.unwrap_or("A problem."), "content": content });
        responses.entry(status.to_string()).or_insert(response);
    }
    Value::Object(responses)
}
