//! Which certificates of origins are trusted: those that an authority vouches for (RFC 5280, section 6), and those that the
//! pool's `ca` file holds themselves, as `openssl req -x509` and most appliances make them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Judges an origin's certificate.
#[derive(Debug)]
pub(crate) struct OriginCertificates {
    authorities: Arc<WebPkiServerVerifier>,
    /// Trusted by themselves.
    pinned: Vec<CertificateDer<'static>>,
}

impl OriginCertificates {
    pub(crate) fn new(authorities: Arc<WebPkiServerVerifier>, pinned: Vec<CertificateDer<'static>>) -> Self {
        Self { authorities, pinned }
    }
}

impl ServerCertVerifier for OriginCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.authorities.verify_server_cert(certificate, issuers, name, ocsp, now);
        if judged.is_ok() || !self.pinned.iter().any(|pinned| pinned == certificate) {
            return judged;
        }
        // Nobody has to vouch for it; its name and its time hold all the same.
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use std::time::Duration;

    /// As `openssl req -x509` makes it.
    fn self_signed(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_that_is_in_the_file_is_trusted_for_its_name_and_time_alone() {
        let (ours, other) = (self_signed("origin.example"), self_signed("origin.example"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ours.clone()).unwrap();
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificates = OriginCertificates::new(authorities, vec![ours.clone()]);
        let judge = |certificate: &CertificateDer<'_>, name: &'static str, unix: u64| {
            let (name, now) =
                (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(unix)));
            certificates.verify_server_cert(certificate, &[], &name, &[], now).map(drop)
        };
        let (june_2026, june_2027) = (1_780_272_000, 1_811_808_000);
        assert_eq!(judge(&ours, "origin.example", june_2026), Ok(()));
        assert_eq!(judge(&ours, "origin.example", june_2027), Err(CertificateError::Expired.into()));
        assert_eq!(judge(&ours, "origin.example", 1_700_000_000), Err(CertificateError::NotValidYet.into()));
        assert!(judge(&ours, "other.example", june_2026).is_err());
        assert!(judge(&other, "origin.example", june_2026).is_err(), "another key under the same name");
    }
}
