//! What stands before every role: protocols, limits on peers who cost more than they bring, the drain.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::{Instant, monotonic};
use lyceum_core::units::Span;
use lyceum_http::problem;
use lyceum_server::{Handler, Limits, Listen, Peer, Refused, RequestBody, ResponseFuture, Server, TlsFiles};
use tokio::sync::Notify;

#[path = "server/flood.rs"]
mod flood;
#[path = "server/hostile.rs"]
mod hostile;
#[path = "server/http3.rs"]
pub mod http3;
#[path = "server/listeners.rs"]
mod listeners;
#[path = "server/resting.rs"]
mod resting;

/// The length of `/big`: more than the kernel holds for a client that does not read.
const BIG: usize = 32 << 20;

/// Says how it was asked; `/slow` answers only when it is let go.
#[derive(Clone, Default)]
struct Echo {
    asked: std::sync::Arc<Notify>,
    go: std::sync::Arc<Notify>,
}

impl Handler for Echo {
    type Body = Full<Bytes>;

    fn call(&self, peer: Peer, request: Request<RequestBody>, _began: Instant) -> ResponseFuture<Full<Bytes>> {
        if request.uri().path() == "/big" {
            return ResponseFuture::Ready(Response::new(Full::new(Bytes::from(vec![b'x'; BIG]))));
        }
        let text = format!("{:?} tls={} {} {}\n", request.version(), peer.tls, peer.address.ip(), request.uri().path());
        let answer = Response::new(Full::new(Bytes::from(text)));
        if request.uri().path() != "/slow" {
            return ResponseFuture::Ready(answer);
        }
        let echo = self.clone();
        ResponseFuture::boxed(async move {
            echo.asked.notify_one();
            echo.go.notified().await;
            answer
        })
    }

    fn refuse(&self, _request: &http::request::Parts, refused: Refused) -> Response<Full<Bytes>> {
        let mut response: Response<Full<Bytes>> =
            problem::response(refused.status(), refused.code(), &refused.to_string());
        response.headers_mut().insert("retry-after", refused.retry_after().into());
        response
    }
}

struct Served {
    address: SocketAddr,
    url: String,
    shutdown: Shutdown,
    done: tokio::task::JoinHandle<()>,
    echo: Echo,
    registry: prometheus::Registry,
}

impl Served {
    fn metric(&self, line: &str) -> f64 {
        let text = String::from_utf8(lyceum_core::telemetry::render(&self.registry)).expect("metrics are text");
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = monotonic();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something has been ended by `limit`.
    async fn counted(&self, limit: &str) {
        let line = format!("lyceum_front_ended_total{{limit=\"{limit}\"}}");
        self.until(&line, |served| served.metric(&line) > 0.0).await;
    }

    /// Waits until no connection is left.
    async fn none_left(&self) {
        self.until("no connection is left", |served| served.metric("lyceum_front_connections") == 0.0).await;
    }
}

/// A free port with every other setting as it is by default.
fn listen(tls: Option<TlsFiles>) -> Listen {
    let plain = serde_json::from_value(serde_json::json!({ "address": "127.0.0.1:0" })).expect("a listener");
    Listen { tls: tls.map(Into::into), ..plain }
}

fn serve(limits: Limits, tls: Option<TlsFiles>) -> Served {
    bind(listen(tls), limits)
}

/// A listener as a configuration would have it.
fn serve_as(listen: serde_json::Value, limits: Limits) -> Served {
    bind(serde_json::from_value(listen).expect("a listener"), limits)
}

fn bind(listen: Listen, limits: Limits) -> Served {
    let registry = prometheus::Registry::new();
    let server = Server::bind(&[listen], &limits, &registry).expect("a free port");
    let url = server.urls().remove(0);
    let address = url.rsplit('/').next().expect("an address").parse().expect("an address");
    let (shutdown, echo) = (Shutdown::new(), Echo::default());
    let done = tokio::spawn(server.serve(echo.clone(), shutdown.clone()));
    Served { address, url, shutdown, done, echo, registry }
}

async fn curl(arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("curl").arg("-sS").args(arguments).output().await.expect("curl runs");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Speaks raw bytes and returns what comes until the other side closes.
async fn raw(address: SocketAddr, bytes: &'static [u8]) -> String {
    let talk = move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let _ = stream.write_all(bytes);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    };
    tokio::task::spawn_blocking(talk).await.expect("the talk ends")
}

fn certificate(folder: &std::path::Path) -> TlsFiles {
    named_certificate(folder, "localhost")
}

fn named_certificate(folder: &std::path::Path, name: &str) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    write_certificate(folder, &made.cert, &made.signing_key)
}

fn write_certificate(folder: &std::path::Path, cert: &rcgen::Certificate, key: &rcgen::KeyPair) -> TlsFiles {
    let files = TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.cert, cert.pem()).expect("a file");
    std::fs::write(&files.key, key.serialize_pem()).expect("a file");
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_how_long_a_certificate_is_valid() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let now = u64::try_from(lyceum_core::time::Clock::system().unix_seconds()).expect("a time after 1970");
    let five_days_and_an_hour = Duration::from_secs(now + 5 * 24 * 3600 + 3600);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + five_days_and_an_hour;
    let files = write_certificate(folder.path(), &wanted.self_signed(&key).expect("a certificate"), &key);
    let served = serve(Limits::default(), Some(files.clone()));
    let doctor = async |trusted: &str| {
        let mut doctor = tokio::process::Command::new(crate::support::program("lyceum"));
        doctor.args(["doctor", "--origin", &served.url.replace("127.0.0.1", "localhost")]);
        let output = doctor.env("SSL_CERT_FILE", trusted).output().await.expect("doctor runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = doctor(&files.cert.display().to_string()).await;
    assert!(told.contains("warn  certificate of https://localhost"), "{told}");
    assert!(told.contains("valid for 5 more days"), "{told}");
    // One that this machine does not know: the origin is not even reached.
    let other = tempfile::tempdir().expect("a temporary directory");
    let stranger = certificate(other.path()).cert.display().to_string();
    let told = doctor(&stranger).await;
    assert!(told.contains("fail  origin https://localhost") && !told.contains("more days"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_listeners_speak_http_1_and_2() {
    let served = serve(Limits::default(), None);
    assert_eq!(curl(&["--http1.1", &served.url]).await, "HTTP/1.1 tls=false 127.0.0.1 /\n");
    assert_eq!(curl(&["--http2-prior-knowledge", &served.url]).await, "HTTP/2.0 tls=false 127.0.0.1 /\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_listeners_choose_by_alpn_and_take_new_certificates() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let server = Server::bind(&[listen(Some(files.clone()))], &Limits::default(), &prometheus::Registry::new())
        .expect("a free port");
    let url = server.urls().remove(0).replace("127.0.0.1", "localhost");
    let reload = server.tls();
    tokio::spawn(server.serve(Echo::default(), Shutdown::new()));
    let trusted = |cert: &std::path::Path| cert.display().to_string();
    assert_eq!(curl(&["--http2", "--cacert", &trusted(&files.cert), &url]).await, "HTTP/2.0 tls=true 127.0.0.1 /\n");
    assert_eq!(curl(&["--http1.1", "--cacert", &trusted(&files.cert), &url]).await, "HTTP/1.1 tls=true 127.0.0.1 /\n");
    // A renewed certificate is in force at once; a broken one leaves what was in force.
    certificate(folder.path());
    reload.reload().expect("the new certificate is good");
    assert_eq!(curl(&["--http2", "--cacert", &trusted(&files.cert), &url]).await, "HTTP/2.0 tls=true 127.0.0.1 /\n");
    std::fs::write(&files.key, "no key").expect("a file");
    assert!(reload.reload().is_err());
    assert_eq!(curl(&["--http2", "--cacert", &trusted(&files.cert), &url]).await, "HTTP/2.0 tls=true 127.0.0.1 /\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_speaks_or_never_ends_a_header_is_let_go() {
    let limits = Limits { header: Span::millis(300), idle: Span::secs(1), ..Limits::default() };
    let served = serve(limits, None);
    for bytes in [b"".as_slice(), b"PR", b"GET / HTTP/1.1\r\nHost: a\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let start = monotonic();
        let heard = raw(served.address, bytes).await;
        assert!(!heard.contains("200 OK"), "{heard}");
        assert!(start.elapsed() < Duration::from_secs(15), "{:?} was kept for {:?}", bytes, start.elapsed());
    }
    // A kept connection ends when it has been idle.
    let heard = raw(served.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(heard.contains("200 OK"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn header_sections_are_bounded() {
    let served = serve(Limits::default(), None);
    let long = format!("X: {}", "a".repeat(64 * 1024));
    let status = ["-o", "/dev/null", "-w", "%{http_code}", "--http1.1"];
    let answered = curl(&[&status[..], &["-H", &long, &served.url]].concat()).await;
    assert_eq!(answered, "431");
    let many: Vec<String> = (0..150).flat_map(|n| ["-H".to_owned(), format!("X-{n}: a")]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(curl(&[&status[..], &many[..], &[&served.url]].concat()).await, "431");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_comes_out_of_an_ambiguous_one() {
    let served = serve(Limits::default(), None);
    for bytes in [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n01234GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let heard = raw(served.address, bytes).await;
        assert!(!heard.contains("/smuggled"), "{}\n{heard}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_under_way() {
    let served = serve(Limits::default(), None);
    let url = format!("{}/slow", served.url);
    let asking = tokio::spawn(async move { curl(&[&url]).await });
    served.echo.asked.notified().await;
    served.shutdown.begin();
    served.done.await.expect("the listeners end");
    let refused = Command::new("curl").args(["-s", &served.url]).status().expect("curl runs");
    assert!(!refused.success(), "a new connection is taken in the drain");
    served.echo.go.notify_one();
    assert_eq!(asking.await.expect("curl ends"), "HTTP/1.1 tls=false 127.0.0.1 /slow\n");
    assert!(served.shutdown.drained(Duration::from_secs(10)).await);
}
