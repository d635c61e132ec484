//! The API's description, OpenAPI 3.1: what handlers say of themselves, completed with what holds for all of them.
//! `tests/origin/openapi.rs` calls each operation on a running server and checks the answers against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::{ArrayItems, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, Header, InfoBuilder, License, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
    Server,
};

use super::answer::{self, ApiResult};
use super::codes::CODES;
use super::description::{self, IfNoneMatch, Problem};
use crate::state::App;

/// The description, as all origins of this version give it.
pub(super) type Described = Arc<OpenApi>;

/// What the names of the schemas of pages begin with.
const PAGE_OF: &str = "Page_";

/// Operations whose bodies may be left out; utoipa takes each body for required.
const OPTIONAL_BODIES: &[&str] = &["createUpload", "overrideMethod"];

/// This description of the API (OpenAPI 3.1).
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getDescription",
    tag = "service",
    security(()),
    params(IfNoneMatch),
    responses((status = 200, description = "The description.", body = Object))
)]
pub(super) async fn document(
    State(app): State<Arc<App>>,
    Extension(described): Extension<Described>,
    headers: HeaderMap,
) -> ApiResult {
    let mut document = OpenApi::clone(&described);
    document.servers = Some(vec![Server::new(app.config().public_url.clone())]);
    answer::shown(&headers, &document)
}

/// What stands before the routes.
pub(super) fn head() -> OpenApi {
    let mut licence = License::new("Apache-2.0");
    licence.identifier = Some("Apache-2.0".to_owned());
    let info = InfoBuilder::new()
        .title("Lyceum origin")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Courses, lessons, uploads, entitlements, playback sessions, and what workers and edges ask.",
        ))
        .license(Some(licence));
    let bearer = |what: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what));
        SecurityScheme::Http(scheme.build())
    };
    let login = ApiKeyValue::with_description("lyceum_login", "The cookie that `POST /v1/login` sets.");
    let components = ComponentsBuilder::new()
        .security_scheme("key", bearer("An API key."))
        .security_scheme("login", SecurityScheme::ApiKey(ApiKey::Cookie(login)))
        .security_scheme("edge", bearer("The edges' secret, `edge_bearer`."));
    OpenApiBuilder::new().info(info.build()).components(Some(components.build())).build()
}

/// The error with the codes that this version knows. Not as an `enum`: a client must not fail at a new one.
fn problem_schema() -> RefOr<Schema> {
    let mut schema = <Problem as utoipa::PartialSchema>::schema();
    if let RefOr::T(Schema::Object(problem)) = &mut schema
        && let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code")
    {
        code.extensions = Some(ExtensionsBuilder::new().add("x-extensible-enum", json!(CODES)).build());
    }
    schema
}

/// Completes what the handlers say of themselves.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let routes = std::mem::take(&mut document.paths.paths);
    for (route, mut item) in routes {
        for operation in operations(&mut item) {
            complete_operation(operation);
        }
        // A rest of a path is a parameter like any other to OpenAPI.
        document.paths.paths.insert(route.replace("{*", "{"), item);
    }
    if let Some(components) = &mut document.components {
        name_items(&mut components.schemas);
        components.schemas.insert(Problem::name().into_owned(), problem_schema());
    }
    document
}

/// Lets pages refer to what is in them by its name: `Page_Key` to `Key`.
fn name_items(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let pages: Vec<String> = schemas.keys().filter(|name| name.starts_with(PAGE_OF)).cloned().collect();
    for page in pages {
        let item = page.trim_start_matches(PAGE_OF).to_owned();
        if let Some(RefOr::T(Schema::Object(page))) = schemas.get_mut(&page)
            && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
            && let ArrayItems::RefOrSchema(inline) = &mut items.items
        {
            let named = std::mem::replace(&mut **inline, RefOr::Ref(Ref::from_schema_name(&item)));
            schemas.entry(item).or_insert(named);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, .. } = item;
    [get, put, post, delete, options, head, patch].into_iter().flatten()
}

fn complete_operation(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        // A header field is there or not; it is never null.
        if let RefOr::T(Parameter { schema: Some(RefOr::T(Schema::Object(value))), .. }) = parameter
            && let SchemaType::Array(kinds) = &value.schema_type
            && let Some(kind) = kinds.iter().find(|kind| **kind != Type::Null)
        {
            value.schema_type = SchemaType::Type(kind.clone());
        }
    }
    if operation.operation_id.as_deref().is_some_and(|id| OPTIONAL_BODIES.contains(&id))
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = None;
    }
    let by = |scheme: &str| SecurityRequirement::new::<_, [&str; 0], _>(scheme, []);
    let security = operation.security.take().unwrap_or_else(|| vec![by("key"), by("login")]);
    // `security(())` at a handler: anybody.
    let security: Vec<_> = security.into_iter().filter(|one| *one != SecurityRequirement::default()).collect();
    if !security.is_empty() {
        refuse(operation, "401", "No credential, or not this one: `unauthenticated`.");
    }
    operation.security = Some(security);
    let reads = |operation: &Operation, name: &str| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| matches!(parameter, RefOr::T(Parameter { name: given, .. }) if given == name))
    };
    if reads(operation, "If-None-Match") {
        let unchanged = ResponseBuilder::new().description("Nothing has changed since.").header("ETag", entity_tag());
        operation.responses.responses.insert("304".to_owned(), RefOr::T(unchanged.build()));
    }
    if reads(operation, "If-Match") {
        refuse(operation, "412", "It has changed since: `precondition_failed`.");
    }
    let tagged = reads(operation, "If-None-Match") || reads(operation, "If-Match");
    let repeatable = reads(operation, "Idempotency-Key");
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if tagged && matches!(status.as_str(), "200" | "206") {
            response.headers.entry("ETag".to_owned()).or_insert_with(|| RefOr::T(entity_tag()));
        }
        if repeatable && status.starts_with('2') {
            let replayed = text_header("`true` where this answers a repetition.");
            response.headers.insert("Idempotency-Replayed".to_owned(), RefOr::T(replayed));
        }
    }
    refuse(operation, "default", "An error; `code` says which.");
}

/// Adds an error under a status.
fn refuse(operation: &mut Operation, status: &str, what: &str) {
    let mut problem = description::problem(what);
    if status == "default" {
        problem =
            problem.header("Retry-After", text_header("Seconds until a repetition may succeed; with 503 and 429."));
    }
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::<Response>::T(problem.build()));
}

fn entity_tag() -> Header {
    text_header("The entity tag (RFC 9110, section 8.8.3).")
}

fn text_header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    HeaderBuilder::new().schema(Some(text)).description(Some(description)).build()
}
