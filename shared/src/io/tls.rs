//! Certificates and keys: loaded, chosen by name, made where none is configured; and whom we trust as a client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme, WantsVerifier,
};

use super::files::read_file;

/// A PEM file at most: all public authorities together take a quarter of a megabyte.
const MAX_PEM: u64 = 4 << 20;

/// The cryptography that every TLS connection of ours uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A certificate chain and its key, from PEM files.
///
/// # Errors
/// What is wrong with which file.
pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Arc<CertifiedKey>, String> {
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = certificates(certificate_file)?;
    if chain.is_empty() {
        return Err(named(certificate_file, &"there is no certificate in it"));
    }
    let pem = read_file(key_file, MAX_PEM).map_err(|error| named(key_file, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => named(key_file, &"there is no private key in it"),
        other => named(key_file, &broken(&other)),
    })?;
    certified(chain, key).map_err(|error| {
        format!("{} and {}: {error}", certificate_file.display(), key_file.display())
    })
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = read_file(path, MAX_PEM).map_err(|error| named(&error))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| named(&broken(&error)))
}

/// What is wrong with a PEM file, for people.
fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it is cut short: an END line is missing".to_owned()
        }
        other => other.to_string(),
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, String> {
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "this key does not belong to this certificate".to_owned()
        }
        other => other.to_string(),
    })
}

/// A self-signed certificate for these names: browsers warn of it, `curl -k` takes it.
///
/// # Errors
/// A name that cannot be in a certificate.
pub fn self_signed(names: Vec<String>) -> Result<Arc<CertifiedKey>, String> {
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    certified(vec![made.cert.der().clone()], key.into())
}

/// Chooses the certificate by the name that the client asks for (SNI).
#[derive(Debug, Default)]
pub struct Certificates {
    exact: BTreeMap<String, Arc<CertifiedKey>>,
    /// Without the `*.`.
    wildcard: BTreeMap<String, Arc<CertifiedKey>>,
    /// For clients that name nobody, or somebody we do not know.
    fallback: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds a certificate for hosts, `*.` in front of a name for all below it. The first one added is also the one
    /// that clients without SNI get.
    pub fn add(&mut self, hosts: &[String], certificate: &Arc<CertifiedKey>) {
        for host in hosts {
            let host = host.to_ascii_lowercase();
            match host.strip_prefix("*.") {
                Some(below) => self.wildcard.insert(below.to_owned(), certificate.clone()),
                None => self.exact.insert(host, certificate.clone()),
            };
        }
        self.fallback.get_or_insert_with(|| certificate.clone());
    }

    /// The certificate for a name.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return self.fallback.clone() };
        if let Some(found) = self.exact.get(&name) {
            return Some(found.clone());
        }
        let mut rest = name.as_str();
        while let Some((_, below)) = rest.split_once('.') {
            if let Some(found) = self.wildcard.get(below) {
                return Some(found.clone());
            }
            rest = below;
        }
        self.fallback.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

/// A server's side of TLS, offering `alpn` in this order.
///
/// # Errors
/// The provider lacks what TLS needs: a fault of the build.
pub fn server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Stateless tickets: resumption without them costs two and a half times as much, and keeps state per client.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// A client's side of TLS that verifies servers against `ca_file`, or against the public authorities.
///
/// # Errors
/// What is wrong with the file.
pub fn client_config(ca_file: Option<&Path>, alpn: &[&[u8]]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| named(&error))?;
            }
            if roots.is_empty() {
                return Err(named(&"there is no certificate in it"));
            }
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    let builder = client_builder()?;
    Ok(with_alpn(builder.with_webpki_verifier(verifier).with_no_client_auth(), alpn))
}

/// A client's side of TLS that takes any certificate: what is said is hidden from who only listens, and from nobody who
/// stands between. For servers of which nothing better can be had.
///
/// # Errors
/// The provider lacks what TLS needs: a fault of the build.
pub fn unverified_client_config(alpn: &[&[u8]]) -> Result<ClientConfig, String> {
    let verifier = Arc::new(AnyCertificate(provider()));
    let builder = client_builder()?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(with_alpn(builder.with_no_client_auth(), alpn))
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn with_alpn(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// Believes every certificate, but has the server prove that it holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn certificates_are_chosen_by_name() {
        let (www, images) =
            (self_signed(names(&["www.test"])).unwrap(), self_signed(names(&["i.test"])).unwrap());
        let mut certificates = Certificates::default();
        certificates.add(&names(&["www.test"]), &www);
        certificates.add(&names(&["*.img.test", "i.test"]), &images);
        for (name, expected) in [
            (Some("WWW.test"), &www),
            (Some("a.img.test"), &images),
            (Some("b.a.img.test"), &images),
            (Some("img.test"), &www),
            (Some("other.test"), &www),
            (None, &www),
        ] {
            assert!(Arc::ptr_eq(&certificates.find(name).unwrap(), expected), "{name:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        assert!(load(&certificate, &key).unwrap_err().contains("c.pem"));
        std::fs::write(&certificate, "no pem").unwrap();
        std::fs::write(&key, "no pem").unwrap();
        assert!(load(&certificate, &key).unwrap_err().contains("no certificate"));
        let one = rcgen::generate_simple_self_signed(names(&["a.test"])).unwrap();
        let other = rcgen::generate_simple_self_signed(names(&["a.test"])).unwrap();
        std::fs::write(&certificate, one.cert.pem()).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(load(&certificate, &key).is_err(), "a key of another certificate");
        std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
        assert!(load(&certificate, &key).is_ok());
        assert!(client_config(Some(&certificate), &[]).is_ok());
        assert!(client_config(Some(&key), &[]).unwrap_err().contains("no certificate"));
    }
}
