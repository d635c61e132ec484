//! Clients that cost more than they bring: each is ended by the limit that is meant for it, and others are served on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_core::units::{ByteSize, Span};
use lyceum_server::Limits;

use super::{Served, certificate, curl, serve};

/// Limits that end what they are meant for within a second or so.
fn strict() -> Limits {
    Limits {
        header: Span::millis(500),
        handshake: Span::millis(500),
        idle: Span::secs(1),
        stall: Span::secs(20),
        throughput: ByteSize::kib(64),
        throughput_time: Span::secs(1),
        window: Span::secs(1),
        exempt: Vec::new(),
        ..Limits::default()
    }
}

/// Everything but one limit out of reach.
fn patient() -> Limits {
    Limits { idle: Span::secs(20), throughput_time: Span::secs(20), window: Span::secs(20), ..strict() }
}

async fn serves_others(served: &Served) {
    assert!(curl(&[&served.url]).await.starts_with("HTTP/1.1"));
}

/// Connects and talks in a thread; gives what `talk` does.
async fn client<T: Send + 'static>(served: &Served, talk: impl FnOnce(TcpStream) -> T + Send + 'static) -> T {
    let address = served.address;
    let talking = move || {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        talk(stream)
    };
    tokio::task::spawn_blocking(talking).await.expect("the talk ends")
}

/// Whether the other side closes while `step` is done again and again.
fn closed_while(stream: &mut TcpStream, mut step: impl FnMut(&mut TcpStream) -> std::io::Result<()>) -> bool {
    let start = monotonic();
    while start.elapsed() < Duration::from_secs(12) {
        if step(stream).is_err() {
            return true;
        }
    }
    false
}

/// Whether the other side has closed: reads what there is.
fn hear(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    match stream.read(&mut bytes) {
        Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `GET path` as HPACK (RFC 7541): indexed names, a literal path and authority.
pub fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.bytes());
    block.extend(b"\x41\x01a");
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_comes_byte_by_byte_is_not_waited_for() {
    let served = serve(strict(), None);
    let closed = client(&served, |mut stream| {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".iter().copied().chain(std::iter::repeat(b'a'));
        closed_while(&mut stream, |stream| {
            stream.write_all(&[bytes.next().expect("endless")])?;
            hear(stream)
        })
    })
    .await;
    assert!(closed);
    served.counted("header").await;
    serves_others(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_ends_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let served = serve(strict(), Some(certificate(folder.path())));
    assert!(client(&served, |mut stream| closed_while(&mut stream, hear)).await);
    served.counted("handshake").await;
    assert!(
        client(&served, |mut stream| {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a write");
            closed_while(&mut stream, hear)
        })
        .await
    );
    served.counted("tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_body_by_the_spoon_is_let_go() {
    let served = serve(Limits { throughput_time: Span::secs(1), ..patient() }, None);
    let closed = client(&served, |mut stream| {
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").expect("a write");
        let mut spoon = [0; 256];
        closed_while(&mut stream, |stream| {
            std::thread::sleep(Duration::from_millis(100));
            // What the kernel holds may still be read when the other side is gone: writing tells.
            stream.write_all(b"\r\n")?;
            stream.read_exact(&mut spoon)
        })
    })
    .await;
    assert!(closed);
    served.counted("throughput").await;
    // Who takes it at once gets all of it.
    let whole = curl(&["-o", "/dev/null", "-w", "%{size_download}", &format!("{}/big", served.url)]).await;
    assert_eq!(whole, super::BIG.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_stays_shut_ends_the_connection_whatever_else_is_sent() {
    let served = serve(Limits { window: Span::secs(1), ..patient() }, None);
    let closed = client(&served, |mut stream| {
        // SETTINGS_INITIAL_WINDOW_SIZE 0: nothing of a body may be sent.
        let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/big"));
        stream.write_all(&[PREFACE, &settings, &request].concat()).expect("a write");
        closed_while(&mut stream, |stream| {
            stream.write_all(&frame(PING, 0, 0, &[0; 8]))?;
            hear(stream)
        })
    })
    .await;
    assert!(closed);
    served.counted("window").await;
    serves_others(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_do_not_keep_a_connection_that_asks_for_nothing() {
    let served = serve(Limits { idle: Span::secs(1), ..patient() }, None);
    let closed = client(&served, |mut stream| {
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("a write");
        closed_while(&mut stream, |stream| {
            stream.write_all(&frame(PING, 0, 0, &[0; 8]))?;
            hear(stream)
        })
    })
    .await;
    assert!(closed);
    served.counted("idle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_at_once_end_their_connection() {
    let served = serve(patient(), None);
    let sent = client(&served, |mut stream| {
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("a write");
        let mut sent = 0_u32;
        for n in 0..50_000_u32 {
            let id = 2 * n + 1;
            let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/never"));
            let reset = frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
            if stream.write_all(&[open, reset].concat()).is_err() {
                break;
            }
            sent += 1;
        }
        sent
    })
    .await;
    assert!(sent < 50_000, "{sent} streams were taken");
    serves_others(&served).await;
    served.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_goes_on_for_ever_ends_its_connection() {
    let served = serve(patient(), None);
    let sent = client(&served, |mut stream| {
        let first = frame(HEADERS, END_STREAM, 1, &get("/"));
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &first].concat()).expect("a write");
        // A literal field each, never the last frame.
        let more = frame(CONTINUATION, 0, 1, &[b"\x00\x01x\x7f\x00".as_slice(), &[b'a'; 127]].concat());
        (0..200_000).take_while(|_| stream.write_all(&more).is_ok()).count()
    })
    .await;
    assert!(sent * 130 < 8 << 20, "{sent} frames were taken");
    serves_others(&served).await;
}

/// Sends `first` behind the preface and then, until the connection is closed, what `more` gives for 0, 1, 2…: how often.
async fn flood(served: &Served, first: Vec<u8>, most: u32, more: impl Fn(u32) -> Vec<u8> + Send + 'static) -> u32 {
    client(served, move |mut stream| {
        // What is answered is taken, so that nothing but the flood itself can end it.
        let mut answers = stream.try_clone().expect("a socket");
        let taking = std::thread::spawn(move || while answers.read(&mut [0; 65536]).is_ok_and(|read| read > 0) {});
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &first].concat()).expect("a write");
        let sent = (0..most).take_while(|n| stream.write_all(&more(*n)).is_ok()).count();
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let _ = taking.join();
        u32::try_from(sent).expect("few")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_the_server_is_made_to_reset_end_their_connection() {
    let served = serve(patient(), None);
    let sent = flood(&served, Vec::new(), 50_000, |n| {
        let id = 2 * n + 1;
        // A window beyond what one may be (RFC 9113, section 6.9.1): the stream's error, and not the connection's.
        let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/slow"));
        [open, frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())].concat()
    })
    .await;
    assert!(sent < 20_000, "{sent} streams were taken");
    serves_others(&served).await;
    served.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_nothing_and_of_single_bytes_end_their_connection() {
    let served = serve(patient(), None);
    for (what, payload) in [("empty", b"".as_slice()), ("of a byte", b"x")] {
        let open = frame(HEADERS, END_HEADERS, 1, &get("/unread"));
        // A thousand frames at once.
        let data = frame(DATA, 0, 1, payload).repeat(1000);
        let sent = flood(&served, open, 2000, move |_| data.clone()).await;
        assert!(sent < 500, "{sent} thousand frames {what} were taken");
        serves_others(&served).await;
        served.none_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn continuations_of_nothing_end_their_connection() {
    let served = serve(patient(), None);
    let open = frame(HEADERS, END_STREAM, 1, &get("/"));
    let more = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    let sent = flood(&served, open, 2000, move |_| more.clone()).await;
    assert!(sent < 500, "{sent} thousand frames were taken");
    serves_others(&served).await;
    served.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answers_to_pings_and_settings_is_let_go() {
    for kind in [PING, SETTINGS] {
        let served = serve(Limits { throughput_time: Span::secs(1), ..patient() }, None);
        let asks = frame(kind, 0, 0, if kind == PING { &[0; 8] } else { &[] }).repeat(1000);
        let closed = client(&served, move |mut stream| {
            stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("a write");
            let mut sent = 0_usize;
            let closed = closed_while(&mut stream, |stream| match stream.write(&asks) {
                Ok(written) => {
                    sent += written;
                    Ok(())
                }
                // Nobody reads on, as long as nobody takes the answers.
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(()),
                Err(e) => Err(e),
            });
            (closed, sent)
        })
        .await;
        assert!(closed.0 && closed.1 < 64 << 20, "{closed:?}");
        served.counted("throughput").await;
        serves_others(&served).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_learnt_once_and_named_a_thousand_times_is_not_unpacked() {
    let served = serve(patient(), None);
    // One field of 4000 bytes (127 and 3873 more), then its number: 16 KiB that would be 50 MiB.
    let mut header = [get("/bomb").as_slice(), b"\x40\x01x\x7f\xa1\x1e", &[b'a'; 4000]].concat();
    header.extend([0xbe; 12_000]);
    let answers = client(&served, move |mut stream| {
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("a write");
        for n in 0..20 {
            let _ = stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &header));
        }
        let _ = stream.write_all(&frame(GOAWAY, 0, 0, &[0; 8]));
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    })
    .await;
    assert!(!answers.contains("/bomb"), "the handler was asked: {answers}");
    serves_others(&served).await;
    served.none_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_so_many_connections_and_another_its_own() {
    let served = serve(Limits { connections_per_client: 3, ..patient() }, None);
    let held: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(served.address).expect("a connection");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("a write");
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    assert!(client(&served, |mut stream| closed_while(&mut stream, hear)).await);
    served.counted("connections_per_client").await;
    assert!(curl(&["--interface", "127.0.0.2", &served.url]).await.starts_with("HTTP/1.1"), "another address");
    drop(held);
    served.none_left().await;
    serves_others(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_ask_again() {
    let served = serve(Limits { requests_per_client: 1, requests_burst: 3, ..patient() }, None);
    let url = [served.url.as_str(); 6];
    let codes = curl(
        &[
            &[
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} ",
            ][..],
            &url,
        ]
        .concat(),
    )
    .await;
    assert!(codes.starts_with("200 200 200 429 429"), "{codes}");
    let refused = curl(&["-i", &served.url]).await;
    assert!(refused.contains("retry-after: 1\r\n") && refused.contains("\"code\":\"too_many_requests\""), "{refused}");
    served.counted("requests_per_client").await;
    assert!(curl(&["--interface", "127.0.0.2", &served.url]).await.starts_with("HTTP/1.1"), "another address");
}
