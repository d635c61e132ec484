//! `lyceum course`, `lyceum lesson`, `lyceum key`: the catalogue of a running origin.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::failure::Failure;
use super::origin_api::{Access, OriginApi, text};
use super::table;

/// What every command of the catalogue takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    access: Access,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Course {
    /// Add a course
    #[command(
        after_help = "Example:\n  lyceum course add \"Rust in a week\" --origin http://127.0.0.1:8080 --api-key KEY"
    )]
    Add {
        /// Its title
        title: String,
        #[command(flatten)]
        common: Common,
    },
    /// List courses
    #[command(after_help = "Example:\n  lyceum course list --origin http://127.0.0.1:8080 --api-key KEY --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a course and its lessons
    #[command(after_help = "Example:\n  lyceum course remove COURSE --origin http://127.0.0.1:8080 --api-key KEY")]
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Lesson {
    /// Add a lesson to a course
    #[command(
        after_help = "Example:\n  lyceum lesson add \"Ownership\" --course \"Rust in a week\" --origin URL --api-key KEY"
    )]
    Add {
        /// Its title
        title: String,
        /// The course's id or title
        #[arg(long, value_name = "ID or TITLE")]
        course: String,
        #[command(flatten)]
        common: Common,
    },
    /// List the lessons of a course
    #[command(after_help = "Example:\n  lyceum lesson list --course \"Rust in a week\" --origin URL --api-key KEY")]
    List {
        /// The course's id or title
        #[arg(long, value_name = "ID or TITLE")]
        course: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a lesson; its running sessions end
    #[command(after_help = "Example:\n  lyceum lesson remove LESSON --origin URL --api-key KEY")]
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Add an API key; it is printed once
    #[command(after_help = "Example:\n  lyceum key add --role creator --name ada --origin URL --api-key ADMIN_KEY")]
    Add {
        /// What it may do
        #[arg(long, value_enum)]
        role: Role,
        /// Whose it is
        #[arg(long)]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// List API keys, without the keys themselves
    #[command(after_help = "Example:\n  lyceum key list --origin URL --api-key ADMIN_KEY")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give an API key a new secret, which is printed once; the key keeps its id and its courses
    #[command(after_help = "Example:\n  lyceum key rotate ID --overlap 24h --origin URL --api-key ADMIN_KEY")]
    Rotate {
        /// Its id
        id: String,
        /// How long the secrets before stay good, 0s to 90d
        #[arg(long, value_name = "TIME", default_value = "0s")]
        overlap: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove an API key; it is refused from then on
    #[command(after_help = "Example:\n  lyceum key remove ID --origin URL --api-key ADMIN_KEY")]
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    Admin,
    Creator,
    Shop,
    Worker,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Creator => "creator",
            Self::Shop => "shop",
            Self::Worker => "worker",
        }
    }
}

pub(super) async fn course(course: Course) -> Result<(), Failure> {
    const COLUMNS: &[&str] = &["id", "title"];
    match course {
        Course::Add { title, common } => {
            let made = OriginApi::new(&common.access).new_course(&title).await.map_err(Failure::other)?;
            show_one(&common, &made, "id");
        }
        Course::List { common } => {
            let courses = OriginApi::new(&common.access).list("/v1/courses").await.map_err(Failure::other)?;
            show_all(&common, courses, COLUMNS);
        }
        Course::Remove { id, common } => remove(&common, "courses", &id).await?,
    }
    Ok(())
}

pub(super) async fn lesson(lesson: Lesson) -> Result<(), Failure> {
    const COLUMNS: &[&str] = &["id", "title", "state", "playable", "duration"];
    match lesson {
        Lesson::Add { title, course, common } => {
            let api = OriginApi::new(&common.access);
            let course = course_of(&api, &course).await?;
            let made = api.new_lesson(&course, &title).await.map_err(Failure::other)?;
            show_one(&common, &made, "id");
        }
        Lesson::List { course, common } => {
            let api = OriginApi::new(&common.access);
            let course = course_of(&api, &course).await?;
            let lessons = api.list(&format!("/v1/courses/{course}/lessons")).await.map_err(Failure::other)?;
            show_all(&common, lessons, COLUMNS);
        }
        Lesson::Remove { id, common } => remove(&common, "lessons", &id).await?,
    }
    Ok(())
}

pub(super) async fn key(key: Key) -> Result<(), Failure> {
    const COLUMNS: &[&str] = &["id", "role", "name", "quota"];
    match key {
        Key::Add { role, name, common } => {
            let body = json!({ "role": role.name(), "name": name });
            let made = OriginApi::new(&common.access).post("/v1/keys", &body).await.map_err(Failure::other)?;
            show_one(&common, &made, "key");
        }
        Key::List { common } => {
            let keys = OriginApi::new(&common.access).list("/v1/keys").await.map_err(Failure::other)?;
            show_all(&common, keys, COLUMNS);
        }
        Key::Rotate { id, overlap, common } => {
            let path = format!("/v1/keys/{}/rotate", checked(&id)?);
            let body = json!({ "overlap": overlap });
            let made = OriginApi::new(&common.access).post(&path, &body).await.map_err(Failure::other)?;
            show_one(&common, &made, "key");
        }
        Key::Remove { id, common } => remove(&common, "keys", &id).await?,
    }
    Ok(())
}

async fn course_of(api: &OriginApi, id_or_title: &str) -> Result<String, Failure> {
    let missing = || Failure::other(format!("there is no course \"{id_or_title}\": see lyceum course list"));
    api.course(id_or_title).await?.ok_or_else(missing)
}

async fn remove(common: &Common, kind: &str, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/{kind}/{}", checked(id)?);
    OriginApi::new(&common.access).delete(&path).await.map_err(Failure::other)
}

/// An id: one with a slash or a question mark would name something else.
fn checked(id: &str) -> Result<&str, Failure> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Failure::usage(format!("\"{id}\" is not an id: ids are letters and digits")));
    }
    Ok(id)
}

/// Prints what was made: as JSON, or the one value that the next command needs.
fn show_one(common: &Common, made: &Value, what: &str) {
    match common.json {
        true => println!("{made}"),
        false => println!("{}", text(made, what)),
    }
}

fn show_all(common: &Common, rows: Vec<Value>, columns: &[&str]) {
    if common.json {
        return println!("{}", Value::Array(rows));
    }
    let cells = |row: &Value| columns.iter().map(|name| cell(row.get(name))).collect();
    table::print(columns, &rows.iter().map(cells).collect::<Vec<Vec<String>>>());
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Number(number)) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        Some(other) => other.to_string(),
    }
}
