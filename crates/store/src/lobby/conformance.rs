//! The suite every lobby passes: the trait's semantics as checks.
//!
//! Call [`run`] from a test of the lobby. It panics with the name of the check and what it saw; it is meant for tests and linked into
//! nothing else. Every call is repeated until it is answered, so that a lobby that fails passes too, and an answer that a repetition
//! may change is taken as such.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a check fails by panicking; only tests call this"
)]

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use spawnpoint_core::matching::{Attribute, Ticket};
use spawnpoint_core::{FleetName, SessionId, TicketId};
use uuid::Uuid;

use super::{Held, Joined, Left, Lobby, LobbyError, MAX_LISTED, State, Taken, forming, load};

/// Calls that race each other.
const RACERS: u128 = 50;
/// Repetitions after which a lobby does not fail but is broken.
const MOST_TRIES: usize = 100;

/// Runs every check, each on an empty lobby of its own.
pub async fn run<L: Lobby>(make: impl AsyncFn() -> L) {
    an_empty_lobby_is_empty(&make().await).await;
    every_field_comes_back(&make().await).await;
    one_ticket_a_player_and_queue(&make().await).await;
    racing_joins_of_one_player_make_one_ticket(&make().await).await;
    racing_parties_that_overlap_leave_no_traces(&make().await).await;
    players_never_mix(&make().await).await;
    only_what_waits_leaves(&make().await).await;
    a_match_gets_all_or_none(&make().await).await;
    racing_matches_share_no_ticket(&make().await).await;
    a_settled_match_is_gone(&make().await).await;
    what_is_given_back_waits_as_before(&make().await).await;
    calls_can_be_repeated(&make().await).await;
    a_listing_is_complete_while_others_come_and_go(&make().await).await;
    what_is_lost_is_named_and_can_be_written_back(&make().await).await;
}

/// A ticket's id by number, for tests.
#[must_use]
pub fn id(n: u128) -> TicketId {
    TicketId::new(Uuid::from_u128(n))
}

/// A session's id by number, for tests.
#[must_use]
pub fn session(n: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(n))
}

/// A plain ticket of these players in the queue `duel`.
#[must_use]
pub fn ticket(n: u128, players: &[&str]) -> Ticket {
    Ticket {
        id: id(n),
        queue: "duel".parse().unwrap(),
        players: players.iter().map(|p| p.parse().unwrap()).collect(),
        attributes: BTreeMap::new(),
        latencies: BTreeMap::new(),
        joined_at: 1_790_000_000_000 + i64::try_from(n).unwrap_or(0),
        failures: 0,
        caller: None,
    }
}

/// Repeats a call until it is answered.
async fn sure<T>(call: impl AsyncFn() -> Result<T, LobbyError>) -> T {
    let mut last = None;
    for _ in 0..MOST_TRIES {
        match call().await {
            Ok(answer) => return answer,
            Err(e @ LobbyError::Unavailable { .. }) => last = Some(e),
            Err(e) => panic!("not a failure that passes: {e:?}"),
        }
    }
    panic!("never answered: {last:?}");
}

async fn all(lobby: &impl Lobby) -> Vec<Held> {
    sure(async || load(lobby).await).await
}

async fn states(lobby: &impl Lobby) -> Vec<(TicketId, State)> {
    let held = all(lobby).await;
    held.iter().map(|h| (h.ticket.id, h.state)).collect()
}

async fn join(lobby: &impl Lobby, ticket: &Ticket) -> Joined {
    sure(async || lobby.join(ticket).await).await
}

/// Joins a ticket that nothing stands against.
async fn joined(lobby: &impl Lobby, ticket: &Ticket) {
    let done = join(lobby, ticket).await;
    assert!(
        matches!(done, Joined::Now | Joined::Before),
        "{ticket:?}: {done:?}"
    );
}

async fn take(lobby: &impl Lobby, s: u128, tickets: &[u128]) -> Taken {
    let tickets: Vec<TicketId> = tickets.iter().map(|n| id(*n)).collect();
    sure(async || lobby.take(session(s), &tickets).await).await
}

/// Takes tickets that nothing stands against.
async fn taken(lobby: &impl Lobby, s: u128, tickets: &[u128]) {
    let done = take(lobby, s, tickets).await;
    assert!(
        matches!(done, Taken::Now | Taken::Before),
        "{tickets:?}: {done:?}"
    );
}

async fn leave(lobby: &impl Lobby, n: u128) -> Left {
    sure(async || lobby.leave(id(n)).await).await
}

async fn settle(lobby: &impl Lobby, s: u128) {
    sure(async || lobby.settle(session(s)).await).await;
}

async fn give_back(lobby: &impl Lobby, s: u128) {
    sure(async || lobby.give_back(session(s)).await).await;
}

async fn an_empty_lobby_is_empty(lobby: &impl Lobby) {
    sure(async || lobby.healthy().await).await;
    assert_eq!(all(lobby).await, []);
    assert_eq!(leave(lobby, 1).await, Left::Before);
    let not = Taken::Not {
        ticket: id(1),
        forming: None,
    };
    assert_eq!(take(lobby, 1, &[1]).await, not);
    assert_eq!(sure(async || lobby.settle(session(1)).await).await, []);
    assert_eq!(sure(async || lobby.give_back(session(1)).await).await, []);
    assert_eq!(all(lobby).await, []);
}

async fn every_field_comes_back(lobby: &impl Lobby) {
    let numbers = [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 0.1, 1e300];
    let mut attributes: BTreeMap<String, Attribute> = numbers
        .iter()
        .enumerate()
        .map(|(i, n)| (format!("n{i}"), Attribute::Number(*n)))
        .collect();
    let texts = ["", "1", "\u{1f9c2}", "\0\n\"'\\", "{\"a\":1}"];
    for text in texts {
        attributes.insert(text.into(), Attribute::Text(text.into()));
    }
    let full = Ticket {
        id: id(u128::MAX),
        attributes,
        latencies: [
            ("eu-west".into(), 0),
            (String::new(), u32::MAX),
            ("\u{1f30d} 1".into(), 7),
        ]
        .into(),
        joined_at: i64::MIN,
        failures: u32::MAX,
        caller: Some("key \u{1f511}: '; FLUSHALL".into()),
        ..ticket(
            0,
            &[
                "zo\u{eb} \u{1f9c2}",
                "'; FLUSHALL --",
                "\u{202e}right to left",
                &"\u{1f9c2}".repeat(256),
            ],
        )
    };
    let bare = Ticket {
        joined_at: i64::MAX,
        caller: Some(String::new()),
        ..ticket(0, &["b"])
    };
    for t in [&full, &bare] {
        joined(lobby, t).await;
    }
    let waiting = |ticket: &Ticket| Held {
        ticket: ticket.clone(),
        state: State::Waiting,
    };
    assert_eq!(all(lobby).await, [waiting(&bare), waiting(&full)]);
    // An equal number may be another one: -0 and 0.
    let kept = &all(lobby).await[1].ticket;
    for (name, value) in &kept.attributes {
        if let (Attribute::Number(a), Attribute::Number(b)) = (value, &full.attributes[name]) {
            assert_eq!(a.to_bits(), b.to_bits(), "{name}");
        }
    }
}

async fn one_ticket_a_player_and_queue(lobby: &impl Lobby) {
    joined(lobby, &ticket(1, &["ann", "bob"])).await;
    let elsewhere = |player: &str| Joined::Elsewhere {
        player: player.parse().unwrap(),
        ticket: id(1),
    };
    assert_eq!(join(lobby, &ticket(2, &["ann"])).await, elsewhere("ann"));
    let named = join(lobby, &ticket(3, &["cid", "bob", "ann"])).await;
    assert_eq!(named, elsewhere("bob"), "the first in the ticket's order");
    // Nothing of those that failed is left: cid may join, and in another queue so may ann.
    joined(lobby, &ticket(4, &["cid"])).await;
    let other = Ticket {
        queue: "duel-2".parse().unwrap(),
        ..ticket(5, &["ann", "bob"])
    };
    joined(lobby, &other).await;
    // Forming is no less a ticket than waiting is.
    taken(lobby, 1, &[1]).await;
    assert_eq!(join(lobby, &ticket(6, &["ann"])).await, elsewhere("ann"));
    let there = states(lobby).await;
    assert_eq!(there.len(), 3, "{there:?}");
}

async fn racing_joins_of_one_player_make_one_ticket(lobby: &impl Lobby) {
    for round in 0..5 {
        let player = format!("p{round}");
        let tickets: Vec<Ticket> = (0..RACERS)
            .map(|n| ticket(round * 1_000 + n, &[&player]))
            .collect();
        let outcomes = join_all(tickets.iter().map(|t| join(lobby, t))).await;
        let there: Vec<TicketId> = all(lobby)
            .await
            .into_iter()
            .filter(|h| h.ticket.players == tickets[0].players)
            .map(|h| h.ticket.id)
            .collect();
        assert_eq!(there.len(), 1, "one ticket, not {there:?}");
        for (ticket, outcome) in tickets.iter().zip(outcomes) {
            let own = matches!(outcome, Joined::Now | Joined::Before);
            assert_eq!(own, ticket.id == there[0], "{outcome:?}");
            let told = matches!(outcome, Joined::Elsewhere { ticket, .. } if ticket == there[0]);
            assert!(own || told, "the others are told which: {outcome:?}");
        }
    }
}

async fn racing_parties_that_overlap_leave_no_traces(lobby: &impl Lobby) {
    // In a ring, each shares one player with each neighbour.
    let name = |n: u128| format!("ring{}", n % RACERS);
    let parties: Vec<Ticket> = (0..RACERS)
        .map(|n| ticket(n, &[&name(n), &name(n + 1)]))
        .collect();
    let outcomes = join_all(parties.iter().map(|t| join(lobby, t))).await;
    let there = all(lobby).await;
    let mut players = BTreeSet::new();
    for h in &there {
        for p in &h.ticket.players {
            assert!(players.insert(p.clone()), "{p} has two tickets");
        }
    }
    for (party, outcome) in parties.iter().zip(outcomes) {
        let own = matches!(outcome, Joined::Now | Joined::Before);
        let held = there.iter().any(|h| h.ticket.id == party.id);
        assert_eq!(own, held, "{outcome:?}");
        assert!(
            own || party.players.iter().any(|p| players.contains(p)),
            "refused for nobody's sake"
        );
    }
    // Who has no ticket can get one, so the refused parties hold nothing.
    for n in 0..RACERS {
        let player = name(n).parse().unwrap();
        let one = join(lobby, &ticket(1_000 + n, &[&name(n)])).await;
        let free = matches!(one, Joined::Now | Joined::Before);
        assert_eq!(free, !players.contains(&player), "{player}: {one:?}");
    }
}

async fn players_never_mix(lobby: &impl Lobby) {
    let ids = [
        "1",
        "11",
        "1%",
        "%",
        "_",
        "a",
        "A",
        "b",
        "a,b",
        "a ",
        "a:b",
        "{a}",
        "[\"a\"]",
        "\u{1f9c2}",
        "\u{1f9c2}\u{fe0f}",
        "\u{e9}",
        "e\u{301}",
        "'",
        "\\",
        "*",
        "?",
        "null",
        "0",
    ];
    for (n, player) in (1..).zip(ids) {
        joined(lobby, &ticket(n, &[player])).await;
    }
    // A queue's name and a player's do not run into one another.
    for (n, (queue, player)) in (100..).zip([("a", "b-c"), ("a-b", "c"), ("a-b-c", "d")]) {
        let queue: FleetName = queue.parse().unwrap();
        let t = Ticket {
            queue,
            ..ticket(n, &[player])
        };
        joined(lobby, &t).await;
    }
    assert_eq!(all(lobby).await.len(), ids.len() + 3);
    for (n, player) in (1..).zip(ids) {
        let again = join(lobby, &ticket(1_000 + n, &[player])).await;
        let own = Joined::Elsewhere {
            player: player.parse().unwrap(),
            ticket: id(n),
        };
        assert_eq!(again, own);
    }
}

async fn only_what_waits_leaves(lobby: &impl Lobby) {
    for n in 1..=2 {
        joined(lobby, &ticket(n, &[&format!("p{n}")])).await;
    }
    taken(lobby, 7, &[2]).await;
    assert_eq!(leave(lobby, 2).await, Left::Forming(session(7)));
    let left = leave(lobby, 1).await;
    assert!(matches!(left, Left::Now | Left::Before), "{left:?}");
    assert_eq!(leave(lobby, 1).await, Left::Before);
    assert_eq!(states(lobby).await, [(id(2), State::Forming(session(7)))]);
    joined(lobby, &ticket(3, &["p1"])).await;
}

async fn a_match_gets_all_or_none(lobby: &impl Lobby) {
    for n in 1..=5 {
        joined(lobby, &ticket(n, &[&format!("p{n}")])).await;
    }
    let before = states(lobby).await;
    let not = |n, forming: Option<u128>| Taken::Not {
        ticket: id(n),
        forming: forming.map(session),
    };
    assert_eq!(take(lobby, 1, &[1, 2, 99]).await, not(99, None));
    assert_eq!(states(lobby).await, before);
    taken(lobby, 1, &[1, 2]).await;
    assert_eq!(take(lobby, 2, &[3, 2, 99]).await, not(2, Some(1)));
    assert_eq!(take(lobby, 2, &[3, 99, 2]).await, not(99, None));
    // One named twice is one.
    taken(lobby, 3, &[4, 4]).await;
    let held = all(lobby).await;
    assert_eq!(
        forming(&held),
        [(session(1), vec![id(1), id(2)]), (session(3), vec![id(4)])].into()
    );
    // No tickets are had by anybody.
    assert_eq!(take(lobby, 9, &[]).await, Taken::Before);
}

async fn racing_matches_share_no_ticket(lobby: &impl Lobby) {
    for n in 0..RACERS {
        joined(lobby, &ticket(n, &[&format!("p{n}")])).await;
    }
    // In a ring, each wants two tickets that its neighbours want too.
    let wants = |s: u128| [s, (s + 1) % RACERS];
    let outcomes = join_all((0..RACERS).map(async |s| take(lobby, s, &wants(s)).await)).await;
    let held = all(lobby).await;
    assert_eq!(held.len(), RACERS as usize);
    let got = forming(&held);
    for (s, outcome) in (0..RACERS).zip(outcomes) {
        let mut want = wants(s).map(id);
        want.sort_unstable();
        let own = matches!(outcome, Taken::Now | Taken::Before);
        let has = got.get(&session(s)).map(Vec::as_slice);
        assert_eq!(has, own.then_some(&want[..]), "{outcome:?}");
    }
    assert!(!got.is_empty());
}

async fn a_settled_match_is_gone(lobby: &impl Lobby) {
    for n in 1..=3 {
        joined(lobby, &ticket(n, &[&format!("p{n}")])).await;
    }
    taken(lobby, 1, &[1, 2]).await;
    settle(lobby, 2).await;
    assert_eq!(all(lobby).await.len(), 3, "another session's match");
    settle(lobby, 1).await;
    assert_eq!(states(lobby).await, [(id(3), State::Waiting)]);
    // A match that was settled cannot be given back any more.
    give_back(lobby, 1).await;
    assert_eq!(states(lobby).await, [(id(3), State::Waiting)]);
    // Its players may join again, and its session's name holds nothing.
    joined(lobby, &ticket(4, &["p1", "p2"])).await;
    taken(lobby, 1, &[4]).await;
    settle(lobby, 1).await;
    assert_eq!(states(lobby).await, [(id(3), State::Waiting)]);
}

async fn what_is_given_back_waits_as_before(lobby: &impl Lobby) {
    let party = Ticket {
        attributes: [("skill".into(), Attribute::Number(7.5))].into(),
        latencies: [("eu".into(), 20)].into(),
        failures: 3,
        caller: Some("key".into()),
        ..ticket(1, &["ann", "bob"])
    };
    joined(lobby, &party).await;
    joined(lobby, &ticket(2, &["cid"])).await;
    taken(lobby, 1, &[1, 2]).await;
    give_back(lobby, 1).await;
    let back = Ticket {
        failures: 4,
        ..party.clone()
    };
    let held = all(lobby).await;
    assert_eq!(held[0].ticket, back, "only the failures have changed");
    assert_eq!(held[0].state, State::Waiting);
    assert_eq!(held[1].ticket.failures, 1);
    // A match that was given back cannot be settled any more.
    settle(lobby, 1).await;
    assert_eq!(all(lobby).await, held);
    // They are in their places again: in a match as before, and nobody's second ticket.
    let again = join(lobby, &ticket(3, &["bob"])).await;
    assert!(matches!(again, Joined::Elsewhere { ticket, .. } if ticket == id(1)));
    taken(lobby, 2, &[1]).await;
    assert_eq!(leave(lobby, 1).await, Left::Forming(session(2)));
}

async fn calls_can_be_repeated(lobby: &impl Lobby) {
    let first = ticket(1, &["ann"]);
    joined(lobby, &first).await;
    let changed = Ticket {
        failures: 9,
        players: vec!["bob".parse().unwrap()],
        ..first.clone()
    };
    assert_eq!(join(lobby, &changed).await, Joined::Before);
    assert_eq!(all(lobby).await[0].ticket, first, "the first stands");
    joined(lobby, &ticket(2, &["bob"])).await;
    taken(lobby, 1, &[1]).await;
    assert_eq!(take(lobby, 1, &[1]).await, Taken::Before);
    assert_eq!(join(lobby, &first).await, Joined::Before);
    // A match may grow until it is settled.
    taken(lobby, 1, &[1, 2]).await;
    give_back(lobby, 1).await;
    let again = sure(async || lobby.give_back(session(1)).await).await;
    assert_eq!(again, []);
    let failures = all(lobby)
        .await
        .iter()
        .map(|h| h.ticket.failures)
        .sum::<u32>();
    assert_eq!(failures, 2, "one more each, once");
    taken(lobby, 2, &[1, 2]).await;
    settle(lobby, 2).await;
    let again = sure(async || lobby.settle(session(2)).await).await;
    assert_eq!(again, []);
    assert_eq!(leave(lobby, 1).await, Left::Before);
}

async fn a_listing_is_complete_while_others_come_and_go(lobby: &impl Lobby) {
    let stay: BTreeSet<TicketId> = (1..=60).map(|n| id(n * 100)).collect();
    for n in 1..=60 {
        joined(lobby, &ticket(n * 100, &[&format!("p{n}")])).await;
        joined(lobby, &ticket(n * 100 + 50, &[&format!("leaves{n}")])).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    for read in 1.. {
        let page = sure(async || lobby.list(after, 7).await).await;
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = Some(last.ticket.id);
        seen.extend(page.iter().map(|h| h.ticket.id));
        assert!(seen.is_sorted_by(|a, b| a < b), "by id, none twice");
        if read <= 20 {
            // Some come before and after what was read, some go before and after it.
            joined(lobby, &ticket(read, &[&format!("early{read}")])).await;
            joined(lobby, &ticket(7_000 + read, &[&format!("late{read}")])).await;
            leave(lobby, read * 100 + 50).await;
            leave(lobby, (61 - read) * 100 + 50).await;
        }
    }
    let seen: BTreeSet<TicketId> = seen.into_iter().collect();
    assert!(stay.is_subset(&seen), "nothing that was there is left out");
    // Limits are bounded.
    for n in 0..MAX_LISTED as u128 {
        joined(lobby, &ticket(1 << 70 | n, &[&format!("many{n}")])).await;
    }
    let most = sure(async || lobby.list(None, usize::MAX).await).await;
    assert_eq!(most.len(), MAX_LISTED);
    let least = sure(async || lobby.list(None, 0).await).await;
    assert_eq!(least.len(), 1);
    assert!(all(lobby).await.len() > MAX_LISTED);
    let end = sure(async || lobby.list(Some(id(u128::MAX)), 10).await).await;
    assert_eq!(end, []);
}

async fn what_is_lost_is_named_and_can_be_written_back(lobby: &impl Lobby) {
    for n in 1..=3 {
        joined(lobby, &ticket(n, &[&format!("p{n}")])).await;
    }
    taken(lobby, 1, &[2]).await;
    leave(lobby, 3).await;
    let ids = [9, 2, 3, 1].map(id);
    let gone = sure(async || lobby.touch(&ids).await).await;
    assert_eq!(gone, [id(9), id(3)]);
    // A server that finds its tickets gone writes them back as it knows them.
    let again = Ticket {
        failures: 2,
        ..ticket(3, &["p3"])
    };
    joined(lobby, &again).await;
    taken(lobby, 5, &[3]).await;
    let held = all(lobby).await;
    assert_eq!(held[2].ticket, again);
    assert_eq!(held[2].state, State::Forming(session(5)));
    assert_eq!(sure(async || lobby.touch(&ids).await).await, [id(9)]);
}
