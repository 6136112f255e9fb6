//! The model server without a model of `tests/servers/app.py`, on hyper: HTTP/1 and HTTP/2 with prior knowledge
//! on one port. Arguments: PORT TLS [CERT KEY], where TLS is `none`, `openssl` (a feature of the build) or `rustls`. It
//! keeps no record: the client's is the truth.

mod answer;
mod tls;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use tls::Tls;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, kind, files @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: hyper-server PORT none|openssl|rustls [CERT KEY]");
    };
    let port: u16 = port.parse().context("PORT is no port")?;
    let tls = Tls::of(kind, files)?;
    // Two threads, so that a connection moves from one to the other.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(listen(port, tls))
}

async fn listen(port: u16, tls: Tls) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("failed to listen")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let tls = tls.clone();
        tokio::spawn(async move {
            // Whoever only looks whether the port is open says nothing, and that is no failure of the server.
            let _ = serve(stream, tls).await;
        });
    }
}

async fn serve(stream: TcpStream, tls: Tls) -> Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        Tls::None => answer(stream).await,
        Tls::Rustls(acceptor) => answer(acceptor.accept(stream).await?).await,
        #[cfg(feature = "openssl")]
        Tls::OpenSsl(acceptor) => answer(tls::accept(&acceptor, stream).await?).await,
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<()> {
    let builder = Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), service_fn(answer::answer)).await;
    served.map_err(|error| anyhow::anyhow!(error))
}
