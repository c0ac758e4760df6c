//! The OpenAPI document has every route the server has, and the README's table too.

use serde_json::Value;

use super::house::House;

const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn every_route_is_in_the_openapi_document_with_its_words_and_parameters() {
    let house = House::start::<&str>(&[]).await;
    let (_, routes) = house.cli(&["routes"]);
    let document = house.client().get(house.url("/openapi.json")).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let routes: Vec<_> = routes
        .as_array()
        .unwrap()
        .iter()
        .filter(|route| route["path"].as_str().unwrap().starts_with("/v1/"))
        .collect();
    assert!(routes.len() > 50, "{}", routes.len());
    for route in routes {
        let (path, method) =
            (route["path"].as_str().unwrap(), route["method"].as_str().unwrap().to_lowercase());
        let operation = &document["paths"][path][&method];
        assert_eq!(operation["summary"], route["summary"], "{method} {path}");
        assert!(operation["tags"][0].is_string(), "{method} {path} has no tag");
        let declared: Vec<_> = operation["parameters"].as_array().into_iter().flatten().collect();
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let there = declared.iter().any(|declared| declared["name"] == name && declared["in"] == "path");
            assert!(there, "{method} {path} does not declare `{name}`");
        }
        let area = path.split('/').nth(2).unwrap();
        assert!(README.contains(&format!("/v1/{area}")), "the README does not name /v1/{area}");
    }
}
