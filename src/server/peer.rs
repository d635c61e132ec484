//! A request's client: the socket's remote address, or the one that a trusted proxy names.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use lyceum_http::forwarded;
use lyceum_http::ip_network::Network;
use lyceum_http::proxy_protocol::{self, NotProxy, Parsed};

/// The client of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address: the socket's remote address, or the one named by a proxy that the listener trusts. The port is
    /// 0 where a proxy names none.
    pub address: SocketAddr,
    /// Whether the client's connection is encrypted.
    pub tls: bool,
}

/// `proxy_protocol` of a listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Load balancers. Their connections must begin with a PROXY header of version 1 or 2, others' must not.
    pub from: Vec<Network>,
}

/// `forwarded` of a listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forwarded {
    /// Trusted proxies.
    pub from: Vec<Network>,
    /// The field in which they name the client.
    #[serde(default)]
    pub field: ForwardedField,
}

/// The fields in which proxies name their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedField {
    /// RFC 7239.
    #[default]
    Forwarded,
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for the scheme.
    XForwardedFor,
}

impl ProxyProtocol {
    pub(crate) fn is_expected_from(&self, address: SocketAddr) -> bool {
        self.from.iter().any(|network| network.contains(address.ip()))
    }
}

/// Why no PROXY header could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoProxyHeader {
    #[error(transparent)]
    Wrong(#[from] NotProxy),
    #[error("the PROXY header could not be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the PROXY header did not come in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Reads a PROXY header and no byte beyond it; gives the client that it names, if any.
pub(crate) async fn read_proxy_header<S: AsyncRead + Unpin>(
    stream: &mut S,
    time: Duration,
) -> Result<Option<SocketAddr>, NoProxyHeader> {
    let read = async {
        let mut bytes = Vec::with_capacity(128);
        loop {
            match proxy_protocol::parse(&bytes)? {
                Parsed::Whole { client } => return Ok(client),
                Parsed::Needs(more) => {
                    let have = bytes.len();
                    bytes.resize(more, 0);
                    stream.read_exact(bytes.get_mut(have..).unwrap_or_default()).await?;
                }
            }
        }
    };
    tokio::time::timeout(time, read).await?
}

impl Forwarded {
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        self.from.iter().any(|network| network.contains(peer.address.ip()))
    }

    /// The client that `peer` names in a request.
    pub(crate) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let hops = match self.field {
            ForwardedField::Forwarded => forwarded::forwarded(headers),
            ForwardedField::XForwardedFor => forwarded::x_forwarded_for(headers),
        };
        let client = forwarded::client(peer.address.ip(), &hops, &self.from);
        match client.address {
            Some(address) if address != peer.address.ip().to_canonical() => {
                Peer { address: SocketAddr::new(address, 0), tls: client.secure.unwrap_or(peer.tls) }
            }
            _ => peer,
        }
    }
}
