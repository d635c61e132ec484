//! The demo's directory: lock, remembered addresses and secrets, the parts' configuration files.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use lyceum_core::ids;

/// How long the parts of a demo that was killed may take to leave their addresses.
const GHOSTS: Duration = Duration::from_secs(5);

/// What is fixed once in the directory. Mode 600.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) origins: [SocketAddr; 2],
    pub(super) origin_admins: [SocketAddr; 2],
    pub(super) edges: [SocketAddr; 2],
    pub(super) edge_admins: [SocketAddr; 2],
    pub(super) worker_admin: SocketAddr,
    pub(super) admin_key: String,
    pub(super) edge_secret: String,
    #[serde(default)]
    pub(super) worker_key: Option<String>,
    #[serde(default)]
    pub(super) course: Option<String>,
    /// Lessons by what their recording was: the sample, or a file of the user's.
    #[serde(default)]
    pub(super) lessons: std::collections::BTreeMap<String, String>,
}

pub(super) struct Layout {
    directory: PathBuf,
    state: Mutex<State>,
    _lock: File,
}

impl Layout {
    /// Takes the directory, makes it where it is new, and finds addresses that are free.
    pub(super) async fn open(data: &Path, listen: SocketAddr) -> Result<Self, Error> {
        let failed = |cause| Error::Directory { path: data.to_owned(), cause };
        fs::create_dir_all(data).map_err(failed)?;
        let directory = fs::canonicalize(data).map_err(failed)?;
        let lock = File::create(directory.join("demo.lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(data.to_owned())),
            Err(fs::TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        fs::create_dir_all(directory.join("logs")).map_err(failed)?;
        let (state, ghosts) = match fs::read(directory.join("state.json")) {
            Ok(text) => {
                let mut state: State = serde_json::from_slice(&text).map_err(|e| failed(io::Error::other(e)))?;
                if listen.port() != 0 {
                    state.origins[0] = listen;
                }
                (state, directory.join("demo.json").exists())
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => (State::fresh(listen)?, false),
            Err(cause) => return Err(failed(cause)),
        };
        let layout = Self { directory, state: Mutex::new(state), _lock: lock };
        layout.claim_addresses(ghosts).await?;
        layout.save()?;
        Ok(layout)
    }

    /// Sees that each address is free; one that was ours by chance and is taken now is chosen anew.
    async fn claim_addresses(&self, ghosts: bool) -> Result<(), Error> {
        let mut patience = if ghosts { GHOSTS } else { Duration::ZERO };
        let addresses: Vec<SocketAddr> = self.with(|state| state.slots().into_iter().map(|slot| *slot).collect());
        for (index, address) in addresses.into_iter().enumerate() {
            let cause = loop {
                match TcpListener::bind(address) {
                    Ok(_) => break None,
                    Err(cause) if patience.is_zero() => break Some(cause),
                    Err(_) => {
                        // The parts of a killed demo notice within half a second.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        patience = patience.saturating_sub(Duration::from_millis(100));
                    }
                }
            };
            match cause {
                None => {}
                Some(cause) if index == 0 => return Err(Error::Port { address, cause }),
                Some(_) => {
                    let mut taken = self.with(|state| state.slots().into_iter().map(|slot| *slot).collect());
                    let free = free_address(address.ip(), &mut taken)?;
                    self.with(|state| {
                        if let Some(slot) = state.slots().into_iter().nth(index) {
                            *slot = free;
                        }
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn log(&self, part: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{part}.log"))
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut state)
    }

    pub(super) fn state(&self) -> State {
        self.with(|state| state.clone())
    }

    pub(super) fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(&self.state()).map_err(|e| self.failed(io::Error::other(e)))?;
        self.write("state.json", &text)
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Directory { path: self.directory.clone(), cause }
    }

    /// Writes a file of mode 600, whole or not at all.
    pub(super) fn write(&self, name: &str, text: &[u8]) -> Result<(), Error> {
        let path = self.directory.join(name);
        let part = self.directory.join(format!(".{name}.part"));
        let written = (|| {
            // A part left by a kill may have been made with another mode.
            let _ = fs::remove_file(&part);
            let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&part)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        })();
        written.map_err(|cause| Error::Directory { path, cause })
    }

    fn write_config(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        self.write(name, text.as_bytes())?;
        Ok(self.directory.join(name))
    }

    pub(super) fn write_origin(&self, index: usize) -> Result<PathBuf, Error> {
        let state = self.state();
        let (Some(listen), Some(admin)) = (state.origins.get(index), state.origin_admins.get(index)) else {
            return Err(self.failed(io::Error::other("no such origin")));
        };
        let edges = state.edges.map(|edge| format!("http://{edge}"));
        let text = format!(
            r#"# Written anew at each start of the demo.
public_url = "http://{listen}"
edges = {edges:?}
database = {database}
admin_key = "${{LYCEUM_ADMIN_KEY}}"
edge_bearer = "${{LYCEUM_EDGE_SECRET}}"
store = {{ directory = {objects} }}
tokens = {{ keys = {keys}, issuer = "lyceum", audience = "lyceum-edge", ttl = "24h" }}
workers = {{ count = 0 }}

[admin]
listen = "{admin}"

[[listen]]
address = "{listen}"
"#,
            database = toml_string(&format!("sqlite:{}", self.directory.join("lyceum.db").display())),
            objects = toml_string(&self.directory.join("objects").display().to_string()),
            keys = toml_string(&self.directory.join("keys").display().to_string()),
        );
        self.write_config(&format!("origin-{}.toml", index + 1), &text)
    }

    pub(super) fn write_edge(&self, index: usize) -> Result<PathBuf, Error> {
        let state = self.state();
        let (Some(listen), Some(admin)) = (state.edges.get(index), state.edge_admins.get(index)) else {
            return Err(self.failed(io::Error::other("no such edge")));
        };
        let origins = state.origins.map(|origin| format!("http://{origin}"));
        let jwks = state.origins.map(|origin| format!("http://{origin}/.well-known/jwks.json"));
        let pool: Vec<String> = origins.iter().map(|url| format!("{{ url = {url:?}, weight = 1 }}")).collect();
        let control =
            toml_string(&self.directory.join(format!("edge-{}-control.json", index + 1)).display().to_string());
        let disk = toml_string(&self.directory.join(format!("edge-{}-cache", index + 1)).display().to_string());
        let text = format!(
            r#"# Written anew at each start of the demo.
[admin]
listen = "{admin}"

[[listen]]
address = "{listen}"

[cache]
memory = "256MiB"
disk = {{ path = {disk}, size = "2GiB" }}

[tokens]
audience = "lyceum-edge"
issuers = [{{ name = "lyceum", jwks = {jwks:?} }}]

[control]
origins = {origins:?}
bearer = "${{LYCEUM_EDGE_SECRET}}"
state = {control}

[cors]
origins = ["*"]

[[pool]]
name = "origin"
balance = "consistent-hash"
origins = [{pool}]
health = {{ path = "/healthz", interval = "1s" }}
auth = {{ bearer = "${{LYCEUM_EDGE_SECRET}}" }}

[[route]]
prefix = "/v/"
pool = "origin"
auth = "token"
"#,
            pool = pool.join(", "),
        );
        self.write_config(&format!("edge-{}.toml", index + 1), &text)
    }

    pub(super) fn write_worker(&self, api_key: &str) -> Result<PathBuf, Error> {
        let state = self.state();
        let origins = state.origins.map(|origin| format!("http://{origin}"));
        let text = format!(
            r#"# Written anew at each start of the demo.
origins = {origins:?}
api_key = {key}
slots = 2

[admin]
listen = "{admin}"
"#,
            key = toml_string(api_key),
            admin = state.worker_admin,
        );
        self.write_config("worker-1.toml", &text)
    }

    /// What a Prometheus on this machine needs to watch the demo.
    pub(super) fn write_prometheus(&self) -> Result<(), Error> {
        let state = self.state();
        let targets = |addresses: &[SocketAddr]| {
            addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            r#"# Written anew at each start of the demo: prometheus --config.file=… watches all of it.
global:
  scrape_interval: 2s
  evaluation_interval: 2s
rule_files: [prometheus-rules.yml, prometheus-alerts.yml]
scrape_configs:
  - job_name: lyceum-edge
    static_configs: [{{ targets: [{}] }}]
  - job_name: lyceum-origin
    static_configs: [{{ targets: [{}] }}]
  - job_name: lyceum-worker
    static_configs: [{{ targets: [{}] }}]
"#,
            targets(&state.edge_admins),
            targets(&state.origin_admins),
            targets(&[state.worker_admin]),
        );
        self.write("prometheus-rules.yml", include_bytes!("../../dashboards/prometheus/rules.yml"))?;
        self.write("prometheus-alerts.yml", include_bytes!("../../dashboards/prometheus/alerts.yml"))?;
        self.write("prometheus.yml", text.as_bytes())
    }
}

impl State {
    fn fresh(listen: SocketAddr) -> Result<Self, Error> {
        let host = listen.ip();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut taken = vec![listen];
        let mut free = |host| free_address(host, &mut taken);
        let first = if listen.port() == 0 { free(host)? } else { listen };
        Ok(Self {
            origins: [first, free(host)?],
            origin_admins: [free(loopback)?, free(loopback)?],
            edges: [free(host)?, free(host)?],
            edge_admins: [free(loopback)?, free(loopback)?],
            worker_admin: free(loopback)?,
            admin_key: secret(),
            edge_secret: secret(),
            worker_key: None,
            course: None,
            lessons: Default::default(),
        })
    }

    /// Every address; the first is the user's choice.
    fn slots(&mut self) -> Vec<&mut SocketAddr> {
        let lists = [&mut self.origins, &mut self.origin_admins, &mut self.edges, &mut self.edge_admins];
        lists.into_iter().flatten().chain([&mut self.worker_admin]).collect()
    }
}

fn secret() -> String {
    ids::random_bytes::<24>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ports below those that the kernel gives to connections and to listeners on port 0 (from 32768 on, by default):
/// one that was free a moment ago stays free until its part binds it.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

/// A free address of `host` that is not `taken`, and is from now on.
fn free_address(host: IpAddr, taken: &mut Vec<SocketAddr>) -> Result<SocketAddr, Error> {
    for _ in 0..64 {
        let chance = u16::from_le_bytes(ids::random_bytes::<2>());
        let address = SocketAddr::new(host, PORTS.start + chance % (PORTS.end - PORTS.start));
        if !taken.contains(&address) && TcpListener::bind(address).is_ok() {
            taken.push(address);
            return Ok(address);
        }
    }
    let any = SocketAddr::new(host, 0);
    TcpListener::bind(any).and_then(|bound| bound.local_addr()).map_err(|cause| Error::Port { address: any, cause })
}

fn toml_string(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
