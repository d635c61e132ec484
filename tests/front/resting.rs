//! Connections at rest: they hold no buffers, and nobody can tell.

use std::process::Stdio;
use std::time::Duration;

use lyceum::front::Limits;
use lyceum::units::Span;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Served, certificate, serve};

const RESTING: &str = "lyceum_front_connections_resting ";

/// Looks every quarter of a second.
fn limits() -> Limits {
    Limits { header: Span::secs(1), ..Limits::default() }
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
