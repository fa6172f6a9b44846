//! Whether the kernel gives a port of the managed range: [`free_to_bind`]. Who has which is
//! [`PortTable`](spawnpoint_core::ports::PortTable)'s to decide.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Whether a game could bind the port now, for TCP and UDP, on any address. `reuse` forgives closed connections that linger, as
/// a server that insists on one port does.
pub(super) fn free_to_bind(port: u16, reuse: bool) -> bool {
    [Type::STREAM, Type::DGRAM]
        .into_iter()
        .all(|kind| try_bind(port, kind, reuse).is_ok())
}

fn try_bind(port: u16, kind: Type, reuse: bool) -> std::io::Result<()> {
    let protocol = if kind == Type::DGRAM {
        Protocol::UDP
    } else {
        Protocol::TCP
    };
    // One dual-stack socket conflicts with a listener on any address of either family.
    let (socket, address) = match Socket::new(Domain::IPV6, kind, Some(protocol)) {
        Ok(socket) if socket.set_only_v6(false).is_ok() => {
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        _ => (
            Socket::new(Domain::IPV4, kind, Some(protocol))?,
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ),
    };
    // For UDP the option would let two bind at once and prove nothing.
    socket.set_reuse_address(reuse && kind == Type::STREAM)?;
    match socket.bind(&address.into()) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => {
            // IPv6 is compiled in and switched off.
            let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
            socket.set_reuse_address(reuse && kind == Type::STREAM)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_somebody_listens_on_is_not_free_on_any_address_or_protocol() {
        let v4 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!free_to_bind(v4.local_addr().unwrap().port(), false));
        assert!(!free_to_bind(v4.local_addr().unwrap().port(), true));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!free_to_bind(udp.local_addr().unwrap().port(), true));
        if let Ok(v6) = std::net::TcpListener::bind("[::1]:0") {
            assert!(!free_to_bind(v6.local_addr().unwrap().port(), false));
        }
    }
}
