//! Simulated players, a thread each, who start games, play, end them, leave, let their games crash and come back; and the ledger of what
//! they were told. What was not answered was not promised: only what stands in the ledger has to be kept.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

use crate::api::Api;
use crate::clock::{Chance, now};
use crate::machine;
use crate::site::Site;

/// Pause of a player who was refused, or whose server is away.
const AGAIN: Duration = Duration::from_millis(100);
/// Between two moves of a player.
const MOVE: Duration = Duration::from_millis(60);
/// Longest wait of a player for a place or a game; then they give up and start another.
const GIVES_UP: Duration = Duration::from_secs(8);
/// Players of each kind.
const CHURN: usize = 3;
const QUEUED: usize = 4;
const MATCHED: usize = 4;
pub(crate) const STAYERS: usize = 2;

/// What a player was told when a start was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) player: String,
    pub(crate) fleet: &'static str,
    /// Why it ends, if a player was told that it does.
    pub(crate) ended: Option<String>,
}

/// The session of somebody who stays to the end.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    pub(crate) player: String,
    pub(crate) session: String,
    /// Without the token.
    pub(crate) url: String,
    /// Of the game, as the server shows it.
    pub(crate) label: String,
}

/// What everybody was told.
#[derive(Default)]
pub(crate) struct Ledger {
    starts: Mutex<BTreeMap<String, Told>>,
    /// How often each code was the answer instead.
    refusals: Mutex<BTreeMap<String, usize>>,
    anchors: Mutex<BTreeMap<usize, Anchor>>,
    /// Moves of those who stay, by their number.
    moves: [AtomicUsize; STAYERS],
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(crate) fn starts(&self) -> BTreeMap<String, Told> {
        locked(&self.starts).clone()
    }

    pub(crate) fn anchors(&self) -> Vec<Anchor> {
        locked(&self.anchors).values().cloned().collect()
    }

    pub(crate) fn moves(&self) -> Vec<usize> {
        self.moves
            .iter()
            .map(|m| m.load(Ordering::Relaxed))
            .collect()
    }

    pub(crate) fn refused(&self, code: &str) -> usize {
        locked(&self.refusals).get(code).copied().unwrap_or(0)
    }

    fn acknowledged(&self, session: &str, player: &str, fleet: &'static str) {
        let told = Told {
            player: player.to_owned(),
            fleet,
            ended: None,
        };
        locked(&self.starts)
            .entry(session.to_owned())
            .or_insert(told);
    }

    fn ended(&self, session: &str, reason: String) {
        if let Some(told) = locked(&self.starts).get_mut(session) {
            told.ended.get_or_insert(reason);
        }
    }

    /// How many ends were acknowledged.
    pub(crate) fn ends(&self) -> usize {
        let starts = locked(&self.starts);
        starts.values().filter(|t| t.ended.is_some()).count()
    }
}

/// All of them.
pub(crate) struct Crowd {
    pub(crate) ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Sends them in.
    pub(crate) fn start(site: &Site, chance: &mut Chance) -> Self {
        let ledger = Arc::new(Ledger::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut player = |name: String| Player {
            name,
            public: site.public.clone(),
            admin: site.admin.clone(),
            state: site.state.clone(),
            ledger: Arc::clone(&ledger),
            stop: Arc::clone(&stop),
            chance: Chance::seeded(chance.below(u64::MAX)),
        };
        let mut threads = Vec::new();
        for n in 0..STAYERS {
            let mut p = player(format!("stay-{n}"));
            threads.push(std::thread::spawn(move || p.stay(n)));
        }
        for n in 0..CHURN {
            let mut p = player(format!("churn-{n}"));
            threads.push(std::thread::spawn(move || p.churn("spice")));
        }
        for n in 0..QUEUED {
            let mut p = player(format!("queued-{n}"));
            threads.push(std::thread::spawn(move || p.churn("small")));
        }
        for n in 0..MATCHED {
            let mut p = player(format!("matched-{n}"));
            threads.push(std::thread::spawn(move || p.matches()));
        }
        Self {
            ledger,
            stop,
            threads,
        }
    }

    /// Tells everybody to stop where they are, and waits until they have.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let all = self.threads.drain(..).map(JoinHandle::join);
        let panicked = all.filter(Result::is_err).count();
        if panicked > 0 {
            return Err(format!("{panicked} players panicked"));
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Their server may be gone for good by now: they are told, and not waited for.
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// How to reach a game.
struct Way {
    session: String,
    url: String,
}

struct Player {
    name: String,
    public: Api,
    admin: Api,
    state: PathBuf,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    chance: Chance,
}

impl Player {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Somebody new each time.
    fn churn(&mut self, fleet: &'static str) {
        let mut round = 0;
        while !self.stops() {
            round += 1;
            let player = format!("{}-{round}", self.name);
            let Some(way) = self.new_game(&player, fleet) else {
                return;
            };
            let Some(mut socket) = self.reach(&way) else {
                continue;
            };
            let moves = 3 + self.chance.below(8);
            for _ in 0..moves {
                if !act(&mut socket) {
                    break;
                }
            }
            match self.chance.below(10) {
                0..=3 => self.end(&way.session),
                // An end that nobody can write down with a game that is dead already.
                4..=6 => {
                    self.crash(&way.session);
                    self.end(&way.session);
                }
                7..=8 => {
                    self.crash(&way.session);
                    // Replaced or started again, it is reached under the same address.
                    if let Some(mut socket) = self.reach(&way) {
                        act(&mut socket);
                    }
                    self.end(&way.session);
                }
                // Just gone: the session ends when its grace is over.
                _ => drop(socket),
            }
        }
    }

    /// In the same game to the end, whatever happens to its server.
    fn stay(&mut self, number: usize) {
        let player = self.name.clone();
        let Some(mut way) = self.new_game(&player, "stay") else {
            return;
        };
        while !self.stops() {
            let mut socket = match connect(&way.url) {
                Ok(socket) => socket,
                Err(status) => {
                    if status.is_some_and(|s| matches!(s, 401 | 403 | 404)) {
                        // The token may be too old for the clock on the wall: there is a new one for the same session.
                        let Some(next) = self.new_game(&player, "stay") else {
                            return;
                        };
                        way = next;
                    }
                    std::thread::sleep(AGAIN);
                    continue;
                }
            };
            while !self.stops() && act(&mut socket) {
                if let Some(moves) = self.ledger.moves.get(number) {
                    moves.fetch_add(1, Ordering::Relaxed);
                }
                self.drop_anchor(number, &way);
            }
        }
    }

    /// Remembers, once, what must not change any more.
    fn drop_anchor(&self, number: usize, way: &Way) {
        if locked(&self.ledger.anchors).contains_key(&number) {
            return;
        }
        let Ok(answer) = self.admin.get(&format!("/api/sessions/{}", way.session)) else {
            return;
        };
        if answer.body["phase"] != "running" {
            return;
        }
        if let Some(label) = answer.body["instance"]["label"].as_str() {
            let anchor = Anchor {
                player: self.name.clone(),
                session: way.session.clone(),
                url: bare(&way.url),
                label: label.to_owned(),
            };
            locked(&self.ledger.anchors).insert(number, anchor);
        }
    }

    /// Through the queue, two at a time, over TCP.
    fn matches(&mut self) {
        let mut round = 0;
        while !self.stops() {
            round += 1;
            let player = format!("{}-{round}", self.name);
            let Some(matched) = self.wait_for_match(&player) else {
                continue;
            };
            let (host, port) = (&matched["connect_host"], &matched["connect_port"]);
            if let (Some(host), Some(port)) = (host.as_str(), port.as_u64()) {
                let _ = play_lines(&format!("{host}:{port}"));
            }
        }
    }

    fn wait_for_match(&mut self, player: &str) -> Option<Value> {
        let body = json!({ "player_id": player, "queue": "arena" });
        let ticket = self.until_answered(|p| p.public.post("/api/match/join", &body))?;
        let ticket = ticket["ticket_id"].as_str()?.to_owned();
        let give_up = now().after(GIVES_UP);
        while !self.stops() && now() < give_up {
            let path = format!("/api/match/status?player_id={player}&ticket_id={ticket}&wait=1");
            let Ok(answer) = self.public.get(&path) else {
                std::thread::sleep(AGAIN);
                continue;
            };
            match answer.body["status"].as_str() {
                Some("matched") => {
                    if let Some(session) = answer.text("session_id") {
                        self.ledger.acknowledged(&session, player, "arena");
                    }
                    return Some(answer.body);
                }
                Some("queued") => {}
                // A queue that is kept in memory is gone with its server.
                _ => return None,
            }
        }
        None
    }

    /// Asks until it is acknowledged; the server may be away meanwhile.
    fn new_game(&mut self, player: &str, fleet: &'static str) -> Option<Way> {
        let wait = self.chance.below(2) * 4;
        let path = format!("/api/new-game?wait={wait}");
        let body = json!({ "playerId": player, "fleet": fleet });
        let answer = self.until_answered(|p| p.public.post(&path, &body))?;
        let way = Way {
            session: answer["session_id"].as_str()?.to_owned(),
            url: answer["wsUrl"].as_str()?.to_owned(),
        };
        self.ledger.acknowledged(&way.session, player, fleet);
        Some(way)
    }

    fn until_answered(
        &mut self,
        call: impl Fn(&Self) -> Result<crate::api::Answer, String>,
    ) -> Option<Value> {
        while !self.stops() {
            match call(self) {
                Ok(answer) if answer.is_fine() => return Some(answer.body),
                Ok(answer) => {
                    let code = answer
                        .text("code")
                        .unwrap_or_else(|| answer.status.to_string());
                    *locked(&self.ledger.refusals).entry(code).or_default() += 1;
                }
                Err(_) => {}
            }
            std::thread::sleep(AGAIN);
        }
        None
    }

    /// A connection to the game, however long it takes to be there; none when the session is over.
    fn reach(&self, way: &Way) -> Option<Socket> {
        let give_up = now().after(GIVES_UP);
        while !self.stops() && now() < give_up {
            match connect(&way.url) {
                Ok(socket) => return Some(socket),
                Err(Some(401 | 403 | 404)) => return None,
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
        None
    }

    fn end(&mut self, session: &str) {
        let path = format!("/api/match/{session}/end");
        let give_up = now().after(GIVES_UP);
        while !self.stops() && now() < give_up {
            if let Ok(answer) = self.public.post(&path, &json!({})) {
                let reason = answer.text("reason");
                if let Some(reason) = reason.filter(|_| answer.body["ended"] == true) {
                    self.ledger.ended(session, reason);
                }
                if answer.status < 500 {
                    return;
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// `kill -9` of the session's own game server.
    fn crash(&self, session: &str) {
        let Ok(answer) = self.admin.get(&format!("/api/sessions/{session}")) else {
            return;
        };
        let label = answer.body["instance"]["label"]
            .as_str()
            .unwrap_or_default();
        if let Some(pid) = label.strip_prefix("pid ").and_then(|p| p.parse().ok())
            && machine::is_game(pid, &self.state)
        {
            machine::signal(pid, Signal::KILL);
        }
    }
}

/// An address without what is secret and changes.
pub(crate) fn bare(url: &str) -> String {
    url.split('?').next().unwrap_or(url).to_owned()
}

/// The error is the status of a refusal, or nothing if nobody answered.
fn connect(url: &str) -> Result<Socket, Option<u16>> {
    match tungstenite::connect(url) {
        Ok((socket, _)) => {
            if let MaybeTlsStream::Plain(tcp) = socket.get_ref() {
                let _ = tcp.set_read_timeout(Some(MOVE));
            }
            Ok(socket)
        }
        Err(Error::Http(response)) => Err(Some(response.status().as_u16())),
        Err(_) => Err(None),
    }
}

/// One move, and what the game says meanwhile. False when the connection is over.
fn act(socket: &mut Socket) -> bool {
    for text in [r#"{"t":"start"}"#, r#"{"t":"in","x":0.5,"y":0.5}"#] {
        if socket.send(Message::text(text)).is_err() {
            return false;
        }
    }
    let until = now().after(MOVE);
    while now() < until {
        match socket.read() {
            Ok(Message::Close(_)) => return false,
            Ok(_) => {}
            Err(Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
    true
}

/// A match of the bundled TCP game, to its end.
fn play_lines(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET_STATE\nREQUEST_MATCH 0.3\n")?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        line.clear();
    }
    Ok(())
}
