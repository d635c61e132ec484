//! HTTP/1.1 as the origins of measurements speak it: heads are read here, how they are answered is up to each.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::world::WorldError;

/// How an origin answers.
pub trait Answer: Send + Sync + 'static {
    /// What it keeps for each connection.
    type Connection: Send;

    /// A connection came.
    fn connected(&self) -> Self::Connection;

    /// Answers a request that has this head and no body; whether the connection goes on.
    fn answer(
        &self,
        stream: &mut TcpStream,
        connection: &mut Self::Connection,
        head: &str,
    ) -> impl Future<Output = io::Result<bool>> + Send;
}

/// Listens on a free port from now on.
pub async fn listen(origin: Arc<impl Answer>) -> Result<SocketAddr, WorldError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(WorldError::new)?;
    let address = listener.local_addr().map_err(WorldError::new)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let origin = Arc::clone(&origin);
            tokio::spawn(async move {
                // Either side may break a connection when it likes.
                let _ = serve(stream, &*origin).await;
            });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, origin: &impl Answer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = origin.connected();
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
        if !origin.answer(&mut stream, &mut connection, &String::from_utf8_lossy(&head)).await? {
            return Ok(());
        }
    }
}
