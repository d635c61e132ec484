//! The catalogue: who may do what (API keys, logins), what there is (courses, lessons, versions and their objects),
//! and who may watch it (entitlements, sessions, revocations).
//!
//! Every function works inside a transaction of its caller's, so that a step of the origin is one commit. Nothing
//! here knows HTTP, the store or the queue; times are milliseconds since the Unix epoch, handed in.
#![forbid(unsafe_code)]

mod access;
mod answers;
mod audit;
mod content_keys;
mod courses;
mod keys;
mod versions;

pub use access::{
    Event, NewSession, Session, StreamLease, StreamOutcome, add_event, courses_of_viewer, drop_expired_sessions,
    entitle, events_after, is_entitled, lease_stream, newest_event, renew_session, revoke_lesson_sessions,
    revoke_session, revoke_viewer_sessions, session, start_session, withdraw,
};
pub use answers::{Remembered, forget_answer, forget_answers, keep_answer, remembered};
pub use audit::{Deed, deeds, note};
pub use content_keys::{SealedKey, add_content_key, content_key, content_key_of, keys_sealed_otherwise, reseal};
pub use courses::{
    Course, Lesson, NewLesson, Page, add_course, add_lesson, change_course, change_lesson, course, courses,
    courses_to_remove, forget_course, forget_lesson, lesson, lesson_state, lessons, lessons_to_remove,
    mark_course_deleted, mark_deleted, note_change, set_uploading,
};
pub use keys::{
    ApiKey, Role, add_key, add_login, change_key, delete_key, delete_login, drop_expired_logins, ensure_key, find_key,
    find_login, hash_secret, kept_bytes, key, keys, new_secret,
};
pub use versions::{
    NewVersion, Stored, Version, VersionState, add_objects, add_version, fail_version, finish_version, forget_version,
    has_object, lessons_by_state, media_of, objects_after, plan_of, playing_version, record_plan, replan,
    retry_version, revisions, set_progress, start_serving, unfinished_versions, version, versions_of,
    versions_to_retire,
};

#[cfg(test)]
mod tests;
