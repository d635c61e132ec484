//! The catalogue: who may do what (identities, their secrets, logins), what there is (courses, lessons, versions and their objects),
//! and who may watch it (entitlements, sessions, revocations).
//!
//! Every function works inside a transaction of its caller's, so that a step of the origin is one commit. Nothing
//! here knows HTTP, the store or the queue; times are milliseconds since the Unix epoch, handed in.
#![forbid(unsafe_code)]

mod audit;
mod content_keys;
mod courses;
mod entitlements;
mod idempotency;
mod identities;
mod page;
mod removals;
mod revocation_feed;
mod secrets;
mod sessions;
mod versions;

pub use audit::{AuditEntry, add_audit_entry, audit_entries};
pub use content_keys::{SealedKey, add_content_key, content_key, content_key_of, keys_not_sealed_by, reseal};
pub use courses::{
    Course, Lesson, NewLesson, add_course, add_lesson, bump_lesson_revision, change_course, change_lesson,
    clear_uploading, course, courses, courses_to_remove, forget_course, forget_lesson, hold_lesson, lesson, lessons,
    lessons_to_remove, mark_course_deleted, mark_lesson_deleted, set_uploading, transfer_course,
};
pub use entitlements::{Entitlement, courses_of_viewer, entitle, entitlement, withdraw_entitlement};
pub use idempotency::{KnownAnswer, drop_expired_answers, forget_answer, keep_answer, known_answer};
pub use identities::{
    Identity, Role, add_identity, change_identity, delete_identity, identities, identity, kept_bytes,
};
pub use page::Page;
pub use removals::{add_removal, forget_removal, removals_due};
pub use revocation_feed::{Event, add_event, drop_expired_events, events_after, newest_event};
pub use secrets::{
    Secret, add_login, add_secret, configure_admin_secret, count_lasting_admin_secrets, count_secrets, delete_login,
    delete_secret, drop_expired_secrets, end_other_secrets, find_by_login, find_by_secret, has_form_of_new_secret,
    hash_secret, new_secret, note_applied, secrets_of, was_applied,
};
pub use sessions::{
    NewSession, Session, StreamLease, StreamOutcome, any_lapsed_session, drop_expired_sessions, lease_stream,
    renew_session, revoke_all_of_viewer, revoke_lapsed_sessions, revoke_lesson_sessions, revoke_session,
    revoke_viewer_sessions, session, start_session,
};
pub use versions::{
    NewVersion, StoredObject, Version, VersionState, add_objects, add_version, fail_version, finish_version,
    forget_version, has_object, lessons_by_state, media_of, objects_after, partly_queued_versions, plan_of,
    playing_version, record_plan, replan, retry_version, revisions, set_progress, set_tasks_left, start_serving,
    unfinished_versions, version, versions_of, versions_to_remove,
};

#[cfg(test)]
mod tests;
