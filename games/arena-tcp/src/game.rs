//! The match: `open -> running -> stop`, never back. Pure; `now` is the time since the server started.

use std::time::Duration;

/// Where the match is. The words are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nobody has asked for the match yet.
    Open,
    /// Until its time is up, all clients have left, or the server is told to stop.
    Running,
    /// Over; the server is about to exit.
    Stop,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Stop => "stop",
        }
    }
}

/// Why a match stopped; part of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The duration that was asked for has passed.
    TimeUp,
    /// All clients have left, and nobody came back within the grace.
    Empty,
    /// SIGTERM or SIGINT.
    Terminated,
}

impl Why {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::TimeUp => "time_up",
            Self::Empty => "empty",
            Self::Terminated => "terminated",
        }
    }
}

/// The numbers a match is played by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long the match outlives its last client.
    pub(crate) empty_grace: Duration,
    /// How long a stopped match still answers `stop` to those who are there.
    pub(crate) linger: Duration,
    /// Clients at once.
    pub(crate) max_clients: usize,
}

/// The duration somebody asked for first, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) duration: Duration,
    pub(crate) began: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stopped {
    at: Duration,
    why: Why,
}

/// One match and the number of its clients (connections that sent a valid line).
#[derive(Debug, Clone)]
pub(crate) struct Game {
    rules: Rules,
    run: Option<Run>,
    stopped: Option<Stopped>,
    clients: usize,
    /// Since when the last client is gone; `None` before the first one, too: who never came cannot have left.
    empty_since: Option<Duration>,
}

impl Game {
    pub(crate) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            run: None,
            stopped: None,
            clients: 0,
            empty_since: None,
        }
    }

    pub(crate) const fn state(&self) -> State {
        match (&self.stopped, &self.run) {
            (Some(_), _) => State::Stop,
            (None, Some(_)) => State::Running,
            (None, None) => State::Open,
        }
    }

    /// A connection sent its first valid line. `false`: there are as many clients as may be.
    pub(crate) fn join(&mut self, now: Duration) -> bool {
        self.tick(now);
        if self.clients >= self.rules.max_clients {
            return false;
        }
        self.clients += 1;
        self.empty_since = None;
        true
    }

    /// A client's connection is gone.
    pub(crate) fn leave(&mut self, now: Duration) {
        self.tick(now);
        self.clients = self.clients.saturating_sub(1);
        if self.clients == 0 {
            self.empty_since = Some(now);
        }
        self.tick(now);
    }

    /// `GET_STATE`
    pub(crate) fn get_state(&mut self, now: Duration) -> State {
        self.tick(now);
        self.state()
    }

    /// `REQUEST_MATCH`: the first one fixes the duration; all are answered with the state that holds after it.
    pub(crate) fn request(&mut self, duration: Duration, now: Duration) -> State {
        self.tick(now);
        if self.state() == State::Open {
            self.run = Some(Run {
                duration,
                began: now,
            });
        }
        self.state()
    }

    /// The server was told to stop.
    pub(crate) fn terminate(&mut self, now: Duration) {
        self.tick(now);
        self.stop(now, Why::Terminated);
    }

    /// Lets time pass. Every other call does so first, so that no answer depends on how punctual a timer is.
    pub(crate) fn tick(&mut self, now: Duration) {
        // What came first is the reason.
        if let Some((at, why)) = self.ends_at()
            && now >= at
        {
            self.stop(now, why);
        }
    }

    /// When something happens by itself next, if nothing else does.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        match self.stopped {
            Some(stopped) => Some(stopped.at + self.rules.linger),
            None => self.ends_at().map(|(at, _)| at),
        }
    }

    /// Whether the server may exit.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.stopped
            .is_some_and(|stopped| self.clients == 0 || now >= stopped.at + self.rules.linger)
    }

    pub(crate) const fn run(&self) -> Option<Run> {
        self.run
    }

    /// When and why it stopped.
    pub(crate) fn stopped(&self) -> Option<(Duration, Why)> {
        self.stopped.map(|stopped| (stopped.at, stopped.why))
    }

    pub(crate) const fn clients(&self) -> usize {
        self.clients
    }

    fn ends_at(&self) -> Option<(Duration, Why)> {
        let time_up = self.run.map(|run| (run.began + run.duration, Why::TimeUp));
        let empty = self
            .empty_since
            .map(|since| (since + self.rules.empty_grace, Why::Empty));
        match (time_up, empty) {
            (Some(time_up), Some(empty)) => Some(if empty.0 < time_up.0 { empty } else { time_up }),
            (one, other) => one.or(other),
        }
    }

    const fn stop(&mut self, now: Duration, why: Why) {
        if self.stopped.is_none() {
            self.stopped = Some(Stopped { at: now, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);
    const RULES: Rules = Rules {
        empty_grace: Duration::ZERO,
        linger: Duration::from_millis(500),
        max_clients: 3,
    };

    /// Everything that can happen to a match.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Event {
        Join,
        LeaveOneOfTwo,
        LeaveLast,
        GetState,
        RequestFirst,
        RequestOther,
        Terminate,
        TimePasses,
        TimeIsUp,
    }

    /// A match in that state at 10 s, with two clients; a running one was asked for 10 s.
    fn at(state: State) -> Game {
        let mut game = Game::new(RULES);
        assert!(game.join(S) && game.join(S));
        if state >= State::Running {
            assert_eq!(game.request(10 * S, 10 * S), State::Running);
        }
        if state == State::Stop {
            game.terminate(10 * S);
        }
        assert_eq!(game.state(), state);
        game
    }

    fn apply(game: &mut Game, event: Event) {
        let now = 11 * S;
        match event {
            Event::Join => assert!(game.join(now)),
            Event::LeaveOneOfTwo => game.leave(now),
            Event::LeaveLast => {
                game.leave(now);
                game.leave(now);
            }
            Event::GetState => {
                let _ = game.get_state(now);
            }
            Event::RequestFirst => {
                let _ = game.request(10 * S, now);
            }
            Event::RequestOther => {
                let _ = game.request(99 * S, now);
            }
            Event::Terminate => game.terminate(now),
            Event::TimePasses => game.tick(now),
            Event::TimeIsUp => game.tick(20 * S),
        }
    }

    #[test]
    fn every_event_in_every_state() {
        use Event::*;
        use State::*;
        #[rustfmt::skip]
        let table = [
            // event          open     running  stop
            (Join,          [Open,    Running, Stop]),
            (LeaveOneOfTwo, [Open,    Running, Stop]),
            (LeaveLast,     [Stop,    Stop,    Stop]),
            (GetState,      [Open,    Running, Stop]),
            (RequestFirst,  [Running, Running, Stop]),
            (RequestOther,  [Running, Running, Stop]),
            (Terminate,     [Stop,    Stop,    Stop]),
            (TimePasses,    [Open,    Running, Stop]),
            (TimeIsUp,      [Open,    Stop,    Stop]),
        ];
        for (event, wanted) in table {
            for (from, wanted) in [Open, Running, Stop].into_iter().zip(wanted) {
                let mut game = at(from);
                apply(&mut game, event);
                assert_eq!(game.state(), wanted, "{event:?} in {from:?}");
            }
        }
    }

    #[test]
    fn the_first_request_fixes_the_duration() {
        let mut game = at(State::Open);
        assert_eq!(game.request(2 * S, 3 * S), State::Running);
        assert_eq!(game.request(60 * S, 3 * S), State::Running);
        assert_eq!(game.wakes_at(), Some(5 * S));
        game.tick(5 * S);
        assert_eq!(game.stopped(), Some((5 * S, Why::TimeUp)));
        assert_eq!(game.request(60 * S, 5 * S), State::Stop);
    }

    #[test]
    fn an_answer_does_not_wait_for_the_timer() {
        let mut game = at(State::Open);
        let _ = game.request(2 * S, 3 * S);
        assert_eq!(game.get_state(6 * S), State::Stop);
    }

    #[test]
    fn nobody_came_is_not_everybody_left() {
        let mut game = Game::new(RULES);
        game.tick(1000 * S);
        assert_eq!(game.state(), State::Open);
        assert_eq!(game.wakes_at(), None);
        assert!(!game.is_over(1000 * S));
    }

    #[test]
    fn who_comes_back_within_the_grace_finds_the_match() {
        let mut game = Game::new(Rules {
            empty_grace: 5 * S,
            ..RULES
        });
        assert!(game.join(S));
        let _ = game.request(60 * S, S);
        game.leave(2 * S);
        assert_eq!(
            (game.state(), game.wakes_at()),
            (State::Running, Some(7 * S))
        );
        assert!(game.join(6 * S));
        game.tick(8 * S);
        assert_eq!(
            (game.state(), game.wakes_at()),
            (State::Running, Some(61 * S))
        );
        game.leave(10 * S);
        // Too late: what is joined is a match that is over.
        assert!(game.join(15 * S));
        assert_eq!(game.stopped(), Some((15 * S, Why::Empty)));
    }

    #[test]
    fn a_stopped_match_answers_until_it_has_lingered_or_nobody_is_there() {
        let mut game = at(State::Stop);
        assert!(!game.is_over(10 * S));
        assert!(game.is_over(10 * S + RULES.linger));
        game.leave(10 * S);
        game.leave(10 * S);
        assert!(game.is_over(10 * S));
    }

    #[test]
    fn no_more_clients_than_the_rules_allow() {
        let mut game = at(State::Open);
        assert!(game.join(S) && !game.join(S));
        game.leave(S);
        assert!(game.join(S));
        assert_eq!(game.clients(), 3);
    }

    fn events() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0u8..7, 0u64..4000), 0..60)
    }

    proptest! {
        #[test]
        fn never_back_and_the_reason_stands(events in events(), grace in 0u64..3000) {
            let ms = Duration::from_millis;
            let mut game = Game::new(Rules { empty_grace: ms(grace), ..RULES });
            let (mut now, mut before, mut why, mut asked) = (Duration::ZERO, State::Open, None, None);
            for (event, wait) in events {
                now += ms(wait);
                match event {
                    0 | 1 => { let _ = game.join(now); }
                    2 if game.clients() > 0 => game.leave(now),
                    3 => { let _ = game.get_state(now); }
                    4 => { let _ = game.request(ms(wait + 1), now); }
                    5 if wait > 3900 => game.terminate(now),
                    _ => game.tick(now),
                }
                prop_assert!(game.state() >= before);
                before = game.state();
                if let Some(stopped) = game.stopped() {
                    prop_assert_eq!(*why.get_or_insert(stopped), stopped);
                }
                if let Some(run) = game.run() {
                    prop_assert_eq!(*asked.get_or_insert(run), run);
                    prop_assert!(game.state() == State::Stop || now < run.began + run.duration);
                }
                prop_assert!(game.clients() <= RULES.max_clients);
            }
        }
    }
}
