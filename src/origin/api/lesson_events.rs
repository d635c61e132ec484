//! The changes of a lesson as they happen: server-sent events (HTML standard, section 9.2) until the lesson is ready or
//! has failed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::unfold;
use http::{HeaderValue, header};
use tokio::time::{sleep, timeout};

use super::answer::ApiResult;
use super::description;
use super::extract::{self, Path};
use super::lessons::{self, LessonState};
use super::refusal::Refusal;
use crate::access::{AccessError, Caller, Credential, find_caller, visible_lesson};
use crate::state::App;
use crate::waiting::{Place, Purpose};
use lyceum_core::ids::Id;

/// After this long without an event comes a comment, so that neither proxies nor this server take the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Changes come in bursts: what follows a change within this time goes into the same event.
const BURST: Duration = Duration::from_millis(20);

/// The lesson whenever it changes: server-sent events `lesson`, until it is ready or has failed.
///
/// The data of an event is the lesson as `GET /v1/lessons/{id}` shows it.
#[utoipa::path(
    get,
    path = "/v1/lessons/{id}/events",
    operation_id = "followLesson",
    tag = "lessons",
    params(("id" = description::Id, Path, description = "A lesson.")),
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream"))
)]
pub(super) async fn follow(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> ApiResult {
    let place = app.waiting.enter(Purpose::LessonEvents, caller.id(), &app.config().api)?;
    let lesson = visible_lesson(&mut app.db.read().await?, &caller, &extract::id(&id)?).await?;
    let follower = Follower {
        app,
        credential: caller.credential,
        lesson: lesson.id,
        sent: None,
        revision: None,
        done: false,
        _place: place,
    };
    let events = unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer responses would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What a stream has sent of its lesson.
struct Follower {
    app: Arc<App>,
    /// Whose stream it is: asked again with each look, so that it ends with the key, the login or the right to see.
    credential: Credential,
    lesson: Id,
    /// The data of the last event.
    sent: Option<String>,
    revision: Option<i64>,
    /// Whether there is nothing more to send: the lesson is ready, has failed, or is there no more for this caller.
    done: bool,
    _place: Place,
}

impl Follower {
    /// The next event; `None` when there will be no more.
    async fn next(&mut self) -> Option<Event> {
        let app = self.app.clone();
        while !self.done && !app.shutdown.is_draining() {
            // Registered before the look, so that what changes in between is not missed.
            let changed = app.ingest.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.look().await {
                Ok(Some(event)) => return Some(event),
                Ok(None) if self.done => return None,
                Ok(None) => {}
                // The browser connects again when a stream ends.
                Err(error) => {
                    tracing::debug!(lesson = %self.lesson, %error, "an event stream ends");
                    return None;
                }
            }
            // Another origin's changes do not notify this one: look again after a while.
            tokio::select! {
                _ = timeout(app.config().api.look.get(), changed) => {}
                () = app.shutdown.draining() => {}
            }
            sleep(BURST).await;
        }
        None
    }

    /// An event, if the lesson differs from what was sent.
    async fn look(&mut self) -> Result<Option<Event>, Refusal> {
        let mut tx = self.app.db.read().await?;
        let caller = find_caller(&mut tx, self.credential, self.app.clock.unix_millis()).await?;
        let lesson = match &caller {
            Some(caller) => visible_lesson(&mut tx, caller, &self.lesson).await,
            None => Err(AccessError::NotFound),
        };
        let lesson = match lesson {
            Err(AccessError::Db(error)) => return Err(error.into()),
            Err(AccessError::NotFound | AccessError::Forbidden) => {
                self.done = true;
                return Ok(None);
            }
            Ok(lesson) => lesson,
        };
        // An upload's progress does not raise the revision, so while one runs the lesson is compared itself.
        if self.revision == Some(lesson.revision) && lesson.uploading.is_none() {
            return Ok(None);
        }
        self.revision = Some(lesson.revision);
        let body = lessons::describe(&mut tx, &lesson).await?;
        let data = serde_json::to_string(&body).map_err(|error| Refusal::Internal(error.to_string()))?;
        if self.sent.as_deref() == Some(&data) {
            return Ok(None);
        }
        self.done = matches!(body.state, LessonState::Ready | LessonState::Failed);
        let event = Event::default().event("lesson").id(lesson.revision.to_string()).data(&data);
        self.sent = Some(data);
        Ok(Some(event))
    }
}
