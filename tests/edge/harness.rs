//! A scripted origin, an edge before it, and clients.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_edge::{Config, Edge, Parts};
use lyceum_server::Server;
use lyceum_token::{Claims, Signer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What an origin got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What an origin does, in order.
pub enum Step {
    Bytes(Vec<u8>),
    Wait(Duration),
    Until(Arc<Notify>),
    /// Breaks the connection.
    Break,
}

/// An answer under way.
pub struct Reply(pub Vec<Step>);

impl Reply {
    /// A whole answer with its length.
    pub fn new(status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Self(vec![Step::Bytes(bytes)])
    }

    /// A head alone, with a length that the steps behind keep or don't.
    pub fn head(length: usize, fields: &[(&str, &str)]) -> Self {
        let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n");
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        Self(vec![Step::Bytes(format!("{head}\r\n").into_bytes())])
    }

    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Bytes(bytes.as_ref().to_vec()))
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// An HTTP/1.1 server that does as its script says.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    tasks: Arc<Mutex<tokio::task::JoinSet<()>>>,
}

impl Origin {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn start_at(address: SocketAddr, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Arc::new(script)));
        let tasks = Arc::new(Mutex::new(tokio::task::JoinSet::new()));
        let accepting = accept(listener, Arc::clone(&seen), Arc::clone(&script), Arc::clone(&tasks));
        tasks.lock().unwrap().spawn(accepting);
        Self { address, seen, script, tasks }
    }

    /// Another script from now on.
    pub fn now(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, target: &str) -> usize {
        self.seen().iter().filter(|seen| seen.target == target).count()
    }

    /// Ends the listener and every connection, as a killed process does.
    pub fn kill(&self) {
        self.tasks.lock().unwrap().abort_all();
    }
}

async fn accept(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    tasks: Arc<Mutex<tokio::task::JoinSet<()>>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
        tasks.lock().unwrap().spawn(async move {
            let _ = serve(stream, seen, script).await;
        });
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Seen>>>, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let mut words = head.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut seen = Seen { method, target, head, body: Vec::new() };
        let length: usize = seen.field("content-length").map_or(0, |v| v.parse().unwrap());
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        seen.body = buffer[end..end + length].to_vec();
        buffer.drain(..end + length);
        log.lock().unwrap().push(seen.clone());
        let script = Arc::clone(&script.lock().unwrap());
        for step in script(&seen).0 {
            match step {
                Step::Bytes(bytes) => stream.write_all(&bytes).await?,
                Step::Wait(span) => tokio::time::sleep(span).await,
                Step::Until(notify) => notify.notified().await,
                Step::Break => return Ok(()),
            }
        }
    }
}

/// An edge in this process.
pub struct TestEdge {
    pub url: String,
    pub edge: Edge,
    pub registry: prometheus::Registry,
    pub clock: Clock,
    pub dir: tempfile::TempDir,
    shutdown: Shutdown,
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// The second at which test clocks start.
pub const NOW: i64 = 1_800_000_000;

impl TestEdge {
    /// An edge with `toml` behind a listener on a free port; `{dir}` stands for a directory of its own, in which the
    /// signing key of the issuer `lyceum` lies under `keys/`, its set under `jwks.json`.
    pub async fn start(toml: &str) -> Self {
        Self::with_listener("address = \"127.0.0.1:0\"", toml).await
    }

    pub async fn with_listener(listener: &str, toml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::open(&dir.path().join("keys"), "lyceum", "lyceum-edge").unwrap();
        std::fs::write(dir.path().join("jwks.json"), signer.jwks().to_string()).unwrap();
        let toml = format!("listen = [{{ {listener} }}]\n{toml}").replace("{dir}", dir.path().to_str().unwrap());
        let config: Config = lyceum_core::config::parse(&toml, Path::new("edge.toml"), &|_| None).unwrap();
        let (shutdown, registry, clock) = (Shutdown::new(), prometheus::Registry::new(), Clock::manual(NOW * 1000));
        let server = Server::bind(&config.listen, &config.limits, &registry).unwrap();
        let url = server.urls().remove(0);
        let parts = Parts { clock: clock.clone(), registry: registry.clone(), shutdown: shutdown.clone() };
        let edge = Edge::start(config, parts).await.unwrap();
        tokio::spawn(server.serve(edge.clone(), shutdown.clone()));
        Self { url, edge, registry, clock, dir, shutdown }
    }

    /// With tokens before `/v/` and one pool of these origins.
    pub async fn paid(origins: &[&Origin]) -> Self {
        Self::start(&paid(origins, "")).await
    }

    /// As a plain shared cache before everything.
    pub async fn open(origins: &[&Origin]) -> Self {
        Self::start(&format!("{}\n[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n", pool(origins, "")))
            .await
    }

    /// The operators' listener.
    pub async fn admin(&self) -> String {
        let config = lyceum_admin::Config { listen: "127.0.0.1:0".parse().unwrap(), bearer: None };
        let admin = lyceum_admin::Admin::bind(&config).await.unwrap();
        let url = admin.url();
        let edge = self.edge.clone();
        tokio::spawn(admin.serve(lyceum_admin::Role {
            registry: self.registry.clone(),
            ready: Arc::new(move || edge.ready()),
            serving: None,
            shutdown: self.shutdown.clone(),
            routes: Some(self.edge.admin_routes()),
        }));
        url
    }

    pub fn signer(&self) -> Signer {
        Signer::open(&self.dir.path().join("keys"), "lyceum", "lyceum-edge").unwrap()
    }

    pub fn sign(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.signer().sign(&claims).unwrap()
    }

    /// A token for `/v/a/`.
    pub fn token(&self) -> String {
        self.sign(|_| {})
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    pub async fn send(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Answer {
        send(&self.url, method, path, fields, "").await
    }

    /// The sum of a metric's samples whose line contains all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = String::from_utf8(lyceum_core::telemetry::render(&self.registry)).unwrap();
        let fits = |line: &&str| {
            line.starts_with(name)
                && line[name.len()..].starts_with(['{', ' '])
                && labels.iter().all(|label| line.contains(label))
        };
        text.lines().filter(fits).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

pub fn claims() -> Claims {
    Claims {
        sub: "user".into(),
        exp: NOW + 3600,
        jti: Some("session1".into()),
        paths: vec!["/v/a/".into()],
        ..Claims::default()
    }
}

pub fn pool(origins: &[&Origin], more: &str) -> String {
    let origins: Vec<String> = origins.iter().map(|origin| format!("{{ url = \"{}\" }}", origin.url())).collect();
    format!("[[pool]]\nname = \"origin\"\norigins = [{}]\n{more}\n", origins.join(", "))
}

pub fn paid(origins: &[&Origin], more: &str) -> String {
    format!(
        "[tokens]\naudience = \"lyceum-edge\"\nissuers = [{{ name = \"lyceum\", jwks = [\"{{dir}}/jwks.json\"] }}]\n\
         [cors]\norigins = [\"*\"]\n{more}\n{}\n[[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"token\"\n",
        pool(origins, "")
    )
}

/// What a client got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The whole body, or nothing where it broke off.
    pub body: Option<Bytes>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.as_ref().expect("a whole body").to_vec()).unwrap()
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.field("cache-control"), "no-store");
        let problem: serde_json::Value = serde_json::from_slice(self.body.as_ref().unwrap()).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().unwrap().to_owned()
    }
}

pub fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The answer's head, its body still to come.
pub async fn begin(
    base: &str,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Response<hyper::body::Incoming> {
    let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    tokio::time::timeout(Duration::from_secs(20), client().request(request)).await.expect("an answer in time").unwrap()
}

pub async fn send(base: &str, method: Method, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let (head, body) = begin(base, method, path, fields, body).await.into_parts();
    let body = tokio::time::timeout(Duration::from_secs(20), body.collect()).await.expect("a body in time");
    Answer { status: head.status, headers: head.headers, body: body.ok().map(|whole| whole.to_bytes()) }
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub const IMMUTABLE: (&str, &str) = ("cache-control", "public, max-age=31536000, immutable");
