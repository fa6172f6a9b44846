//! A game server that misbehaves on request, and the shims and owners that crash tests kill. For tests of this crate only.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::zombie_processes,
    clippy::disallowed_methods,
    reason = "a test program: its output is the test's data and a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use spawnpoint_runtime::process::shim::Step;
use spawnpoint_runtime::process::{OwnerStep, ProcessConfig, ProcessRuntime, shim};
use spawnpoint_runtime::{Change, Order, Protocol, ReadyRule, Runtime, State, Template};

/// Connections taken by `serve`, probes included if there were any.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["shim", dir] => return shim::main(Path::new(dir)),
        ["shim-crash", step, dir] => return crashing_shim(step, Path::new(dir)),
        ["shim-gone", _dir] => {}
        ["shim-held", gate, dir] => {
            wait_for(gate);
            return shim::main(Path::new(dir));
        }
        ["owner", state, count, crash] => owner(state, count.parse().unwrap(), crash),
        ["listen"] => serve(&TcpListener::bind(("127.0.0.1", port())).unwrap()),
        ["listen-on", ip] => serve(&TcpListener::bind((*ip, port())).unwrap()),
        ["listen-after", gate] => {
            wait_for(gate);
            serve(&TcpListener::bind(("127.0.0.1", port())).unwrap());
        }
        ["never"] => forever(),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["say-then-listen", text] => {
            print!("{}", &text[..text.len() / 2]);
            std::io::stdout().flush().unwrap();
            println!("{}", &text[text.len() / 2..]);
            serve(&TcpListener::bind(("127.0.0.1", port())).unwrap());
        }
        ["flood", bytes] => {
            flood(bytes.parse().unwrap());
            serve(&TcpListener::bind(("127.0.0.1", port())).unwrap());
        }
        ["ignore-term"] => {
            ignore_term();
            serve(&TcpListener::bind(("127.0.0.1", port())).unwrap());
        }
        ["fork", more @ ..] => {
            // A child in the group, one in a group of its own, and a daemon that left session and parent; none hears SIGTERM.
            fork_family();
            match more {
                ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
                _ => serve(&TcpListener::bind(("127.0.0.1", port())).unwrap()),
            }
        }
        ["lurk"] => {
            ignore_term();
            forever();
        }
        ["udp"] => udp(),
        ["http", gate] => http(gate),
        ["eat", bytes] => eat(bytes.parse().unwrap()),
        ["results", text] => {
            std::fs::write(std::env::var("SPAWNPOINT_RESULTS_FILE").unwrap(), text).unwrap();
        }
        ["steal", taken] => steal(taken),
        other => {
            println!("unknown: {other:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn port() -> u16 {
    std::env::var("PORT").unwrap().parse().unwrap()
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Answers each line: `exit N`, `env NAME`, `file NAME` (of the file that the variable names), `arg N`, `cwd`, `connections`;
/// anything else is echoed.
fn serve(listener: &TcpListener) {
    println!("listening");
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            CONNECTIONS.fetch_add(1, Ordering::SeqCst);
            scope.spawn(|| talk(stream.unwrap()));
        }
    });
}

fn talk(stream: TcpStream) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let answer = match line.split_once(' ') {
            Some(("exit", code)) => leave(code.parse().unwrap()),
            Some(("env", name)) => std::env::var(name).unwrap_or_else(|_| "<unset>".into()),
            Some(("file", name)) => std::fs::read_to_string(std::env::var(name).unwrap())
                .unwrap_or_else(|e| e.kind().to_string()),
            Some(("say", text)) => {
                println!("{text}");
                text.to_owned()
            }
            _ if line == "environment" => std::env::vars()
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
                .join(" "),
            _ if line == "cwd" => std::env::current_dir().unwrap().display().to_string(),
            _ if line == "connections" => CONNECTIONS.load(Ordering::SeqCst).to_string(),
            _ => line,
        };
        if writeln!(writer, "{answer}").is_err() {
            return;
        }
    }
}

fn leave(code: i32) -> ! {
    std::process::exit(code)
}

fn flood(bytes: usize) {
    let line = [b'x'; 1023];
    let mut out = std::io::stdout().lock();
    for _ in 0..bytes / 1024 {
        out.write_all(&line).unwrap();
        out.write_all(b"\n").unwrap();
    }
}

/// SIGTERM is ignored over exec: a shell says so for us and becomes this program again.
fn ignore_term() {
    if std::env::var_os("DEAF").is_none() {
        use std::os::unix::process::CommandExt;
        let args: Vec<_> = std::env::args().skip(1).collect();
        let error = Command::new("sh")
            .args(["-c", "trap '' TERM; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(args)
            .env("DEAF", "1")
            .exec();
        panic!("{error}");
    }
}

fn fork_family() {
    let me = std::env::current_exe().unwrap();
    let lurk = || {
        let mut c = Command::new(&me);
        c.arg("lurk").env_remove("DEAF");
        c
    };
    let child = lurk().spawn().unwrap();
    use std::os::unix::process::CommandExt;
    let other_group = lurk().process_group(0).spawn().unwrap();
    // `setsid --fork` twice removed: its parent is gone before it runs, and it holds the output pipe open.
    let status = Command::new("setsid")
        .args([
            "--fork",
            "sh",
            "-c",
            "trap '' TERM; echo daemon $$; exec \"$0\" lurk",
        ])
        .arg(&me)
        .env("DEAF", "1")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    println!("child {} other {}", child.id(), other_group.id());
}

fn udp() {
    let socket = UdpSocket::bind(("0.0.0.0", port())).unwrap();
    let mut buf = [0; 2048];
    loop {
        let (n, from) = socket.recv_from(&mut buf).unwrap();
        socket.send_to(&buf[..n], from).unwrap();
    }
}

/// Answers `/health` with 503 until the gate file is there.
fn http(gate: &str) {
    let listener = TcpListener::bind(("127.0.0.1", port())).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = [0; 1024];
        let n = stream.read(&mut head).unwrap();
        if n == 0 {
            // Somebody only looked.
            continue;
        }
        assert!(head[..n].starts_with(b"GET /health HTTP/1.1\r\n"));
        let status = if Path::new(gate).exists() {
            "204 No Content"
        } else {
            "503 Service Unavailable"
        };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    }
}

fn eat(bytes: usize) {
    let mut eaten = Vec::new();
    for _ in 0..bytes / (1 << 20) {
        eaten.push(vec![1u8; 1 << 20]);
    }
    println!("ate {}", std::hint::black_box(&eaten).len());
}

/// The first time, lets somebody else take the port between the choice and the bind: another process listens there before this
/// one tries. `taken` remembers the port that was lost.
fn steal(taken: &str) {
    if !Path::new(taken).exists() {
        let thief = format!("{taken}.thief");
        std::fs::write(format!("{taken}.new"), port().to_string()).unwrap();
        std::fs::rename(format!("{taken}.new"), taken).unwrap();
        wait_for(&thief);
        if std::env::var_os("PATIENT").is_some() {
            forever();
        }
    }
    serve(&TcpListener::bind(("127.0.0.1", port())).unwrap());
}

fn crashing_shim(step: &str, dir: &Path) -> ExitCode {
    let at = match step {
        "locked" => Step::Locked,
        "claimed" => Step::Claimed,
        "spawned" => Step::Spawned,
        "running" => Step::Running,
        "over" => Step::Over,
        "noted" => Step::Noted,
        other => panic!("{other}"),
    };
    shim::run(dir, &mut |now| {
        if now == at {
            die();
        }
    })
}

fn die() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
    forever()
}

/// An owner for crash tests: orders instances, says their ids and that they are ready, and then waits to be killed; or kills
/// itself at a step of the first order.
fn owner(state: &str, count: usize, crash: &str) {
    let step = match crash {
        "recorded" => Some(OwnerStep::Recorded),
        "shim-started" => Some(OwnerStep::ShimStarted),
        _ => None,
    };
    let me = std::env::current_exe().unwrap();
    let mut config = ProcessConfig::new(state.into(), vec![me.clone().into(), "shim".into()]);
    config.observer = Some(std::sync::Arc::new(move |_, now| {
        if Some(now) == step {
            die();
        }
    }));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let runtime = ProcessRuntime::open(config).unwrap();
            let mut changes = runtime.watch().await.unwrap();
            for n in 0..count {
                let id = format!("01890a5d-ac96-774b-bcce-b302099a{n:04x}")
                    .parse()
                    .unwrap();
                println!("order {id}");
                runtime.order(listen_order(id, &me)).await.unwrap();
            }
            let mut ready = std::collections::HashSet::new();
            while let Some(change) = changes.next().await {
                if let Change::One(instance) = change
                    && instance.state == State::Ready
                {
                    // An instance may be said more than once.
                    if ready.insert(instance.id) && ready.len() == count {
                        println!("ready");
                    }
                }
            }
        });
}

fn listen_order(id: spawnpoint_core::InstanceId, me: &Path) -> Order {
    Order {
        id,
        fleet: "test".parse().unwrap(),
        template: Template {
            command: vec![me.display().to_string(), "listen".into()],
            env: BTreeMap::new(),
            inherit_env: false,
            workdir: None,
            cpu_millis: None,
            memory_bytes: None,
            protocol: Protocol::Tcp,
            ready: ReadyRule::Dial,
            fixed_port: None,
            host_port: false,
        },
        gated: false,
        facts: None,
        session_file: None,
        env: BTreeMap::new(),
    }
}
