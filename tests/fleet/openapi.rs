//! What `edge-cache` says of its admin API, against what the API answers.

use harness::origin::{Origin, Script};
use serde_json::{Value, json};

use super::pair;

/// A schema, or the one that it refers to.
fn resolved<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema };
    let pointer = reference.trim_start_matches('#');
    api.pointer(pointer).unwrap_or_else(|| panic!("{reference} is nowhere"))
}

/// Whether a value is of a type, or of one of several.
fn fits(kind: &Value, value: &Value) -> bool {
    let one = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => panic!("the type {kind}"),
    };
    match kind {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(one),
        kind => kind.as_str().is_none_or(one),
    }
}

/// Every field of the value is described, by its type, and every field described is there.
fn check(api: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolved(api, schema);
    assert!(fits(&schema["type"], value), "{at}: {value} is not of {}", schema["type"]);
    if let Some(known) = schema["enum"].as_array() {
        assert!(known.contains(value), "{at}: {value} is none of {known:?}");
    }
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                check(api, &schema["items"], value, &format!("{at}[{index}]"));
            }
        }
        Value::Object(fields) if schema["additionalProperties"].is_object() => {
            for (name, value) in fields {
                check(api, &schema["additionalProperties"], value, &format!("{at}.{name}"));
            }
        }
        Value::Object(fields) => {
            let none = serde_json::Map::new();
            let described = schema["properties"].as_object().unwrap_or(&none);
            for (name, value) in fields {
                let schema =
                    described.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
                check(api, schema, value, &format!("{at}.{name}"));
            }
            for name in described.keys() {
                assert!(fields.contains_key(name), "{at}.{name} is described, but not there");
            }
        }
        _ => {}
    }
}

#[test]
fn the_description_of_the_admin_api_has_every_field_that_is_answered() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("x").cache_control("max-age=60").field("Cache-Tag", "one"));
    let fleet = pair(&origin).start();
    let node = fleet.node("icn-1");
    node.get("/a");
    let api = node.admin_json("/v1/openapi.json");
    let answered = |method: &str, path: &str, body: &str| {
        let reply = node.admin_request(method, path, body);
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        serde_json::from_slice::<Value>(&reply.body).unwrap()
    };
    let compare = |method: &str, path: &str, described: &str, body: &str| {
        let value = answered(method, path, body);
        let described = &api["paths"][described][method.to_lowercase()];
        let schema = &described["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path} has no schema");
        check(&api, schema, &value, path);
        value
    };
    compare("GET", "/v1/status", "/v1/status", "");
    compare("GET", "/v1/report", "/v1/report", "");
    let url = "url=http://www.cdn.test/a";
    // What is stored, what is not, and what expects to fail.
    for query in
        [url, "url=http://www.cdn.test/b", &format!("{url}&header=Cache-Control:%20no-cache")]
    {
        compare("GET", &format!("/v1/explain?{query}"), "/v1/explain", "");
        compare("GET", &format!("/v1/object?{query}"), "/v1/object", "");
    }
    let stored = compare("GET", &format!("/v1/object?{url}"), "/v1/object", "");
    assert_eq!(stored["stored"][0]["tags"], json!(["one"]));
    let order = r#"{"urls": ["http://www.cdn.test/a"]}"#;
    let done = compare("POST", "/v1/purge", "/v1/purge", order);
    let id = format!("/v1/purge/{}", done["id"].as_str().unwrap());
    assert_eq!(compare("GET", &id, "/v1/purge/{id}", ""), done);
    let purged = compare("GET", &format!("/v1/object?{url}"), "/v1/object", "");
    assert_eq!(purged["purged"]["hard"], done["seq"]);
    compare("POST", "/v1/drain", "/v1/drain", "");
    compare("POST", "/v1/undrain", "/v1/undrain", "");
    compare("POST", "/v1/reload", "/v1/reload", "");
}
