//! What a listener can be: several names under one address, behind a load balancer, behind a proxy.

use std::io::{Read, Write};
use std::net::TcpStream;

use lyceum_core::shutdown::Shutdown;
use lyceum_server::{Limits, Listen, Server};
use serde_json::{Value, json};

use super::{Echo, curl, named_certificate, serve_as};
use crate::support::process::Role;

#[tokio::test(flavor = "multi_thread")]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let names = ["one.example", "*.two.example", "three.example"];
    let files: Vec<_> =
        names.iter().zip(&folders).map(|(name, folder)| named_certificate(folder.path(), name)).collect();
    let tls: Vec<Value> = files.iter().map(|files| json!({ "cert": files.cert, "key": files.key })).collect();
    let served = serve_as(json!({ "address": "127.0.0.1:0", "tls": tls }), Limits::default());
    let port = served.address.port();
    for (name, files) in ["one.example", "a.two.example", "three.example"].iter().zip(&files) {
        let (ca, resolve) = (files.cert.display().to_string(), format!("{name}:{port}:127.0.0.1"));
        let url = format!("https://{name}:{port}/");
        assert_eq!(curl(&["--cacert", &ca, "--resolve", &resolve, &url]).await, "HTTP/2.0 tls=true 127.0.0.1 /\n");
        assert_eq!(
            curl(&["--tls-max", "1.2", "--cacert", &ca, "--resolve", &resolve, &url]).await,
            "HTTP/2.0 tls=true 127.0.0.1 /\n"
        );
    }
    // A name that none is for gets the first.
    let ca = files[0].cert.display().to_string();
    let unknown = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &served.address.to_string(), "-servername", "other.example", "-CAfile", &ca])
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .expect("openssl runs");
    let told = String::from_utf8_lossy(&unknown.stdout);
    assert!(
        told.contains("one.example") || told.contains("Verification: OK") || told.contains("Verify return code: 0"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_also_after_new_certificates() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = named_certificate(folder.path(), "localhost");
    let listen: Listen =
        serde_json::from_value(json!({ "address": "127.0.0.1:0", "tls": { "cert": files.cert, "key": files.key } }))
            .expect("a listener");
    let server = Server::bind(&[listen], &Limits::default(), &prometheus::Registry::new()).expect("a free port");
    let address = server.urls().remove(0).replace("https://", "");
    let reload = server.tls();
    tokio::spawn(server.serve(Echo::default(), Shutdown::new()));
    for version in ["-tls1_2", "-tls1_3"] {
        let session = folder.path().join(version);
        let talk = async |how: &'static str| {
            let mut client = tokio::process::Command::new("openssl")
                .args(["s_client", version, "-connect", &address, how])
                .arg(&session)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("openssl runs");
            // The answer comes behind the tickets.
            let mut stdin = client.stdin.take().expect("a pipe");
            tokio::io::AsyncWriteExt::write_all(&mut stdin, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .await
                .expect("a write");
            let output = client.wait_with_output().await.expect("openssl ends");
            drop(stdin);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let first = talk("-sess_out").await;
        assert!(first.contains("\nNew, ") && first.contains("200 OK"), "{first}");
        let second = talk("-sess_in").await;
        assert!(second.contains("\nReused, "), "{version}: {second}");
        named_certificate(folder.path(), "localhost");
        reload.reload().expect("the new certificate is good");
        assert!(talk("-sess_in").await.contains("\nReused, "), "{version}, after a reload");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_says_whose_connection_it_is() {
    let listen = json!({ "address": "127.0.0.1:0", "proxy_protocol": { "from": ["127.0.0.1"] } });
    let served = serve_as(listen, Limits { header: lyceum_core::units::Span::millis(500), ..Limits::default() });
    // curl speaks version 1.
    assert_eq!(curl(&["--haproxy-protocol", &served.url]).await, "HTTP/1.1 tls=false 127.0.0.1 /\n");
    let talk = |bytes: Vec<u8>| {
        let mut stream = TcpStream::connect(served.address).expect("a connection");
        stream.write_all(&bytes).expect("a write");
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard);
        heard
    };
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 0xbb]);
    let heard = tokio::task::block_in_place(|| talk([&v2[..], request].concat()));
    assert!(heard.contains("192.0.2.7 /"), "{heard}");
    // Without a header, and with one that is none, not a byte is answered.
    for bytes in [request.to_vec(), b"PROXY TCP4 a b c d\r\n".to_vec(), b"PROXY ".to_vec()] {
        assert_eq!(tokio::task::block_in_place(|| talk(bytes)), "");
    }
    served.counted("proxy_protocol").await;
    // Others are served as who they are, and their header is no HTTP.
    assert_eq!(curl(&["--interface", "127.0.0.2", &served.url]).await, "HTTP/1.1 tls=false 127.0.0.2 /\n");
    let strange = tokio::process::Command::new("curl")
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--interface",
            "127.0.0.2",
            "--haproxy-protocol",
            &served.url,
        ])
        .output()
        .await
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&strange.stdout), "400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxys_word_on_its_clients_counts_also_for_limits() {
    for (field, header) in [
        ("forwarded", "Forwarded: for=6.6.6.6, for=192.0.2.7;proto=https"),
        ("x-forwarded-for", "X-Forwarded-For: 6.6.6.6, 192.0.2.7"),
    ] {
        let listen = json!({ "address": "127.0.0.1:0", "forwarded": { "from": ["127.0.0.1"], "field": field } });
        let limits =
            Limits { requests_per_client: 1, requests_burst: 2, connections_per_client: 1, ..Limits::default() };
        let served = serve_as(listen, limits);
        let told = curl(&["-H", header, &served.url]).await;
        let tls = field == "forwarded";
        assert_eq!(told, format!("HTTP/1.1 tls={tls} 192.0.2.7 /\n"));
        assert_eq!(curl(&[&served.url]).await, "HTTP/1.1 tls=false 127.0.0.1 /\n");
        assert_eq!(
            curl(&["--interface", "127.0.0.2", "-H", header, &served.url]).await,
            "HTTP/1.1 tls=false 127.0.0.2 /\n"
        );
        // The proxy asks for many; each of them has its own bucket.
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        let ask = async |header: &str| curl(&[&status[..], &["-H", header, &served.url]].concat()).await;
        assert_eq!(ask(header).await, "200");
        assert_eq!(ask(header).await, "429");
        assert_eq!(ask(&header.replace("192.0.2.7", "192.0.2.8")).await, "200");
    }
}

#[test]
fn connections_are_not_held_to_the_few_files_that_a_shell_gives() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = folder.path().join("edge.toml");
    let toml = "listen = [{ address = \"127.0.0.1:0\" }]\n\
                [[pool]]\nname = \"none\"\norigins = [{ url = \"http://127.0.0.1:9\" }]\n\
                [[route]]\nprefix = \"/\"\npool = \"none\"\nauth = \"none\"\n";
    std::fs::write(&config, toml).expect("a configuration");
    let edge = Role::with_few_files("edge", &config, 64);
    let address = edge.url().replace("http://", "");
    let ask = |_| {
        let mut socket = TcpStream::connect(&address).expect("a connection");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a patience");
        write!(socket, "OPTIONS * HTTP/1.1\r\nhost: edge\r\n\r\n").expect("a request");
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 204", "{}", String::from_utf8_lossy(&answer));
        socket
    };
    let open: Vec<TcpStream> = (0..200).map(ask).collect();
    assert_eq!(open.len(), 200);
}
