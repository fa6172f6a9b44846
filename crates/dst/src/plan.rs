//! What a seed means: the fleets, the games, the players and everything that will go wrong, fixed before the world begins. A plan can
//! be cut down (fewer kinds of trouble, fewer players, a shorter time) without changing what is left of it: that is how a failure is
//! shortened.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::chance::Chance;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Calls to the runtime are lost, late, or done without an answer.
    Runtime,
    /// Its disk is full: nothing can be written, and that is certain.
    RuntimeDisk,
    /// Watches are cut, tell old news again and tell news twice.
    Watch,
    /// A listing has nothing in it for once.
    EmptyList,
    /// Calls to the records are lost or late.
    Records,
    /// No record can be written or read for a while.
    RecordsOutage,
    /// Calls to the lobby are lost or late.
    Lobby,
    /// The lobby does not answer for a while.
    LobbyOutage,
    /// Requests and replies of clients are lost, late or doubled.
    Http,
    /// The gateway cannot reach the server for a while.
    Link,
    /// The process dies at some point and is started again.
    Crash,
    /// A gateway of its own dies.
    GatewayCrash,
    /// The wall clock jumps.
    Wall,
    /// Everything stands still for a while.
    Stop,
    /// Instances cannot be seen for a while.
    Blind,
    /// Games crash, are killed for memory, or exit.
    Games,
}

impl Trouble {
    /// All, with the names they are called by.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Runtime, "runtime"),
        (Self::RuntimeDisk, "runtime-disk"),
        (Self::Watch, "watch"),
        (Self::EmptyList, "empty-list"),
        (Self::Records, "records"),
        (Self::RecordsOutage, "records-outage"),
        (Self::Lobby, "lobby"),
        (Self::LobbyOutage, "lobby-outage"),
        (Self::Http, "http"),
        (Self::Link, "link"),
        (Self::Crash, "crash"),
        (Self::GatewayCrash, "gateway-crash"),
        (Self::Wall, "wall"),
        (Self::Stop, "stop"),
        (Self::Blind, "blind"),
        (Self::Games, "games"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(t, _)| *t == self)
            .map_or("", |(_, name)| name)
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(t, _)| *t)
    }
}

/// Trouble that comes and goes.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// From the world's beginning.
    pub at: Duration,
    /// How long.
    pub lasts: Duration,
    /// Which.
    pub what: Trouble,
    /// Chance of its own.
    pub draw: u64,
}

/// What happens when a game dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashing {
    /// Another instance takes over.
    Replace,
    /// It starts again in its place.
    Restart,
    /// The session ends.
    End,
}

/// One fleet.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// Its name, and that of its queue.
    pub name: &'static str,
    /// Warm instances wanted.
    pub warm: u32,
    /// Most instances.
    pub max: Option<u32>,
    /// The idle timeout.
    pub idle: Duration,
    /// The maximum.
    pub longest: Duration,
    /// The join timeout.
    pub join: Duration,
    /// The reconnect grace.
    pub reconnect: Duration,
    /// The start limit.
    pub boot: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Longest wait for a place.
    pub queue: Duration,
    /// When a game dies.
    pub crashing: Crashing,
    /// Instances say themselves that they are ready (and some never do).
    pub sdk: bool,
    /// Players of a match.
    pub size: u32,
    /// A smaller match starts after this.
    pub flush: Duration,
}

/// How the games are.
#[derive(Clone, Copy, Debug)]
pub struct GamesPlan {
    /// Longest start.
    pub boot: Duration,
    /// Shortest and longest life, if they end by themselves.
    pub life: Option<(Duration, Duration)>,
    /// Thousandths of those that crash.
    pub crashes: u16,
    /// Size of the managed port range.
    pub ports: Option<u16>,
}

/// What happens to a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Everybody closes the page within a second. They have left: their games end soon, and not before that is certain.
    Leaves,
    /// The gateway cannot be heard while everybody plays on. Nobody's game ends for what nobody can say.
    Unheard,
}

/// The world to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it all comes from.
    pub seed: u64,
    /// Until when new things begin; then troubles stop and everything drains.
    pub horizon: Duration,
    /// The fleets.
    pub fleets: Vec<FleetPlan>,
    /// The games.
    pub games: GamesPlan,
    /// How many players.
    pub players: usize,
    /// The gateway is a process of its own.
    pub apart: bool,
    /// What goes wrong, in order of time.
    pub spells: Vec<Spell>,
    /// A crowd, each in a game of their own, to which something happens all at once: what the mass-end brake is for.
    pub crowd: Option<(Crowd, Duration)>,
    /// Calls take up to this long.
    pub latency: Duration,
    /// It goes on for hours: what is over is forgotten, and the wall clock jumps by less than what is remembered.
    pub day: bool,
}

/// What is left out of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Kinds of trouble that do not happen.
    pub without: BTreeSet<Trouble>,
    /// So many players at most.
    pub players: Option<usize>,
    /// So long at most, seconds.
    pub seconds: Option<u64>,
}

fn fleet(name: &'static str, c: &mut Chance) -> FleetPlan {
    let warm = u32::try_from(c.between(0, 3)).unwrap_or(0);
    let max = c
        .permille(600)
        .then(|| warm.max(1) + u32::try_from(c.between(0, 3)).unwrap_or(0));
    let crashing = match c.below(3) {
        0 => Crashing::Replace,
        1 => Crashing::Restart,
        _ => Crashing::End,
    };
    FleetPlan {
        name,
        warm,
        max,
        idle: c.secs(20, 50),
        longest: c.secs(60, 180),
        join: c.secs(15, 40),
        reconnect: c.secs(5, 15),
        boot: c.secs(8, 15),
        grace: c.secs(1, 4),
        queue: c.secs(20, 60),
        crashing,
        sdk: c.permille(250),
        size: 2,
        flush: c.secs(2, 8),
    }
}

fn spells(c: &mut Chance, horizon: Duration) -> Vec<Spell> {
    let seconds = horizon.as_secs();
    let mut all = Vec::new();
    for (what, _) in Trouble::ALL {
        // Each kind in about half of the worlds, so that most worlds have a few and some have nearly all.
        let often = match what {
            Trouble::Crash => 800,
            Trouble::EmptyList | Trouble::RuntimeDisk | Trouble::Stop => 250,
            _ => 450,
        };
        if !c.permille(often) {
            continue;
        }
        let most = match what {
            Trouble::Crash => 4,
            Trouble::Games => 6,
            _ => 2,
        };
        for _ in 0..c.between(1, most) {
            let lasts = match what {
                Trouble::Link => c.secs(1, 40),
                Trouble::Stop => c.secs(2, 20),
                Trouble::RecordsOutage | Trouble::LobbyOutage => c.secs(1, 15),
                _ => c.secs(3, 30),
            };
            all.push(Spell {
                at: c.secs(2, seconds.saturating_sub(5).max(3)),
                lasts,
                what,
                draw: c.draw(),
            });
        }
    }
    all.sort_by_key(|s| (s.at, s.what));
    all
}

impl Plan {
    /// The world of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut c = Chance::part(seed, "plan");
        let horizon = c.secs(60, 150);
        let fleets = vec![
            fleet("arena", &mut Chance::part(seed, "arena")),
            fleet("duel", &mut Chance::part(seed, "duel")),
        ];
        let games = GamesPlan {
            boot: c.millis(100, 4_000),
            life: c.permille(400).then(|| (c.secs(10, 20), c.secs(40, 120))),
            crashes: u16::try_from(c.between(0, 500)).unwrap_or(0),
            ports: c
                .permille(250)
                .then(|| u16::try_from(c.between(5, 10)).unwrap_or(5)),
        };
        Self {
            seed,
            horizon,
            fleets,
            games,
            players: usize::try_from(c.between(3, 12)).unwrap_or(3),
            apart: c.permille(500),
            spells: spells(&mut Chance::part(seed, "spells"), horizon),
            crowd: None,
            latency: c.millis(0, 120),
            day: false,
        }
        .crowded(c.permille(60), c.draw())
    }

    /// So many hours of a seed's world, with its troubles drawn anew for every quarter of an hour.
    #[must_use]
    pub fn day(seed: u64, hours: u64) -> Self {
        let mut plan = Self::of(seed);
        let quarter = Duration::from_secs(900);
        plan.horizon = Duration::from_secs(hours * 3_600);
        plan.crowd = None;
        plan.players = plan.players.max(8);
        plan.day = true;
        let spells = |n: u64| {
            let begins = quarter * u32::try_from(n).unwrap_or(u32::MAX);
            let mut c = Chance::part(seed, &format!("quarter {n}"));
            let later = move |s: Spell| Spell {
                at: s.at + begins,
                ..s
            };
            spells(&mut c, quarter).into_iter().map(later)
        };
        plan.spells = (0..hours * 4).flat_map(spells).collect();
        plan
    }

    fn crowded(self, is: bool, draw: u64) -> Self {
        if !is {
            return self;
        }
        let crowd = if draw.is_multiple_of(2) {
            Crowd::Leaves
        } else {
            Crowd::Unheard
        };
        self.crowd(crowd)
    }

    /// This world with a crowd and nothing else that goes wrong.
    #[must_use]
    pub fn crowd(mut self, crowd: Crowd) -> Self {
        let mut c = Chance::part(self.seed, "crowd");
        let at = c.secs(25, 35);
        self.players = usize::try_from(c.between(15, 25)).unwrap_or(15);
        self.horizon = Duration::from_secs(120);
        self.games.life = None;
        self.games.ports = None;
        self.games.boot = self.games.boot.min(Duration::from_secs(2));
        self.apart = true;
        for f in &mut self.fleets {
            f.max = None;
            f.sdk = false;
            f.longest = Duration::from_secs(600);
        }
        let unheard = Spell {
            at,
            lasts: c.secs(60, 75),
            what: Trouble::Link,
            draw: c.draw(),
        };
        let stop = Spell {
            at: at + Duration::from_secs(1),
            lasts: c.secs(6, 12),
            what: Trouble::Stop,
            draw: c.draw(),
        };
        self.spells = match crowd {
            Crowd::Leaves if c.permille(500) => vec![stop],
            Crowd::Leaves => Vec::new(),
            Crowd::Unheard => vec![unheard],
        };
        self.crowd = Some((crowd, at));
        self
    }

    /// The same without what is cut.
    #[must_use]
    pub fn cut(mut self, cut: &Cut) -> Self {
        if let Some(seconds) = cut.seconds {
            self.horizon = self.horizon.min(Duration::from_secs(seconds));
        }
        if let Some(players) = cut.players {
            self.players = self.players.min(players);
        }
        let horizon = self.horizon;
        self.spells
            .retain(|s| !cut.without.contains(&s.what) && s.at < horizon);
        self
    }

    /// The kinds of trouble there are in it.
    #[must_use]
    pub fn troubles(&self) -> BTreeSet<Trouble> {
        self.spells.iter().map(|s| s.what).collect()
    }
}
