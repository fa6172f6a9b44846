//! What goes over the socket: JSON text both ways.
//!
//! From the player: `{"t":"start"}`, `{"t":"in","x":-1..1,"y":-1..1}` (holds until the next),
//! `{"t":"dash"}`, `{"t":"ping","c":number}`. To the player: `hello` once, `who` when the roster
//! changes, `s` (the state, thirty times a second while a round is on), `pong`, `error`.
//! The state message is written by hand: it is all small integers, and it is the hot path.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::sim::{
    ARENA_H, ARENA_W, AvatarId, Command, DASH_COOLDOWN, Event, Mood, Phase, Status, TICK_HZ, Vec2,
    World,
};

/// Longest message a player may send; an `in` is about 40 bytes.
pub(crate) const MAX_CLIENT_MESSAGE: usize = 4096;
/// More in one tick are sparks nobody could see; keeps the state message bounded.
const MAX_EVENTS: usize = 24;

/// A player's message, understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FromPlayer {
    Play(Command),
    Ping(f64),
}

#[derive(Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
enum Raw {
    Start {},
    In { x: f64, y: f64 },
    Dash {},
    Ping { c: f64 },
}

/// Reads one text message; the error is a sentence for the player's developer console.
pub(crate) fn parse(text: &str) -> Result<FromPlayer, String> {
    let raw: Raw = serde_json::from_str(text).map_err(|error| {
        let mut reason = error.to_string();
        // serde repeats what it was sent; a hostile 4 KiB name need not come back.
        let mut end = reason.len().min(160);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        format!("not a message of this game: {reason}")
    })?;
    Ok(match raw {
        Raw::Start {} => FromPlayer::Play(Command::Start),
        Raw::In { x, y } => FromPlayer::Play(Command::Steer(Vec2::new(x, y))),
        Raw::Dash {} => FromPlayer::Play(Command::Dash),
        Raw::Ping { c } => FromPlayer::Ping(c),
    })
}

/// One line of the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Who {
    pub(crate) id: AvatarId,
    pub(crate) name: String,
    /// Colour number, 0..16.
    pub(crate) hue: usize,
}

/// The first message: everything that does not change while the connection lasts.
pub(crate) fn hello(
    world: &World,
    id: AvatarId,
    name: &str,
    resumed: bool,
    round_ticks: u32,
    session: Option<&str>,
) -> String {
    let rocks: Vec<[i64; 3]> = world
        .rocks
        .iter()
        .map(|rock| [round(rock.at.x), round(rock.at.y), round(rock.radius)])
        .collect();
    serde_json::json!({
        "t": "hello", "v": 1, "id": id, "name": name, "resumed": resumed, "session": session,
        "tick_hz": TICK_HZ, "round_s": round_ticks / TICK_HZ,
        "arena": [round(ARENA_W), round(ARENA_H)], "rocks": rocks,
    })
    .to_string()
}

pub(crate) fn roster(players: &[Who]) -> String {
    serde_json::json!({ "t": "who", "p": players }).to_string()
}

pub(crate) fn pong(c: f64) -> String {
    serde_json::json!({ "t": "pong", "c": c }).to_string()
}

pub(crate) fn error(code: &str, message: &str) -> String {
    serde_json::json!({ "t": "error", "code": code, "message": message }).to_string()
}

/// The state as text; with or without the spice list, which changes more rarely than the rest.
pub(crate) fn state(world: &World, events: &[Event], with_spice: bool) -> String {
    let mut out = String::with_capacity(2048);
    let phase = match world.phase {
        Phase::Lobby => "lobby",
        Phase::Playing => "play",
        Phase::Over => "over",
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"t":"s","k":{},"ph":"{phase}","left":{},"rd":{},"p":["#,
        world.tick, world.ticks_left, world.rounds
    );
    write_players(&mut out, world);
    out.push_str("],\"w\":[");
    for (index, worm) in world.worms.iter().enumerate() {
        let (mood, left) = match worm.mood {
            Mood::Roam { .. } => (0, 0),
            Mood::Hunt { .. } => (1, 0),
            Mood::Windup { left } => (2, left),
            Mood::Breach { left } => (3, left),
            Mood::Dive { left } => (4, left),
        };
        let row = [
            mood,
            round(worm.at.x),
            round(worm.at.y),
            round(worm.heading.x * 100.0),
            round(worm.heading.y * 100.0),
            i64::from(left),
        ];
        write_row(&mut out, index, &row);
    }
    out.push_str("],\"th\":[");
    for (index, thumper) in world.thumpers.iter().enumerate() {
        let left = i64::from(thumper.pounding.unwrap_or(0));
        write_row(
            &mut out,
            index,
            &[round(thumper.at.x), round(thumper.at.y), left],
        );
    }
    out.push(']');
    if let Some(blow) = world.blow {
        out.push_str(",\"b\":");
        write_row(
            &mut out,
            0,
            &[round(blow.at.x), round(blow.at.y), i64::from(blow.left)],
        );
    }
    if with_spice {
        out.push_str(",\"sp\":[");
        for (index, spice) in world.spice.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{separator}{},{},{},{}",
                spice.id,
                round(spice.at.x),
                round(spice.at.y),
                u8::from(spice.rich)
            );
        }
        out.push(']');
    }
    if !events.is_empty() {
        out.push_str(",\"ev\":[");
        for (index, event) in events.iter().take(MAX_EVENTS).enumerate() {
            write_event(&mut out, index, *event);
        }
        out.push(']');
    }
    out.push('}');
    out
}

/// `[id, status, x, y, vx, vy, flags, score, best, multiplier, lives, noise %, dash ready %]`;
/// status 0 waiting, 1 running, 2 down, 3 out; flags 1 dash, 2 shield, 4 stunned, 8 rock, 16 asleep.
fn write_players(out: &mut String, world: &World) {
    for (index, avatar) in world.avatars.iter().enumerate() {
        let status = match avatar.status {
            Status::Waiting => 0,
            Status::Running => 1,
            Status::Down { .. } => 2,
            Status::Out => 3,
        };
        let flags = i64::from(avatar.dash > 0)
            | i64::from(avatar.shield > 0) << 1
            | i64::from(avatar.stun > 0) << 2
            | i64::from(avatar.on_rock) << 3
            | i64::from(avatar.asleep.is_some()) << 4;
        let row = [
            i64::from(avatar.id),
            status,
            round(avatar.at.x),
            round(avatar.at.y),
            round(avatar.velocity.x),
            round(avatar.velocity.y),
            flags,
            i64::from(avatar.score),
            i64::from(avatar.best),
            i64::from(avatar.multiplier()),
            i64::from(avatar.lives),
            round(avatar.noise * 100.0),
            100 - i64::from(avatar.dash_wait) * 100 / i64::from(DASH_COOLDOWN),
        ];
        write_row(out, index, &row);
    }
}

fn write_event(out: &mut String, index: usize, event: Event) {
    let separator = if index == 0 { "" } else { "," };
    let (kind, numbers) = match event {
        Event::Picked { who, at, points } => (
            "pick",
            vec![i64::from(who), round(at.x), round(at.y), i64::from(points)],
        ),
        Event::Stolen {
            by,
            from,
            points,
            at,
        } => {
            let points = i64::from(points);
            (
                "steal",
                vec![
                    i64::from(by),
                    i64::from(from),
                    points,
                    round(at.x),
                    round(at.y),
                ],
            )
        }
        Event::Bumped { at } => ("bump", vec![round(at.x), round(at.y)]),
        Event::Breached { at } => ("breach", vec![round(at.x), round(at.y)]),
        Event::Swallowed { who, at } => ("swallow", vec![i64::from(who), round(at.x), round(at.y)]),
        Event::Erupted { at } => ("erupt", vec![round(at.x), round(at.y)]),
        Event::Thumping { at } => ("thump", vec![round(at.x), round(at.y)]),
        Event::RoundStarted => ("round", vec![]),
        Event::RoundOver => ("over", vec![]),
    };
    let _ = write!(out, "{separator}[\"{kind}\"");
    for number in numbers {
        let _ = write!(out, ",{number}");
    }
    out.push(']');
}

fn write_row(out: &mut String, index: usize, row: &[i64]) {
    if index > 0 {
        out.push(',');
    }
    out.push('[');
    for (column, value) in row.iter().enumerate() {
        let separator = if column == 0 { "" } else { "," };
        let _ = write!(out, "{separator}{value}");
    }
    out.push(']');
}

#[allow(clippy::cast_possible_truncation)] // arena units: a few thousand at most
fn round(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{MAX_PLAYERS, Settings};

    #[test]
    fn a_full_arena_fits_in_four_kilobytes() {
        let mut world = World::new(Settings {
            seed: 4,
            round_ticks: 3600,
            grace_ticks: 900,
        });
        let ids: Vec<_> = (0..MAX_PLAYERS).map(|_| world.enter().unwrap()).collect();
        for id in &ids {
            world.command(*id, Command::Start);
        }
        let mut largest = 0;
        let mut largest_plain = 0;
        for tick in 0..3600 {
            for (n, id) in ids.iter().enumerate() {
                #[allow(clippy::cast_precision_loss)]
                let turn = ((tick / 40 + n) % 4) as f64;
                world.command(*id, Command::Steer(Vec2::new(turn - 1.5, 1.5 - turn / 2.0)));
                world.command(*id, Command::Dash);
            }
            world.step();
            let events = world.take_events();
            largest = largest.max(state(&world, &events, true).len());
            largest_plain = largest_plain.max(state(&world, &events, false).len());
        }
        assert!(largest <= 4096, "{largest} bytes with spice");
        assert!(largest_plain <= 2560, "{largest_plain} bytes without");
    }

    #[test]
    fn the_state_is_json_and_says_where_everybody_is() {
        let mut world = World::new(Settings {
            seed: 4,
            round_ticks: 60,
            grace_ticks: 30,
        });
        let id = world.enter().unwrap();
        world.command(id, Command::Start);
        world.step();
        let events = world.take_events();
        let value: serde_json::Value = serde_json::from_str(&state(&world, &events, true)).unwrap();
        assert_eq!(value["ph"], "play");
        assert_eq!(value["p"][0][0], id);
        assert_eq!(value["p"][0].as_array().unwrap().len(), 13);
        assert_eq!(value["sp"].as_array().unwrap().len(), world.spice.len() * 4);
        assert_eq!(value["ev"][0][0], "round");
    }

    #[test]
    fn messages_are_understood_or_refused_with_a_reason() {
        assert_eq!(
            parse(r#"{"t":"start"}"#),
            Ok(FromPlayer::Play(Command::Start))
        );
        assert_eq!(parse(r#"{"t":"ping","c":5}"#), Ok(FromPlayer::Ping(5.0)));
        assert_eq!(
            parse(r#"{"t":"in","x":1,"y":-0.5}"#),
            Ok(FromPlayer::Play(Command::Steer(Vec2::new(1.0, -0.5))))
        );
        for bad in [
            "",
            "{",
            "[]",
            "null",
            r#"{"t":"fly"}"#,
            r#"{"t":"in","x":"left","y":0}"#,
            r#"{"t":"in","x":1}"#,
            r#"{"t":7}"#,
            "\u{0}",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let long = format!(r#"{{"t":"{}"}}"#, "é".repeat(1000));
        assert!(parse(&long).unwrap_err().len() < 260);
    }
}
