//! An origin's API, as the commands call it.

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::failure::Failure;
use lyceum_client::{self as client, Http};

/// Pages of a list that are read; a page has up to 1,000 rows.
const MAX_PAGES: usize = 1_000;

/// Which origin is called, and as whom.
#[derive(Debug, Args)]
pub(super) struct Access {
    /// The origin's URL
    #[arg(long, env = "LYCEUM_ORIGIN", value_name = "URL")]
    pub(super) origin: String,
    /// An API key
    #[arg(long, env = "LYCEUM_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(super) api_key: String,
}

/// A client of one origin.
pub(super) struct OriginApi {
    http: Http,
    pub(super) origin: String,
    pub(super) key: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}

impl OriginApi {
    pub(super) fn new(access: &Access) -> Self {
        Self {
            http: Http::new(client::Limits::default()),
            origin: access.origin.trim_end_matches('/').to_owned(),
            key: access.api_key.clone(),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<T>, client::Error> {
        self.http.json(method, &format!("{}{path}", self.origin), &self.key, body).await
    }

    fn there<T>(&self, found: Option<T>) -> Result<T, client::Error> {
        found.ok_or_else(|| client::Error::Body { host: self.origin.clone(), what: "it is empty".to_owned() })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, client::Error> {
        self.call(Method::GET, path, None).await.and_then(|found| self.there(found))
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, client::Error> {
        self.call(Method::POST, path, Some(body)).await.and_then(|found| self.there(found))
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), client::Error> {
        self.call::<Value>(Method::DELETE, path, None).await.map(drop)
    }

    /// All rows of a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, client::Error> {
        let mut rows = Vec::new();
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.call::<Page>(Method::GET, &format!("{path}{after}"), None).await;
            let page = page.and_then(|found| self.there(found))?;
            rows.extend(page.items);
            match page.next {
                Some(next) => after = format!("?after={next}"),
                None => break,
            }
        }
        Ok(rows)
    }

    /// The id of the course that has this id or title; none where there is none.
    pub(super) async fn course(&self, id_or_title: &str) -> Result<Option<String>, Failure> {
        let courses = self.list("/v1/courses").await.map_err(Failure::other)?;
        if courses.iter().any(|course| text(course, "id") == id_or_title) {
            return Ok(Some(id_or_title.to_owned()));
        }
        let named: Vec<&Value> = courses.iter().filter(|course| text(course, "title") == id_or_title).collect();
        match named.as_slice() {
            [] => Ok(None),
            [course] => Ok(Some(text(course, "id").to_owned())),
            several => {
                let ids = several.iter().map(|course| text(course, "id")).collect::<Vec<_>>().join(", ");
                Err(Failure::usage(format!("several courses are called \"{id_or_title}\": name one by its id ({ids})")))
            }
        }
    }

    /// Makes a course and returns its id.
    pub(super) async fn new_course(&self, title: &str) -> Result<Value, client::Error> {
        self.post("/v1/courses", &json!({ "title": title })).await
    }

    /// Makes a lesson of a course.
    pub(super) async fn new_lesson(&self, course: &str, title: &str) -> Result<Value, client::Error> {
        self.post(&format!("/v1/courses/{course}/lessons"), &json!({ "title": title })).await
    }
}

/// A text of a JSON object; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
