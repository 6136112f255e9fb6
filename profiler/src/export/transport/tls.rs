//! PEM files into TLS settings, for both transports. In: paths. Out: settings of rustls and of tonic.
//! Absent: a way to skip the check of certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::super::settings::Tls;

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No file.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of something else.
    #[error("{} holds no usable PEM {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// rustls refused it.
    #[error("the TLS files for OTLP do not work")]
    Rustls(#[from] rustls::Error),
}

/// For HTTP.
pub fn rustls_config(tls: &Tls, wanted: bool) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    match &tls.certificate {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        }
        // Reading the system's authorities takes 10 ms and memory that plain HTTP does not need. Those that
        // cannot be read are left out: the server's may be among the others.
        None if wanted => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    Ok(match (&tls.client_certificate, &tls.client_key) {
        (Some(certificate), Some(key)) => {
            let source = |source| TlsError::Pem { path: key.clone(), what: "private key", source };
            let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(source)?;
            builder.with_client_auth_cert(certificates(certificate)?, private)?
        }
        _ => builder.with_no_client_auth(),
    })
}

/// For gRPC.
pub fn tonic_config(tls: &Tls) -> Result<ClientTlsConfig, TlsError> {
    let config = ClientTlsConfig::new();
    let config = match &tls.certificate {
        Some(path) => {
            // tonic would only complain about an empty file when it connects.
            certificates(path)?;
            config.ca_certificate(Certificate::from_pem(read(path)?))
        }
        None => config.with_native_roots(),
    };
    Ok(match (&tls.client_certificate, &tls.client_key) {
        (Some(certificate), Some(key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        _ => config,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let source = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(source)?;
    if certificates.is_empty() { Err(source(pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
