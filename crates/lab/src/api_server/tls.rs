//! TLS in front of the HTTP, and who is let in.
//!
//! As kube-apiserver has it: a certificate signed by the clients' authority, or a bearer token, says who asks. Who shows
//! neither is answered 401; a certificate signed by anybody else ends the handshake. Callers are not told apart:
//! whoever is known may do everything. Listeners without TLS ask for nothing.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::{Request, header};
use axum::serve::{IncomingStream, Listener};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::ApiError;
use super::listener::{Accepting, Connection};
use super::shared::Shared;

/// For a client to get through its handshake; one that does not holds up nobody else.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a listener needs to speak TLS: files, all PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate. Clients that go by an address want it among the alternative names.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signs the certificates of clients.
    pub clients: PathBuf,
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of what it should.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The authority of the clients is unusable.
    #[error("authority of the clients: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// Certificate or key are unusable, or do not belong together.
    #[error("certificate and key: {0}")]
    Certificate(#[from] rustls::Error),
}

/// One object out of a PEM file.
fn read<T: PemObject>(path: &Path) -> Result<T, TlsError> {
    T::from_pem_file(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

impl Tls {
    fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        // Named, so that nothing depends on what else of the process has installed.
        let provider = Arc::new(default_provider());
        let mut authorities = RootCertStore::empty();
        authorities.add(read::<CertificateDer<'static>>(&self.clients)?)?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?;
        let chain = vec![read::<CertificateDer<'static>>(&self.certificate)?];
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, read::<PrivateKeyDer<'static>>(&self.key)?)?;
        // kubectl would take HTTP/2 if it were not told.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// How a handshake ended, and with whom.
type Shaken = (io::Result<TlsStream<Connection>>, SocketAddr);

/// A listener whose connections have their handshake behind them.
pub(crate) struct Secured {
    accepting: Accepting,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<Pin<Box<dyn Future<Output = Shaken> + Send>>>,
}

impl Secured {
    /// TLS over what `accepting` accepts.
    pub(crate) fn new(accepting: Accepting, tls: &Tls) -> Result<Self, TlsError> {
        Ok(Self { accepting, acceptor: tls.acceptor()?, handshakes: FuturesUnordered::new() })
    }
}

async fn shake(acceptor: TlsAcceptor, stream: Connection, address: SocketAddr) -> Shaken {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    (tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.unwrap_or_else(late), address)
}

impl Listener for Secured {
    type Io = TlsStream<Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<Connection>, SocketAddr) {
        loop {
            tokio::select! {
                (stream, address) = self.accepting.accept() => {
                    self.handshakes.push(Box::pin(shake(self.acceptor.clone(), stream, address)));
                }
                Some((shaken, address)) = self.handshakes.next() => match shaken {
                    Ok(stream) => return (stream, address),
                    Err(error) => tracing::debug!(%error, %address, "TLS handshake"),
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.local_addr()
    }
}

/// Who is at the other end of a connection with TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Showed a certificate that the clients' authority signed.
    certified: bool,
}

impl Connected<IncomingStream<'_, Secured>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Secured>) -> Self {
        let (_, session) = stream.io().get_ref();
        Self { certified: session.peer_certificates().is_some_and(|chain| !chain.is_empty()) }
    }
}

/// Lets a request in, or not: [`ApiError::Unauthorized`] if it came over TLS from somebody unknown.
pub(crate) fn admit<B>(shared: &Shared, request: &Request<B>) -> Result<(), ApiError> {
    let Some(ConnectInfo(caller)) = request.extensions().get::<ConnectInfo<Caller>>() else {
        return Ok(());
    };
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer "));
    match caller.certified || token.is_some_and(|token| shared.switches.knows_token(token)) {
        true => Ok(()),
        false => Err(ApiError::Unauthorized),
    }
}
