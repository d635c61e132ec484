//! A flood over QUIC: handshakes that nobody means to end, versions that nobody speaks, and plain garbage, from as many
//! ports as a forger has addresses. Those who mean it are served meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_core::units::Span;
use lyceum_server::Limits;
use quinn::crypto::rustls::QuicClientConfig;
use serde_json::json;
use tokio::net::UdpSocket;

use super::http3::{ask, listen};
use super::{Served, certificate, serve_as};

/// A QUIC client that speaks HTTP/3 and trusts `ca`.
fn config(ca: &std::path::Path) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(ca).expect("a certificate");
    roots.add_parsable_certificates(certificates(&pem));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut crypto = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    crypto.alpn_protocols = vec![b"h3".to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).expect("QUIC")))
}

/// What a real client sends first, several times over: each the datagrams of one connection's first flight.
async fn first_flights(count: usize, ca: &std::path::Path) -> Vec<Vec<Vec<u8>>> {
    let config = config(ca);
    let catcher = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let to = catcher.local_addr().expect("an address");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a client");
    let mut caught: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    let mut buffer = [0_u8; 2048];
    for _ in 0..count {
        let connecting = endpoint.connect_with(config.clone(), to, "localhost").expect("a connection");
        // A first flight comes at once; what is sent again later is not waited for.
        while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(5), catcher.recv(&mut buffer)).await {
            let datagram = buffer[..length].to_vec();
            let id = datagram[6..6 + usize::from(datagram[5])].to_vec();
            caught.entry(id).or_default().push(datagram);
            if caught.len() >= count {
                break;
            }
        }
        drop(connecting);
    }
    caught.into_values().filter(|flight| flight[0].len() >= 1200).collect()
}

fn certificates(pem: &[u8]) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::pem_slice_iter(pem).map(|found| found.expect("a certificate")).collect()
}

/// Bytes that look random and are the same each time.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// An Initial of a version that is none, one whose seal is broken, one that is too short, and no packet at all.
fn garbage(seed: usize, initial: &[u8]) -> Vec<Vec<u8>> {
    let mut unheard_of = initial.to_vec();
    unheard_of[1..5].copy_from_slice(&noise(seed, 4));
    unheard_of[6..14].copy_from_slice(&noise(seed + 1, 8));
    let mut broken = initial.to_vec();
    broken[6..14].copy_from_slice(&noise(seed + 2, 8));
    let mut short = initial[..600].to_vec();
    short[6..14].copy_from_slice(&noise(seed + 3, 8));
    let long_header = [vec![0xc0 | noise(seed, 1)[0]], noise(seed + 4, 1300)].concat();
    vec![unheard_of, broken, short, long_header, noise(seed + 5, 40), noise(seed + 6, 1452), Vec::new(), vec![0xff]]
}

/// Sends all of it, each flight from a port of its own; gives back what was answered: bytes in, and bytes out.
async fn flood(to: SocketAddr, flights: &[Vec<Vec<u8>>]) -> (usize, usize) {
    let (mut sent, mut answered) = (0, 0);
    let mut buffer = [0_u8; 2048];
    for flight in flights {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        for datagram in flight {
            sent += socket.send_to(datagram, to).await.unwrap_or(0);
        }
        tokio::task::yield_now().await;
        while let Ok(length) = socket.try_recv(&mut buffer) {
            answered += length;
        }
    }
    (sent, answered)
}

const RETRIES: &str = "lyceum_front_quic_retries_total";

async fn served_meanwhile(served: &Served, ca: &std::path::Path, how_many: usize) {
    for n in 0..how_many {
        let began = monotonic();
        let answer = ask(served.address.port(), ca, json!([{ "path": format!("/{n}") }])).await.remove(0);
        assert_eq!(answer["text"], format!("HTTP/3.0 tls=true 127.0.0.1 /{n}\n"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_initials_and_garbage_holds_little_and_keeps_no_one_out() {
    const UNVALIDATED: u64 = 20;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let limits = Limits { unvalidated: UNVALIDATED, handshake: Span::secs(3), ..Limits::default() };
    let served = Arc::new(serve_as(listen(&files, json!(true)), limits));
    let whole = first_flights(300, &files.cert).await;
    assert!(whole.len() >= 200, "{} first flights", whole.len());
    // Of some, only the first datagram: a handshake that can't even begin.
    let mut flights: Vec<Vec<Vec<u8>>> = Vec::new();
    for (n, flight) in whole.iter().enumerate() {
        flights.push(if n % 2 == 0 { flight.clone() } else { vec![flight[0].clone()] });
        flights.push(garbage(n * 100, &flight[0]));
    }
    let (to, watched) = (served.address, Arc::clone(&served));
    let flooding = tokio::spawn(async move {
        let (mut most, mut total) = (0.0_f64, (0, 0));
        for round in flights.chunks(50) {
            let (sent, answered) = flood(to, round).await;
            total = (total.0 + sent, total.1 + answered);
            most = most.max(watched.metric("lyceum_front_connections"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (most, total)
    });
    served_meanwhile(&served, &files.cert, 2).await;
    let (most, (sent, answered)) = flooding.await.expect("the flood ends");
    // One more for the client that is served meanwhile.
    assert!(most <= UNVALIDATED as f64 + 1.0, "{most} connections are held");
    assert!(most >= UNVALIDATED as f64 / 2.0, "the flood was felt: {most}");
    assert!(served.metric(RETRIES) >= 50.0, "{}", served.metric(RETRIES));
    assert!(answered <= sent, "{answered} bytes in answer to {sent}");
    served_meanwhile(&served, &files.cert, 1).await;
    served.counted("handshake").await;
    served.none_left().await;
    // Nothing of it is left over: who comes now is asked for nothing more.
    let before = served.metric(RETRIES);
    served_meanwhile(&served, &files.cert, 1).await;
    assert_eq!(served.metric(RETRIES), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_is_checked_where_none_may_go_unchecked_and_too_many_connections_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    // One place is held for whoever comes over TCP next.
    let served = serve_as(listen(&files, json!(true)), Limits { connections: 2, ..Limits::default() });
    for _ in 0..2 {
        served_meanwhile(&served, &files.cert, 1).await;
        served.none_left().await;
    }
    assert_eq!(served.metric(RETRIES), 2.0, "a tenth of two connections is none");
    // The other place is taken.
    let slow = ask(served.address.port(), &files.cert, json!([{ "path": "/slow" }]));
    let second = async {
        served.echo.asked.notified().await;
        let answer = ask(served.address.port(), &files.cert, json!([{ "path": "/" }])).await.remove(0);
        served.echo.go.notify_one();
        answer
    };
    let (first, second) = tokio::join!(slow, second);
    assert_eq!(first[0]["status"], 200);
    assert!(second.get("refused").is_some(), "{second}");
    served.counted("connections").await;
}

/// `GET /` as HTTP/3 has it (RFC 9114, section 7.2.2): QPACK of the static table alone.
const GET: &[u8] = b"\x01\x08\x00\x00\xd1\xd7\xc1\x50\x01a";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_given_up_at_once_count_like_others() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = certificate(folder.path());
    let limits =
        Limits { requests_per_client: 10, requests_burst: 100, exempt: Vec::new(), streams: 50, ..Limits::default() };
    let served = serve_as(listen(&files, json!(true)), limits);
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a client");
    let connecting = endpoint.connect_with(config(&files.cert), served.address, "localhost").expect("a connection");
    let connection = connecting.await.expect("a handshake");
    let mut control = connection.open_uni().await.expect("a control stream");
    control.write_all(b"\x00\x04\x00").await.expect("settings");
    for round in 0..60 {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let opening = tokio::time::timeout(Duration::from_secs(10), connection.open_bi()).await;
            let (mut send, receive) = opening.unwrap_or_else(|_| panic!("no room in round {round}")).expect("a stream");
            send.write_all(GET).await.expect("a request");
            send.finish().expect("its end");
            streams.push((send, receive));
        }
        // Those that were under way are heard of, and then taken back.
        tokio::time::sleep(Duration::from_millis(5)).await;
        for (_, mut receive) in streams {
            let _ = receive.stop(0x10c_u32.into());
        }
    }
    let refused = "lyceum_front_ended_total{limit=\"requests_per_client\"}";
    served.until("most requests are refused", |served| served.metric(refused) > 1500.0).await;
    let other = ["-k", "--interface", "127.0.0.2", &served.url];
    assert!(super::curl(&other).await.starts_with("HTTP/2"), "another address");
    connection.close(0_u32.into(), b"");
    served.none_left().await;
}
