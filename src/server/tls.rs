//! Certificates and the TLS configuration, which can be reloaded without losing a connection.
//!
//! A listener has one certificate or several, of which the client's server name (SNI, RFC 6066) chooses one; a name that
//! matches none, and a client without SNI, get the first. Sessions are resumed by tickets and by identifiers (RFC 8446,
//! section 2.2; RFC 5077); their keys outlive a reload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntGaugeVec;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use tokio::sync::watch;
use x509_parser::prelude::FromDer as _;

/// Sessions that are kept for resumption by identifier.
const MAX_STORED_SESSIONS: usize = 10_000;

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: the certificate, then its issuers' certificates.
    pub cert: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// The certificates of a listener: `{ cert, key }`, or a list of them, from which the client's SNI chooses; the first is the
/// default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates(pub Vec<TlsFiles>);

impl From<TlsFiles> for Certificates {
    fn from(one: TlsFiles) -> Self {
        Self(vec![one])
    }
}

impl<'de> Deserialize<'de> for Certificates {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Certificates;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ cert, key } or a list of such")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Certificates, A::Error> {
                TlsFiles::deserialize(MapAccessDeserializer::new(map)).map(Certificates::from)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Certificates, A::Error> {
                let files = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                if files.is_empty() {
                    Err(A::Error::custom("at least one certificate is needed"))
                } else {
                    Ok(Certificates(files))
                }
            }
        }
        from.deserialize_any(OneOrSeveral)
    }
}

/// A certificate or key that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {}: {what}", path.display())]
pub struct TlsError {
    path: PathBuf,
    what: String,
}

impl TlsError {
    fn new(path: &Path, what: impl ToString) -> Self {
        Self { path: path.to_owned(), what: what.to_string() }
    }
}

/// A listener's TLS configuration, which can be replaced while connections are open.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    files: Certificates,
    sessions: Arc<dyn StoresServerSessions>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    config: Arc<ArcSwap<ServerConfig>>,
    /// The end of each certificate's validity, by its file.
    ends: IntGaugeVec,
    changed: Arc<watch::Sender<()>>,
}

impl Tls {
    pub(crate) fn load(files: &Certificates, ends: &IntGaugeVec) -> Result<Self, TlsError> {
        let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(MAX_STORED_SESSIONS);
        let tickets = match rustls::crypto::aws_lc_rs::Ticketer::new() {
            Ok(tickets) => Some(tickets),
            Err(error) => {
                tracing::warn!(%error, "no session tickets: sessions are resumed by identifier only");
                None
            }
        };
        let config = Arc::new(ArcSwap::from(read(files, &sessions, tickets.clone(), ends)?));
        Ok(Self {
            files: files.clone(),
            sessions,
            tickets,
            config,
            ends: ends.clone(),
            changed: Arc::new(watch::channel(()).0),
        })
    }

    /// Reads the files again; on an error the present configuration stays in force.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        self.config.store(read(&self.files, &self.sessions, self.tickets.clone(), &self.ends)?);
        self.changed.send_replace(());
        Ok(())
    }

    /// A channel that changes with each reload.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.config.load_full())
    }

    /// The present configuration.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn read(
    files: &Certificates,
    sessions: &Arc<dyn StoresServerSessions>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    ends: &IntGaugeVec,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let keys = files.0.iter().map(|files| certified(files, &provider)).collect::<Result<Vec<_>, _>>()?;
    let missing = || TlsError::new(Path::new("tls"), "at least one certificate is needed");
    let first = files.0.first().ok_or_else(missing)?;
    let in_force = keys.clone();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::new(&first.cert, e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SniResolver(keys)));
    // All of them are good: what is measured is in force.
    for (files, key) in files.0.iter().zip(&in_force) {
        if let Some(end) = key.end_entity_cert().ok().and_then(not_after) {
            ends.with_label_values(&[&files.cert.to_string_lossy()]).set(end);
        }
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::clone(sessions);
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
    }
    Ok(Arc::new(config))
}

/// The last second in which a certificate is valid, since the Unix epoch (RFC 5280, section 4.1.2.5).
fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::new(&files.cert, format!("no PEM certificate can be read: {e}")))?;
    if chain.is_empty() {
        return Err(TlsError::new(&files.cert, "holds no PEM certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| TlsError::new(&files.key, format!("no PEM private key can be read: {e}")))?;
    let mismatch =
        |e: rustls::Error| TlsError::new(&files.key, format!("does not match {}: {e}", files.cert.display()));
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(mismatch)
}

/// Chooses the certificate whose names include the client's server name.
#[derive(Debug)]
struct SniResolver(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let Some(name) = &asked else { return false };
            let parsed = key.end_entity_cert().ok().and_then(|cert| ParsedCertificate::try_from(cert).ok());
            parsed.is_some_and(|cert| verify_server_name(&cert, name).is_ok())
        };
        let several = self.0.len() > 1;
        let fitting = if several { self.0.iter().find(is_for) } else { None };
        fitting.or_else(|| self.0.first()).cloned()
    }
}
