//! The certificate of a nameserver's encrypted listeners: read from its files, made where none is configured, replaced
//! by a reload. Handshakes take the one that is there when they begin; connections go on with the one they have.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use shared::config::{Loaded, NameserverSpec, Problem, Severity, Step};
use shared::io::tls;

/// The certificate that handshakes take.
#[derive(Debug)]
pub(super) struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    fn new(certified: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(certified)))
    }

    pub(super) fn replace(&self, certified: Arc<CertifiedKey>) {
        self.0.store(certified);
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A nameserver has one name, whatever its clients call it: many know its address only and name nobody.
        Some(self.0.load_full())
    }
}

/// What the files of this nameserver hold; `None` when it has none.
///
/// # Errors
/// What is wrong with them, at the key that names them.
pub(super) fn load(
    config: &Loaded,
    nameserver: &str,
) -> Result<Option<Arc<CertifiedKey>>, Box<Problem>> {
    let Some(files) = config.spec.nameserver.get(nameserver).and_then(|node| node.tls.as_ref())
    else {
        return Ok(None);
    };
    tls::load(&files.certificate_file, &files.key_file).map(Some).map_err(|why| {
        let is_certificate = why.starts_with(&*files.certificate_file.to_string_lossy());
        let key = if is_certificate { "certificate_file" } else { "key_file" };
        let at = [Step::from("nameserver"), nameserver.into(), "tls".into(), key.into()];
        Box::new(config.problem(&at, Severity::Error, why))
    })
}

/// What is wrong with the files of this nameserver.
pub fn problem(config: &Loaded, nameserver: &str) -> Option<Problem> {
    load(config, nameserver).err().map(|problem| *problem)
}

/// The certificate that a nameserver with encrypted listeners begins with.
pub(super) fn at_start(config: &Loaded, name: &str) -> Result<Option<Arc<Certificate>>, String> {
    let Some(nameserver) = config.spec.nameserver.get(name) else { return Ok(None) };
    if nameserver.dot.is_empty() && nameserver.doh.is_empty() && nameserver.doq.is_empty() {
        return Ok(None);
    }
    let certified = match load(config, name).map_err(|problem| problem.to_string())? {
        Some(certified) => certified,
        None => self_signed(name, nameserver)?,
    };
    Ok(Some(Certificate::new(certified)))
}

/// A self-signed one for the names and addresses that clients may know this nameserver by.
///
/// # Errors
/// A name that cannot be in a certificate.
fn self_signed(name: &str, nameserver: &NameserverSpec) -> Result<Arc<CertifiedKey>, String> {
    let listeners = [&nameserver.dot, &nameserver.doh, &nameserver.doq].into_iter().flatten();
    let mut names: Vec<String> = listeners.map(|address| address.ip().to_string()).collect();
    names.push(name.to_ascii_lowercase());
    names.sort();
    names.dedup();
    tls::self_signed(names)
}
