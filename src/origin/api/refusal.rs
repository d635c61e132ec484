//! Why a request is refused, and the one table of what the client gets: status, stable code, sentence. The cause goes to
//! the log. Errors of the layers below are mapped here and nowhere else.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::access::AccessError;
use crate::identities::IdentityError;
use crate::ingest::beginning::BeginError;
use crate::ingest::error::IngestError;
use crate::ingest::quota::WrongType;
use crate::ingest::subtitles::SubtitlesError;
use crate::keys::sealing::SealError;
use crate::playback::error::PlaybackError;
use crate::waiting::Full;
use lyceum_http::problem;
use lyceum_packaging::subtitles::FileError;
use lyceum_storage::db::DbError;
use lyceum_storage::store::StoreError;
use lyceum_storage::upload::UploadError;
use lyceum_storage::upload::headers::HeaderError;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no credential")]
    Unauthenticated,
    #[error("the role may not do that")]
    Forbidden,
    #[error("a page of another site asked with a cookie")]
    CrossSite,
    #[error("there is nothing here")]
    NotFound,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unprocessable(String),
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the media type is not accepted")]
    UnsupportedType,
    #[error("not made yet")]
    NotReady,
    #[error("the type {0} is not accepted")]
    UploadType(String),
    #[error("{used} of {bytes} bytes are used")]
    QuotaExceeded { bytes: u64, used: u64 },
    #[error(transparent)]
    Subtitles(FileError),
    #[error("the lesson has no plan yet")]
    NotPlanned,
    #[error("the lesson has not failed")]
    NotFailed,
    #[error("another try would end as the first one did")]
    NothingToRetry,
    #[error("the same upload is in progress")]
    UnderWay,
    #[error("an idempotency key was used for another request")]
    KeyReused,
    #[error("the lease was lost")]
    LeaseLost,
    #[error("too many waiting requests")]
    Busy,
    #[error("too many wrong credentials came from the client's address")]
    TooManyAttempts { wait: std::time::Duration },
    #[error("{limit} event streams of this key are open")]
    TooManyWaiting { limit: u64 },
    #[error("unsupported version of tus")]
    TusVersion,
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    #[error("the program is shutting down")]
    Draining,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Identity(IdentityError),
    #[error(transparent)]
    Playback(PlaybackError),
    #[error(transparent)]
    Upload(UploadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{0}")]
    Internal(String),
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Forbidden => Self::Forbidden,
            AccessError::NotFound => Self::NotFound,
            AccessError::Db(error) => Self::Db(error),
        }
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unknown => Self::NotFound,
            IdentityError::Db(error) => Self::Db(error),
            other => Self::Identity(other),
        }
    }
}

impl From<PlaybackError> for Refusal {
    fn from(error: PlaybackError) -> Self {
        match error {
            PlaybackError::Access(error) => error.into(),
            PlaybackError::Db(error) => Self::Db(error),
            PlaybackError::UnknownSession => Self::NotFound,
            other => Self::Playback(other),
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Purpose => Self::Busy,
            Full::Key { limit } => Self::TooManyWaiting { limit },
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) => Self::Store(error),
            UploadError::Db(error) => Self::Db(error),
            other => Self::Upload(other),
        }
    }
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::LeaseLost => Self::LeaseLost,
            IngestError::NotFailed => Self::NotFailed,
            IngestError::NothingToRetry => Self::NothingToRetry,
            IngestError::InvalidReport(sentence) => Self::Unprocessable(sentence),
            IngestError::InvalidPath => Self::NotFound,
            IngestError::Upload(error) => Self::Upload(error),
            IngestError::Store(error) => Self::Store(error),
            IngestError::Db(error) => Self::Db(error),
            IngestError::Seal(error) => Self::Seal(error),
            IngestError::Internal(cause) => Self::Internal(cause),
        }
    }
}

impl From<BeginError> for Refusal {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Access(error) => error.into(),
            BeginError::OverQuota(quota) => Self::QuotaExceeded { bytes: quota.bytes, used: quota.used },
            BeginError::Upload(error) => Self::Upload(error),
            BeginError::Store(error) => Self::Store(error),
            BeginError::Db(error) => Self::Db(error),
        }
    }
}

impl From<WrongType> for Refusal {
    fn from(WrongType(kind): WrongType) -> Self {
        Self::UploadType(kind)
    }
}

impl From<SubtitlesError> for Refusal {
    fn from(error: SubtitlesError) -> Self {
        match error {
            SubtitlesError::Access(error) => error.into(),
            SubtitlesError::InvalidLanguage => Self::Invalid("A language is a tag such as `en` or `pt-BR`.".to_owned()),
            SubtitlesError::NotPlanned => Self::NotPlanned,
            SubtitlesError::File(error) => Self::Subtitles(error),
            SubtitlesError::TooMany => Self::Unprocessable("A lesson has at most 32 tracks of subtitles.".to_owned()),
            SubtitlesError::NoSuchTrack => Self::NotFound,
            SubtitlesError::Contended => Self::Busy,
            SubtitlesError::Store(error) => Self::Store(error),
            SubtitlesError::Db(error) => Self::Db(error),
            SubtitlesError::Ingest(error) => error.into(),
        }
    }
}

/// The status of tus for a body that does not match its checksum.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
}

impl Refusal {
    /// Status, code and sentence.
    pub(crate) fn describe(&self) -> (StatusCode, &'static str, String) {
        use StatusCode as S;
        let say = |status, code, text: &str| (status, code, text.to_owned());
        match self {
            Self::Unauthenticated => {
                say(S::UNAUTHORIZED, "unauthenticated", "Show an API key as Authorization: Bearer, or log in.")
            }
            Self::Forbidden => say(S::FORBIDDEN, "forbidden", "This key's role may not do that."),
            Self::CrossSite => say(
                S::FORBIDDEN,
                "cross_site",
                "A page of another site can't use this login; it needs an API key of its own.",
            ),
            Self::NotFound => say(S::NOT_FOUND, "not_found", "There is nothing of that name here."),
            Self::Invalid(what) => (S::BAD_REQUEST, "invalid_request", what.clone()),
            Self::Unprocessable(what) => (S::UNPROCESSABLE_ENTITY, "unprocessable", what.clone()),
            Self::BodyTooLarge => {
                say(S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than the limit here.")
            }
            Self::UnsupportedType => {
                say(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "This Content-Type is not accepted here.")
            }
            Self::NotReady => {
                say(S::NOT_FOUND, "not_ready", "This has not been made yet; it appears while the lesson is transcoded.")
            }
            Self::UploadType(kind) => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "upload_type_refused",
                format!("A recording is video or audio; {kind} is not accepted."),
            ),
            Self::QuotaExceeded { bytes, used } => (
                S::FORBIDDEN,
                "quota_exceeded",
                format!(
                    "This key may keep {bytes} bytes of recordings and keeps {used}; delete lessons, or ask for more."
                ),
            ),
            Self::Subtitles(error) => (S::UNPROCESSABLE_ENTITY, error.code(), error.to_string()),
            Self::NotPlanned => {
                say(S::CONFLICT, "not_planned", "The recording has not been analysed yet; add subtitles after that.")
            }
            Self::NotFailed => {
                say(S::CONFLICT, "not_failed", "The lesson has not failed: there is nothing to try again.")
            }
            Self::NothingToRetry => say(
                S::CONFLICT,
                "nothing_to_retry",
                "No step of this recording can be retried; upload another recording.",
            ),
            Self::UnderWay => say(S::CONFLICT, "upload_under_way", "The same upload is in progress; wait for its end."),
            Self::KeyReused => say(
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request.",
            ),
            Self::LeaseLost => say(S::CONFLICT, "lease_lost", "The lease of this task was lost; stop working on it."),
            Self::Busy => say(S::SERVICE_UNAVAILABLE, "busy", "Too many requests wait here; try again in a moment."),
            Self::TooManyAttempts { .. } => say(
                S::TOO_MANY_REQUESTS,
                "too_many_attempts",
                "Too many wrong keys came from this address; try again later.",
            ),
            Self::TooManyWaiting { limit } => (
                S::TOO_MANY_REQUESTS,
                "too_many_waiting",
                format!("This key has {limit} event streams open, and no more may be; close one."),
            ),
            Self::TusVersion => say(S::PRECONDITION_FAILED, "tus_version", "Tus-Resumable must be 1.0.0."),
            Self::PreconditionFailed => say(
                S::PRECONDITION_FAILED,
                "precondition_failed",
                "The resource is not in the state that the request requires.",
            ),
            Self::Draining => {
                say(S::SERVICE_UNAVAILABLE, "draining", "This origin is shutting down; ask another one or try again.")
            }
            Self::Header(error) => (S::BAD_REQUEST, "invalid_header", format!("{error}.")),
            Self::Identity(error) => describe_identity(error),
            Self::Playback(error) => describe_playback(error),
            Self::Upload(error) => describe_upload(error),
            Self::Store(StoreError::NotFound) => say(S::NOT_FOUND, "not_found", "There is nothing of that name here."),
            Self::Store(StoreError::RangeNotSatisfiable { size }) => {
                (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", format!("There are {size} bytes."))
            }
            Self::Store(StoreError::Source(_)) => say(S::BAD_REQUEST, "body_incomplete", "The body broke off."),
            Self::Store(StoreError::Full(_)) => say(S::INSUFFICIENT_STORAGE, "store_full", "The object store is full."),
            // What was lost of an upload is told as `upload_lost`; an object can be sent again.
            Self::Store(StoreError::Unavailable(_) | StoreError::Held | StoreError::Lost(_)) => say(
                S::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The object store does not answer; try again in a moment.",
            ),
            Self::Store(StoreError::Refused(_)) | Self::Internal(_) | Self::Seal(_) => {
                say(S::INTERNAL_SERVER_ERROR, "internal", "Something is wrong with this origin; its log says what.")
            }
            Self::Db(DbError::Unavailable(_)) => say(
                S::SERVICE_UNAVAILABLE,
                "database_unavailable",
                "The database does not answer; try again in a moment.",
            ),
            Self::Db(DbError::NulInText) => {
                say(S::BAD_REQUEST, "invalid_request", "A text of the request holds the character NUL.")
            }
            Self::Db(DbError::Duplicate(_)) => say(S::CONFLICT, "conflict", "This exists already."),
            Self::Db(_) => {
                say(S::INTERNAL_SERVER_ERROR, "internal", "Something is wrong with this origin; its log says what.")
            }
        }
    }
}

fn describe_identity(error: &IdentityError) -> (StatusCode, &'static str, String) {
    use StatusCode as S;
    let say = |status, code, text: &str| (status, code, text.to_owned());
    match error {
        IdentityError::LastAdmin => say(
            S::CONFLICT,
            "last_admin",
            "This is the last secret of an admin that has no end; give an admin another one first.",
        ),
        IdentityError::TooManySecrets(has) => {
            (S::CONFLICT, "too_many_secrets", format!("This key has {has} secrets; remove one first."))
        }
        IdentityError::EndsInPast => say(S::BAD_REQUEST, "invalid_request", "`expires` lies in the past."),
        IdentityError::NotAnOwner => {
            say(S::BAD_REQUEST, "invalid_request", "`owner` is the id of a key of the role creator or admin.")
        }
        // Told as what they carry; see `From<IdentityError>`.
        IdentityError::Unknown | IdentityError::Db(_) => {
            say(S::INTERNAL_SERVER_ERROR, "internal", "Something is wrong with this origin; its log says what.")
        }
    }
}

fn describe_playback(error: &PlaybackError) -> (StatusCode, &'static str, String) {
    use StatusCode as S;
    let say = |status, code, text: &str| (status, code, text.to_owned());
    match error {
        PlaybackError::NotEntitled => {
            say(S::FORBIDDEN, "not_entitled", "This user has no entitlement to the lesson's course.")
        }
        PlaybackError::NotPlayable => say(S::CONFLICT, "not_playable", "The lesson can't be played yet."),
        PlaybackError::InvalidPreview => say(S::BAD_REQUEST, "invalid_request", "A preview has 1 to 3600 seconds."),
        PlaybackError::InvalidClientNetwork => {
            say(S::BAD_REQUEST, "invalid_request", "`client.ip` is an address, or a network such as 203.0.113.0/24.")
        }
        PlaybackError::Token(error) => {
            (S::BAD_REQUEST, "invalid_request", format!("The token can't be made: {error}."))
        }
        PlaybackError::TooManyStreams => {
            say(S::CONFLICT, "too_many_streams", "The viewer watches as many streams as allowed.")
        }
        PlaybackError::SessionOver => say(S::CONFLICT, "session_revoked", "The session was revoked or is over."),
        // Told as what they carry; see `From<PlaybackError>`.
        PlaybackError::UnknownSession | PlaybackError::Access(_) | PlaybackError::Db(_) => {
            say(S::INTERNAL_SERVER_ERROR, "internal", "Something is wrong with this origin; its log says what.")
        }
    }
}

fn describe_upload(error: &UploadError) -> (StatusCode, &'static str, String) {
    use StatusCode as S;
    let (status, code) = match error {
        UploadError::NotFound => (S::NOT_FOUND, "upload_not_found"),
        UploadError::Gone => (S::GONE, "upload_gone"),
        UploadError::Lost => (S::GONE, "upload_lost"),
        UploadError::WrongOffset { .. } => (S::CONFLICT, "offset_mismatch"),
        UploadError::TooLong => (S::PAYLOAD_TOO_LARGE, "body_exceeds_upload"),
        UploadError::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "upload_too_large"),
        UploadError::OverQuota => (S::FORBIDDEN, "quota_exceeded"),
        UploadError::TooMany { .. } => (S::TOO_MANY_REQUESTS, "too_many_uploads"),
        UploadError::WrongLength => (S::BAD_REQUEST, "length_mismatch"),
        UploadError::ChecksumMismatch => (checksum_mismatch(), "checksum_mismatch"),
        UploadError::Superseded => (S::CONFLICT, "upload_superseded"),
        UploadError::BrokenBody(_) => (S::BAD_REQUEST, "body_incomplete"),
        UploadError::WrongPart(_) => (S::BAD_REQUEST, "wrong_part"),
        UploadError::NotWritable => (S::FORBIDDEN, "upload_not_writable"),
        UploadError::Store(_) | UploadError::Db(_) => (S::INTERNAL_SERVER_ERROR, "internal"),
    };
    let text = error.to_string();
    let mut letters = text.chars();
    let sentence = letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>());
    (status, code, format!("{}.", sentence.unwrap_or_default()))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, detail) = self.describe();
        if status.is_server_error() && !matches!(self, Self::Draining | Self::Busy) {
            tracing::error!(code, error = %self, "a request failed");
        } else {
            tracing::debug!(code, error = %self, "a request was refused");
        }
        let mut response: Response = problem::response::<Body>(status, code, &detail);
        let headers = response.headers_mut();
        match &self {
            Self::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lyceum\""));
            }
            Self::TusVersion => {
                headers.insert("tus-version", HeaderValue::from_static(lyceum_storage::upload::headers::VERSION));
            }
            Self::Upload(UploadError::WrongOffset { expected }) => {
                headers.insert("upload-offset", HeaderValue::from(*expected));
            }
            Self::Store(StoreError::RangeNotSatisfiable { size }) => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        if let Self::TooManyAttempts { wait } = &self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || matches!(self, Self::TooManyWaiting { .. }) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::quota::Quota;

    #[test]
    fn each_refusal_has_its_status_and_code() {
        let table: Vec<(Refusal, u16, &str)> = vec![
            (Refusal::Unauthenticated, 401, "unauthenticated"),
            (Refusal::Forbidden, 403, "forbidden"),
            (PlaybackError::NotEntitled.into(), 403, "not_entitled"),
            (Refusal::UploadType("application/pdf".to_owned()), 415, "upload_type_refused"),
            (Refusal::QuotaExceeded { bytes: 5, used: 4 }, 403, "quota_exceeded"),
            (IdentityError::LastAdmin.into(), 409, "last_admin"),
            (IdentityError::TooManySecrets(9).into(), 409, "too_many_secrets"),
            (IdentityError::Unknown.into(), 404, "not_found"),
            (PlaybackError::NotPlayable.into(), 409, "not_playable"),
            (Refusal::NotReady, 404, "not_ready"),
            (DbError::NulInText.into(), 400, "invalid_request"),
            (Refusal::TooManyAttempts { wait: std::time::Duration::ZERO }, 429, "too_many_attempts"),
            (Refusal::LeaseLost, 409, "lease_lost"),
            (Full::Purpose.into(), 503, "busy"),
            (Full::Key { limit: 9 }.into(), 429, "too_many_waiting"),
            (PlaybackError::TooManyStreams.into(), 409, "too_many_streams"),
            (PlaybackError::SessionOver.into(), 409, "session_revoked"),
            (PlaybackError::UnknownSession.into(), 404, "not_found"),
            (PlaybackError::InvalidPreview.into(), 400, "invalid_request"),
            (PlaybackError::Access(AccessError::NotFound).into(), 404, "not_found"),
            (AccessError::Forbidden.into(), 403, "forbidden"),
            (UploadError::WrongOffset { expected: 7 }.into(), 409, "offset_mismatch"),
            (UploadError::ChecksumMismatch.into(), 460, "checksum_mismatch"),
            (IngestError::LeaseLost.into(), 409, "lease_lost"),
            (BeginError::OverQuota(Quota { bytes: 5, used: 4 }).into(), 403, "quota_exceeded"),
            (BeginError::Access(AccessError::NotFound).into(), 404, "not_found"),
            (BeginError::Upload(UploadError::TooMany { limit: 3 }).into(), 429, "too_many_uploads"),
            (WrongType("text/html".to_owned()).into(), 415, "upload_type_refused"),
            (SubtitlesError::InvalidLanguage.into(), 400, "invalid_request"),
            (SubtitlesError::NotPlanned.into(), 409, "not_planned"),
            (SubtitlesError::TooMany.into(), 422, "unprocessable"),
            (SubtitlesError::NoSuchTrack.into(), 404, "not_found"),
            (SubtitlesError::Contended.into(), 503, "busy"),
            (SubtitlesError::File(FileError::NoCues).into(), 422, "subtitles_not_readable"),
            (IngestError::InvalidPath.into(), 404, "not_found"),
            (IngestError::InvalidReport("A sentence.".to_owned()).into(), 422, "unprocessable"),
            (IngestError::Internal("secret words".to_owned()).into(), 500, "internal"),
            (UploadError::Gone.into(), 410, "upload_gone"),
            (UploadError::from(StoreError::Lost("secret words".to_owned())).into(), 410, "upload_lost"),
            (UploadError::Store(StoreError::Full("x".to_owned())).into(), 507, "store_full"),
            (StoreError::Unavailable("secret words".to_owned()).into(), 503, "store_unavailable"),
            (StoreError::Refused("secret words".to_owned()).into(), 500, "internal"),
            (StoreError::RangeNotSatisfiable { size: 9 }.into(), 416, "range_not_satisfiable"),
            (DbError::Corrupt("secret words".to_owned()).into(), 500, "internal"),
        ];
        for (refusal, status, code) in table {
            let (actual_status, actual_code, sentence) = refusal.describe();
            assert_eq!((actual_status.as_u16(), actual_code), (status, code), "{refusal:?}");
            assert!(!sentence.contains("secret words"), "the cause is for the log: {sentence}");
            assert_eq!(refusal.into_response().headers().get("content-type").unwrap(), "application/problem+json");
        }
    }
}
