//! A bucket of a real S3 server (SeaweedFS, as the stories use it), on the same disk.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::Method;
use lyceum_client::{self as client, Http};

use super::error::{LoadError, failed};
use super::process::{self, free_address, wait};
use super::setting::folder;
use crate::programs::ChildProcess;

const ACCESS_KEY: &str = "loadkey";
const SECRET_KEY: &str = "loadsecret";
/// The server's objects are kept in files of this many MiB; so many files bound what it keeps.
const VOLUME_MIB: u64 = 1024;
const MAX_VOLUMES: u64 = 100;

/// A running server with one bucket.
pub(super) struct Bucket {
    endpoint: String,
    _running: ChildProcess,
    _folder: tempfile::TempDir,
}

/// A free port whose companion for gRPC, 10,000 above, is free too.
fn port_pair() -> Result<u16, LoadError> {
    for _ in 0..1000 {
        let port = free_address()?.port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
    Err(LoadError::new("no free pair of ports for the S3 server"))
}

impl Bucket {
    pub(super) async fn start(weed: &Path, within: Option<&Path>) -> Result<Self, LoadError> {
        let weed: PathBuf = std::path::absolute(weed).map_err(failed("the S3 server's program"))?;
        if !weed.is_file() {
            return Err(LoadError::new(format!(
                "{} is not there: run scripts/setup test, or name SeaweedFS's program with --weed",
                weed.display()
            )));
        }
        let kept = folder(within)?;
        let identities = serde_json::json!({ "identities": [{
            "name": "load", "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = kept.path().join("s3.json");
        std::fs::write(&config, identities.to_string()).map_err(failed("s3.json"))?;
        let data = kept.path().join("data");
        std::fs::create_dir(&data).map_err(failed("a folder for the S3 server"))?;
        let (s3, master, volume, filer) = (port_pair()?, port_pair()?, port_pair()?, port_pair()?);
        let mut command = Command::new(&weed);
        command.args(["server", "-ip=127.0.0.1", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", config.display()));
        command.arg(format!("-volume.max={MAX_VOLUMES}")).arg(format!("-master.volumeSizeLimitMB={VOLUME_MIB}"));
        command.arg(format!("-s3.port={s3}")).arg(format!("-master.port={master}"));
        command.arg(format!("-volume.port={volume}")).arg(format!("-filer.port={filer}"));
        let log = std::fs::File::create(kept.path().join("weed.log")).map_err(failed("weed.log"))?;
        command.current_dir(kept.path()).env("TMPDIR", kept.path()).stderr(log);
        let running = process::start(&mut command)?;
        for port in [s3, filer] {
            wait(([127, 0, 0, 1], port).into()).await?;
        }
        let bucket = Self { endpoint: format!("http://127.0.0.1:{s3}"), _running: running, _folder: kept };
        bucket.make(filer).await?;
        Ok(bucket)
    }

    /// A bucket is a folder of the server's filer, which takes it once its parts have found each other.
    async fn make(&self, filer: u16) -> Result<(), LoadError> {
        let http = Http::new(client::Limits::default());
        let mut last = String::new();
        for _ in 0..120 {
            let url = format!("http://127.0.0.1:{filer}/buckets/lyceum/");
            let request = client::request(Method::POST, &url, "").map_err(LoadError::new)?;
            match http.send_ok(request).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(LoadError::new(format!("the S3 server takes no bucket: {last}")))
    }

    /// The bucket as `origin.toml` says it.
    pub(super) fn store(&self) -> String {
        format!(
            "{{ s3 = {{ endpoint = \"{}\", bucket = \"lyceum\", access_key = \"{ACCESS_KEY}\", secret_key = \"{SECRET_KEY}\" }} }}",
            self.endpoint
        )
    }
}
