//! The scores that outlive the process: at most 4 KiB of JSON in `SPAWNPOINT_RESULTS_FILE`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The platform reads no more than this.
pub(crate) const MAX_RESULTS: usize = 4096;
/// Players remembered; the platform admits no more to one session.
const MAX_PLAYERS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    player_id: String,
    name: String,
    best: u32,
    last: u32,
}

/// Best and last score of everybody who was here, also of those who left.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    players: BTreeMap<String, Line>,
}

impl Scores {
    pub(crate) fn note(&mut self, player_id: &str, name: &str, best: u32, last: u32) {
        if let Some(line) = self.players.get_mut(player_id) {
            line.best = line.best.max(best);
            line.last = last;
        } else if self.players.len() < MAX_PLAYERS {
            let line = Line {
                player_id: player_id.to_owned(),
                name: name.to_owned(),
                best,
                last,
            };
            self.players.insert(player_id.to_owned(), line);
        }
    }

    /// Best first; those that do not fit are counted in `omitted`.
    pub(crate) fn to_json(&self, session: Option<&str>, rounds: u32) -> String {
        let mut lines: Vec<&Line> = self.players.values().collect();
        lines.sort_by(|a, b| {
            b.best
                .cmp(&a.best)
                .then_with(|| a.player_id.cmp(&b.player_id))
        });
        loop {
            let text = serde_json::json!({
                "version": 1, "game": "spice", "session_id": session, "rounds": rounds,
                "omitted": self.players.len() - lines.len(), "scores": lines,
            })
            .to_string();
            if text.len() <= MAX_RESULTS || lines.pop().is_none() {
                return text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_long_names_still_fit_and_the_best_are_kept() {
        let mut scores = Scores::default();
        for n in 0..150u32 {
            scores.note(
                &format!("{n:03}{}", "\u{1F980}".repeat(60)),
                "Swift Jerboa",
                n,
                0,
            );
        }
        let text = scores.to_json(Some("s"), 3);
        assert!(text.len() <= MAX_RESULTS);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["scores"][0]["best"], 99);
        let kept = value["scores"].as_array().unwrap().len();
        assert_eq!(value["omitted"], 100 - kept);
    }

    #[test]
    fn the_best_score_survives_a_worse_round() {
        let mut scores = Scores::default();
        scores.note("p", "n", 80, 80);
        scores.note("p", "n", 10, 10);
        let value: serde_json::Value = serde_json::from_str(&scores.to_json(None, 2)).unwrap();
        assert_eq!(value["scores"][0]["best"], 80);
        assert_eq!(value["scores"][0]["last"], 10);
    }
}
