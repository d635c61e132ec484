//! The description against the running server: each operation is there and guarded as it says, and answers are as the
//! schemas say.

use serde_json::{Value, json};

use super::world::{EDGE, Engines, World};

/// What is wrong with a value, by the part of JSON Schema that the description uses.
fn fault(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.strip_prefix('#').unwrap();
        return fault(document, document.pointer(path).unwrap_or_else(|| panic!("{name} is nowhere")), value);
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type: {other}"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::String(kind) => is(kind),
        kinds => kinds.as_array().unwrap().iter().any(|kind| is(kind.as_str().unwrap())),
    };
    if !fits {
        return Some(format!("{value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    if let Some(object) = value.as_object() {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        if let Some(missing) = required.iter().find(|name| !object.contains_key(name.as_str().unwrap())) {
            return Some(format!("{missing} is missing in {value}"));
        }
        let properties = schema["properties"].as_object();
        for (name, inner) in object {
            if let Some(described) = properties.and_then(|properties| properties.get(name)) {
                if let Some(fault) = fault(document, described, inner) {
                    return Some(format!("{name}: {fault}"));
                }
            } else if properties.is_some_and(|properties| !properties.is_empty()) {
                return Some(format!("{name} is not described"));
            }
        }
    }
    let items = value.as_array().into_iter().flatten();
    items.filter(|_| schema["items"].is_object()).find_map(|item| fault(document, &schema["items"], item))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_what_the_server_does() {
    let world = World::one(Engines::Files);
    let document = world.get("/openapi.json").key("").send().await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path.replace(['{', '}'], "");
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let method: &'static str = Box::leak(method.to_uppercase().into_boxed_str());
            let ask = || world.other(method, &concrete).header("tus-resumable", "1.0.0").json(&json!({}));
            let answer = ask().key("").send().await;
            let guarded = !operation["security"].as_array().unwrap().is_empty();
            assert_eq!(answer.status == 401, guarded, "{method} {path}: {}", answer.status);
            assert_ne!(answer.status, 405, "{method} {path}");
            if guarded {
                // An edge's secret is no API key, and the other way round.
                let edge = operation["security"][0]["edge"].is_array();
                let wrong = if edge { ask().send().await } else { ask().key(EDGE).send().await };
                assert_eq!(wrong.status, 401, "{method} {path}");
            }
        }
    }
    assert!(operations > 35, "{operations}");

    // And nothing is there that is not described but what workers and edges speak, and the document itself.
    let routes = include_str!("../../src/origin/api/mod.rs");
    for route in routes.split(".route(").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
        let inside = route.starts_with("/v1/tasks/") || route.starts_with("/v/") || route == "/openapi.json";
        assert!(inside || document["paths"][route].is_object(), "{route} is not described");
    }

    let (course, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    let calls: Vec<(&'static str, String, String, Option<Value>)> = vec![
        ("get", "/v1/me".into(), "/v1/me".into(), None),
        ("post", "/v1/keys".into(), "/v1/keys".into(), Some(json!({ "role": "shop", "name": "s" }))),
        ("get", "/v1/keys".into(), "/v1/keys".into(), None),
        (
            "post",
            "/v1/keys/{id}/secrets".into(),
            "/v1/keys/admin/secrets".into(),
            Some(json!({ "expires": 4e9 as u64 })),
        ),
        ("get", "/v1/keys/{id}/secrets".into(), "/v1/keys/admin/secrets".into(), None),
        ("post", "/v1/keys/{id}/rotate".into(), "/v1/keys/admin/rotate".into(), Some(json!({ "overlap": "1h" }))),
        ("post", "/v1/courses".into(), "/v1/courses".into(), Some(json!({ "title": "x" }))),
        ("get", "/v1/courses".into(), "/v1/courses?limit=1".into(), None),
        ("get", "/v1/courses/{id}".into(), format!("/v1/courses/{course}"), None),
        ("patch", "/v1/courses/{id}".into(), format!("/v1/courses/{course}"), Some(json!({ "title": "y" }))),
        (
            "post",
            "/v1/courses/{id}/lessons".into(),
            format!("/v1/courses/{course}/lessons"),
            Some(json!({ "title": "z" })),
        ),
        ("get", "/v1/courses/{id}/lessons".into(), format!("/v1/courses/{course}/lessons"), None),
        ("get", "/v1/lessons/{id}".into(), format!("/v1/lessons/{lesson}"), None),
        ("patch", "/v1/lessons/{id}".into(), format!("/v1/lessons/{lesson}"), Some(json!({ "title": "t" }))),
        ("put", "/v1/entitlements".into(), "/v1/entitlements".into(), Some(json!({ "user": "eve", "course": course }))),
        ("get", "/v1/entitlements/{user}".into(), "/v1/entitlements/eve".into(), None),
        ("get", "/v1/audit".into(), "/v1/audit".into(), None),
        ("get", "/.well-known/jwks.json".into(), "/.well-known/jwks.json".into(), None),
        ("post", "/v1/tasks/lease".into(), "/v1/tasks/lease".into(), Some(json!({ "wait": 5 }))),
        ("delete", "/v1/courses/{id}".into(), format!("/v1/courses/{course}"), None),
    ];
    for (method, template, path, body) in calls {
        let operation = &document["paths"][&template][method];
        if let (Some(body), Some(schema)) = (&body, operation.pointer("/requestBody/content/application~1json/schema"))
        {
            assert_eq!(fault(&document, schema, body), None, "{method} {template}: what is sent");
        }
        let upper: &'static str = Box::leak(method.to_uppercase().into_boxed_str());
        let ask = world.other(upper, &path);
        let answer = match &body {
            Some(body) => ask.json(body).send().await,
            None => ask.send().await,
        };
        let described = &operation["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{method} {path}: {} is not described", answer.status);
        if let Some(schema) = described.pointer("/content/application~1json/schema") {
            assert_eq!(fault(&document, schema, &answer.json()), None, "{method} {template}");
        }
    }
    // Lists are walked as they are described, by `after`.
    for list in ["/v1/audit", "/v1/entitlements/ann", "/v1/keys", "/v1/courses"] {
        for number in 0..3 {
            let title = json!({ "title": format!("c{number}") });
            let course = world.post("/v1/courses").json(&title).send().await.expect(201).json();
            let entitlement = json!({ "user": "ann", "course": course["id"] });
            world.put("/v1/entitlements").json(&entitlement).send().await.expect(204);
            world.key("shop").await;
        }
        let whole = world.get(list).send().await.expect(200).json()["items"].as_array().unwrap().clone();
        let (mut walked, mut after) = (Vec::new(), String::new());
        for _ in 0..whole.len() {
            let page = world.get(&format!("{list}?limit=2{after}")).send().await.expect(200).json();
            assert!(page["items"].as_array().unwrap().len() <= 2);
            walked.extend(page["items"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(walked, whole, "{list}");
    }
    // What the router itself refuses is told like all else.
    for (method, path, status) in [
        ("GET", "/v1/courses?limit=abc", 400),
        ("GET", "/v1/courses?foo=1", 400),
        ("GET", "/v1/audit?after=x", 400),
        ("GET", "/v1/courses/%ff", 404),
        ("DELETE", "/v1/entitlements/%ff/x", 404),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/courses", 405),
    ] {
        let refusal = world.other(method, path).send().await.expect(status);
        assert_eq!(refusal.header("content-type"), "application/problem+json", "{method} {path}");
        assert_eq!(fault(&document, &document["components"]["schemas"]["Problem"], &refusal.json()), None);
        assert_eq!(refusal.header("allow").is_empty(), status != 405, "{method} {path}");
    }
    let tag = world.get("/openapi.json").send().await.header("etag").to_owned();
    world.get("/openapi.json").header("if-none-match", tag).send().await.expect(304);
    let refusal = world.get("/v1/lessons/none").send().await.expect(404).json();
    assert_eq!(fault(&document, &document["components"]["schemas"]["Problem"], &refusal), None);
}
