//! Uploads a file with tus 1.0 (core and creation) and resumes it after lost connections and restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::{Error, Http};

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const OFFSET_TYPE: HeaderValue = HeaderValue::from_static("application/offset+octet-stream");

/// Bytes read from the file at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// How long a connection may take no data before it is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts in a row without progress after which the upload fails.
const MAX_FRUITLESS_ATTEMPTS: u32 = 10;

/// The upload of one file to a lesson.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The file.
    pub file: PathBuf,
    /// The origin, without a trailing slash.
    pub origin: String,
    /// The lesson's id.
    pub lesson: String,
    /// An API key.
    pub api_key: String,
    /// The directory in which the upload's URL is kept between runs; `None` keeps none.
    pub memory: Option<PathBuf>,
}

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file can't be read.
    #[error("{}: {cause}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A call of the origin failed.
    #[error(transparent)]
    Http(#[from] Error),
    /// The origin's response does not follow tus.
    #[error("the origin's response does not follow tus: {0}")]
    Protocol(&'static str),
}

impl Upload {
    /// Uploads the file, from where an earlier run stopped if that is known. `progress` gets the bytes acknowledged or in
    /// flight, and the file's length.
    pub async fn run(&self, http: &Http, mut progress: impl FnMut(u64, u64)) -> Result<(), UploadError> {
        let length = tokio::fs::metadata(&self.file).await.map_err(|e| self.file_error(e))?.len();
        let (mut url, mut offset) = match self.resume(http).await? {
            Some(resume) => resume,
            None => (self.create(http, length).await?, 0),
        };
        let mut fruitless = 0;
        while offset < length {
            progress(offset, length);
            let reached = match self.send_from(http, &url, offset, length, &mut progress).await {
                Ok(reached) => reached,
                Err(UploadError::Http(error)) if error.retry() || is_conflict(&error) => {
                    tracing::debug!(%error, offset, "upload interrupted");
                    tokio::time::sleep(backoff(fruitless)).await;
                    match self.offset(http, &url).await {
                        Ok(Some(known)) => known,
                        Ok(None) => {
                            // The upload has expired at the origin: start again.
                            url = self.create(http, length).await?;
                            0
                        }
                        Err(error) if error.retry() && fruitless < MAX_FRUITLESS_ATTEMPTS => offset,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            };
            fruitless = if reached > offset { 0 } else { fruitless + 1 };
            if fruitless > MAX_FRUITLESS_ATTEMPTS {
                return Err(UploadError::Protocol("the upload makes no progress"));
            }
            offset = reached;
        }
        progress(length, length);
        self.forget().await;
        Ok(())
    }

    fn file_error(&self, cause: std::io::Error) -> UploadError {
        UploadError::File { file: self.file.clone(), cause }
    }

    async fn create(&self, http: &Http, length: u64) -> Result<String, UploadError> {
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let name = self.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let metadata = format!("lesson {},filename {}", base64(&self.lesson), base64(&name));
        let endpoint = format!("{}/v1/uploads", self.origin);
        let mut request = crate::request(Method::POST, &endpoint, &self.api_key)?;
        let headers = request.headers_mut();
        headers.insert(TUS_RESUMABLE, VERSION);
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
        let metadata =
            HeaderValue::try_from(metadata).map_err(|_| UploadError::Protocol("the file's name is too odd"))?;
        headers.insert(UPLOAD_METADATA, metadata);
        let response = http.send_ok(request).await?;
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or(UploadError::Protocol("a creation without Location"))?;
        let base = url::Url::parse(&endpoint).map_err(|e| Error::Request(e.to_string()))?;
        let url = base.join(location).map_err(|_| UploadError::Protocol("Location is no URL"))?.to_string();
        self.remember(&url).await;
        Ok(url)
    }

    /// The offset that the origin has acknowledged; `None` if it does not know the upload.
    async fn offset(&self, http: &Http, url: &str) -> Result<Option<u64>, Error> {
        let mut request = crate::request(Method::HEAD, url, &self.api_key)?;
        request.headers_mut().insert(TUS_RESUMABLE, VERSION);
        let response = match http.send_ok(request).await {
            Ok(response) => response,
            Err(Error::Status { status: StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN, .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(number(response.headers(), &UPLOAD_OFFSET))
    }

    async fn send_from(
        &self,
        http: &Http,
        url: &str,
        offset: u64,
        length: u64,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<u64, UploadError> {
        let mut file = File::open(&self.file).await.map_err(|e| self.file_error(e))?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(|e| self.file_error(e))?;
        let (sent, mut progressed) = tokio::sync::watch::channel(offset);
        let pieces =
            futures_util::stream::try_unfold((file.take(length - offset), sent), |(mut file, sent)| async move {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
                sent.send_modify(|at| *at += read as u64);
                Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), (file, sent))))
            });
        let mut request = crate::request(Method::PATCH, url, &self.api_key)?;
        let headers = request.headers_mut();
        headers.insert(TUS_RESUMABLE, VERSION);
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
        headers.insert(header::CONTENT_TYPE, OFFSET_TYPE);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length - offset));
        *request.body_mut() = crate::stream(pieces);
        let answer = http.send_ok(request);
        tokio::pin!(answer);
        let response = loop {
            tokio::select! {
                biased;
                answered = &mut answer => break answered?,
                Ok(()) = progressed.changed() => progress(*progressed.borrow_and_update(), length),
                () = tokio::time::sleep(STALL_TIMEOUT) => {
                    let host = self.origin.clone();
                    return Err(Error::Timeout { host, after: STALL_TIMEOUT }.into());
                }
            }
        };
        number(response.headers(), &UPLOAD_OFFSET)
            .ok_or(UploadError::Protocol("a PATCH answered without Upload-Offset"))
    }

    /// Names this upload in `memory`: the same file for the same lesson resumes.
    async fn fingerprint(&self) -> Option<String> {
        let metadata = tokio::fs::metadata(&self.file).await.ok()?;
        let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let file = tokio::fs::canonicalize(&self.file).await.ok()?;
        let text = format!("{}\n{}\n{}\n{}\n{:?}", self.origin, self.lesson, file.display(), metadata.len(), modified);
        let hash = Sha256::digest(text.as_bytes());
        Some(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    async fn memory_file(&self) -> Option<PathBuf> {
        Some(self.memory.as_ref()?.join(self.fingerprint().await?))
    }

    async fn resume(&self, http: &Http) -> Result<Option<(String, u64)>, UploadError> {
        let Some(file) = self.memory_file().await else { return Ok(None) };
        let Ok(url) = tokio::fs::read_to_string(&file).await else { return Ok(None) };
        let url = url.trim().to_owned();
        if !url.starts_with(&self.origin) {
            return Ok(None);
        }
        Ok(self.offset(http, &url).await?.map(|offset| (url, offset)))
    }

    async fn remember(&self, url: &str) {
        let Some(file) = self.memory_file().await else { return };
        if let Some(directory) = file.parent() {
            let _ = tokio::fs::create_dir_all(directory).await;
        }
        // Without it a later run starts again: slower, not wrong.
        if let Err(cause) = tokio::fs::write(&file, url).await {
            tracing::debug!(%cause, "the upload's URL could not be kept for a later run");
        }
    }

    async fn forget(&self) {
        if let Some(file) = self.memory_file().await {
            let _ = tokio::fs::remove_file(file).await;
        }
    }
}

/// The default of [`Upload::memory`]: `$XDG_STATE_HOME/lyceum/uploads`, else `~/.local/state/…`.
pub fn default_memory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    Some(state.or_else(home)?.join("lyceum/uploads"))
}

fn is_conflict(error: &Error) -> bool {
    matches!(error.status(), Some(StatusCode::CONFLICT | StatusCode::LOCKED))
}

fn number(headers: &http::HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The wait before the next attempt: 0.25 s, doubling, at most 8 s.
fn backoff(fruitless: u32) -> Duration {
    Duration::from_millis(250 << fruitless.min(5))
}
