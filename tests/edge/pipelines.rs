//! Requests one behind the other on one connection, read by a slow client: header fields of hits are written out beforehand
//! and put into place by the socket, which must not show.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::harness::*;

/// One answer: status line, fields but for those that tell the time, body.
type Heard = (String, BTreeMap<String, String>, Vec<u8>);

/// Splits what came over a connection into the answers to these requests. Panics on anything that is none.
fn answers(mut bytes: &[u8], requests: &[String]) -> Vec<Heard> {
    let mut heard = Vec::new();
    for request in requests {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).expect("a head is text");
        let (status, lines) = head.split_once("\r\n").expect("a status line");
        assert!(status.starts_with("HTTP/1.1 "), "{status}");
        let mut fields = BTreeMap::new();
        for line in lines.split_terminator("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {head:?}"));
            assert!(fields.insert(name.to_owned(), value.to_owned()).is_none(), "{name} twice in {head:?}");
        }
        let bodiless = request.starts_with("HEAD ") || status.contains(" 304 ") || status.contains(" 204 ");
        let length = if bodiless { 0 } else { fields["content-length"].parse().expect("a length") };
        let (body, rest) = rest.split_at(length);
        fields.remove("date");
        fields.remove("connection");
        heard.push((status.to_owned(), fields, body.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes more", bytes.len());
    heard
}

/// All that comes until the server ends the connection, in reads of these sizes in turn.
fn read_all(socket: &mut TcpStream, sizes: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    for size in sizes.iter().cycle() {
        let mut piece = vec![0; *size];
        match socket.read(&mut piece).expect("a read") {
            0 => return all,
            n => all.extend_from_slice(&piece[..n]),
        }
    }
    all
}

const SLOW: [usize; 5] = [1, 700, 3, 9_000, 40_000];

fn ask(address: SocketAddr, requests: &[String], sizes: &[usize]) -> Vec<Heard> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // What the server can't send stays with it.
    socket.set_recv_buffer_size(4096).expect("a buffer size");
    socket.connect(&address.into()).expect("a connection");
    let mut socket = TcpStream::from(socket);
    let mut writes = socket.try_clone().expect("the same socket");
    let (last, others) = requests.split_last().expect("a request");
    let text = format!("{}{}", others.concat(), last.replace("host: x\r\n", "host: x\r\nconnection: close\r\n"));
    let writer = std::thread::spawn(move || writes.write_all(text.as_bytes()).expect("a write"));
    let bytes = read_all(&mut socket, sizes);
    writer.join().expect("the writer");
    answers(&bytes, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn however_slowly_they_are_read_each_gets_its_own_answer_whole_and_in_order() {
    let origin = Origin::start(|seen| {
        let size: usize = seen.target.rsplit('/').next().and_then(|name| name.parse().ok()).unwrap_or(0);
        let tag = format!("\"{size}\"");
        // A body that reads like an answer.
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse".repeat(size / 40 + 1);
        Reply::new(200, &[IMMUTABLE, ("etag", &tag), ("content-type", "video/mp4")], &text[..size])
    })
    .await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let sizes = [0, 1, 17, 2_048, 5_000, 70_000, 300_000];
    for size in sizes {
        assert_eq!(edge.get(&format!("/t/{token}/v/a/{size}")).await.body.unwrap().len(), size);
    }
    let request = |method: &str, path: &str, field: &str| format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{field}\r\n");
    let hit = |size: usize| request("GET", &format!("/t/{token}/v/a/{size}"), "");
    let mut kinds: Vec<String> = sizes.iter().map(|size| hit(*size)).collect();
    kinds.extend([
        request("HEAD", &format!("/t/{token}/v/a/2048"), ""),
        request("GET", &format!("/t/{token}/v/a/70000"), "range: bytes=5-60000\r\n"),
        request("GET", &format!("/t/{token}/v/a/17"), "if-none-match: \"17\"\r\n"),
        request("GET", &format!("/t/{token}x/v/a/17"), ""),
        request("OPTIONS", &format!("/t/{token}/v/a/17"), ""),
    ]);
    let address: SocketAddr = edge.url.trim_start_matches("http://").parse().unwrap();
    tokio::task::spawn_blocking(move || {
        let alone: Vec<Heard> =
            kinds.iter().flat_map(|kind| ask(address, std::slice::from_ref(kind), &[1 << 16])).collect();
        assert_eq!(alone[3].1["cache-status"], "lyceum; hit");
        assert_eq!(alone[3].1["etag"], "\"2048\"");
        assert_eq!(alone[3].2.len(), 2_048);
        // Over all pairs, and so often that no socket's buffer holds them.
        let order: Vec<usize> = (0..kinds.len() * kinds.len() * 3).map(|n| (n * 7 + n / 12) % kinds.len()).collect();
        // So many heads without bodies that they wait in the server, with those of hits behind them.
        let heads: Vec<usize> = [7, 9, 7, 3].repeat(3_000);
        for (order, sizes) in [(&order, &[1 << 16][..]), (&order, &SLOW), (&heads, &SLOW)] {
            let requests: Vec<String> = order.iter().map(|kind| kinds[*kind].clone()).collect();
            let heard = ask(address, &requests, sizes);
            for (at, (heard, kind)) in heard.iter().zip(order).enumerate() {
                assert!(*heard == alone[*kind], "answer {at} to {:?}: {:?} {:?}", kinds[*kind], heard.0, heard.1);
            }
        }
    })
    .await
    .unwrap();
}
