//! An origin of objects of any size: `/v/a/{length}/…`, and `/v/a/hold/{length}/…`, whose second half it holds back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::world::WorldError;

#[derive(Debug)]
pub(super) struct Origin {
    address: SocketAddr,
    go: watch::Sender<bool>,
    asked: Asked,
}

type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

impl Origin {
    pub(super) async fn start() -> Result<Self, WorldError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(WorldError::new)?;
        let address = listener.local_addr().map_err(WorldError::new)?;
        let (go, told) = watch::channel(false);
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, log) = (told.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    // The edge may close when it likes.
                    let _ = serve(stream, told, log).await;
                });
            }
        });
        Ok(Self { address, go, asked })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends what was held back.
    pub(super) fn go_on(&self) {
        self.go.send_replace(true);
    }

    /// Requests for names that contain `part`.
    pub(super) fn count(&self, part: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|(name, _)| name.contains(part)).map(|(_, count)| count).sum()
    }
}

async fn serve(mut stream: TcpStream, mut told: watch::Receiver<bool>, log: Asked) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head);
        let path = head.split(' ').nth(1).unwrap_or("").trim_start_matches("/v/a/");
        let (held, rest) = path.strip_prefix("hold/").map_or((false, path), |rest| (true, rest));
        let length: usize = rest.split('/').next().and_then(|length| length.parse().ok()).unwrap_or(0);
        if held {
            // The others are too many to be kept by name.
            *log.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ncache-control: max-age=86400\r\n\r\n");
        let mut answer = head.into_bytes();
        let first = if held { length / 2 } else { length };
        answer.resize(answer.len() + first, b'x');
        stream.write_all(&answer).await?;
        if held {
            // The sender lives as long as the run.
            let _ = told.wait_for(|go| *go).await;
            stream.write_all(&vec![b'x'; length - first]).await?;
        }
    }
}
