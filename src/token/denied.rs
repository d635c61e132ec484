//! Why a request is denied on account of its token.

/// Why a request is denied on account of its token. [`Denied::code`] is stable: clients, logs and metrics see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// The request has no token.
    #[error("no token came with the request")]
    Missing,
    /// It is not a token: its form, its length, the type of a claim, a missing `exp`.
    #[error("the token is malformed")]
    Malformed,
    /// The signature is not by the named key, or the algorithm is not the key's.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its issuer has no such key; [`IssuerIndex`] says whose keys may be out of date.
    #[error("the token's key is not known")]
    UnknownKey(IssuerIndex),
    /// `exp` is in the past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` names no trusted issuer.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// `aud` does not name this edge.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The token is bound to another client.
    #[error("the token is bound to another client")]
    WrongClient,
    /// A claim that has to be understood is not supported.
    #[error("the token has a claim that is not supported here")]
    UnsupportedClaim(&'static str),
    /// The path, the rendition's height or the segment's start is not allowed.
    #[error("the token does not open this path")]
    OutOfScope,
    /// The session was revoked.
    #[error("the session was ended")]
    Revoked,
    /// The user plays as many streams at once as is allowed.
    #[error("too many streams play at once")]
    TooManyStreams,
}

/// The issuer in whose keys a key was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IssuerIndex(pub(super) usize);

impl IssuerIndex {
    /// The index of the issuer in the list that the verifier was made with.
    pub fn issuer(self) -> usize {
        self.0
    }
}

impl Denied {
    /// Every code, for a metric that shows zeros from the start.
    pub const CODES: [&'static str; 13] = [
        "token_missing",
        "token_malformed",
        "token_bad_signature",
        "token_unknown_key",
        "token_expired",
        "token_not_yet_valid",
        "token_wrong_issuer",
        "token_wrong_audience",
        "token_wrong_client",
        "token_unsupported_claim",
        "token_out_of_scope",
        "token_revoked",
        "too_many_streams",
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::BadSignature => "token_bad_signature",
            Self::UnknownKey(_) => "token_unknown_key",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "token_wrong_issuer",
            Self::WrongAudience => "token_wrong_audience",
            Self::WrongClient => "token_wrong_client",
            Self::UnsupportedClaim(_) => "token_unsupported_claim",
            Self::OutOfScope => "token_out_of_scope",
            Self::Revoked => "token_revoked",
            Self::TooManyStreams => "too_many_streams",
        }
    }
}
