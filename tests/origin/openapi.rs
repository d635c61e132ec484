//! The description against the running server: each operation is there and guarded as it says, and answers are as the
//! schemas say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::world::{ADMIN, Answer, EDGE, Engines, World};
use crate::support::json_schema::fault;
use crate::support::repository;

/// An operation of the description.
struct Operation<'d> {
    path: &'d str,
    method: &'d str,
    said: &'d Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, said)| Operation { path, method, said })
        })
        .collect()
}

impl Operation<'_> {
    /// The names of its parameters in a place: `path`, `query`, `header`.
    fn parameters(&self, place: &str) -> BTreeSet<&str> {
        let all = self.said["parameters"].as_array().into_iter().flatten();
        all.filter(|one| one["in"] == place).map(|one| one["name"].as_str().unwrap()).collect()
    }

    /// What is wrong with an answer by the description.
    fn fault(&self, document: &Value, answer: &Answer) -> Option<String> {
        let responses = &self.said["responses"];
        let refused = answer.header("content-type") == "application/problem+json";
        let response = match &responses[answer.status.to_string()] {
            Value::Null if refused => &responses["default"],
            Value::Null => return Some(format!("{} is not described", answer.status)),
            response => response,
        };
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        let content = response["content"].as_object();
        if answer.body.is_empty() || self.method == "head" {
            return None;
        }
        let Some(described) = content.and_then(|content| content.get(kind).or_else(|| content.get("*/*"))) else {
            return Some(format!("{} with a body of {kind} is not described", answer.status));
        };
        if kind.ends_with("json") && described["schema"].is_object() {
            return fault(document, &described["schema"], &answer.json());
        }
        None
    }

    /// The header fields that the description promises with a status, and the answer does not have.
    fn missing_headers(&self, answer: &Answer) -> Vec<String> {
        let promised = self.said["responses"][answer.status.to_string()]["headers"].as_object();
        let names = promised.into_iter().flatten().map(|(name, _)| name.clone());
        names.filter(|name| answer.header(name).is_empty()).collect()
    }
}

async fn description(world: &World) -> Value {
    world.get("/openapi.json").key("").send().await.expect(200).json()
}

/// A method that lives as long as the stories.
fn method(name: &str) -> &'static str {
    Box::leak(name.to_uppercase().into_boxed_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_is_described_and_guarded_as_it_says() {
    let world = World::one(Engines::Files);
    let document = description(&world).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{ "url": world.url(0) }]));
    let operations = operations(&document);
    let ids: BTreeSet<&str> = operations.iter().map(|one| one.said["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "operationIds are unique");

    // A route comes with its description or not at all, and none is lost on the way.
    let routes = std::fs::read_to_string(repository("src/origin/api/mod.rs")).unwrap();
    for bare in [".route(", ".nest(", ".route_service(", ".nest_service("] {
        assert!(!routes.contains(bare), "{bare} adds a route without a description");
    }
    let handlers = routes.split("routes!(").skip(1).map(|rest| rest.split(')').next().unwrap());
    let handlers: usize = handlers.map(|list| list.split(',').filter(|one| !one.trim().is_empty()).count()).sum();
    assert_eq!(operations.len(), handlers, "each handler is one operation");

    for operation in &operations {
        let (path, said) = (operation.path, operation.said);
        let about = format!("{} {path}", operation.method);
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(in_path, operation.parameters("path"), "{about}");
        assert!(!said["summary"].as_str().unwrap_or_default().is_empty(), "{about} says what it is for");
        assert_eq!(said["tags"].as_array().map(Vec::len), Some(1), "{about}");
        assert!(said["responses"]["default"]["content"]["application/problem+json"].is_object(), "{about}");
        for (status, response) in said["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{about}: {status}");
        }

        let concrete = path.replace(['{', '}'], "");
        let verb = method(operation.method);
        let ask = || world.other(verb, &concrete).header("tus-resumable", "1.0.0").json(&json!({}));
        let answer = ask().key("").send().await;
        let guarded = !said["security"].as_array().unwrap().is_empty();
        assert_eq!(answer.status == 401, guarded, "{about}: {}", answer.status);
        assert_ne!(answer.status, 405, "{about}");
        assert_eq!(operation.fault(&document, &answer), None, "{about}");
        if guarded {
            // An edge's secret is no API key, and the other way round.
            let edge = said["security"][0]["edge"].is_array();
            let wrong = if edge { ask().send().await } else { ask().key(EDGE).send().await };
            assert_eq!(wrong.status, 401, "{about}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_schemas_say() {
    let world = World::one(Engines::Files);
    let document = description(&world).await;
    let operations = operations(&document);
    let by_id: BTreeMap<&str, &Operation<'_>> =
        operations.iter().map(|one| (one.said["operationId"].as_str().unwrap(), one)).collect();
    let (course, lesson) = world.lesson().await;
    world.post(&format!("/v1/lessons/{lesson}/media")).body("a recording").send().await.expect(202);
    let key = world.post("/v1/keys").json(&json!({ "role": "creator", "name": "k" })).send().await.expect(201).json();
    let key = key["id"].as_str().unwrap();
    let calls: Vec<(&str, String, Option<Value>)> = vec![
        ("getHealth", "/healthz".into(), None),
        ("getDescription", "/openapi.json".into(), None),
        ("getSigningKeys", "/.well-known/jwks.json".into(), None),
        ("login", "/v1/login".into(), Some(json!({ "key": ADMIN }))),
        ("logout", "/v1/logout".into(), None),
        ("getMe", "/v1/me".into(), None),
        ("createKey", "/v1/keys".into(), Some(json!({ "role": "shop", "name": "s" }))),
        ("listKeys", "/v1/keys".into(), None),
        ("getKey", format!("/v1/keys/{key}"), None),
        ("changeKey", format!("/v1/keys/{key}"), Some(json!({ "name": "m", "quota": 1_000 }))),
        ("addSecret", "/v1/keys/admin/secrets".into(), Some(json!({ "expires": 4_000_000_000_u64 }))),
        ("listSecrets", "/v1/keys/admin/secrets".into(), None),
        ("rotateKey", "/v1/keys/admin/rotate".into(), Some(json!({ "overlap": "1h" }))),
        ("createCourse", "/v1/courses".into(), Some(json!({ "title": "x" }))),
        ("listCourses", "/v1/courses?limit=1".into(), None),
        ("getCourse", format!("/v1/courses/{course}"), None),
        ("changeCourse", format!("/v1/courses/{course}"), Some(json!({ "title": "y" }))),
        ("createLesson", format!("/v1/courses/{course}/lessons"), Some(json!({ "title": "z" }))),
        ("listUploads", "/v1/uploads".into(), None),
        ("listLessons", format!("/v1/courses/{course}/lessons"), None),
        ("getLesson", format!("/v1/lessons/{lesson}"), None),
        ("changeLesson", format!("/v1/lessons/{lesson}"), Some(json!({ "title": "t" }))),
        ("retryLesson", format!("/v1/lessons/{lesson}/retry"), None),
        ("listSubtitles", format!("/v1/lessons/{lesson}/subtitles"), None),
        ("grantEntitlement", "/v1/entitlements".into(), Some(json!({ "user": "eve", "course": course }))),
        ("listEntitlements", "/v1/entitlements/eve".into(), None),
        ("startPlayback", "/v1/playback".into(), Some(json!({ "user": "eve", "lesson": lesson }))),
        ("withdrawEntitlement", format!("/v1/entitlements/eve/{course}"), None),
        ("listAudit", "/v1/audit".into(), None),
        ("followRevocations", "/v1/revocations".into(), None),
        ("leaseTask", "/v1/tasks/lease".into(), Some(json!({ "wait": 5 }))),
        ("leaseTask", "/v1/tasks/lease".into(), Some(json!({ "wait": 0 }))),
        ("deleteKey", format!("/v1/keys/{key}"), None),
        ("deleteLesson", format!("/v1/lessons/{lesson}"), None),
        ("deleteCourse", format!("/v1/courses/{course}"), None),
    ];
    for (id, path, body) in calls {
        let operation = by_id[id];
        if let Some(body) = &body {
            let schema = operation.said.pointer("/requestBody/content/application~1json/schema").unwrap();
            assert_eq!(fault(&document, schema, body), None, "{id}: what is sent");
        }
        let ask = || {
            let ask = world.other(method(operation.method), &path);
            let ask = if operation.said["security"][0]["edge"].is_array() { ask.key(EDGE) } else { ask };
            match &body {
                Some(body) => ask.json(body),
                None => ask,
            }
        };
        if operation.parameters("header").contains("If-Match") {
            let changed = ask().header("if-match", "\"another\"").send().await.expect(412);
            assert_eq!(operation.fault(&document, &changed), None, "{id}");
        }
        let answer = ask().send().await;
        assert_eq!(operation.fault(&document, &answer), None, "{id}");
        if operation.parameters("header").contains("If-None-Match") && answer.status == 200 {
            let unchanged = ask().header("if-none-match", answer.header("etag")).send().await.expect(304);
            assert_eq!((operation.fault(&document, &unchanged), operation.missing_headers(&unchanged)), (None, vec![]));
            assert_eq!(operation.missing_headers(&answer), Vec::<String>::new(), "{id}");
        }
        if operation.parameters("header").contains("Idempotency-Key") && answer.status < 300 {
            ask().header("idempotency-key", format!("of {id}")).send().await;
            let again = ask().header("idempotency-key", format!("of {id}")).send().await;
            assert_eq!((operation.fault(&document, &again), operation.missing_headers(&again)), (None, vec![]), "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_described_with_the_fields_of_tus() {
    let world = World::one(Engines::Files);
    let document = description(&world).await;
    let operations = operations(&document);
    let by_id = |id: &str| operations.iter().find(|one| one.said["operationId"] == id).unwrap();
    let holds = |id: &str, answer: &Answer, but: &[&str]| {
        let operation = by_id(id);
        assert_eq!(operation.fault(&document, answer), None, "{id}");
        assert_eq!(operation.missing_headers(answer), but, "{id}");
    };
    let (_, lesson) = world.lesson().await;
    let once = || world.create(&lesson, 9).header("idempotency-key", "an upload");
    once().send().await.expect(201);
    let made = once().send().await.expect(201);
    holds("createUpload", &made, &[]);
    let upload = made.header("location").to_owned();
    let proxied = once().header("x-forwarded-proto", "http").send().await.expect(201);
    assert_eq!(proxied.header("location"), format!("{}{upload}", world.url(0)), "a proxy may have changed the path");
    let asked = ["Upload-Concat", "Upload-Defer-Length"];
    holds("getUploadOffset", &world.head(&upload).send().await.expect(200), &asked);
    holds("getUpload", &world.get(&upload).header("tus-resumable", "1.0.0").send().await.expect(200), &asked);
    holds("appendToUpload", &world.patch(&upload, 0, b"four").send().await.expect(204), &[]);
    holds("appendToUpload", &world.patch(&upload, 0, b"four").send().await.expect(409), &[]);
    let renamed = world.post(&upload).header("x-http-method-override", "PATCH").header("tus-resumable", "1.0.0");
    let renamed = renamed.header("upload-offset", 4).header("content-type", "application/offset+octet-stream");
    holds("overrideMethod", &renamed.body("fi").send().await.expect(204), &[]);
    holds("getUploadOptions", &world.other("OPTIONS", "/v1/uploads").send().await.expect(204), &[]);
    holds("getOptionsOfUpload", &world.other("OPTIONS", &upload).send().await.expect(204), &[]);
    let end = || world.delete(&upload).header("tus-resumable", "1.0.0");
    holds("deleteUpload", &end().send().await.expect(204), &[]);
    holds("getUpload", &world.get(&upload).header("tus-resumable", "1.0.0").send().await.expect(410), &[]);
    for (id, name) in [
        ("createUpload", "Tus-Resumable"),
        ("createUpload", "Upload-Length"),
        ("createUpload", "Upload-Defer-Length"),
        ("createUpload", "Upload-Metadata"),
        ("createUpload", "Upload-Concat"),
        ("createUpload", "Idempotency-Key"),
        ("appendToUpload", "Upload-Offset"),
        ("appendToUpload", "Upload-Checksum"),
        ("getUploadOffset", "Tus-Resumable"),
        ("overrideMethod", "X-HTTP-Method-Override"),
    ] {
        assert!(by_id(id).parameters("header").contains(name), "{id} reads {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_walked_and_errors_told_as_described() {
    let world = World::one(Engines::Files);
    let document = description(&world).await;
    let problem = &document["components"]["schemas"]["Problem"];
    let codes = problem["properties"]["code"]["x-extensible-enum"].as_array().unwrap();
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
        assert_eq!(fault(&document, problem, &refusal.json()), None);
        assert!(codes.contains(&refusal.json()["code"]), "{}", refusal.code());
        assert_eq!(refusal.header("allow").is_empty(), status != 405, "{method} {path}");
    }
    // One for each stable name that a client may act on, sorted.
    assert!(codes.len() > 40 && codes.is_sorted_by(|a, b| a.as_str() < b.as_str()), "{codes:?}");
}

/// Runs a program of tests/client in a folder, with its packages: what it printed.
fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let packages = repository("tests/client/node_modules");
    assert!(packages.is_dir(), "{} is not there: run scripts/setup test", packages.display());
    let output = Command::new(program).args(arguments).current_dir(folder).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_generated_from_the_description_works() {
    let world = World::one(Engines::Files);
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository("tests/client/node_modules"), folder.path().join("node_modules")).unwrap();
    for file in ["course.mjs", "package.json"] {
        std::fs::copy(repository("tests/client").join(file), folder.path().join(file)).unwrap();
    }
    let document = world.get("/openapi.json").key("").send().await.expect(200);
    std::fs::write(folder.path().join("openapi.json"), &document.body).unwrap();
    let (origin, at) = (world.url(0), folder.path().to_owned());
    let told = tokio::task::spawn_blocking(move || {
        run_in(&at, "node_modules/.bin/openapi-typescript", &["openapi.json", "--output", "api.d.ts"]);
        let strictly =
            "--noEmit --allowJs --checkJs --strict --skipLibCheck --target es2022 --lib es2022,dom --module nodenext";
        let checked: Vec<&str> = strictly.split(' ').chain(["course.mjs"]).collect();
        run_in(&at, "node_modules/.bin/tsc", &checked);
        let types = std::fs::read_to_string(at.join("api.d.ts")).unwrap();
        let script = format!(
            "import('./course.mjs').then((client) => client.run('{origin}', '{ADMIN}')).then((told) => \
             console.log(JSON.stringify(told)))"
        );
        (run_in(&at, "node", &["--eval", &script]), types)
    });
    let (told, types) = told.await.unwrap();
    let parsed: Value = serde_json::from_slice(&document.body).unwrap();
    for operation in operations(&parsed) {
        let id = operation.said["operationId"].as_str().unwrap();
        assert!(types.contains(&format!("    {id}: {{")), "the generator dropped {id}");
    }
    assert_eq!(
        serde_json::from_str::<Value>(&told).unwrap(),
        json!({
            "state": "awaiting_upload", "unchanged": 304, "lost": "precondition_failed", "begun": 201, "appended": 204,
            "lessons": ["queued"], "refused": "not_found", "removed": 204,
        })
    );
}
