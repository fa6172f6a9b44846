//! Binding listeners: every address of the configuration, and an error that names the flag.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use spawnpoint_server::config::ServerConfig;
use tokio::net::TcpListener;

use crate::exit::Failure;

/// Attempts to find one free port for both loopback addresses when any port will do.
const SAME_PORT_ATTEMPTS: usize = 16;
/// A named port is asked for this often before it is said to be taken: a child that a killed server was just forking holds a copy of
/// its listener until it has become another program, which takes a while on a busy machine.
const TAKEN_TRIES: usize = 20;
/// Pause between the tries.
const TAKEN_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The bound listeners of each kind.
pub(crate) struct Listeners {
    pub(crate) public: Vec<TcpListener>,
    pub(crate) admin: Vec<TcpListener>,
    pub(crate) sdk: Vec<TcpListener>,
}

impl Listeners {
    /// Binds all that the configuration asks for.
    ///
    /// # Errors
    /// A taken port, with the flag to choose another and, where it is one of ours, the process that has it.
    pub(crate) async fn bind(config: &ServerConfig) -> Result<Self, Failure> {
        let holder = |e: Failure| match state_holder(&config.state_dir) {
            Some(pid) => Failure::Failed(format!(
                "{e}. A Spawnpoint with this state directory is running already (process {pid}): stop it, or use --state-dir as well"
            )),
            None => e,
        };
        Ok(Self {
            public: bind(&config.public, "--port").await.map_err(holder)?,
            admin: bind(&config.admin, "--admin-port").await.map_err(holder)?,
            sdk: bind(&config.sdk, "--sdk-port").await.map_err(holder)?,
        })
    }

    /// The configuration with the ports that were really bound, so that addresses handed out are right where any port would do.
    pub(crate) fn place(&self, config: &mut ServerConfig) {
        config.public = addresses(&self.public);
        config.admin = addresses(&self.admin);
        config.sdk = addresses(&self.sdk);
        // The first public address is the one shown where a caller's own is no use; "every address" cannot be dialled.
        if let Some(first) = config.public.first().copied()
            && first.ip().is_unspecified()
        {
            config
                .public
                .insert(0, SocketAddr::new(reachable(), first.port()));
        }
    }
}

/// Where these listen.
pub(crate) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|l| l.local_addr().ok())
        .collect()
}

async fn bind(wanted: &[SocketAddr], flag: &str) -> Result<Vec<TcpListener>, Failure> {
    let any_port = wanted.first().is_some_and(|a| a.port() == 0);
    let attempts = if any_port {
        SAME_PORT_ATTEMPTS
    } else {
        TAKEN_TRIES
    };
    let mut last = None;
    for _ in 0..attempts {
        match bind_once(wanted).await {
            Ok(listeners) => return Ok(listeners),
            Err(e) => {
                let again = any_port || e.1.kind() == ErrorKind::AddrInUse;
                last = Some(e);
                if !again {
                    break;
                }
                if !any_port {
                    tokio::time::sleep(TAKEN_PAUSE).await;
                }
            }
        }
    }
    let (address, e) = last.unwrap_or_else(|| {
        (
            SocketAddr::from(([127, 0, 0, 1], 0)),
            ErrorKind::AddrNotAvailable.into(),
        )
    });
    Err(match e.kind() {
        ErrorKind::AddrInUse => Failure::Failed(format!(
            "port {} is taken: choose another with {flag}",
            address.port()
        )),
        ErrorKind::PermissionDenied => Failure::Failed(format!(
            "port {} is for the system's own services: choose one above 1023 with {flag}",
            address.port()
        )),
        ErrorKind::AddrNotAvailable => Failure::Failed(format!(
            "{} is no address of this machine: choose another with {}",
            address.ip(),
            flag.replace("port", "host")
        )),
        _ => Failure::because(format!("cannot listen on {address} ({flag})"), &e),
    })
}

async fn bind_once(
    wanted: &[SocketAddr],
) -> Result<Vec<TcpListener>, (SocketAddr, std::io::Error)> {
    let mut bound: Vec<TcpListener> = Vec::new();
    for address in wanted {
        let port = bound
            .first()
            .and_then(|l| l.local_addr().ok())
            .map_or(address.port(), |a| a.port());
        let address = SocketAddr::new(address.ip(), port);
        match TcpListener::bind(address).await {
            Ok(listener) => bound.push(listener),
            // A machine without IPv6 still has the other loopback address.
            Err(e)
                if address.ip() == IpAddr::V6(Ipv6Addr::LOCALHOST)
                    && !bound.is_empty()
                    && no_ipv6(&e) =>
            {
                tracing::debug!(%address, "this machine has no IPv6 loopback");
            }
            Err(e) => return Err((address, e)),
        }
    }
    Ok(bound)
}

fn no_ipv6(e: &std::io::Error) -> bool {
    e.kind() == ErrorKind::AddrNotAvailable
        || e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// The address that other machines most likely reach this one by: that of the route to the outside. Nothing is sent.
pub(crate) fn reachable() -> IpAddr {
    let route = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    // Addresses reserved for documentation: routed like any other, answered by nobody.
    route("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| route("[::]:0", "[2001:db8::1]:9"))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The process that owns a state directory right now, if one does and said so.
pub(crate) fn state_holder(state_dir: &Path) -> Option<u32> {
    let mut file = File::open(state_dir.join("lock")).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        let _ = flock(&file, FlockOperation::Unlock);
        return None;
    }
    let mut text = String::new();
    Read::by_ref(&mut file)
        .take(32)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> Vec<SocketAddr> {
        vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]
    }

    #[tokio::test]
    async fn any_port_is_the_same_on_both_loopback_addresses() {
        let listeners = bind(&loopback(0), "--port").await.unwrap();
        let ports: Vec<u16> = addresses(&listeners).iter().map(SocketAddr::port).collect();
        assert!(
            ports[0] != 0 && ports.iter().all(|p| *p == ports[0]),
            "{ports:?}"
        );
    }

    #[tokio::test]
    async fn a_taken_port_names_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let e = bind(&loopback(port), "--admin-port")
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            e.contains(&port.to_string()) && e.contains("--admin-port"),
            "{e}"
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        let e = bind(&["192.0.2.7:0".parse().unwrap()], "--port")
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(e.contains("192.0.2.7") && e.contains("--host"), "{e}");
    }
}
