//! The rows of the matrix: who is killed where, and what else goes wrong.

use spawnpoint_runtime::fault::POINTS as RUNTIME_POINTS;
use spawnpoint_server::fault::POINTS as SERVER_POINTS;

/// Who is killed at a moment of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    Up,
    OneShim,
    AllShims,
    OneGame,
    AllGames,
    GamesAndUp,
    ShimsAndUp,
    Everything,
}

/// What happens instead of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    DiskFull,
    RecordsReadOnly,
    WallForward,
    WallBack,
    StandStill,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// Whoever passes this point dies there.
    Point(&'static str),
    Kill(Victims),
    Trouble(Trouble),
    /// What the matrix must find: a session that we lose ourselves.
    Control,
}

/// Passes of a point that are tried, at most: those of rare effects come too seldom to wait for a later one.
const PASSES: u64 = 6;
const RARE_PASSES: u64 = 2;
const RARE: &[&str] = &[
    "gate.ordered",
    "release.bound",
    "release.released",
    "replace.put",
    "restart.done",
    "match.taken",
    "match.started",
    "match.settled",
];

impl Row {
    /// Every row, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let points = SERVER_POINTS.iter().chain(&RUNTIME_POINTS);
        let kills = [
            Victims::Up,
            Victims::OneShim,
            Victims::AllShims,
            Victims::OneGame,
            Victims::AllGames,
            Victims::GamesAndUp,
            Victims::ShimsAndUp,
            Victims::Everything,
        ];
        let troubles = [
            Trouble::DiskFull,
            Trouble::RecordsReadOnly,
            Trouble::WallForward,
            Trouble::WallBack,
            Trouble::StandStill,
        ];
        points
            .map(|p| Self::Point(p))
            .chain(kills.map(Self::Kill))
            .chain(troubles.map(Self::Trouble))
            .chain([Self::Control])
            .collect()
    }

    /// Who dies, or what is wrong.
    pub(crate) fn who(self) -> &'static str {
        match self {
            Self::Point(point) if point.starts_with("shim.") => "a shim",
            Self::Point(_) => "`up`",
            Self::Kill(Victims::Up) => "`up`",
            Self::Kill(Victims::OneShim) => "one shim",
            Self::Kill(Victims::AllShims) => "all shims",
            Self::Kill(Victims::OneGame) => "one game",
            Self::Kill(Victims::AllGames) => "all games",
            Self::Kill(Victims::GamesAndUp) => "all games and `up`",
            Self::Kill(Victims::ShimsAndUp) => "all shims and `up`",
            Self::Kill(Victims::Everything) => "`up`, all shims and all games",
            Self::Trouble(Trouble::DiskFull) => "disk full",
            Self::Trouble(Trouble::RecordsReadOnly) => "records read-only",
            Self::Trouble(Trouble::WallForward) => "wall clock +1 h",
            Self::Trouble(Trouble::WallBack) => "wall clock -1 h",
            Self::Trouble(Trouble::StandStill) => "SIGSTOP of everything",
            Self::Control => "(control) a session's files",
        }
    }

    /// Where.
    pub(crate) fn at(self) -> String {
        match self {
            Self::Point(point) => format!("`{point}`"),
            Self::Kill(_) => "at any moment".to_owned(),
            Self::Trouble(Trouble::DiskFull) => "and `kill -9` of `up` while it is".to_owned(),
            Self::Trouble(Trouble::RecordsReadOnly) => {
                "and `kill -9` of `up` while they are".to_owned()
            }
            Self::Trouble(Trouble::WallForward | Trouble::WallBack) => {
                "while it runs, and over a `kill -9`".to_owned()
            }
            Self::Trouble(Trouble::StandStill) => "and on again".to_owned(),
            Self::Control => "removed by the matrix itself: it has to notice".to_owned(),
        }
    }

    /// As it is asked for on the command line.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Point(point) => point.to_owned(),
            Self::Kill(_) => format!("kill {}", self.who().replace('`', "")),
            Self::Trouble(_) => self.who().to_owned(),
            Self::Control => "control".to_owned(),
        }
    }

    /// Passes of a point among which chance chooses the deadly one.
    pub(crate) fn passes(self) -> u64 {
        match self {
            // It is passed once, before anything is answered.
            Self::Point("revive.listed") => 1,
            Self::Point(point) if RARE.contains(&point) => RARE_PASSES,
            _ => PASSES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_row_and_every_row_a_name_of_its_own() {
        let all = Row::all();
        let names: std::collections::BTreeSet<String> = all.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), all.len());
        for point in SERVER_POINTS.iter().chain(&RUNTIME_POINTS) {
            assert!(names.contains(*point), "{point}");
        }
        for rare in RARE {
            assert!(names.contains(*rare), "{rare} is no point");
        }
    }
}
