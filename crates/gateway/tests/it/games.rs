//! Small real game servers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::harness::{read_head, soon};

/// What an echo game was asked at each handshake.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
}

/// Says back what it hears. `die` on drop or on command: every socket is closed without a word.
pub(crate) struct EchoGame {
    pub(crate) at: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) open: Arc<AtomicUsize>,
    life: CancellationToken,
    tasks: TaskTracker,
    _guard: DropGuard,
}

impl EchoGame {
    pub(crate) async fn start() -> Self {
        Self::choosing(None).await
    }

    /// Chooses this subprotocol if it is offered.
    pub(crate) async fn choosing(protocol: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (seen, open) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicUsize::new(0)),
        );
        let (life, tasks) = (CancellationToken::new(), TaskTracker::new());
        let game = Self {
            at,
            seen: seen.clone(),
            open: open.clone(),
            life: life.clone(),
            tasks: tasks.clone(),
            _guard: life.clone().drop_guard(),
        };
        let accepting = {
            let (life, tasks) = (life.clone(), tasks.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let play = echo(stream, seen.clone(), open.clone(), protocol);
                    let life = life.clone();
                    tasks.spawn(async move { life.run_until_cancelled(play).await });
                }
            }
        };
        tasks.spawn(async move { life.run_until_cancelled(accepting).await });
        game
    }

    pub(crate) async fn die(&self) {
        self.life.cancel();
        self.tasks.close();
        soon("the game is dead", self.tasks.wait()).await;
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn echo(
    stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    open: Arc<AtomicUsize>,
    protocol: Option<&'static str>,
) {
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let note = |request: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
        seen.lock().unwrap().push(Seen {
            path: request.uri().to_string(),
            headers: request.headers().clone(),
        });
        let offered = request
            .headers()
            .get("sec-websocket-protocol")
            .and_then(|p| p.to_str().ok())
            .unwrap_or_default();
        if let Some(p) = protocol
            && offered.split(',').any(|o| o.trim() == p)
        {
            answer
                .headers_mut()
                .insert("sec-websocket-protocol", p.parse().unwrap());
        }
        Ok(answer)
    };
    let Ok(mut ws) = tokio_tungstenite::accept_hdr_async(stream, note).await else {
        return;
    };
    open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(open);
    while let Some(Ok(message)) = ws.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && ws.send(message).await.is_err()
        {
            return;
        }
    }
}

/// A game that is driven by hand, byte by byte.
pub(crate) struct RawGame {
    pub(crate) at: SocketAddr,
    listener: TcpListener,
}

pub(crate) struct RawConnection {
    pub(crate) stream: TcpStream,
    pub(crate) head: String,
    /// What came after the head.
    pub(crate) bytes: Vec<u8>,
}

impl RawGame {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            at: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// On an address that was free a moment ago.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Self {
            at: address,
            listener: socket.listen(16).unwrap(),
        }
    }

    /// Takes a connection and reads its request.
    pub(crate) async fn accept(&self) -> RawConnection {
        let (mut stream, _) = soon("a connection to the game", self.listener.accept())
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        let head = soon("a request to the game", read_head(&mut stream, &mut bytes)).await;
        RawConnection {
            stream,
            head,
            bytes,
        }
    }

    /// Takes a connection and shakes hands.
    pub(crate) async fn welcome(&self) -> RawConnection {
        let mut connection = self.accept().await;
        let answer = connection.answer("");
        connection
            .stream
            .write_all(answer.as_bytes())
            .await
            .unwrap();
        connection
    }
}

impl RawConnection {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (n, v) = l.split_once(": ")?;
            (n == name).then_some(v)
        })
    }

    /// The 101 for its request.
    pub(crate) fn answer(&self, more: &str) -> String {
        use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
        let key = self
            .header("Sec-WebSocket-Key")
            .expect("spelled as the client spelled it");
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        )
    }

    /// Reads exactly this many bytes of frames.
    pub(crate) async fn read(&mut self, n: usize) -> Vec<u8> {
        use tokio::io::AsyncReadExt as _;
        while self.bytes.len() < n {
            let mut more = vec![0; 65_536];
            let got = soon("bytes at the game", self.stream.read(&mut more))
                .await
                .unwrap();
            assert_ne!(got, 0, "ended after {} of {n} bytes", self.bytes.len());
            self.bytes.extend(&more[..got]);
        }
        self.bytes.drain(..n).collect()
    }

    /// Reads to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        use tokio::io::AsyncReadExt as _;
        let mut all = std::mem::take(&mut self.bytes);
        let _ = soon("the end at the game", self.stream.read_to_end(&mut all)).await;
        all
    }
}
