//! `POST /v1/playback`: a token for whoever is entitled, and where to begin.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};
use serde::Deserialize;

use super::answer::ApiResult;
use super::auth::Caller;
use super::extract::{self};
use super::idempotency::{Once, Repeat};
use super::refusal::Refusal;
use super::rfc3339;
use crate::state::App;
use lyceum_catalog::{self as catalog, Lesson, NewSession, Role};
use lyceum_core::ids::Id;
use lyceum_storage::db::Tx;
use lyceum_token::Claims;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whose playback it is. Without one, a creator or an admin watches what is theirs.
    #[serde(default)]
    user: Option<String>,
    lesson: String,
    /// The largest rendition, by its shorter side.
    #[serde(default)]
    max_height: Option<u32>,
    /// The session that goes on, where the page renews its token: a new one would count as a second stream.
    #[serde(default)]
    session: Option<String>,
    /// What the token is bound to.
    #[serde(default)]
    client: Option<Client>,
    /// Only so many seconds from the start, for a user who has not bought the course.
    #[serde(default)]
    preview: Option<f64>,
}

/// Who may use the token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    /// An address or a network (`203.0.113.7`, `2001:db8::/48`) that requests must come from, as edges see it.
    ip: String,
}

/// The network of a client as RFC 9246, section 2.1.10, writes it in `cdniip`. In the clear: the claim is meant to keep
/// an address from whoever reads the URI, and here that is its own client.
fn network(text: &str) -> Option<&str> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
    let plain = |prefix: &str| {
        let digits = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        digits && prefix.parse::<u8>().is_ok_and(|bits| bits <= most)
    };
    prefix.is_none_or(plain).then_some(text)
}

/// The longest preview, in seconds.
const LONGEST_PREVIEW: f64 = 3600.0;

pub(super) async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    Once { value: wanted, repeat }: Once<Wanted>,
) -> ApiResult {
    let answer = begin(&app, &caller, wanted, &repeat).await;
    let result = match &answer {
        Ok(_) => "ok",
        Err(Refusal::NotEntitled) => "not_entitled",
        Err(Refusal::NotPlayable) => "not_playable",
        Err(_) => "error",
    };
    app.metrics.playbacks.with_label_values(&[result]).inc();
    answer
}

async fn begin(app: &App, caller: &Caller, wanted: Wanted, repeat: &Repeat) -> ApiResult {
    caller.is(&[Role::Shop, Role::Creator])?;
    let now = app.clock.unix_millis();
    let mut tx = app.db.begin().await?;
    let lesson = catalog::lesson(&mut tx, &extract::id(&wanted.lesson)?).await?.ok_or(Refusal::NotFound)?;
    caller.sees(&lesson.owner)?;
    if let Some(answer) = repeat.answered(&mut tx, caller).await? {
        return Ok(answer);
    }
    if wanted.preview.is_some_and(|seconds| !(1.0..=LONGEST_PREVIEW).contains(&seconds)) {
        return Err(Refusal::Invalid("A preview has 1 to 3600 seconds.".to_owned()));
    }
    let client = wanted.client.as_ref().map(|client| network(&client.ip).ok_or(&client.ip)).transpose();
    let client = client
        .map_err(|_| Refusal::Invalid("`client.ip` is an address, or a network such as 203.0.113.0/24.".to_owned()))?;
    let viewer = match (&wanted.user, wanted.preview) {
        // The shop decides who may look in; nothing was bought that could be looked up.
        (Some(user), Some(_)) => extract::viewer(user)?,
        (user, _) => entitled(&mut tx, caller, &lesson, user.as_deref(), now).await?,
    };
    let version = catalog::playing_version(&mut tx, &lesson.id).await?.filter(|version| version.playable);
    let version = version.ok_or(Refusal::NotPlayable)?;
    let ttl = i64::try_from(app.config().tokens.ttl.get().as_millis()).unwrap_or(i64::MAX);
    let four_times = i64::try_from(version.duration.unwrap_or(0).saturating_mul(4)).unwrap_or(i64::MAX);
    // Whole seconds, as the token has them.
    let expires = now.saturating_add(ttl.max(four_times)).div_euclid(1000);
    let going_on = wanted.session.as_deref().map(extract::id).transpose()?;
    let session = going_on.clone().unwrap_or_else(Id::random);
    let claims = Claims {
        sub: viewer.clone(),
        exp: expires,
        iat: Some(now.div_euclid(1000)),
        jti: Some(session.to_string()),
        paths: vec![format!("/v/{}/", lesson.id)],
        max_height: wanted.max_height,
        preview: wanted.preview,
        extra: client.map(|network| ("cdniip".to_owned(), network.into())).into_iter().collect(),
        ..Claims::default()
    };
    let token = app
        .signing_keys
        .signer()
        .sign(&claims)
        .map_err(|error| Refusal::Invalid(format!("The token can't be made: {error}.")))?;
    let new = NewSession {
        id: session.clone(),
        viewer,
        course: lesson.course.clone(),
        lesson: lesson.id.clone(),
        expires: expires.saturating_mul(1000),
    };
    if going_on.is_none() {
        catalog::start_session(&mut tx, &new, now).await?;
    } else if !catalog::renew_session(&mut tx, &new, now).await? {
        return Err(Refusal::SessionRevoked);
    }
    let urls = spread(&app.config().edges, &session)
        .map(|edge| format!("{edge}/t/{token}/v/{}/master.m3u8", lesson.id))
        .collect::<Vec<_>>();
    let body = serde_json::json!({
        "url": urls.first(),
        "urls": urls,
        "token": token,
        "session": session,
        "expires_at": rfc3339::format(expires.saturating_mul(1000)),
    });
    repeat.keep(&mut tx, caller, StatusCode::CREATED, &body, now).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response())
}

/// Who watches: a named user must have bought the course; without a name it is the lesson's own creator or an admin.
async fn entitled(
    tx: &mut Tx,
    caller: &Caller,
    lesson: &Lesson,
    user: Option<&str>,
    now: i64,
) -> Result<String, Refusal> {
    let Some(user) = user else {
        caller.owns(&lesson.owner)?;
        return Ok(format!("key-{}", caller.key.id));
    };
    let user = extract::viewer(user)?;
    match catalog::entitlement(tx, &user, &lesson.course, now).await? {
        Some(_) => Ok(user),
        None => Err(Refusal::NotEntitled),
    }
}

/// All edges, beginning with the one that this session falls to.
fn spread<'e>(edges: &'e [String], session: &Id) -> impl Iterator<Item = &'e String> {
    let sum: usize = session.as_str().bytes().map(usize::from).sum();
    let first = sum.checked_rem(edges.len()).unwrap_or(0);
    edges.iter().cycle().skip(first).take(edges.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for good in ["203.0.113.7", "203.0.113.0/24", "2001:db8::1", "2001:db8::/48", "0.0.0.0/0"] {
            assert_eq!(network(good), Some(good));
        }
        for bad in [
            "",
            "example.com",
            "203.0.113.7/33",
            "2001:db8::/129",
            "203.0.113.0/",
            "203.0.113.0/+8",
            "1.2.3",
            "203.0.113.7/24/8",
        ] {
            assert_eq!(network(bad), None, "{bad}");
        }
    }

    #[test]
    fn sessions_are_spread_and_every_edge_is_told() {
        let edges: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let told: Vec<_> = spread(&edges, &Id::random()).cloned().collect();
            assert_eq!(told.len(), 3);
            firsts.insert(told[0].clone());
        }
        assert_eq!(firsts.len(), 3);
        assert_eq!(spread(&[], &Id::random()).count(), 0);
    }
}
