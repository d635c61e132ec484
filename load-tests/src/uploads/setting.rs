//! An origin with SQLite on the measured disk, and a client for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use lyceum_catalog::{self as catalog, NewVersion};
use lyceum_client::{self as client, Body, Http};
use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_core::units::Span;
use lyceum_storage::db::{Db, PoolConfig, Url};
use serde_json::{Value, json};

use super::error::{LoadError, failed};
use super::process::{self, free_address, wait};
use crate::programs::ChildProcess;

/// The admin's key.
pub(super) const ADMIN_KEY: &str = "an-admin-key-for-the-load";
/// The bearer secret of edges.
pub(super) const EDGE_SECRET: &str = "an-edge-secret-for-the-load";
/// Size of the piece that bodies repeat.
const PIECE_BYTES: usize = 256 << 10;

/// A running origin.
pub(super) struct TestOrigin {
    pub(super) folder: tempfile::TempDir,
    pub(super) origin: ChildProcess,
    pub(super) url: String,
    pub(super) http: Http,
}

/// A temporary folder on the disk to measure.
pub(super) fn folder(within: Option<&Path>) -> Result<tempfile::TempDir, LoadError> {
    let made = match within {
        Some(within) => tempfile::tempdir_in(within),
        None => tempfile::tempdir(),
    };
    made.map_err(failed("a temporary folder"))
}

/// A client that waits for large bodies.
pub(super) fn client() -> Http {
    Http::new(client::Limits {
        response: Span(Duration::from_secs(3600)),
        idle_connections: 1000,
        ..client::Limits::default()
    })
}

/// Incompressible bytes.
pub(super) fn noise() -> Bytes {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    while bytes.len() < PIECE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

/// A body of `length` bytes, which takes no memory but its one piece.
pub(super) fn body(piece: &Bytes, length: u64) -> Body {
    let whole = length / PIECE_BYTES as u64;
    let rest = usize::try_from(length % PIECE_BYTES as u64).unwrap_or(0);
    let pieces = std::iter::repeat_n(piece.clone(), usize::try_from(whole).unwrap_or(usize::MAX));
    let pieces = pieces.chain((rest > 0).then(|| piece.slice(..rest))).map(Ok::<_, std::io::Error>);
    client::stream(futures_util::stream::iter(pieces))
}

impl TestOrigin {
    /// Starts an origin, held to `core` where given.
    pub(super) async fn start(
        within: Option<&Path>,
        store: Option<&str>,
        core: Option<&str>,
    ) -> Result<Self, LoadError> {
        let folder = folder(within)?;
        let address = free_address()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let store = store.map_or_else(|| format!("{{ directory = \"{}\" }}", at("objects")), str::to_owned);
        let config = format!(
            "public_url = \"http://{address}\"\nedges = [\"http://127.0.0.1:1\"]\ndatabase = \"sqlite:{}\"\n\
             admin_key = \"{ADMIN_KEY}\"\nedge_bearer = \"{EDGE_SECRET}\"\nstore = {store}\ntokens = {{ keys = \"{}\" }}\n\
             workers = {{ count = 0 }}\n[[listen]]\naddress = \"{address}\"\n",
            at("lyceum.db"),
            at("keys"),
        );
        let path = folder.path().join("origin.toml");
        std::fs::write(&path, config).map_err(failed("origin.toml"))?;
        let program = std::env::current_exe().map_err(failed("this program"))?.with_file_name("lyceum");
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", core]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let origin = process::start(command.args(["origin", "--config"]).arg(&path))?;
        wait(address).await?;
        Ok(Self { folder, origin, url: format!("http://{address}"), http: client() })
    }

    /// A call of the API.
    pub(super) async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, LoadError> {
        let url = format!("{}{path}", self.url);
        let answer = self.http.json::<Value>(method, &url, ADMIN_KEY, Some(body)).await.map_err(LoadError::new)?;
        Ok(answer.unwrap_or_default())
    }

    /// A course with a lesson: their ids.
    pub(super) async fn lesson(&self) -> Result<(String, String), LoadError> {
        let id = |value: &Value| value.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let course = id(&self.call(Method::POST, "/v1/courses", &json!({ "title": "Load" })).await?);
        let lessons = format!("/v1/courses/{course}/lessons");
        let lesson = id(&self.call(Method::POST, &lessons, &json!({ "title": "Load" })).await?);
        Ok((course, lesson))
    }

    /// Begins an upload; where it goes on.
    pub(super) async fn begin(&self, lesson: &str, length: u64) -> Result<String, LoadError> {
        use http::header::LOCATION;
        let encoded = base64(lesson);
        let mut request = self.request(Method::POST, "/v1/uploads")?;
        let fields = request.headers_mut();
        fields.insert("upload-length", length.into());
        fields.insert("upload-metadata", format!("lesson {encoded}").parse().map_err(LoadError::new)?);
        let answer = self.http.send_ok(request).await.map_err(LoadError::new)?;
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        location.map(str::to_owned).ok_or_else(|| LoadError::new("an upload without a place"))
    }

    /// Sends all bytes of an upload; durable when this returns.
    pub(super) async fn send(&self, upload: &str, piece: &Bytes, length: u64) -> Result<(), LoadError> {
        let mut request = self.request(Method::PATCH, upload)?;
        let fields = request.headers_mut();
        fields.insert("upload-offset", 0.into());
        fields.insert("content-type", http::HeaderValue::from_static("application/offset+octet-stream"));
        fields.insert("content-length", length.into());
        *request.body_mut() = body(piece, length);
        self.http.send_ok(request).await.map(drop).map_err(LoadError::new)
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Body>, LoadError> {
        let mut request = client::request(method, &format!("{}{path}", self.url), ADMIN_KEY).map_err(LoadError::new)?;
        request.headers_mut().insert("tus-resumable", http::HeaderValue::from_static("1.0.0"));
        Ok(request)
    }

    /// Makes a lesson playable in the catalogue: an hour that was transcoded elsewhere. Answers the version.
    pub(super) async fn make_playable(&self, lesson: &str) -> Result<Id, LoadError> {
        let url = Url::Sqlite(self.folder.path().join("lyceum.db"));
        let db = Db::open(&url, &PoolConfig::default()).await.map_err(LoadError::new)?;
        let (lesson, id) = (Id::parse(lesson).map_err(LoadError::new)?, Id::random());
        let now = Clock::system().unix_millis();
        let work = async {
            let mut tx = db.begin().await?;
            let new = NewVersion {
                id: id.clone(),
                lesson: lesson.clone(),
                source: "uploads/none".into(),
                source_bytes: 1,
                filename: String::new(),
            };
            catalog::add_version(&mut tx, &new, now).await?;
            catalog::record_plan(&mut tx, &id, "{}", "{}", 3_600_000, "[]", now).await?;
            catalog::finish_version(&mut tx, &id, "[]", now).await?;
            catalog::start_serving(&mut tx, &lesson, &id, now).await?;
            tx.commit().await
        };
        work.await.map_err(LoadError::new)?;
        db.close().await;
        Ok(id)
    }

    /// Where the objects of a directory lie.
    pub(super) fn objects(&self) -> PathBuf {
        self.folder.path().join("objects")
    }
}

/// Base64 (RFC 4648, section 4) of a short text.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| ALPHABET.get((bits & 63) as usize).map_or('=', |byte| char::from(*byte));
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4_usize {
            out.push(if place <= chunk.len() { digit(bits >> (18 - 6 * place)) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_short_text_is_encoded() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(text), encoded);
        }
    }
}
