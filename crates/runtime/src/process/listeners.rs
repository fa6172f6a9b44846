//! Who listens on a port, without connecting to it: a look is not a player.
//!
//! On Linux the kernel is asked which socket a connection to the port would reach (`NETLINK_SOCK_DIAG`, a few microseconds), or
//! the tables under `/proc/net` are read; the socket's inode must then be open in a process of the instance's tree. Elsewhere
//! nobody can say whose a socket is: a connection is tried, and the rule that the port was free just before is all there is.

use std::net::SocketAddr;

/// What the game speaks below its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// What was seen on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody listens.
    Nobody,
    /// The instance does, and is reached here.
    Ours(SocketAddr),
    /// Somebody else does, and the instance does not.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux can tell whose a socket is")
    )]
    Foreign,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Prober;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Prober;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::OwnedFd;

    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
    };

    use super::super::tree;
    use super::{Seen, Transport};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;
    const NETLINK_HEAD: usize = 16;
    /// `inet_diag_req_v2`: 8 bytes and a socket id of 48.
    const REQUEST: usize = NETLINK_HEAD + 56;
    /// Offsets into `inet_diag_msg`, from the start of the netlink message.
    const STATE_AT: usize = NETLINK_HEAD + 1;
    const INODE_AT: usize = NETLINK_HEAD + 68;
    const TCP_LISTEN: u8 = 10;
    /// `unix(7)` errno of "no such socket".
    const ENOENT: i32 = 2;

    /// Looks at ports for one instance.
    pub(in super::super) struct Prober {
        diag: Option<OwnedFd>,
    }

    /// A listening socket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Listener {
        inode: u64,
        reach: SocketAddr,
    }

    impl Prober {
        pub(in super::super) fn new() -> Self {
            let diag = socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                Some(netlink::SOCK_DIAG),
            )
            .ok();
            Self { diag }
        }

        /// Looks once. `thorough` also finds listeners on single addresses of the machine; it reads whole tables.
        pub(in super::super) fn look(
            &self,
            transport: Transport,
            port: u16,
            shim: i32,
            thorough: bool,
        ) -> Seen {
            let mut listeners = Vec::new();
            let mut asked = false;
            if let Some(diag) = &self.diag {
                asked = true;
                for ip in [
                    IpAddr::from(Ipv4Addr::LOCALHOST),
                    IpAddr::from(Ipv6Addr::LOCALHOST),
                ] {
                    match ask(diag, transport, ip, port) {
                        Ok(Some(inode)) => listeners.push(Listener {
                            inode,
                            reach: SocketAddr::new(ip, port),
                        }),
                        Ok(None) => {}
                        Err(_) => asked = false,
                    }
                }
            }
            if listeners.is_empty() && (thorough || !asked) {
                listeners = tables(transport, port);
            }
            judge(&listeners, shim)
        }
    }

    fn judge(listeners: &[Listener], shim: i32) -> Seen {
        if listeners.is_empty() {
            return Seen::Nobody;
        }
        let (open, all_read) = open_sockets(shim);
        let ours = listeners.iter().find(|l| open.contains(&l.inode));
        match (ours, listeners.first()) {
            (Some(listener), _) => Seen::Ours(listener.reach),
            // A process of the tree hides its descriptors (another user's, not dumpable): whose the socket is cannot be seen, and
            // "cannot see" must not be "foreign", or such a game could never start.
            (None, Some(listener)) if !all_read => Seen::Ours(listener.reach),
            _ => Seen::Foreign,
        }
    }

    /// The inodes of every socket open in the tree, and whether every process could be read.
    fn open_sockets(shim: i32) -> (HashSet<u64>, bool) {
        let mut inodes = HashSet::new();
        let mut all_read = true;
        for pid in tree::descendants(shim) {
            match std::fs::read_dir(format!("/proc/{pid}/fd")) {
                Ok(fds) => inodes.extend(fds.flatten().filter_map(|fd| {
                    let target = std::fs::read_link(fd.path()).ok()?;
                    let name = target.to_str()?;
                    name.strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .parse::<u64>()
                        .ok()
                })),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => all_read = false,
                Err(_) => {}
            }
        }
        (inodes, all_read)
    }

    /// The inode of the socket that `ip:port` leads to.
    fn ask(diag: &OwnedFd, transport: Transport, ip: IpAddr, port: u16) -> io::Result<Option<u64>> {
        // A late answer to a question given up on is not the answer to this one.
        let mut reply = [0u8; 1024];
        while recv(diag, &mut reply[..], RecvFlags::DONTWAIT).is_ok() {}
        send(diag, &request(transport, ip, port), SendFlags::empty())?;
        let (len, _) = recv(diag, &mut reply[..], RecvFlags::DONTWAIT)?;
        answer(&reply[..len], transport)
    }

    fn request(transport: Transport, ip: IpAddr, port: u16) -> [u8; REQUEST] {
        let mut m = [0u8; REQUEST];
        m[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
        m[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        m[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        let (family, address) = match ip {
            IpAddr::V4(v4) => {
                let mut a = [0u8; 16];
                a[..4].copy_from_slice(&v4.octets());
                (2, a)
            }
            IpAddr::V6(v6) => (10, v6.octets()),
        };
        m[16] = family;
        // All states; then the socket id: source port, destination port, source, destination, interface, cookie. For UDP the
        // kernel takes the two ends the other way round ("swapped for historical reasons", net/ipv4/udp_diag.c).
        m[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        match transport {
            Transport::Tcp => {
                m[17] = 6;
                m[24..26].copy_from_slice(&port.to_be_bytes());
                m[28..44].copy_from_slice(&address);
            }
            Transport::Udp => {
                m[17] = 17;
                m[26..28].copy_from_slice(&port.to_be_bytes());
                m[44..60].copy_from_slice(&address);
            }
        }
        m[64..72].fill(0xff);
        m
    }

    fn answer(reply: &[u8], transport: Transport) -> io::Result<Option<u64>> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "a cut netlink reply");
        let kind = reply
            .get(4..6)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes)
            .ok_or_else(cut)?;
        let word = |at: usize| {
            reply
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_ne_bytes)
                .ok_or_else(cut)
        };
        if kind == NLMSG_ERROR {
            let errno = word(NETLINK_HEAD)?.cast_signed();
            return if errno == -ENOENT {
                Ok(None)
            } else {
                Err(io::Error::from_raw_os_error(-errno))
            };
        }
        let state = *reply.get(STATE_AT).ok_or_else(cut)?;
        let inode = u64::from(word(INODE_AT)?);
        Ok((transport == Transport::Udp || state == TCP_LISTEN).then_some(inode))
    }

    /// Every listener on the port, from the tables of this network namespace.
    fn tables(transport: Transport, port: u16) -> Vec<Listener> {
        let names = match transport {
            Transport::Tcp => ["tcp", "tcp6"],
            Transport::Udp => ["udp", "udp6"],
        };
        names
            .iter()
            .filter_map(|name| std::fs::read_to_string(format!("/proc/net/{name}")).ok())
            .flat_map(|table| {
                table
                    .lines()
                    .skip(1)
                    .filter_map(|line| parse_row(line, transport, port))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn parse_row(line: &str, transport: Transport, port: u16) -> Option<Listener> {
        let mut fields = line.split_ascii_whitespace();
        let (address, local_port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let wanted = match transport {
            Transport::Tcp => "0A",
            Transport::Udp => "07",
        };
        if state != wanted || u16::from_str_radix(local_port, 16).ok()? != port {
            return None;
        }
        let ip = parse_address(address)?;
        let reach = match ip {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Some(Listener {
            inode,
            reach: SocketAddr::new(reach, port),
        })
    }

    /// Words of four bytes in the machine's order, in hexadecimal.
    fn parse_address(hex: &str) -> Option<IpAddr> {
        let word = |at: usize| {
            u32::from_str_radix(hex.get(at..at + 8)?, 16)
                .ok()
                .map(u32::to_ne_bytes)
        };
        match hex.len() {
            8 => Some(IpAddr::from(word(0)?)),
            32 => {
                let mut bytes = [0u8; 16];
                for i in 0..4 {
                    bytes[i * 4..i * 4 + 4].copy_from_slice(&word(i * 8)?);
                }
                Some(IpAddr::from(bytes))
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::net::{TcpListener, UdpSocket};
        use std::os::unix::fs::MetadataExt;

        fn inode(fd: &impl std::os::fd::AsRawFd) -> u64 {
            std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd()))
                .unwrap()
                .ino()
        }

        #[test]
        fn the_kernel_and_its_tables_name_the_same_socket() {
            let diag = Prober::new().diag.expect("netlink sockets are allowed");
            for bind in ["127.0.0.1:0", "0.0.0.0:0"] {
                let tcp = TcpListener::bind(bind).unwrap();
                let port = tcp.local_addr().unwrap().port();
                let local = IpAddr::from(Ipv4Addr::LOCALHOST);
                assert_eq!(
                    ask(&diag, Transport::Tcp, local, port).unwrap(),
                    Some(inode(&tcp))
                );
                let found = tables(Transport::Tcp, port);
                assert_eq!(found.len(), 1);
                assert_eq!(found[0].inode, inode(&tcp));
                assert_eq!(found[0].reach, SocketAddr::new(local, port));
                assert_eq!(ask(&diag, Transport::Udp, local, port).unwrap(), None);

                let udp = UdpSocket::bind(bind).unwrap();
                let port = udp.local_addr().unwrap().port();
                assert_eq!(
                    ask(&diag, Transport::Udp, local, port).unwrap(),
                    Some(inode(&udp))
                );
                assert_eq!(tables(Transport::Udp, port)[0].inode, inode(&udp));
            }
        }

        #[test]
        fn a_connection_to_the_port_is_not_a_listener() {
            let diag = Prober::new().diag.expect("netlink sockets are allowed");
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp.local_addr().unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let _served = tcp.accept().unwrap();
            drop(tcp);
            // A test beside this one may be between fork and exec with a copy of the listener: it is gone when that is over.
            let mut left = 2_000;
            while ask(&diag, Transport::Tcp, address.ip(), address.port())
                .unwrap()
                .is_some()
            {
                left -= 1;
                assert!(left > 0, "the connection was taken for a listener");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert!(tables(Transport::Tcp, address.port()).is_empty());
        }

        #[test]
        fn a_socket_of_ours_is_foreign_to_a_tree_we_are_not_in() {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = tcp.local_addr().unwrap().port();
            let mut other = std::process::Command::new("sleep")
                .arg("60")
                .spawn()
                .unwrap();
            let root = i32::try_from(other.id()).unwrap();
            assert_eq!(
                Prober::new().look(Transport::Tcp, port, root, false),
                Seen::Foreign
            );
            other.kill().unwrap();
            other.wait().unwrap();
            drop(tcp);
            assert_eq!(
                Prober::new().look(Transport::Tcp, port, root, true),
                Seen::Nobody
            );
        }

        #[test]
        fn addresses_of_the_tables() {
            if cfg!(target_endian = "little") {
                assert_eq!(
                    parse_address("0100007F"),
                    Some(IpAddr::from([127, 0, 0, 1]))
                );
                assert_eq!(
                    parse_address("00000000000000000000000001000000"),
                    Some(IpAddr::from(Ipv6Addr::LOCALHOST))
                );
            }
            assert_eq!(parse_address("zz"), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::{Seen, Transport};

    /// A refused connection on loopback comes back at once; this bounds a firewall that swallows it.
    const CONNECT_TIMEOUT: Duration = Duration::from_millis(50);

    pub(in super::super) struct Prober;

    impl Prober {
        pub(in super::super) fn new() -> Self {
            Self
        }

        pub(in super::super) fn look(
            &self,
            transport: Transport,
            port: u16,
            _shim: i32,
            _thorough: bool,
        ) -> Seen {
            let candidates = [
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            ];
            for address in candidates {
                let found = match transport {
                    Transport::Tcp => TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok(),
                    Transport::Udp => UdpSocket::bind(address)
                        .is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse),
                };
                if found {
                    return Seen::Ours(address);
                }
            }
            Seen::Nobody
        }
    }
}
