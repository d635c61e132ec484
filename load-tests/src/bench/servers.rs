//! The compared servers, each pinned to the first core, in front of one origin.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lyceum_token::{Claims, Signer};

use super::account;
use super::error::BenchError;
use super::load::Protocol;
use crate::programs::ChildProcess;

/// The core that servers are pinned to.
const SERVER_CORE: &str = "0";

/// What all servers share: files, the origin, a token.
pub(super) struct TestServers {
    folder: tempfile::TempDir,
    origin: SocketAddr,
    _origin: ChildProcess,
    token: String,
    sizes: Vec<usize>,
}

/// Where a body of this size lies.
fn object(size: usize) -> String {
    format!("/v/bench/{size}.m4s")
}

/// The query that nginx's secure_link asks for: MD5 over expiry, URI and secret.
fn secure_link(uri: &str) -> Result<String, BenchError> {
    const EXPIRES: &str = "4102444800";
    let script = "printf '%s' \"$1\" | openssl md5 -binary | openssl base64 | tr '+/' '-_' | tr -d '=\\n'";
    let signed = format!("{EXPIRES}{uri} secret");
    let output = Command::new("sh").args(["-c", script, "sh", &signed]).output().map_err(failed("openssl"))?;
    Ok(format!("?md5={}&expires={EXPIRES}", String::from_utf8_lossy(&output.stdout)))
}

/// One server, answering in the clear and over TLS.
pub(super) struct Server {
    name: String,
    plain: SocketAddr,
    /// None where it speaks no TLS.
    tls: Option<SocketAddr>,
    prefix: String,
    /// What stands behind each size's path.
    suffixes: HashMap<usize, String>,
    pids: Vec<u32>,
    _running: Vec<ChildProcess>,
}

impl Server {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The TLS listener.
    pub(super) fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The path before a body's name, for a server that asks for nothing behind it.
    pub(super) fn folder(&self) -> String {
        format!("{}/v/bench", self.prefix)
    }

    /// Where it listens in the clear.
    pub(super) fn plain(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// The path of a body of this size.
    pub(super) fn path(&self, size: usize) -> String {
        format!("{}{}{}", self.prefix, object(size), self.suffixes.get(&size).map_or("", String::as_str))
    }

    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Where a body of this size is had, if this protocol is spoken.
    pub(super) fn url(&self, protocol: Protocol, size: usize) -> Option<String> {
        let (scheme, address) = if protocol.is_encrypted() { ("https", self.tls?) } else { ("http", self.plain) };
        Some(format!("{scheme}://{address}{}", self.path(size)))
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> BenchError {
    let what = what.to_owned();
    move |error| BenchError::new(format!("{what}: {error}"))
}

fn free_port() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("no free port"))?;
    listener.local_addr().map_err(failed("no free port"))
}

/// Waits until someone accepts at `address`.
fn wait(address: SocketAddr) -> Result<(), BenchError> {
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(BenchError::new(format!("nothing answers at {address}")))
}

fn own_program() -> Result<PathBuf, BenchError> {
    std::env::current_exe().map_err(failed("this program"))
}

impl TestServers {
    pub(super) fn new(sizes: &[usize]) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(failed("a temporary directory"))?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
            .map_err(BenchError::new)?;
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).map_err(failed(name));
        write("cert.pem", &made.cert.pem())?;
        write("key.pem", &made.signing_key.serialize_pem())?;
        let signer = Signer::open(&folder.path().join("keys"), "bench", "lyceum-edge").map_err(BenchError::new)?;
        write("jwks.json", &signer.jwks().to_string())?;
        let claims = Claims {
            sub: "bench".into(),
            // 2100: the token outlives the machine.
            exp: 4_102_444_800,
            jti: Some("bench".into()),
            paths: vec!["/v/bench/".into()],
            ..Claims::default()
        };
        let token = signer.sign(&claims).map_err(BenchError::new)?;
        let (origin, address) = floor(&[], None)?;
        Ok(Self { folder, origin: address, _origin: origin, token, sizes: sizes.to_vec() })
    }

    /// A file in the setting's folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn start(&self, name: &str) -> Result<Server, BenchError> {
        match name {
            "floor" => self.floor(),
            "edge" => self.edge(""),
            "nginx" => self.nginx(),
            "varnish" => self.varnish(),
            other => Err(BenchError::new(format!("no server is called \"{other}\": floor, edge, nginx, varnish"))),
        }
    }

    fn floor(&self) -> Result<Server, BenchError> {
        let files = (self.file("cert.pem"), self.file("key.pem"));
        let held = ["taskset", "-c", SERVER_CORE];
        let (plain, plain_address) = floor(&held, None)?;
        let (tls, tls_address) = floor(&held, Some((&files.0, &files.1)))?;
        Ok(Server {
            name: "floor".into(),
            plain: plain_address,
            tls: Some(tls_address),
            // The same request as the edge's: what reading it costs is part of what these libraries cost.
            prefix: format!("/t/{}", self.token),
            suffixes: HashMap::new(),
            pids: vec![plain.0.id(), tls.0.id()],
            _running: vec![plain, tls],
        })
    }

    /// `more`: TOML of its own, such as a larger cache.
    pub(super) fn edge(&self, more: &str) -> Result<Server, BenchError> {
        let (plain, tls) = (free_port()?, free_port()?);
        let folder = self.folder.path().display();
        let config = format!(
            "listen = [{{ address = \"{plain}\" }}, {{ address = \"{tls}\", tls = {{ cert = \"{folder}/cert.pem\", key = \"{folder}/key.pem\" }} }}]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{more}\n\
             [limits]\nexempt = []\nconnections_per_client = 1000000\nrequests_per_client = 1000000\nrequests_burst = 10000000\n\
             [tokens]\naudience = \"lyceum-edge\"\nissuers = [{{ name = \"bench\", jwks = [\"{folder}/jwks.json\"] }}]\n\
             [cors]\norigins = [\"*\"]\n\
             [[pool]]\nname = \"origin\"\norigins = [{{ url = \"http://{}\" }}]\n\
             [[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"token\"\n",
            self.origin
        );
        let path = self.file("edge.toml");
        std::fs::write(&path, config).map_err(failed("edge.toml"))?;
        let program = own_program()?.with_file_name("lyceum");
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(program).args(["edge", "--config"]).arg(&path);
        let child = ChildProcess(command.stdout(Stdio::null()).spawn().map_err(failed("lyceum edge"))?);
        wait(plain)?;
        wait(tls)?;
        Ok(Server {
            name: "edge".into(),
            plain,
            tls: Some(tls),
            prefix: format!("/t/{}", self.token),
            suffixes: HashMap::new(),
            pids: vec![child.0.id()],
            _running: vec![child],
        })
    }

    fn nginx(&self) -> Result<Server, BenchError> {
        let (plain, tls) = (free_port()?, free_port()?);
        let folder = self.folder.path().display();
        // With tcp_nopush the last bytes of a body wait 40 ms for an acknowledgement on this kernel's loopback, which no
        // operator would leave so; without, nginx is at its best.
        let config = format!(
            "daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
             events {{ worker_connections 20000; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush off; tcp_nodelay on; keepalive_requests 1000000000;\n\
             client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n\
             uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
             proxy_cache_path {folder}/cache keys_zone=bench:10m use_temp_path=off; open_file_cache max=1000;\n\
             server {{ listen {plain}; listen {tls} ssl http2; ssl_certificate {folder}/cert.pem;\n\
             ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;\n\
             location /v/ {{ secure_link $arg_md5,$arg_expires; secure_link_md5 \"$secure_link_expires$uri secret\";\n\
             if ($secure_link = \"\") {{ return 403; }} if ($secure_link = \"0\") {{ return 410; }}\n\
             proxy_cache bench; proxy_cache_key $uri; proxy_cache_valid 200 1h; proxy_pass http://{}; }} }} }}\n",
            self.origin
        );
        let path = self.file("nginx.conf");
        std::fs::write(&path, config).map_err(failed("nginx.conf"))?;
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE, "nginx", "-p"]).arg(self.folder.path()).arg("-c").arg(&path);
        let child = ChildProcess(command.stdout(Stdio::null()).spawn().map_err(failed("nginx"))?);
        wait(plain)?;
        wait(tls)?;
        // A child that has no title yet can't be told from the cache loader.
        for _ in 0..100 {
            if account::children_are_titled(child.0.id()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut pids = account::children(child.0.id());
        pids.push(child.0.id());
        let suffixes = self
            .sizes
            .iter()
            .map(|size| Ok((*size, secure_link(&object(*size))?)))
            .collect::<Result<_, BenchError>>()?;
        Ok(Server {
            name: "nginx".into(),
            plain,
            tls: Some(tls),
            prefix: String::new(),
            suffixes,
            pids,
            _running: vec![child],
        })
    }
}

impl TestServers {
    fn varnish(&self) -> Result<Server, BenchError> {
        let plain = free_port()?;
        let folder = self.file("varnish");
        std::fs::create_dir(&folder).map_err(failed("varnish"))?;
        let (host, port) = (self.origin.ip(), self.origin.port());
        let vcl = format!(
            "vcl 4.1; backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n\
             sub vcl_backend_response {{ set beresp.ttl = 1h; }}\n"
        );
        let path = self.file("varnish.vcl");
        std::fs::write(&path, vcl).map_err(failed("varnish.vcl"))?;
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE, "varnishd", "-F", "-j", "none", "-s", "malloc,512m", "-a"]);
        command.arg(plain.to_string()).arg("-n").arg(&folder).arg("-f").arg(&path);
        let child =
            ChildProcess(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed("varnishd"))?);
        wait(plain)?;
        let mut pids = account::children(child.0.id());
        pids.push(child.0.id());
        Ok(Server {
            name: "varnish".into(),
            plain,
            tls: None,
            prefix: String::new(),
            suffixes: HashMap::new(),
            pids,
            _running: vec![child],
        })
    }
}

/// Starts the floor on a free port.
fn floor(before: &[&str], tls: Option<(&Path, &Path)>) -> Result<(ChildProcess, SocketAddr), BenchError> {
    let mut command = match before {
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(own_program()?);
            command
        }
        [] => Command::new(own_program()?),
    };
    command.args(["floor", "--listen", "127.0.0.1:0"]);
    if let Some((cert, key)) = tls {
        command.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    let mut child = ChildProcess(command.stdout(Stdio::piped()).spawn().map_err(failed("the floor"))?);
    let mut line = String::new();
    if let Some(out) = child.0.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(failed("the floor"))?;
    }
    let address = line.trim().parse().map_err(|_| BenchError::new("the floor did not start"))?;
    Ok((child, address))
}
