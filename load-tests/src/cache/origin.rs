//! An origin of objects of any size: `/v/a/{length}/…`, and `/v/a/hold/{length}/…`, whose second half it holds back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::origin::{self, Answer};
use crate::world::WorldError;

#[derive(Debug)]
pub(super) struct Origin {
    address: SocketAddr,
    objects: Arc<Objects>,
}

#[derive(Debug)]
struct Objects {
    go: watch::Sender<bool>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Origin {
    pub(super) async fn start() -> Result<Self, WorldError> {
        let objects = Arc::new(Objects { go: watch::channel(false).0, asked: Mutex::default() });
        Ok(Self { address: origin::listen(Arc::clone(&objects)).await?, objects })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends what was held back.
    pub(super) fn go_on(&self) {
        self.objects.go.send_replace(true);
    }

    /// Requests for names that contain `part`.
    pub(super) fn count(&self, part: &str) -> usize {
        let asked = self.objects.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|(name, _)| name.contains(part)).map(|(_, count)| count).sum()
    }
}

impl Answer for Objects {
    type Connection = watch::Receiver<bool>;

    fn connected(&self) -> Self::Connection {
        self.go.subscribe()
    }

    async fn answer(&self, stream: &mut TcpStream, told: &mut Self::Connection, head: &str) -> std::io::Result<bool> {
        let path = head.split(' ').nth(1).unwrap_or("").trim_start_matches("/v/a/");
        let (held, rest) = path.strip_prefix("hold/").map_or((false, path), |rest| (true, rest));
        let length: usize = rest.split('/').next().and_then(|length| length.parse().ok()).unwrap_or(0);
        if held {
            // The others are too many to be kept by name.
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
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
        Ok(true)
    }
}
