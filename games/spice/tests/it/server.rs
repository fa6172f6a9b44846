//! The binary as a child process, and a player who speaks its protocol.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Nothing here takes a tenth of this; it only keeps a failure from hanging.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it did not happen in time")
}

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn spawn(env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spice"));
        command
            .env_clear()
            .env("PORT", "0")
            .env("SPICE_HOST", "127.0.0.1");
        command.envs(env.iter().copied());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spice starts");
        Self { child, port: 0 }
    }

    /// Started and listening; the port is the one it says it got.
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let mut server = Self::spawn(env);
        let out = server.child.stdout.take().expect("piped");
        let line = within(tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        }))
        .await
        .expect("joined")
        .expect("readable");
        let port = line
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        server.port = port.unwrap_or_else(|| panic!("no port in {line:?}: {}", server.stderr()));
        server
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        // A small window, so that a player who does not read is felt at once.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("settable");
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        within(socket.connect(address)).await.expect("accepts")
    }

    pub(crate) fn request(player: &str, extra: &str) -> String {
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             X-Player-Id: {player}\r\n{extra}\r\n"
        )
    }

    /// A raw socket after its 101.
    pub(crate) async fn handshake(&self, player: &str, extra: &str) -> TcpStream {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut tcp = self.dial().await;
        tcp.write_all(Self::request(player, extra).as_bytes())
            .await
            .expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(tcp.read_u8()).await.expect("a response"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        tcp
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Before its handlers stand, a SIGTERM kills; the kernel says when they do.
    pub(crate) async fn until_signals_are_caught(&self) {
        let sigterm = 1u64 << 14;
        within(async {
            loop {
                let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
                    .expect("alive");
                let caught = status
                    .lines()
                    .find_map(|line| line.strip_prefix("SigCgt:"))
                    .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                    .unwrap_or(0);
                if caught & sigterm != 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().expect("waitable") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut text);
        }
        text
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("alive");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("a resident size")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One state message.
#[derive(Debug, Clone, Default)]
pub(crate) struct State(pub(crate) Value);

impl State {
    pub(crate) fn row(&self, id: u64) -> Option<&Vec<Value>> {
        self.0["p"]
            .as_array()?
            .iter()
            .find(|row| row[0] == id)?
            .as_array()
    }
}

pub(crate) struct Player {
    pub(crate) ws: WebSocketStream<TcpStream>,
    pub(crate) id: u64,
    pub(crate) hello: Value,
    pub(crate) roster: Option<Value>,
    pub(crate) last: State,
    spice: Vec<i64>,
}

impl Player {
    /// After the handshake, whatever the server says next. `extra` is header lines.
    pub(crate) async fn open(server: &Server, name: &str, extra: &str) -> Self {
        let mut request = format!("ws://127.0.0.1:{}/", server.port)
            .into_client_request()
            .expect("a request");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let headers = format!("X-Player-Id: {encoded}\r\n{extra}");
        for line in headers.lines() {
            let (key, value) = line.split_once(": ").expect("a header");
            let key = key.to_ascii_lowercase();
            let key: &'static str = key.leak();
            request
                .headers_mut()
                .insert(key, value.parse().expect("a value"));
        }
        let tcp = server.dial().await;
        let (ws, _) = within(tokio_tungstenite::client_async(request, tcp))
            .await
            .expect("101");
        Self {
            ws,
            id: 0,
            hello: Value::Null,
            roster: None,
            last: State::default(),
            spice: vec![],
        }
    }

    pub(crate) async fn join(server: &Server, name: &str) -> Self {
        Self::open(server, name, "").await.seated().await
    }

    pub(crate) async fn seated(mut self) -> Self {
        self.hello = self.next_json().await;
        assert_eq!(self.hello["t"], "hello", "{}", self.hello);
        self.id = self.hello["id"].as_u64().expect("an id");
        self.roster = Some(self.next_json().await);
        self
    }

    pub(crate) async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        self.ws.send(message).await
    }

    pub(crate) async fn send(&mut self, message: Message) {
        // What a server that has closed already thinks of it shows in the next read.
        let _ = self.try_send(message).await;
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.try_send(Message::text(message.to_string()))
            .await
            .expect("open");
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        within(async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return serde_json::from_str(&text).expect("JSON");
                    }
                    Some(Ok(_)) => {}
                    other => panic!("no message but {other:?}"),
                }
            }
        })
        .await
    }

    /// Reads until a state satisfies `wanted`.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&State) -> bool) -> State {
        within(async {
            loop {
                let message = self.next_json().await;
                if message["t"] == "who" {
                    self.roster = Some(message.clone());
                }
                if message["t"] != "s" {
                    continue;
                }
                if let Some(spice) = message["sp"].as_array() {
                    self.spice = spice.iter().filter_map(Value::as_i64).collect();
                }
                self.last = State(message);
                if wanted(&self.last) {
                    return self.last.clone();
                }
            }
        })
        .await
    }

    /// Runs after the nearest spice until the score is enough.
    pub(crate) async fn chase_spice(&mut self, enough: impl Fn(i64) -> bool) {
        within(async {
            loop {
                let id = self.id;
                let state = self.until(|s| s.row(id).is_some()).await;
                let row = state.row(id).expect("just seen");
                if enough(row[7].as_i64().expect("a score")) {
                    return;
                }
                let (x, y) = (row[2].as_i64().expect("x"), row[3].as_i64().expect("y"));
                let nearest = self
                    .spice
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|spice| (spice[1] - x, spice[2] - y))
                    .min_by_key(|(dx, dy)| dx * dx + dy * dy);
                if let Some((dx, dy)) = nearest {
                    self.say(json!({"t": "in", "x": dx, "y": dy})).await;
                }
            }
        })
        .await;
    }

    pub(crate) async fn error(&mut self) -> Value {
        loop {
            let message = self.next_json().await;
            if message["t"] == "error" {
                return message;
            }
        }
    }

    /// The close code and reason, skipping everything before.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        within(async {
            loop {
                match self.ws.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("no close frame but {other:?}"),
                }
            }
        })
        .await
    }
}
