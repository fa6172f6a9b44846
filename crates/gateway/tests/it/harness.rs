//! A gateway with its surroundings, clients, and waiting for what must come true.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use http_body_util::Full;
use spawnpoint_core::session::Phase;
use spawnpoint_core::{Clock, Moment, PlayerId, SessionId};
use spawnpoint_gateway::{Gateway, GatewayConfig, GatewayDeps, TcpConfig, TcpListeners};
use spawnpoint_wire::access::Peer;
use spawnpoint_wire::link::{Protocol, Route};
use spawnpoint_wire::token::{Keyring, SigningKey, TokenClaims};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;

use crate::link::MemoryLink;

/// Unix seconds at which the tests' clock starts.
pub(crate) const NOW: i64 = 1_800_000_000;
/// Nothing here takes longer, on the slowest machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, f: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, Box::pin(f))
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

/// Waits until something is true.
pub(crate) async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    soon(what, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Runs the machine's clock from a fixed date.
pub(crate) struct TestClock(tokio::time::Instant);

impl TestClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment(NOW * 1000 + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0
    }

    fn boot_id(&self) -> &str {
        "boot"
    }

    fn monotonic(&self, moment: Moment) -> i64 {
        moment.0
    }
}

pub(crate) struct World {
    pub(crate) at: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) tcp: Arc<TcpListeners>,
    pub(crate) link: &'static MemoryLink,
    pub(crate) key: SigningKey,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig::default()
}

/// Answers what the gateway does not.
pub(crate) fn fallback() -> impl tower::Service<
    http::Request<hyper::body::Incoming>,
    Response = http::Response<Full<bytes::Bytes>>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static {
    tower::service_fn(|r: http::Request<hyper::body::Incoming>| async move {
        let peer = r.extensions().get::<Peer>().map(|p| p.0.ip().to_string());
        let text = format!("fallback {} {}", r.uri(), peer.unwrap_or_default());
        Ok(http::Response::new(Full::new(bytes::Bytes::from(text))))
    })
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: GatewayConfig) -> Self {
        let tcp = TcpConfig::new(vec![Ipv4Addr::LOCALHOST.into()], 25_000..=27_999);
        Self::listening(config, tcp).await
    }

    /// With listeners for TCP sessions in this range.
    pub(crate) async fn listening(config: GatewayConfig, tcp: TcpConfig) -> Self {
        let clock = TestClock::start();
        let tcp = TcpListeners::new(tcp, clock.clone());
        let key = SigningKey::generate().unwrap();
        let link: &'static MemoryLink = Box::leak(Box::new(MemoryLink::new()));
        let gateway = Gateway::new(
            config,
            GatewayDeps {
                link: Arc::new(link),
                keyring: Arc::new(ArcSwap::from_pointee(Keyring::new(vec![
                    key.public().clone(),
                ]))),
                clock,
                tcp: Some(tcp.clone()),
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = {
            let (gateway, shutdown) = (gateway.clone(), shutdown.clone());
            #[allow(clippy::disallowed_methods, reason = "the test awaits or drops it")]
            tokio::spawn(async move { gateway.serve(vec![listener], fallback(), shutdown).await })
        };
        eventually("the link is up", || gateway.metrics().link_up).await;
        Self {
            at,
            gateway,
            tcp,
            link,
            key,
            shutdown,
            serving,
        }
    }

    pub(crate) fn token(&self, player: &str, session: SessionId) -> String {
        self.token_until(player, session, NOW + 3600)
    }

    pub(crate) fn token_until(&self, player: &str, session: SessionId, exp: i64) -> String {
        token(&self.key, player, session, exp)
    }

    /// Sets a route and waits until the gateway has it.
    pub(crate) async fn route(&self, route: Route) {
        self.link.set(route);
        self.link.settled().await;
    }

    pub(crate) fn url(&self, session: SessionId, player: &str) -> String {
        format!(
            "ws://{}/session/{session}?token={}",
            self.at,
            self.token(player, session)
        )
    }

    /// A WebSocket without subprotocols.
    pub(crate) async fn join(&self, session: SessionId, player: &str) -> Client {
        self.offer(session, player, &[]).await.unwrap()
    }

    pub(crate) async fn offer(
        &self,
        session: SessionId,
        player: &str,
        protocols: &[&str],
    ) -> Result<Client, Refused> {
        connect(self.at, &self.url(session, player), protocols, &[]).await
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon("the gateway stops", self.serving).await.unwrap();
    }
}

pub(crate) fn token(key: &SigningKey, player: &str, session: SessionId, exp: i64) -> String {
    key.sign(&TokenClaims {
        sub: player.parse().unwrap(),
        sid: session,
        fleet: "spice".parse().unwrap(),
        iat: NOW,
        exp,
    })
    .unwrap()
}

/// A session of its own for each test.
pub(crate) fn session(n: u64) -> SessionId {
    SessionId::new(uuid::Uuid::from_u64_pair(
        0x0189_0a5d_ac96_774b,
        0xbcce_0000_0000_0000 | n,
    ))
}

/// A route to a game that accepts, for players a, b and c.
pub(crate) fn ready(session: SessionId, address: SocketAddr) -> Route {
    Route {
        phase: Phase::Ready,
        address: Some(address),
        ..starting(session)
    }
}

pub(crate) fn starting(session: SessionId) -> Route {
    Route {
        session,
        fleet: "spice".parse().unwrap(),
        generation: 1,
        phase: Phase::Starting,
        address: None,
        protocol: Protocol::WebSocket,
        players: players(&["a", "b", "c"]),
        position: None,
        waiting_for: None,
        ended: None,
    }
}

pub(crate) fn players(names: &[&str]) -> Arc<[PlayerId]> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

pub(crate) struct Client {
    pub(crate) ws: WebSocketStream<TcpStream>,
    pub(crate) headers: http::HeaderMap,
}

#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
}

pub(crate) async fn connect(
    at: SocketAddr,
    url: &str,
    protocols: &[&str],
    headers: &[(&'static str, &str)],
) -> Result<Client, Refused> {
    let mut request = url.into_client_request().unwrap();
    if !protocols.is_empty() {
        request.headers_mut().insert(
            "sec-websocket-protocol",
            protocols.join(", ").parse().unwrap(),
        );
    }
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match soon(
        "an answer to the handshake",
        tokio_tungstenite::client_async(request, stream),
    )
    .await
    {
        Ok((ws, answer)) => Ok(Client {
            ws,
            headers: answer.headers().clone(),
        }),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => Err(Refused {
            status: answer.status().as_u16(),
        }),
        Err(e) => panic!("{e}"),
    }
}

impl Client {
    pub(crate) async fn say(&mut self, text: &str) {
        use futures::SinkExt as _;
        self.ws.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Message {
        soon("a message", self.ws.next()).await.unwrap().unwrap()
    }

    pub(crate) async fn hear_text(&mut self) -> String {
        match self.hear().await {
            Message::Text(t) => t.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn hear_event(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.hear_text().await).unwrap()
    }

    /// Says something and hears it back.
    pub(crate) async fn echo(&mut self, text: &str) {
        self.say(text).await;
        assert_eq!(self.hear_text().await, text);
    }

    /// Everything up to the close, and the close; 1006 if there was none.
    pub(crate) async fn until_close(&mut self) -> (Vec<Message>, u16, String) {
        let mut heard = Vec::new();
        loop {
            match soon("a close", self.ws.next()).await {
                Some(Ok(Message::Close(frame))) => {
                    let CloseFrame { code, reason } = frame.unwrap();
                    // Lets the library answer it.
                    while let Some(Ok(_)) = soon("the end", self.ws.next()).await {}
                    return (heard, code.into(), reason.to_string());
                }
                Some(Ok(message)) => heard.push(message),
                Some(Err(_)) | None => return (heard, 1006, String::new()),
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let (_, code, reason) = self.until_close().await;
        (code, reason)
    }
}

/// One HTTP exchange by hand.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (n, v) = l.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.head
        );
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem
    }

    pub(crate) fn code(&self) -> String {
        self.problem()["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn ask(at: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(&mut stream).await
}

pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let head = soon("a head", read_head(stream, &mut bytes)).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: String::new(),
    };
    let length: usize = answer
        .header("content-length")
        .map_or(0, |l| l.parse().unwrap());
    while bytes.len() < length {
        let mut more = [0; 4096];
        let n = soon("a body", stream.read(&mut more)).await.unwrap();
        assert_ne!(n, 0, "the body is cut short");
        bytes.extend(&more[..n]);
    }
    answer.body = String::from_utf8(bytes).unwrap();
    answer
}

/// Reads up to the blank line; what follows stays in `bytes`.
pub(crate) async fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> String {
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end + 4].to_vec()).unwrap();
            bytes.drain(..end + 4);
            return head;
        }
        let mut more = [0; 4096];
        let n = stream.read(&mut more).await.unwrap();
        assert_ne!(
            n,
            0,
            "ended within a head: {:?}",
            String::from_utf8_lossy(bytes)
        );
        bytes.extend(&more[..n]);
    }
}

/// The head of a WebSocket handshake for a path.
pub(crate) fn upgrade(at: SocketAddr, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame: masked.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        n if n < 126 => frame.push(0x80 | n as u8),
        n if n < 65_536 => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}
