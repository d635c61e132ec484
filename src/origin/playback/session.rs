//! Playback sessions: begun, renewed and ended. A session has a token that edges accept until it expires or the session
//! is revoked.

use super::client_network::ClientNetwork;
use super::error::PlaybackError;
use crate::access::{AccessError, Caller};
use crate::change::{Change, Wake};
use crate::config::Config;
use crate::identities;
use crate::state::App;
use lyceum_catalog::{self as catalog, Entitlement, Lesson, NewSession, Version};
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;
use lyceum_token::Claims;

/// How many seconds a preview may have.
const PREVIEW_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=3600.0;

/// The length of a preview, from the lesson's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preview(f64);

impl Preview {
    /// 1 to 3600 seconds.
    pub(crate) fn from_seconds(seconds: f64) -> Result<Self, PlaybackError> {
        if PREVIEW_SECONDS.contains(&seconds) { Ok(Self(seconds)) } else { Err(PlaybackError::InvalidPreview) }
    }
}

/// What a caller wishes to have played.
#[derive(Clone, Debug)]
pub(crate) struct SessionRequest {
    /// The viewer as the shop names them. Without one, a creator or an admin watches what is theirs.
    pub(crate) viewer: Option<String>,
    /// The largest rendition, by its shorter side in pixels.
    pub(crate) max_height: Option<u32>,
    /// The session that goes on under a new token: a new session would count as a second stream.
    pub(crate) renews: Option<Id>,
    /// Where the token's requests must come from, as edges see it.
    pub(crate) client: Option<ClientNetwork>,
    /// Only the beginning, for a viewer who has not bought the course.
    pub(crate) preview: Option<Preview>,
}

/// A session that may be played.
#[derive(Clone, Debug)]
pub(crate) struct PlaybackSession {
    pub(crate) id: Id,
    pub(crate) token: String,
    /// URLs of the multivariant playlist, one for each edge, in the order in which a player should try them.
    pub(crate) urls: Vec<String>,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub(crate) expires: i64,
}

/// Begins or renews a session of `lesson`, which `caller` may see. The effect is `tx`'s: commit it.
pub(crate) async fn start(
    app: &App,
    tx: &mut Tx,
    caller: &Caller,
    lesson: &Lesson,
    request: SessionRequest,
) -> Result<PlaybackSession, PlaybackError> {
    let now = app.clock.unix_millis();
    let config = app.config();
    let (viewer, entitlement) = viewer(tx, caller, lesson, &request, now).await?;
    let version = catalog::playing_version(tx, &lesson.id).await?.filter(|version| version.playable);
    let version = version.ok_or(PlaybackError::NotPlayable)?;
    let lifetime = now.saturating_add(lifetime(&config, &version));
    let entitled_until = entitlement.as_ref().map(Entitlement::until);
    // Whole seconds, as the token has them, and no later than what was bought.
    let expires = entitled_until.map_or(lifetime, |end| lifetime.min(end)).div_euclid(1000);
    if expires <= now.div_euclid(1000) {
        return Err(PlaybackError::NotEntitled);
    }
    let session = NewSession {
        id: request.renews.clone().unwrap_or_else(Id::random),
        viewer: viewer.clone(),
        course: lesson.course.clone(),
        lesson: lesson.id.clone(),
        expires: expires.saturating_mul(1000),
        entitled_until,
    };
    let claims = Claims {
        sub: viewer,
        exp: expires,
        iat: Some(now.div_euclid(1000)),
        jti: Some(session.id.to_string()),
        paths: vec![format!("/v/{}/", lesson.id)],
        max_height: request.max_height,
        preview: request.preview.map(|Preview(seconds)| seconds),
        extra: request.client.map(|network| ("cdniip".to_owned(), network.into_claim().into())).into_iter().collect(),
        ..Claims::default()
    };
    let token = app.signing_keys.signer().sign(&claims).map_err(PlaybackError::Token)?;
    if !catalog::hold_lesson(tx, &lesson.id).await? {
        return Err(AccessError::NotFound.into());
    }
    if request.renews.is_none() {
        catalog::start_session(tx, &session, now).await?;
    } else if !catalog::renew_session(tx, &session, now).await? {
        return Err(PlaybackError::SessionOver);
    }
    let urls = edges_in_order(&config.edges, &session.id)
        .map(|edge| format!("{edge}/t/{token}/v/{}/master.m3u8", lesson.id))
        .collect();
    Ok(PlaybackSession { id: session.id, token, urls, expires: session.expires })
}

/// Whether a session that was begun is still good: neither ended nor over.
pub(crate) async fn is_running(app: &App, tx: &mut Tx, session: &Id) -> Result<bool, PlaybackError> {
    let session = catalog::session(tx, session).await?;
    Ok(session.is_some_and(|session| session.revoked.is_none() && session.expires > app.clock.unix_millis()))
}

/// Who watches, and by what right. A named viewer must have bought the course, but for a preview: the shop decides who
/// may look in. Without a name it is the lesson's own creator or an admin.
async fn viewer(
    tx: &mut Tx,
    caller: &Caller,
    lesson: &Lesson,
    request: &SessionRequest,
    now: i64,
) -> Result<(String, Option<Entitlement>), PlaybackError> {
    let Some(viewer) = &request.viewer else {
        caller.may_change(&lesson.owner)?;
        return Ok((identities::viewer(caller.id()), None));
    };
    if request.preview.is_some() {
        return Ok((viewer.clone(), None));
    }
    let entitlement = catalog::entitlement(tx, viewer, &lesson.course, now).await?;
    Ok((viewer.clone(), Some(entitlement.ok_or(PlaybackError::NotEntitled)?)))
}

/// How long a token lives, in milliseconds: long enough to watch the lesson with pauses, at least `tokens.ttl`.
fn lifetime(config: &Config, version: &Version) -> i64 {
    let ttl = i64::try_from(config.tokens.ttl.get().as_millis()).unwrap_or(i64::MAX);
    let four_times = i64::try_from(version.duration.unwrap_or(0).saturating_mul(4)).unwrap_or(i64::MAX);
    ttl.max(four_times)
}

/// All edges, beginning with the one that this session falls to.
fn edges_in_order<'e>(edges: &'e [String], session: &Id) -> impl Iterator<Item = &'e String> {
    let sum: usize = session.as_str().bytes().map(usize::from).sum();
    let first = sum.checked_rem(edges.len()).unwrap_or(0);
    edges.iter().cycle().skip(first).take(edges.len())
}

/// Ends a session: edges refuse its token from when they hear of it.
pub(crate) async fn end(app: &App, caller: &Caller, session: &Id) -> Result<(), PlaybackError> {
    let mut change = Change::begin(app, caller).await?;
    let now = change.now();
    if !catalog::revoke_session(&mut change.tx, session, now).await? {
        return Err(PlaybackError::UnknownSession);
    }
    change.note("session.end", session.as_str(), "").await?;
    change.commit(&[Wake::Revocations]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_spread_and_every_edge_is_named() {
        let edges: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let order: Vec<_> = edges_in_order(&edges, &Id::random()).cloned().collect();
            assert_eq!(order.len(), 3);
            firsts.insert(order[0].clone());
        }
        assert_eq!(firsts.len(), 3);
        assert_eq!(edges_in_order(&[], &Id::random()).count(), 0);
    }

    #[test]
    fn a_preview_has_a_length() {
        for good in [1.0, 90.0, 3600.0] {
            assert_eq!(Preview::from_seconds(good).unwrap(), Preview(good));
        }
        for bad in [0.0, -1.0, 0.5, 3600.5, f64::NAN, f64::INFINITY] {
            assert!(Preview::from_seconds(bad).is_err(), "{bad}");
        }
    }
}
