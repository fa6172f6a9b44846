//! Every lobby passes the one suite, and so does one that fails half of the time; a model, and matchmakers that die.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;
use spawnpoint_core::matching::Ticket;
use spawnpoint_core::{Code, SessionId, Side, TicketId};
use spawnpoint_store::flaky::{Fault, Flaky, Rates};
use spawnpoint_store::lobby::conformance::{self, id, session, ticket};
use spawnpoint_store::lobby::memory::MemoryLobby;
use spawnpoint_store::lobby::{Held, Joined, Left, Lobby, LobbyError, State, Taken, forming, load};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    conformance::run(async || MemoryLobby::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flaky_without_failures() {
    conformance::run(async || Flaky::quiet(MemoryLobby::new())).await;
}

#[tokio::test(start_paused = true)]
async fn flaky_with_lost_calls_lost_answers_and_delays() {
    let rates = Rates {
        before: 250,
        after: 250,
        delay: 250,
        longest_delay: Duration::from_secs(1),
    };
    for seed in 0..20 {
        conformance::run(async || Flaky::new(MemoryLobby::new(), seed, rates)).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_an_error_of_the_platform_that_can_be_retried() {
    let lobby = Flaky::quiet(MemoryLobby::new());
    let t = ticket(1, &["ann"]);
    lobby.script(1, Fault::Before);
    lobby.script(2, Fault::After);
    let e = lobby.join(&t).await.unwrap_err();
    assert_eq!(
        (e.code(), e.side()),
        (Code::LobbyUnavailable, Side::Platform)
    );
    assert_eq!(e.to_string(), "the lobby is unavailable: let a ticket join");
    assert!(load(lobby.inner()).await.unwrap().is_empty());
    assert!(lobby.join(&t).await.is_err());
    assert_eq!(lobby.join(&t).await.unwrap(), Joined::Before);
    lobby.outage(true);
    assert!(lobby.healthy().await.is_err());
    assert!(load(&lobby).await.is_err());
}

/// One call of the model test.
#[derive(Clone, Debug)]
enum Op {
    Join(u128, BTreeSet<u8>, bool),
    Leave(u128),
    Take(u128, Vec<u128>),
    Settle(u128),
    GiveBack(u128),
}

fn op() -> impl Strategy<Value = Op> {
    let ticket = || 0u128..8;
    let session = || 0u128..4;
    prop_oneof![
        3 => (ticket(), prop::collection::btree_set(0u8..6, 1..4), any::<bool>())
            .prop_map(|(n, players, other)| Op::Join(n, players, other)),
        1 => ticket().prop_map(Op::Leave),
        3 => (session(), prop::collection::vec(ticket(), 0..4)).prop_map(|(s, t)| Op::Take(s, t)),
        1 => session().prop_map(Op::Settle),
        1 => session().prop_map(Op::GiveBack),
    ]
}

/// The lobby as its documentation says, with nothing but a list.
#[derive(Default)]
struct Model {
    held: Vec<Held>,
}

impl Model {
    fn find(&mut self, n: TicketId) -> Option<&mut Held> {
        self.held.iter_mut().find(|h| h.ticket.id == n)
    }

    fn join(&mut self, t: &Ticket) -> Joined {
        if self.find(t.id).is_some() {
            return Joined::Before;
        }
        for player in &t.players {
            let same = |h: &&Held| h.ticket.queue == t.queue && h.ticket.players.contains(player);
            if let Some(h) = self.held.iter().find(same) {
                return Joined::Elsewhere {
                    player: player.clone(),
                    ticket: h.ticket.id,
                };
            }
        }
        self.held.push(Held {
            ticket: t.clone(),
            state: State::Waiting,
        });
        Joined::Now
    }

    fn leave(&mut self, n: TicketId) -> Left {
        match self.find(n).map(|h| h.state) {
            None => Left::Before,
            Some(State::Forming(s)) => Left::Forming(s),
            Some(State::Waiting) => {
                self.held.retain(|h| h.ticket.id != n);
                Left::Now
            }
        }
    }

    fn take(&mut self, s: SessionId, tickets: &[TicketId]) -> Taken {
        for n in tickets {
            let forming = match self.find(*n).map(|h| h.state) {
                Some(State::Waiting) => continue,
                Some(State::Forming(own)) if own == s => continue,
                Some(State::Forming(other)) => Some(other),
                None => None,
            };
            return Taken::Not {
                ticket: *n,
                forming,
            };
        }
        let mut taken = Taken::Before;
        for n in tickets {
            if let Some(h) = self.find(*n)
                && h.state == State::Waiting
            {
                h.state = State::Forming(s);
                taken = Taken::Now;
            }
        }
        taken
    }

    fn release(&mut self, s: SessionId, keep: bool) -> Vec<TicketId> {
        let of = |h: &Held| h.state == State::Forming(s);
        let mut ids: Vec<TicketId> = self
            .held
            .iter()
            .filter(|h| of(h))
            .map(|h| h.ticket.id)
            .collect();
        ids.sort_unstable();
        if keep {
            for h in self.held.iter_mut().filter(|h| of(h)) {
                h.state = State::Waiting;
                h.ticket.failures += 1;
            }
        } else {
            self.held.retain(|h| !of(h));
        }
        ids
    }
}

proptest! {
    #[test]
    fn memory_is_what_the_documentation_says(ops in prop::collection::vec(op(), 0..60)) {
        let lobby = MemoryLobby::new();
        let mut model = Model::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for op in ops {
                match op {
                    Op::Join(n, players, other) => {
                        let names: Vec<String> = players.iter().map(|p| format!("p{p}")).collect();
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        let queue = if other { "other" } else { "duel" };
                        let t = Ticket { queue: queue.parse().unwrap(), ..ticket(n, &names) };
                        assert_eq!(lobby.join(&t).await.unwrap(), model.join(&t));
                    }
                    Op::Leave(n) => {
                        assert_eq!(lobby.leave(id(n)).await.unwrap(), model.leave(id(n)));
                    }
                    Op::Take(s, tickets) => {
                        let tickets: Vec<TicketId> = tickets.into_iter().map(id).collect();
                        let taken = lobby.take(session(s), &tickets).await.unwrap();
                        assert_eq!(taken, model.take(session(s), &tickets));
                    }
                    Op::Settle(s) => {
                        let gone = lobby.settle(session(s)).await.unwrap();
                        assert_eq!(gone, model.release(session(s), false));
                    }
                    Op::GiveBack(s) => {
                        let back = lobby.give_back(session(s)).await.unwrap();
                        assert_eq!(back, model.release(session(s), true));
                    }
                }
                model.held.sort_by_key(|h| h.ticket.id);
                assert_eq!(load(&lobby).await.unwrap(), model.held);
            }
        });
    }
}

/// Players of the test below, and matchmakers at once.
const PLAYERS: u128 = 3_000;
const MATCHMAKERS: u64 = 10;
/// Fewest matchmakers that must have died on the way, or the test shows little.
const DEATHS: u64 = 100;

/// What is certain of each session: the players it was started for.
type Sessions = Mutex<HashMap<SessionId, Vec<TicketId>>>;

/// A small generator, so that each run of a seed is the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn sure<T>(call: impl AsyncFn() -> Result<T, LobbyError>) -> T {
    loop {
        if let Ok(answer) = call().await {
            return answer;
        }
    }
}

/// What a matchmaker does at its start: what was being formed is settled if its session was started, else given back.
async fn recover(lobby: &impl Lobby, sessions: &Sessions) {
    let held = sure(async || load(lobby).await).await;
    for (s, _) in forming(&held) {
        let started = sessions.lock().unwrap().contains_key(&s);
        if started {
            sure(async || lobby.settle(s).await).await;
        } else {
            sure(async || lobby.give_back(s).await).await;
        }
    }
}

/// One life of a matchmaker: takes pairs from what it saw at its start, until it dies somewhere or sees nobody.
/// Returns whether it finished.
async fn life(
    lobby: &impl Lobby,
    sessions: &Sessions,
    serial: &Mutex<u128>,
    dice: &mut Dice,
) -> bool {
    let seen = sure(async || load(lobby).await).await;
    let mut waiting: Vec<TicketId> = seen
        .iter()
        .filter(|h| h.state == State::Waiting)
        .map(|h| h.ticket.id)
        .collect();
    if waiting.len() < 2 {
        return true;
    }
    let lives_for = dice.roll(12);
    for step in 0.. {
        if waiting.len() < 2 {
            return false;
        }
        let a = waiting.swap_remove(dice.roll(waiting.len() as u64) as usize);
        let b = waiting.swap_remove(dice.roll(waiting.len() as u64) as usize);
        let s = {
            let mut serial = serial.lock().unwrap();
            *serial += 1;
            session(*serial)
        };
        let dies_at = (step >= lives_for).then(|| dice.roll(4));
        if dies_at == Some(0) {
            // The call may have been done; nobody heard.
            let _ = lobby.take(s, &[a, b]).await;
            return false;
        }
        let taken = sure(async || lobby.take(s, &[a, b]).await).await;
        if matches!(taken, Taken::Not { .. }) {
            continue;
        }
        if dies_at == Some(1) {
            return false;
        }
        if dice.roll(10) == 0 {
            // The session does not start.
            sure(async || lobby.give_back(s).await).await;
            continue;
        }
        sessions.lock().unwrap().insert(s, vec![a, b]);
        if dies_at == Some(2) {
            return false;
        }
        sure(async || lobby.settle(s).await).await;
        if dies_at == Some(3) {
            return false;
        }
    }
    false
}

#[tokio::test(start_paused = true)]
async fn matchmakers_that_die_anywhere_give_every_player_exactly_one_match() {
    for seed in 0..3 {
        let rates = Rates {
            before: 50,
            after: 50,
            delay: 200,
            longest_delay: Duration::from_millis(10),
        };
        let lobby = Flaky::new(MemoryLobby::new(), seed, rates);
        for n in 0..PLAYERS {
            let t = ticket(n, &[&format!("p{n}")]);
            sure(async || lobby.join(&t).await).await;
        }
        let sessions = Sessions::default();
        let serial = Mutex::new(0);
        // Matchmakers work at once (which one server never lets happen: the lobby is the net under it); whoever dies is replaced,
        // and recovery waits until all are dead, as a lease would have it.
        let mut deaths = 0;
        loop {
            let lives = (0..MATCHMAKERS).map(async |m| {
                let mut dice = Dice(seed << 40 | deaths << 8 | m);
                life(&lobby, &sessions, &serial, &mut dice).await
            });
            let finished = join_all(lives).await;
            recover(&lobby, &sessions).await;
            if finished.iter().all(|f| *f) {
                break;
            }
            deaths += MATCHMAKERS;
        }
        assert!(deaths >= DEATHS, "only {deaths} died");
        let mut in_match: BTreeMap<TicketId, SessionId> = BTreeMap::new();
        for (s, tickets) in sessions.lock().unwrap().iter() {
            for t in tickets {
                let other = in_match.insert(*t, *s);
                assert_eq!(other, None, "seed {seed}: {t} is in two matches");
            }
        }
        assert_eq!(in_match.len(), PLAYERS as usize, "seed {seed}");
        assert!(load(lobby.inner()).await.unwrap().is_empty());
    }
}
