//! Ten thousand sockets at once.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::{Pid, Resource, getrlimit, prlimit, setrlimit};

use crate::server::Server;

const CROWD: usize = 10_000;
/// What a silent socket may cost the server, KiB; it is under three, unoptimized.
const KIB_EACH: u64 = 4;

/// Raises the limit of this process as far as `wanted`, beyond the hard one where the kernel allows it.
fn raise(wanted: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_none_or(|most| most >= wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        return setrlimit(Resource::Nofile, limit).is_ok();
    }
    limit.current = Some(wanted);
    limit.maximum = Some(wanted);
    setrlimit(Resource::Nofile, limit).is_ok()
}

#[test]
fn ten_thousand_sockets_in_bounded_memory() {
    let wanted = CROWD as u64 + 500;
    if !raise(wanted) {
        println!("left out: this process may not open {wanted} files (ulimit -Hn)");
        return;
    }
    let server = Server::start(&[("ARENA_MAX_CLIENTS", "20000"), ("EMPTY_GRACE", "60")]);
    // The server asks for its own; only this tells whether it got them.
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let theirs = prlimit(pid, Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
    assert!(theirs.current.is_none_or(|most| most >= wanted));
    let before = server.resident_kib();
    let mut crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| TcpStream::connect(server.address).expect("accepted"))
        .collect();
    // One more is served while they are silent, and only after all of them were let in.
    let mut keeper = server.dial();
    assert_eq!(keeper.ask("GET_STATE"), "open\n");
    let silent = server.resident_kib().saturating_sub(before);
    assert!(silent < KIB_EACH * CROWD as u64, "{silent} KiB");
    for tcp in &mut crowd {
        tcp.write_all(b"GET_STATE\n").unwrap();
    }
    for tcp in &mut crowd {
        let mut answer = [0; 5];
        tcp.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"open\n");
    }
    let spoken = server.resident_kib().saturating_sub(before);
    assert!(spoken < KIB_EACH * CROWD as u64, "{spoken} KiB");
    println!("10,000 sockets: {silent} KiB silent, {spoken} KiB after each has spoken");
    drop(crowd);
    assert_eq!(keeper.ask("REQUEST_MATCH 0.05"), "running\n");
    assert_eq!(keeper.rest(), "");
    drop(keeper);
    let (code, _, results) = server.end();
    assert_eq!(code, Some(0));
    assert_eq!(results["clients"], CROWD + 1);
}
