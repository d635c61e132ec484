//! What one request for a segment in memory costs, whole and part by part.
//!
//! `cargo bench --features benches --bench request_path` measures time with Criterion. With `count PART N` as
//! arguments the program does one part N times and nothing else: `benches/instructions` counts the difference under
//! callgrind and holds it to `load-tests/results/instructions.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a bench fails so")]

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use lyceum_cache::{Cache, Config, FillPlan, Lookup, ResponseHead, Vary};
use lyceum_core::shutdown::Shutdown;
use lyceum_core::time::Clock;
use lyceum_edge::{self as edge, Edge};
use lyceum_http::freshness::Freshness;
use lyceum_http::{cmcd, path::CleanPath, range};
use lyceum_server::Server;
use lyceum_token::extract;
use lyceum_token::{Claims, Facts, Issuer, KeySet, Signer, Trust, Verifier, VerifierConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const NOW: i64 = 1_800_000_000;
const KEY: &str = "/v/k3j9x2m4/1/v720/00012-48000.m4s";

/// The bytes of the body that is asked for.
const BODY: usize = 2 << 10;

/// An edge with everything on behind its listener, and a client's connection to it, all on one thread.
struct Served {
    runtime: Runtime,
    stream: RefCell<TcpStream>,
    request: Vec<u8>,
    answer: RefCell<Vec<u8>>,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(&folder.path().join("keys"), "lyceum", "lyceum-edge").unwrap();
        std::fs::write(folder.path().join("jwks.json"), signer.jwks().to_string()).unwrap();
        let token = signer.sign(&claims()).unwrap();
        let request =
            format!("GET /t/{token}{KEY} HTTP/1.1\r\nHost: edge.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n");
        let stream = runtime.block_on(connected(&folder));
        let served = Self {
            runtime,
            stream: RefCell::new(stream),
            request: request.into_bytes(),
            answer: RefCell::default(),
            _folder: folder,
        };
        // Fetched, then a hit; the answer's length is that of all that follow, but for its age.
        served.ask();
        served.ask();
        assert!(String::from_utf8_lossy(&served.answer.borrow()).contains("cache-status: lyceum; hit\r\n"));
        served
    }

    /// Asks and reads to the end of the body.
    #[allow(clippy::await_holding_refcell_ref, reason = "one thread, one request at a time")]
    fn ask(&self) {
        self.runtime.block_on(async {
            let (mut stream, mut answer) = (self.stream.borrow_mut(), self.answer.borrow_mut());
            stream.write_all(&self.request).await.unwrap();
            answer.clear();
            loop {
                assert!(stream.read_buf(&mut *answer).await.unwrap() > 0, "the edge closed");
                let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
                if head.is_some_and(|head| answer.len() >= head + 4 + BODY) {
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                    return;
                }
            }
        });
    }
}

fn claims() -> Claims {
    Claims {
        sub: "user-4711".into(),
        exp: NOW + 600,
        jti: Some("s9f8e7d6c5b4a3".into()),
        paths: vec!["/v/k3j9x2m4/".into()],
        ..Claims::default()
    }
}

/// Answers whatever is asked with a segment.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nETag: \"3f2a9c\"\r\nContent-Length: {BODY}\r\n\
                     Cache-Control: public, max-age=31536000, immutable\r\nSurrogate-Key: lesson-k3j9x2m4\r\n\r\n"
                );
                stream.write_all(&[head.as_bytes(), &[b'x'; BODY]].concat()).await.unwrap();
            }
        }
    });
    address
}

async fn connected(folder: &tempfile::TempDir) -> TcpStream {
    let toml = format!(
        "listen = [{{ address = \"127.0.0.1:0\" }}]\n[tokens]\naudience = \"lyceum-edge\"\n\
         issuers = [{{ name = \"lyceum\", jwks = [\"{}/jwks.json\"] }}]\n[cors]\norigins = [\"*\"]\n\
         [limits]\nexempt = []\nrequests_per_client = 1000000\nrequests_burst = 10000000\n\
         [[pool]]\nname = \"origin\"\norigins = [{{ url = \"http://{}\" }}]\n\
         [[route]]\nprefix = \"/v/\"\npool = \"origin\"\nauth = \"token\"\n",
        folder.path().display(),
        origin().await
    );
    let config: edge::Config = lyceum_core::config::parse(&toml, Path::new("edge.toml"), &|_| None).unwrap();
    let (shutdown, registry) = (Shutdown::new(), prometheus::Registry::new());
    let server = Server::bind(&config.listen, &config.limits, &registry).unwrap();
    let address = server.urls().remove(0).replace("http://", "");
    let parts = edge::Parts { clock: Clock::manual(NOW * 1000), registry, shutdown: shutdown.clone() };
    let edge = Edge::start(config, parts).await.unwrap();
    tokio::spawn(server.serve(edge, shutdown));
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

struct Parts {
    served: Served,
    target: String,
    token: String,
    verifier: Verifier,
    cache: Arc<Cache<()>>,
    fields: HeaderMap,
    _keys: tempfile::TempDir,
}

impl Parts {
    fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let signer = Signer::open(keys.path(), "lyceum", "lyceum-edge").unwrap();
        let token = signer.sign(&claims()).unwrap();
        let issuer = Issuer::new("lyceum");
        issuer.replace(KeySet::parse(signer.jwks().to_string().as_bytes(), Trust::Public).unwrap());
        let verifier = Verifier::new(VerifierConfig {
            audience: "lyceum-edge".into(),
            issuers: vec![issuer],
            max_cached_tokens: 1000,
            max_revoked_sessions: 1000,
            require_session: true,
            renewer: None,
            claim_keys: Vec::new(),
        });
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("content-type", "video/mp4"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("etag", "\"3f2a9c\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("surrogate-key", "lesson-k3j9x2m4"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        let cache = Cache::new(&Config::default());
        fill(&cache, &fields);
        Self { served: Served::new(), target: format!("/t/{token}{KEY}"), token, verifier, cache, fields, _keys: keys }
    }

    fn token_hit(&self) {
        let facts = Facts { path: CleanPath::check(black_box(KEY)).ok(), now: NOW, ..Facts::default() };
        black_box(self.verifier.verify(black_box(&self.token), &facts).expect("a grant"));
    }

    fn locate(&self) {
        let (token, path) = extract::in_path(black_box(&self.target)).expect("a token");
        black_box((token, CleanPath::check(path).expect("a clean path")));
    }

    fn cache_hit(&self) {
        match self.cache.lookup(black_box(KEY), &HeaderMap::new(), |_| true) {
            Lookup::Hit(stored) => drop(black_box(stored)),
            other => panic!("{other:?}"),
        }
    }

    fn header_block(&self) {
        black_box(black_box(&self.fields).clone());
    }

    fn range() {
        black_box(range::wanted(black_box("bytes=1000-1999"), 1_000_000));
    }

    fn cmcd() {
        black_box(cmcd::Report::parse(black_box(
            "bl=20000,br=3200,cid=\"k3j9x2m4\",d=4000,mtp=25400,ot=v,sf=h,sid=\"a\",st=v,tb=6000",
        )));
    }

    fn part(&self, name: &str) -> Option<Box<dyn Fn() + '_>> {
        Some(match name {
            "request" => Box::new(|| self.served.ask()),
            "token_hit" => Box::new(|| self.token_hit()),
            "locate" => Box::new(|| self.locate()),
            "cache_hit" => Box::new(|| self.cache_hit()),
            "header_block" => Box::new(|| self.header_block()),
            "range" => Box::new(Self::range),
            "cmcd" => Box::new(Self::cmcd),
            _ => return None,
        })
    }
}

fn fill(cache: &Arc<Cache<()>>, fields: &HeaderMap) {
    let Lookup::Fill { mut writer, .. } = cache.lookup(KEY, &HeaderMap::new(), |_| true) else {
        panic!("an empty cache")
    };
    let head =
        ResponseHead { status: StatusCode::OK, headers: fields.clone(), length: Some(1000), vary: Vary::default() };
    let freshness = Freshness::lasting(600, 0);
    writer.begin(head, FillPlan::Store { freshness, tags: Vec::new() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(writer.push(Bytes::from(vec![0; 1000]))).unwrap();
    writer.finish();
}

const PARTS: [&str; 7] = ["request", "token_hit", "locate", "cache_hit", "header_block", "range", "cmcd"];

fn main() {
    let parts = Parts::new();
    // The first use verifies the signature; what is measured is each that follows.
    parts.token_hit();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [count, name, times] = arguments.as_slice()
        && count == "count"
    {
        let part = parts.part(name).unwrap_or_else(|| panic!("the parts are {PARTS:?}"));
        let times: u32 = times.parse().expect("a number");
        (0..times).for_each(|_| part());
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for name in PARTS {
        let part = parts.part(name).expect("a part");
        criterion.bench_function(name, |bencher| bencher.iter(&part));
    }
    criterion.final_summary();
}
