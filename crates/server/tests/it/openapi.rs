//! The OpenAPI document itself.

use serde_json::Value;

fn document() -> Value {
    serde_json::from_str(&spawnpoint_server::http::openapi_json().unwrap()).unwrap()
}

#[test]
fn it_is_openapi_3_1_and_every_reference_resolves() {
    let doc = document();
    assert!(
        doc["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        doc["openapi"]
    );
    let mut refs = Vec::new();
    collect(&doc, &mut refs);
    assert!(refs.len() > 50);
    for r in refs {
        let pointer = r.strip_prefix('#').unwrap();
        assert!(doc.pointer(pointer).is_some(), "{r} leads nowhere");
    }
}

fn collect(v: &Value, out: &mut Vec<String>) {
    match v {
        Value::Object(o) => {
            if let Some(Value::String(r)) = o.get("$ref") {
                out.push(r.clone());
            }
            o.values().for_each(|v| collect(v, out));
        }
        Value::Array(a) => a.iter().for_each(|v| collect(v, out)),
        _ => {}
    }
}

#[test]
fn every_operation_is_described_and_answers_problems() {
    let doc = document();
    let mut n = 0;
    let mut names = std::collections::HashSet::new();
    for (path, item) in doc["paths"].as_object().unwrap() {
        for (method, op) in item.as_object().unwrap() {
            n += 1;
            let at = format!("{method} {path}");
            assert!(
                op["summary"].as_str().is_some_and(|s| !s.is_empty()),
                "{at} has no summary"
            );
            let name = op["operationId"].as_str().unwrap();
            assert!(
                names.insert(name.to_owned()),
                "{name} names two operations: generated clients would lose one"
            );
            assert!(
                op["tags"].as_array().is_some_and(|t| t.len() == 1),
                "{at} has no tag"
            );
            let plain = ["/healthz", "/readyz"].contains(&path.as_str());
            assert!(
                plain || op["responses"].get("4XX").is_some(),
                "{at} does not say how it fails"
            );
        }
    }
    assert!(n >= 25, "{n} operations");
}

#[test]
fn every_property_is_explained() {
    let doc = document();
    let mut silent = Vec::new();
    for (name, schema) in doc["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            // Beside a reference the words stand in the choice between it and null.
            let said = |v: &Value| v.get("description").is_some() || v.get("$ref").is_some();
            if !said(property)
                && !property["oneOf"]
                    .as_array()
                    .is_some_and(|o| o.iter().any(said))
            {
                silent.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(silent.is_empty(), "without a description: {silent:?}");
}

/// The committed document is the one the code serves. `SPAWNPOINT_REWRITE=1 cargo test` rewrites it.
#[test]
fn the_committed_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let now = spawnpoint_server::http::openapi_json().unwrap();
    if std::env::var_os("SPAWNPOINT_REWRITE").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/openapi.json is not current: SPAWNPOINT_REWRITE=1 cargo test -p spawnpoint-server"
    );
}
