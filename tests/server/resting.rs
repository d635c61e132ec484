//! Connections at rest: they hold no buffers, and nobody can tell.

use std::process::Stdio;
use std::time::Duration;

use lyceum_core::units::Span;
use lyceum_server::Limits;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;

use super::hostile::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
};
use super::{Served, certificate, serve};
use crate::support::repository;

const RESTING: &str = "lyceum_front_connections_resting ";

/// Looks every quarter of a second.
fn limits() -> Limits {
    Limits { header: Span::secs(1), rest: Span::millis(300), ..Limits::default() }
}

/// A client that keeps its connection.
struct Client {
    reads: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    writes: Box<dyn AsyncWrite + Send + Unpin>,
    _program: Option<tokio::process::Child>,
}

impl Client {
    async fn plain(served: &Served) -> Self {
        let (reads, writes) = TcpStream::connect(served.address).await.expect("a connection").into_split();
        Self { reads: BufReader::new(Box::new(reads)), writes: Box::new(writes), _program: None }
    }

    fn tls(served: &Served) -> Self {
        let mut program = tokio::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &served.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl runs");
        let (reads, writes) = (program.stdout.take().expect("a pipe"), program.stdin.take().expect("a pipe"));
        Self { reads: BufReader::new(Box::new(reads)), writes: Box::new(writes), _program: Some(program) }
    }

    async fn send(&mut self, text: &str) {
        self.writes.write_all(text.as_bytes()).await.expect("a write");
        self.writes.flush().await.expect("a write");
    }

    /// The path that the next answer names.
    async fn heard(&mut self) -> String {
        let heard = async {
            loop {
                let mut line = String::new();
                assert!(self.reads.read_line(&mut line).await.expect("a line") > 0, "the connection ended");
                if let Some((_, path)) = line.trim_end().rsplit_once("127.0.0.1 ") {
                    return path.to_owned();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard).await.expect("an answer")
    }

    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(self.heard().await, path);
    }

    /// Waits for the end of the connection.
    async fn ends(&mut self) {
        let mut rest = Vec::new();
        let end = self.reads.read_to_end(&mut rest);
        let _ = tokio::time::timeout(Duration::from_secs(10), end).await.expect("the connection ends");
    }
}

async fn rests(served: &Served, connections: f64) {
    served.until("connections rest", |served| served.metric(RESTING) == connections).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_rests_between_requests_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for tls in [None, Some(certificate(folder.path()))] {
        let is_tls = tls.is_some();
        let served = serve(limits(), tls);
        let mut client = if is_tls { Client::tls(&served) } else { Client::plain(&served).await };
        for path in ["/first", "/second", "/third"] {
            client.ask(path).await;
            rests(&served, 1.0).await;
        }
        // A header in pieces that begins while it rests, and two requests at once.
        client.send("GET /pie").await;
        rests(&served, 0.0).await;
        client.send("ces HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((client.heard().await, client.heard().await), ("/pieces".to_owned(), "/after".to_owned()));
        rests(&served, 1.0).await;
        // Who drains is not kept by one that rests.
        served.shutdown.begin();
        client.ends().await;
        served.none_left().await;
        rests(&served, 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_header_behind_a_request_is_kept_and_does_not_rest_for_ever() {
    let served = serve(limits(), None);
    let mut client = Client::plain(&served).await;
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /t").await;
    assert_eq!(client.heard().await, "/one");
    client.send("wo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.heard().await, "/two");
    client.send("GET /three HTTP/1.1\r\n").await;
    client.ends().await;
    served.counted("header").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_does_not_rest() {
    let served = serve(limits(), None);
    let mut client = Client::plain(&served).await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    served.echo.asked.notified().await;
    let mut other = Client::plain(&served).await;
    other.ask("/other").await;
    // The other has been looked at, and so has this one.
    rests(&served, 1.0).await;
    served.echo.go.notify_one();
    assert_eq!(client.heard().await, "/slow");
    rests(&served, 2.0).await;
}

type Socket = Box<dyn Stream>;
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn socket(served: &Served, cert: Option<&std::path::Path>) -> Socket {
    let stream = TcpStream::connect(served.address).await.expect("a connection");
    let Some(cert) = cert else { return Box::new(stream) };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(cert).expect("a certificate")).expect("a root");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "localhost".try_into().expect("a name");
    Box::new(tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.expect("TLS"))
}

/// A whole client of HTTP/2, and the end of its connection.
async fn whole(socket: Socket) -> (http2::SendRequest<Full<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("HTTP/2");
    (send, tokio::spawn(connection))
}

async fn ask(send: &mut http2::SendRequest<Full<Bytes>>, path: &str, body: &'static [u8]) {
    // Fields that header compression learns by heart.
    let request = Request::post(format!("http://localhost{path}")).header("x-by-heart", "the same each time");
    let request = request.body(Full::new(Bytes::from_static(body))).expect("a request");
    let answer = async { send.send_request(request).await?.into_body().collect().await };
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("in time").expect("an answer");
    let text = String::from_utf8_lossy(&answer.to_bytes()).into_owned();
    assert!(text.starts_with("HTTP/2.0") && text.trim_end().ends_with(path), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_rests_between_requests_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for tls in [None, Some(certificate(folder.path()))] {
        let cert = tls.as_ref().map(|files| files.cert.clone());
        let served = serve(limits(), tls);
        let (mut send, ended) = whole(socket(&served, cert.as_deref()).await).await;
        // With bodies and without, one and several at once, before the first request too.
        rests(&served, 1.0).await;
        for (path, body) in [("/first", b"".as_slice()), ("/second", &[7; 40_000]), ("/third", b"few")] {
            ask(&mut send, path, body).await;
            let (mut one, mut two) = (send.clone(), send.clone());
            tokio::join!(ask(&mut one, "/one", body), ask(&mut two, "/two", b""));
            rests(&served, 1.0).await;
        }
        // One that is answered later is no rest.
        let mut slow = send.clone();
        let slow = tokio::spawn(async move { ask(&mut slow, "/slow", b"").await });
        served.echo.asked.notified().await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        rests(&served, 0.0).await;
        served.echo.go.notify_one();
        slow.await.expect("an answer");
        rests(&served, 1.0).await;
        // Who drains is not kept by one that rests.
        served.shutdown.begin();
        ended.await.expect("the connection ends").expect("the connection ends well");
        served.none_left().await;
        rests(&served, 0.0).await;
    }
}

/// The window that uploads are sent in is given back whole over many rests.
#[tokio::test(flavor = "multi_thread")]
async fn what_uploads_took_of_a_window_is_given_back_over_rests() {
    let served = serve(limits(), None);
    let (mut send, _ended) = whole(socket(&served, None).await).await;
    for _ in 0..4 {
        // A third of the window is not given back by itself: four of these would not fit.
        ask(&mut send, "/upload", &[7; 350_000]).await;
        rests(&served, 1.0).await;
    }
}

/// Node's is nghttp2, as curl's and many others' is.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_make_goes_on_after_rests() {
    let served = serve(limits(), None);
    let script = "const client = require('http2').connect(process.argv[1]);
        client.on('connect', () => client.setLocalWindowSize(1 << 20));
        const ask = (path) => new Promise((done, failed) => {
          let text = '';
          const request = client.request({ ':path': path, 'x-by-heart': 'the same each time' });
          request.on('data', (piece) => { text += piece; }).on('end', () => done(text)).on('error', failed).end();
        });
        (async () => {
          for (const path of ['/a', '/b', '/c']) {
            process.stdout.write(await ask(path));
            await new Promise((done) => setTimeout(done, 2000));
          }
          client.close();
        })();";
    let mut node = tokio::process::Command::new("node");
    let node = node.args(["-e", script, &served.url]).kill_on_drop(true).output();
    let counted = async {
        for _ in 0..2 {
            rests(&served, 1.0).await;
            rests(&served, 0.0).await;
        }
    };
    let (output, ()) = tokio::join!(node, counted);
    let text = String::from_utf8_lossy(&output.expect("node runs").stdout).into_owned();
    assert_eq!(text, ["/a", "/b", "/c"].map(|path| format!("HTTP/2.0 tls=false 127.0.0.1 {path}\n")).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_goes_on_over_the_same_connection_after_rests() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let served = serve(limits(), Some(certificate(folder.path())));
    let mut script = tokio::process::Command::new("node")
        .args(["rests.mjs", "--url", &served.url])
        .current_dir(repository("tests/browser"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut ask = script.stdin.take().expect("a pipe");
    let mut told = BufReader::new(script.stdout.take().expect("a pipe")).lines();
    for round in 0..3 {
        // It may have opened one that it does not use.
        let rest = |served: &Served| match served.metric("lyceum_front_connections ") {
            open if open < 1.0 => false,
            open => served.metric(RESTING) == open,
        };
        served.until("all of its connections rest", rest).await;
        ask.write_all(b"ask\n").await.expect("a write");
        let line = tokio::time::timeout(Duration::from_secs(60), told.next_line()).await.expect("in time");
        let line = line.expect("a line").expect("the script goes on");
        let told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((told["protocol"].as_str(), told["opened"].as_u64()), (Some("h2"), Some(0)), "{told}");
        assert!(
            told["texts"][1].as_str().is_some_and(|text| text.trim_end().ends_with(&format!("/b-{round}"))),
            "{told}"
        );
    }
    ask.write_all(b"end\n").await.expect("a write");
    assert!(script.wait().await.expect("the script ends").success());
}

/// A client that speaks frame by frame.
struct Frames(Socket);

impl Frames {
    /// One that has agreed on settings.
    async fn new(served: &Served, settings: &[u8]) -> Self {
        let mut client = Self(socket(served, None).await);
        let window = frame(WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
        let agreed = [frame(SETTINGS, 0, 0, settings), frame(SETTINGS, 1, 0, &[]), window];
        client.send(&[PREFACE, &agreed.concat()].concat()).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("a write");
    }

    /// The next frame of this kind: its flags, stream and payload.
    async fn next(&mut self, kind: u8) -> (u8, u32, Vec<u8>) {
        let next = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.expect("a frame");
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.0.read_exact(&mut payload).await.expect("a payload");
                if head[3] == kind {
                    return (head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.unwrap_or_else(|_| panic!("no frame {kind}"))
    }

    async fn settings(&mut self) -> Vec<u8> {
        loop {
            let (flags, _, payload) = self.next(SETTINGS).await;
            if flags == 0 {
                return payload;
            }
        }
    }

    /// Asks on a stream, and reads to the end of the answer.
    async fn ask(&mut self, stream: u32, header: &[u8]) {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, header)).await;
        loop {
            let (flags, of, _) = self.next(DATA).await;
            if (flags, of) == (END_STREAM, stream) {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_to_forget_and_hears_no_more_of_a_rest() {
    let served = serve(limits(), None);
    // A window of 100 bytes for each stream, which the connection after a rest has to know too.
    let mut client = Frames::new(&served, &[0, 4, 0, 0, 0, 100]).await;
    client.settings().await;
    client.ask(1, &get("/one")).await;
    assert_eq!(client.settings().await, [0, 1, 0, 0, 0, 0]);
    assert_eq!(client.settings().await, [0, 1, 0, 0, 16, 0]);
    // It rests only when both are acknowledged.
    client.send(&frame(SETTINGS, 1, 0, &[])).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    rests(&served, 0.0).await;
    client.send(&frame(SETTINGS, 1, 0, &[])).await;
    rests(&served, 1.0).await;
    // Late frames for a stream that has ended, in pieces, and a ping: it answers the ping and nothing else.
    let late = [frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
    for piece in [late.as_slice(), &frame(PING, 0, 0, b"awakened")].concat().chunks(5) {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut head = [0; 9];
    client.0.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3..5], [PING, 1]);
    let mut echoed = [0; 8];
    client.0.read_exact(&mut echoed).await.expect("a payload");
    assert_eq!(&echoed, b"awakened");
    rests(&served, 1.0).await;
    // The next request begins as RFC 7541, section 4.2, has it. A large answer stops where its window ends.
    let header = [[0x20, 0x3f, 0xe1, 0x1f].as_slice(), &get("/big")].concat();
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 7, &header)).await;
    let (_, stream, payload) = client.next(DATA).await;
    assert_eq!((stream, payload.len()), (7, 100));
    client.send(&frame(RST_STREAM, 0, 7, &[0, 0, 0, 8])).await;
    client.ask(9, &get("/after")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_forget_is_told_that_it_may_ask_anew() {
    let served = serve(limits(), None);
    let mut client = Frames::new(&served, &[]).await;
    client.settings().await;
    // A field that is learnt by heart, then named by its number (63, behind the authority) though the client was asked to forget it.
    let learns = [get("/one").as_slice(), b"\x40\x01x\x01y"].concat();
    client.ask(1, &learns).await;
    client.ask(3, &[get("/two").as_slice(), b"\xbf"].concat()).await;
    for _ in 0..2 {
        client.settings().await;
        client.send(&frame(SETTINGS, 1, 0, &[])).await;
    }
    rests(&served, 1.0).await;
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 5, &[get("/three").as_slice(), b"\xbf"].concat())).await;
    let (_, _, payload) = client.next(GOAWAY).await;
    // The last stream that was answered is not this one.
    assert!(payload[..4] < *5_u32.to_be_bytes().as_slice() && payload[4..8] != [0; 4], "{payload:?}");
    served.none_left().await;
}
