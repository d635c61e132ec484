//! The API's description, OpenAPI 3.1. `tests/origin/openapi.rs` calls each operation on a running server and checks the
//! answers against the schemas here.

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{self, ApiResult};

pub(super) async fn document(headers: HeaderMap) -> ApiResult {
    answer::tagged(StatusCode::OK, &headers, &build())
}

fn build() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = entry.as_object_mut() {
            methods.insert(operation.method.to_owned(), operation.describe());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Lyceum origin", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "paths": paths,
        "components": { "schemas": schemas(), "securitySchemes": {
            "key": { "type": "http", "scheme": "bearer", "description": "An API key." },
            "login": { "type": "apiKey", "in": "cookie", "name": "lyceum_login" },
            "edge": { "type": "http", "scheme": "bearer", "description": "The edges' secret, `edge_bearer`." },
        }},
    })
}

/// What an operation authenticates by.
#[derive(Clone, Copy)]
enum Credential {
    Public,
    Key,
    Edge,
}

struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    credential: Credential,
    body: Option<&'static str>,
    answer: (u16, Option<&'static str>),
}

impl Operation {
    fn describe(&self) -> Value {
        let security = match self.credential {
            Credential::Public => json!([]),
            Credential::Key => json!([{ "key": [] }, { "login": [] }]),
            Credential::Edge => json!([{ "edge": [] }]),
        };
        let content = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
        let mut answer = json!({ "description": self.summary });
        if let (Some(schema), Some(answer)) = (self.answer.1, answer.as_object_mut()) {
            answer.insert("content".to_owned(), content(schema));
        }
        let problem = json!({ "description": "An error (RFC 9457).", "content": { "application/problem+json":
            { "schema": { "$ref": "#/components/schemas/Problem" } } } });
        let mut described = json!({
            "summary": self.summary,
            "security": security,
            "parameters": self.parameters(),
            "responses": { self.answer.0.to_string(): answer, "default": problem },
        });
        if let (Some(schema), Some(described)) = (self.body, described.as_object_mut()) {
            described.insert("requestBody".to_owned(), json!({ "required": true, "content": content(schema) }));
        }
        if let (Some(kind), Some(described)) = (self.binary_body(), described.as_object_mut()) {
            described.insert("requestBody".to_owned(), json!({ "required": true, "content": { kind: {} } }));
        }
        described
    }

    /// The media type of a body that is a file or part of one.
    fn binary_body(&self) -> Option<&'static str> {
        match (self.method, self.path) {
            ("post", "/v1/lessons/{id}/media") => Some("video/*"),
            ("put", "/v1/lessons/{id}/subtitles/{language}") => Some("text/vtt"),
            ("patch", "/v1/uploads/{id}") => Some("application/offset+octet-stream"),
            _ => None,
        }
    }

    /// Path parameters from the braces of the path, and the headers and query parameters that the operation reads.
    fn parameters(&self) -> Value {
        let names = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut all: Vec<Value> = names
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let header = |name: &str, what: &str| json!({ "name": name, "in": "header", "schema": { "type": "string" }, "description": what });
        let creates = matches!(self.body, Some("NewKey" | "NewSecret" | "Rotation" | "Titled" | "NewPlayback"))
            || self.path.ends_with("/media")
            || self.path.ends_with("/retry")
            || self.path == "/v1/uploads";
        if creates && self.method == "post" {
            all.push(
                json!({ "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "maxLength": 200 } }),
            );
        }
        if self.method == "put" && self.path.contains("/subtitles/") {
            all.push(json!({ "name": "title", "in": "query", "schema": { "type": "string", "maxLength": 200 },
                "description": "What players call the track; default the name of its language." }));
        }
        let of_one = ["/v1/keys/{id}", "/v1/courses/{id}", "/v1/lessons/{id}"].contains(&self.path);
        let tagged =
            self.answer.1.is_some_and(|schema| matches!(schema, "Me" | "KeyPage" | "CoursePage" | "LessonPage"));
        if self.method == "get" && (of_one || tagged) {
            all.push(header("If-None-Match", "The `ETag` of an earlier answer: 304 when nothing has changed."));
        }
        if of_one && matches!(self.method, "patch" | "delete") {
            all.push(header("If-Match", "The `ETag` of what is to be changed: 412 when it has changed since."));
        }
        if self.method == "get" && self.answer.1.is_some_and(|schema| schema.ends_with("Page")) {
            all.push(json!({ "name": "after", "in": "query", "schema": { "type": "string" },
                "description": "`next` of the page before." }));
            all.push(json!({ "name": "limit", "in": "query", "schema": { "type": "integer", "minimum": 1 },
                "description": "The most items of a page; the origin has a limit of its own." }));
        }
        json!(all)
    }
}

fn operations() -> Vec<Operation> {
    let op =
        |method, path, summary, credential, body, answer| Operation { method, path, summary, credential, body, answer };
    use Credential::{Edge, Key, Public};
    vec![
        op("get", "/healthz", "Whether the origin is up.", Public, None, (200, None)),
        op(
            "get",
            "/.well-known/jwks.json",
            "The keys that tokens are signed with (RFC 7517).",
            Public,
            None,
            (200, Some("Jwks")),
        ),
        op("post", "/v1/login", "Exchange an API key for a page's cookie.", Public, Some("Login"), (200, Some("Me"))),
        op("post", "/v1/logout", "End a page's login.", Public, None, (204, None)),
        op("get", "/v1/me", "The key that the request carries, and what it may upload.", Key, None, (200, Some("Me"))),
        op("get", "/v1/keys", "API keys, without their secrets.", Key, None, (200, Some("KeyPage"))),
        op(
            "post",
            "/v1/keys",
            "Create an API key; its secret is shown only here.",
            Key,
            Some("NewKey"),
            (201, Some("Key")),
        ),
        op("get", "/v1/keys/{id}", "One API key.", Key, None, (200, Some("KeyShown"))),
        op(
            "patch",
            "/v1/keys/{id}",
            "Rename a key, or give it another quota.",
            Key,
            Some("KeyChange"),
            (200, Some("KeyShown")),
        ),
        op("delete", "/v1/keys/{id}", "Remove an API key and its logins.", Key, None, (204, None)),
        op("get", "/v1/keys/{id}/secrets", "An API key's secrets.", Key, None, (200, Some("SecretPage"))),
        op(
            "post",
            "/v1/keys/{id}/secrets",
            "Add a secret to an API key, beside those that it has; it is shown only here.",
            Key,
            Some("NewSecret"),
            (201, Some("MadeSecret")),
        ),
        op("delete", "/v1/keys/{id}/secrets/{secret}", "Remove a secret and its logins.", Key, None, (204, None)),
        op(
            "post",
            "/v1/keys/{id}/rotate",
            "Give an API key a new secret; those before end, at once or after `overlap`.",
            Key,
            Some("Rotation"),
            (201, Some("MadeSecret")),
        ),
        op("get", "/v1/courses", "Courses; a creator's own.", Key, None, (200, Some("CoursePage"))),
        op("post", "/v1/courses", "Create a course.", Key, Some("Titled"), (201, Some("Course"))),
        op("get", "/v1/courses/{id}", "One course.", Key, None, (200, Some("Course"))),
        op(
            "patch",
            "/v1/courses/{id}",
            "Rename a course, say whether its new lessons are encrypted, or give it to another owner.",
            Key,
            Some("CourseChange"),
            (200, Some("Course")),
        ),
        op("delete", "/v1/courses/{id}", "Remove a course with its lessons.", Key, None, (204, None)),
        op("get", "/v1/courses/{id}/lessons", "A course's lessons.", Key, None, (200, Some("LessonPage"))),
        op("post", "/v1/courses/{id}/lessons", "Create a lesson.", Key, Some("Titled"), (201, Some("Lesson"))),
        op("get", "/v1/lessons/{id}", "One lesson.", Key, None, (200, Some("Lesson"))),
        op(
            "patch",
            "/v1/lessons/{id}",
            "Rename a lesson, or say whether later uploads are encrypted.",
            Key,
            Some("Change"),
            (200, Some("Lesson")),
        ),
        op("delete", "/v1/lessons/{id}", "Remove a lesson: its playback ends at once.", Key, None, (204, None)),
        op(
            "get",
            "/v1/lessons/{id}/events",
            "The lesson whenever it changes: server-sent events `lesson`.",
            Key,
            None,
            (200, None),
        ),
        op("post", "/v1/lessons/{id}/media", "Upload a whole file in one body.", Key, None, (202, Some("Lesson"))),
        op(
            "post",
            "/v1/lessons/{id}/retry",
            "Try a lesson that failed again, from where its work stopped.",
            Key,
            None,
            (202, Some("Lesson")),
        ),
        op("get", "/v1/lessons/{id}/subtitles", "A lesson's subtitles.", Key, None, (200, Some("SubtitlePage"))),
        op(
            "put",
            "/v1/lessons/{id}/subtitles/{language}",
            "Add subtitles of a language or replace them: SubRip or WebVTT.",
            Key,
            None,
            (200, Some("SubtitlePage")),
        ),
        op("delete", "/v1/lessons/{id}/subtitles/{language}", "Remove subtitles.", Key, None, (204, None)),
        op("options", "/v1/uploads", "Version, extensions and limits of tus.", Public, None, (204, None)),
        op(
            "post",
            "/v1/uploads",
            "Create an upload by tus 1.0; metadata `lesson`, `filename` and `filetype`.",
            Key,
            None,
            (201, None),
        ),
        op("get", "/v1/uploads", "Unfinished uploads, the oldest first.", Key, None, (200, Some("UploadPage"))),
        op("head", "/v1/uploads/{id}", "The offset at which to continue.", Key, None, (200, None)),
        op("patch", "/v1/uploads/{id}", "Append bytes at an offset.", Key, None, (204, None)),
        op("delete", "/v1/uploads/{id}", "Abandon an upload.", Key, None, (204, None)),
        op("put", "/v1/entitlements", "Let a user watch a course.", Key, Some("Entitlement"), (204, None)),
        op("get", "/v1/entitlements/{user}", "The courses that a user may watch.", Key, None, (200, Some("IdPage"))),
        op(
            "delete",
            "/v1/entitlements/{user}/{course}",
            "Withdraw an entitlement; its sessions end.",
            Key,
            None,
            (204, None),
        ),
        op(
            "post",
            "/v1/playback",
            "Start a playback session: a token for an entitled user, and the playlists.",
            Key,
            Some("NewPlayback"),
            (201, Some("Playback")),
        ),
        op("delete", "/v1/sessions/{id}", "Revoke a session.", Key, None, (204, None)),
        op(
            "post",
            "/v1/sessions/{id}/lease",
            "Take or renew the lease of a session's stream.",
            Edge,
            None,
            (204, None),
        ),
        op(
            "get",
            "/v1/revocations",
            "Revocations and purges after position `after`; waits at most `wait` for the first.",
            Edge,
            None,
            (200, Some("Revocations")),
        ),
        op("get", "/v1/audit", "The audit log, the newest entry first.", Key, None, (200, Some("AuditPage"))),
        op("post", "/v1/tasks/lease", "Lease a task; 204 when there is none.", Key, Some("Wish"), (200, Some("Task"))),
        op("get", "/v1/tasks/{id}/source", "The recording, by ranges.", Key, None, (200, None)),
        op("put", "/v1/tasks/{id}/objects/{path}", "Upload an object of a task.", Key, None, (201, None)),
        op(
            "post",
            "/v1/tasks/{id}/heartbeat",
            "Renew the lease; objects made since the last heartbeat are committed.",
            Key,
            Some("Heartbeat"),
            (200, Some("Cancel")),
        ),
        op("post", "/v1/tasks/{id}/complete", "The task is done.", Key, Some("Completion"), (204, None)),
        op("post", "/v1/tasks/{id}/fail", "The task failed.", Key, Some("Failure"), (204, None)),
        op("get", "/v/{lesson}/{path}", "Media, for edges.", Edge, None, (200, None)),
    ]
}

/// An object schema; properties are required unless their name ends in `?`.
fn object(properties: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> =
        properties.iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn page(schema: Value) -> Value {
    object(&[
        ("items", json!({ "type": "array", "items": schema })),
        ("next", json!({ "type": ["string", "integer", "null"] })),
    ])
}

fn schemas() -> Value {
    let (text, whole, number) =
        (json!({ "type": "string" }), json!({ "type": "integer" }), json!({ "type": "number" }));
    let (truth, any) = (json!({ "type": "boolean" }), json!({}));
    let id = json!({ "type": "string", "pattern": "^[a-z0-9]{1,32}$" });
    let role = json!({ "type": "string", "enum": ["admin", "creator", "shop", "worker"] });
    let states = json!({ "type": "string", "enum": ["awaiting_upload", "uploading", "queued", "transcoding", "ready", "failed"] });
    let list = |schema: &Value| json!({ "type": "array", "items": schema });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let bytes = json!({ "type": ["integer", "null"], "minimum": 0 });
    let me = [("id", id.clone()), ("role", role.clone()), ("name", text.clone())];
    let key = [("id", id.clone()), ("role", role.clone()), ("name", text.clone()), ("quota", bytes.clone())];
    let time = json!({ "type": ["string", "null"], "format": "date-time" });
    let instant =
        json!({ "type": ["string", "integer", "null"], "description": "RFC 3339, or whole seconds since 1970." });
    let secret = [("id", id.clone()), ("created_at", time.clone()), ("expires_at", time)];
    let uploads =
        object(&[("size", whole.clone()), ("types", list(&text)), ("quota", bytes.clone()), ("used", bytes.clone())]);
    let rendition = object(&[("height", whole.clone()), ("codec", text.clone()), ("bandwidth", whole.clone())]);
    let title = json!({ "type": "string", "minLength": 1, "maxLength": 200 });
    let error = json!({ "type": ["object", "null"], "required": ["code", "detail"], "properties": { "code": text, "detail": text } });
    let warning = object(&[("code", text.clone()), ("detail", text.clone())]);
    json!({
        "Problem": object(&[("type", text.clone()), ("title", text.clone()), ("status", whole.clone()), ("code", text.clone()), ("detail", text.clone())]),
        "Jwks": object(&[("keys", list(&any))]),
        "Login": object(&[("key", text.clone())]),
        "Me": object(&me.into_iter().chain([("uploads?", uploads)]).collect::<Vec<_>>()),
        "NewKey": object(&[("role", role.clone()), ("name", text.clone()), ("quota?", bytes.clone())]),
        "KeyChange": object(&[("name?", text.clone()), ("quota?", bytes.clone())]),
        "Key": object(&key.iter().cloned().chain([("key", json!({ "type": ["string", "null"] }))]).collect::<Vec<_>>()),
        "KeyShown": object(&key),
        "KeyPage": page(reference("KeyShown")),
        "NewSecret": object(&[("expires?", instant.clone())]),
        "Rotation": object(&[("overlap?", json!({ "type": ["string", "null"], "description": "Such as 24h; from 0s, the default, to 90d." }))]),
        "MadeSecret": object(&secret.iter().cloned().chain([("key", json!({ "type": ["string", "null"] }))]).collect::<Vec<_>>()),
        "SecretPage": page(object(&secret)),
        "Titled": object(&[("title", title.clone()), ("encrypt?", json!({ "type": ["boolean", "null"] }))]),
        "Change": object(&[("title?", title.clone()), ("encrypt?", truth.clone())]),
        "CourseChange": object(&[("title?", title), ("encrypt?", truth.clone()), ("owner?", id.clone())]),
        "Course": object(&[("id", id.clone()), ("title", text.clone()), ("encrypt", truth.clone()), ("owner", text.clone())]),
        "CoursePage": page(reference("Course")),
        "Upload": object(&[
            ("id", id.clone()), ("owner", text.clone()), ("lesson", json!({ "type": ["string", "null"] })),
            ("kind", json!({ "type": "string", "enum": ["whole", "partial", "final"] })), ("filename", text.clone()),
            ("length", bytes.clone()), ("received", whole.clone()), ("writing", truth.clone()),
            ("created", text.clone()), ("expires", text.clone()),
        ]),
        "UploadPage": page(reference("Upload")),
        "Lesson": object(&[
            ("id", id.clone()), ("course", id.clone()), ("title", text.clone()), ("state", states), ("playable", truth.clone()),
            ("progress", json!({ "type": "number", "minimum": 0, "maximum": 1 })),
            ("duration", json!({ "type": ["number", "null"], "description": "Seconds." })),
            ("renditions", list(&rendition)), ("error", error), ("warnings", list(&warning)), ("version", json!({ "type": ["string", "null"] })), ("encrypt", truth.clone()),
        ]),
        "SubtitlePage": page(object(&[("language", text.clone()), ("title", text.clone()), ("embedded", truth.clone())])),
        "LessonPage": page(reference("Lesson")),
        "Entitlement": object(&[("user", text.clone()), ("course", id.clone()), ("expires?", instant)]),
        "IdPage": page(id.clone()),
        "NewPlayback": object(&[("user?", text.clone()), ("lesson", id.clone()), ("max_height?", whole.clone()), ("session?", id.clone()),
            ("client?", object(&[("ip", json!({ "type": "string", "description": "An address or a network, such as 203.0.113.0/24." }))])),
            ("preview?", json!({ "type": "number", "minimum": 1, "maximum": 3600 }))]),
        "Playback": object(&[("url", text.clone()), ("urls", list(&text)), ("token", text.clone()), ("session", id.clone()),
            ("expires_at", json!({ "type": "string", "format": "date-time" }))]),
        "Revocations": object(&[("next", whole), ("events", list(&object(&[])))]),
        "AuditPage": page(object(&[("at", text.clone()), ("actor", text.clone()), ("action", text.clone()), ("subject", text.clone()), ("detail", text.clone())])),
        "Wish": object(&[("wait?", number.clone())]),
        "Task": object(&[("id", id.clone()), ("spec", object(&[])), ("source", object(&[("url", text.clone())])), ("lease", text.clone()),
            ("lease_seconds", number.clone()), ("objects", object(&[("url", text.clone())]))]),
        "Heartbeat": object(&[("lease", text.clone()), ("progress?", number), ("handed?", list(&object(&[])))]),
        "Cancel": object(&[("cancel", truth.clone())]),
        "Completion": object(&[("lease", text.clone()), ("segments?", list(&object(&[]))), ("report?", json!({ "type": ["object", "null"] }))]),
        "Failure": object(&[("lease", text.clone()), ("code", text.clone()), ("detail?", text), ("retry?", truth)]),
    })
}
