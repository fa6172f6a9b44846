//! A server and its games as the contract describes them, with faults on request. Only for what a real server cannot be made to do on
//! command; the real one is tested with in the command's own tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Every so many joins one is refused.
    pub(crate) refuse_every: Option<usize>,
    /// The first joins are held this long, all of those that come in it.
    pub(crate) stall: Option<Duration>,
    /// Matches lead to a port where nobody listens.
    pub(crate) dead_games: bool,
    /// Games never stop by themselves.
    pub(crate) stubborn: bool,
    /// Games end after a third of the time that was asked for.
    pub(crate) hasty: bool,
    /// Games accept and say nothing.
    pub(crate) silent: bool,
    /// Each game loses its first connection in the middle.
    pub(crate) drop_first: bool,
    /// The first ticket of each player is lost.
    pub(crate) lose_tickets: bool,
    /// Records are not written.
    pub(crate) no_records: bool,
    /// Records are written twice.
    pub(crate) two_records: bool,
    /// The reason in every record.
    pub(crate) reason: Option<&'static str>,
    /// The host that is answered.
    pub(crate) host: Option<&'static str>,
    /// Only backends with this key may look at fleets and records, and name players.
    pub(crate) key: Option<&'static str>,
}

/// The server. Everything it started ends with it.
pub(crate) struct Double {
    pub(crate) port: u16,
    pub(crate) world: Arc<World>,
    _tasks: JoinSet<()>,
}

pub(crate) struct World {
    faults: Faults,
    state: Mutex<Book>,
    changed: Notify,
    games: tokio::sync::Mutex<JoinSet<()>>,
    dead: Mutex<Vec<TcpSocket>>,
    joins: AtomicUsize,
    began: Instant,
}

#[derive(Default)]
struct Book {
    waiting: Vec<String>,
    lost: Vec<String>,
    sessions: HashMap<String, Session>,
    by_player: HashMap<String, String>,
    guests: usize,
}

#[derive(Clone)]
struct Session {
    players: Vec<String>,
    port: u16,
    ended: Option<&'static str>,
    stop: watch::Sender<bool>,
}

impl Double {
    pub(crate) async fn start(base: &str, faults: Faults) -> Self {
        let world = Arc::new(World {
            faults,
            state: Mutex::default(),
            changed: Notify::new(),
            games: tokio::sync::Mutex::default(),
            dead: Mutex::default(),
            joins: AtomicUsize::new(0),
            began: Instant::now(),
        });
        let api = Router::new()
            .route("/healthz", get(|| async { Json(json!({"ok": true})) }))
            .route("/api/fleets", get(fleets))
            .route("/api/match/join", post(join))
            .route("/api/match/join", delete(leave))
            .route("/api/match/status", get(status))
            .route("/api/match/{id}/end", post(end))
            .route("/api/sessions/{id}", get(session))
            .route("/api/sessions/{id}/players/{player}", delete(quit))
            .route("/api/matches", get(matches))
            .with_state(Arc::clone(&world));
        let app = if base.is_empty() {
            api
        } else {
            Router::new().nest(base, api)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        tasks.spawn(flush(Arc::clone(&world)));
        Self {
            port,
            world,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.world.state.lock().unwrap().waiting.len()
    }

    pub(crate) fn live(&self) -> usize {
        let book = self.world.state.lock().unwrap();
        book.sessions.values().filter(|s| s.ended.is_none()).count()
    }
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

fn problem(status: u16, code: &str) -> (StatusCode, Json<Value>) {
    let body = json!({"code": code, "status": status, "detail": "as the test wants it"});
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

/// `None`: a backend. `Some`: that player, or a stranger where it is empty.
fn caller(world: &World, headers: &HeaderMap) -> Option<String> {
    let bearer = headers
        .get("authorization")
        .and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    match (bearer, world.faults.key) {
        (Some(sent), Some(key)) if sent == key => None,
        (Some(sent), _) => Some(sent.strip_prefix("token-").unwrap_or("").to_owned()),
        (None, Some(_)) => Some(String::new()),
        (None, None) => None,
    }
}

async fn fleets(State(world): State<Arc<World>>, headers: HeaderMap) -> Answer {
    if caller(&world, &headers).is_some() {
        return Err(problem(401, "unauthenticated"));
    }
    Ok(Json(json!({"fleets": [
        {"name": "web", "protocol": "websocket", "expose": "gateway", "warm": 0},
        {"name": "lines", "protocol": "tcp", "expose": "gateway", "warm": 0},
    ]})))
}

async fn join(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answer {
    let number = world.joins.fetch_add(1, Ordering::Relaxed);
    if let Some(stall) = world.faults.stall {
        tokio::time::sleep_until(world.began + stall).await;
    }
    let nth = |every: &usize| number % every == every - 1;
    if world.faults.refuse_every.as_ref().is_some_and(nth) {
        return Err(problem(503, "queue_full"));
    }
    assert_eq!(body["queue"], "lines");
    let who = caller(&world, &headers);
    let player = match (who, body["player_id"].as_str()) {
        (Some(token), _) if !token.is_empty() => token,
        (None, Some(named)) => named.to_owned(),
        (Some(_), None) => {
            let mut book = world.state.lock().unwrap();
            book.guests += 1;
            format!("guest-{}", book.guests)
        }
        _ => return Err(problem(400, "missing_field")),
    };
    let pair = {
        let mut book = world.state.lock().unwrap();
        if book.by_player.contains_key(&player) || book.waiting.contains(&player) {
            None
        } else {
            book.waiting.push(player.clone());
            (book.waiting.len() == 2).then(|| std::mem::take(&mut book.waiting))
        }
    };
    if let Some(pair) = pair {
        begin(&world, pair).await;
    }
    Ok(Json(ticket(&world, &player)))
}

/// Whoever has waited a while plays alone.
async fn flush(world: Arc<World>) {
    loop {
        sleep(Duration::from_millis(200)).await;
        let alone = std::mem::take(&mut world.state.lock().unwrap().waiting);
        if !alone.is_empty() {
            begin(&world, alone).await;
        }
    }
}

async fn begin(world: &Arc<World>, players: Vec<String>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let stop = watch::Sender::new(false);
    let id = {
        let mut book = world.state.lock().unwrap();
        let id = format!("session-{}", book.sessions.len());
        for player in &players {
            book.by_player.insert(player.clone(), id.clone());
        }
        let session = Session {
            players,
            port,
            ended: None,
            stop: stop.clone(),
        };
        book.sessions.insert(id.clone(), session);
        id
    };
    if world.faults.dead_games {
        // Held, so that nobody else listens there.
        world.dead.lock().unwrap().push(socket);
    } else {
        let listener = socket.listen(16).unwrap();
        let host = Arc::clone(world);
        world
            .games
            .lock()
            .await
            .spawn(game(host, id, listener, stop));
    }
    world.changed.notify_waiters();
}

fn ticket(world: &World, player: &str) -> Value {
    let mut book = world.state.lock().unwrap();
    if world.faults.lose_tickets
        && !book.lost.iter().any(|p| p == player)
        && !book.waiting.is_empty()
    {
        // Lost before it was matched, and only once.
        if let Some(at) = book.waiting.iter().position(|p| p == player) {
            book.waiting.remove(at);
            book.lost.push(player.to_owned());
            return json!({"status": "queued", "ticket_id": "gone", "position": 1});
        }
    }
    match book.by_player.get(player) {
        Some(id) => {
            let session = &book.sessions[id];
            json!({
                "status": "matched", "ticket_id": "t", "player_id": player, "token": format!("token-{player}"),
                "session_id": id, "fleet": "lines", "phase": "starting", "ready": false, "protocol": "tcp",
                "connect_host": world.faults.host.unwrap_or("127.0.0.1"), "connect_port": session.port,
            })
        }
        None => {
            let position = book.waiting.iter().position(|p| p == player);
            match position {
                Some(at) => json!({
                    "status": "queued", "ticket_id": "t", "player_id": player, "token": format!("token-{player}"),
                    "position": at + 1, "estimate_s": 1,
                }),
                None => {
                    json!({"status": "lost", "ticket_id": "t", "player_id": player, "code": "ticket_lost", "detail": "it is gone"})
                }
            }
        }
    }
}

async fn status(
    State(world): State<Arc<World>>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let player = &query["player_id"];
    let wait = Duration::from_secs_f64(query["wait"].parse().unwrap());
    let deadline = Instant::now() + wait;
    loop {
        let changed = world.changed.notified();
        let ticket = ticket(&world, player);
        let left = deadline.saturating_duration_since(Instant::now());
        if ticket["status"] != "queued" || left.is_zero() || timeout(left, changed).await.is_err() {
            return Ok(Json(ticket));
        }
    }
}

async fn leave(
    State(world): State<Arc<World>>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let player = &query["player_id"];
    let mut book = world.state.lock().unwrap();
    book.waiting.retain(|p| p != player);
    Ok(Json(json!({"status": "none"})))
}

async fn end(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let mut book = world.state.lock().unwrap();
    let session = book
        .sessions
        .get_mut(&id)
        .ok_or_else(|| problem(404, "session_not_found"))?;
    // What a real client shows is its own token.
    let player = caller(&world, &headers).unwrap_or_default();
    if !session.players.contains(&player) {
        return Err(problem(403, "forbidden"));
    }
    session.ended.get_or_insert("ended_by_client");
    session.stop.send_replace(true);
    Ok(Json(json!({"ended": true})))
}

async fn quit(Path((_, _)): Path<(String, String)>) -> Answer {
    Ok(Json(json!({"ended": false})))
}

async fn session(State(world): State<Arc<World>>, Path(id): Path<String>) -> Answer {
    let book = world.state.lock().unwrap();
    let session = book
        .sessions
        .get(&id)
        .ok_or_else(|| problem(404, "session_not_found"))?;
    Ok(Json(match session.ended {
        Some(reason) => json!({"session_id": id, "phase": "ended", "end": {"reason": reason}}),
        None => json!({"session_id": id, "phase": "running", "end": null}),
    }))
}

async fn matches(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let who = caller(&world, &headers);
    if who.is_some() && who.as_ref() != query.get("player_id") {
        return Err(problem(403, "forbidden"));
    }
    let book = world.state.lock().unwrap();
    let mut records = vec![];
    for (id, session) in &book.sessions {
        let own = query
            .get("player_id")
            .is_none_or(|p| session.players.contains(p));
        if let (Some(reason), true, false) = (session.ended, own, world.faults.no_records) {
            let players: Vec<_> = session
                .players
                .iter()
                .map(|p| json!({"player_id": p, "joined_at": "2026-11-21T00:00:00Z"}))
                .collect();
            let reason = world.faults.reason.unwrap_or(reason);
            let record =
                json!({"session_id": id, "fleet": "lines", "players": players, "reason": reason});
            records.extend(vec![record; if world.faults.two_records { 2 } else { 1 }]);
        }
    }
    Ok(Json(json!({"matches": records, "next_cursor": null})))
}

/// One game: as arena-tcp, with faults, behind a gateway that takes the token line.
async fn game(world: Arc<World>, id: String, listener: TcpListener, stop: watch::Sender<bool>) {
    let running = watch::Sender::new(None);
    let mut connections = JoinSet::new();
    let mut number = 0;
    let mut stopped = stop.subscribe();
    let mut timer = running.subscribe();
    loop {
        let due = *timer.borrow_and_update();
        let time_up = async {
            match due {
                Some(at) if !world.faults.stubborn => tokio::time::sleep_until(at).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = time_up => {
                world.state.lock().unwrap().sessions.get_mut(&id).unwrap().ended.get_or_insert("ended_by_server");
                break;
            }
            _ = timer.changed() => {}
            accepted = listener.accept() => {
                number += 1;
                let lost = world.faults.drop_first && number == 1;
                connections.spawn(talk(Arc::clone(&world), accepted.unwrap().0, running.clone(), lost));
            }
        }
    }
    connections.shutdown().await;
}

async fn talk(
    world: Arc<World>,
    tcp: TcpStream,
    running: watch::Sender<Option<Instant>>,
    lost: bool,
) {
    let mut tcp = BufReader::new(tcp);
    let mut line = String::new();
    tcp.read_line(&mut line).await.unwrap();
    let player = line.trim().strip_prefix("SPAWNPOINT token-");
    let known = player.is_some_and(|p| world.state.lock().unwrap().by_player.contains_key(p));
    assert!(known, "the token comes first: {line:?}");
    if world.faults.silent {
        std::future::pending::<()>().await;
    }
    for asked in 0.. {
        line.clear();
        if !matches!(tcp.read_line(&mut line).await, Ok(1..)) || (lost && asked == 3) {
            return;
        }
        if let Some(seconds) = line.trim().strip_prefix("REQUEST_MATCH ") {
            let lasts = Duration::from_secs_f64(seconds.parse().unwrap());
            let lasts = if world.faults.hasty { lasts / 3 } else { lasts };
            running.send_if_modified(|at| {
                let first = at.is_none();
                at.get_or_insert(Instant::now() + lasts);
                first
            });
        }
        let word = if running.borrow().is_some() {
            "running\n"
        } else {
            "open\n"
        };
        if tcp.write_all(word.as_bytes()).await.is_err() {
            return;
        }
    }
}
