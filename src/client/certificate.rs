//! The certificate that a server shows: when it ends.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::ServerName;
use x509_parser::prelude::FromDer as _;

use super::{Error, host_of, tls};

/// The last second in which the certificate of an https URL's server is valid, since the Unix epoch (RFC 5280, section
/// 4.1.2.5); `None` for http. `limit` is for each address and each message.
///
/// # Errors
///
/// Where no TLS connection comes about, also because the certificate is not valid or not known to this machine.
pub async fn valid_until(url: &str, limit: Duration) -> Result<Option<i64>, Error> {
    let uri: Uri = url.parse().map_err(|error| Error::Request(format!("{error}")))?;
    if uri.scheme_str() != Some("https") {
        return Ok(None);
    }
    let host = host_of(&uri);
    let read = tokio::task::spawn_blocking(move || read(&uri, limit)).await;
    let unreachable = |cause: io::Error| Error::Unreachable { host, cause: cause.into() };
    read.map_err(io::Error::other).and_then(|read| read).map(Some).map_err(unreachable)
}

fn read(uri: &Uri, limit: Duration) -> io::Result<i64> {
    let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut refused = io::Error::other("the name has no address");
    for address in (name, uri.port_u16().unwrap_or(443)).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return shake_hands(stream, server, limit),
            Err(cause) => refused = cause,
        }
    }
    Err(refused)
}

fn shake_hands(mut stream: TcpStream, server: ServerName<'static>, limit: Duration) -> io::Result<i64> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut connection = rustls::ClientConnection::new(Arc::new(tls()), server).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("the server shows no certificate"))?;
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(certificate).map_err(io::Error::other)?;
    Ok(certificate.validity().not_after.timestamp())
}
