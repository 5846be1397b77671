//! The DTLS certificate of a node, whose hash is the `/certhash` of its addresses.

use std::fmt;

use dimpl::DtlsCertificate;
use libp2p::{core::multihash::Multihash, multiaddr::Protocol};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// The multihash code of SHA2-256, the only hash that both the specification and browsers support.
const SHA2_256: u64 = 0x12;

/// A self-signed certificate with its private key (ECDSA P-256), valid until the year 4096.
///
/// The node's addresses contain its hash, so persist it: a new certificate changes every address.
#[derive(Clone)]
pub struct Certificate {
    dtls: DtlsCertificate,
    pem: String,
}

/// An error from generating or reading a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key could not be generated, read or used to sign.
    #[error("cannot generate or load the certificate's key: {0}")]
    Generate(#[from] rcgen::Error),
    /// The text is not a PEM certificate followed by its PKCS#8 private key.
    #[error("expected a certificate and its PKCS#8 key in PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// The private key does not match the certificate's public key.
    #[error("the private key does not match the certificate")]
    Mismatch,
}

/// The SHA-256 hash of a DER certificate, by which the two sides of a connection identify their DTLS keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Certificate {
    /// Generates a certificate with a new key.
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

    /// Parses the output of [`Certificate::to_pem`]. Fails if the key does not match the certificate.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(CertificateError::Pem)?;
        let private_key =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(CertificateError::Pem)?;
        let key = rcgen::KeyPair::try_from(private_key.secret_pkcs8_der())?;
        // A certificate contains its public key verbatim: enough to detect a file with another certificate's key.
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

    /// Returns the certificate and its private key in PEM. Secret: store it with mode 0600.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// Returns the hash that `/certhash` carries for this certificate.
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
    /// Hashes a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Returns the fingerprint as a multihash.
    #[allow(clippy::expect_used, reason = "32 bytes fit into 64")]
    pub fn multihash(&self) -> Multihash<64> {
        Multihash::wrap(SHA2_256, &self.0).expect("a SHA-256 fits into a multihash")
    }

    /// Returns the `/certhash` component of an address.
    pub fn certhash(&self) -> Protocol<'static> {
        Protocol::Certhash(self.multihash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_round_trips_through_pem() {
        let made = Certificate::generate().unwrap();
        let read = Certificate::from_pem(made.to_pem()).unwrap();
        assert_eq!(read.fingerprint(), made.fingerprint());
        assert_eq!(read.to_pem(), made.to_pem());
        assert_eq!(read.dtls.private_key, made.dtls.private_key);
    }

    #[test]
    fn certificates_have_distinct_fingerprints() {
        assert_ne!(
            Certificate::generate().unwrap().fingerprint(),
            Certificate::generate().unwrap().fingerprint()
        );
    }

    #[test]
    fn incomplete_and_invalid_pem_is_rejected() {
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
    fn the_key_of_another_certificate_is_rejected() {
        let (one, other) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
        let key = |pem: &str| pem.find("-----BEGIN PRIVATE KEY").unwrap();
        let mixed =
            one.to_pem()[..key(one.to_pem())].to_owned() + &other.to_pem()[key(other.to_pem())..];
        assert!(matches!(Certificate::from_pem(&mixed), Err(CertificateError::Mismatch)));
    }

    #[test]
    fn debug_output_omits_the_private_key() {
        let certificate = Certificate::generate().unwrap();
        assert!(!format!("{certificate:?}").contains("PRIVATE"));
    }
}
