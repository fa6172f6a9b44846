//! The command line, defined once: `--help`, completions and `docs/cli.md` all come from here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit::CODES;

const EXAMPLES: &str = "\
Examples:
  spawnpoint up                              the servers of ./spawnpoint.toml, or the bundled game
  spawnpoint run -- ./my-server              any server, no file: a process of its own for every game
  spawnpoint new --player alice              start a game and print its address
  spawnpoint sessions ls                     what is running
  spawnpoint sessions why <id>               why it is alive, and when and why it would end
";

/// One click, one pod: every game gets a server of its own.
///
/// A player (or your backend) asks for a game; Spawnpoint starts a server process for that game, answers with an address that works,
/// carries the players to it, watches it and cleans up when it is over.
#[derive(Debug, Parser)]
#[command(name = "spawnpoint", version, max_term_width = 100, after_help = format!("{EXAMPLES}\n{CODES}"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Admin address of the running server. Its key, if it needs one, is read from SPAWNPOINT_KEY.
    #[arg(
        long,
        global = true,
        env = "SPAWNPOINT_ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL",
        help_heading = "Everywhere"
    )]
    pub(crate) server: String,
    /// How results are shown. JSON is what the server answered, for scripts.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", help_heading = "Everywhere")]
    pub(crate) output: Format,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run everything in one process: the servers of ./spawnpoint.toml, or the bundled game when there is no file.
    Up(UpArgs),
    /// Run any game server without a file and print where to play it.
    Run(RunArgs),
    /// Start a session and print its address.
    New(NewArgs),
    /// Live sessions: list, look at, explain, follow, extend, end.
    #[command(subcommand)]
    Sessions(SessionsVerb),
    /// Fleets: how each kind of game server is run, and how its pool is doing.
    #[command(subcommand)]
    Fleets(FleetsVerb),
    /// What was played: records of ended sessions.
    #[command(subcommand)]
    Matches(MatchesVerb),
    /// Send simulated players through matchmaking into games, and report what they met.
    Load(Box<LoadArgs>),
    /// Prove that nothing is lost, doubled or left over in the running server.
    ///
    /// Compares what every owner of facts says: the server's sessions, the runtime's instances with their ports, files and processes,
    /// the match records, the lobby's tickets and the gateways' routes, connections and ports. Prints what was looked at, what is wrong
    /// (with ids and what to do), and what could not be seen. Changes nothing, and is cheap enough for production: what is suspected is
    /// looked at three times within a second before it is said, so that a busy server gives no false alarm.
    #[command(after_help = "\
Examples:
  spawnpoint audit
  spawnpoint audit --output json | jq '.findings[].code'
  spawnpoint audit || page-somebody                  from cron

Exits with 0 if it is clean, with 5 if there are findings, and with 1 if there are none but something could not be seen: what cannot be
seen is not in order. How to read the findings: docs/reliability.md.")]
    Audit,
    /// Run the logged decisions again, and say where one comes out differently.
    ///
    /// `up --decision-log 64Mi` (or decision_log in [server]) logs what every pure function was given and what it decided: session::step,
    /// fleet::plan, matching::propose, lifecycle::brake and lifecycle::hold_after. This reads the log, runs the functions of this release on
    /// the same inputs and compares all that they say; sessions are folded from their written state, and at each step the whole state is
    /// compared. It needs no running server, and does not disturb one.
    ///
    /// Two things are told apart. "The log was changed": a line is not as it was written (each has a check sum), or is missing. "The function
    /// decides differently now": the line is as it was written, and this release says something else.
    #[command(after_help = "\
Examples:
  spawnpoint replay                                     the log in the state directory
  spawnpoint replay --session 01890a5d-...              the decisions about one session, and whether they come out the same
  spawnpoint replay /backup/decisions --output json     a copy, for scripts
  spawnpoint replay .spawnpoint/decisions/00000007.jsonl

Exits with 0 if every decision comes out the same, with 5 if something differs, with 4 if nothing is known of the session, and with 1 if
there is no log or it cannot be read. What the server could not write, or what was too large, is counted as not replayed and is no
difference; nor is half a line at the end of a file, which a process that is killed leaves. More in docs/reliability.md.")]
    Replay(ReplayArgs),
    /// Check this machine and the configuration; every value with its source.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  spawnpoint completions bash > ~/.local/share/bash-completion/completions/spawnpoint"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Stands between one game and the rest; started by `up`, never by people.
    #[command(hide = true)]
    Shim {
        /// The instance's directory.
        dir: PathBuf,
    },
}

/// How the listeners, the state and the log are set up. Everything else is in the file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Address of the public listener: "localhost", an IP address, or several with commas. Off loopback it needs keys or --guests.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Port of the public listener: gateway, player API and /play (8080; 0 for any free one).
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Port of the admin listener (8081).
    #[arg(long, value_name = "PORT")]
    pub(crate) admin_port: Option<u16>,
    /// Port of the listener for game servers (8082).
    #[arg(long, value_name = "PORT")]
    pub(crate) sdk_port: Option<u16>,
    /// Where instances, records and the signing key are kept (.spawnpoint beside the file).
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Log every decision with all that went into it, for `spawnpoint replay`, and keep so much of it ("64Mi"; none).
    #[arg(long, value_name = "SIZE")]
    pub(crate) decision_log: Option<String>,
    /// Let strangers start games; the server mints their ids.
    #[arg(long)]
    pub(crate) guests: bool,
    /// Players of a whole match, in every queue (2). Also SESSION_SIZE.
    #[arg(long, value_name = "PLAYERS")]
    pub(crate) session_size: Option<String>,
    /// Fewest players of a partial match, in every queue (1). Also MIN_PARTIAL_SESSION_SIZE.
    #[arg(long, value_name = "PLAYERS")]
    pub(crate) min_partial_session_size: Option<String>,
    /// A partial match starts when its oldest ticket has waited this long (10). Also FLUSH_WAIT_SECONDS.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) flush_wait_seconds: Option<String>,
    /// Leave the games running when this process stops; the next start takes them over.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Open the page in a browser once it is ready.
    #[arg(long)]
    pub(crate) open: bool,
    /// How the log on standard error is written. What is logged is set by SPAWNPOINT_LOG (a level, or directives such as
    /// "warn,spawnpoint_gateway=debug").
    #[arg(long, value_enum, env = "SPAWNPOINT_LOG_FORMAT", default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  spawnpoint up                                play the bundled game, or run what ./spawnpoint.toml says
  spawnpoint up --host 0.0.0.0 --guests        let friends on the same network in
  spawnpoint up --detach                       games go on when it is stopped

Ctrl-C ends the games: players are told, records are written. A second Ctrl-C stops at once. The file is read again whenever
it changes; no session is dropped for it.")]
pub(crate) struct UpArgs {
    /// The configuration file (./spawnpoint.toml if it exists).
    #[arg(long, short, env = "SPAWNPOINT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  spawnpoint run -- python3 server.py                 the server listens on the port in PORT
  spawnpoint run -- ./server --port '$(PORT)'         or is given it as an argument
  spawnpoint run --protocol tcp -- ./server           players get a port that waits for the server: nc HOST PORT
  spawnpoint run --protocol udp -- ./server           players get the server's own port
  spawnpoint run --host 0.0.0.0 --guests -- ./server  for others on the same network

The server inherits this environment, and nothing ends its sessions for being idle or old. No instance is kept warm, so
after a rebuild the next session runs the new program: `spawnpoint new` starts one.")]
pub(crate) struct RunArgs {
    /// What the server speaks.
    #[arg(long, value_enum, default_value_t = SpokenProtocol::Websocket)]
    pub(crate) protocol: SpokenProtocol,
    /// How it is known to be ready: dial, sdk, none, http:/path or log:text.
    #[arg(long, default_value = "dial", value_name = "RULE")]
    pub(crate) ready: String,
    /// Name of its fleet.
    #[arg(long, default_value = "run")]
    pub(crate) name: String,
    /// Start no session; wait to be asked.
    #[arg(long)]
    pub(crate) no_session: bool,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// The server and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpokenProtocol {
    /// WebSocket.
    Websocket,
    /// HTTP.
    Http,
    /// Raw TCP, at a port of the session's.
    Tcp,
    /// UDP, at the instance's own port.
    Udp,
}

#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  spawnpoint new\n  spawnpoint new --fleet arena --player alice --wait 20\n  spawnpoint new --output json | jq -r .wsUrl"
)]
pub(crate) struct NewArgs {
    /// Which fleet (the first one).
    #[arg(long, short)]
    pub(crate) fleet: Option<String>,
    /// Who plays (a new player). The same player gets their present session back.
    #[arg(long, short)]
    pub(crate) player: Option<String>,
    /// End (or leave) the player's present session first.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// JSON for the game.
    #[arg(long, value_name = "JSON")]
    pub(crate) payload: Option<String>,
    /// First deadline: seconds, "30m" or "none".
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_duration: Option<String>,
    /// Wait until the game accepts, at most this many seconds (60).
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<f64>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SessionsVerb {
    /// List live sessions.
    Ls {
        /// Only of this fleet.
        #[arg(long, short)]
        fleet: Option<String>,
        /// Only in this phase.
        #[arg(long)]
        phase: Option<String>,
        /// Only with this player.
        #[arg(long, short)]
        player: Option<String>,
    },
    /// Show one session.
    Get {
        /// The session.
        id: String,
    },
    /// End a session for everybody.
    End {
        /// The session.
        id: String,
    },
    /// Print the log of a session's instance, also after its end.
    Logs {
        /// The session.
        id: String,
        /// Go on with what is written later, until the end.
        #[arg(long, short)]
        follow: bool,
        /// Only this many of the last bytes.
        #[arg(long, value_name = "BYTES")]
        tail: Option<u64>,
    },
    /// Explain why a session is alive, and when and why it would end.
    Why {
        /// The session.
        id: String,
    },
    /// Follow a session's events until it ends.
    Watch {
        /// The session.
        id: String,
    },
    /// Push a session's deadline.
    Extend {
        /// The session.
        id: String,
        /// By how much: seconds or "10m".
        by: String,
        /// Lift the ceiling too.
        #[arg(long)]
        raise_limit: bool,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FleetsVerb {
    /// List fleets.
    Ls,
    /// Show one fleet, with its last plan and the reason for it.
    Get {
        /// The fleet.
        name: String,
    },
    /// Follow how fleets change, until Ctrl-C: a line for each change, with its time and the reason of the plan behind it.
    ///
    /// What has changed is shown as `before->after`. It goes on when the server is started again. With --output json each line is one JSON
    /// object: the fleet as `fleets get` shows it, and when it was so (`at`).
    #[command(
        after_help = "Examples:\n  spawnpoint fleets watch\n  spawnpoint fleets watch arena --output json | jq -r '[.at, .warm, .claimed, .last_plan.because] | @tsv'"
    )]
    Watch {
        /// Only this fleet (all).
        name: Option<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MatchesVerb {
    /// List records, newest first.
    Ls {
        /// Only of this fleet.
        #[arg(long, short)]
        fleet: Option<String>,
        /// Only with this player.
        #[arg(long, short)]
        player: Option<String>,
        /// Only those that ended for this reason.
        #[arg(long)]
        reason: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one record.
    Get {
        /// The match's session.
        id: String,
    },
    /// Print the log that was kept with a record.
    Logs {
        /// The match's session.
        id: String,
    },
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  spawnpoint load                                       50 clients, matches of 30 s, against `spawnpoint up` here
  CLIENTS=200 SPAWN_RATE=10 spawnpoint load             200, ten a second
  spawnpoint load --match-duration 1.5 --wait-only      every match has to end by itself
  spawnpoint load --mode websocket --match-duration 20  plays the bundled spice
  spawnpoint load --report load.html                    a page with plots

Exits with 1 if a single client failed, a record is missing or its reason is wrong, or the run was ended early (Ctrl-C), and with 3 if
no server answers. The key of a server that has keys is read from SPAWNPOINT_KEY. How to read the results: docs/load-testing.md.")]
pub(crate) struct LoadArgs {
    /// How many clients.
    #[arg(long, env = "CLIENTS", default_value = "50", value_name = "N", value_parser = spawnpoint_load::plan::clients)]
    pub(crate) clients: usize,
    /// The server's public address; https, a base path and a trailing slash are fine.
    #[arg(
        long,
        env = "TARGET_URL",
        default_value = "http://localhost:8080",
        value_name = "URL"
    )]
    pub(crate) target_url: spawnpoint_load::Target,
    /// How long a match lasts, seconds with fractions.
    #[arg(long, env = "MATCH_DURATION", default_value = "30.0", value_name = "SECONDS", value_parser = spawnpoint_load::plan::seconds)]
    pub(crate) match_duration: Duration,
    /// Clients started a second; 0 starts all at once.
    #[arg(long, env = "SPAWN_RATE", default_value = "0", value_name = "RATE", value_parser = spawnpoint_load::plan::spawn_rate)]
    pub(crate) spawn_rate: f64,
    /// Dial games at this host instead of the one the server answers; the port stays.
    #[arg(long, env = "GAME_SERVER_HOST_OVERRIDE", value_name = "HOST")]
    pub(crate) game_server_host_override: Option<String>,
    /// Which fleet (the first one that speaks what --mode says).
    #[arg(long, short, value_name = "NAME")]
    pub(crate) fleet: Option<String>,
    /// Which queue (the fleet's own).
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// What is played.
    #[arg(long, value_enum, default_value_t = LoadMode::Tcp)]
    pub(crate) mode: LoadMode,
    /// Join as guests whom the server names, without a key.
    #[arg(long)]
    pub(crate) guests: bool,
    /// Never end a match: one that does not end by itself is a failure.
    #[arg(long)]
    pub(crate) wait_only: bool,
    /// How long after its time a match may still run before its end is forced.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = spawnpoint_load::plan::seconds_or_none)]
    pub(crate) margin: Duration,
    /// Longest any other step may take: being matched, the game's first word, the end call.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = spawnpoint_load::plan::seconds)]
    pub(crate) timeout: Duration,
    /// Between two questions of a playing client.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = spawnpoint_load::plan::seconds)]
    pub(crate) poll: Duration,
    /// Let clients find their way back for so long when a connection or the server goes away; what they overcame is counted apart.
    #[arg(long, default_value = "0", value_name = "SECONDS", value_parser = spawnpoint_load::plan::seconds_or_none)]
    pub(crate) reconnect: Duration,
    /// Whether a TCP connection begins with SPAWNPOINT <token>.
    #[arg(long, value_enum, default_value_t = LoadTokenLine::Auto, value_name = "WHEN")]
    pub(crate) token_line: LoadTokenLine,
    /// The same seed steers the same clients.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Write a page with plots: one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadMode {
    /// Lines over TCP: GET_STATE and REQUEST_MATCH, as arena-tcp speaks.
    Tcp,
    /// The bundled game spice.
    Websocket,
}

/// Whether a client brings its token in the first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadTokenLine {
    /// Where the gateway takes it.
    Auto,
    /// Also where the game itself has to.
    Always,
    /// Nowhere.
    Never,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A directory of log files, or one of them (`decisions` in the state directory).
    pub(crate) path: Option<PathBuf>,
    /// Only this session; each of its decisions is shown.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// The configuration file that says where the state directory is (./spawnpoint.toml if it exists).
    #[arg(long, short, env = "SPAWNPOINT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state directory (.spawnpoint beside the file).
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Exits with 1 when a check fails. Warnings are no failures.")]
pub(crate) struct DoctorArgs {
    /// The configuration file (./spawnpoint.toml if it exists).
    #[arg(long, short, env = "SPAWNPOINT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_servers_own_flags_are_not_ours() {
        let cli = Cli::try_parse_from([
            "spawnpoint",
            "run",
            "--port",
            "9000",
            "--",
            "./server",
            "--port",
            "$(PORT)",
            "--help",
        ])
        .unwrap();
        let Verb::Run(args) = cli.verb else {
            panic!("not run")
        };
        assert_eq!(args.serve.port, Some(9000));
        assert_eq!(args.command, ["./server", "--port", "$(PORT)", "--help"]);
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for words in [
            ["spawnpoint", "-o", "json", "sessions", "ls"],
            ["spawnpoint", "sessions", "ls", "-o", "json"],
        ] {
            assert_eq!(
                Cli::try_parse_from(words).unwrap().global.output,
                Format::Json
            );
        }
    }
}
