//! The players: they come alone, by invitation, or wait for a match; play, idle, leave, come back, ask again when no answer came, and
//! try doors that are not theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use spawnpoint_core::{InstanceId, PlayerId, SessionId, TicketId};
use spawnpoint_gateway::Refusal;
use spawnpoint_gateway::dry::{Answers, DryTunnel};
use spawnpoint_runtime::State;
use spawnpoint_store::Lobby as _;
use spawnpoint_wire::close::Close;
use spawnpoint_wire::link::Route;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::chance::Chance;
use crate::client::{Answer, Ask, On, send};
use crate::plan::Crowd;
use crate::truth::{Leaves, Slip};
use crate::world::World;

/// One player.
pub(crate) struct Player {
    world: Arc<World>,
    number: usize,
    name: String,
    id: PlayerId,
    chance: Chance,
    /// Requests so far, for keys of their own.
    asked: u32,
    /// They asked to leave the game that they are connected to, or their connection was closed because they were off its roster.
    off_roster: bool,
}

/// A game the player may play.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    session: SessionId,
    token: String,
}

/// What others may know: an invitation, and a token that was left lying about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    invites: Vec<(SessionId, String)>,
    tokens: Vec<(SessionId, String)>,
}

impl Board {
    /// Nobody plays these any more.
    pub(crate) fn forget(&mut self, over: &[SessionId]) {
        self.invites.retain(|(s, _)| !over.contains(s));
        self.tokens.retain(|(s, _)| !over.contains(s));
    }
}

impl Player {
    pub(crate) fn new(world: &Arc<World>, number: usize) -> Option<Self> {
        let name = format!("p{number}");
        Some(Self {
            id: name.parse().ok()?,
            chance: Chance::part(world.plan.seed, &name),
            world: Arc::clone(world),
            number,
            name,
            asked: 0,
            off_roster: false,
        })
    }

    fn say(&self, what: &str) {
        self.world.say(&self.name, what);
    }

    fn closing(&self) -> bool {
        self.world.closing.is_cancelled()
    }

    /// Plays until the world closes.
    pub(crate) async fn live(mut self) {
        let first = self.chance.secs(0, 10);
        sleep(first).await;
        if let Some((crowd, at)) = self.world.plan.crowd {
            return self.in_crowd(crowd, at).await;
        }
        while !self.closing() {
            let seat = match self.chance.below(10) {
                0..5 => self.new_game().await,
                5..9 => self.match_up().await,
                _ => self.by_invite().await,
            };
            if let Some(seat) = seat {
                self.play(seat).await;
            }
            if !self.closing() {
                let rest = self.chance.secs(0, 12);
                sleep(rest).await;
            }
        }
    }

    /// One of a crowd: a game of their own, and what happens to all.
    async fn in_crowd(mut self, crowd: Crowd, at: Duration) {
        let began =
            Instant::now() - Duration::from_millis(u64::try_from(self.world.now()).unwrap_or(0));
        let leaves = began + at + self.chance.millis(0, 900);
        let until = match crowd {
            Crowd::Leaves => leaves,
            Crowd::Unheard => began + self.world.plan.horizon,
        };
        let mut seat = None;
        while seat.is_none() && Instant::now() < leaves {
            seat = self.new_game().await;
        }
        let Some(seat) = seat else { return };
        while Instant::now() < until && !self.closing() {
            if let Ok(tunnel) = self.connect(&seat).await {
                self.on_line(&seat, tunnel, until).await;
            } else {
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    fn seat(&self, answer: &Answer) -> Option<Seat> {
        let session = answer.session()?;
        let token = answer.text("token")?.to_owned();
        self.world.acked(session);
        let mut board = self.world.board();
        if let Some(invite) = answer.text("invite") {
            board.invites.push((session, invite.to_owned()));
        }
        board.tokens.push((session, token.clone()));
        Some(Seat { session, token })
    }

    async fn new_game(&mut self) -> Option<Seat> {
        self.asked += 1;
        let fleet = if self.chance.permille(700) {
            "arena"
        } else {
            "duel"
        };
        let body = json!({
            "playerId": self.name,
            "fleet": fleet,
            "fresh": self.world.plan.crowd.is_none() && self.chance.permille(100),
            "payload": {"n": self.asked},
        });
        let key = format!("{}-{}", self.name, self.asked);
        let key = self.chance.permille(800).then_some(key);
        let wait = if self.chance.permille(500) {
            "/api/new-game?wait=20"
        } else {
            "/api/new-game"
        };
        // With a key it is safe to ask again; without one the player is found again by name.
        for _ in 0..4 {
            if body["fresh"] == true {
                let now = self.world.now();
                let mut truth = self.world.truth();
                truth.fresh.entry(self.id.clone()).or_default().push(now);
            }
            let answer = send(
                &self.world,
                &mut self.chance,
                Ask::post(wait, &body).with_key(key.as_deref()),
            )
            .await;
            let Some(answer) = answer else {
                self.say("hears nothing of a new game");
                if self.closing() {
                    return None;
                }
                let pause = self.chance.millis(200, 3_000);
                sleep(pause).await;
                continue;
            };
            let game = answer
                .session()
                .map(|s| self.world.s(s))
                .unwrap_or_default();
            self.say(&format!("new game in {fleet}: {} {game}", answer.short()));
            match answer.status {
                200 | 201 => return self.seat(&answer),
                503 if !self.closing() => {
                    let pause = self.chance.millis(500, 3_000);
                    sleep(pause).await;
                }
                _ => return None,
            }
        }
        None
    }

    async fn by_invite(&mut self) -> Option<Seat> {
        let (session, invite) = {
            let invites = self.world.board().invites.clone();
            self.chance.pick(&invites).cloned()?
        };
        let path = format!("/api/sessions/{session}/players");
        let body = json!({"playerId": self.name, "invite": invite});
        let answer = send(&self.world, &mut self.chance, Ask::post(&path, &body)).await?;
        self.say(&format!(
            "joins {}: {}",
            self.world.s(session),
            answer.short()
        ));
        (answer.status == 200).then(|| self.seat(&answer)).flatten()
    }

    async fn match_up(&mut self) -> Option<Seat> {
        let queue = if self.chance.permille(800) {
            "duel"
        } else {
            "arena"
        };
        // A party: with the next one, who does not know of it and may well wait for somebody else.
        let party = self.chance.permille(200) && self.world.plan.players > self.number + 1;
        let mut players = vec![self.name.clone()];
        if party {
            players.push(format!("p{}", self.number + 1));
        }
        let body = json!({"player_id": self.name, "players": players, "queue": queue});
        let answer = send(
            &self.world,
            &mut self.chance,
            Ask::post("/api/match/join", &body),
        )
        .await;
        let Some(mut answer) = answer else {
            self.say("hears nothing of the queue");
            return None;
        };
        let mut ticket = self.heard(&answer);
        self.say(&format!(
            "joins the queue {queue}: {}",
            self.ticket_text(&answer)
        ));
        let until = Instant::now() + self.chance.secs(5, 60);
        loop {
            match answer.text("status") {
                Some("matched") => return self.seat(&answer),
                Some("queued") => {}
                _ => return None,
            }
            if Instant::now() >= until || self.closing() {
                self.leave_queue(ticket, queue).await;
                return None;
            }
            let pause = self.chance.millis(200, 4_000);
            sleep(pause).await;
            let path = match ticket {
                Some(t) => format!(
                    "/api/match/status?player_id={}&ticket_id={t}&wait=3",
                    self.name
                ),
                None => format!("/api/match/status?player_id={}", self.name),
            };
            if let Some(next) = send(&self.world, &mut self.chance, Ask::get(&path)).await
                && next.status == 200
            {
                self.check_fate(ticket, &next);
                ticket = self.heard(&next).or(ticket);
                if next.text("status") != answer.text("status") {
                    self.say(&format!("stands: {}", self.ticket_text(&next)));
                }
                answer = next;
            }
        }
    }

    fn ticket_text(&self, answer: &Answer) -> String {
        let ticket = answer
            .text("ticket_id")
            .and_then(|t| t.parse().ok())
            .map(|t| self.world.t(t))
            .unwrap_or_default();
        let game = answer
            .session()
            .map(|s| self.world.s(s))
            .unwrap_or_default();
        format!("{} {ticket} {game}", answer.short())
    }

    /// Remembers a ticket the server spoke of.
    fn heard(&self, answer: &Answer) -> Option<TicketId> {
        let ticket: TicketId = answer.text("ticket_id")?.parse().ok()?;
        let now = self.world.now();
        let status = answer.text("status").unwrap_or("").to_owned();
        let run = self.world.site().map(|s| s.life.number);
        let mut truth = self.world.truth();
        let slip = truth.slips.entry(ticket).or_insert_with(|| Slip {
            left: false,
            asked: now,
            run: None,
            fate: None,
        });
        slip.asked = now;
        if status != "lost" {
            slip.run = run;
        }
        if status == "matched" || status == "lost" {
            slip.fate.get_or_insert(status);
        }
        Some(ticket)
    }

    /// A ticket that somebody asks after does not get lost.
    fn check_fate(&self, ticket: Option<TicketId>, answer: &Answer) {
        self.world.checked();
        let Some(ticket) = ticket else { return };
        if answer.text("status") == Some("lost") && answer.code() == "ticket_lost" {
            let (left, asked, run, matched) = {
                let truth = self.world.truth();
                let slip = truth.slips.get(&ticket);
                (
                    slip.is_some_and(|s| s.left),
                    slip.map_or(0, |s| s.asked),
                    slip.and_then(|s| s.run),
                    truth.by_ticket.contains_key(&ticket),
                )
            };
            // Why it was given up is forgotten with the run of the server that gave it up, which the lobby was told.
            let there = self.world.lobby.touch(&[ticket]).now_or_never();
            let let_go = there.is_some_and(|t| t.is_ok_and(|gone| !gone.is_empty()));
            let same_run = self.world.site().map(|s| s.life.number) == run;
            let given_up = let_go && !same_run;
            // What was matched and is over is not kept for ever; nor what nobody asked after.
            if !left && !matched && !given_up && self.world.now() - asked < 15_000 {
                self.world.fail(
                    "a ticket has one fate",
                    &format!("{} is not known any more", self.world.t(ticket)),
                );
            }
        }
    }

    async fn leave_queue(&mut self, ticket: Option<TicketId>, queue: &str) {
        if let Some(ticket) = ticket
            && let Some(slip) = self.world.truth().slips.get_mut(&ticket)
        {
            slip.left = true;
        }
        let path = format!("/api/match/join?player_id={}&queue={queue}", self.name);
        let answer = send(&self.world, &mut self.chance, Ask::delete(&path)).await;
        self.say(&format!(
            "leaves the queue: {}",
            answer.map_or_else(|| "no answer".to_owned(), |a| a.short())
        ));
    }

    /// Plays a game for a while, through however many connections it takes.
    async fn play(&mut self, seat: Seat) {
        let until = Instant::now() + self.chance.secs(3, 90);
        let mut tries = 0;
        while Instant::now() < until && !self.closing() {
            match self.connect(&seat).await {
                Ok(tunnel) => {
                    tries = 0;
                    if self.on_line(&seat, tunnel, until).await {
                        return;
                    }
                }
                Err(refusal) => {
                    self.say(&format!(
                        "{}: {}",
                        self.world.s(seat.session),
                        refusal.code()
                    ));
                    tries += 1;
                    let over = matches!(
                        refusal,
                        Refusal::Ended(_) | Refusal::NotOnRoster | Refusal::OtherSession
                    );
                    if over || tries > 8 {
                        return;
                    }
                }
            }
            let pause = self.chance.millis(200, 2_500);
            sleep(pause).await;
        }
        if self.chance.permille(300) {
            self.end_call(&seat).await;
        }
    }

    fn answers(&self) -> Answers {
        let world = Arc::clone(&self.world);
        Arc::new(move |_: &Route, address: SocketAddr| {
            let up = world.instances();
            up.iter().any(|i| {
                i.address == Some(address)
                    && matches!(i.state, State::Ready | State::Unknown { .. })
            })
        })
    }

    async fn connect(&mut self, seat: &Seat) -> Result<DryTunnel, Refusal> {
        let Some(front) = self.world.fronts.get() else {
            sleep(Duration::from_millis(300)).await;
            return Err(Refusal::CannotKnow);
        };
        let from = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let name = seat.session.to_string();
        let entering = front
            .gateway
            .enter(&name, &seat.token, from, self.answers());
        let entered = tokio::select! {
            biased;
            () = front.stop.cancelled() => return Err(Refusal::CannotKnow),
            entered = timeout(Duration::from_secs(20), entering) => entered,
        };
        entered.unwrap_or(Err(Refusal::StillStarting))
    }

    /// A connection stands. True: the player is done with this game.
    async fn on_line(&mut self, seat: &Seat, tunnel: DryTunnel, until: Instant) -> bool {
        let generation = tunnel.route().generation;
        let front = self.world.fronts.get();
        let on = self.check_instance(seat, tunnel.route());
        self.say(&format!(
            "is in {} generation {generation}",
            self.world.s(seat.session)
        ));
        let now = self.world.now();
        self.world.truth().came(seat.session, &self.id, on, now);
        // Now and then somebody only looks in: between two reports nobody is told of it but that it was so.
        let glances = self.chance.permille(60);
        let done = !glances && self.talk(seat, &tunnel, front.as_ref(), until).await;
        drop(tunnel);
        let now = self.world.now();
        let leaves = if std::mem::take(&mut self.off_roster) {
            Leaves::Roster
        } else if glances {
            Leaves::AfterALook
        } else {
            Leaves::Game
        };
        self.world.truth().went(seat.session, &self.id, leaves, now);
        done
    }

    /// Whoever is let in is let in to the session's own instance.
    fn check_instance(&self, seat: &Seat, route: &Route) -> Option<InstanceId> {
        self.world.checked();
        let there = self.world.instances().into_iter().find(|i| {
            i.address == route.address && matches!(i.state, State::Ready | State::Unknown { .. })
        });
        let there = there?;
        let of = there.facts.as_ref().map(|f| f.session);
        if of != Some(seat.session) {
            self.world.fail(
                "players reach their own game",
                &format!(
                    "{} was let in to {}, which is not {}'s",
                    self.name,
                    self.world.i(there.id),
                    self.world.s(seat.session)
                ),
            );
        }
        Some(there.id)
    }

    async fn talk(
        &mut self,
        seat: &Seat,
        tunnel: &DryTunnel,
        front: Option<&Arc<crate::site::Front>>,
        until: Instant,
    ) -> bool {
        let gone = async {
            match front {
                Some(front) => front.stop.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(gone);
        let closed = tunnel.closed();
        tokio::pin!(closed);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                close = &mut closed => {
                    self.say(&format!("{} closed: {}", self.world.s(seat.session), close.reason));
                    self.off_roster |= close == Close::OTHER_SESSION;
                    return !matches!(close.code, 1012 | 1013);
                }
                () = &mut gone => {
                    self.say("the gateway is gone");
                    return false;
                }
                () = sleep_until(next.min(until)) => {}
            }
            if Instant::now() >= until || self.closing() {
                return !self.chance.permille(300);
            }
            if !self.game_stands(tunnel.route()) {
                // The game's own end of the connection is down.
                self.say(&format!("{}: the game is gone", self.world.s(seat.session)));
                return false;
            }
            match self.act(seat, tunnel).await {
                Some(pause) => next = Instant::now() + pause,
                None => return true,
            }
        }
    }

    fn game_stands(&self, route: &Route) -> bool {
        (self.answers())(
            route,
            route.address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
        )
    }

    /// Does something; then rests so long. `None`: leaves.
    async fn act(&mut self, seat: &Seat, tunnel: &DryTunnel) -> Option<Duration> {
        if self.world.plan.crowd.is_some() {
            tunnel.client_data();
            let now = self.world.now();
            self.says_something(seat, now);
            return Some(self.chance.millis(500, 3_000));
        }
        match self.chance.below(100) {
            0..70 => {
                tunnel.client_data();
                // A gateway that is cut off keeps whoever has left the roster connected for a while: they are nobody now.
                if !self.off_roster {
                    let now = self.world.now();
                    self.says_something(seat, now);
                }
                Some(self.chance.millis(300, 4_000))
            }
            70..78 => {
                tunnel.server_data();
                Some(self.chance.millis(300, 3_000))
            }
            78..83 => Some(self.chance.secs(5, 60)),
            83..89 => {
                self.heartbeat(seat).await;
                Some(self.chance.millis(300, 3_000))
            }
            89..91 => {
                self.steal(seat).await;
                Some(self.chance.millis(300, 3_000))
            }
            91..93 => {
                self.extend(seat).await;
                Some(self.chance.millis(300, 3_000))
            }
            93..95 => {
                self.end_call(seat).await;
                // It may have been done and not answered.
                self.off_roster = true;
                Some(self.chance.millis(300, 3_000))
            }
            // Closes the page.
            _ => None,
        }
    }

    fn says_something(&self, seat: &Seat, now: i64) {
        let mut truth = self.world.truth();
        truth.game(seat.session).data.insert(self.id.clone(), now);
    }

    async fn heartbeat(&mut self, seat: &Seat) {
        let path = format!("/api/sessions/{}/heartbeat", seat.session);
        let (status, ttl) = match self.chance.below(4) {
            0 => ("busy", Some(self.chance.between(40, 100))),
            1 => ("inactive", None),
            _ => ("active", None),
        };
        let mut body = json!({"status": status});
        if let Some(ttl) = ttl {
            body["ttl"] = json!(ttl);
        }
        let ask = Ask::post(&path, &body).with_token(&seat.token);
        let answer = send(&self.world, &mut self.chance, ask).await;
        let now = self.world.now();
        let Some(answer) = answer.filter(|a| a.status == 200) else {
            return;
        };
        self.say(&format!(
            "{} {status}: {}",
            self.world.s(seat.session),
            answer.short()
        ));
        if matches!(answer.text("phase"), Some("ending" | "ended")) {
            // It came too late to keep anything.
            return;
        }
        let mut truth = self.world.truth();
        let game = truth.game(seat.session);
        let site = self.world.site().map(|s| s.life.number);
        match (status, ttl) {
            ("busy", Some(ttl)) => {
                // Counted from when it was heard, which was a little earlier; soft, so a restart forgets it.
                let until = now + i64::try_from(ttl).unwrap_or(0) * 1_000 - 3_000;
                game.busy = site.map(|s| (until, s));
            }
            // A later word of another kind takes back neither.
            ("active", _) => game.active = Some(now - 3_000),
            _ => {}
        }
    }

    /// Tries a door that is not theirs with a token that is.
    async fn steal(&mut self, seat: &Seat) {
        let other = {
            let tokens = self.world.board().tokens.clone();
            self.chance.pick(&tokens).map(|(s, _)| *s)
        };
        let Some(other) = other.filter(|o| *o != seat.session) else {
            return;
        };
        self.world.checked();
        let path = match self.chance.below(3) {
            0 => format!("/api/sessions/{other}"),
            1 => format!("/api/sessions/{other}/why"),
            _ => format!("/api/sessions/{other}/logs"),
        };
        let answer = send(
            &self.world,
            &mut self.chance,
            Ask::get(&path).with_token(&seat.token),
        )
        .await;
        if let Some(answer) = answer.filter(|a| a.status == 200) {
            self.world.fail(
                "a token opens its own session only",
                &format!(
                    "{} read {} with a token of {}: {}",
                    self.name,
                    self.world.s(other),
                    self.world.s(seat.session),
                    answer.status
                ),
            );
        }
        if let Some(front) = self.world.fronts.get() {
            let from = SocketAddr::from(([127, 0, 0, 1], 40_001));
            let name = other.to_string();
            let entered = front
                .gateway
                .enter(&name, &seat.token, from, self.answers())
                .now_or_never();
            if matches!(entered, Some(Ok(_))) {
                self.world.fail(
                    "a token opens its own session only",
                    &format!("{} was let in to {}", self.name, self.world.s(other)),
                );
            }
        }
    }

    async fn extend(&mut self, seat: &Seat) {
        let path = format!("/api/sessions/{}/extend", seat.session);
        let body = json!({"by": 20});
        let ask = Ask::post(&path, &body).with_token(&seat.token);
        if let Some(answer) = send(&self.world, &mut self.chance, ask).await {
            self.say(&format!(
                "{} longer: {}",
                self.world.s(seat.session),
                answer.short()
            ));
        }
    }

    async fn end_call(&mut self, seat: &Seat) {
        let now = self.world.now();
        self.world
            .truth()
            .game(seat.session)
            .end_asked
            .get_or_insert(now);
        let path = format!("/api/match/{}/end", seat.session);
        let body = json!({});
        let ask = Ask::post(&path, &body).with_token(&seat.token);
        if let Some(answer) = send(&self.world, &mut self.chance, ask).await {
            self.say(&format!(
                "ends {}: {}",
                self.world.s(seat.session),
                answer.short()
            ));
        }
    }
}

/// Somebody at the admin listener: looks, extends, ends.
pub(crate) async fn operator(world: Arc<World>) {
    if world.plan.crowd.is_some() {
        return;
    }
    let mut chance = Chance::part(world.plan.seed, "operator");
    while !world.closing.is_cancelled() {
        let pause = chance.secs(5, 40);
        sleep(pause).await;
        let known: Vec<SessionId> = world.truth().games.keys().copied().collect();
        let Some(session) = chance.pick(&known).copied() else {
            continue;
        };
        let path = format!("/api/sessions/{session}");
        let (ask, what) = if chance.permille(500) {
            let now = world.now();
            world.truth().game(session).end_asked.get_or_insert(now);
            (Ask::delete(&path), "ends")
        } else {
            (Ask::get(&path), "looks at")
        };
        if let Some(answer) = send(&world, &mut chance, ask.on(On::Admin)).await {
            world.say(
                "operator",
                &format!("{what} {}: {}", world.s(session), answer.short()),
            );
        }
    }
}
