//! `GET /v1/openapi.json`: what there is, written by hand and held against the list of routes.

use axum::response::Response;

use super::told::json_text;

/// OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    json_text(DOCUMENT.trim_end())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::routes;
    use super::super::way_in::Needs;
    use super::*;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("JSON")
    }

    #[test]
    fn it_tells_of_exactly_the_routes_there_are_and_who_may_use_them() {
        let document = document();
        let mut told = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                let is_public = operation["security"].as_array().is_some_and(Vec::is_empty);
                told.insert((method.to_uppercase(), path.clone(), is_public));
            }
        }
        let path = |path: &str| path.replace("{*path}", "{path}");
        let there: BTreeSet<_> = routes::all()
            .iter()
            .map(|route| (route.method.to_string(), path(route.path), route.needs == Needs::Nothing))
            .collect();
        assert_eq!(told, there);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_refusal_has_the_one_shape() {
        fn visit(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                        found.push(target.to_owned());
                    }
                    map.values().for_each(|value| visit(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| visit(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        visit(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for target in found {
            let place = target.strip_prefix('#').expect("of this document");
            assert!(document.pointer(place).is_some(), "{target}");
        }
        for (name, response) in document["components"]["responses"].as_object().expect("responses") {
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Refusal", "{name}");
        }
    }
}
