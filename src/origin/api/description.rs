//! What operations of the API's description share: ids, roles, errors, and header fields of requests. The shapes of one
//! resource are described beside its handlers; `openapi` puts all together.

#![allow(dead_code, reason = "shapes that are described here, and read or written elsewhere")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

/// What names a course, a lesson, a key and so on.
pub(super) enum Id {}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        let described = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .pattern(Some("^[a-z0-9]{1,32}$"))
            .description(Some("What names a course, a lesson, a key and so on."));
        described.into()
    }
}

impl ToSchema for Id {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Id")
    }
}

/// A file or a part of one.
pub(super) enum Bytes {}

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).format(Some(binary)).into()
    }
}

impl ToSchema for Bytes {}

/// What a key may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Role {
    Admin,
    Creator,
    Shop,
    Worker,
}

/// What an upload is made of.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum UploadKind {
    /// A file.
    Whole,
    /// A part of one.
    Partial,
    /// Parts that were joined.
    Final,
}

/// A point in time.
#[derive(serde::Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Instant {
    /// RFC 3339.
    Text(String),
    /// Whole seconds since 1970.
    Seconds(i64),
}

/// An error (RFC 9457).
#[derive(ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: `code` says more.
    #[schema(rename = "type")]
    kind: String,
    /// The reason phrase of the status.
    title: String,
    /// The status code.
    status: u16,
    /// What is wrong, for programs. A code keeps its meaning; new ones may come.
    code: String,
    /// What is wrong, for people.
    detail: String,
}

/// The keys that tokens are signed with (RFC 7517, section 5).
#[derive(ToSchema)]
pub(super) struct Jwks {
    /// Public keys.
    #[schema(value_type = Vec<Object>)]
    keys: (),
}

/// For a request that may come again because its answer was lost.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct IdempotencyKey {
    /// The same request under the same key has its effect once; it is answered again as the first time, with
    /// `Idempotency-Replayed: true`. Another request under the key: 422 `idempotency_key_reused`.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 200)]
    key: Option<String>,
}

/// For a GET whose answer the client may have.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct IfNoneMatch {
    /// The `ETag` of an earlier answer: 304 when nothing has changed (RFC 9110, section 13.1.2).
    #[param(rename = "If-None-Match")]
    tag: Option<String>,
}

/// For a change of what the client has read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct IfMatch {
    /// The `ETag` of what is to be changed: 412 when it has changed since (RFC 9110, section 13.1.1).
    #[param(rename = "If-Match")]
    tag: Option<String>,
}

/// For a part of an object.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Range {
    /// One range of bytes: `bytes=0-1023` (RFC 9110, section 14.2).
    #[param(rename = "Range")]
    range: Option<String>,
}

/// The lease that a worker holds its task by.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct LeaseOfTask {
    /// `lease` of the answer that gave the task.
    #[param(rename = "Lyceum-Lease")]
    lease: String,
}

/// The version of tus that a client speaks.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct TusResumable {
    /// `1.0.0`; another version: 412 `tus_version`.
    #[param(rename = "Tus-Resumable", pattern = "^1\\.0\\.0$")]
    version: String,
}

/// What a new upload is (tus 1.0, extensions creation, creation-defer-length, creation-with-upload, concatenation).
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct TusCreation {
    /// Bytes of the whole upload; not for a final one.
    #[param(rename = "Upload-Length")]
    length: Option<u64>,
    /// `1` in place of a length that is not known yet.
    #[param(rename = "Upload-Defer-Length")]
    defer: Option<String>,
    /// Pairs of a key and a value in base64, separated by commas: `lesson` (its id, required unless this is a partial
    /// upload), `filename`, `filetype`.
    #[param(rename = "Upload-Metadata")]
    metadata: Option<String>,
    /// `partial`, or `final;` and the URLs of partial uploads, separated by spaces.
    #[param(rename = "Upload-Concat")]
    concat: Option<String>,
    /// Of the bytes in this request's body: an algorithm and the sum in base64.
    #[param(rename = "Upload-Checksum")]
    checksum: Option<String>,
}

/// What a PATCH of an upload appends.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct TusAppend {
    /// Where the bytes begin: what HEAD says. Another offset: 409 `offset_mismatch` with the right one.
    #[param(rename = "Upload-Offset")]
    offset: u64,
    /// Bytes of the whole upload, where its creation deferred them.
    #[param(rename = "Upload-Length")]
    length: Option<u64>,
    /// An algorithm and the sum in base64; another sum: 460 `checksum_mismatch`, and nothing is kept.
    #[param(rename = "Upload-Checksum")]
    checksum: Option<String>,
}

/// For clients behind proxies that know neither PATCH nor DELETE.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct MethodOverride {
    /// `PATCH` or `DELETE`.
    #[param(rename = "X-HTTP-Method-Override")]
    method: String,
    /// With `PATCH`: where the bytes begin.
    #[param(rename = "Upload-Offset")]
    offset: Option<u64>,
    /// With `PATCH`: bytes of the whole upload, where its creation deferred them.
    #[param(rename = "Upload-Length")]
    length: Option<u64>,
    /// With `PATCH`: an algorithm and the sum in base64.
    #[param(rename = "Upload-Checksum")]
    checksum: Option<String>,
}

/// How an upload that can't be continued is refused.
pub(super) enum NoUpload {}

impl IntoResponses for NoUpload {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refusals = [
            ("404", "There is no such upload: `upload_not_found`."),
            ("410", "It was ended, by its client or as it grew too old: `upload_gone`."),
        ];
        refusals.map(|(status, what)| (status.to_owned(), RefOr::T(problem(what).build()))).into()
    }
}

/// The response of an error.
pub(super) fn problem(description: &str) -> ResponseBuilder {
    let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
    ResponseBuilder::new().description(description).content("application/problem+json", content)
}
