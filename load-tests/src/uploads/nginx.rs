//! nginx with WebDAV, on the same disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Method;
use lyceum_client::{self as client, Http};

use super::error::{LoadError, failed};
use super::process::{self, free_address, wait};
use super::setting::{body, folder};
use crate::programs::ChildProcess;

/// A running nginx.
pub(super) struct Nginx {
    files: PathBuf,
    url: String,
    _folder: tempfile::TempDir,
    _running: ChildProcess,
}

impl Nginx {
    pub(super) async fn start(within: Option<&Path>) -> Result<Self, LoadError> {
        let kept = folder(within)?;
        let address = free_address()?;
        let files = kept.path().join("files");
        // A worker that is not root writes here too, and its bodies are renamed to their place: one file system.
        for name in ["files", "temp"] {
            let path = kept.path().join(name);
            std::fs::create_dir(&path).map_err(failed("a folder for nginx"))?;
        }
        let at = kept.path().display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
             events {{ }}\nhttp {{ access_log off; client_max_body_size 0; client_body_buffer_size 1m; client_body_temp_path {at}/temp;\n\
             proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen {address}; root {at}; location /files/ {{ dav_methods PUT DELETE; }} }} }}\n"
        );
        let path = kept.path().join("nginx.conf");
        std::fs::write(&path, config).map_err(failed("nginx.conf"))?;
        let running = process::start(Command::new("nginx").arg("-p").arg(kept.path()).arg("-c").arg(&path))?;
        wait(address).await?;
        Ok(Self { files, url: format!("http://{address}/files"), _folder: kept, _running: running })
    }

    /// Puts a file and has the disk take it.
    pub(super) async fn put(&self, http: &Http, piece: &Bytes, length: u64) -> Result<(), LoadError> {
        let mut request = client::request(Method::PUT, &format!("{}/upload", self.url), "").map_err(LoadError::new)?;
        request.headers_mut().insert("content-length", length.into());
        *request.body_mut() = body(piece, length);
        http.send_ok(request).await.map_err(LoadError::new)?;
        let (file, files) = (self.files.join("upload"), self.files.clone());
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(file)?.sync_all()?;
            std::fs::File::open(files)?.sync_all()
        });
        synced.await.map_err(LoadError::new)?.map_err(failed("the sync"))
    }

    pub(super) fn forget(&self) {
        let _ = std::fs::remove_file(self.files.join("upload"));
    }
}
