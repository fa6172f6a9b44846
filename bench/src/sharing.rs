//! A game server for each player, or one for several: what a player waits, and what a player costs.
//!
//! The same number of players of the bundled game, through the same `spawnpoint up`: alone, in small games, in one full game.

mod bot;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::platform::{Binaries, FleetSpec, UNTIL_ENDED, Up, text};
use crate::plot::{Upright, Words, lines};
use crate::proc::{children, memory, threads_cpu};
use crate::report::{Picture, Section, ms, ratio};
use crate::stats::{Order, Samples};
use crate::stopwatch::Mark;
use crate::wire::{Http, path_of};
use bot::{Played, Stage};

/// Everybody plays this long before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// The bundled game's longest round: nothing is over while it is measured.
const ROUND_SECONDS: u32 = 3_600;
/// Starting the games and connecting everybody takes at most this long.
const CONNECTS: Duration = Duration::from_secs(60);
const FLEET: &str = "cold";

const PICTURE: Words<'_> = Words {
    caption: "several players in one game server, beside one server each",
    x: "players in one game server (logarithmic)",
    y: "multiple of one each",
};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// In how many games' sizes `players` is divided.
    shapes: &'static [usize],
    players: usize,
    rounds: usize,
    /// How long each shape is watched in a round.
    window: Duration,
}

impl Size {
    /// Sixteen are a full arena of the bundled game.
    pub(crate) const fn of(quick: bool) -> Self {
        if quick {
            Self {
                shapes: &[1, 4, 16],
                players: 16,
                rounds: 1,
                window: Duration::from_secs(3),
            }
        } else {
            Self {
                shapes: &[1, 2, 4, 8, 16],
                players: 48,
                rounds: 3,
                window: Duration::from_secs(8),
            }
        }
    }
}

/// What was seen of one shape.
#[derive(Clone, Debug, Default)]
struct Seen {
    played: Played,
    /// CPU time over all rounds.
    games: Duration,
    shims: Duration,
    server: Duration,
    /// For how long that was.
    watched: Duration,
    /// Bytes of all games and shims together (PSS), each round.
    memory: Vec<f64>,
}

pub(crate) fn run(binaries: &Binaries, size: Size, progress: &ProgressBar) -> Result<Section> {
    progress.set_length((size.rounds * size.shapes.len()) as u64);
    let up = Up::start(
        binaries,
        &[FleetSpec {
            name: FLEET,
            warm: 0,
            max_instances: None,
            rules: UNTIL_ENDED,
        }],
    )?;
    let mut bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        public: Http::connect(up.public)?,
        admin: Http::connect(up.admin)?,
        up: &up,
        size,
        number: 0,
    };
    let mut seen: Vec<(usize, Seen)> = size.shapes.iter().map(|s| (*s, Seen::default())).collect();
    let mut order = Order::new(0x54a2);
    let mut turns: Vec<usize> = (0..seen.len()).collect();
    for _ in 0..size.rounds {
        order.shuffle(&mut turns);
        for turn in &turns {
            if let Some((together, seen)) = seen.get_mut(*turn) {
                bench
                    .watch(*together, seen)
                    .with_context(|| format!("{together} players in one game"))?;
            }
            progress.inc(1);
        }
    }
    drop(bench);
    up.stop()?;
    section(size, &seen)
}

struct Bench<'a> {
    runtime: Runtime,
    public: Http,
    admin: Http,
    up: &'a Up,
    size: Size,
    number: u64,
}

/// The processes of a shape's games.
struct Processes {
    games: Vec<u32>,
    shims: Vec<u32>,
}

impl Processes {
    fn below(server: u32, games: usize) -> Result<Self> {
        let tree = children()?;
        let shims = tree.get(&server).cloned().unwrap_or_default();
        let found: Vec<u32> = shims
            .iter()
            .filter_map(|s| tree.get(s))
            .flatten()
            .copied()
            .collect();
        ensure!(
            shims.len() == games && found.len() == games,
            "{} shims and {} games for {games} sessions",
            shims.len(),
            found.len()
        );
        Ok(Self {
            games: found,
            shims,
        })
    }

    fn memory(&self) -> Result<f64> {
        let mut all = 0;
        for pid in self.games.iter().chain(&self.shims) {
            all += memory(*pid)?.proportional;
        }
        Ok(all as f64)
    }
}

impl Bench<'_> {
    /// One round of one shape, from nothing to nothing.
    fn watch(&mut self, together: usize, seen: &mut Seen) -> Result<()> {
        let games = self.size.players / together;
        let mut sessions = Vec::with_capacity(games);
        let mut urls = Vec::with_capacity(self.size.players);
        for _ in 0..games {
            let (session, players) = self.start(together)?;
            sessions.push(session);
            urls.extend(players);
        }
        let processes = Processes::below(self.up.pid(), games)?;
        let server = [self.up.pid()];
        let (stage, stages) = watch::channel(Stage::Joining);
        let address = self.up.public;
        let window = self.size.window;
        let round = self.runtime.block_on(async {
            let mut playing = JoinSet::new();
            let (joined, mut all_joined) = tokio::sync::mpsc::channel(urls.len());
            for (at, url) in urls.iter().enumerate() {
                let path = path_of(url)?.to_owned();
                let player = bot::play(address, path, at as u64, stages.clone(), joined.clone());
                playing.spawn(player);
            }
            drop(joined);
            let everybody = async {
                for _ in 0..urls.len() {
                    all_joined.recv().await.context("a player was refused")?;
                }
                Ok::<_, anyhow::Error>(())
            };
            if let Err(e) = tokio::time::timeout(CONNECTS, everybody).await? {
                // Whoever was refused says why.
                while let Some(done) = playing.join_next().await {
                    done??;
                }
                return Err(e);
            }
            stage.send_replace(Stage::WarmUp);
            tokio::time::sleep(WARM_UP).await;
            stage.send_replace(Stage::Measured);
            let began = Mark::now();
            let before = [&processes.games[..], &processes.shims, &server].map(threads_cpu);
            tokio::time::sleep(window).await;
            let after = [&processes.games[..], &processes.shims, &server].map(threads_cpu);
            let watched = began.elapsed();
            let memory = processes.memory()?;
            stage.send_replace(Stage::Over);
            let mut played = Played::default();
            while let Some(done) = playing.join_next().await {
                played.add(done??);
            }
            let mut spent = [Duration::ZERO; 3];
            for ((spent, before), after) in spent.iter_mut().zip(before).zip(after) {
                *spent = after?.saturating_sub(before?);
            }
            Ok((played, spent, watched, memory))
        })?;
        let (played, [of_games, of_shims, of_server], watched, memory) = round;
        seen.played.add(played);
        seen.games += of_games;
        seen.shims += of_shims;
        seen.server += of_server;
        seen.watched += watched;
        seen.memory.push(memory);
        for session in sessions {
            self.public
                .call("DELETE", &format!("/api/sessions/{session}"), None)?
                .expect(&[200, 202, 204])?;
        }
        self.up.settled(&mut self.admin, FLEET)?;
        Ok(())
    }

    /// Starts one game of so many players; its id, and where each of them plays.
    fn start(&mut self, together: usize) -> Result<(String, Vec<String>)> {
        self.number += 1;
        let players: Vec<String> = (0..together)
            .map(|n| format!("bench-{}-{}-{n}", std::process::id(), self.number))
            .collect();
        let mut session = String::new();
        let mut urls = Vec::with_capacity(together);
        for player in &players {
            // The first call starts the game for all; the others are answered with the same game and a token of their own.
            let body = json!({
                "playerId": player, "players": players, "fleet": FLEET, "payload": {"round_seconds": ROUND_SECONDS},
            });
            let body = if session.is_empty() {
                body
            } else {
                json!({ "playerId": player, "fleet": FLEET })
            };
            let reply = self
                .public
                .call("POST", "/api/new-game?wait=50", Some(&body))?
                .expect(&[200, 201])?;
            let id = text(&reply, "session_id")?;
            ensure!(
                session.is_empty() || session == id,
                "{player} is in another game"
            );
            id.clone_into(&mut session);
            urls.push(text(&reply, "wsUrl")?.to_owned());
        }
        Ok((session, urls))
    }
}

/// The figures of one shape.
struct Row {
    together: usize,
    input: Samples,
    answer: Samples,
    /// Milliseconds of CPU time for each player and second.
    games: f64,
    shims: f64,
    server: f64,
    /// KiB for each player.
    memory: f64,
}

impl Row {
    fn new(size: Size, together: usize, seen: &Seen) -> Self {
        let each = |d: Duration| {
            d.as_secs_f64() * 1e3 / (seen.watched.as_secs_f64() * size.players as f64)
        };
        let memory = Samples::new(seen.memory.iter().copied()).median();
        Self {
            together,
            input: Samples::millis(seen.played.inputs.iter().copied()),
            answer: Samples::millis(seen.played.answers.iter().copied()),
            games: each(seen.games),
            shims: each(seen.shims),
            server: each(seen.server),
            memory: memory / 1024.0 / size.players as f64,
        }
    }

    fn cpu(&self) -> f64 {
        self.games + self.shims + self.server
    }

    fn json(&self) -> Value {
        json!({
            "players_per_game": self.together,
            "input_to_state_ms": {"p50": self.input.median(), "p99": self.input.quantile(0.99)},
            "answer_ms": {"p50": self.answer.median(), "p99": self.answer.quantile(0.99)},
            "cpu_ms_per_player_second": {"games": self.games, "shims": self.shims, "server": self.server},
            "kib_per_player": self.memory,
        })
    }
}

fn section(size: Size, seen: &[(usize, Seen)]) -> Result<Section> {
    let rows: Vec<Row> = seen
        .iter()
        .map(|(together, seen)| Row::new(size, *together, seen))
        .collect();
    let mut s = Section::new(
        "sharing",
        "A game server each, or several players in one",
        &[
            "players in one game",
            "games",
            "input to state p50 ms",
            "p99 ms",
            "answer p50 ms",
            "p99 ms",
            "CPU ms a second and player: games",
            "shims",
            "server",
            "all, to one each",
            "memory a player, KiB",
            "to one each",
        ],
    );
    s.method = format!(
        "{} players of `spice` through one `spawnpoint up` and its gateway, in games of different sizes; {} rounds of {} s, the sizes in an \
         order drawn anew. Input to state: a player turns round; the first state in which the own figure has felt it. The game computes \
         thirty states a second, so half a tick (17 ms) of it is waiting for the next one. Answer: the game's reply to a ping of its own \
         protocol, which waits for no tick. Everybody turns round about four times a second. CPU time of game processes, of the shims that \
         keep their logs, and of the server with its gateway; memory is PSS of games and shims.",
        size.players,
        size.rounds,
        size.window.as_secs(),
    );
    let one = rows.first().context("nothing was measured")?;
    for row in &rows {
        s.rows.push(vec![
            row.together.to_string(),
            (size.players / row.together).to_string(),
            ms(row.input.median()),
            ms(row.input.quantile(0.99)),
            ms(row.answer.median()),
            ms(row.answer.quantile(0.99)),
            ms(row.games),
            ms(row.shims),
            ms(row.server),
            ratio(row.cpu() / one.cpu()),
            format!("{:.0}", row.memory),
            ratio(row.memory / one.memory),
        ]);
    }
    let missed: usize = seen.iter().map(|(_, seen)| seen.played.missed).sum();
    let felt: usize = rows.iter().map(|r| r.input.len()).sum();
    s.notes.push(format!(
        "{felt} turns were felt; {missed} were not within a second (a figure that is swallowed or stunned meanwhile does not turn and is not counted)."
    ));
    let line = |name: &str, of: fn(&Row) -> f64| {
        let points = rows.iter().map(|r| (r.together as f64, of(r) / of(one)));
        (name.to_owned(), points.collect())
    };
    let series = [
        line("memory per player", |r| r.memory),
        line("CPU time per player", Row::cpu),
        line("input to state, p50", |r| r.input.median()),
        line("answer, p50", |r| r.answer.median()),
    ];
    s.pictures.push(Picture {
        name: "bench-sharing",
        alt: "memory, CPU time and latency per player, by players in one game server",
        svg: lines(PICTURE, Upright::Even, &series)?,
    });
    s.data = json!({
        "players": size.players, "missed": missed, "shapes": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    Ok(s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_one_each() {
        let size = Size::of(true);
        let seen = |cpu: u64, kib: f64| Seen {
            played: Played {
                inputs: vec![Duration::from_millis(17)],
                answers: vec![Duration::from_millis(1)],
                missed: 1,
            },
            games: Duration::from_millis(cpu),
            shims: Duration::ZERO,
            server: Duration::from_millis(cpu),
            watched: Duration::from_secs(1),
            memory: vec![kib * 1024.0 * size.players as f64],
        };
        let s = section(size, &[(1, seen(160, 400.0)), (16, seen(40, 100.0))]).unwrap();
        assert_eq!(
            s.rows[0][6..],
            ["10.00", "0.00", "10.00", "x 1.00", "400", "x 1.00"]
        );
        assert_eq!(s.rows[1][9..], ["x 0.25", "100", "x 0.25"]);
        assert_eq!(s.data["missed"], 2);
        assert!(s.pictures[0].svg.contains("memory per player"));
    }

    #[test]
    fn every_shape_divides_the_players() {
        for size in [Size::of(true), Size::of(false)] {
            assert!(size.shapes.iter().all(|s| size.players % s == 0));
        }
    }
}
