//! TLS for the API over TCP.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use crate::commands::Failure;

/// The certificate chain of the listener and its key, as they were when they were read last.
#[derive(Clone)]
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    acceptor: Arc<RwLock<TlsAcceptor>>,
}

impl Certificate {
    /// Reads a certificate chain and its key.
    ///
    /// # Errors
    ///
    /// They cannot be read, or do not belong together.
    pub(super) fn read(chain: &Path, key: &Path) -> Result<Self, Failure> {
        let acceptor = Arc::new(RwLock::new(acceptor(chain, key)?));
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), acceptor })
    }

    /// Reads both again, for connections to come. A pair that cannot be used changes nothing.
    pub(super) fn reload(&self) {
        let chain = self.chain.display();
        match acceptor(&self.chain, &self.key) {
            Ok(acceptor) => {
                *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!(certificate = %chain, "read the certificate of the API again");
            }
            Err(failure) => tracing::error!(
                "the old certificate of the API stays: {}; put a certificate and its key there, then reload again",
                failure.message
            ),
        }
    }

    /// For a connection that comes now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let unusable = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        Failure::invalid(format_args!("cannot use the {what} {}: {error}; expected PEM", path.display()))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unusable("certificate", certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("key", key, &error))?;
    if std::fs::metadata(key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
        tracing::warn!(key = %key.display(), "everybody can read the key of the API: `chmod o-r` it");
    }
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map(|config| config.with_no_client_auth())
        .and_then(|config| config.with_single_cert(chain, private));
    let mut config = config.map_err(|error| unusable("certificate", certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
