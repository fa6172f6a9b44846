//! Sockets: names looked up once, TLS where the target says so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::fault::Fault;

/// A connection, with or without TLS.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Names kept. A fleet in a cluster has as many hosts as nodes.
const MAX_NAMES: usize = 4096;

/// Makes connections; shared by all clients.
#[derive(Default)]
pub(crate) struct Dialer {
    names: Mutex<HashMap<(String, u16), Vec<SocketAddr>>>,
    tls: OnceLock<Result<TlsConnector, String>>,
}

impl Dialer {
    /// Connects, trying every address of the name; `tls` also shakes hands. All within `limit`.
    pub(crate) async fn dial(
        &self,
        host: &str,
        port: u16,
        tls: bool,
        limit: Duration,
    ) -> Result<Stream, Fault> {
        timeout(limit, self.connect(host, port, tls))
            .await
            .unwrap_or_else(|_| Err(Fault::timed_out("connecting")))
    }

    async fn connect(&self, host: &str, port: u16, tls: bool) -> Result<Stream, Fault> {
        let mut failure = Fault::transport("name_not_found", format!("{host} has no address"));
        for address in self.resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    // What is measured are single small messages: they must not wait for each other.
                    let _ = tcp.set_nodelay(true);
                    return if tls {
                        self.shake_hands(host, tcp).await
                    } else {
                        Ok(Either::Left(tcp))
                    };
                }
                Err(error) => failure = Fault::io(&error),
            }
        }
        Err(failure)
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let key = (host.to_owned(), port);
        let known = |names: &HashMap<_, Vec<SocketAddr>>| names.get(&key).cloned();
        if let Some(addresses) = known(&self.names.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(addresses);
        }
        let found = lookup_host((host, port))
            .await
            .map_err(|e| Fault::transport("name_not_found", format!("{host}: {e}")))?;
        let addresses: Vec<_> = found.collect();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_NAMES {
            names.insert(key, addresses.clone());
        }
        Ok(addresses)
    }

    async fn shake_hands(&self, host: &str, tcp: TcpStream) -> Result<Stream, Fault> {
        let connector = self
            .tls
            .get_or_init(connector)
            .as_ref()
            .map_err(|why| Fault::new("tls_failed", why.clone()))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Fault::new("tls_failed", format!("{host} is no name for TLS")))?;
        let stream = connector
            .connect(name, tcp)
            .await
            .map_err(|e| Fault::new("tls_failed", e.to_string()))?;
        Ok(Either::Right(Box::new(stream)))
    }
}

/// Trusts what the system trusts; `SSL_CERT_FILE` adds an authority of one's own.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "this system has no certificate authorities (install ca-certificates, or set SSL_CERT_FILE)"
                .to_owned(),
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
