//! TLS of the server: by rustls, which is compiled in, or by the system's libssl. In go a certificate and its key, out comes
//! what accepts connections. Both offer HTTP/2 and HTTP/1 by ALPN.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What a connection is wrapped in.
#[derive(Clone)]
pub enum Tls {
    /// Nothing.
    None,
    /// rustls.
    Rustls(TlsAcceptor),
    /// The system's libssl.
    #[cfg(feature = "openssl")]
    OpenSsl(Arc<openssl::ssl::SslAcceptor>),
}

impl Tls {
    /// By name.
    pub fn of(kind: &str, files: &[String]) -> Result<Self> {
        match (kind, files) {
            ("none", _) => Ok(Self::None),
            ("rustls", [certificate, key]) => rustls(certificate, key),
            #[cfg(feature = "openssl")]
            ("openssl", [certificate, key]) => libssl(certificate, key),
            _ => bail!("this build has no TLS named {kind}, or a certificate and a key lack"),
        }
    }
}

fn rustls(certificate: &str, key: &str) -> Result<Tls> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("failed to read {certificate}"))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("failed to read {key}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls::Rustls(TlsAcceptor::from(Arc::new(config))))
}

#[cfg(feature = "openssl")]
fn libssl(certificate: &str, key: &str) -> Result<Tls> {
    use openssl::ssl::{AlpnError, SslAcceptor, SslFiletype, SslMethod, select_next_proto};

    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate_chain_file(certificate)?;
    builder.set_private_key_file(key, SslFiletype::PEM)?;
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    Ok(Tls::OpenSsl(Arc::new(builder.build())))
}

/// The handshake by libssl.
#[cfg(feature = "openssl")]
pub async fn accept(
    acceptor: &openssl::ssl::SslAcceptor,
    stream: tokio::net::TcpStream,
) -> Result<tokio_openssl::SslStream<tokio::net::TcpStream>> {
    let ssl = openssl::ssl::Ssl::new(acceptor.context())?;
    let mut stream = tokio_openssl::SslStream::new(ssl, stream)?;
    std::pin::Pin::new(&mut stream).accept().await?;
    Ok(stream)
}
