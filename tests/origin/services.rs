//! Real engines for the stories: one S3 server (SeaweedFS) and one PostgreSQL cluster a run, started with the first
//! story that needs them. A story has a prefix of the bucket, and a database, of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use lyceum_core::ids::Id;

use crate::support::process::{Process, sweep_at_end};
use crate::support::{free_port, repository, until};

const ACCESS: &str = "testkey";
const SECRET: &str = "testsecret";

/// A free port whose companion for gRPC, 10,000 above, is free too.
fn port_pair() -> u16 {
    loop {
        let port = free_port();
        if port < 22_768 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// The S3 server.
pub struct S3 {
    endpoint: String,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl S3 {
    /// The one of this run.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = Self::start();
            sweep_at_end(server._dir.path());
            server
        })
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let weed = repository(".cache/python/bin/weed");
        assert!(weed.is_file(), "{} is not there: run scripts/setup test, or make test", weed.display());
        let identities = serde_json::json!({ "identities": [{
            "name": "lyceum", "credentials": [{ "accessKey": ACCESS, "secretKey": SECRET }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = dir.path().join("s3.json");
        std::fs::write(&config, identities.to_string()).unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let [s3, master, volume, filer] = std::array::from_fn(|_| port_pair());
        let arguments = [
            "server".to_owned(),
            format!("-dir={}", data.display()),
            "-ip=127.0.0.1".to_owned(),
            "-s3".to_owned(),
            format!("-s3.config={}", config.display()),
            // Each bucket reserves seven volumes.
            "-volume.max=200".to_owned(),
            "-master.volumeSizeLimitMB=256".to_owned(),
            format!("-s3.port={s3}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            format!("-master.port={master}"),
            format!("-volume.port={volume}"),
            format!("-filer.port={filer}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = Process::leashed(&weed, &arguments);
        command.current_dir(dir.path()).env("TMPDIR", dir.path()).stderr(Stdio::null());
        let server =
            Self { endpoint: format!("http://127.0.0.1:{s3}"), _process: Process::start(&mut command), _dir: dir };
        server.make_bucket();
        server
    }

    fn client(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(ACCESS, SECRET, None, None, "tests"))
            .force_path_style(true)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }

    /// Removes the unfinished multipart uploads of a story's store, as a bucket's lifecycle rule does.
    pub async fn abort_unfinished(&self, store: &str) {
        let prefix = store.split("prefix = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let client = self.client();
        let listed = client.list_multipart_uploads().bucket("lyceum").prefix(prefix).send().await.unwrap();
        assert!(!listed.uploads().is_empty(), "there is an unfinished upload");
        for upload in listed.uploads() {
            let request = client.abort_multipart_upload().bucket("lyceum");
            let request = request.set_key(upload.key.clone()).set_upload_id(upload.upload_id.clone());
            request.send().await.unwrap();
        }
    }

    fn make_bucket(&self) {
        let client = self.client();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            until("the S3 server to take a bucket", Duration::from_secs(60), || {
                let made = runtime.block_on(client.create_bucket().bucket("lyceum").send());
                // The first object may take its time; it is better waited for here than in a story.
                made.ok()?;
                let body = aws_sdk_s3::primitives::ByteStream::from_static(b"warm");
                runtime.block_on(client.put_object().bucket("lyceum").key("warm").body(body).send()).ok()
            });
        };
        // A story's own runtime can't be blocked on.
        std::thread::spawn(work).join().unwrap();
    }

    /// A store of a story's own, as `origin.toml` says it.
    pub fn store(&self) -> String {
        format!(
            "{{ s3 = {{ endpoint = \"{}\", bucket = \"lyceum\", prefix = \"{}\", access_key = \"{ACCESS}\", \
             secret_key = \"{SECRET}\", part = \"5MiB\", buffers = \"32MiB\" }} }}",
            self.endpoint,
            Id::random()
        )
    }

    /// The server's URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// The PostgreSQL cluster.
pub struct Postgres {
    port: u16,
    dir: tempfile::TempDir,
    _process: Process,
}

fn postgres_program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is not installed: run scripts/setup test")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("{name} is not installed: run scripts/setup test"))
}

/// PostgreSQL refuses to run as root.
fn as_nobody(program: PathBuf) -> (PathBuf, Vec<String>) {
    let root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !root {
        return (program, Vec::new());
    }
    let arguments = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"].map(str::to_owned);
    ("/usr/bin/setpriv".into(), arguments.into_iter().chain([program.display().to_string()]).collect())
}

impl Postgres {
    /// The one of this run.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = Self::start();
            sweep_at_end(server.dir.path());
            server
        })
    }

    /// One of a story's own, for stories that stop it.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// One of a story's own that takes no connection but under TLS; its certificate is [`Self::authority`].
    pub fn start_under_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Self::start_with(Some((made.cert.pem(), made.signing_key.serialize_pem())))
    }

    /// The certificate that a server under TLS shows, as a file.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("cluster/server.crt")
    }

    fn start_with(tls: Option<(String, String)>) -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let port = port_pair();
        let cluster = dir.path().join("cluster");
        let open = |path: &std::path::Path| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        };
        open(dir.path());
        let (program, mut arguments) = as_nobody(postgres_program("initdb"));
        arguments.extend(["-A", "trust", "-U", "lyceum", "-E", "UTF8", "--no-sync", "-D"].map(str::to_owned));
        arguments.push(cluster.display().to_string());
        let made = Command::new(program).args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if let Some((certificate, key)) = tls {
            use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
            let owner = std::fs::metadata(&cluster).unwrap();
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let path = cluster.join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
            }
            let hba = "hostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n";
            std::fs::write(cluster.join("pg_hba.conf"), hba).unwrap();
            let settings = cluster.join("postgresql.auto.conf");
            std::fs::write(settings, "ssl = on\nssl_min_protocol_version = 'TLSv1.3'\n").unwrap();
        }
        let process = Self::run(&dir, port);
        let server = Self { port, dir, _process: process };
        server.wait();
        server
    }

    fn run(dir: &tempfile::TempDir, port: u16) -> Process {
        let (program, arguments) = as_nobody(postgres_program("postgres"));
        let mut arguments = arguments;
        arguments.extend(["-D".to_owned(), dir.path().join("cluster").display().to_string()]);
        arguments.extend(["-h", "127.0.0.1", "-k", ""].map(str::to_owned));
        arguments.extend(["-p".to_owned(), port.to_string(), "-c".to_owned(), "max_connections=200".to_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = Process::leashed(&program, &arguments);
        command.current_dir(dir.path()).stderr(Stdio::null());
        Process::start(&mut command)
    }

    fn psql(&self, sql: &str) -> bool {
        self.run_sql(&format!("postgres://lyceum@127.0.0.1:{}/postgres", self.port), sql)
    }

    /// What a query in the database of that URL answers.
    pub fn ask_sql(&self, database: &str, query: &str) -> String {
        let done = Command::new(postgres_program("psql")).args(["-qAt", "-c", query, database]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs statements in the database of that URL; answers whether they succeeded.
    pub fn run_sql(&self, database: &str, sql: &str) -> bool {
        let done =
            Command::new(postgres_program("psql")).args(["-q", "-c", sql, database]).stdin(Stdio::null()).output();
        done.is_ok_and(|done| done.status.success())
    }

    fn wait(&self) {
        until("PostgreSQL to answer", Duration::from_secs(60), || self.psql("SELECT 1").then_some(()));
    }

    /// Ends every connection in mid-transaction and starts the server again.
    pub fn restart(&mut self) {
        let (program, mut arguments) = as_nobody(postgres_program("pg_ctl"));
        let cluster = self.dir.path().join("cluster").display().to_string();
        arguments.extend(["stop", "-m", "immediate", "-D", &cluster].map(str::to_owned));
        let stopped = Command::new(program).args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(stopped.status.success(), "pg_ctl: {}", String::from_utf8_lossy(&stopped.stderr));
        self._process = Self::run(&self.dir, self.port);
        self.wait();
    }

    /// Makes a database read-only, as on a standby, or writable. Making it read-only ends its sessions, as a failover does;
    /// making it writable is for new ones.
    pub fn set_read_only(&self, database: &str, is: bool) {
        let name = database.rsplit('/').next().unwrap_or_default();
        let set = if is { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
        assert!(self.psql(&format!("ALTER DATABASE \"{name}\" {set}")));
        if is {
            let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            assert!(self.psql(&end));
        }
    }

    /// A database of a story's own, by its URL.
    pub fn database(&self) -> String {
        let name = Id::random();
        assert!(self.psql(&format!("CREATE DATABASE \"{name}\"")), "the database could not be made");
        format!("postgres://lyceum@127.0.0.1:{}/{name}", self.port)
    }
}
