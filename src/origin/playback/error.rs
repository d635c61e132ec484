//! Why a playback is refused. Knows nothing of HTTP: `api::refusal` says what a client is told.

use crate::access::AccessError;
use lyceum_storage::db::DbError;
use lyceum_token::KeyError;

/// Why a playback is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaybackError {
    /// The caller may not see the lesson, or may not watch it without naming a viewer.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The viewer has not bought the course, or only until a time that is over.
    #[error("the viewer has no entitlement")]
    NotEntitled,
    /// No version of the lesson has enough segments yet.
    #[error("the lesson can't be played yet")]
    NotPlayable,
    /// A preview of no length, or longer than any.
    #[error("a preview has 1 to 3600 seconds")]
    InvalidPreview,
    /// Neither an address nor a network.
    #[error("not the address or network of a client")]
    InvalidClientNetwork,
    /// The claims make no token, for instance because it would be too long.
    #[error("the token can't be made: {0}")]
    Token(KeyError),
    /// There is no such session.
    #[error("there is no such session")]
    UnknownSession,
    /// The session was revoked, has expired, or is another viewer's or lesson's.
    #[error("the session was revoked or is over")]
    SessionOver,
    /// The viewer holds as many streams as allowed.
    #[error("the streams are used up")]
    TooManyStreams,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl PlaybackError {
    /// The label of `lyceum_origin_playbacks_total`.
    pub(crate) fn metric_label(&self) -> &'static str {
        match self {
            Self::NotEntitled => "not_entitled",
            Self::NotPlayable => "not_playable",
            _ => "error",
        }
    }
}
