//! Every key there is, once: the parser reads by this table and `docs/configuration.md` is printed from it.

pub(super) mod queue;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use spawnpoint_core::FleetName;
use spawnpoint_core::lifecycle::{ActivityRule, EndRule, Joinable, OnCrash};
use spawnpoint_runtime::{Protocol, ReadyRule};

use spawnpoint_wire::tcp::TokenRule;

use super::convert::{self, Warm};
use super::value::Value;
use super::{ApiKey, Expose};

/// What holds when nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// This value, spelled as in a variable.
    Value(&'static str),
    /// What these words say; worked out by the parser.
    Words(&'static str),
    /// Nothing: it must be given.
    Required,
}

/// What is known of a key, whatever its type.
#[derive(Debug)]
pub(super) struct Meta {
    /// Its name within its section, snake_case, `run.` for the inner table.
    pub name: &'static str,
    /// Variables that set it besides `SPAWNPOINT_<SECTION>_<KEY>`.
    pub env: &'static [&'static str],
    /// What it takes, in words.
    pub form: &'static str,
    /// Without it.
    pub fallback: Fallback,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// Never shown.
    pub secret: bool,
}

/// A key with the function that gives its value a meaning.
pub(super) struct Key<T> {
    pub(super) meta: Meta,
    pub(super) convert: fn(&Value) -> Result<T, String>,
}

const fn key<T>(
    name: &'static str,
    form: &'static str,
    fallback: Fallback,
    convert: fn(&Value) -> Result<T, String>,
    meaning: &'static str,
) -> Key<T> {
    Key {
        meta: Meta {
            name,
            env: &[],
            form,
            fallback,
            meaning,
            secret: false,
        },
        convert,
    }
}

impl<T> Key<T> {
    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.meta.env = names;
        self
    }

    const fn secret(mut self) -> Self {
        self.meta.secret = true;
        self
    }
}

use Fallback::{Required, Value as Is, Words};

const DURATION: &str = "duration > 0";
const DURATION_OR_ZERO: &str = "duration";
const DURATION_OR_NONE: &str = "duration > 0, or `\"none\"`";

/// Section `[server]`.
pub(super) mod server {
    use super::{ApiKey, DURATION, Duration, IpAddr, Is, Key, Meta, PathBuf, Words, convert, key};

    const ADDRESSES: &str = "`\"localhost\"`, an IP address, or a list";
    const PORT: &str = "port, 0 for any free one";

    pub(crate) static HOST: Key<Vec<IpAddr>> =
        key("host", ADDRESSES, Is("localhost"), convert::bind_addresses, "Where the public listener (gateway, player API, `/play`) listens. Off loopback it needs `keys` or `guests`.")
            .env(&["SPAWNPOINT_HOST"]);
    pub(crate) static PORT_PUBLIC: Key<u16> = key(
        "port",
        PORT,
        Is("8080"),
        convert::port,
        "Port of the public listener.",
    )
    .env(&["SPAWNPOINT_PORT"]);
    pub(crate) static ADMIN_HOST: Key<Vec<IpAddr>> = key(
        "admin_host",
        ADDRESSES,
        Is("localhost"),
        convert::bind_addresses,
        "Where the admin listener listens. Off loopback it needs `keys`.",
    )
    .env(&["SPAWNPOINT_ADMIN_HOST"]);
    pub(crate) static ADMIN_PORT: Key<u16> = key(
        "admin_port",
        PORT,
        Is("8081"),
        convert::port,
        "Port of the admin listener.",
    )
    .env(&["SPAWNPOINT_ADMIN_PORT"]);
    pub(crate) static SDK_HOST: Key<Vec<IpAddr>> = key(
        "sdk_host",
        ADDRESSES,
        Is("localhost"),
        convert::bind_addresses,
        "Where the listener for game servers listens.",
    )
    .env(&["SPAWNPOINT_SDK_HOST"]);
    pub(crate) static SDK_PORT: Key<u16> = key(
        "sdk_port",
        PORT,
        Is("8082"),
        convert::port,
        "Port of the listener for game servers.",
    )
    .env(&["SPAWNPOINT_SDK_PORT"]);
    pub(crate) static PUBLIC_URL: Key<String> = key(
        "public_url",
        "URL of scheme and host",
        Words("the request's own `Host`"),
        convert::public_url,
        "How players reach the public listener, when that is not how it is bound.",
    )
    .env(&["SPAWNPOINT_PUBLIC_URL"]);
    pub(crate) static ALLOWED_HOSTS: Key<Vec<String>> =
        key("allowed_hosts", "list of host names", Is(""), convert::hosts, "`Host` names answered to, besides loopback names and that of `public_url`. Others get 403, so that a foreign page cannot reach this server by rebinding its own name.")
            .env(&["SPAWNPOINT_ALLOWED_HOSTS"]);
    pub(crate) static ALLOWED_ORIGINS: Key<Vec<String>> =
        key("allowed_origins", "list of origins", Is(""), convert::origins, "Origins of pages that may call, besides the server's own. Dev mode also allows loopback origins on any port.")
            .env(&["SPAWNPOINT_ALLOWED_ORIGINS"]);
    pub(crate) static KEYS: Key<Vec<ApiKey>> =
        key("keys", "list of `\"name:secret\"`, or a table `{ name = \"secret\" }`", Is(""), convert::keys, "Backend keys (secrets of 16 characters or more). None, on loopback and without guests, is dev mode: every local caller counts as a backend.")
            .env(&["SPAWNPOINT_KEYS"])
            .secret();
    pub(crate) static GUESTS: Key<bool> = key(
        "guests",
        "boolean",
        Is("false"),
        convert::boolean,
        "Strangers may start games; the server mints their ids.",
    )
    .env(&["SPAWNPOINT_GUESTS"]);
    pub(crate) static GUEST_STARTS: Key<u32> = key(
        "guest_starts_per_minute",
        "number",
        Is("30"),
        convert::rate,
        "Starts a minute that one address may make as a guest.",
    )
    .env(&["SPAWNPOINT_GUEST_STARTS_PER_MINUTE"]);
    pub(crate) static SESSIONS_PER_KEY: Key<Option<u32>> = key(
        "sessions_per_key",
        "number, or `\"none\"`",
        Is("none"),
        convert::count_or_none,
        "Live sessions that one backend key may have.",
    )
    .env(&["SPAWNPOINT_SESSIONS_PER_KEY"]);
    pub(crate) static STATE_DIR: Key<PathBuf> = key(
        "state_dir",
        "path",
        Words("`.spawnpoint` beside the file; without a file `$XDG_STATE_HOME/spawnpoint/default`"),
        convert::path,
        "Where instances, records and the signing key are kept. One server at a time.",
    )
    .env(&["SPAWNPOINT_STATE_DIR"]);
    pub(crate) static INSTANCE_PORTS: Key<(u16, u16)> = key(
        "instance_ports",
        "range `\"first-last\"`",
        Is("20000-24999"),
        convert::port_range,
        "Ports given to game servers. Keep it outside the system's ephemeral range.",
    )
    .env(&["SPAWNPOINT_INSTANCE_PORTS"]);
    pub(crate) static TCP_PORTS: Key<(u16, u16)> = key(
        "tcp_ports",
        "range `\"first-last\"`",
        Is("25000-27999"),
        convert::port_range,
        "Ports at which the gateway listens for TCP sessions, one each, on the addresses of the public listener.",
    )
    .env(&["SPAWNPOINT_TCP_PORTS"]);
    pub(crate) static RETENTION: Key<Duration> = key(
        "retention",
        DURATION,
        Is("30d"),
        convert::positive,
        "How long match records are kept.",
    )
    .env(&["SPAWNPOINT_RETENTION"]);
    pub(crate) static DECISION_LOG: Key<Option<u64>> = key(
        "decision_log",
        "size: `\"64Mi\"`, `\"1GB\"`, or `\"none\"`",
        Is("none"),
        convert::log_size_or_none,
        "How much is kept of the log of every decision with all that went into it, in `decisions` of the state directory: `spawnpoint replay` runs it again. `\"none\"` writes none.",
    )
    .env(&["SPAWNPOINT_DECISION_LOG"]);
    pub(crate) static NAME: Key<String> = key(
        "name",
        "text",
        Words("`HOSTNAME`, else `spawnpoint`"),
        convert::text,
        "Names this server in records and logs.",
    )
    .env(&["SPAWNPOINT_NAME", "HOSTNAME"]);

    /// All of them, in the order of the documentation.
    pub(crate) static ALL: &[&Meta] = &[
        &HOST.meta,
        &PORT_PUBLIC.meta,
        &ADMIN_HOST.meta,
        &ADMIN_PORT.meta,
        &SDK_HOST.meta,
        &SDK_PORT.meta,
        &PUBLIC_URL.meta,
        &ALLOWED_HOSTS.meta,
        &ALLOWED_ORIGINS.meta,
        &KEYS.meta,
        &GUESTS.meta,
        &GUEST_STARTS.meta,
        &SESSIONS_PER_KEY.meta,
        &STATE_DIR.meta,
        &INSTANCE_PORTS.meta,
        &TCP_PORTS.meta,
        &RETENTION.meta,
        &DECISION_LOG.meta,
        &NAME.meta,
    ];
}

/// Section `[[fleet]]`.
pub(super) mod fleet {
    use super::{
        ActivityRule, BTreeMap, DURATION, DURATION_OR_NONE, DURATION_OR_ZERO, Duration, EndRule,
        Expose, FleetName, Is, Joinable, Key, Meta, OnCrash, PathBuf, Protocol, ReadyRule,
        Required, TokenRule, Warm, Words, convert, key,
    };

    pub(crate) static NAME: Key<FleetName> = key(
        "name",
        "DNS label",
        Required,
        convert::fleet_name,
        "The fleet's name: lower-case letters, digits and hyphens, at most 63. The first fleet of the file is the default of `POST /api/new-game`.",
    );
    pub(crate) static COMMAND: Key<Vec<String>> = key(
        "run.command",
        "list of texts",
        Required,
        convert::command,
        "Program and arguments. `$(PORT)`, `$(SESSION_ID)` and `$(NAME)` of any variable given are expanded. A program with a slash is looked up from the file's directory.",
    );
    pub(crate) static IMAGE: Key<()> = key(
        "run.image",
        "text",
        Words("none"),
        convert::anything,
        "A container image. Refused by this release, which runs processes.",
    );
    pub(crate) static ENV: Key<BTreeMap<String, String>> = key(
        "run.env",
        "table of texts",
        Is("{}"),
        convert::environment,
        "Variables for the game, besides PATH, HOME, LANG and those Spawnpoint gives.",
    )
    .secret();
    pub(crate) static WORKDIR: Key<PathBuf> = key(
        "run.workdir",
        "path",
        Words("the file's directory; without a file the instance's own"),
        convert::path,
        "Working directory of the game; a relative one begins at the file's directory.",
    );
    pub(crate) static CPU: Key<u32> = key(
        "run.cpu",
        "cores: `2`, `0.5`, `\"500m\"`",
        Words("no limit"),
        convert::cpu,
        "Processor limit, where the machine allows limits (`spawnpoint doctor` says).",
    );
    pub(crate) static MEMORY: Key<u64> = key(
        "run.memory",
        "size: `\"512Mi\"`, `\"512MB\"`, bytes",
        Words("no limit"),
        convert::memory,
        "Memory limit, where the machine allows limits.",
    );
    pub(crate) static PORT: Key<u16> = key(
        "port",
        "port",
        Words("one of `instance_ports`"),
        convert::game_port,
        "A port that the game insists on. Only one instance can listen on it, so `max_instances` is 1.",
    );
    pub(crate) static PROTOCOL: Key<Protocol> = key(
        "protocol",
        "`websocket`, `http`, `tcp` or `udp`",
        Is("websocket"),
        convert::protocol,
        "What the game speaks on its port.",
    );
    pub(crate) static EXPOSE: Key<Expose> = key(
        "expose",
        "`gateway` or `host_port`",
        Is("gateway"),
        convert::expose,
        "How players reach it: under one address that never changes (a URL, or for TCP a port of the session's own), or at the instance's own port. UDP needs `host_port`.",
    );
    pub(crate) static TCP_AUTH: Key<TokenRule> = key(
        "tcp_auth",
        "`required` or `none`",
        Words("required, but not of connections from this machine"),
        convert::tcp_auth,
        "Whether TCP players must begin with the line `SPAWNPOINT <token>`. `required` asks everybody, on this machine too (for a proxy in front that makes everybody look local); `none` nobody. A line that is sent is checked and taken out in any case.",
    );
    pub(crate) static PROXY_PROTOCOL: Key<bool> = key(
        "proxy_protocol",
        "boolean",
        Is("false"),
        convert::boolean,
        "A TCP game is told who connects: a PROXY protocol v2 header comes before the player's first byte.",
    );
    pub(crate) static WARM: Key<Warm> = key(
        "warm",
        "number, `{ replicas, max_age }` (`max_age` is a duration), or `\"none\"`",
        Is("0"),
        convert::warm,
        "Instances kept started and unclaimed; renewed at `max_age`. `\"none\"`: never, because the server needs everything in its environment.",
    );
    pub(crate) static MAX_INSTANCES: Key<Option<u32>> = key(
        "max_instances",
        "number, or `\"none\"`",
        Is("none"),
        convert::count_or_none,
        "Most instances of any kind; further sessions wait in a queue.",
    );
    pub(crate) static READY: Key<ReadyRule> = key(
        "ready",
        "`\"dial\"`, `{ http = \"/path\" }`, `{ log = \"text\" }`, `\"sdk\"` or `\"none\"`",
        Is("dial"),
        convert::ready,
        "How an instance is known to be ready.",
    );
    pub(crate) static HEARTBEAT: Key<Duration> = key(
        "heartbeat",
        DURATION,
        Is("5s"),
        convert::positive,
        "How often clients are asked for a heartbeat.",
    );
    pub(crate) static IDLE: Key<Option<Duration>> = key(
        "idle_timeout",
        DURATION_OR_NONE,
        Is("5m"),
        convert::positive_or_none,
        "Without activity for this long the session ends (`idle`).",
    );
    pub(crate) static MAX: Key<Option<Duration>> = key(
        "max_duration",
        DURATION_OR_NONE,
        Is("30m"),
        convert::positive_or_none,
        "First absolute deadline of a session (`max_duration`).",
    );
    pub(crate) static MAX_LIMIT: Key<Option<Duration>> = key(
        "max_duration_limit",
        DURATION_OR_NONE,
        Words("`max_duration`"),
        convert::positive_or_none,
        "Nothing extends a session past this.",
    );
    pub(crate) static QUEUE: Key<Duration> = key(
        "queue_timeout",
        DURATION,
        Is("5m"),
        convert::positive,
        "Longest wait for capacity.",
    );
    pub(crate) static BOOT: Key<Duration> = key(
        "boot_timeout",
        DURATION,
        Is("45s"),
        convert::positive,
        "Longest start, until the instance is ready (`start_failed`).",
    );
    pub(crate) static JOIN: Key<Option<Duration>> = key(
        "join_timeout",
        DURATION_OR_NONE,
        Is("60s"),
        convert::positive_or_none,
        "Ready and nobody ever came for this long: the session ends (`never_joined`).",
    );
    pub(crate) static RECONNECT: Key<Duration> = key(
        "reconnect_grace",
        DURATION_OR_ZERO,
        Is("30s"),
        convert::duration,
        "How long a session waits after its last player left (`empty`).",
    );
    pub(crate) static WARNINGS: Key<Vec<Duration>> = key(
        "warnings",
        "list of durations",
        Is("60s,10s"),
        convert::durations,
        "How long before an end its warnings go out.",
    );
    pub(crate) static GRACE: Key<Duration> = key(
        "termination_grace",
        DURATION_OR_ZERO,
        Is("10s"),
        convert::duration,
        "Between SIGTERM and SIGKILL.",
    );
    pub(crate) static ACTIVITY: Key<ActivityRule> = key(
        "activity",
        "`client_data`, `any` or `heartbeat`",
        Words("`client_data`; `heartbeat` with `expose = \"host_port\"`"),
        convert::activity,
        "What counts as a player doing something: data from the client, data in either direction, or heartbeats only.",
    );
    pub(crate) static ON_CRASH: Key<OnCrash> = key(
        "on_crash",
        "`replace`, `restart` or `end`",
        Is("replace"),
        convert::on_crash,
        "After a crash: a new instance under the same URL, the same one started again, or the end. Three crashes in 60 s end it.",
    );
    pub(crate) static END_BY: Key<EndRule> = key(
        "end_by",
        "`owner`, `any` or `all`",
        Is("owner"),
        convert::end_by,
        "Whose call ends the session for everybody.",
    );
    pub(crate) static JOINABLE: Key<Joinable> = key(
        "joinable",
        "`open`, `invite` or `closed`",
        Is("invite"),
        convert::joinable,
        "Who may join somebody's session: anyone with its id, with its invite code, or nobody.",
    );
    pub(crate) static MAX_PLAYERS: Key<usize> = key(
        "max_players",
        "1 to 100",
        Is("100"),
        convert::players,
        "Most players of one session.",
    );
    pub(crate) static GUESTS: Key<bool> = key(
        "guests",
        "boolean",
        Words("true"),
        convert::boolean,
        "Guests may start sessions of this fleet, where `server.guests` allows guests at all.",
    );
    pub(crate) static ACCESS: Key<bool> = key(
        "access",
        "list of `\"key\"`, `\"guest\"`",
        Words("`[\"key\", \"guest\"]`"),
        convert::access,
        "The same as a list: who may start sessions of this fleet.",
    );
    pub(crate) static LABELS: Key<BTreeMap<String, String>> = key(
        "labels",
        "table of texts",
        Is("{}"),
        convert::labels,
        "Free text, shown to people.",
    );

    /// All of them, in the order of the documentation.
    pub(crate) static ALL: &[&Meta] = &[
        &NAME.meta,
        &COMMAND.meta,
        &IMAGE.meta,
        &ENV.meta,
        &WORKDIR.meta,
        &CPU.meta,
        &MEMORY.meta,
        &PORT.meta,
        &PROTOCOL.meta,
        &EXPOSE.meta,
        &TCP_AUTH.meta,
        &PROXY_PROTOCOL.meta,
        &WARM.meta,
        &MAX_INSTANCES.meta,
        &READY.meta,
        &HEARTBEAT.meta,
        &IDLE.meta,
        &MAX.meta,
        &MAX_LIMIT.meta,
        &QUEUE.meta,
        &BOOT.meta,
        &JOIN.meta,
        &RECONNECT.meta,
        &WARNINGS.meta,
        &GRACE.meta,
        &ACTIVITY.meta,
        &ON_CRASH.meta,
        &END_BY.meta,
        &JOINABLE.meta,
        &MAX_PLAYERS.meta,
        &GUESTS.meta,
        &ACCESS.meta,
        &LABELS.meta,
    ];
}

/// Keys of the product that this release does not have, with the sentence that says so.
pub(super) const LATER: [(&str, &str); 4] = [
    (
        "pod_template",
        "is for Kubernetes, which this release does not run on",
    ),
    (
        "scheduling",
        "is for Kubernetes, which this release does not run on",
    ),
    (
        "update",
        "is for Kubernetes, which this release does not run on",
    ),
    (
        "match",
        "belongs to a queue: write [[queue]] with its rules",
    ),
];
