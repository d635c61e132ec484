//! What the cache decided for a request, and why: log field, metric label, and the `lyceum` member of `Cache-Status`
//! (RFC 9211).

use std::fmt::Write as _;

use http::{HeaderValue, StatusCode};

/// What the cache had to do with an answer: log field, metric label, and `Cache-Status` member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CacheOutcome {
    /// Answered from memory.
    Hit,
    /// Answered from disk.
    Disk,
    /// Answered from memory while it is brought up to date.
    Stale,
    /// Answered from memory because the origin failed.
    StaleOnError,
    /// Answered from memory after the origin said that it still holds.
    Revalidated,
    /// Fetched.
    Miss,
    /// Fetched by another request at the same time.
    Collapsed,
    /// Part of it was stored, what comes first was fetched.
    Partial,
    /// Fetched, and not to be stored.
    Pass,
    /// The cache was not asked: refusals, redirects, preflights, reports.
    None,
}

impl CacheOutcome {
    pub(super) const ALL: [Self; 10] = [
        Self::Hit,
        Self::Disk,
        Self::Stale,
        Self::StaleOnError,
        Self::Revalidated,
        Self::Miss,
        Self::Collapsed,
        Self::Partial,
        Self::Pass,
        Self::None,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Disk => "disk",
            Self::Stale => "stale",
            Self::StaleOnError => "stale_on_error",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "join",
            Self::Partial => "partial",
            Self::Pass => "pass",
            Self::None => "none",
        }
    }

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|outcome| *outcome == self).unwrap_or(0)
    }
}

/// Why a request went on to the origin (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// Nothing is stored under its URI.
    UriMiss,
    /// Something is, for requests with other fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored is fresh, and the client wants it validated.
    Request,
    /// The client's method is not one that a cache answers.
    Method,
    /// Nothing of this exchange may be stored.
    Bypass,
}

impl Forward {
    fn name(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Method => "method",
            Self::Bypass => "bypass",
        }
    }
}

/// A decision with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) outcome: CacheOutcome,
    /// Why the origin was asked, where it was.
    pub(super) forward: Forward,
    /// Why what was fetched is not stored.
    pub(super) why: Option<&'static str>,
}

impl Decision {
    pub(super) const HIT: Self = Self::of(CacheOutcome::Hit);

    /// An outcome for which the origin was not asked.
    pub(super) const fn of(outcome: CacheOutcome) -> Self {
        Self { outcome, forward: Forward::UriMiss, why: None }
    }

    /// An outcome for which it was.
    pub(super) const fn forwarded(outcome: CacheOutcome, forward: Forward) -> Self {
        Self { outcome, forward, why: None }
    }

    /// The `lyceum` member of `Cache-Status`, with the origin's status and the seconds of life left, where known.
    pub(super) fn cache_status(self, status: StatusCode, ttl: Option<i64>) -> HeaderValue {
        let forward = self.forward.name();
        let mut text = match self.outcome {
            CacheOutcome::Hit => return HeaderValue::from_static("lyceum; hit"),
            CacheOutcome::Disk => return HeaderValue::from_static("lyceum; hit; detail=disk"),
            CacheOutcome::None => return HeaderValue::from_static("lyceum; fwd=bypass"),
            CacheOutcome::Stale => "lyceum; hit".to_owned(),
            CacheOutcome::StaleOnError => format!("lyceum; fwd={forward}"),
            CacheOutcome::Revalidated => format!("lyceum; fwd={forward}; fwd-status=304"),
            CacheOutcome::Miss => format!("lyceum; fwd={forward}; fwd-status={}; stored", status.as_u16()),
            CacheOutcome::Collapsed => format!("lyceum; fwd={forward}; collapsed"),
            CacheOutcome::Partial => "lyceum; fwd=partial; stored".to_owned(),
            CacheOutcome::Pass => format!("lyceum; fwd={forward}; fwd-status={}", status.as_u16()),
        };
        if let Some(ttl) = ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        let detail = match self.outcome {
            CacheOutcome::Stale => Some("stale-while-revalidate"),
            CacheOutcome::StaleOnError => Some("stale-if-error"),
            _ => self.why,
        };
        if let Some(detail) = detail {
            let _ = write!(text, "; detail={detail}");
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("lyceum"))
    }
}
