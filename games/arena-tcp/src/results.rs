//! What is left of a match: counts while it lasts, one JSON text at its end. Pure.

use std::collections::BTreeSet;

use crate::game::Game;

/// The platform reads no more than this.
pub(crate) const MAX_RESULTS: usize = 4 * 1024;
/// Names kept; the platform has no more players in a session.
const MAX_PLAYERS: usize = 100;

/// Counted while connections come and go.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    pub(crate) clients: u64,
    pub(crate) most_at_once: usize,
    pub(crate) errors: u64,
    players: BTreeSet<String>,
}

impl Tally {
    /// Somebody is a client now, with a name if a gateway or a token gave one.
    pub(crate) fn joined(&mut self, player: Option<&str>, at_once: usize) {
        self.clients += 1;
        self.most_at_once = self.most_at_once.max(at_once);
        if let Some(player) = player
            && self.players.len() < MAX_PLAYERS
        {
            self.players.insert(player.to_owned());
        }
    }

    /// At most [`MAX_RESULTS`] bytes; players that do not fit are counted in `omitted`.
    pub(crate) fn to_json(&self, game: &Game, session: Option<&str>) -> String {
        let run = game.run();
        let stopped = game.stopped();
        let played = run
            .zip(stopped)
            .map(|(run, (at, _))| at.saturating_sub(run.began).as_secs_f64());
        let mut players: Vec<&String> = self.players.iter().collect();
        loop {
            let text = serde_json::json!({
                "version": 1, "game": "arena-tcp", "session_id": session,
                "state": game.state().word(),
                "why": stopped.map(|(_, why)| why.word()),
                "duration": run.map(|run| run.duration.as_secs_f64()),
                "played": played,
                "connections": self.connections,
                "clients": self.clients, "most_at_once": self.most_at_once,
                "errors": self.errors,
                "players": players, "omitted": self.players.len() - players.len(),
            })
            .to_string();
            if text.len() <= MAX_RESULTS || players.pop().is_none() {
                return text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::game::Rules;
    use std::time::Duration;

    #[test]
    fn a_match_is_told_and_a_hundred_long_names_still_fit() {
        let s = Duration::from_secs(1);
        let mut game = Game::new(Rules {
            empty_grace: s,
            linger: s,
            max_clients: 200,
        });
        let mut tally = Tally::default();
        for n in 0..150 {
            assert!(game.join(s));
            let name = format!("{n:03}{}", "\u{1F980}".repeat(60));
            tally.joined(Some(&name), game.clients());
        }
        let _ = game.request(Duration::from_millis(2500), 2 * s);
        game.tick(5 * s);
        let text = tally.to_json(&game, Some("s1"));
        assert!(text.len() <= MAX_RESULTS);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["duration"], 2.5);
        assert_eq!(value["played"], 3.0);
        assert_eq!(value["why"], "time_up");
        assert_eq!(
            (&value["clients"], &value["most_at_once"]),
            (&150.into(), &150.into())
        );
        let kept = value["players"].as_array().unwrap().len();
        assert_eq!(value["omitted"], MAX_PLAYERS - kept);
    }

    #[test]
    fn a_match_nobody_asked_for_has_no_duration() {
        let game = Game::new(Rules {
            empty_grace: Duration::ZERO,
            linger: Duration::ZERO,
            max_clients: 1,
        });
        let value: serde_json::Value =
            serde_json::from_str(&Tally::default().to_json(&game, None)).unwrap();
        assert_eq!(value["state"], "open");
        assert!(value["duration"].is_null() && value["played"].is_null());
    }
}
