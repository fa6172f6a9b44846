//! Checks an answer against the OpenAPI document: the path, status and content type are in it, and the body fits its schema.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&spawnpoint_server::http::openapi_json().unwrap()).unwrap()
});
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
    LazyLock::new(Mutex::default);

fn matches(template: &str, path: &str) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    a.len() == b.len()
        && a.iter()
            .zip(&b)
            .all(|(t, p)| t == p || (t.starts_with('{') && !p.is_empty()))
}

fn validator(key: String, schema: &Value) -> &'static Validator {
    VALIDATORS.lock().unwrap().entry(key).or_insert_with(|| {
        let mut root = schema.clone();
        root["components"] = DOCUMENT["components"].clone();
        Box::leak(Box::new(jsonschema::validator_for(&root).unwrap()))
    })
}

/// Panics when the answer is not one the document promises.
pub(crate) fn check(method: &str, path: &str, status: u16, kind: &str, body: &Value) {
    let documented = DOCUMENT["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(t, item)| matches(t, path) && item.get(method).is_some())
        // A literal path wins over one with parameters.
        .min_by_key(|(t, _)| t.matches('{').count());
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    let Some((template, item)) = documented else {
        // Not an operation: only a problem (404, 405, refused host) may answer; pages are not the API's.
        if path.starts_with("/api/")
            && !path.starts_with("/api/docs")
            && path != "/api/openapi.json"
            && method != "options"
        {
            assert_eq!(kind, "application/problem+json", "{method} {path}");
            assert!(
                validator("problem".into(), &problem).is_valid(body),
                "{body}"
            );
        }
        return;
    };
    let at = format!("{method} {template} {status}");
    let responses = &item[method]["responses"];
    let class = format!("{}XX", status / 100);
    let described = responses
        .get(status.to_string())
        .or_else(|| responses.get(&class));
    let Some(described) = described else {
        panic!("{at} is not in the document")
    };
    let Some(content) = described["content"].as_object() else {
        return;
    };
    let bare = kind.split(';').next().unwrap();
    let Some(media) = content.get(bare) else {
        panic!("{at}: content type {kind:?} is not in the document: {content:?}")
    };
    if bare == "text/plain" || bare == "text/event-stream" {
        return;
    }
    let v = validator(format!("{at} {bare}"), &media["schema"]);
    let errors: Vec<String> = v
        .iter_errors(body)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(
        errors.is_empty(),
        "{at} does not fit its schema: {errors:?}\n{body:#}"
    );
}
