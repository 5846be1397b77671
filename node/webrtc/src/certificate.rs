//! The certificate of a node for DTLS: what `/certhash` in its addresses names.

use std::fmt;

use dimpl::DtlsCertificate;
use libp2p::{core::multihash::Multihash, multiaddr::Protocol};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// The code of SHA2-256 among multihashes: the only hash that both the specification and browsers have.
const SHA2_256: u64 = 0x12;

/// A self-signed certificate and its key (ECDSA over P-256), without an end of validity that would ever come.
///
/// Addresses carry its hash, so it should be kept: with a new certificate every address is another one.
#[derive(Clone)]
pub struct Certificate {
    dtls: DtlsCertificate,
    pem: String,
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The random source or the signature failed.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The text is not a certificate followed by its private key.
    #[error("not a certificate and its key in PEM form: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// The key in the text is not the one that the certificate was signed with.
    #[error("the key does not belong to the certificate")]
    Mismatch,
}

/// The SHA-256 of a certificate: how the two sides of a connection name their DTLS keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Certificate {
    /// A new certificate with a new key.
    pub fn generate() -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = rcgen::CertificateParams::new(Vec::new())?.self_signed(&key)?;
        let pem = certificate.pem() + &key.serialize_pem();
        let dtls = DtlsCertificate {
            certificate: certificate.der().to_vec(),
            private_key: key.serialize_der(),
        };
        Ok(Self { dtls, pem })
    }

    /// Reads what [`Certificate::to_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(CertificateError::Pem)?;
        let private_key =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(CertificateError::Pem)?;
        let key = rcgen::KeyPair::try_from(private_key.secret_pkcs8_der())?;
        // The subject's public key stands in the certificate as it is: enough to tell a file that was put together wrongly.
        let public = key.public_key_raw();
        if !certificate.windows(public.len()).any(|window| window == public) {
            return Err(CertificateError::Mismatch);
        }
        let dtls = DtlsCertificate {
            certificate: certificate.to_vec(),
            private_key: private_key.secret_pkcs8_der().to_vec(),
        };
        Ok(Self { dtls, pem: pem.to_owned() })
    }

    /// The certificate and its private key as text. It is a secret: for a file that only the node may read.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// What `/certhash` says of this certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.dtls.certificate)
    }

    pub(crate) fn dtls(&self) -> DtlsCertificate {
        self.dtls.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.fingerprint()).finish()
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// As a multihash.
    #[allow(clippy::expect_used, reason = "32 bytes fit into 64")]
    pub fn multihash(&self) -> Multihash<64> {
        Multihash::wrap(SHA2_256, &self.0).expect("a SHA-256 fits into a multihash")
    }

    /// As the `/certhash` of an address.
    pub fn certhash(&self) -> Protocol<'static> {
        Protocol::Certhash(self.multihash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_read_from_its_own_text_has_the_same_fingerprint_and_text() {
        let made = Certificate::generate().unwrap();
        let read = Certificate::from_pem(made.to_pem()).unwrap();
        assert_eq!(read.fingerprint(), made.fingerprint());
        assert_eq!(read.to_pem(), made.to_pem());
        assert_eq!(read.dtls.private_key, made.dtls.private_key);
    }

    #[test]
    fn two_certificates_have_two_fingerprints() {
        assert_ne!(
            Certificate::generate().unwrap().fingerprint(),
            Certificate::generate().unwrap().fingerprint()
        );
    }

    #[test]
    fn half_a_certificate_and_garbage_are_refused() {
        let pem = Certificate::generate().unwrap().to_pem().to_owned();
        let key = pem.find("-----BEGIN PRIVATE KEY").unwrap();
        for text in [&pem[..key], &pem[key..], "", "no certificate"] {
            assert!(
                matches!(Certificate::from_pem(text), Err(CertificateError::Pem(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let (one, other) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
        let key = |pem: &str| pem.find("-----BEGIN PRIVATE KEY").unwrap();
        let mixed =
            one.to_pem()[..key(one.to_pem())].to_owned() + &other.to_pem()[key(other.to_pem())..];
        assert!(matches!(Certificate::from_pem(&mixed), Err(CertificateError::Mismatch)));
    }

    #[test]
    fn the_text_of_a_certificate_does_not_show_in_debug_output() {
        let certificate = Certificate::generate().unwrap();
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }
}
