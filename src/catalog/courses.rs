//! Courses and lessons. A lesson's revision rises with every change that its readers see.

use lyceum_core::ids::Id;
use lyceum_storage::db::{DbError, Row, Tx};
use lyceum_storage::db_args;

use crate::page::Page;

/// A course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Its id.
    pub id: Id,
    /// Its title.
    pub title: String,
    /// The identity that it belongs to.
    pub owner: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Whether its new lessons are encrypted; without a value, as the configuration says.
    pub encrypt: Option<bool>,
}

/// A lesson, without the version that is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// Its id.
    pub id: Id,
    /// Its course.
    pub course: Id,
    /// Its title.
    pub title: String,
    /// The identity that it belongs to.
    pub owner: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Rises with each change.
    pub revision: i64,
    /// The version of the newest upload.
    pub newest: Option<Id>,
    /// The version that players get.
    pub serving: Option<Id>,
    /// The upload that is under way.
    pub uploading: Option<Id>,
    /// Whether versions of later uploads are encrypted.
    pub encrypt: bool,
}

/// What makes a lesson.
#[derive(Clone, Debug)]
pub struct NewLesson {
    /// Its id.
    pub id: Id,
    /// Its course.
    pub course: Id,
    /// Its title.
    pub title: String,
    /// The identity that it belongs to.
    pub owner: String,
    /// Whether it is encrypted.
    pub encrypt: bool,
}

const LESSON: &str =
    "SELECT id, course, title, owner, created, revision, newest, serving, uploading, encrypt FROM lessons
     WHERE id = $1 AND deleted IS NULL";

fn course_from(row: &Row) -> Result<Course, DbError> {
    Ok(Course {
        id: row.parse("id")?,
        title: row.get("title")?,
        owner: row.get("owner")?,
        created: row.get("created")?,
        encrypt: row.get::<Option<i64>>("encrypt")?.map(|truth| truth != 0),
    })
}

fn lesson_from(row: &Row) -> Result<Lesson, DbError> {
    Ok(Lesson {
        id: row.parse("id")?,
        course: row.parse("course")?,
        title: row.get("title")?,
        owner: row.get("owner")?,
        created: row.get("created")?,
        revision: row.get("revision")?,
        newest: row.parse_option("newest")?,
        serving: row.parse_option("serving")?,
        uploading: row.parse_option("uploading")?,
        encrypt: row.truth("encrypt")?,
    })
}

/// Adds a course.
pub async fn add_course(tx: &mut Tx, course: &Course) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO courses (id, title, owner, created, encrypt) VALUES ($1, $2, $3, $4, $5)",
        db_args![&course.id, &course.title, &course.owner, course.created, course.encrypt],
    )
    .await
    .map(drop)
}

/// One course, unless it was deleted.
pub async fn course(tx: &mut Tx, id: &Id) -> Result<Option<Course>, DbError> {
    let row = tx
        .one("SELECT id, title, owner, created, encrypt FROM courses WHERE id = $1 AND deleted IS NULL", db_args![id])
        .await?;
    row.as_ref().map(course_from).transpose()
}

/// A page of courses, of one owner where given.
pub async fn courses(tx: &mut Tx, owner: Option<&str>, page: &Page) -> Result<Vec<Course>, DbError> {
    let rows = tx
        .all(
            "SELECT id, title, owner, created, encrypt FROM courses
             WHERE deleted IS NULL AND (owner = $1 OR $2 = 1) AND (created > $3 OR (created = $3 AND id > $4))
             ORDER BY created, id LIMIT $5",
            db_args![owner.unwrap_or(""), owner.is_none(), page.after.0, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(course_from).collect()
}

/// Changes a course's title and whether its new lessons are encrypted.
pub async fn change_course(tx: &mut Tx, course: &Course) -> Result<(), DbError> {
    let sql = "UPDATE courses SET title = $2, encrypt = $3 WHERE id = $1";
    tx.execute(sql, db_args![&course.id, &course.title, course.encrypt]).await.map(drop)
}

/// Gives a course and its lessons to another identity. Answers the uploads to them that are under way.
pub async fn transfer_course(tx: &mut Tx, id: &Id, owner: &str) -> Result<Vec<Id>, DbError> {
    tx.execute("UPDATE courses SET owner = $2 WHERE id = $1", db_args![id, owner]).await?;
    tx.execute("UPDATE lessons SET owner = $2 WHERE course = $1", db_args![id, owner]).await?;
    let rows =
        tx.all("SELECT uploading FROM lessons WHERE course = $1 AND uploading IS NOT NULL", db_args![id]).await?;
    rows.iter().map(|row| row.parse("uploading")).collect()
}

/// Hides a course at once, and ends its entitlements; its lessons are removed in steps.
pub async fn mark_course_deleted(tx: &mut Tx, id: &Id, now: i64) -> Result<(), DbError> {
    tx.execute("DELETE FROM entitlements WHERE course = $1", db_args![id]).await?;
    tx.execute("UPDATE courses SET deleted = $2 WHERE id = $1", db_args![id, now]).await.map(drop)
}

/// Deleted courses whose lessons are still to be removed.
pub async fn courses_to_remove(tx: &mut Tx, limit: i64) -> Result<Vec<Id>, DbError> {
    let rows =
        tx.all("SELECT id FROM courses WHERE deleted IS NOT NULL ORDER BY deleted LIMIT $1", db_args![limit]).await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

/// Forgets a deleted course. The caller removes its lessons first.
pub async fn forget_course(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM courses WHERE id = $1 AND deleted IS NOT NULL", db_args![id]).await.map(drop)
}

/// Adds a lesson.
pub async fn add_lesson(tx: &mut Tx, lesson: &NewLesson, now: i64) -> Result<(), DbError> {
    tx.execute(
        "INSERT INTO lessons (id, course, title, owner, created, revision, encrypt) VALUES ($1, $2, $3, $4, $5, 1, $6)",
        db_args![&lesson.id, &lesson.course, &lesson.title, &lesson.owner, now, lesson.encrypt],
    )
    .await
    .map(drop)
}

/// One lesson, unless it was deleted.
pub async fn lesson(tx: &mut Tx, id: &Id) -> Result<Option<Lesson>, DbError> {
    let row = tx.one(LESSON, db_args![id]).await?;
    row.as_ref().map(lesson_from).transpose()
}

/// Whether a lesson is there. Whoever deletes it meanwhile waits for the end of this transaction, and so sees the
/// session that is begun in it.
pub async fn hold_lesson(tx: &mut Tx, id: &Id) -> Result<bool, DbError> {
    let sql = tx.choose(
        "SELECT id FROM lessons WHERE id = $1 AND deleted IS NULL",
        "SELECT id FROM lessons WHERE id = $1 AND deleted IS NULL FOR SHARE",
    );
    Ok(tx.one(sql, db_args![id]).await?.is_some())
}

/// A page of a course's lessons.
pub async fn lessons(tx: &mut Tx, course: &Id, page: &Page) -> Result<Vec<Lesson>, DbError> {
    let rows = tx
        .all(
            "SELECT id, course, title, owner, created, revision, newest, serving, uploading, encrypt FROM lessons
             WHERE course = $1 AND deleted IS NULL AND (created > $2 OR (created = $2 AND id > $3))
             ORDER BY created, id LIMIT $4",
            db_args![course, page.after.0, &page.after.1, page.limit],
        )
        .await?;
    rows.iter().map(lesson_from).collect()
}

/// Changes a lesson's title and whether versions of later uploads are encrypted.
pub async fn change_lesson(tx: &mut Tx, lesson: &Lesson) -> Result<(), DbError> {
    tx.execute(
        "UPDATE lessons SET title = $2, encrypt = $3, revision = revision + 1 WHERE id = $1 AND deleted IS NULL",
        db_args![&lesson.id, &lesson.title, lesson.encrypt],
    )
    .await
    .map(drop)
}

/// Raises a lesson's revision: something that its readers see has changed.
pub async fn bump_lesson_revision(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    tx.execute("UPDATE lessons SET revision = revision + 1 WHERE id = $1", db_args![id]).await.map(drop)
}

/// Notes the upload that is under way.
pub async fn set_uploading(tx: &mut Tx, id: &Id, upload: &Id) -> Result<(), DbError> {
    let sql = "UPDATE lessons SET uploading = $2, revision = revision + 1 WHERE id = $1";
    tx.execute(sql, db_args![id, upload]).await.map(drop)
}

/// Notes that `upload` is no longer under way; a newer upload's note stays.
pub async fn clear_uploading(tx: &mut Tx, id: &Id, upload: &Id) -> Result<(), DbError> {
    let sql = "UPDATE lessons SET uploading = NULL, revision = revision + 1 WHERE id = $1 AND uploading = $2";
    tx.execute(sql, db_args![id, upload]).await.map(drop)
}

/// Hides a lesson at once; its objects are removed in the background. Answers whether it was there.
pub async fn mark_lesson_deleted(tx: &mut Tx, id: &Id, now: i64) -> Result<bool, DbError> {
    let changed = tx
        .execute(
            "UPDATE lessons SET deleted = $2, revision = revision + 1 WHERE id = $1 AND deleted IS NULL",
            db_args![id, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Deleted lessons whose objects are still to be removed.
pub async fn lessons_to_remove(tx: &mut Tx, limit: i64) -> Result<Vec<Id>, DbError> {
    let rows =
        tx.all("SELECT id FROM lessons WHERE deleted IS NOT NULL ORDER BY deleted LIMIT $1", db_args![limit]).await?;
    rows.iter().map(|row| row.parse("id")).collect()
}

/// Forgets a deleted lesson and all that is known of its versions.
pub async fn forget_lesson(tx: &mut Tx, id: &Id) -> Result<(), DbError> {
    tx.execute("DELETE FROM objects WHERE version IN (SELECT id FROM versions WHERE lesson = $1)", db_args![id])
        .await?;
    tx.execute("DELETE FROM content_keys WHERE lesson = $1", db_args![id]).await?;
    tx.execute("DELETE FROM versions WHERE lesson = $1", db_args![id]).await?;
    tx.execute("DELETE FROM lessons WHERE id = $1 AND deleted IS NOT NULL", db_args![id]).await.map(drop)
}
