//! Every number of the game. Times are ticks, lengths arena units, speeds units a second.

/// Steps a second. Fixed: the simulation knows no other time.
pub(crate) const TICK_HZ: u32 = 30;
/// One step in seconds.
pub(crate) const DT: f64 = 1.0 / 30.0;

pub(crate) const ARENA_W: f64 = 2400.0;
pub(crate) const ARENA_H: f64 = 1500.0;

/// Avatars in one arena, sleeping ones included: above this it is a crowd, not a game, and the
/// state message would pass its 4 KB.
pub(crate) const MAX_PLAYERS: usize = 16;
pub(crate) const PLAYER_RADIUS: f64 = 20.0;
pub(crate) const LIVES: u8 = 3;

pub(crate) const RUN_SPEED: f64 = 270.0;
/// Share of the gap to the wanted velocity closed each tick.
pub(crate) const GRIP: f64 = 0.30;
pub(crate) const DASH_SPEED: f64 = 780.0;
pub(crate) const DASH_TICKS: u32 = 6;
pub(crate) const DASH_COOLDOWN: u32 = 33;

/// What a bump by a dashing player does to the other.
pub(crate) const STUN_TICKS: u32 = 14;
pub(crate) const KNOCK_SPEED: f64 = 520.0;
/// No second theft from the same victim within this time.
pub(crate) const STEAL_GUARD_TICKS: u32 = 50;
pub(crate) const STEAL_BASE: u32 = 20;
pub(crate) const STEAL_MAX: u32 = 200;

/// Noise is 0..1; running settles near `RUN_NOISE`, each dash adds `DASH_NOISE`.
pub(crate) const RUN_NOISE: f64 = 0.62;
pub(crate) const DASH_NOISE: f64 = 0.30;
pub(crate) const NOISE_FOLLOW: f64 = 0.045;
pub(crate) const ROCK_FOLLOW: f64 = 0.10;

pub(crate) const DOWN_TICKS: u32 = 40;
pub(crate) const SHIELD_TICKS: u32 = 60;
/// After waking from a lost connection.
pub(crate) const WAKE_SHIELD_TICKS: u32 = 45;

pub(crate) const ROCKS: usize = 7;
pub(crate) const ROCK_MIN: f64 = 85.0;
pub(crate) const ROCK_MAX: f64 = 140.0;
pub(crate) const ROCK_GAP: f64 = 330.0;

pub(crate) const PICK_RADIUS: f64 = 40.0;
pub(crate) const SPICE_POINTS: u32 = 10;
pub(crate) const RICH_POINTS: u32 = 50;
pub(crate) const SPICE_BASE: usize = 46;
pub(crate) const SPICE_PER_PLAYER: usize = 5;
/// Bounds the state message: about 14 bytes each.
pub(crate) const SPICE_MAX: usize = 96;
/// Ticks between two new trails while spice is short.
pub(crate) const SPICE_EVERY: u64 = 12;
/// A next pick-up within this keeps the combo alive.
pub(crate) const COMBO_TICKS: u32 = 66;
/// Pick-ups a multiplier step.
pub(crate) const COMBO_STEP: u32 = 4;
pub(crate) const COMBO_MAX: u32 = 8;

/// A spice blow: announced, then a cluster erupts.
pub(crate) const BLOW_EVERY: u32 = 14 * TICK_HZ;
pub(crate) const BLOW_WARN: u32 = 3 * TICK_HZ;
pub(crate) const BLOW_RADIUS: f64 = 130.0;
pub(crate) const BLOW_SPICE: usize = 11;

/// A thumper lies about; touched, it pounds and calls every worm to itself.
pub(crate) const THUMPER_EVERY: u32 = 19 * TICK_HZ;
pub(crate) const THUMPER_TICKS: u32 = 7 * TICK_HZ;
pub(crate) const THUMPERS_MAX: usize = 2;
pub(crate) const THUMPER_NOISE: f64 = 1.6;

pub(crate) const WORMS_MAX: usize = 3;
pub(crate) const WORM_ROAM_SPEED: f64 = 165.0;
pub(crate) const WORM_HUNT_SPEED: f64 = 215.0;
/// Added to the hunting speed by the end of the round: then it outruns a runner.
pub(crate) const WORM_HASTE: f64 = 85.0;
pub(crate) const WORM_TURN: f64 = 0.13;
/// It hears nothing below this.
pub(crate) const WORM_EAR: f64 = 0.22;
/// Units that cost one whole point of loudness.
pub(crate) const WORM_REACH: f64 = 2600.0;
/// Bonus of the present prey, so that it does not waver.
pub(crate) const WORM_GRUDGE: f64 = 0.12;
pub(crate) const WORM_STRIKE: f64 = 95.0;
/// From the first tremor to the jaws: what a player has to run.
pub(crate) const WINDUP_TICKS: u32 = 19;
pub(crate) const BREACH_TICKS: u32 = 14;
pub(crate) const DIVE_TICKS: u32 = 75;
pub(crate) const JAW_RADIUS: f64 = 84.0;
/// Worms keep this far outside a rock's edge: a player on it is out of reach of the jaws.
pub(crate) const ROCK_CLEAR: f64 = 70.0;
/// How much of the prey's motion the worm foresees, in seconds.
pub(crate) const FORESIGHT: f64 = 0.28;
