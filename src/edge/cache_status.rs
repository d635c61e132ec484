//! What the cache had to do with a response: the metric label, and the `lyceum` member of `Cache-Status` (RFC 9211).

use std::fmt::Write as _;

use http::{HeaderValue, StatusCode};

use lyceum_cache::FillOutcome;

/// What the cache had to do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CacheOutcome {
    /// Served from memory.
    Hit,
    /// Served from disk.
    Disk,
    /// Served stale from memory while it is revalidated.
    Stale,
    /// Served stale because the origin failed.
    StaleOnError,
    /// Served from memory after the origin confirmed it (304).
    Revalidated,
    /// Fetched from the origin.
    Miss,
    /// Shared with another request that was fetching it.
    Collapsed,
    /// The first slice was fetched, others are stored.
    Partial,
    /// Fetched and not stored.
    Pass,
    /// The cache was not used: refusals, redirects, preflights, reports.
    None,
}

impl CacheOutcome {
    pub(crate) const ALL: [Self; 10] = [
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

    pub(crate) fn name(self) -> &'static str {
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

    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|outcome| *outcome == self).unwrap_or(0)
    }
}

/// Why a request went on to the origin (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Nothing is stored under its URI.
    UriMiss,
    /// Only other variants are stored.
    VaryMiss,
    /// The stored response is stale.
    Stale,
    /// The stored response is fresh, and the client wants it validated.
    Request,
    /// A cache does not answer the method.
    Method,
    /// The response must not be stored.
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

/// An outcome with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    pub(crate) outcome: CacheOutcome,
    /// Why the origin was asked, where it was.
    pub(crate) forward: Forward,
    /// Why the fetched response is not stored.
    pub(crate) why: Option<&'static str>,
}

impl CacheStatus {
    pub(crate) const HIT: Self = Self::of(CacheOutcome::Hit);

    /// An outcome for which the origin was not asked.
    pub(crate) const fn of(outcome: CacheOutcome) -> Self {
        Self { outcome, forward: Forward::UriMiss, why: None }
    }

    /// An outcome for which it was.
    pub(crate) const fn forwarded(outcome: CacheOutcome, forward: Forward) -> Self {
        Self { outcome, forward, why: None }
    }

    /// The status after a fill, given the one with which the fill was started or joined.
    pub(crate) fn after(self, outcome: &FillOutcome) -> Self {
        // Something was stored after all: on disk, or when the first request looked.
        let forward_of_stale = match self.forward {
            Forward::UriMiss | Forward::VaryMiss => Forward::Stale,
            forward => forward,
        };
        match outcome {
            FillOutcome::Storing { .. } => self,
            FillOutcome::Passing { why, .. } => Self { outcome: CacheOutcome::Pass, why: Some(*why), ..self },
            FillOutcome::Sliced(_) => Self { why: None, ..self },
            FillOutcome::FromDisk(_) => Self { outcome: CacheOutcome::Disk, why: None, ..self },
            FillOutcome::Revalidated(_) => Self::forwarded(CacheOutcome::Revalidated, forward_of_stale),
            FillOutcome::StaleOnError(_) => Self::forwarded(CacheOutcome::StaleOnError, forward_of_stale),
        }
    }

    /// The `lyceum` member of `Cache-Status`; `status` is the origin's, `ttl` the freshness left in seconds, if known.
    pub(crate) fn field(self, status: StatusCode, ttl: Option<i64>) -> HeaderValue {
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
