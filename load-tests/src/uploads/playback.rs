//! Durable playback sessions a second, with the origin held to one core.

use std::time::Duration;

use futures_util::future::try_join_all;
use http::Method;
use lyceum_core::time::monotonic;
use serde_json::{Value, json};

use super::args::Args;
use super::error::LoadError;
use super::figure::Figure;
use super::process;
use super::setting::{ADMIN_KEY, TestOrigin};
use crate::report::Quantiles;

/// Users who have bought the course.
const USERS: usize = 100;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(args: &Args) -> Result<Figure, LoadError> {
    let setting = TestOrigin::start(args.folder.as_deref(), None, Some("0")).await?;
    let (course, lesson) = setting.lesson().await?;
    setting.make_playable(&lesson).await?;
    for user in 0..USERS {
        let entitlement = json!({ "user": format!("user-{user}"), "course": course });
        setting.call(Method::PUT, "/v1/entitlements", &entitlement).await?;
    }
    let url = format!("{}/v1/playback", setting.url);
    let span = Duration::from_secs(args.seconds.max(1));
    let began = monotonic();
    let player = async |number: usize| {
        let mut took = Vec::new();
        let wanted = json!({ "user": format!("user-{}", number % USERS), "lesson": lesson });
        while began.elapsed() < span {
            let asked = monotonic();
            let answer = setting
                .http
                .json::<Value>(Method::POST, &url, ADMIN_KEY, Some(&wanted))
                .await
                .map_err(LoadError::new)?;
            if answer.and_then(|answer| answer.get("token").cloned()).is_none() {
                return Err(LoadError::new("a session without a token"));
            }
            took.push(asked.elapsed());
        }
        Ok(took)
    };
    let before = process::cpu_of(&setting.origin)?;
    let all = try_join_all((0..args.connections.max(1)).map(player)).await?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), process::cpu_of(&setting.origin)? - before);
    let mut quantiles = Quantiles::default();
    all.iter().flatten().for_each(|took| quantiles.time(*took));
    let sessions = all.iter().map(Vec::len).sum::<usize>() as f64;
    let figures = quantiles.figures();
    let details = json!({ "sessions": sessions, "cpu_seconds": cpu, "cpu_milliseconds_per_session": cpu * 1e3 / sessions,
        "p50_seconds": figures.p50, "p99_seconds": figures.p99, "connections": args.connections });
    Ok(Figure::at_least("durable playback sessions on one core", sessions / seconds, "/s", 1000.0, details))
}
